"""Scores of one fold: errors, agreement, ranking and intervals, with unread answers counted, never hidden.

An answer is None where the model's output could not be read. Such a row is never 0 and never dropped in silence:

- numbers are scored over the rows that were read, with the count of unread rows beside, and once more
  pessimistically, with every unread row answered by the median of the training targets;
- for classes an unread row is a wrong answer, in accuracy, balanced accuracy and macro F1 alike. The true ROC-AUC
  needs probabilities, so it is given over the rows that have them, with the count of those that do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from matdarwin.prediction.intervals import Interval, report

Floats = NDArray[np.float64]
Number = float | None
Label = str | None

_UNREAD = "\x00unread"


class _Typed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RegressionScore(_Typed):
    """Scores of one fold of a regression task; errors in the task's unit. A score is None where no row allows it."""

    kind: Literal["regression"] = "regression"
    fold: int | None = None
    rows: int = Field(description="Test rows.")
    unread: int = Field(description="Rows without a readable answer.")
    mae: float | None = Field(default=None, description="Mean absolute error over the rows that were read.")
    rmse: float | None = Field(default=None, description="Root mean square error over the rows that were read.")
    mae_pessimistic: float = Field(
        description="Mean absolute error over all rows, an unread one answered by the training median."
    )
    coverage: float | None = Field(
        default=None, description="Share of the rows with an interval whose target it holds."
    )
    width: float | None = Field(default=None, description="Mean width of the intervals.")
    without_interval: int | None = Field(
        default=None, description="Rows without an interval; None where no intervals were given."
    )


class ClassificationScore(_Typed):
    """Scores of one fold of a classification task; an unread row counts as wrong. A score is None where no row allows it."""

    kind: Literal["classification"] = "classification"
    fold: int | None = None
    rows: int = Field(description="Test rows.")
    unread: int = Field(description="Rows without a readable answer.")
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    roc_auc: float | None = Field(
        default=None, description="True ROC-AUC from probabilities; None without them or with one class only."
    )
    without_probability: int | None = Field(
        default=None, description="Rows without probabilities; None where none were given."
    )


FoldScore = RegressionScore | ClassificationScore


class Mean(_Typed):
    """A score over folds."""

    mean: float
    std: float = Field(description="Standard deviation over the folds (divisor n), as the matbench board has it.")
    folds: int = Field(description="Folds that have this score.")


def mae(targets: Sequence[Number], answers: Sequence[Number]) -> float:
    """Mean absolute error over the rows that were read, in the targets' unit.

    Args:
        targets: True values [rows].
        answers: Answers [rows], None where unread.

    Raises:
        ValueError: Lengths differ, a target is missing, a value is not finite, or no row was read.
    """
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(*_read(targets, answers)))


