"""What is written of a score: the value that the task's metric asks for, in an interval that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matdarwin.evaluation import protocol
from matdarwin.evaluation.results import BoardResult
from matdarwin.materials import parse
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.intervals import MINIMUM, Calibration, calibrate
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.recipe_files import load_for_tasks
from tiny import tiny_task

# Half of the probability at 0, the rest far away: the mean lies where no narrow interval about the median reaches.
SKEWED = AnswerDistribution(np.array([0.0, 5.0]), (), np.array([0.6, 0.4]), 0.0, 0.0)


def exact(task: Task) -> Calibration:
    """A calibration of a model that was always right, so that its intervals have no width."""
    sure = AnswerDistribution(np.array([0.0, 5.0]), (), np.array([1.0, 0.0]), 0.0, 0.0)
    return calibrate(task, [sure] * MINIMUM, [0.0] * MINIMUM, beta=0.1)


@pytest.mark.parametrize(("metric", "value"), [("mae", "median"), ("rmse", "mean")])
def test_the_interval_holds_the_value_that_is_given(tmp_path: Path, metric: str, value: str) -> None:
    task = tiny_task(tmp_path, metric=metric)
    example = Example(task=task.id, row="0", material=parse("GaN", "composition"), target=0.0)
    answer = protocol._answer(task, example, SKEWED, exact(task), 0.9)
    shown = getattr(answer, value)
    assert answer.lower is not None and answer.upper is not None and answer.lower <= shown <= answer.upper
    assert (answer.lower <= answer.mean <= answer.upper) == (metric == "rmse")  # type: ignore[operator]


def board(metric: str) -> BoardResult:
    summary: dict[str, Any] = {
        "mae": {"median": 0.1, "mean": 0.2, "mode": 0.3}, "rmse": {"median": 0.5, "mean": 0.4, "mode": 0.6},
        "coverage": 0.9, "width": 1.0,
    }  # fmt: skip
    return BoardResult(
        task="t", title="t", metric=metric, unit="eV", strategy="s", recipe={}, recipe_hashes=[], commit=[], seeds=[0],
        folds_scheme="official", summary=summary, folds=[], baselines={}, board=[], knowledge=[], machine={}, complete=True,
    )  # fmt: skip


@pytest.mark.parametrize(("metric", "mae", "rmse"), [("mae", 0.1, 0.5), ("rmse", 0.2, 0.4)])
def test_the_table_has_the_scores_of_the_value_that_is_given(metric: str, mae: float, rmse: float) -> None:
    (own,) = board(metric).table()
    assert own == ("s", {"mae": mae, "rmse": rmse, "coverage": 0.9, "width": 1.0})


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "results" / "board").glob("*.json")))
def test_boards_on_file_are_of_the_recipes_on_file(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table must not set scores of a recipe as it was beside those of the same recipe as it is."""
    monkeypatch.chdir(ROOT)
    task, _, strategy = file.removesuffix(".json").partition(".")
    (recipe,) = load_for_tasks(Path("recipes") / f"{strategy}.yaml", [task])
    protocol._refuse_other_recipe(registry.load(task), recipe.model_copy(update={"role": "benchmark"}))
