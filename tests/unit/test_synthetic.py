"""Each synthetic control keeps what it should and destroys what it should."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matdarwin.data.readers import read
from matdarwin.data.sources import DataError
from matdarwin.data.synthetic import Control, control
from matdarwin.materials import parse_composition, parse_molecule
from matdarwin.tasks.registry import load
from matdarwin.tasks.schema import Example, Task

GAP, METAL, ESOL, STEEL = load("expt_gap"), load("expt_is_metal"), load("esol"), load("steels_yield")
ALL: tuple[Control, ...] = ("syn1", "syn2", "syn3")
_AMOUNTS = ("", "2", "3", "0.5", "0.620", "7")
_ELEMENTS = [
    "H",
    "Li",
    "B",
    "C",
    "N",
    "O",
    "F",
    "Na",
    "Mg",
    "Al",
    "Si",
    "P",
    "S",
    "Cl",
    "K",
    "Ca",
    "Ti",
    "V",
    "Cr",
    "Mn",
    "Fe",
    "Co",
    "Ni",
    "Cu",
    "Zn",
    "Ga",
    "Ge",
    "As",
    "Se",
    "Br",
    "Sr",
    "Zr",
    "Mo",
    "Ag",
    "Cd",
    "In",
    "Sn",
    "Sb",
    "Te",
    "I",
    "Ba",
]


def rows(task: Task, count: int, seed: int = 0) -> list[Example]:
    """Invented materials whose value follows from their elements, two or more apiece, some measured twice."""
    rng = random.Random(seed)
    made = []
    while len(made) < count:
        chosen = rng.sample(_ELEMENTS, rng.randint(2, 5))
        text = " ".join(symbol + rng.choice(_AMOUNTS) for symbol in chosen)
        strength = sum(map(_ELEMENTS.index, chosen)) / len(chosen) / 4
        for _ in range(rng.choice((1, 1, 1, 2))):
            target: Any = round(strength, 2) if task.kind == "regression" else task.labels[int(strength > 5)]
            made.append(
                Example(task.id, str(len(made)), parse_composition(text), {}, ("computed gap 1 eV",), target, 2, 0.5)
            )
    return made[:count]


def rank_correlation(one: Sequence[Any], other: Sequence[Any]) -> float:
    """Spearman's, ties broken by mean rank."""

    def ranks(values: Sequence[Any]) -> Any:
        _, inverse, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def forms(examples: Sequence[Example]) -> tuple[Counter[int], Counter[str]]:
    """Of the different materials, how many have n elements, and how often each amount occurs."""
    materials = {row.material.key: row.material for row in examples}.values()
    amounts = Counter(re.sub("[A-Za-z]", "", part) for material in materials for part in material.parts)
    return Counter(len(material.elements) for material in materials), amounts


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 80), st.integers(0, 1000))
def test_syn1_keeps_materials_and_values_and_no_value_stays(count: int, seed: int) -> None:
    real = [replace(row, target=float(place)) for place, row in enumerate(rows(GAP, count, seed))]
    made = control(GAP, real, "syn1", seed=seed)
    assert [row.material for row in made] == [row.material for row in real]
    assert sorted(row.target for row in made) == sorted(row.target for row in real)  # type: ignore[type-var]
    assert all(row.target != other.target for row, other in zip(made, real, strict=True))
    assert [(row.conditions, row.evidence, row.fold) for row in made] == [
        (row.conditions, row.evidence, row.fold) for row in real
    ]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.integers(0, 1000), st.sampled_from(("syn2", "syn3")))
def test_random_materials_have_the_format_and_none_is_real(count: int, seed: int, which: Control) -> None:
    real = rows(GAP, count + 2, seed)
    made = control(GAP, real, which, seed=seed)
    old, new = [row.material.key for row in real], [row.material.key for row in made]
    assert set(old).isdisjoint(new)
    # Rows that shared a material share one, and no others do.
    assert len(set(zip(old, new, strict=True))) == len(set(old)) == len(set(new))
    assert forms(made) == forms(real)
    assert {e for row in made for e in row.material.elements} <= {e for row in real for e in row.material.elements}
    assert all(row.evidence == () and row.fold is None for row in made)


@pytest.mark.parametrize("seed", range(3))
def test_syn3_keeps_every_value_and_syn2_its_range_and_decimals(seed: int) -> None:
    real = rows(GAP, 300, seed)
    made = control(GAP, real, "syn3", seed=seed)
    assert [row.target for row in made] == [row.target for row in real]
    targets = [float(row.target) for row in real if row.target is not None]
    drawn = [float(row.target) for row in control(GAP, real, "syn2", seed=seed) if row.target is not None]
    assert min(targets) <= min(drawn) and max(drawn) <= max(targets)
    assert all(round(value, 2) == value for value in drawn)
    # Uniform: a quarter in each quarter of the range, where the real ones heap up in the middle.
    quarters = np.histogram(drawn, bins=4, range=(min(targets), max(targets)))[0]
    assert quarters.min() > 35


