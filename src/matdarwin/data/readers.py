"""From a source's bytes to examples: every row is either an example or a reject with its reason."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from matdarwin.data import odd
from matdarwin.data.cells import DECIMAL_COMMA as DECIMAL_COMMA  # part of what this module offers
from matdarwin.data.cells import NUMBER as NUMBER
from matdarwin.data.cells import RowError as RowError
from matdarwin.data.cells import number as number
from matdarwin.data.odd import Rows, table_rows
from matdarwin.data.sources import DataError, fetch
from matdarwin.data.tables import Row
from matdarwin.materials import parse
from matdarwin.materials.material import Kind, Material, MaterialError
from matdarwin.tasks.registry import nearest
from matdarwin.tasks.schema import Example, Reader, Task

REPEAT = "repeats an earlier row"
"""Cause of the rejects that `Reader.unique` makes."""
CONFLICT = "other labels for the same material"
"""Cause of the rejects that `Reader.conflicts` makes."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is no example.

    Attributes:
        row: Number of the row in the file, the first below the header being 1 and empty lines counted; several files
            are numbered through.
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


_tables: dict[str, Table] = {}


def read(task: Task) -> Table:
    """All examples of a task, and its rejected rows.

    Fetches the sources where they are not at hand. A table is read once a process.

    Raises:
        DataError: A source cannot be had, or a file is not what the task says (encoding, columns).
    """
    # The whole declaration is the key (but its notes, which shape no row): two tasks of the same id (a user's) may
    # differ in a column.
    key = task.model_dump_json(exclude={"notes"})
    if key not in _tables:
        given = _given(task, columns(task.reader))
        from matdarwin.data.tablecache import cached  # which stands on this module

        _tables[key] = cached(task, lambda: _table(task, given))
    table = _tables[key]
    return table if table.task == task else replace(table, task=task)


def _given(task: Task, needed: Sequence[str]) -> Rows:
    """The rows of a task's files as they stand there."""
    if task.reader.name not in READERS:
        close = nearest(task.reader.name, READERS)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(READERS)}"
        raise DataError(f"task {task.id}: {task.reader.name!r} is no reader; {hint}")
    return READERS[task.reader.name]([fetch(source) for source in task.sources()], needed)


def names(task: Task) -> dict[str, tuple[str, ...]]:
    """Other names of a task's materials, by key, from the columns that it declares for them; rejected rows give none.

    Raises:
        DataError: As from `read`.
    """
    if not task.name_columns:
        return {}
    keys = {example.row: example.material.key for example in read(task).examples}
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for place, row in _given(task, [*columns(task.reader), *task.name_columns]):
        if isinstance(row, RowError):
            continue
        key = keys.get(str(place) if task.reader.row_id is None else row[task.reader.row_id])
        if key is not None:
            found[key] |= dict.fromkeys(row[column] for column in task.name_columns if row[column])
    return {key: tuple(given) for key, given in found.items()}


def columns(reader: Reader) -> list[str]:
    """Every column that a task's reader speaks of, each once."""
    named = [reader.material, *reader.alternatives, reader.target, *reader.conditions.values(), *reader.keys]
    named += [column for column in (reader.row_id, reader.fold) if column is not None]
    return list(dict.fromkeys([*named, *reader.spellings, *reader.drop, *reader.unique]))


READERS: dict[str, Callable[[Sequence[Path], Sequence[str]], Rows]] = {
    "table": table_rows,
    "opv": odd.opv,
    "moosavi": odd.moosavi,
    "alloys": odd.alloys,
    "energies": odd.energies,
}
"""Readers by the name that a task's YAML gives: from files and the columns needed to rows of cells."""


def _table(task: Task, given: Rows) -> Table:
    """Clean the rows, turn each into an example, and keep the reason of each that is none."""
    found: list[tuple[int, Example]] = []
    rejects: list[Reject] = []
    seen: dict[tuple[str, ...], int] = {}
    count = 0
    for place, row in given:
        count += 1
        try:
            if isinstance(row, RowError):
                raise row
            row = _clean(task.reader, row)
            example = _example(task, place, row)
            if task.reader.unique:
                mark = (example.material.key, *(row[column] for column in task.reader.unique))
                if mark in seen:
                    raise RowError(example.material.given, "", REPEAT, f": row {seen[mark]}")
                seen[mark] = place
            found.append((place, example))
        except RowError as error:
            rejects.append(Reject(place, error.text, str(error), error.column, error.cause))
    if task.reader.conflicts == "drop":
        found, conflicting = _without_conflicts(task.reader, found)
        rejects = sorted([*rejects, *conflicting], key=lambda reject: reject.row)
    return Table(task, [example for _, example in found], rejects, count)


