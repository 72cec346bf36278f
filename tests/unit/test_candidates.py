"""Generated candidates: nothing twice, nothing lost, the same each time."""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import tiny_task

from matdarwin.data.sources import DataError
from matdarwin.materials import parse
from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.materials.material import MaterialError
from matdarwin.prediction import candidates
from matdarwin.prediction.candidates import CandidateError, Generated, by_substitution, known_of, of_elements, similar
from matdarwin.prediction.files import CsvTable
from matdarwin.prediction.prediction import Prediction
from matdarwin.prediction.screening import Wanted, screen


def texts(made: Generated, size: int = 7) -> list[str]:
    return [text for chunk in made.chunks("composition", size) for text in chunk.materials]


def keys(found: list[str]) -> list[str]:
    return [parse(text, "composition").key for text in found]


def test_all_compositions_of_two_elements() -> None:
    made = of_elements(["Zn", "S"], max_elements=2, max_atoms=4)
    assert texts(made) == ["Zn", "S", "ZnS", "ZnS2", "Zn2S", "ZnS3", "Zn3S"]
    assert made.count == 7 and made.columns == ["composition"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["Cd", "Zn", "Cu", "Sn", "S", "Se"]), min_size=1, max_size=4, unique=True),
    st.integers(1, 4),
    st.integers(1, 7),
)
def test_none_twice_none_lost_and_the_same_each_time(elements: list[str], kinds: int, atoms: int) -> None:
    made = of_elements(elements, max_elements=kinds, max_atoms=atoms)
    found = texts(made)
    assert found == texts(made, size=1000) and len(found) == made.count
    assert len(set(keys(found))) == len(found)
    expected = 0
    for count in range(1, min(kinds, len(elements)) + 1):
        ratios = itertools.product(range(1, atoms + 1), repeat=count)
        expected += math.comb(len(elements), count) * sum(sum(r) <= atoms and math.gcd(*r) == 1 for r in ratios)
    assert len(found) == expected


@pytest.mark.parametrize("elements", [["Zn", "S"], ["Cd", "Sn", "Se"], ["Cu", "Sn", "S"], ["Cd", "Cu", "Sn", "S"]])
def test_neutral_ones_are_those_of_smact(elements: list[str]) -> None:
    import smact
    from smact.screening import smact_filter

    ours = texts(of_elements(elements, max_elements=4, max_atoms=9, charge_neutral=True))
    theirs = set()
    for count in range(2, len(elements) + 1):
        for chosen in itertools.combinations(elements, count):
            rows = smact_filter(tuple(map(smact.Element, chosen)), threshold=9, species_unique=False)
            theirs |= {
                "".join(f"{s}{n if n > 1 else ''}" for s, n in zip(*row, strict=True))
                for row in rows
                if sum(row[1]) <= 9
            }
    assert set(ours) == theirs and len(ours) == len(theirs)


def test_known_semiconductors_are_neutral_and_an_alloy_is_not() -> None:
    found = texts(of_elements(["Cd", "Cu", "Sn", "S"], max_elements=4, max_atoms=8, charge_neutral=True))
    assert {"CdS", "Cu2S", "SnS2", "CdCu2SnS4"} <= set(found)
    assert not {"CdCu", "Cd2S", "Cd"} & set(found)


@pytest.mark.parametrize(
    ("elements", "options", "says"),
    [
        (["Zn", "Xx"], {}, "'Xx' is no element"),
        (["Zn", "Zn"], {}, "element Zn is named twice"),
        ([], {}, "no element is named"),
        (["Zn"], {"max_atoms": 0}, "at least one element and one atom"),
        (["Zn", "He"], {"charge_neutral": True}, "He has no oxidation states"),
        (["Cd", "Zn"], {"charge_neutral": True}, "nothing can be generated"),
    ],
)
def test_what_cannot_be_generated(elements: list[str], options: dict[str, Any], says: str) -> None:
    with pytest.raises(CandidateError, match=says):
        of_elements(elements, **options)


def test_similar_goes_both_ways() -> None:
    assert set(similar("S")) == {"O", "Se", "Te", "Po"}
    for symbol in ELECTRONEGATIVITY:
        assert all(symbol in similar(other) for other in similar(symbol))


