"""Sentences of elements and compounds: every number is the table's, rounded as stated, and nothing unknown is said."""

from __future__ import annotations

import re
import sqlite3
import warnings
from contextlib import closing
from importlib import resources
from typing import Any

import pytest

from matdarwin.data.sentences import Pair, compounds, elements
from matdarwin.data.sources import DataError
from matdarwin.materials import parse_composition
from matdarwin.tasks.registry import load
from matdarwin.tasks.schema import Example, Task

NUMBER = re.compile(r"(?<![A-Za-z\d])-?\d+(?:\.\d+)?(?![\d.]*[A-Za-z\d])")
ALL = elements(each=3)


def stated(answer: str) -> float:
    """The one number that stands alone in an answer (not that of an ionization, an amount, or kg/m3)."""
    found = NUMBER.findall(answer)
    assert len(found) == 1, answer
    return float(found[0])


def looked_up(element: Any, fact: str) -> float:
    """The value from pymatgen's table, by a way of its own."""
    if fact == "valence":
        outer = re.findall(r"(\d)([spdf])(\d+)", element.electronic_structure.split("]")[-1])
        shell = max(int(level) for level, _, _ in outer)
        return sum(int(count) for level, kind, count in outer if int(level) == shell and kind in "sp")
    names = {
        "number": "Z",
        "group": "group",
        "period": "row",
        "electronegativity": "X",
        "radius": "atomic_radius",
        "mass": "atomic_mass",
        "melting": "melting_point",
        "boiling": "boiling_point",
        "density": "density_of_solid",
        "ionization": "ionization_energy",
    }
    if fact in names:
        return float(getattr(element, names[fact]))
    scale = 0.01 if fact in ("covalent", "surface") else 1
    columns = {
        "affinity": "electron_affinity",
        "covalent": "covalent_radius_pyykko",
        "surface": "vdw_radius",
        "polarizability": "dipole_polarizability",
        "heat": "molar_heat_capacity",
    }
    ((value,),) = database(f"select {columns[fact]} from elements where symbol = ?", element.symbol)
    return float(value) * scale


def database(query: str, given: Any) -> list[tuple[Any, ...]]:
    """What mendeleev's own file answers; its classes take half a second an element."""
    file = resources.files("mendeleev").joinpath("elements.db")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return connection.execute(query, (given,)).fetchall()


def test_every_number_is_that_of_the_table() -> None:
    from pymatgen.core.periodic_table import Element

    two = ("electronegativity", "radius", "mass", "ionization", "affinity", "covalent", "surface")
    for pair in ALL:
        symbol, fact, _ = pair.row.split(":")
        if fact == "states":
            told = {int(state) for state in re.findall(r"[+-]\d", pair.answer)}
            asked = "select oxidation_state from oxidationstates where category = 'main' and atomic_number = ?"
            assert told == {state for (state,) in database(asked, Element(symbol).Z)}, pair
            continue
        decimals = 2 if fact in two else 1 if fact in ("polarizability", "heat") else 0
        assert abs(stated(pair.answer) - looked_up(Element(symbol), fact)) <= 0.5001 * 10**-decimals, pair
        assert len(NUMBER.findall(pair.answer)[0].partition(".")[2]) == decimals, pair
        name = Element(symbol).long_name
        assert name.lower() in pair.answer.lower()
        assert re.search(rf"\b({symbol}|{name.lower()})\b", pair.question)


def test_units_stand_behind_their_numbers() -> None:
    units = {"radius": "angstrom", "mass": "u", "melting": "K", "boiling": "K", "density": "kg/m3", "ionization": "eV"}
    units |= {
        "affinity": "eV",
        "covalent": "angstrom",
        "surface": "angstrom",
        "polarizability": "cubic bohr",
        "heat": "J/mol/K",
    }
    for pair in ALL:
        fact = pair.row.split(":")[1]
        if fact == "states":
            continue
        after = NUMBER.split(pair.answer)[-1]
        assert after.strip(" .") == units.get(fact, ""), pair.answer