def _clean(reader: Reader, row: Row) -> Row:
    """The row with its spellings mended and missing cells emptied.

    Raises:
        RowError: A rule says to leave the row out.
    """
    cleaned = {}
    for column, text in row.items():
        mended = reader.spellings.get(column, {}).get(text, text)
        cleaned[column] = "" if mended in reader.missing else mended
    for column, reasons in reader.drop.items():
        if cleaned[column] in reasons:
            raise RowError(cleaned[column], column, reasons[cleaned[column]])
    return cleaned


def _example(task: Task, place: int, row: Row) -> Example:
    reader = task.reader
    fold = None
    if reader.fold is not None:
        text = row[reader.fold]
        if not text.isascii() or not text.isdigit():
            raise RowError(text, reader.fold, "no fold", " (a whole number from 0)")
        fold = int(text)
    return Example(
        task=task.id,
        row=row[reader.row_id] if reader.row_id is not None else str(place),
        material=_material(task, row),
        conditions=_conditions(task, row),
        target=target(task, row[reader.target]),
        fold=fold,
    )


@lru_cache(maxsize=50_000)
def _parse(text: str, kind: Kind) -> Material:
    """Read a material, once where several tasks or rows have it: a SMILES of a polymer takes 5 ms."""
    return parse(text, kind)


def _material(task: Task, row: Row) -> Material:
    reader = task.reader
    given = [column for column in (reader.material, *reader.alternatives) if row[column]]
    if not given:
        others = f", and so are {', '.join(reader.alternatives)}" if reader.alternatives else ""
        raise RowError("", reader.material, "the cell is empty", others)
    if len(given) > 1:
        raise RowError(row[given[1]], given[1], "a second material", f" beside that in {given[0]}")
    text = row[given[0]]
    try:
        material = _parse(text, task.representation)
    except MaterialError as error:
        raise RowError(text, given[0], f"no {task.representation}", f": {error}") from error
    more = [key for column, kind in reader.keys.items() for key in _keys(row[column], kind, reader.abbreviations)]
    return replace(material, keys=tuple(dict.fromkeys([*material.keys, *more]))) if more else material


def _keys(text: str, kind: Kind, abbreviations: dict[str, str]) -> tuple[str, ...]:
    """Keys of a cell that identifies the material in another way; none where it cannot be read so."""
    for short, formula in abbreviations.items():
        text = text.replace(short, formula)
    try:
        return _parse(text, kind).keys
    except MaterialError:
        return ()


def _conditions(task: Task, row: Row) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for condition in task.conditions:
        column = task.reader.conditions.get(condition.name, "")
        text = row[column] if column else ""
        if text:
            found[condition.name] = text if condition.unit is None else number(text, column)
        elif condition.required:
            hint = "" if column else "; name its column under reader.conditions"
            raise RowError("", column, f"condition {condition.name} is needed and not given", hint)
    return found


def target(task: Task, text: str) -> float | str:
    """The answer that a cell holds: a label of the task, or a number in its unit and within its bounds.

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
    if task.reader.scale is not None:
        # Decimals, so that 1077 mV are 1.077 V and not a neighbour of it.
        value = float(Decimal(text) * Decimal(repr(task.reader.scale)))
    if task.reader.log10:
        if value <= 0:
            raise RowError(text, column, "no logarithm", f" of {text}; it takes numbers above 0")
        value = math.log10(value)
    assert task.bounds is not None  # the schema sees to it
    low, high = task.bounds
    if not low <= value <= high:
        raise RowError(text, column, f"outside the bounds [{low:g}, {high:g}]", f": {text}")
    return value


def _without_conflicts(
    reader: Reader, found: Sequence[tuple[int, Example]]
) -> tuple[list[tuple[int, Example]], list[Reject]]:
    """Take out all rows of a key and condition that has more than one label."""
    together: dict[str, list[tuple[int, Example]]] = defaultdict(list)
    for place, example in found:
        together[repr((example.material.key, sorted(example.conditions.items())))].append((place, example))
    rejects = []
    left_out = set()
    for same in together.values():
        if len({example.target for _, example in same}) > 1:
            told = ", ".join(f"{example.target} in row {place}" for place, example in same)
            for place, example in same:
                left_out.add(place)
                reason = f"column {reader.target}: {CONFLICT}: {told}"
                rejects.append(Reject(place, example.material.given[:200], reason, reader.target, CONFLICT))
    return [(place, example) for place, example in found if place not in left_out], rejects
