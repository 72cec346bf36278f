"""The arithmetic of the strategy comparison: units to per-task changes, averages and signs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matdarwin.data import disk
from matdarwin.studies.scores import ResultsError
from matdarwin.studies.strategies_units import FORMAT, METRICS, MULTIPLE, RIVALS, SINGLE, UnitResult

BASE = "base_st"
COMPARED = tuple(name.replace("-", "_") for name in ("base-mt", "qa-st", "qa-mt", "random-st", "random-mt", "know-mt"))
KINDS = ("classification", "regression")
ARTICLE = {
    "qa_mt": {"classification": 3.38, "regression": -11.79},
    "base_mt": {"classification": 2.65, "regression": -10.77},
    "qa_st": {"classification": 1.55, "regression": -2.3},
}
"""What the article states for its 7 B model on all rows, per cent against base_st."""

ABOVE = {"classification": 5.0, "regression": 15.0}
"""Per cent that random weights are worse by, for pretrained ones to be far above: half of what the article states."""


class Average(BaseModel):
    """The mean change of one strategy against base_st over the tasks of one kind that both have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    percent: float | None = Field(description="Mean over tasks of 100 (score / base - 1).")
    standard_error: float | None = Field(description="Of that mean, from the spread over the tasks alone.")
    median: float | None = Field(description="Median over the tasks, which one task cannot carry away.")
    better: int = Field(description="Tasks on which the strategy is better than base_st.")
    tasks: int = Field(description="Tasks that both have.")
    of: int = Field(description="Tasks of this kind.")


