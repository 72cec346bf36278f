"""The units of the strategy comparison: one strategy and task, its recipe, its rows, its result."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from matdarwin.data import leakage, sources
from matdarwin.data.leakage import Split, keys_hash
from matdarwin.evaluation import results
from matdarwin.evaluation.baselines import TREES, fit_predict
from matdarwin.evaluation.features import FEATURE_VERSION
from matdarwin.evaluation.metrics import FoldScore, score_classification, score_regression
from matdarwin.evaluation.protocol import COVERAGE, score_task
from matdarwin.language.prompts import style
from matdarwin.models import checkpoint as checkpoints
from matdarwin.models.base import device_and_dtype, find_base, give_back_memory
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training.cards import parts_of
from matdarwin.training.errors import TrainingError
from matdarwin.training.provenance import commit, machine
from matdarwin.training.recipe import Recipe, earlier_tasks, split_of
from matdarwin.training.recipe_files import load_for_tasks, load_recipe
from matdarwin.training.report import Report
from matdarwin.training.run import recipe_hash, train

FORMAT = 1
RIVALS = "rivals"
"""In a strategy's place: the classical models, on the same rows."""

SINGLE = ("base-st", "random-st", "qa-st")
MULTIPLE = ("base-mt", "qa-mt", "random-mt", "know-mt")
METRICS = {"classification": "macro_f1", "regression": "mae"}
"""What the article compares."""

_WAYS = {"classification": "plain", "regression": "median"}
"""The likeliest class, and the answer that the absolute error asks for. Rivals are taken alike."""


@dataclass(frozen=True)
class Size:
    """The limits that all strategies share.

    Attributes:
        name: What recipes of this size are named by; empty for the recipes' own.
        rows: Most training rows a task, a seeded sample; None: all.
        test_rows: Most test rows a task, likewise.
        examples: Examples of each task that a strategy sees, on average over its tasks.
        batch_size: Rows a step.
        folder: Where the results go.
        recipes: Where the recipes are.
        more: Further settings of every recipe.
    """

    name: str
    rows: int | None
    test_rows: int | None
    examples: int
    batch_size: int
    folder: Path
    recipes: Path = Path("recipes")
    more: tuple[str, ...] = ()

    def settings(self, strategy: str) -> list[str]:
        """What is set on top of a strategy's recipe, the same for all but for their names."""
        shared = {
            "name": f"{self.name}-{strategy}" if self.name else strategy,
            "role": "benchmark",
            "fold": 0,
            "split.folds": "aligned",
            "split.limit": self.rows,
            "split.test_limit": self.test_rows,
            # No intervals are compared, so that all rows may teach.
            "split.validation": 0,
            "split.calibration": 0,
            "sampling": {"rule": "equal"},
            "optimising.examples": self.examples,
            "optimising.batch_size": self.batch_size,
            # A model of many tasks treats all of them alike, so those of one task must not be favoured.
            "overrides": {},
        }
        return [*(f"{key}={json.dumps(value)}" for key, value in shared.items()), *self.more]


REDUCED = Size("reduced", rows=600, test_rows=200, examples=700, batch_size=16, folder=Path("results") / "strategies")
"""Meant for two cores and about ten hours; `plan` gives the reckoning. Tasks of up to 600 training rows are whole."""

FULL = Size(
    "", rows=None, test_rows=None, examples=4_000, batch_size=32, folder=Path("results") / "strategies" / "full",
    more=('dtype="bf16"', "predicting.batch_size=128"),
)  # fmt: skip
"""All rows, for a GPU: the largest task is passed over nearly once, most of them many times."""


@dataclass(frozen=True)
class Unit:
    """One piece of work: a strategy, and the task it is for; None where one model has all tasks."""

    strategy: str
    task: str | None = None

    @property
    def id(self) -> str:
        """Its name."""
        return self.strategy if self.task is None else f"{self.strategy}.{self.task}"

    def path(self, size: Size) -> Path:
        """Where its result stands."""
        return size.folder / "units" / f"{self.id}.json"

    def chosen(self, words: str) -> bool:
        """Whether STRATEGY or STRATEGY.TASK means it; underscores do for hyphens in a strategy."""
        strategy, _, task = words.partition(".")
        return strategy.replace("_", "-") == self.strategy and task in ("", self.task)


