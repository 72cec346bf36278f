"""Negative examples: words that no parser takes for a material, and conditions that a task really needs."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from matdarwin.data.mixture import Mixture
from matdarwin.data.negative import NOT_A_MATERIAL, WORDS, negatives, reasons
from matdarwin.data.sampling import Sampling
from matdarwin.data.sources import DataError
from matdarwin.materials import MaterialError, parse
from matdarwin.tasks.registry import load
from matdarwin.tasks.schema import Condition, Example, Task

METAL, ESOL = load("expt_is_metal"), load("esol")
WARM = METAL.model_copy(
    update={
        "conditions": (
            Condition(name="temperature", unit="K"),
            Condition(name="sample_form"),
            Condition(name="note", required=False),
        )
    }
)
NAMED = METAL.model_copy(update={"representation": "name"})


def real(task: Task, *texts: str, **conditions: str | float) -> list[Example]:
    return [
        Example(task.id, str(row), parse(text, task.representation), dict(conditions), target=1.0)
        for row, text in enumerate(texts)
    ]


@pytest.mark.parametrize("word", WORDS)
def test_no_word_is_a_material_in_small_letters_or_with_a_capital(word: str) -> None:
    for text in (word, word.capitalize()):
        with pytest.raises(MaterialError):
            parse(text, "composition")
        with pytest.raises(MaterialError):
            parse(text, "molecule")


def test_the_share_of_negatives_is_what_was_asked_for_and_none_by_zero() -> None:
    rows = real(METAL, *(f"Fe{n}O7" for n in range(1, 91)))
    made = negatives(METAL, rows, 0.1, seed=0)
    assert len(made) == 10 and all(row.target is None and row.answer == NOT_A_MATERIAL for row in made)
    assert all(row.target is None and row.material.key == f"word:{row.material.text}" for row in made)
    assert {row.material.text for row in made} <= set(WORDS) and len({row.material.text for row in made}) == 10
    assert negatives(METAL, rows, 0, seed=0) == []
    assert made == negatives(METAL, rows, 0.1, seed=0) != negatives(METAL, rows, 0.1, seed=1)


def test_a_condition_is_missing_only_where_the_task_requires_it() -> None:
    rows = real(WARM, "Fe2O3", "Bi2Te3", "Si", temperature=300.0, sample_form="film", note="none")
    made = negatives(WARM, rows, 0.8, seed=0)
    assert Counter(row.answer for row in made) == {
        NOT_A_MATERIAL: 6,
        "unable to answer: no temperature given": 3,
        "unable to answer: no sample form given": 3,
    }
    for row in made:
        if row.answer == NOT_A_MATERIAL:
            assert row.conditions == {"temperature": 300.0, "sample_form": "film", "note": "none"}
        else:
            missing = row.answer.removeprefix("unable to answer: no ").removesuffix(" given").replace(" ", "_")
            assert missing not in row.conditions and len(row.conditions) == 2
            assert row.material in [other.material for other in rows]


def test_a_task_of_names_has_no_words_and_may_have_nothing() -> None:
    assert reasons(METAL) == reasons(ESOL) == ("word",) and reasons(WARM) == ("word", "condition")
    assert reasons(NAMED) == ()
    with pytest.raises(DataError, match="any word could be a name"):
        negatives(NAMED, real(NAMED, "HKUST-1"), 0.1, seed=0)
    with pytest.raises(DataError, match="no training row"):
        negatives(METAL, [], 0.1, seed=0)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(DataError, match="share"):
            negatives(METAL, real(METAL, "Fe"), share, seed=0)


def test_negatives_are_mixed_in_as_rows_are() -> None:
    rows = real(METAL, *(f"Fe{n}O7" for n in range(1, 10)))
    both = {METAL.id: [*rows, *negatives(METAL, rows, 0.1, seed=0)]}
    mixed = Mixture(both, Sampling(), seed=0, batch_size=4, wordings={METAL.id: (0,)})
    drawn = list(itertools.islice(mixed.draws(), 10))
    assert sum(draw.example.answer is not None for draw in drawn) == 1
    assert {draw.key for draw in drawn if draw.key.startswith("composition:")} == {row.material.key for row in rows}
