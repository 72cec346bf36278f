"""Rows of a task as CSV that others can train on: hard splits and synthetic controls, in the form of a user's own table."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from matdarwin.data import hard
from matdarwin.data.hard import Sides
from matdarwin.data.leakage import merge, split
from matdarwin.data.readers import read
from matdarwin.data.sources import DataError
from matdarwin.data.synthetic import Control, control
from matdarwin.tasks.schema import Example, Task

MATERIAL = {"composition": "composition", "molecule": "smiles", "name": "name"}
"""Name of the column with the materials, by representation."""
TARGET = "target"
"""Name of the column with the answers."""
CONTROLS: tuple[Control, ...] = ("syn1", "syn2", "syn3")
"""The synthetic controls, in the order of their numbers."""
SPLITS = "element:SYMBOL, system:FOLD, scaffold:FOLD or highest:SHARE"
"""The ways to split, for messages."""


def hard_split(task: Task, by: str, removed: Counter[str] | None = None) -> Sides:
    """Training and test rows of a task by a hard split.

    As everywhere, training rows of one material (and condition) are merged into one, and test rows are as the file has them.

    Args:
        task: The task.
        by: `element:Fe` (test on all that contain it), `system:0` (fold 0 of five in which a chemical system stands
            together), `scaffold:0` (so with Murcko scaffolds), or `highest:0.2` (test on the highest fifth).
        removed: Counter to which merged and dropped training rows are added, by `task: reason`.

    Raises:
        DataError: Another text, or see `hard`.
    """
    train, test = _sides(read(task).examples, by)
    return merge(task, train, removed), test


def _sides(rows: Sequence[Example], by: str) -> Sides:
    way, _, value = by.partition(":")
    if way == "element":
        return hard.leave_element_out(rows, value)
    if way == "highest":
        try:
            share = float(value)
        except ValueError:
            raise DataError(f"{by!r}: give a share, such as highest:0.2") from None
        return hard.extrapolate(rows, share)
    if way not in ("system", "scaffold"):
        raise DataError(f"{by!r} is no split; write {SPLITS}")
    if value not in ("0", "1", "2", "3", "4"):
        raise DataError(f"{by!r}: give the test fold, from 0 to 4, such as {way}:0")
    folded = hard.by_chemical_system(rows) if way == "system" else hard.by_scaffold(rows)
    return [row for row in folded if row.fold != int(value)], [row for row in folded if row.fold == int(value)]


def synthetic(task: Task, which: Control, *, seed: int, fold: int | None) -> list[Example]:
    """A control made of the rows of a task that may teach: all, or those that fold `fold` leaves (see `synthetic.control`).

    Raises:
        DataError: No such fold, or what the control cannot be made of.
    """
    rows = split([task], fold, validation=0, calibration=0)
    avoid = {key for row in rows.test[task.id] for key in row.material.keys}
    return control(task, rows.train[task.id], which, seed=seed, avoid=avoid)


def refuse_standing(paths: Sequence[Path]) -> None:
    """Refuse to write where something stands, before anything is written.

    Raises:
        DataError: A file is there already.
    """
    if standing := [str(path) for path in paths if path.exists()]:
        raise DataError(f"{' and '.join(standing)}: there already; delete it, or give another name")


def write(path: Path, task: Task, rows: Sequence[Example]) -> None:
    """Write rows as CSV: the material as it was given, the conditions, and the answer in the task's unit.

    Raises:
        DataError: The file is there already.
    """
    names = [condition.name for condition in task.conditions]
    try:
        with path.open("x", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow([MATERIAL[task.representation], *names, TARGET])
            for row in rows:
                conditions = [_text(row.conditions.get(name, "")) for name in names]
                writer.writerow([row.material.given, *conditions, _text(row.target)])
    except FileExistsError as error:
        raise DataError(f"{path} is there already; delete it, or give another name") from error


def _text(value: float | str | None) -> str:
    """A cell: a number with all its digits and without an exponent."""
    return f"{Decimal(repr(value)):f}" if isinstance(value, float) else str(value)