class _Typed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scored(_Typed):
    """What one model scored on one task's test rows."""

    value: float = Field(description="Macro F1, or MAE with unread rows answered by the training median.")
    score: FoldScore
    seconds: float
    answers: dict[str, float | str | None] = Field(
        default_factory=dict, description="Answer by the row's id in its source; null where none was read."
    )


class TaskResult(_Typed):
    """One task of a unit."""

    kind: str
    metric: str
    unit: str | None = None
    rows: dict[str, int] = Field(description="Rows that taught, and rows that were tested.")
    models: dict[str, Scored] = Field(description="The strategy; or each of the rivals.")


class UnitResult(_Typed):
    """A finished unit."""

    format: int = FORMAT
    strategy: str
    size: dict[str, Any] = Field(description="The limits that it obeyed.")
    hash: str = Field(description="Hash of all that shapes it; with another one the unit is run again.")
    recipe_hash: str | None = None
    checkpoint: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    knowledge: list[str] = Field(default_factory=list)
    tasks: dict[str, TaskResult]
    commit: str | None = None
    scored_commit: str | None = None
    machine: dict[str, Any]
    finished: str
    seconds: float = Field(
        description="Of the start that finished it, with what earlier stages it trained or waited for."
    )


def limits(size: Size) -> dict[str, Any]:
    """The limits of a size, as results state them."""
    return {"training_rows": size.rows, "test_rows": size.test_rows, "examples": size.examples, "batch_size": size.batch_size,
            "fold": 0, "folds": "aligned"}  # fmt: skip


def scored_tasks(size: Size) -> list[str]:
    """The tasks that are compared: all that base-mt trains."""
    return list(_recipe_of_all("base-mt", size).tasks)


@cache
def _recipe_of_all(strategy: str, size: Size) -> Recipe:
    return load_recipe(size.recipes / f"{strategy}.yaml", size.settings(strategy))


def recipe_of(unit: Unit, size: Size) -> Recipe:
    """The recipe of a unit: the file of its strategy, for its task, within the limits."""
    file = size.recipes / f"{unit.strategy}.yaml"
    if unit.task is None:
        return _recipe_of_all(unit.strategy, size)
    return load_for_tasks(file, [unit.task], size.settings(unit.strategy))[0]


@cache
def own_rows(size: Size) -> Split:
    """The division of all tasks at once, with the test rows that are scored.

    Every strategy is taught and tested on these very rows. Were each task divided for itself, tasks that share a
    quantity could have other test folds alone than together, and single-task models would keep rows that the rule takes
    from multi-task ones.
    """
    recipe = _recipe_of_all("base-mt", size)
    split = split_of(recipe, [registry.load(name) for name in recipe.tasks])
    return replace(split, test={name: _some(rows, size.test_rows, name) for name, rows in split.test.items()})


def _some(rows: Sequence[Any], limit: int | None, salt: str) -> list[Any]:
    """A seeded sample in the order of the rows."""
    if limit is None or len(rows) <= limit:
        return list(rows)
    return [rows[place] for place in sorted(random.Random(salt).sample(range(len(rows)), limit))]


@cache
def _stage_rows(stage: tuple[str, ...], size: Size) -> Split:
    """Rows of tasks that teach before the own ones, whole, without what must not teach the scored ones."""
    recipe = _recipe_of_all("base-mt", size)
    mine = [registry.load(name) for name in recipe.tasks]
    others = [registry.load(name).model_copy(update={"scored": False}) for name in stage]
    return leakage.split(
        [*mine, *others], recipe.fold, seed=recipe.split.seed, validation=0, calibration=0, folds=recipe.split.folds
    )


