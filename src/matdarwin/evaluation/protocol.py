"""Scores on test folds: train or reuse each fold's model, ask it, and put it beside its rivals of the same run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from matdarwin.data import leakage, sources
from matdarwin.data.leakage import Split
from matdarwin.evaluation import results
from matdarwin.evaluation.baselines import BaselineResult, fit_predict
from matdarwin.evaluation.board import published
from matdarwin.evaluation.metrics import FoldScore, score_classification, score_regression
from matdarwin.evaluation.results import Answer, BoardResult, FoldResult
from matdarwin.models.base import find_base
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.intervals import Calibration
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.cards import parts_of
from matdarwin.training.provenance import commit, machine
from matdarwin.training.recipe import Recipe
from matdarwin.training.report import Report, Silent
from matdarwin.training.run import recipe_hash, split_of, train

COVERAGE = 0.9
FOLDS = (0, 1, 2, 3, 4)
HELD_OUT = "held-out"
"""Names the wording that a task keeps from training."""


class EvaluationError(RuntimeError):
    """A score that would not be honest, or has nothing to be taken on."""


def evaluate(
    recipe: Recipe,
    *,
    tasks: Sequence[Task] | None = None,
    folds: Sequence[int] | None = None,
    baselines: bool = True,
    report: Report | None = None,
    coverage: float = COVERAGE,
    allow_leak: bool = False,
) -> list[BoardResult]:
    """Score a recipe on test folds; a fold that is finished under the same recipe is read, never run twice.

    Args:
        recipe: The recipe; its own `fold` is overruled by `folds`.
        tasks: Its tasks, where they are no registered ones.
        folds: Test folds; None: all five.
        baselines: Also fit the rivals, on every row that the model could use in any way.
        report: Where progress is told.
        coverage: Nominal coverage of the intervals.
        allow_leak: Also train and score what the audit calls leaky; the results are marked LEAKY.

    Returns:
        One result a task, each written to `results/board`.
    """
    report = report or Silent()
    tasks = list(tasks) if tasks is not None else [registry.load(name) for name in recipe.tasks]
    base = find_base(recipe.base)
    # Fold models are for scores: none of them may become what `predict` takes by default.
    recipe = recipe.model_copy(update={"role": "benchmark"})
    scored = leakage.targets(tasks)
    for task in scored:
        _refuse_other_recipe(task, recipe)
    paths = {
        (task.id, fold): results.fold_path(task.id, recipe.name, fold, recipe_hash(_of_fold(recipe, fold), tasks, base))
        for task in scored
        for fold in FOLDS
    }
    for fold in folds if folds is not None else FOLDS:
        if all(_usable(paths[task.id, fold], baselines=baselines, coverage=coverage) for task in scored):
            report.say(f"fold {fold}: read from {', '.join(str(paths[task.id, fold]) for task in scored)}")
            continue
        if all(_usable(paths[task.id, fold], baselines=False, coverage=coverage) for task in scored):
            # Scored before without its rivals, maybe on another machine: the model is not needed for them.
            _add_rivals(_of_fold(recipe, fold), tasks, {task.id: paths[task.id, fold] for task in scored}, report)
            continue
        checkpoint = train(_of_fold(recipe, fold), tasks=tasks, report=report, allow_leak=allow_leak)
        for result in _score(
            checkpoint, _of_fold(recipe, fold), tasks, baselines=baselines, report=report, coverage=coverage
        ):
            results.write(result, paths[result.task, fold])
    made = []
    for task in scored:
        # Every finished fold of this recipe, not only those asked for now: a board never loses one.
        standing = [paths[task.id, fold] for fold in FOLDS if paths[task.id, fold].is_file()]
        made.append(_board(task, [_read(path) for path in standing]))
    return made


def _of_fold(recipe: Recipe, fold: int) -> Recipe:
    return recipe.model_copy(update={"fold": fold})


def _read(path: Path) -> FoldResult:
    return FoldResult.model_validate_json(path.read_text(encoding="utf-8"))


def _usable(path: Path, *, baselines: bool, coverage: float) -> bool:
    """Whether a fold's result is there and holds what is asked for."""
    if not path.is_file():
        return False
    result = _read(path)
    return result.coverage == coverage and (bool(result.baselines) or not baselines)