def rmse(targets: Sequence[Number], answers: Sequence[Number]) -> float:
    """Root mean square error over the rows that were read, in the targets' unit; arguments and errors as `mae`."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(*_read(targets, answers)))


def mae_pessimistic(targets: Sequence[Number], answers: Sequence[Number], training_median: float) -> float:
    """Mean absolute error over all rows, where an unread row gets what someone without a model would say.

    Args:
        targets: True values [rows].
        answers: Answers [rows], None where unread.
        training_median: Median of the training targets, in the same unit.

    Raises:
        ValueError: As `mae`, but rows that were not read are no error.
    """
    if not math.isfinite(training_median):
        raise ValueError(f"the training median must be finite, got {training_median}")
    return mae(targets, [training_median if answer is None else answer for answer in answers])


def accuracy(targets: Sequence[Label], answers: Sequence[Label], labels: Sequence[str]) -> float:
    """Share of right answers; an unread row is wrong.

    Args:
        targets: True labels [rows].
        answers: Answers [rows], None where unread.
        labels: The task's labels.

    Raises:
        ValueError: Lengths differ, there are no rows, a target is missing, or a label is none of the task's.
    """
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(*_labelled(targets, answers, labels)))


def balanced_accuracy(targets: Sequence[Label], answers: Sequence[Label], labels: Sequence[str]) -> float:
    """Mean, over the classes among the targets, of the share of their rows answered rightly; arguments as `accuracy`."""
    from sklearn.metrics import recall_score

    truth, given = _labelled(targets, answers, labels)
    return float(recall_score(truth, given, labels=sorted(set(truth)), average="macro"))


def macro_f1(targets: Sequence[Label], answers: Sequence[Label], labels: Sequence[str]) -> float:
    """Mean of F1 over the classes that occur among targets or answers; arguments as `accuracy`.

    A class that a fold neither has nor is answered is left out: its F1 is 0/0. An unread row is a miss of its class.
    """
    from sklearn.metrics import f1_score

    truth, given = _labelled(targets, answers, labels)
    seen = sorted((set(truth) | set(given)) - {_UNREAD})
    return float(f1_score(truth, given, labels=seen, average="macro", zero_division=0))


def roc_auc(
    targets: Sequence[Label],
    probabilities: Sequence[Mapping[str, float] | None],
    labels: Sequence[str],
    positive: str | None = None,
) -> float:
    """True area under the ROC curve, from probabilities, over the rows that have them.

    With two labels it is that of `positive` (by default the second label), else the mean of one against the rest over
    the labels. The matbench board's column of that name is balanced accuracy instead (matbench issues 137 and 181).

    Args:
        targets: True labels [rows].
        probabilities: Probability of each label, a mapping a row; None where the row was not read.
        labels: The task's labels.
        positive: The label that counts as positive.

    Raises:
        ValueError: Lengths differ, a label or probability is missing, not finite or not in 0 to 1, or the rows with
            probabilities do not have every label among their targets.
    """
    from sklearn.metrics import roc_auc_score

    truth, _ = _labelled(targets, [None] * len(targets), labels)
    _same_length(targets, probabilities, "probabilities")
    kept = [(label, row) for label, row in zip(truth, probabilities, strict=True) if row is not None]
    absent = set(labels) - {label for label, _ in kept}
    if absent:
        raise ValueError(
            f"ROC-AUC needs every class among the targets of rows with probabilities; none is {', '.join(sorted(absent))}"
        )
    table = np.array([[_probability(row, label) for label in labels] for _, row in kept])
    if len(labels) == 2:
        chosen = labels[1] if positive is None else positive
        if chosen not in labels:
            raise ValueError(f"positive label {chosen!r} is not among {list(labels)}")
        return float(roc_auc_score([label == chosen for label, _ in kept], table[:, list(labels).index(chosen)]))
    single = [roc_auc_score([label == one for label, _ in kept], table[:, column]) for column, one in enumerate(labels)]
    return float(np.mean(single))


def coverage(targets: Sequence[Number], intervals: Sequence[Interval | None]) -> float:
    """Share of the rows with an interval whose target lies in it, ends included.

    Raises:
        ValueError: Lengths differ, a value is not finite, an interval's ends are the wrong way round, or no row has one.
    """
    found = report(targets, intervals).coverage
    if found is None:
        raise ValueError("no row has an interval, so there is no coverage")
    return found


def width(targets: Sequence[Number], intervals: Sequence[Interval | None]) -> float:
    """Mean width of the intervals, in the targets' unit; arguments and errors as `coverage`."""
    found = report(targets, intervals).width
    if found is None:
        raise ValueError("no row has an interval, so there is no width")
    return found


def score_regression(
    targets: Sequence[Number],
    answers: Sequence[Number],
    *,
    training_median: float,
    intervals: Sequence[Interval | None] | None = None,
    fold: int | None = None,
) -> RegressionScore:
    """All scores of one fold of a regression task.

    Args:
        targets: True values [rows], in the task's unit.
        answers: Answers [rows], None where unread.
        training_median: Median of the training targets; stands in for unread rows in `mae_pessimistic`.
        intervals: (lower, upper) a row, None where there is none; or None where the model gives no intervals.
        fold: Number of the fold.

    Raises:
        ValueError: As the single scores; a fold in which nothing was read is no error.
    """
    pessimistic = mae_pessimistic(targets, answers, training_median)
    unread = sum(answer is None for answer in answers)
    some = unread < len(answers)
    cover = None if intervals is None else report(targets, intervals)
    return RegressionScore(
        fold=fold,
        rows=len(targets),
        unread=unread,
        mae=mae(targets, answers) if some else None,
        rmse=rmse(targets, answers) if some else None,
        mae_pessimistic=pessimistic,
        coverage=None if cover is None else cover.coverage,
        width=None if cover is None else cover.width,
        without_interval=None if cover is None else cover.without_interval,
    )