def rows_of(recipe: Recipe, tasks: Sequence[Task], size: Size) -> Split:
    """A recipe's part of the rows: its tasks' own as all strategies have them, and those of its earlier stages."""
    whole = own_rows(size)
    others = earlier_tasks(recipe, tasks)
    names = [task.id for task in tasks]
    parts: dict[str, Any] = {
        part: {name: getattr(whole, part)[name] for name in names}
        for part in ("train", "validation", "calibration", "test")
    }
    if others:
        more = _stage_rows(tuple(task.id for task in others), size)
        parts["train"] |= {task.id: more.train[task.id] for task in others}
        for part in ("validation", "calibration"):
            parts[part] |= {task.id: [] for task in others}
    return replace(whole, tasks=(*tasks, *others), targets=tuple(names), **parts)


def unit_hash(unit: Unit, size: Size) -> str:
    """Hash of all that shapes a unit's result."""
    if unit.strategy == RIVALS:
        split, task = own_rows(size), str(unit.task)
        content: list[Any] = [FEATURE_VERSION, TREES, keys_hash(split.train[task]), keys_hash(split.test[task])]
        content += [registry.load(task).data_sha256(), [row.row for row in split.test[task]]]
    else:
        recipe = recipe_of(unit, size)
        tasks = [registry.load(name) for name in recipe.tasks]
        split = rows_of(recipe, tasks, size)
        content = [recipe_hash(recipe, tasks, find_base(recipe.base)), [parts_of(split, task) for task in tasks]]
    return hashlib.sha256(json.dumps([FORMAT, unit.id, *content], sort_keys=True).encode()).hexdigest()[:16]


def finished(unit: Unit, size: Size) -> bool:
    """Whether a unit's result stands and is of what would be run now."""
    path = unit.path(size)
    if not path.is_file():
        return False
    return UnitResult.model_validate_json(path.read_text(encoding="utf-8")).hash == unit_hash(unit, size)