def _add_rivals(recipe: Recipe, tasks: Sequence[Task], paths: Mapping[str, Path], report: Report) -> None:
    """Fit the rivals of folds that were scored without them, on the rows that the recipe's hash stands for."""
    split = split_of(recipe, tasks)
    for name, path in paths.items():
        task, found = next(task for task in tasks if task.id == name), _read(path)
        if {answer.row for answer in found.answers} != {row.row for row in split.test[name]}:
            raise EvaluationError(
                f"{path} has answers to other rows of {name} than this version tests; remove it and train again"
            )
        report.say(f"fold {recipe.fold}: fitting the rivals of {name}; the model was scored before")
        scores, seconds = _rivals(task, split, recipe)
        results.write(found.model_copy(update={"baselines": scores, "baseline_seconds": seconds}), path)


def _rivals(task: Task, split: Split, recipe: Recipe) -> tuple[dict[str, FoldScore], dict[str, float]]:
    """Scores of the classical models on a task's test rows, and the seconds each took."""
    test, usable = split.test[task.id], _usable_rows(split, task)
    made = fit_predict(task, usable, test, seed=recipe.seed, cache=sources.cache() / "features")
    return (
        {name: _rival(task, test, rival, usable, recipe.fold) for name, rival in made.items()},
        {name: round(rival.seconds, 2) for name, rival in made.items()},
    )


def _usable_rows(split: Split, task: Task) -> list[Example]:
    """All rows that a model of the task could use in any way."""
    return [*split.train[task.id], *split.validation[task.id], *split.calibration[task.id]]


def _refuse_other_recipe(task: Task, recipe: Recipe) -> None:
    """A recipe that was changed must not write over the board of the one whose name it bears."""
    path = results.board_path(task.id, recipe.name)
    if not path.is_file():
        return
    standing = BoardResult.model_validate_json(path.read_text(encoding="utf-8")).recipe
    now = results.without_fold(recipe.model_dump(mode="json"))
    # A key that recipes have got since then had the effect of its default.
    with contextlib.suppress(ValidationError):
        standing = results.without_fold(Recipe.model_validate(standing).model_dump(mode="json"))
    differing = sorted(key for key in standing.keys() | now.keys() if standing.get(key) != now.get(key))
    if differing:
        raise EvaluationError(
            f"{path} is the result of another recipe named {recipe.name} (it differs in {', '.join(differing)}); "
            "give this one its own name, --set name=..., or remove that file"
        )


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    *,
    task: str | None = None,
    baselines: bool = True,
    report: Report | None = None,
    coverage: float = COVERAGE,
    wording: int | str | None = None,
) -> list[FoldResult]:
    """Score one checkpoint on the test rows that its recipe held out.

    Args:
        checkpoint: The checkpoint.
        task: The task to score; None: all that it knows.
        baselines: Also fit the rivals.
        report: Where progress is told.
        coverage: Nominal coverage of the intervals.
        wording: Ask in this wording of each task, by its number, or in the one kept from training (`HELD_OUT`); None: as
            it was taught to be asked.

    Raises:
        EvaluationError: Nothing was held out, the checkpoint does not know the task, or the task has no such wording.
    """
    recipe = Recipe.model_validate(checkpoint.card.recipe)
    if recipe.fold is None:
        raise EvaluationError(
            f"{checkpoint.name} was trained on all rows; nothing is held out to score it on. Train with --set fold=0"
        )
    if task is not None and task not in checkpoint.card.tasks:
        raise EvaluationError(f"{checkpoint.name} does not know {task}; it knows {', '.join(checkpoint.card.tasks)}")
    tasks = [card.task for card in checkpoint.card.tasks.values()]
    scored = [one for one in leakage.targets(tasks) if task in (None, one.id)]
    if not scored:
        held = ", ".join(one.id for one in leakage.targets(tasks))
        raise EvaluationError(
            f"{task} only taught {checkpoint.name}, which held out no rows of it; it held out those of {held}"
        )
    wordings = {} if wording is None else {one.id: _number(one, wording) for one in scored}
    return _score(
        checkpoint, recipe, tasks, baselines=baselines, report=report or Silent(), coverage=coverage, only=task,
        wordings=wordings,
    )  # fmt: skip


