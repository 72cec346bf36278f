"""Prompts: the same question in training and in use, the material last, nothing left to chance but by a given generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.tiny import tiny_task, tiny_tokenizer

from matdarwin.language.prompts import (
    STYLES,
    Asked,
    Encoder,
    conditions_text,
    style,
    wordings_hash,
)
from matdarwin.language.writing import Writing
from matdarwin.materials import parse
from matdarwin.tasks.schema import Condition, Example, Task


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return tiny_task(tmp_path)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny_tokenizer())


def test_compact_has_the_material_last(task: Task) -> None:
    assert style("compact").render(task, "Ag2 Ge S3", wording=0) == "band gap of Ag2 Ge S3:"
    assert style("compact").render(task, "Ag2 Ge S3", wording=1) == "What is the band gap of Ag2 Ge S3?:"


def test_alpaca_has_the_material_apart_from_the_question(task: Task) -> None:
    text = style("alpaca").render(task, "Ag2 Ge S3", wording=1)
    assert text.endswith("### Input:\nAg2 Ge S3\n\n### Response:")
    assert "### Instruction:\nWhat is the band gap of the given composition?\n" in text
    other = style("alpaca").render(task, "Ga N", wording=1)
    assert text.index("Ag2") == other.index("Ga N"), "all that stands before the material is shared"


def test_conditions_and_evidence_stand_where_they_are_asked_for(task: Task) -> None:
    compact = style("compact")
    assert compact.render(task, "Ga N", wording=0, conditions="at 300 K") == "at 300 K band gap of Ga N:"
    inside = task.model_copy(update={"wordings": ("gap {conditions} of {material}",)})
    assert compact.render(inside, "Ga N", wording=0, conditions="at 300 K") == "gap at 300 K of Ga N:"
    assert compact.render(inside, "Ga N", wording=0) == "gap of Ga N:"
    assert compact.render(task, "Ga N", wording=0, evidence="It is blue.") == "band gap of Ga N It is blue.:"


@pytest.mark.parametrize("name", list(STYLES))
def test_braces_in_a_material_are_not_filled_in(task: Task, name: str) -> None:
    assert "{material} {0} {x}" in style(name).render(task, "{material} {0} {x}", wording=0)


def test_a_wording_past_the_last_is_refused_and_a_style_asks_for_one_that_is_there(task: Task) -> None:
    for name in STYLES:
        with pytest.raises(ValueError, match=rf"{task.id} has no wording 2; it has 2, numbered from 0"):
            style(name).render(task, "Ga N", wording=2)
    single = task.model_copy(update={"wordings": task.wordings[:1]})
    assert style("alpaca").wording_of(task) == 1 and style("alpaca").wording_of(single) == 0


def test_an_unknown_style_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'terse' is no prompt style; choose from compact, alpaca"):
        style("terse")


def test_wordings_hash_follows_what_is_heard_and_said(task: Task) -> None:
    changes = [
        {"wordings": ("gap of {material}",)},
        {"wordings": (*task.wordings, "a third for {material}")},
        {"decimals": 2},
        {"labels": ("a", "b")},
        {"conditions": (Condition(name="temperature", unit="K"),)},
    ]
    hashes = [wordings_hash(task), *(wordings_hash(task.model_copy(update=change)) for change in changes)]
    assert len(set(hashes)) == len(hashes)
    assert wordings_hash(task) == wordings_hash(task.model_copy(update={"title": "another", "version": 7}))


def test_conditions_are_written_in_the_tasks_order_and_checked(task: Task) -> None:
    asked = task.model_copy(
        update={"conditions": (Condition(name="temperature", unit="K"), Condition(name="phase", required=False))}
    )
    assert conditions_text(asked, {"phase": "cubic", "temperature": 300.0}) == "at 300 K (phase cubic)"
    assert conditions_text(asked, {"temperature": 300}) == "at 300 K"
    assert conditions_text(asked, {"temperature": 0.0000616}) == "at 0.0000616 K"
    assert conditions_text(asked, {"temperature": 1e20}) == "at 100000000000000000000 K"
    assert conditions_text(asked, {"temperature": np.float64(77.5)}) == "at 77.5 K"
    assert conditions_text(asked, {"temperature": -0.0}) == conditions_text(asked, {"temperature": "-0"}) == "at 0 K"
    with pytest.raises(ValueError, match=r"tiny_gap needs the condition 'temperature' \(in K\)"):
        conditions_text(asked, {"phase": "cubic"})
    with pytest.raises(ValueError, match=r"no condition 'pressure'; it has temperature, phase"):
        conditions_text(asked, {"temperature": 300.0, "pressure": 1.0})
    with pytest.raises(ValueError, match="no condition 'temperature'; it has none"):
        conditions_text(task, {"temperature": 300.0})
    with pytest.raises(ValueError, match="finite"):
        conditions_text(asked, {"temperature": float("nan")})


def test_prompt_and_answer_are_tokenised_apart(encoder: Encoder) -> None:
    assert encoder.answers([" -1.20", " 1.20"])[0][-1] == encoder.terminator
    tokenizer = tiny_tokenizer()
    sign, blank = (tokenizer.convert_ids_to_tokens(ids[0]) for ids in encoder.answers([" -1.20", " 1.20"]))
    assert (sign, blank) == ("Ġ-", "Ġ")
    assert encoder.prompts([]) == [] and encoder.answers([]) == []
    # Together they would be one token; apart they are two.
    assert encoder.prompts([" not metal"])[0] == tokenizer(" not metal").input_ids
    assert len(encoder.prompts([" not met"])[0]) + len(encoder.answers(["al"])[0]) - 1 > len(
        tokenizer(" not metal").input_ids
    )


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-text token"):
        Encoder(tokenizer)


def asked(task: Task | None, example: Example, *, wording: int = 0, seed: int = 0) -> Asked:
    return Asked(task, example, wording, seed)


def test_training_examples_ask_as_predictions_do(task: Task, encoder: Encoder) -> None:
    example = Example(task=task.id, row="1", material=parse("N Ga", "composition"), target=3.0)
    (made,) = encoder.examples([asked(task, example)], style=style("compact"), writing=Writing())
    assert list(made.prompt) == encoder.prompts(["band gap of Ga N:"])[0]
    assert list(made.answer) == encoder.answers([" 3.0"])[0]
    (source,) = encoder.examples([asked(task, example)], style=style("compact"), writing=Writing("source"))
    assert list(source.prompt) == encoder.prompts(["band gap of N Ga:"])[0]
    (other,) = encoder.examples([asked(task, example, wording=1)], style=style("compact"), writing=Writing())
    assert list(other.prompt) == encoder.prompts(["What is the band gap of Ga N?:"])[0]


def test_permuted_orders_are_those_of_the_seed(task: Task, encoder: Encoder) -> None:
    example = Example(task=task.id, row="1", material=parse("Ag2GeS3", "composition"), target=1.0)

    def draw(seed: int) -> list[tuple[int, ...]]:
        rows = [asked(task, example, seed=seed + number) for number in range(40)]
        return [row.prompt for row in encoder.examples(rows, style=style("compact"), writing=Writing("permuted"))]

    assert draw(3) == draw(3) and draw(3) != draw(43)
    assert len(set(draw(3))) == 6, "three elements have six orders"


def test_free_text_is_asked_and_answered_as_it_stands(encoder: Encoder) -> None:
    text = Example("facts", "1", parse("facts", "name"), question="What is the symbol of gallium?", answer="It is Ga.")
    (made,) = encoder.examples([asked(None, text)], style=style("compact"), writing=Writing())
    assert list(made.prompt) == encoder.prompts(["What is the symbol of gallium?"])[0]
    assert list(made.answer) == encoder.answers([" It is Ga."])[0]
    (laid,) = encoder.examples([asked(None, text)], style=style("alpaca"), writing=Writing())
    assert len(laid.prompt) > 2 * len(made.prompt) and laid.answer == made.answer


def test_a_sentence_may_answer_a_question_that_lacks_a_condition(task: Task, encoder: Encoder) -> None:
    needs = task.model_copy(update={"conditions": (Condition(name="temperature", unit="K"),)})
    example = Example(task.id, "1", parse("GaN", "composition"), answer="unable to answer: no temperature given")
    (made,) = encoder.examples([asked(needs, example)], style=style("compact"), writing=Writing())
    assert list(made.prompt) == encoder.prompts(["band gap of Ga N:"])[0]
    with pytest.raises(ValueError, match="needs the condition 'temperature'"):
        encoder.examples(
            [asked(needs, replace(example, answer=None, target=1.0))], style=style("compact"), writing=Writing()
        )


def test_an_example_without_an_answer_teaches_nothing(task: Task, encoder: Encoder) -> None:
    example = Example(task=task.id, row="17", material=parse("GaN", "composition"))
    with pytest.raises(ValueError, match="row 17 of tiny_gap has no answer"):
        encoder.examples([asked(task, example)], style=style("compact"), writing=Writing())
    with pytest.raises(ValueError, match="row 17 of tiny_gap has no question and no task"):
        encoder.examples([asked(None, replace(example, answer="x"))], style=style("compact"), writing=Writing())