def test_each_substitute_comes_once_with_its_first_parent() -> None:
    made = by_substitution(["GaN", "AlN", "InN", "Ga2N2"])
    rows = [cells for chunk in made.chunks("composition", 3) for cells in chunk.rows]
    found = [cells[0] for cells in rows]
    assert len(set(keys(found))) == len(found) == made.count
    # All three can become boron nitride; none of the known ones comes again.
    assert [cells for cells in rows if cells[0] == "BN"] == [["BN", "GaN"]]
    assert not set(keys(found)) & set(keys(["GaN", "AlN", "InN"]))
    assert {"TlN", "GaP", "AlAs", "InSb"} <= set(found)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from(["GaN", "AlP", "ZnS", "CdSe", "CuInS2", "Ga 0.5 In 0.5 As", "LiF"]), min_size=1, max_size=4
    ),
    st.integers(1, 2),
)
def test_substitutes_are_those_of_a_plain_search(known: list[str], most: int) -> None:
    parents = [parse(text, "composition") for text in known]
    wanted: set[str] = set()
    for parent in parents:
        for new in itertools.product(*[(e, *similar(e)) for e in parent.elements]):
            changed = [(a, b) for a, b in zip(parent.elements, new, strict=True) if a != b]
            if (
                1 <= len(changed) <= most
                and not {b for _, b in changed} & set(parent.elements)
                and len(set(new)) == len(new)
            ):
                pieces = zip(new, parent.parts, parent.elements, strict=True)
                wanted.add(parse(" ".join(s + part[len(e) :] for s, part, e in pieces), "composition").key)
    found = keys(texts(by_substitution(known, max_replaced=most)))
    assert len(found) == len(set(found))
    assert set(found) == wanted - {parent.key for parent in parents}


def test_neutral_substitutes_only() -> None:
    every = set(keys(texts(by_substitution(["CuInS2", "Na3Cl"]))))
    neutral = set(keys(texts(by_substitution(["CuInS2", "Na3Cl"], charge_neutral=True))))
    silver, potassium = keys(["AgInS2", "K3Cl"])
    assert neutral < every and silver in neutral and potassium in every - neutral


def test_fractions_stay() -> None:
    found = texts(by_substitution(["Ga 0.5 In 0.5 As"]))
    assert parse("Al 0.5 In 0.5 As", "composition").key in keys(found)
    assert parse("InAs", "composition").key not in keys(found)


def test_symbols_that_spell_a_missing_value_stand_apart() -> None:
    assert texts(of_elements(["Na", "N"], max_elements=2, max_atoms=3)) == ["Na", "N", "Na N", "NaN2", "Na2N"]
    found = texts(of_elements(["I", "N", "F"], max_atoms=3))
    assert "I N F" in found and "INF" not in found and len(keys(found)) == len(found)
    assert {"Na N", "KN"} <= set(texts(by_substitution(["LiN"])))


def test_what_cannot_be_substituted() -> None:
    with pytest.raises(CandidateError, match="no formula"):
        by_substitution([])
    with pytest.raises(CandidateError, match="at least one element"):
        by_substitution(["GaN"], max_replaced=0)
    with pytest.raises(MaterialError):
        by_substitution(["GaXx"])
    with pytest.raises(CandidateError, match="nothing can be generated"):
        by_substitution(["He"])


def test_identity_tells_what_differs() -> None:
    one = of_elements(["Zn", "S"], max_atoms=4).identity
    assert one != of_elements(["S", "Zn"], max_atoms=4).identity
    assert one != of_elements(["Zn", "S"], max_atoms=4, charge_neutral=True).identity
    assert by_substitution(["GaN"]).identity != by_substitution(["AlN"]).identity


def test_known_ones_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "known.csv"
    path.write_text("composition\nGaN\nXx\nZnO\n")
    assert known_of(CsvTable(path), "composition") == (["GaN", "ZnO"], 1)


def test_without_smact_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "smact":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    candidates._states.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    assert of_elements(["Zn", "S"]).count > 0
    with pytest.raises(CandidateError, match="pip install smact"):
        of_elements(["Zn", "S"], charge_neutral=True)


class Stopped(Exception):
    """The run ends here."""


def test_a_stopped_screen_of_candidates_goes_on(tmp_path: Path) -> None:
    """The same file as one that was never stopped; other limits are refused."""
    gap = tiny_task(tmp_path)
    asked: list[str] = []
    stopping = False

    def ask(materials: Sequence[str], task: str) -> list[Prediction]:
        if stopping and len(asked) > 20:
            raise Stopped
        asked.extend(materials)
        return [
            Prediction(
                input=text, material=text, task=task, value=float(len(text)), unit="eV", lower=None, upper=None,
                coverage=None, status="uncalibrated", reason="few", notes=(), model="m",
            )
            for text in materials
        ]  # fmt: skip

    def run(name: str, atoms: int = 6) -> bytes:
        made = of_elements(["Cd", "Zn", "S"], max_atoms=atoms)
        screen(
            made, "composition", tmp_path / name, [gap], ask, Wanted(by="value", top=9), model="m",
            identity={"input": made.identity}, size=10,
        )  # fmt: skip
        return (tmp_path / name).read_bytes()

    whole = run("whole.csv")
    once = list(asked)
    asked.clear()
    stopping = True
    with pytest.raises(Stopped):
        run("stopped.csv")
    stopping = False
    with pytest.raises(DataError, match="another input"):
        run("stopped.csv", atoms=7)
    assert run("stopped.csv") == whole
    assert asked == once