def _number(task: Task, wording: int | str) -> int:
    """The number of a wording that a task is to be asked in."""
    if wording == HELD_OUT:
        if task.held_out_wording is None:
            raise EvaluationError(
                f"{task.id} keeps no wording from training; give a number from 0 to {len(task.wordings) - 1}"
            )
        return task.held_out_wording
    if not isinstance(wording, int) or not 0 <= wording < len(task.wordings):
        raise EvaluationError(
            f"{task.id} has no wording {wording}; it has 0 to {len(task.wordings) - 1}, and darwin tasks {task.id} shows them"
        )
    return wording


def _score(
    checkpoint: Checkpoint, recipe: Recipe, tasks: Sequence[Task], *, baselines: bool, report: Report, coverage: float,
    only: str | None = None, wordings: Mapping[str, int] | None = None,
) -> list[FoldResult]:  # fmt: skip
    split = split_of(recipe, tasks)
    if (problems := leakage.check(split)) and not checkpoint.card.leaky:
        raise EvaluationError("the split is not disjoint, so no score is taken: " + "; ".join(problems[:3]))
    for task in tasks:
        if checkpoint.card.tasks[task.id].parts != parts_of(split, task):
            raise EvaluationError(
                f"{checkpoint.name} was trained on another division of {task.id} than this version makes, so its test rows "
                "may have taught it; remove the checkpoint and train again"
            )
    predictor = Predictor.of(checkpoint, dtype=recipe.predicting.dtype)
    return [
        score_task(
            checkpoint,
            predictor,
            recipe,
            next(t for t in tasks if t.id == name),
            split,
            baselines=baselines,
            report=report,
            coverage=coverage,
            wording=(wordings or {}).get(name),
        )
        for name in split.targets
        if only in (None, name)
    ]


def score_task(
    checkpoint: Checkpoint,
    predictor: Predictor,
    recipe: Recipe,
    task: Task,
    split: Split,
    *,
    baselines: bool,
    report: Report,
    coverage: float,
    wording: int | None = None,
) -> FoldResult:
    """Score one task's test rows, and its rivals on the same rows; `wording` asks otherwise than was taught."""
    test = split.test[task.id]
    report.begin(f"scoring {task.id}, fold {recipe.fold}", len(test))
    began = time.perf_counter()
    answers = predictor.distributions(task, test, wording=wording, progress=lambda done, total: report.step(done, ""))
    seconds = time.perf_counter() - began
    calibration = predictor.calibrations.get(task.id)
    usable = _usable_rows(split, task)
    scores = _ways(task, test, answers, calibration, checkpoint, usable, recipe.fold, coverage)
    groups = {}
    if task.kind == "regression" and "band gap" in task.quantities:
        for name, chosen in (("metals", [e.target == 0 for e in test]), ("non_metals", [e.target != 0 for e in test])):
            rows = [i for i, yes in enumerate(chosen) if yes]
            if rows:
                groups[name] = _ways(
                    task,
                    [test[i] for i in rows],
                    [answers[i] for i in rows],
                    calibration,
                    checkpoint,
                    usable,
                    recipe.fold,
                    coverage,
                )
    rivals, rival_seconds = _rivals(task, split, recipe) if baselines else ({}, {})
    assert recipe.fold is not None
    return FoldResult(
        task=task.id, strategy=recipe.name, fold=recipe.fold, seed=recipe.seed, folds=recipe.split.folds,
        recipe=recipe.model_dump(mode="json"), recipe_hash=checkpoint.card.recipe_hash, data_sha256=task.data_sha256(),
        commit=checkpoint.card.training["commit"], scored_commit=commit(), checkpoint=checkpoint.name, counts=checkpoint.card.tasks[task.id].counts,
        training=checkpoint.card.training,
        predicting={
            "views": predictor.views, "dtype": recipe.predicting.dtype, "batch_size": predictor.batch_size,
            "seconds": round(seconds, 1), "rows_per_second": round(len(test) / seconds, 2),
            **({} if wording is None else {"wording": wording}),
        },
        coverage=coverage, scores=scores, groups=groups, knowledge=recipe.knowledge(),
        leaky=checkpoint.card.leaky,
        baselines=rivals, baseline_seconds=rival_seconds,
        answers=[_answer(task, e, a, calibration, coverage) for e, a in zip(test, answers, strict=True)],
        machine=machine(),
    )  # fmt: skip


