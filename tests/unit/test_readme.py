"""The model card for people: what it must name, and that no text of others becomes markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from matdarwin.models.checkpoint import Card, Checkpoint, write_checkpoint
from matdarwin.models.readme import card_markdown
from matdarwin.tasks import registry
from tiny import fill, tiny_card, tiny_task


def card(
    tmp_path: Path, task: dict[str, Any] | None = None, entry: dict[str, Any] | None = None, **changes: Any
) -> Card:
    made = tiny_card("try", tiny_task(tmp_path, **(task or {})), **changes)
    tasks = {name: known.model_copy(update=entry or {}) for name, known in made.tasks.items()}
    return made.model_copy(update={"tasks": tasks})


def test_a_card_names_what_the_model_answers_and_how_well(tmp_path: Path) -> None:
    text = card_markdown(
        card(
            tmp_path,
            entry={
                "counts": {"train": 1234, "validation": 20, "test": 7, "removed: tiny_gap: key in its own test fold": 3},
                "elements": {"Ga": 40, "As": 2}, "spreads": {"composition:As Ga": 0.7},
            },
            training={"validation": {"tiny_gap": ["mae", 0.41234]}, "steps": 12, "commit": None}, recipe={"name": "base-st"},
            recipe_hash="ab12", machine={"cpu": "a fine one", "gpu": None}, fold=2,
        ),
        {"tiny_gap": {"status": "calibrated", "n": 55, "unread": 2}},
    )  # fmt: skip
    row = next(line for line in text.splitlines() if line.startswith("| tiny\\_gap | band gap |"))
    assert row.split("|")[-5:-1] == [" 1,234 ", " 20 ", " 0 ", " 7 "]
    assert "| tiny\\_gap | mae | 0.4123 eV |" in text
    assert "calibrated on 55 materials, 2 of them without a readable answer" in text
    assert "key in its own test fold: 3" in text and "Fold 2 was held out" in text
    assert "the 2 it saw: As Ga (fewer than five times: As)" in text
    assert "polymorphs" in text and "up to 0.7 eV" in text
    assert "base-st, hash ab12" in text and "cpu a fine one" in text and "steps 12" in text
    assert "darwin predict 'FORMULA' --model 'try'\n" in text
    assert "None" not in text and "gpu" not in text


def test_what_was_trained_in_spite_of_its_audit_says_so_first(tmp_path: Path) -> None:
    leaky, clean = (card_markdown(card(tmp_path, training={"leaky": found}), {}) for found in (True, False))
    assert leaky.splitlines()[2].startswith("**LEAKY: ") and "LEAKY" not in clean


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    text = card_markdown(card(tmp_path), {})
    assert "there is no validation score" in text
    assert "tiny\\_gap: not calibrated; its answers have no intervals." in text


def test_a_question_with_conditions_and_several_tasks_can_be_copied(tmp_path: Path) -> None:
    tasks = [
        tiny_task(tmp_path, id="one", conditions=[{"name": "temperature", "unit": "K"}]),
        tiny_task(tmp_path, id="two"),
    ]
    assert "--task one --condition temperature=K" in card_markdown(tiny_card("try", *tasks), {})


@pytest.mark.parametrize(("licence", "said"), [("CC BY-NC 4.0", True), ("non-commercial use only", True), ("CC BY 4.0", False), ("MIT (INC)", False)])  # fmt: skip
def test_non_commercial_data_are_named(tmp_path: Path, licence: str, said: bool) -> None:
    text = card_markdown(card(tmp_path, task={"licence": licence}), {})
    assert ("**Not for commercial use**: the data of tiny\\_gap" in text) is said


def test_data_without_a_licence_are_named(tmp_path: Path) -> None:
    assert "Where no licence is stated (tiny\\_gap)" in card_markdown(card(tmp_path, task={"licence": "none stated in the repository"}), {})  # fmt: skip
    assert "no licence is stated" not in card_markdown(card(tmp_path), {})


def test_the_licences_of_earlier_stages_and_evidence_are_inherited(tmp_path: Path) -> None:
    private = next(name for name in registry.names() if "NC" in registry.load(name).licence)
    recipe = {
        "name": "know",
        "evidence": ["gap_mp"],
        "before": [
            {"name": "qa", "texts": ["sciqag", "my.jsonl", "computed:bulk_modulus"], "tasks": [private, "tiny_gap"]}
        ],
    }
    text = card_markdown(card(tmp_path, recipe=recipe), {})
    assert (
        "gap\\_mp (knowledge beyond the tasks' own rows): computed band gaps of the Materials Project: CC BY 4.0"
        in text
    )
    assert (
        f"computed:bulk\\_modulus (knowledge beyond the tasks' own rows): {registry.load('bulk_modulus').licence}"
        in text
    )
    assert "my.jsonl (knowledge beyond the tasks' own rows): a file of the user's own" in text
    assert re.search(r"\*\*Not for commercial use\*\*: the data of " + re.escape(private.replace("_", "\\_")), text)
    assert "Where no licence is stated (sciqag)" in text
    assert "- tiny\\_gap (knowledge" not in text


def test_a_stage_says_that_it_is_not_asked() -> None:
    text = card_markdown(
        tiny_card(
            "qa-1", role="stage", recipe={"stage": {"name": "qa", "texts": ["elements"], "tasks": []}, "seed": 0}
        ),
        {},
    )
    assert "is not asked anything itself" in text and "darwin predict" not in text
    assert "elements (knowledge" in text and "recipe: qa, hash" in text


def test_texts_of_others_become_no_markup(tmp_path: Path) -> None:
    bad = "<script>x</script> | [a](http://b) `c` **d**\n# e"
    text = card_markdown(
        card(tmp_path, task={"property": bad, "licence": bad, "citation": bad, "notes": [bad]}, machine={"cpu": bad}),
        {},
    )
    assert "<script" not in text.replace("\\<", "")
    assert "[a](" not in text and "\n# e" not in text and " `c`" not in text
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_a_checkpoint_with_its_card_is_whole(home: Path, tmp_path: Path) -> None:
    made = card(tmp_path)

    def save(folder: Path) -> None:
        fill(folder)
        (folder / "README.md").write_text(card_markdown(made, {}), encoding="utf-8")

    checkpoint = write_checkpoint("try", made, save)
    assert (Checkpoint.open(checkpoint.folder).folder / "README.md").read_text(encoding="utf-8").startswith("# try\n")


def test_every_text_database_and_embedded_base_has_its_licence_named() -> None:
    from matdarwin.data import evidence, texts
    from matdarwin.models import base, readme

    assert set(readme._KNOWLEDGE) == {*texts.NAMES, *(database.id for database in evidence.DATABASES)}
    assert set(readme._BASES) == set(base.EMBEDDED)
