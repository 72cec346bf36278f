"""The short way for plain formulas gives what the whole parser gives, and leaves to it whatever is not plain."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matdarwin.materials import Material, MaterialError, parse_composition, plain
from matdarwin.materials.composition import count_atoms
from matdarwin.materials.elements import ELECTRONEGATIVITY

SYMBOLS = sorted(ELECTRONEGATIVITY)
parts = st.tuples(st.sampled_from(SYMBOLS), st.integers(1, 999_999) | st.integers(1, 12))
formulas = (
    st.lists(parts, min_size=1, max_size=8)
    .map(lambda found: "".join(symbol + (str(amount) if amount > 1 else "") for symbol, amount in found))
    .filter(lambda formula: "II" not in formula)
)  # FeII may mean an oxidation state, and is refused


def whole(formula: str) -> Material:
    """What the whole parser makes of it: the blank keeps it from the short way."""
    assert plain.amounts(f" {formula}") is None
    return replace(parse_composition(f" {formula}"), given=formula)


@given(formulas)
@example("Fe2O3")
@example("Ga2As2")
@example("HOH")
@example("C1")
@example("Og2He2Ne4")
@example("Ga1As1999")  # fractions that round to 0.0005 and end in a tie: 1/2000
def test_the_two_ways_agree(formula: str) -> None:
    found = plain.amounts(formula)
    assert found is not None
    assert plain.material(formula, found) == whole(formula) == parse_composition(formula)
    assert plain.key(found) == whole(formula).key


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4))
def test_ties_are_rounded_to_even_in_both(amounts: list[int]) -> None:
    # Multiples of 1/20000 lie halfway between two keys of 4 decimals.
    filled = [*amounts[:-1], 20_000 - sum(amounts[:-1])]
    formula = "".join(f"{symbol}{amount}" for symbol, amount in zip(("Ga", "As", "O", "Zn"), filled, strict=False))
    assert parse_composition(formula) == whole(formula)


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "Fe0.5O", "Fe(OH)3", "Fe2 O3", "Fe02", "Fe0", "fe", "Xx2", "H7DO3", "Fe1000000", "Fe\u0662", "CuSO4·5H2O", "C" * 201, "FeIII2O3"],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_parser(text: str) -> None:
    assert plain.amounts(text) is None


def test_faults_are_told_as_before() -> None:
    with pytest.raises(MaterialError, match="stands for a missing value"):
        parse_composition("NaN")
    with pytest.raises(MaterialError, match="`Xx` at position 0"):
        parse_composition("Xx2O3")


@pytest.mark.parametrize(
    ("formula", "atoms"),
    [("Hg2Cl2", "4"), ("HgCl", "2"), ("Al2(SO4)3", "17"), ("CuSO4·5H2O", "21"), ("Fe0.5O0.75", "1.25"), ("C60", "60")],
)
def test_atoms_are_those_of_the_formula_as_written(formula: str, atoms: str) -> None:
    assert count_atoms(formula) == Decimal(atoms)


def test_atoms_of_what_is_no_formula_are_refused() -> None:
    for text in ("", "NaN", "Xx2", "Fe("):
        with pytest.raises(MaterialError):
            count_atoms(text)
