"""What a text still tells of test materials: nothing after its filter, and the audit finds what a filter missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from matdarwin.data import texts
from matdarwin.data.qa import Filtered
from matdarwin.data.readers import read
from matdarwin.data.sentences import Pair
from matdarwin.data.sources import DataError
from matdarwin.data.texts import Text, crossing
from matdarwin.tasks import registry
from matdarwin.training.audit import audit_recipe
from matdarwin.training.recipe_files import build_recipe
from tiny import tiny_task


def text(*pairs: tuple[str, str]) -> Text:
    rows = tuple(Pair(q, a, str(n), "own").example("own") for n, (q, a) in enumerate(pairs, 1))
    return Text("own", rows, len(rows), 0, ())


def test_every_material_of_a_pair_is_found(tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    given = [row.material.given.replace(" ", "") for row in read(task).examples[:4]]
    told = text(
        (f"Which has the larger band gap, {given[0]} or {given[1]}?", "The first."),
        (f"What colour is {given[2]}?", "It is grey."),
        (f"What is the band gap of {given[0]}?", "3 eV"),
    )
    found = crossing(told, task, read(task).examples)
    assert {key: one.pair.row for key, one in found.items()} == {
        read(task).examples[place].material.key: "1" for place in (0, 1)
    }
    assert crossing(told, task, read(task).examples[2:]) == {}


def test_the_audit_finds_what_a_filter_missed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(home)
    monkeypatch.setattr(registry, "names", lambda: [task.id])
    monkeypatch.setattr(registry, "load", lambda name: task)
    given = read(task).examples[0].material.given.replace(" ", "")
    path = home / "own.jsonl"
    asked = [f"What is the band gap of {given}?", *(f"What is fact {n} about {n} rivers?" for n in range(20))]
    path.write_text("".join(f'{{"Q": "{question}", "A": "3 eV"}}\n' for question in asked))
    stage = {"name": "qa", "texts": [str(path)]}
    recipe = build_recipe({"name": "x", "tasks": [task.id], "before": [stage]})
    clean = audit_recipe(recipe, tasks=[task])
    told = [pair for pair in clean.pairs if pair.train_task == str(path)]
    assert clean.verdict == "CLEAN" and [pair.fold for pair in told] == [0, 1, 2, 3, 4]
    assert {(pair.stage, pair.found) for pair in told} == {("qa", 0)}
    assert {pair.train_rows for pair in told} == {len(texts.load(str(path), [task]).rows)}
    monkeypatch.setattr(texts, "_cleaned", {})
    kept = texts.qa.remove_test_facts
    monkeypatch.setattr(texts.qa, "remove_test_facts", lambda pairs, tests, names: Filtered(list(pairs), [], {}) if tests[0][1] is read(task).examples else kept(pairs, tests, names))  # fmt: skip
    leaky = audit_recipe(recipe, tasks=[task])
    assert leaky.verdict == "LEAKY"
    (hit,) = [pair for pair in leaky.pairs if pair.train_task == str(path) and pair.found]
    assert (hit.found, hit.task, hit.examples[0].train_row, hit.labels_compared) == (1, task.id, "1", 0)
    assert replace(hit, found=0).share == 0 and leaky.to_json()["totals"][-1]["found"] == 1


def test_what_was_computed_is_told_in_sentences_but_not_of_test_materials(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = tiny_task(home)
    changes = {"id": "computed_gap", "origin": "computed", "scored": False, "property": "MP computed band gap"}
    computed = scored.model_copy(update=changes)
    other = scored.model_copy(update={"id": "few", "scored": False})
    monkeypatch.setattr(registry, "names", lambda: [scored.id])
    monkeypatch.setattr(registry, "load", lambda name: {one.id: one for one in (scored, computed, other)}[name])
    texts.check("computed:computed_gap")
    with pytest.raises(DataError, match="few: sentences are made of computed numbers"):
        texts.check("computed:few")
    keys = {row.material.key for row in read(scored).examples}
    told = texts.load("computed:computed_gap", [scored])
    assert (told.rows, told.read, told.held_out) == ((), len(keys), 0)
    assert {one.key for one in told.removed} == keys
    monkeypatch.setattr(registry, "names", lambda: [])
    asked = scored.model_copy(update={"scored": False, "property": "hardness", "quantities": ("strength",)})
    kept = texts.load("computed:computed_gap", [asked])
    assert {row.material.key for row in kept.rows} == keys and not kept.removed
    assert all(row.answer and "eV" in row.answer for row in kept.rows)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("computed:pbe_gap_mpp", "pbe_gap_mp"),
        ("computed:expt_gap", "measured regression"),
        ("computed:magnet_moment", "with conditions"),
        ("element", "did you mean elements"),
        ("abc", "computed:TASK"),
    ],
)
def test_a_text_that_cannot_be_made_is_refused_by_name(name: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        texts.check(name)
