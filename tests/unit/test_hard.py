"""Hard splits: what is held out is nowhere in training, and equal materials stand on one side."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matdarwin.data.hard import by_chemical_system, by_scaffold, extrapolate, leave_element_out
from matdarwin.data.sources import DataError
from matdarwin.materials import parse, parse_composition
from matdarwin.materials.material import Kind, Material
from matdarwin.tasks.schema import Example

_SMILES = ("c1ccccc1", "c1ccncc1", "C1CCCCC1", "C1CCCC1", "c1ccc2ccccc2c1", "C1CCOC1", "c1ccsc1")
"""Seven scaffolds, of which none is part of another's side chain."""


def row(number: int, material: Material, target: Any = 1.0) -> Example:
    return Example("invented", str(number), material, target=target)


def compositions(seed: int, count: int) -> list[Example]:
    """Few elements, so that systems repeat; some rows share a second key with another material."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        symbols = rng.sample(["Fe", "O", "S", "Cu", "Zn", "N"], rng.randint(1, 3))
        material = parse_composition(" ".join(f"{symbol}{rng.randint(1, 3)}" for symbol in symbols))
        if rng.random() < 0.1:
            material = replace(material, keys=(material.key, f"other:{rng.randrange(4)}"))
        made.append(row(number, material, float(rng.randrange(10))))
    return made


def keys(examples: Sequence[Example]) -> set[str]:
    return {key for example in examples for key in example.material.keys}


def is_division(examples: list[Example], train: list[Example], test: list[Example]) -> bool:
    return bool(train) and bool(test) and sorted(map(int, (e.row for e in train + test))) == list(range(len(examples)))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 60), st.sampled_from(("Fe", "O", "S")))
def test_an_element_that_is_left_out_is_nowhere_in_training(seed: int, count: int, element: str) -> None:
    examples = compositions(seed, count)
    holders = [example for example in examples if element in example.material.elements]
    try:
        train, test = leave_element_out(examples, element)
    except DataError as error:
        # Every row may be held by the element itself, or by a key that it shares with one that has it.
        assert not holders or "every row" in str(error)
        return
    assert is_division(examples, train, test)
    assert all(element not in example.material.elements for example in train)
    assert all(example in test for example in holders)
    assert keys(train).isdisjoint(keys(test))
    assert [int(e.row) for e in train] == sorted(int(e.row) for e in train)


def test_rows_without_the_element_are_test_rows_only_by_a_shared_key() -> None:
    iron, zinc, copper = (parse_composition(text) for text in ("Fe O", "Zn O", "Cu O"))
    joined = replace(zinc, keys=(zinc.key, iron.key))
    train, test = leave_element_out([row(0, iron), row(1, joined), row(2, copper)], "Fe")
    assert [e.row for e in train] == ["2"] and [e.row for e in test] == ["0", "1"]


def test_an_element_that_cannot_be_left_out_is_named() -> None:
    examples = [row(0, parse_composition("Fe2O3")), row(1, parse_composition("Fe S"))]
    for element, message in (
        ("Xx", "'Xx' is no element"),
        ("fe", "'fe' is no element"),
        ("Cu", "no row contains Cu.*those that occur are Fe, O, S"),
        ("Fe", "every row contains Fe"),
    ):
        with pytest.raises(DataError, match=message):
            leave_element_out(examples, element)
    with pytest.raises(DataError, match=r"no row contains O.*no rows"):
        leave_element_out([], "O")
    with pytest.raises(DataError, match=r"row 0 of task invented \(HKUST-1\) is a name without any"):
        leave_element_out([row(0, parse("HKUST-1", "name"))], "O")


Split = Callable[..., list[Example]]


def check_folds(split: Split, examples: list[Example], label: Callable[[Example], Any], folds: int, seed: int) -> None:
    """Every row has a fold, rows of one label or key have the same, and no fold is empty; in any order of the rows."""
    made = split(examples, folds=folds, seed=seed)
    assert [replace(e, fold=None) for e in made] == examples
    seen: dict[Any, set[int | None]] = defaultdict(set)
    for example in made:
        for key in (label(example), *example.material.keys):
            seen[key].add(example.fold)
    assert all(len(found) == 1 for found in seen.values())
    assert {example.fold for example in made} == set(range(folds))
    shuffled = random.Random(seed).sample(examples, len(examples))
    by_row = {example.row: example.fold for example in made}
    assert {e.row: e.fold for e in split(shuffled, folds=folds, seed=seed)} == by_row


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 80), st.integers(2, 5), st.integers(0, 5))
def test_a_chemical_system_is_in_one_fold(seed: int, count: int, folds: int, draw: int) -> None:
    examples = compositions(seed, count)
    try:
        check_folds(by_chemical_system, examples, lambda e: frozenset(e.material.elements), folds, draw)
    except DataError as error:
        assert "chemical systems do not make" in str(error)


def test_chemical_systems_fill_the_folds_evenly_and_the_seed_decides_among_equals() -> None:
    symbols = ["Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br"]
    examples = [
        row(10 * place + n, parse_composition(f"{symbol}{n + 1}O{2 * n + 1}"))
        for place, symbol in enumerate(symbols)
        for n in range(4)
    ]
    made = by_chemical_system(examples)
    assert [sum(e.fold == fold for e in made) for fold in range(5)] == [8] * 5
    assert made != by_chemical_system(examples, seed=1)
    with pytest.raises(DataError, match="10 chemical systems do not make 11 folds"):
        by_chemical_system(examples, folds=11)
    with pytest.raises(DataError, match="two or more folds"):
        by_chemical_system(examples, folds=1)
    with pytest.raises(DataError, match="is a name without any"):
        by_chemical_system([row(0, parse("HKUST-1", "name"))])


def molecules(seed: int, count: int) -> list[Example]:
    """Rings with a chain of the given scaffolds: one scaffold, several molecules, some stereo variants."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        chain = rng.choice(("C", "CC", "O", "Cl[C@H](F)", "Cl[C@@H](F)", "N"))
        made.append(row(number, parse(chain + rng.choice(_SMILES), "molecule")))
    return made


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(2, 4))
def test_a_scaffold_is_in_one_fold(seed: int, count: int, folds: int) -> None:
    examples = molecules(seed, count)

    def ring(example: Example) -> str:
        """Which of the seven rings it was made of: substitution changes no ring."""
        from rdkit import Chem

        molecule = Chem.MolFromSmiles(example.material.text)
        sizes = [len(found) for found in molecule.GetRingInfo().AtomRings()]
        atoms = sorted(a.GetSymbol() + str(a.GetIsAromatic()) for a in molecule.GetAtoms() if a.IsInRing())
        return f"{sizes} {atoms}"

    try:
        check_folds(by_scaffold, examples, ring, folds, seed)
    except DataError as error:
        assert "scaffolds do not make" in str(error)