def run_unit(unit: Unit, size: Size, report: Report, *, keep: bool = False) -> UnitResult:
    """Train and score a unit and write its result; a model that was broken off goes on where it stood.

    Args:
        unit: What to do.
        size: Within which limits.
        report: Where progress is told.
        keep: Keep the checkpoint of a single task, too; those of all tasks are always kept.

    Raises:
        TrainingError, CheckpointError, DataError, BaseModelError: As from training.
    """
    with checkpoints.hold(f"unit-{size.name or 'full'}-{unit.id}"):
        began = time.perf_counter()
        common: dict[str, Any] = {"strategy": unit.strategy, "size": limits(size), "hash": unit_hash(unit, size)}
        if unit.strategy == RIVALS:
            found: dict[str, Any] = {"tasks": {str(unit.task): _rivals(registry.load(str(unit.task)), size)}}
            made: Checkpoint | None = None
        else:
            found, made = _model(unit, size, report)
        result = UnitResult(
            **common, **found, scored_commit=commit(), machine=machine(), seconds=round(time.perf_counter() - began, 1),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        results.write(result, unit.path(size))
    if made is not None and unit.task is not None and not keep:
        # Half a gigabyte each, of a hundred models that are good for one number.
        with checkpoints.hold(made.name):
            shutil.rmtree(made.folder)
    return result


def _model(unit: Unit, size: Size, report: Report) -> tuple[dict[str, Any], Checkpoint]:
    """Train a unit's model, or find it, and score it."""
    recipe = recipe_of(unit, size)
    tasks = [registry.load(name) for name in recipe.tasks]
    split = rows_of(recipe, tasks, size)
    checkpoint = train(recipe, tasks=tasks, split=split, report=report)
    give_back_memory()
    for task in tasks:
        if checkpoint.card.tasks[task.id].parts != parts_of(split, task):
            raise TrainingError(
                f"{checkpoint.folder} was taught by another division of the rows of {task.id} than it would be scored "
                "by; remove it and run this again"
            )
    predictor = _predictor(checkpoint, recipe)
    scored = {task.id: _scored(unit, task, size, checkpoint, predictor, recipe, split, report) for task in tasks}
    del predictor
    give_back_memory()
    told = {
        "recipe_hash": checkpoint.card.recipe_hash, "checkpoint": checkpoint.name, "training": checkpoint.card.training,
        "knowledge": recipe.knowledge(), "tasks": scored, "commit": checkpoint.card.training["commit"],
    }  # fmt: skip
    return told, checkpoint


def _predictor(checkpoint: Checkpoint, recipe: Recipe) -> Predictor:
    """A predictor that scores no answer's end.

    A model that was hardly taught ends few answers surely; every one of thousands would be scored, for an hour a task.
    Which answer is likeliest, and the median, hardly depend on it, and all strategies are asked alike.
    """
    device, number_format = device_and_dtype(recipe.predicting.dtype, training=False)
    asked, taught = recipe.predicting, recipe.prompting
    return Predictor(
        checkpoint.model(number_format).to(device), checkpoint.tokenizer(), tasks=checkpoint.card.tasks,
        style=style(taught.style), name=checkpoint.name, views=asked.views, batch_size=asked.batch_size, prune=asked.prune,
        sure_end=0.0, wording=taught.wordings[0] if taught.wordings else None, writing=taught.writing(),
    )  # fmt: skip


def _scored(
    unit: Unit, task: Task, size: Size, checkpoint: Checkpoint, predictor: Predictor, recipe: Recipe, split: Split,
    report: Report,
) -> TaskResult:  # fmt: skip
    done = score_task(checkpoint, predictor, recipe, task, split, baselines=False, report=report, coverage=COVERAGE)
    answers = {
        answer.row: max(answer.probabilities, key=answer.probabilities.__getitem__)
        if answer.probabilities
        else answer.median
        for answer in done.answers
    }
    model = _model_name(unit.strategy)
    return _result(task, split, {model: (done.scores[_WAYS[task.kind]], done.predicting["seconds"], answers)})


def _rivals(task: Task, size: Size) -> TaskResult:
    """The classical models, fitted on the rows that teach every strategy, scored on the rows that test them."""
    import numpy as np

    split = own_rows(size)
    train_rows, test = split.train[task.id], split.test[task.id]
    made = fit_predict(task, train_rows, test, seed=0, cache=sources.cache() / "features")
    targets = [row.target for row in test]
    found: dict[str, tuple[FoldScore, float, dict[str, float | str | None]]] = {}
    for name, rival in made.items():
        if task.kind == "classification":
            if rival.note is not None:
                continue  # the same answers under a second name
            score: FoldScore = score_classification(
                [str(target) for target in targets], list(rival.plain or ()), task.labels, positive=task.positive,
                probabilities=list(rival.probabilities or ()), fold=0,
            )  # fmt: skip
        else:
            numbers = [float(row.target) for row in train_rows if row.target is not None]
            score = score_regression(
                [float(target) for target in targets if target is not None], [float(p) for p in rival.predictions],
                training_median=float(np.median(numbers)), fold=0,
            )  # fmt: skip
        found[name] = (score, rival.seconds, {})
    return _result(task, split, found)


def _result(
    task: Task, split: Split, models: dict[str, tuple[FoldScore, float, dict[str, float | str | None]]]
) -> TaskResult:
    named = {
        name: Scored(
            value=score.macro_f1 if score.kind == "classification" else score.mae_pessimistic, score=score,
            seconds=round(seconds, 2), answers=answers,
        )
        for name, (score, seconds, answers) in models.items()
    }  # fmt: skip
    rows = {"train": len(split.train[task.id]), "test": len(split.test[task.id])}
    return TaskResult(kind=task.kind, metric=METRICS[task.kind], unit=task.unit, rows=rows, models=named)


def _model_name(strategy: str) -> str:
    return strategy.replace("-", "_")