@pytest.mark.parametrize("which", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_what_a_material_says_of_its_value_is_gone(which: Control, seed: int) -> None:
    real = rows(GAP, 600, seed)

    def strength(examples: list[Example]) -> list[float]:
        """What the real values follow from, as far as the material's text says it."""
        return [float(np.mean([_ELEMENTS.index(e) for e in row.material.elements])) for row in examples]

    values = [float(row.target) for row in real if row.target is not None]
    made = control(GAP, real, which, seed=seed)
    drawn = [float(row.target) for row in made if row.target is not None]
    assert rank_correlation(values, strength(real)) > 0.95
    assert abs(rank_correlation(drawn, strength(made))) < 0.13  # over three standard errors
    if which != "syn3":
        assert abs(rank_correlation(drawn, values)) < 0.13
    if which != "syn1":  # nor do the amounts and number of elements, which come from another material
        sizes = [len(row.material.elements) for row in real]
        assert abs(rank_correlation([len(row.material.elements) for row in made], sizes)) < 0.13


def test_classes_keep_their_counts_in_syn1_and_syn3_and_are_even_in_syn2() -> None:
    real = [replace(row, target=METAL.labels[place % 5 == 0]) for place, row in enumerate(rows(METAL, 500))]
    counts = Counter(row.target for row in real)
    for which in ("syn1", "syn3"):
        assert Counter(row.target for row in control(METAL, real, which, seed=0)) == counts  # type: ignore[arg-type]
    even = Counter(row.target for row in control(METAL, real, "syn2", seed=0))
    assert set(even) == set(METAL.labels) and min(even.values()) > 200


@pytest.mark.parametrize("which", ALL)
def test_a_control_is_seeded_counted_and_marked(which: Control) -> None:
    real = rows(GAP, 50)
    made = control(GAP, real, which, seed=1)
    assert made == control(GAP, real, which, seed=1)
    other = control(GAP, real, which, seed=2)
    assert [(row.material, row.target) for row in made] != [(row.material, row.target) for row in other]
    assert [row.row for row in made] == [f"{which}-{row.row}" for row in real]
    assert all(row.task == GAP.id and row.spread == 0 for row in made)


def test_keys_to_avoid_are_avoided() -> None:
    real = [replace(row, target=1.0) for row in rows(GAP, 40)]
    first = control(GAP, real, "syn3", seed=0)
    avoid = {row.material.key for row in first}
    assert avoid.isdisjoint(row.material.key for row in control(GAP, real, "syn3", seed=0, avoid=avoid))


def test_conditions_stay_with_their_row() -> None:
    real = [replace(row, conditions={"temperature": float(place)}) for place, row in enumerate(rows(GAP, 20))]
    for which in ALL:
        made = control(GAP, real, which, seed=0)
        assert [row.conditions for row in made] == [row.conditions for row in real]


def test_what_cannot_be_made_is_named() -> None:
    molecules = [Example(ESOL.id, str(n), parse_molecule("C" * n), target=-1.0) for n in (1, 2, 3)]
    for which in ("syn2", "syn3"):
        with pytest.raises(DataError, match=r"compositions alone.* molecule; use syn1"):
            control(ESOL, molecules, which, seed=0)  # type: ignore[arg-type]
    assert len(control(ESOL, molecules, "syn1", seed=0)) == 3
    one = rows(GAP, 1)
    with pytest.raises(DataError, match="two or more, got 1"):
        control(GAP, one, "syn1", seed=0)
    with pytest.raises(DataError, match="two or more different materials"):
        control(GAP, [one[0], one[0]], "syn3", seed=0)
    with pytest.raises(DataError, match="row 0 has no target"):
        control(GAP, [replace(one[0], target=None)] * 2, "syn1", seed=0)
    pure = [Example(GAP.id, text, parse_composition(text), target=1.0) for text in ("Si", "Ge")]
    with pytest.raises(DataError, match="real materials alone"):
        control(GAP, pure, "syn3", seed=0)


@pytest.mark.mirror
@pytest.mark.parametrize("task", [GAP, METAL, STEEL], ids=lambda task: task.id)
def test_the_real_tables_have_room_for_random_materials(task: Task, mirror: Path) -> None:
    real = read(task).examples
    made = control(task, real, "syn2", seed=0)
    assert len(made) == len(real) and forms(made) == forms(real)
    assert {row.material.key for row in made}.isdisjoint(row.material.key for row in real)