def test_rdkit_does_not_chatter(capfd: pytest.CaptureFixture[str]) -> None:
    by_scaffold(
        [row(n, parse(text, "molecule")) for n, text in enumerate(("[H]c1ccccc1.[H]", "[H]C1CCCCC1.[H]"))], folds=2
    )
    assert capfd.readouterr().err == ""


def test_molecules_without_a_ring_stand_together_and_others_are_refused() -> None:
    texts = ("CCO", "CCCC", "CC(=O)O", "Cc1ccccc1", "CC1CCCCC1")
    made = by_scaffold([row(n, parse(text, "molecule")) for n, text in enumerate(texts)], folds=3)
    assert [e.fold for e in made[:3]] == [0, 0, 0] and {e.fold for e in made[3:]} == {1, 2}
    given: tuple[tuple[str, Kind], ...] = (("Fe2O3", "composition"), ("HKUST-1", "name"))
    for text, kind in given:
        with pytest.raises(DataError, match=f"scaffolds belong to molecules; row 0 .* is a {kind}"):
            by_scaffold([row(0, parse(text, kind))])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 60), st.floats(0.05, 0.6))
def test_no_training_row_reaches_the_targets_that_are_held_out(seed: int, count: int, share: float) -> None:
    examples = compositions(seed, count)
    try:
        train, test = extrapolate(examples, share)
    except DataError as error:
        assert "nothing is left to train on" in str(error)
        return
    assert is_division(examples, train, test)
    assert keys(train).isdisjoint(keys(test))
    assert len(test) >= share * count
    best = max(float(e.target) for e in train if e.target is not None)
    assert best < max(float(e.target) for e in test if e.target is not None)
    alone = [e for e in test if sum(not keys([e]).isdisjoint(keys([other])) for other in test) == 1]
    assert all(e.target is not None and float(e.target) > best for e in alone)


def test_the_highest_share_is_held_out_and_equal_targets_stand_together() -> None:
    texts = ("Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br")
    examples = [row(n, parse_composition(text), float(n)) for n, text in enumerate(texts)]
    train, test = extrapolate(examples, 0.3)
    assert [e.target for e in test] == [7, 8, 9] and len(train) == 7
    tied = [replace(e, target=5.0 if n > 4 else 1.0) for n, e in enumerate(examples)]
    assert len(extrapolate(tied, 0.1)[1]) == 5
    with pytest.raises(DataError, match="every material reaches 1, the limit of the highest 60%"):
        extrapolate(tied, 0.6)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(DataError, match="between 0 and 1"):
            extrapolate(examples, share)
    for target in ("metal", None):
        with pytest.raises(DataError, match="needs numbers; row 0"):
            extrapolate([replace(examples[0], target=target), *examples[1:]])
    with pytest.raises(DataError, match="no rows"):
        extrapolate([])