class TaskSummary(BaseModel):
    """One task: every score, and the changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    metric: str
    unit: str | None
    rows: dict[str, int]
    scores: dict[str, float] = Field(description="By strategy and by rival.")
    unread: dict[str, int] = Field(description="Test rows without a readable answer, by strategy; those that have any.")
    change_percent: dict[str, float] = Field(description="Against base_st, by strategy.")


class Summary(BaseModel):
    """`results/strategies/summary.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    about: str
    size: dict[str, Any] = Field(description="The limits that every strategy obeyed.")
    classification_percent: dict[str, float | None]
    regression_percent: dict[str, float | None]
    averages: dict[str, dict[str, Average]] = Field(description="By strategy and kind.")
    article: dict[str, dict[str, float]]
    signs: dict[str, bool | None] = Field(description="Whether the article's signs are seen; null: not settled.")
    tasks: dict[str, TaskSummary]
    no_better_than_dummy: dict[str, list[str]]
    missing: dict[str, list[str]] = Field(description="Tasks whose score is not in yet, by strategy.")
    complete: bool
    rivals: str
    commit: list[str | None]
    machine: list[dict[str, Any]]
    seconds: dict[str, float]


def read_units(folder: Path) -> list[UnitResult]:
    """All finished units under a folder.

    Raises:
        ResultsError: A file is no unit; it is named.
    """
    found = []
    for file in sorted((folder / "units").glob("*.json")):
        try:
            found.append(UnitResult.model_validate_json(file.read_text(encoding="utf-8")))
        except (ValidationError, UnicodeDecodeError) as error:
            raise ResultsError(
                f"{file} is no unit of the strategy comparison: {' '.join(str(error).split())}"
            ) from error
    return found


def summarise(units: Sequence[UnitResult], kinds: Mapping[str, str]) -> Summary:
    """Sum the finished units up.

    Args:
        units: What is finished.
        kinds: All tasks that are compared, finished or not: classification or regression, by id.

    Raises:
        ResultsError: Units of different limits, or of different rows of one task, which cannot be compared.
    """
    if len(sizes := {str(sorted(unit.size.items())) for unit in units}) > 1:
        raise ResultsError(
            f"units of different limits cannot be compared: {' and '.join(sorted(sizes))}; remove those of the old ones"
        )
    tasks = _tasks(units, list(kinds))
    models = [strategy.replace("-", "_") for strategy in (*SINGLE, *MULTIPLE)]
    averages = {
        name: {kind: _average(tasks, name, kind, of=list(kinds.values()).count(kind)) for kind in KINDS}
        for name in COMPARED
    }
    missing = {
        model: lacking
        for model in models
        if (lacking := [name for name in kinds if name not in tasks or model not in tasks[name].scores])
    }
    if without := [name for name in kinds if name not in tasks or "dummy" not in tasks[name].scores]:
        missing[RIVALS] = without
    return Summary(
        about="One seed, fold 0. Every strategy was taught the same rows of each task and saw as many examples of it on "
        "average; the change is 100 (score / base_st - 1), of macro F1 (likeliest class; more is better) and of MAE "
        "(median answer; less is better).",
        size=units[0].size if units else {},
        classification_percent={name: averages[name]["classification"].percent for name in COMPARED},
        regression_percent={name: averages[name]["regression"].percent for name in COMPARED},
        averages=averages,
        article=ARTICLE,
        signs=_signs(averages),
        tasks=tasks,
        no_better_than_dummy={
            model: [name for name, task in tasks.items() if _no_better(task, model, "dummy")] for model in models
        },
        missing=missing,
        complete=not missing,
        rivals="Fitted once a task on the very rows that teach every strategy, scored on the same test rows; they see "
        "element statistics, descriptors and conditions as numbers, and nothing of other tasks.",
        commit=list(dict.fromkeys(unit.commit for unit in units if unit.strategy != RIVALS)),
        machine=_different([unit.machine for unit in units]),
        seconds={
            strategy: round(sum(map(_spent, (unit for unit in units if unit.strategy == strategy))), 1)
            for strategy in dict.fromkeys(unit.strategy for unit in units)
        },
    )


def _spent(unit: UnitResult) -> float:
    """Seconds that a unit took over all its starts, apart from earlier stages, which it may share with others."""
    if unit.strategy == RIVALS:
        return unit.seconds
    scoring = sum(scored.seconds for task in unit.tasks.values() for scored in task.models.values())
    return float(unit.training.get("seconds_training", 0.0)) + scoring


def write_summary(summary: Summary, folder: Path) -> Path:
    """Write summary.json in one step; unlike other results it keeps what is not known, as null."""
    path = folder / "summary.json"
    disk.write_whole(path, summary.model_dump_json(indent=1) + "\n")
    return path


def read_summary(folder: Path) -> Summary | None:
    """The summary under a folder, or None where the comparison was not run.

    Raises:
        ResultsError: The file is no summary.
    """
    file = folder / "summary.json"
    if not file.is_file():
        return None
    try:
        return Summary.model_validate_json(file.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"{file} is no summary of the strategy comparison: {' '.join(str(error).split())}; make it again with "
            "python -m matdarwin.studies.strategies summary"
        ) from error


def _tasks(units: Sequence[UnitResult], names: Sequence[str]) -> dict[str, TaskSummary]:
    """Every task that any unit has, with all scores of it."""
    found = {}
    for name in names:
        mine = [(unit, unit.tasks[name]) for unit in units if name in unit.tasks]
        if not mine:
            continue
        first = mine[0][1]
        for unit, task in mine:
            if task.rows != first.rows:
                raise ResultsError(
                    f"{name}: {unit.strategy} was taught and tested on other rows ({task.rows}) than {mine[0][0].strategy} "
                    f"({first.rows}); run it again"
                )
        models = {model: scored for _, task in mine for model, scored in task.models.items()}
        scores = {model: scored.value for model, scored in models.items()}
        base = scores.get(BASE)
        found[name] = TaskSummary(
            kind=first.kind,
            metric=first.metric,
            unit=first.unit,
            rows=first.rows,
            scores=scores,
            unread={model: scored.score.unread for model, scored in models.items() if scored.score.unread},
            # There is no share of nothing: a base of 0 has no change.
            change_percent={model: 100 * (scores[model] / base - 1) for model in COMPARED if base and model in scores},
        )
    return found


def _average(tasks: dict[str, TaskSummary], model: str, kind: str, *, of: int) -> Average:
    changes = [
        task.change_percent[model] for task in tasks.values() if task.kind == kind and model in task.change_percent
    ]
    better = sum(change > 0 if kind == "classification" else change < 0 for change in changes)
    return Average(
        percent=round(statistics.fmean(changes), 3) if changes else None,
        standard_error=round(statistics.stdev(changes) / len(changes) ** 0.5, 3) if len(changes) > 1 else None,
        median=round(statistics.median(changes), 3) if changes else None,
        better=better,
        tasks=len(changes),
        of=of,
    )


def _signs(averages: dict[str, dict[str, Average]]) -> dict[str, bool | None]:
    """Whether what the article says is seen here; None where the tasks do not settle it."""
    better, worse = averages["qa_mt"], averages["random_st"]
    far = [
        _beyond(worse["classification"], -ABOVE["classification"], below=True),
        _beyond(worse["regression"], ABOVE["regression"]),
    ]
    return {
        "qa_mt_better_at_classification": _beyond(better["classification"], 0),
        "qa_mt_better_at_regression": _beyond(better["regression"], 0, below=True),
        "pretrained_far_above_random": False if False in far else None if None in far else True,
    }


def _beyond(average: Average, bound: float, *, below: bool = False) -> bool | None:
    """Whether a change lies above a bound, or below it; None where that is not settled.

    All tasks of the kind must be in. The mean must be two standard errors away from the bound, and the median on the same
    side of it: a mean can be one task's.
    """
    percent, median, error = average.percent, average.median, average.standard_error
    if average.tasks < average.of or percent is None or median is None or error is None:
        return None
    side = -1 if below else 1
    mean, middle = side * (percent - bound), side * (median - bound)
    if mean > 2 * error and middle > 0:
        return True
    return False if mean < -2 * error and middle < 0 else None


def _no_better(task: TaskSummary, model: str, other: str) -> bool:
    if model not in task.scores or other not in task.scores:
        return False
    mine, theirs = task.scores[model], task.scores[other]
    return mine <= theirs if task.metric == METRICS["classification"] else mine >= theirs


def _different(machines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [machine for place, machine in enumerate(machines) if machine not in machines[:place]]