def test_what_is_unknown_is_left_out() -> None:
    rows = {pair.row.rpartition(":")[0] for pair in ALL}
    assert {"Si:melting", "Fe:group", "He:valence", "O:radius"} <= rows
    assert {"Cl:affinity", "U:covalent", "Xe:states"} <= rows
    absent = {
        "N:affinity",
        "Zn:affinity",
        "Pm:heat",
        "He:states",
        "He:electronegativity",
        "He:radius",
        "Fe:valence",
        "La:group",
        "Tc:mass",
        "O:density",
        "As:boiling",
    }
    assert not absent & rows
    assert not {row for row in rows if row.split(":")[0] in ("Fm", "Mt", "Ds", "Og")}
    assert not [pair for pair in ALL if "nan" in pair.answer.lower() or "none" in pair.answer.lower()]


def test_known_values_and_their_place() -> None:
    by_row = {pair.row: pair for pair in ALL}
    assert by_row["Si:melting:0"] == Pair(
        "What is the melting point of silicon?",
        "The melting point of silicon is 1687 K.",
        "Si:melting:0",
        "elements",
        key="composition:Si1.0000",
    )
    assert by_row["S:electronegativity:1"].answer == "Sulfur (S) has the Pauling electronegativity 2.58."
    assert by_row["Fe:states:0"].answer == "The list of usual oxidation states of iron is +2, +3."
    assert by_row["F:affinity:2"].answer == "For fluorine the electron affinity is 3.40 eV."
    assert by_row["C:valence:2"].answer == "For carbon the number of valence electrons is 4."


def test_wordings_are_drawn_by_the_seed_and_pymatgen_is_quiet() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = elements()
    assert one == elements(0) != elements(1)
    assert {pair.row.split(":")[2] for pair in one} == {"0", "1", "2"}
    assert set(one) < set(ALL) and len(ALL) == 3 * len(one) == len(set(ALL))
    for each in (0, 4):
        with pytest.raises(ValueError, match="3 wordings"):
            elements(each=each)


def computed(**changes: Any) -> Task:
    return load("zhuo_gap").model_copy(
        update={"id": "gaps", "origin": "computed", "property": "PBE gap", "decimals": 2} | changes
    )


def rows(**targets: float | None) -> list[Example]:
    return [
        Example("gaps", str(n), parse_composition(text), target=value)
        for n, (text, value) in enumerate(targets.items())
    ]


def test_compounds_are_stated_as_computed_with_unit_and_rounding() -> None:
    pairs = compounds(computed(), rows(Ga2As2=0.185, NaCl=5.0, ZnO=None, Fe=float("nan")), each=4)
    assert len(pairs) == 8
    assert {(pair.key, stated(pair.answer)) for pair in pairs} == {
        ("composition:As0.5000 Ga0.5000", 0.18),
        ("composition:Cl0.5000 Na0.5000", 5.0),
    }
    assert all(" eV" in pair.answer and (pair.task, pair.source) == ("gaps", "gaps") for pair in pairs)
    assert all("comput" in pair.question + pair.answer or "calculat" in pair.question for pair in pairs)
    assert all(re.search(r"Ga As|Na Cl", pair.question) and re.search(r"Ga As|Na Cl", pair.answer) for pair in pairs)


def test_rows_of_one_material_are_merged_and_minus_zero_is_not_written() -> None:
    pairs = compounds(computed(unit=None, property="computed energy"), rows(GaAs=-3.0, Ga2As2=-0.001, Ga3As3=1.0))
    assert [(pair.row[0], stated(pair.answer)) for pair in pairs] == [("0", 0.0)]
    assert "-0" not in pairs[0].answer and "computed computed" not in pairs[0].question


@pytest.mark.parametrize("changes", [{"origin": "measured"}, {"kind": "classification"}, {"conditions": ("t",)}])
def test_labels_and_what_depends_on_conditions_are_no_sentences(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="computed numbers without conditions"):
        compounds(computed(**changes), rows(GaAs=1.0))
