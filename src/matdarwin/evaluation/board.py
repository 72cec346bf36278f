"""The published matbench board, to stand beside our own scores."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from matdarwin.tasks.schema import Task

BOARD = Path("matbench") / "leaderboard_composition_tasks.csv"
"""Where the mirror holds the board."""

LEAKED = {
    (
        task,
        "Darwin",
    ): "trained on test compositions: they stand in the training set of another of its tasks under the same fold number"
    for task in ("matbench_expt_gap", "matbench_expt_is_metal")
}
"""Entries whose scores are not comparable, with the reason (docs/decisions.md); those whose own audit finds nothing are not here."""

UNEXPLAINED = {
    ("matbench_glass", "MODNet (v0.1.12)"): "far above all others, and no results file is stored to check it by"
}
"""Entries to be read with care, with the reason."""

RENAMED = {"rocauc": "balanced_accuracy"}
"""The board's name of a metric -> what its numbers are: they were computed from hard labels (matbench issues 137, 181)."""


class BoardError(ValueError):
    """A file of the board that cannot be read."""


class BoardRow(BaseModel):
    """One published score, over the official five folds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: str
    metric: str = Field(description="What the number is.")
    published_as: str = Field(description="What the board calls it.")
    mean: float = Field(description="Mean over folds; errors in the task's unit.", allow_inf_nan=False)
    std: float | None = None
    folds: int
    source: str
    leaked: bool
    note: str | None = None


def published(task: Task, mirror: Path | None, metric: str | None = None) -> list[BoardRow]:
    """The board's scores of a task, best first.

    Args:
        task: The task; one that is not on the board has no rows.
        mirror: The data mirror, or None where there is none: no rows then.
        metric: What to look up, by default the task's metric. For `balanced_accuracy` an entry that has it only under
            the board's name `rocauc` is taken from there. A true ROC-AUC is not on the board: `roc_auc` has no rows.

    Raises:
        BoardError: The board's file lacks a column, or holds a number that is none.
    """
    wanted = metric or task.metric
    if task.board is None or mirror is None or not (mirror / BOARD).exists():
        return []
    best: dict[str, BoardRow] = {}
    try:
        records = list(csv.DictReader(io.StringIO((mirror / BOARD).read_text(encoding="utf-8"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BoardError(f"{BOARD} cannot be read: {error}") from error
    for line, record in enumerate(records, start=2):
        try:
            if record["task"] != task.board or RENAMED.get(record["metric"], record["metric"]) != wanted:
                continue
            row = _row(record, wanted)
        except (KeyError, TypeError, ValueError) as error:  # a cell that is not there is None
            raise BoardError(f"line {line} of {BOARD} cannot be read: {error}") from error
        # The number under its own name goes before the one under the board's wrong name.
        if row.algorithm not in best or row.published_as == wanted:
            best[row.algorithm] = row
    return sorted(best.values(), key=lambda row: row.mean, reverse=task.kind == "classification")


def _row(record: dict[str, str], metric: str) -> BoardRow:
    """One line of the file, with what must be known about it."""
    algorithm, published_as = record["algorithm"], record["metric"]
    entry = (record["task"], algorithm)
    notes = [
        LEAKED.get(entry),
        UNEXPLAINED.get(entry),
        "the board calls it ROC-AUC; it was computed from hard labels" if published_as in RENAMED else None,
    ]
    mean = float(record["mean"])
    if not math.isfinite(mean):
        raise ValueError(f"the mean of {algorithm} is {mean}")
    return BoardRow(
        algorithm=algorithm,
        metric=metric,
        published_as=published_as,
        mean=mean,
        std=float(record["std"]) if record["std"] else None,
        folds=int(record["n_folds"]),
        source=record["source"],
        leaked=entry in LEAKED,
        note="; ".join(filter(None, notes)) or None,
    )
