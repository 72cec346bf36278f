"""Writing: elements in the order asked for, amounts as in the formula or in per cent; nothing left to chance but by a given generator."""

from __future__ import annotations

import itertools
import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matdarwin.language.writing import Writing
from matdarwin.materials import parse
from matdarwin.materials.composition import split_part

VIEWS = Writing("permuted")


def test_orders() -> None:
    material = parse("S3Ge Ag2", "composition")
    assert Writing("source").text(material) == "S3 Ge Ag2"
    assert Writing("canonical").text(material) == material.text
    with pytest.raises(ValueError, match="needs a random generator"):
        Writing("permuted").text(material)


def test_permuted_draws_from_the_given_generator_alone() -> None:
    material = parse("Ag2GeS3", "composition")
    random.seed(1)
    first = [Writing("permuted").text(material, random.Random(5)) for _ in range(3)]
    random.seed(2)
    state = random.getstate()
    second = [Writing("permuted").text(material, random.Random(5)) for _ in range(3)]
    assert first == second and random.getstate() == state
    rng = random.Random(0)
    seen = {Writing("permuted").text(material, rng) for _ in range(200)}
    assert seen == {" ".join(p) for p in itertools.permutations(["Ag2", "Ge", "S3"])}


@given(st.sampled_from(["Ag2GeS3", "GaN", "Fe", "Cu2ZnSnS4", "La0.5Sr0.5MnO3"]), st.integers(1, 16))
def test_views_are_different_orders_canonical_first_and_always_the_same(formula: str, count: int) -> None:
    material = parse(formula, "composition")
    made = VIEWS.views(material, count)
    assert made[0] == material.text and len(set(made)) == len(made) <= count
    assert all(sorted(view.split()) == sorted(material.parts) for view in made)
    assert made == VIEWS.views(material, count)
    assert made[: len(VIEWS.views(material, 1))] == VIEWS.views(material, 1)


def test_views_do_not_depend_on_how_the_formula_was_written() -> None:
    assert VIEWS.views(parse("GeAg2S3", "composition"), 4) == VIEWS.views(parse("Ag2GeS3", "composition"), 4)


def test_views_of_few_orders_are_few_and_of_two_elements_both() -> None:
    assert VIEWS.views(parse("Fe", "composition"), 8) == ["Fe"]
    assert len(VIEWS.views(parse("GaN", "composition"), 8)) == 2
    assert len(VIEWS.views(parse("Ag2GeS3", "composition"), 4)) == 4


PERCENT = Writing(amounts="percent")


@pytest.mark.parametrize(
    ("formula", "written"),
    [
        ("GaN", "Ga50 N50"),
        ("Fe", "Fe100"),
        ("Al2O3", "Al40 O60"),
        ("Fe0.620093Ni0.184C0.195907", "Fe62.01 Ni18.4 C19.59"),
        ("Zr0.5Cu0.5", "Zr50 Cu50"),
        # Half a hundredth goes to the even digit, as in a material's key.
        ("Fe99.875C0.125", "Fe99.88 C0.12"),
        # What is left of an element is never nothing.
        ("Fe999999B", "Fe100 B0.0001"),
    ],
)
def test_amounts_in_per_cent_of_all_atoms(formula: str, written: str) -> None:
    made = PERCENT.text(parse(formula, "composition"))
    assert sorted(made.split()) == sorted(written.split())
    assert [split_part(piece)[0] for piece in made.split()] == list(parse(formula, "composition").elements)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=5))
def test_per_cent_have_the_digits_of_keys(amounts: list[int]) -> None:
    formula = "".join(symbol + str(n) for symbol, n in zip(("Fe", "Ni", "C", "Mo", "Al"), amounts, strict=False))
    material = parse(formula, "composition")
    shares = dict(split_part(piece) for piece in PERCENT.text(material).split())
    fractions = dict(split_part(piece) for piece in material.key.removeprefix("composition:").split())
    assert shares.keys() == fractions.keys() and all(share > 0 for share in shares.values())
    # What a key takes for nothing still has a digit here.
    assert all(shares[symbol] == 100 * fractions[symbol] or shares[symbol] <= Decimal("0.01") for symbol in shares)


def test_per_cent_in_every_order_and_of_compositions_alone() -> None:
    material = parse("S3Ge Ag2", "composition")
    assert Writing("source", "percent").text(material) == "S50 Ge16.67 Ag33.33"
    views = Writing("permuted", "percent").views(material, 6)
    assert views[0] == PERCENT.text(material) == "Ag33.33 Ge16.67 S50"
    assert sorted(views) == sorted(map(" ".join, itertools.permutations(["Ag33.33", "Ge16.67", "S50"])))
    # The same orders as without: what is averaged over does not hang on how amounts are written.
    assert [[split_part(p)[0] for p in v.split()] for v in views] == [
        [split_part(p)[0] for p in v.split()] for v in VIEWS.views(material, 6)
    ]
    for text, kind in (("CCO", "molecule"), ("polyethylene", "name")):
        assert PERCENT.text(parse(text, kind)) == parse(text, kind).text  # type: ignore[arg-type]


def test_a_checkpoint_says_how_it_was_taught_and_one_from_before_was_taught_formulas() -> None:
    assert Writing.taught({"order": "source"}) == Writing("source", "formula")
    assert Writing.taught({"order": "permuted", "amounts": "percent"}) == Writing("permuted", "percent")
