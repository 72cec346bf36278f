"""What is found out from a column alone, and what is asked instead of guessed."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition
from rdkit import Chem

from matdarwin.data.guess import GuessError, grid, heading, representation, unit
from matdarwin.tasks.schema import MAX_GRID


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["GaN", "Fe2O3", "nonsense!"], "composition"),
        (["c1ccccc1", "CC(=O)O", "C#N"], "molecule"),
        (["HKUST-1 framework", "UiO-66 framework"], "name"),
        # Formulas as well as SMILES, all of them.
        (["CCO", "CCN", "CO"], "molecule"),
        (["C1CC1", "CO"], "molecule"),
        (["ClCCl", "FC(F)F"], "molecule"),
        # Not all of them.
        (["CO2", "CO", "NO"], "composition"),
        (["CO", "BN", "GaN"], "composition"),
        (["CO", "CN", "C=O"], "molecule"),
        (["BrI", "ClF", "[Na+].[Cl-]"], "molecule"),
    ],
)
def test_representation(texts: list[str], kind: str) -> None:
    assert representation(texts) == kind


def test_objects_say_what_they_are() -> None:
    assert representation([Chem.MolFromSmiles("CO")]) == "molecule"
    assert representation([Composition("CO")]) == "composition"


@pytest.mark.parametrize("texts", [["CO", "BN", "CS"], ["C", "N"], ["CO2", "C#N"]])
def test_what_may_be_either_is_asked(texts: list[str]) -> None:
    with pytest.raises(GuessError, match=f"{texts[0]}, .* may be formulas or SMILES; say which"):
        representation(texts)
    assert representation(texts, "Formula (reduced)") == representation(texts, "composition") == "composition"
    assert representation(texts, "canonical_smiles") == "molecule"


@given(st.lists(st.decimals(-1000, 1000, places=2), min_size=1, max_size=30))
def test_grid_holds_every_value(values: list[Decimal]) -> None:
    found = grid(values)
    low, high = found["bounds"]
    assert all(low <= value <= high for value in values) and low < high
    assert 0 <= found["decimals"] <= 2
    assert (high - low) * 10 ** found["decimals"] <= MAX_GRID
    assert low == 0 or min(values) < 0, "no room below zero where no value is"


def test_grid_of_what_fixed_decimals_cannot_hold() -> None:
    with pytest.raises(GuessError, match="give the log10"):
        grid([Decimal(f"1e{i}") for i in range(-6, 18)])


@pytest.mark.parametrize(
    ("column", "words", "named"),
    [
        ("gap (eV)", "gap", "eV"),
        ("Band_Gap [meV]", "band gap", "meV"),
        ("yield strength, MPa", "yield strength", "MPa"),
        ("Temperature / K", "temperature", "K"),
        ("gap_eV", "gap", "eV"),
        ("kappa (W/(m K))", "kappa", "W/(m K)"),
        ("PCE (%)", "PCE", "%"),
        ("Seebeck coefficient (\u03bcV/K)", "Seebeck coefficient", "\u03bcV/K"),
        # What is no unit stays with the words.
        ("gap (measured)", "gap (measured)", None),
        ("solubility in water", "solubility in water", None),
        ("ratio a/b", "ratio a/b", None),
        ("is_metal", "is metal", None),
        ("formation_energy_per_atom", "formation energy per atom", None),
        ("volume_per_cell", "volume per cell", None),
        ("gap_min", "gap min", None),
        ("copper_GPa", "copper", "GPa"),
        ("error_bar", "error bar", None),
        ("energy (eV/atom)", "energy", "eV/atom"),
        ("target", "target", None),
    ],
)
def test_a_column_names_words_and_a_unit(column: str, words: str, named: str | None) -> None:
    assert heading(column) == (words, named)


@pytest.mark.parametrize(
    "same",
    [
        ["W/m/K", "W m-1 K-1", "W/(m K)", "W m\u207b\u00b9 K\u207b\u00b9", "W\u00b7m^-1\u00b7K^-1"],
        ["uV/K", "\u00b5V/K", "\u03bcV/K"],
        ["ohm cm", "\u03a9 cm", "Ohm cm"],
        ["g/cm3", "g cm-3", "g/cm^3"],
    ],
)
def test_units_are_compared_by_what_they_mean(same: list[str]) -> None:
    assert len({str(sorted((unit(text) or {}).items())) for text in same}) == 1 and unit(same[0])


def test_units_that_differ_or_are_none() -> None:
    assert unit("meV") != unit("eV") and unit("W/m") != unit("W m") and unit("g/cm3") != unit("g/cm2")
    assert unit("W/mK") == unit("W/m/K"), "a slip that nobody means as millikelvin"
    assert unit("measured") is None and unit("") is None and unit("1/K") is None
