"""The demonstration, end to end on a tiny base: what it trains, scores, writes, and does not do twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tiny import at_home, tiny_base, tiny_recipe, tiny_rows, tiny_task

from matdarwin.data import leakage
from matdarwin.evaluation.protocol import split_of
from matdarwin.models.store import find_checkpoint
from matdarwin.studies import demo
from matdarwin.studies.demo import DemoError, run_demo
from matdarwin.studies.outcome import DemoResult
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training import run as training
from matdarwin.training.recipe_files import load_recipe

TREES = 20


@dataclass
class Told:
    """A report that remembers."""

    lines: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def begin(self, text: str, total: int) -> None:
        self.parts.append(text)

    def step(self, done: int, text: str) -> None: ...

    def say(self, text: str) -> None:
        self.lines.append(text)

    def metrics(self, run: str, line: dict[str, Any]) -> None: ...


def task_file(folder: Path, task: Task) -> Path:
    path = folder / f"{task.id}.yaml"
    path.write_text(yaml.safe_dump(json.loads(task.model_dump_json(exclude_defaults=True))), encoding="utf-8")
    return path


def recipe_file(home: Path, task: str, **changes: Any) -> Path:
    recipe = tiny_recipe(
        home / "base", [task], name="demo", fold=0, optimising={"epochs": 1}, split={"test_limit": 25, "minimum_calibration": 30},
        **changes,
    )  # fmt: skip
    path = home / f"{Path(task).stem}-demo.yaml"
    path.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json(exclude_defaults=True))), encoding="utf-8")
    return path


@dataclass
class Shown:
    """A demonstration that was given once."""

    home: Path
    recipe: Path
    folder: Path
    task: Task
    told: Told

    @property
    def result(self) -> DemoResult:
        return DemoResult.model_validate_json((self.folder / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    home = tmp_path_factory.mktemp("demo")
    tiny_base(home / "base")
    # One material twice: it must count once in the test.
    rows = tiny_rows(220)
    task = tiny_task(home, rows=[*rows, *rows[:60]])
    recipe = recipe_file(home, str(task_file(home, task)))
    told = Told()
    with at_home(home):
        run_demo(told, folder=home / "out", recipe=recipe, trees=TREES)
        yield Shown(home, recipe, home / "out", task, told)


def test_it_writes_a_page_and_its_data(shown: Shown) -> None:
    html = (shown.folder / "report.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and html.count("<svg") == 3
    assert sorted(p.name for p in shown.folder.iterdir()) == [
        "language.json",
        "report.html",
        "result.json",
        "rivals.json",
    ]
    result = shown.result
    assert f"{result.language.scores['median'].mae:.3f}" in html and result.checkpoint in html
    assert "training" in shown.told.parts and "scoring held-out materials" in shown.told.parts
    assert result.reused == []


def test_it_leaves_a_product_that_predict_finds(shown: Shown) -> None:
    with at_home(shown.home):
        assert find_checkpoint(tasks=[shown.task.id]).name == shown.result.checkpoint


def test_nothing_tested_or_asked_was_learnt_from(shown: Shown) -> None:
    recipe, task = load_recipe(shown.recipe), registry.load(str(shown.home / "tiny_gap.yaml"))
    split = split_of(recipe, [task])
    learnt = {e.material.text for part in (split.train, split.validation, split.calibration) for e in part[task.id]}
    result = shown.result
    tested = [t.material for t in result.language.tested]
    assert len(tested) == len(set(tested)) == 25 == result.rows["test"] and learnt.isdisjoint(tested)
    held_out = {e.material.text: e.target for e in leakage.merge(task, split.test[task.id])}
    assert {t.material: t.target for t in result.language.tested}.items() <= held_out.items()
    asked = [a.prediction["material"] for a in result.language.asked]
    assert len(asked) == demo.ASKED and learnt.isdisjoint(asked)
    for one in result.language.asked:
        assert one.measured == held_out.get(one.prediction["material"])


def test_rivals_had_every_row_that_the_model_could_use(shown: Shown) -> None:
    result = shown.result
    assert result.rivals.rows == result.rows["train"] + result.rows["validation"] + result.rows["calibration"]
    names = {"dummy", "random_forest", "extra_trees_median", "extra_trees_mean", "lightgbm"}
    assert names <= set(result.rivals.rivals)
    assert all(len(r.answers) == r.score.rows == 25 for r in result.rivals.rivals.values())
    # The anion decides: trees on element statistics must see it, a dummy cannot.
    scores = {name: r.score.mae for name, r in result.rivals.rivals.items()}
    assert scores["extra_trees_median"] is not None and scores["dummy"] is not None
    assert scores["extra_trees_median"] < 0.5 * scores["dummy"]


def test_scores_and_coverage_are_those_of_the_answers(shown: Shown) -> None:
    result = shown.result
    rows = [t for t in result.language.tested if t.median is not None]
    errors = [abs(t.median - t.target) for t in rows if t.median is not None]
    assert result.language.scores["median"].mae == pytest.approx(sum(errors) / len(errors))
    held = [t.lower <= t.target <= t.upper for t in rows if t.lower is not None and t.upper is not None]
    ninety = next(c for c in result.language.covered if c.nominal == 0.9)
    assert held and ninety.observed == pytest.approx(sum(held) / len(held)) and ninety.rows == len(held)
    assert [c.nominal for c in result.language.covered] == list(demo.NOMINAL)
    widths = [c.width for c in result.language.covered]
    assert widths == sorted(widths)


def test_the_curve_is_a_distribution(shown: Shown) -> None:
    curve = shown.result.language.curve
    assert curve is not None and sum(curve.probabilities) == pytest.approx(1, abs=1e-4)
    assert curve.values == sorted(curve.values) and curve.median in curve.values


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What costs time says so here, and is refused where a test does not allow it."""
    done: list[str] = []

    def refuse(name: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            done.append(name)
            raise AssertionError(f"{name} was done again")

        return call

    monkeypatch.setattr(training, "_train", refuse("training"))
    monkeypatch.setattr(demo.Predictor, "of", refuse("answering"))
    monkeypatch.setattr(demo.baselines, "fit_predict", refuse("fitting"))
    return done


def test_a_second_run_does_nothing_twice(shown: Shown, idle: list[str]) -> None:
    before, told = shown.result, Told()
    (shown.folder / "report.html").unlink()
    path = run_demo(told, folder=shown.folder, recipe=shown.recipe, trees=TREES)
    after = shown.result
    assert path.is_file() and idle == []
    assert after.reused == ["the checkpoint", "the model's answers", "the rivals' answers"]
    assert (after.language, after.rivals, after.checkpoint) == (before.language, before.rivals, before.checkpoint)
    assert "reused" in told.lines[-1]


def test_other_trees_are_fitted_and_nothing_else_is_done(shown: Shown, idle: list[str]) -> None:
    with pytest.raises(AssertionError, match="fitting"):
        run_demo(Told(), folder=shown.folder, recipe=shown.recipe, trees=TREES + 1)
    assert idle == ["fitting"]


@pytest.mark.parametrize("damage", ["", "{}", '{"key": "other"}', "\udcff"])
def test_answers_that_cannot_be_read_are_made_anew(shown: Shown, idle: list[str], damage: str) -> None:
    part = shown.folder / "language.json"
    kept = part.read_bytes()
    part.write_bytes(damage.encode(errors="surrogateescape"))
    try:
        with pytest.raises(AssertionError, match="answering"):
            run_demo(Told(), folder=shown.folder, recipe=shown.recipe, trees=TREES)
    finally:
        part.write_bytes(kept)


def test_answers_of_another_checkpoint_are_not_taken(shown: Shown, idle: list[str]) -> None:
    part = shown.folder / "language.json"
    kept = part.read_text(encoding="utf-8")
    part.write_text(kept.replace(shown.result.language.key, "0" * 64), encoding="utf-8")
    try:
        with pytest.raises(AssertionError, match="answering"):
            run_demo(Told(), folder=shown.folder, recipe=shown.recipe, trees=TREES)
    finally:
        part.write_text(kept, encoding="utf-8")


def test_outside_the_repository_it_says_where_to_go(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DemoError, match=r"recipes/demo\.yaml is not here; run the demonstration in the root"):
        run_demo(Told(), folder=tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_what_cannot_be_demonstrated_is_refused_before_anything_is_done(home: Path, idle: list[str]) -> None:
    tiny_base(home / "base")
    gap, metal = tiny_task(home), tiny_task(home, kind="classification")
    names = {task.id: str(task_file(home, task)) for task in (gap, metal)}
    with pytest.raises(DemoError, match="fold is null"):
        run_demo(Told(), folder=home / "out", recipe=_no_fold(home, names["tiny_gap"]))
    with pytest.raises(DemoError, match="tiny_metal is a classification"):
        run_demo(Told(), folder=home / "out", recipe=recipe_file(home, names["tiny_metal"]))
    assert idle == [] and not (home / "out").exists()


def _no_fold(home: Path, task: str) -> Path:
    path = recipe_file(home, task)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    del content["fold"]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