def _ways(
    task: Task, test: Sequence[Example], answers: Sequence[AnswerDistribution | None], calibration: Calibration | None,
    checkpoint: Checkpoint, usable: Sequence[Example], fold: int | None, coverage: float,
) -> dict[str, FoldScore]:  # fmt: skip
    """Scores by way of answering, the right one for the task's metric first."""
    if task.kind == "classification":
        shares = np.array([checkpoint.card.tasks[task.id].shares[label] for label in task.labels])
        weighted = [a.label(shares) if a else None for a in answers]
        plain = [a.label() if a else None for a in answers]
        ways = {"weighted": weighted, "plain": plain}
        if task.metric != "balanced_accuracy":
            ways = {"plain": plain, "weighted": weighted}
        targets = [str(e.target) for e in test]
        probabilities = [dict(zip(a.labels, map(float, a.probabilities), strict=True)) if a else None for a in answers]
        return {
            name: score_classification(
                targets, labels, task.labels, positive=task.positive, probabilities=probabilities, fold=fold
            )
            for name, labels in ways.items()
        }
    numbers = [float(e.target) for e in test if e.target is not None]
    middle = float(np.median([float(e.target) for e in usable if e.target is not None]))
    found: dict[str, FoldScore] = {}
    first = results.way_of(task.metric)
    for name in (first, *(way for way in ("median", "mean", "mode") if way != first)):
        values = [getattr(a, name)() if a else None for a in answers]
        intervals = [
            calibration.interval(a, coverage, value=v) if a and calibration else None
            for a, v in zip(answers, values, strict=True)
        ]
        found[name] = score_regression(numbers, values, training_median=middle, intervals=intervals, fold=fold)
    return found


def _rival(
    task: Task, test: Sequence[Example], rival: BaselineResult, usable: Sequence[Example], fold: int | None
) -> FoldScore:
    if task.kind == "classification":
        return score_classification(
            [str(e.target) for e in test], [str(p) for p in rival.predictions], task.labels, positive=task.positive,
            probabilities=list(rival.probabilities) if rival.probabilities else None, fold=fold,
        )  # fmt: skip
    middle = float(np.median([float(e.target) for e in usable if e.target is not None]))
    return score_regression(
        [float(e.target) for e in test if e.target is not None],
        [float(p) for p in rival.predictions],
        training_median=middle,
        fold=fold,
    )


def _answer(
    task: Task, example: Example, answer: AnswerDistribution | None, calibration: Calibration | None, coverage: float
) -> Answer:
    if answer is None:
        return Answer(row=example.row, reason="no probability on any answer of the format")
    mass: dict[str, Any] = {"outside": round(answer.outside, 6), "unexpanded": round(answer.unexpanded, 6)}
    mass["assumed_ends"] = round(answer.assumed_ends, 6)
    if task.kind == "classification":
        return Answer(
            row=example.row,
            probabilities={k: round(float(p), 6) for k, p in zip(answer.labels, answer.probabilities, strict=True)},
            **mass,
        )
    # The interval holds the value that is given, which is the mean for squared errors.
    value = answer.mean() if results.way_of(task.metric) == "mean" else answer.median()
    interval = calibration.interval(answer, coverage, value=value) if calibration else None
    lower, upper = interval or (None, None)
    return Answer(
        row=example.row,
        median=answer.median(),
        mean=round(answer.mean(), 6),
        mode=answer.mode(),
        lower=lower,
        upper=upper,
        **mass,
    )


def _board(task: Task, found: list[FoldResult]) -> BoardResult:
    board = [row for row in published(task, sources.mirror()) if row.folds == len(FOLDS)]
    result = results.summarise(found, title=task.title, metric=task.metric, unit=task.unit, board=board)
    results.write(result, result.path)
    return result
