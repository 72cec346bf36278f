"""What would be trained: checked and measured as it would be trained, and nothing written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.tiny import tiny_base, tiny_recipe, tiny_task

from matdarwin import cli
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training import plan as plans
from matdarwin.training.errors import TrainingError
from matdarwin.training.plan import plan
from matdarwin.training.recipe import Recipe
from matdarwin.training.report import Silent
from matdarwin.training.run import train


@pytest.fixture
def base(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plans, "_MEASURED", 0.05)
    return tiny_base(home / "base")


@pytest.fixture
def task(home: Path) -> Task:
    return tiny_task(home)


def test_a_plan_tells_effort_memory_and_disk_and_writes_nothing(home: Path, base: Path, task: Task) -> None:
    recipe = tiny_recipe(base, [task])
    found = plan(recipe, tasks=[task])
    (stage,) = found.stages
    assert not found.done and not found.leaky and stage.name == "tune" and not stage.stands
    assert stage.examples > 100 and stage.tokens > stage.examples and stage.seconds == found.seconds > 0
    assert found.tokens_per_second > 0 and found.memory_gib > 0 and found.enough_disk
    moving, total = found.parameters
    assert 0 < moving < total and found.disk_gib >= (3 * 3 * moving + total) * 4 / 2**30
    assert not (home / "checkpoints").exists()
    made = train(recipe, tasks=[task])
    again = plan(recipe, tasks=[task])
    assert again.done and again.checkpoint == found.checkpoint == made.name and again.seconds == 0
    assert made.card.training["examples"] == pytest.approx(stage.examples, rel=0.02)


@pytest.mark.parametrize(
    "optimising",
    [{"number_loss": "wasserstein"}, {"embeddings": "frozen"}, {"average": 0.5}, {"smoothing": 0.2}],
    ids=lambda options: next(iter(options)),
)
def test_what_is_measured_is_what_would_be_trained(base: Path, task: Task, optimising: dict[str, Any]) -> None:
    plain, found = (plan(tiny_recipe(base, [task], optimising=o), tasks=[task]) for o in ({}, optimising))
    assert found.tokens_per_second > 0
    if optimising.get("embeddings") == "frozen":
        assert found.parameters[0] < plain.parameters[0]


def test_kept_weights_count_as_they_are_kept(base: Path, task: Task) -> None:
    """Of embeddings some rows move, but the best weights by validation have all of them."""
    split = {"calibration": 0.0, "validation": 0.2}
    used, trained = (
        plan(tiny_recipe(base, [task], split=split, optimising={"embeddings": which}), tasks=[task])
        for which in ("used", "trained")
    )
    moving, whole = used.parameters[0], trained.parameters[0]
    assert moving < whole
    # Three states with two moments, three sets of kept weights, and the checkpoint.
    for found, states in ((used, moving), (trained, whole)):
        assert found.disk_gib * 2**30 == pytest.approx(4 * (9 * states + 3 * whole + found.parameters[1]))


@pytest.fixture
def staged(home: Path, base: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe with a stage of longer texts before its own."""
    # Texts are searched for the test materials of the library.
    monkeypatch.setattr(registry, "names", lambda: [task.id])
    monkeypatch.setattr(registry, "load", {task.id: task}.__getitem__)
    pairs = [{"Q": f"What is fact number {n} about rivers?", "A": "It is " + "long " * 20} for n in range(40)]
    (home / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    reading = {"name": "reading", "texts": [str(home / "pairs.json")], "optimising": {"epochs": 1, "batch_size": 8}}
    return tiny_recipe(base, [task], before=[reading])


def test_each_stage_is_measured_for_itself_until_it_stands(home: Path, staged: Recipe, task: Task) -> None:
    said: list[str] = []

    class Telling(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    first = plan(staged, tasks=[task], report=Telling())
    reading, own = first.stages
    assert "measuring stage reading for 0 seconds" in said
    assert not reading.stands and reading.seconds > 0 and reading.steps == 5
    assert own.seconds == pytest.approx(own.tokens / first.tokens_per_second)
    assert first.seconds == reading.seconds + own.seconds
    made = train(staged, tasks=[task])
    assert made.card.training["earlier"] == [reading.checkpoint]
    again = plan(staged.model_copy(update={"name": "other"}), tasks=[task])
    assert again.stages[0].stands and again.seconds == again.stages[1].seconds > 0
    # A checkpoint less is to be written.
    assert first.disk_gib - again.disk_gib == pytest.approx(first.kept_gib)


def test_a_disk_that_does_not_suffice_is_told(base: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(total=2, used=1, free=1)
    monkeypatch.setattr("matdarwin.training.plan.shutil.disk_usage", lambda place: full)
    assert not plan(tiny_recipe(base, [task]), tasks=[task]).enough_disk


def test_the_command_tells_plans_of_several_tasks_and_their_sum(
    home: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name in ("tiny_gap", "tiny_again"):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(tiny_task(tmp_path, id=name).model_dump_json(exclude_none=True))
    recipe = tiny_recipe(base, [str(files[0])], fold=0, split={"folds": "seeded"}).model_dump(mode="json")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = [word for file in files for word in ("--task", str(file))]
    assert cli.run(["train", str(tmp_path / "recipe.yaml"), *words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("tokens a second") == 2 and re.search(
        r"^2 models in all: .* GiB for 2 checkpoints", said, re.MULTILINE
    )
    assert not (home / "checkpoints").exists()
    assert cli.run(["train", str(tmp_path / "recipe.yaml"), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["name"] == "tune"


def test_what_training_refuses_a_plan_refuses(base: Path, task: Task) -> None:
    recipe = tiny_recipe(base, [task], split={"rule": "none"})
    for do in (plan, train):
        with pytest.raises(TrainingError, match=r"split\.rule none, by which test materials teach, so it is LEAKY"):
            do(recipe, tasks=[task])
    assert plan(recipe, tasks=[task], allow_leak=True).stages