def score_classification(
    targets: Sequence[Label],
    answers: Sequence[Label],
    labels: Sequence[str],
    *,
    positive: str | None = None,
    probabilities: Sequence[Mapping[str, float] | None] | None = None,
    fold: int | None = None,
) -> ClassificationScore:
    """All scores of one fold of a classification task.

    Args:
        targets: True labels [rows].
        answers: Answers [rows], None where unread.
        labels: The task's labels.
        positive: The label that counts as positive for ROC-AUC.
        probabilities: A mapping a row, None where unread; or None where the model gives no probabilities.
        fold: Number of the fold.

    Raises:
        ValueError: As the single scores; a fold that lacks a class is no error, its ROC-AUC is None.
    """
    area = None
    if probabilities is not None:
        _same_length(targets, probabilities, "probabilities")
        present = {target for target, row in zip(targets, probabilities, strict=True) if row is not None}
        if present >= set(labels):
            area = roc_auc(targets, probabilities, labels, positive)
    return ClassificationScore(
        fold=fold,
        rows=len(targets),
        unread=sum(answer is None for answer in answers),
        accuracy=accuracy(targets, answers, labels),
        balanced_accuracy=balanced_accuracy(targets, answers, labels),
        macro_f1=macro_f1(targets, answers, labels),
        roc_auc=area,
        without_probability=None if probabilities is None else sum(row is None for row in probabilities),
    )


def over_folds(scores: Sequence[FoldScore]) -> dict[str, Mean]:
    """Mean and standard deviation of each score over folds, each fold counting the same.

    Returns:
        By name of the score; a score that no fold has is absent, one that some folds lack says so in `folds`.

    Raises:
        ValueError: No scores, or scores of both kinds.
    """
    if not scores:
        raise ValueError("no folds to average")
    if len({score.kind for score in scores}) > 1:
        raise ValueError("folds of regression and classification cannot be averaged together")
    counts = {"kind", "fold", "rows", "unread", "without_interval", "without_probability"}
    means = {}
    for name in type(scores[0]).model_fields:
        values = [value for score in scores if (value := getattr(score, name)) is not None]
        if name not in counts and values:
            means[name] = Mean(mean=float(np.mean(values)), std=float(np.std(values)), folds=len(values))
    return means


def _same_length(targets: Sequence[Any], others: Sequence[Any], what: str) -> None:
    """Refuse what does not belong row to row."""
    if len(targets) != len(others):
        raise ValueError(f"{len(targets)} targets but {len(others)} {what}")
    if len(targets) == 0:
        raise ValueError("there are no rows to score")


def _finite(value: object, what: str, row: int) -> float:
    """A finite float, or an error that names the row."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"{what} of row {row} is {value!r}, not one number")
    if not math.isfinite(value):
        raise ValueError(f"{what} of row {row} is {value}; an answer that could not be read is None")
    return float(value)


def _read(targets: Sequence[Number], answers: Sequence[Number]) -> tuple[Floats, Floats]:
    """Targets and answers of the rows that were read, after checks."""
    _same_length(targets, answers, "answers")
    truth = [_finite(target, "the target", row) for row, target in enumerate(targets)]
    given = [
        (truth[row], _finite(answer, "the answer", row)) for row, answer in enumerate(answers) if answer is not None
    ]
    if not given:
        raise ValueError(f"none of the {len(answers)} answers could be read, so there is no error to give")
    table = np.array(given)
    return table[:, 0], table[:, 1]


def _labelled(targets: Sequence[Label], answers: Sequence[Label], labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Targets and answers after checks, an unread answer as a label that no task has."""
    _same_length(targets, answers, "answers")
    truth, given = [], []
    for row, (target, answer) in enumerate(zip(targets, answers, strict=True)):
        if target not in labels:
            raise ValueError(f"the target of row {row} is {target!r}, none of {list(labels)}")
        if answer is not None and answer not in labels:
            raise ValueError(f"the answer of row {row} is {answer!r}, none of {list(labels)}; an unread one is None")
        truth.append(str(target))
        given.append(_UNREAD if answer is None else str(answer))
    return truth, given


def _probability(row: Mapping[str, float], label: str) -> float:
    """Probability of a label, or an error that names what is wrong."""
    if label not in row:
        raise ValueError(f"a row lacks the probability of {label!r}; it has {sorted(row)}")
    value = float(row[label])
    if not -1e-9 <= value <= 1 + 1e-9:
        raise ValueError(f"the probability of {label!r} is {value}; it must lie in 0 to 1")
    return value
