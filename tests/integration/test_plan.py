"""What would be trained: checked and measured as it would be trained, and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_base, tiny_recipe, tiny_task

from matdarwin.tasks.schema import Task
from matdarwin.training import plan as plans
from matdarwin.training.errors import TrainingError
from matdarwin.training.plan import plan
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


def test_what_training_refuses_a_plan_refuses(base: Path, task: Task) -> None:
    recipe = tiny_recipe(base, [task], split={"rule": "none"})
    for do in (plan, train):
        with pytest.raises(TrainingError, match=r"split\.rule none, by which test materials teach, so it is LEAKY"):
            do(recipe, tasks=[task])
    assert plan(recipe, tasks=[task], allow_leak=True).stages
