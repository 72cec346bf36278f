"""From a source's bytes to examples: every row is either an example or a reject with its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from matdarwin.data.sources import DataError, fetch
from matdarwin.data.tables import Row, rows
from matdarwin.materials import parse
from matdarwin.materials.material import Material, MaterialError
from matdarwin.tasks.registry import nearest
from matdarwin.tasks.schema import Example, Task

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""What counts as a number in a cell; stricter than `float`, which takes `1_0`, other scripts' digits and `nan`."""
DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)+(\.\d+)?", re.ASCII)
"""`1,5` or `1,234.5`: either meaning is a guess, so neither is made."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is no example.

    Attributes:
        row: Number of the row in the file, the first below the header being 1.
        text: What is at fault, as the file has it, at most 200 characters.
        reason: Why it was refused, in full.
        column: The column that is at fault; empty where the row as a whole is.
        cause: The same in few words without the row's own text, to count rejects by.
    """

    row: int
    text: str
    reason: str
    column: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of a task's file: `rows_read` is always the number of examples plus that of rejects."""

    task: Task
    examples: list[Example]
    rejects: list[Reject]
    rows_read: int


class RowError(ValueError):
    """A row that cannot become an example: the text at fault, its column, and the cause in few words."""

    def __init__(self, text: str, column: str, cause: str, hint: str = "") -> None:
        super().__init__(f"column {column}: {cause}{hint}" if column else f"{cause}{hint}")
        self.text = text[:200]
        self.column = column
        self.cause = cause


_tables: dict[str, Table] = {}


def read(task: Task) -> Table:
    """All examples of a task, and its rejected rows.

    Fetches the source where it is not at hand. A table is read once a process.

    Raises:
        DataError: The source cannot be had, or the file is not what the task says (encoding, columns).
    """
    # The whole declaration is the key (but its notes, which shape no row): two tasks of the same id (a user's) may
    # differ in a column.
    key = task.model_dump_json(exclude={"notes"})
    if key not in _tables:
        if task.reader.name not in READERS:
            close = nearest(task.reader.name, READERS)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(READERS)}"
            raise DataError(f"task {task.id}: {task.reader.name!r} is no reader; {hint}")
        _tables[key] = READERS[task.reader.name](task, fetch(task.source))
    table = _tables[key]
    return table if table.task == task else replace(table, task=task)


def read_table(task: Task, path: Path) -> Table:
    """Reader `table`: one row is one example; CSV (also .gz, UTF-8) or Parquet.

    Raises:
        DataError: Wrong encoding, a missing or repeated column, or a file that is no table.
    """
    reader = task.reader
    needed = [reader.material, reader.target, *reader.conditions.values()]
    needed += [column for column in (reader.row_id, reader.fold) if column is not None]
    examples: list[Example] = []
    rejects: list[Reject] = []
    count = 0
    for count, row in rows(path, needed):
        try:
            if isinstance(row, str):
                raise RowError(row, "", "the row has more or fewer cells than the header")
            examples.append(_example(task, count, row))
        except RowError as error:
            rejects.append(Reject(count, error.text, str(error), error.column, error.cause))
    return Table(task, examples, rejects, count)


READERS: dict[str, Callable[[Task, Path], Table]] = {"table": read_table}
"""Readers by the name that a task's YAML gives. An odd file gets one of its own."""


def _example(task: Task, number: int, row: Row) -> Example:
    reader = task.reader
    fold = None
    if reader.fold is not None:
        text = row[reader.fold]
        if not text.isascii() or not text.isdigit():
            raise RowError(text, reader.fold, "no fold", " (a whole number from 0)")
        fold = int(text)
    return Example(
        task=task.id,
        row=row[reader.row_id] if reader.row_id is not None else str(number),
        material=_material(task, row[reader.material]),
        conditions=_conditions(task, row),
        target=target(task, row[reader.target]),
        fold=fold,
    )


def _material(task: Task, text: str) -> Material:
    if not text:
        raise RowError(text, task.reader.material, "the cell is empty")
    try:
        return parse(text, task.representation)
    except MaterialError as error:
        raise RowError(text, task.reader.material, f"no {task.representation}", f": {error}") from error


def _conditions(task: Task, row: Row) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for condition in task.conditions:
        column = task.reader.conditions.get(condition.name, "")
        text = row[column] if column else ""
        if text:
            found[condition.name] = text if condition.unit is None else number(text, column)
        elif condition.required:
            raise RowError("", column, f"condition {condition.name} is needed and not given")
    return found


def target(task: Task, text: str) -> float | str:
    """The answer that a cell holds: a label of the task, or a number within its bounds.

    Raises:
        RowError: It is neither.
    """
    column = task.reader.target
    if not text:
        raise RowError(text, column, "the cell is empty")
    if task.kind == "classification":
        label = task.reader.labels.get(text, text)
        if label not in task.labels:
            raise RowError(
                text, column, "unknown label", f" {text!r}; known are {', '.join(task.reader.labels or task.labels)}"
            )
        return label
    value = number(text, column)
    assert task.bounds is not None  # the schema sees to it
    low, high = task.bounds
    if not low <= value <= high:
        raise RowError(text, column, f"outside the bounds [{low:g}, {high:g}]", f": {text}")
    return value


def number(text: str, column: str) -> float:
    """A finite decimal number, read strictly: no units, no digit grouping, no decimal comma.

    Raises:
        RowError: The text is no such number.
    """
    if DECIMAL_COMMA.fullmatch(text):
        raise RowError(text, column, "a decimal comma", f" in {text!r}; write decimals with a point and no grouping")
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise RowError(text, column, "not finite", f": {text!r}")
    if not NUMBER.fullmatch(text):
        raise RowError(text, column, "no number", f": {text!r}")
    value = float(text)
    if not math.isfinite(value):  # 1e999
        raise RowError(text, column, "not finite", f": {text!r}")
    return value
