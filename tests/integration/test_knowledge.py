"""Evidence all the way: into the questions of training, through the checkpoint, into a user's question."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import tiny_base, tiny_recipe, tiny_rows, tiny_task

from matdarwin.data import evidence
from matdarwin.data.evidence import Database
from matdarwin.data.sources import DataError, sha256
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks.schema import Source
from matdarwin.training.audit import audit_recipe
from matdarwin.training.recipe import RecipeError, split_of
from matdarwin.training.run import recipe_hash, train

QUICK = {"evidence": ["gap_mp"], "optimising": {"epochs": 1}, "split": {"calibration": 0.0, "limit": 32}}


@pytest.fixture
def table(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of ours that knows every second material of the tiny task, and one that the task does not have."""
    path = tmp_path / "computed.csv"
    known = [formula.replace(" ", "") for formula, _ in tiny_rows()[::2]]
    path.write_text("formula,target\nSc1N1,0.9\n" + "".join(f"{formula},1.25\n" for formula in known))
    source = Source(kind="file", name=str(path), sha256=sha256(path))
    monkeypatch.setattr(evidence, "DATABASES", (Database("gap_mp", "MP", "gap", "eV", 1, "median", (source,)),))
    return path


@pytest.mark.usefixtures("table")
def test_every_part_of_a_split_has_it_and_the_same_rows_as_without(home: Path) -> None:
    task = tiny_task(home)
    recipe = tiny_recipe(home, [task], fold=0, evidence=["gap_mp"])
    told, plain = split_of(recipe, [task]), split_of(recipe.model_copy(update={"evidence": ()}), [task])
    for part in ("train", "validation", "calibration", "test"):
        rows, before = getattr(told, part)[task.id], getattr(plain, part)[task.id]
        assert [row.row for row in rows] == [row.row for row in before]
        assert {row.evidence for row in rows} == {(), ("computed gap 1.2 eV (MP)",)}
        assert {row.evidence for row in before} == {()}


@pytest.mark.usefixtures("table")
def test_a_users_material_is_asked_about_as_training_was(home: Path) -> None:
    task = tiny_task(home)
    recipe = tiny_recipe(tiny_base(home / "base"), [task], **QUICK)
    predictor = Predictor.of(train(recipe, tasks=[task]))
    known, unknown = predictor.predict(["ScN", "ScP"], task.id)
    assert "asked with computed gap 0.9 eV (MP)" in known.notes
    assert not any("asked with" in note for note in unknown.notes)


def test_a_model_that_was_taught_with_it_is_not_asked_without(home: Path, table: Path) -> None:
    task = tiny_task(home)
    made = train(tiny_recipe(tiny_base(home / "base"), [task], **QUICK), tasks=[task])
    table.unlink()
    next((home / ".cache" / "evidence").iterdir()).unlink()
    with pytest.raises(DataError, match="there is no such file"):
        Predictor.of(made)


def test_other_values_make_another_recipe(home: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(home)
    recipe = tiny_recipe(home, [task], evidence=["gap_mp"])
    base = type("Base", (), {"sha256": "0"})()
    before = recipe_hash(recipe, [task], base)
    table.write_text(table.read_text().replace("1.25", "1.35"))
    source = Source(kind="file", name=str(table), sha256=sha256(table))
    monkeypatch.setattr(evidence, "DATABASES", (Database("gap_mp", "MP", "gap", "eV", 1, "median", (source,)),))
    assert recipe_hash(recipe, [task], base) != before


@pytest.mark.usefixtures("table")
def test_computed_labels_get_none(home: Path) -> None:
    measured = tiny_task(home)
    computed = tiny_task(home, id="tiny_computed", origin="computed", scored=False, quantities=["computed gap"])
    with pytest.raises(RecipeError, match="the labels of tiny_computed are computed"):
        split_of(tiny_recipe(home, [computed], fold=0, evidence=["gap_mp"]), [computed])
    both = split_of(tiny_recipe(home, [measured, computed], fold=0, evidence=["gap_mp"]), [measured, computed])
    assert {row.evidence for row in both.train["tiny_computed"]} == {()}
    assert len({row.evidence for row in both.train["tiny_gap"]}) == 2


@pytest.mark.usefixtures("table")
def test_the_audit_lists_it_as_knowledge(home: Path) -> None:
    task = tiny_task(home)
    found = audit_recipe(tiny_recipe(home, [task], evidence=["gap_mp"]), tasks=[task], folds=[0]).to_json()
    assert found["verdict"] == "CLEAN"
    assert found["evidence"][0] == {
        "task": task.id,
        "group": "all",
        "materials": 150,
        "any": 75,
        "found": {"gap_mp": 75},
    }
