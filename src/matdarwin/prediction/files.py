"""Table files in: every row is predicted in its place, none is lost or shifted (what goes out: `outputs`).

A file is looked through before anything is predicted, so that a fault in its last row does not cost an hour. Rows then
go through in chunks, so that memory stays bounded.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from matdarwin.data.sources import DataError
from matdarwin.data.tables import PARQUET, SHEETS, check_columns, repeated
from matdarwin.materials import parse
from matdarwin.materials.material import Kind, MaterialError
from matdarwin.prediction.chunks import Chunk, check_count
from matdarwin.prediction.parquet import ParquetTable
from matdarwin.prediction.prediction import Prediction
from matdarwin.tasks.schema import Task

CHUNK = 1024
"""Rows that are in memory at a time."""

_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "composition": ("composition", "formula", "material"),
    "molecule": ("smiles", "molecule", "material"),
    "name": ("name", "material"),
}
_MAX_FIELD = 10_000_000

Ask = Callable[[Sequence[str], str], list[Prediction]]
"""Materials and a task's id to one prediction a material."""


class Table(Protocol):
    """A table that has been looked through: its columns, its number of rows, and the rows in chunks."""

    name: str
    columns: list[str]
    count: int

    def chunks(self, column: str, size: int) -> Iterator[Chunk]:
        """The rows in order, `size` at a time, the material taken from `column`."""
        ...


class ListTable:
    """Materials from a list, as a table with the one column `input`."""

    def __init__(self, materials: Sequence[str]) -> None:
        self.name = "materials"
        self.columns = ["input"]
        self.count = len(materials)
        self._materials = list(materials)

    def chunks(self, column: str, size: int) -> Iterator[Chunk]:
        """See `Table`."""
        for start in range(0, self.count, size):
            part = self._materials[start : start + size]
            yield Chunk(part, [[material] for material in part])


class CsvTable:
    """A CSV file (UTF-8, commas; `.gz` too), looked through once for its faults.

    A row with too few cells gets empty ones at its end, and says so. A row with too many cells is not asked about, since
    none of them need stand in its column: what is past the last column stays in the last column's cell, as it was.

    Args:
        path: The file.
        name: What to call it in messages, where that is not its path (standard input).

    Raises:
        DataError: Not UTF-8, no header, no CSV.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        csv.field_size_limit(_MAX_FIELD)
        self.path = path
        self.name = name or str(path)
        rows = self._rows()
        header = next(rows, None)
        if header is None or not header[1]:
            what = "the file" if header is None else "the first line"
            raise DataError(f"{self.name}: {what} is empty; a table begins with a line of column names")
        self.columns = header[1]
        self._blank_is_row = len(self.columns) == 1
        self.count = sum(1 for _ in self._records(rows))

    def chunks(self, column: str, size: int) -> Iterator[Chunk]:
        """See `Table`."""
        place = self.columns.index(column)
        rows = self._rows()
        next(rows, None)
        records = self._records(rows)
        had = 0
        while part := list(itertools.islice(records, size)):
            fitted = [self._fitted(cells) for _, cells in part]
            chunk = Chunk([cells[place] for cells in fitted], fitted)
            for i, (line, cells) in enumerate(part):
                has = f"line {line} has {len(cells)} cell{'' if len(cells) == 1 else 's'}, the header has {len(self.columns)}"
                if len(cells) > len(self.columns):
                    chunk.refused[i] = f"{has}; put a cell that holds commas into double quotes"
                elif len(cells) < len(self.columns):
                    chunk.notes[i] = has
            had += len(part)
            yield chunk
        check_count(self.name, self.count, had)

    def _fitted(self, cells: list[str]) -> list[str]:
        """The cells of a row, as many as there are columns."""
        last = len(self.columns) - 1
        if len(cells) > len(self.columns):
            return [*cells[:last], ",".join(cells[last:])]
        return cells + [""] * (len(self.columns) - len(cells))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of each row, the header first."""
        with self._open() as raw:
            # newline="" keeps line breaks inside quoted cells as they are.
            reader = csv.reader(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""), strict=True)
            try:
                for cells in reader:
                    yield reader.line_num, cells
            except UnicodeDecodeError as error:
                raise DataError(self._encoding()) from error
            except csv.Error as error:
                raise DataError(f"{self.name}: line {reader.line_num} is no CSV: {error}") from error
            except (OSError, EOFError, zlib.error) as error:  # a damaged .gz
                raise DataError(f"{self.name}: cannot be read: {error}") from error

    def _records(self, rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of the rows below the header.

        An empty line is an empty cell where there is one column, and no row where there are more; at the end of the
        file it is never one.
        """
        blank: list[int] = []
        for line, cells in rows:
            if not cells:
                blank.append(line)
                continue
            if self._blank_is_row:
                yield from ((number, [""]) for number in blank)
                blank = []
            yield line, cells

    def _open(self) -> BinaryIO:
        try:
            raw: Any = gzip.open(self.path, "rb") if self.path.suffix.lower() == ".gz" else self.path.open("rb")  # noqa: SIM115
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {error.strerror or error}") from error
        return raw  # type: ignore[no-any-return]

    def _encoding(self) -> str:
        """Where the first byte stands that is no UTF-8; the decoder itself knows only its place in a block."""
        with self._open() as raw:
            for number, line in enumerate(raw, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    return f"{self.name}: not UTF-8: byte 0x{line[error.start]:02x} in line {number}; save the table as UTF-8 and try again"
        return f"{self.name}: not UTF-8: the last character is cut off; copy the file anew"


@contextlib.contextmanager
def open_table(path: Path | str) -> Iterator[Table]:
    """Open a table file by its suffix; `-` is a CSV on standard input. What is no file but a pipe is copied first.

    Raises:
        DataError: No such file, a spreadsheet, or a fault that `CsvTable` and `ParquetTable` name.
    """
    file = Path(path)
    piped = str(path) == "-"
    if not piped and (file.is_dir() or not file.exists()):
        raise DataError(
            f"{file}: {'is a folder, not a table' if file.is_dir() else 'there is no such file; correct the path'}"
        )
    if file.suffix.lower() in SHEETS:
        raise DataError(f"{file}: a spreadsheet is not read; save the table as CSV (UTF-8) and try again")
    kind = ParquetTable if file.suffix.lower() in PARQUET else CsvTable
    if not piped and file.is_file():
        yield kind(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        # Kept on disk, because a table is read twice, and what comes through a pipe is gone after once.
        copy = Path(folder) / f"table{file.suffix}"
        with contextlib.ExitStack() as stack, copy.open("wb") as stream:
            try:
                source: Any = sys.stdin.buffer if piped else stack.enter_context(file.open("rb"))
            except OSError as error:
                raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
            shutil.copyfileobj(source, stream)
        yield kind(copy, "standard input" if piped else str(file))


def kind_of(tasks: Sequence[Task]) -> Kind:
    """The kind of materials that a table has for some tasks, which all read one column of it.

    Raises:
        DataError: They are asked of different kinds; `CO` is a compound to one and an alcohol to another.
    """
    kinds = {task.representation: task.id for task in tasks}
    if len(kinds) > 1:
        said = ", ".join(f"{name} of a {kind}" for kind, name in kinds.items())
        raise DataError(f"these tasks are asked of different kinds of materials ({said}); give the table once for each")
    return next(iter(kinds))


def choose_column(table: Table, column: str | None, kind: Kind) -> str:
    """The column that holds the materials: the one named, the only one, or the one that is called as they are.

    Raises:
        DataError: It is not there, or more than once, none of the columns is clearly it (they are listed), the only one
            has no name but a material in its place, or it holds bytes that are no text.
    """
    chosen = _chosen(table, column, kind)
    if isinstance(table, ParquetTable):
        table.check_texts([chosen])
    return chosen


def _chosen(table: Table, column: str | None, kind: Kind) -> str:
    if column is not None:
        check_columns(Path(table.name), table.columns, [column])
        return column
    if len(table.columns) == 1:
        only = table.columns[0]
        if ";" in only or "\t" in only:
            raise DataError(f"{table.name}: cells seem to be split by semicolons or tabs; save the table with commas")
        if isinstance(table, CsvTable) and _is_material(only, kind):
            raise DataError(
                f"{table.name}: the first line, {only!r}, is itself a {kind}, and would be lost as the column's name; put a "
                f"line `{_COLUMNS[kind][0]}` above it, or if it is the name, give it with --column"
            )
        return only
    for wanted in _COLUMNS[kind]:
        found = [name for name in table.columns if name.strip().casefold() == wanted]
        if len(found) == 1:
            return found[0]
        if len(set(found)) == 1:
            raise DataError(f"{table.name}: {repeated(table.columns, found[0])}")
    raise DataError(
        f"{table.name}: which column holds the materials? Say --column; there are {', '.join(map(repr, table.columns[:20]))}"
    )


@dataclass
class Summary:
    """What became of the rows: how many, how many have a value for no or not every task, and how often each status."""

    rows: int = 0
    without_value: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Count one row with its predictions, one a task."""
        self.rows += 1
        self.without_value += any(prediction.value is None for prediction in predictions)
        self.statuses.update(prediction.status for prediction in predictions)


def answered(
    table: Table, column: str, tasks: Sequence[Task], ask: Ask, *, model: str, summary: Summary, size: int = CHUNK
) -> Iterator[tuple[Chunk, list[list[Prediction]]]]:
    """Predict a table chunk by chunk.

    Args:
        table: The table.
        column: Its column with the materials.
        tasks: The tasks.
        ask: The predictor.
        model: Name of the model, for rows that it is never asked about.
        summary: Filled on the way.
        size: Rows a chunk.

    Yields:
        Each chunk, and the predictions of each of its rows, one a task.
    """
    for chunk in table.chunks(column, size):
        filled = [place for place, text in enumerate(chunk.materials) if text.strip() and place not in chunk.refused]
        found: list[list[Prediction]] = [[] for _ in chunk.materials]
        for task in tasks:
            answers = dict(zip(filled, ask([chunk.materials[place] for place in filled], task.id), strict=True))
            for place, text in enumerate(chunk.materials):
                if place in answers:
                    answer = answers[place]
                else:
                    answer = _refused(text, task, model, chunk.refused.get(place, "empty cell"))
                if place in chunk.notes:
                    answer = replace(answer, notes=(*answer.notes, chunk.notes[place]))
                found[place].append(answer)
        for predictions in found:
            summary.add(predictions)
        yield chunk, found


def _is_material(name: str, kind: Kind) -> bool:
    """Whether a column's name is a material; any text may be a name, so that of names nothing can be told."""
    known = {word for words in _COLUMNS.values() for word in words}
    if kind == "name" or name.strip().casefold() in known:
        return False
    try:
        parse(name, kind)
    except MaterialError:
        return False
    return True


def _refused(text: str, task: Task, model: str, reason: str) -> Prediction:
    return Prediction(
        input=text, material=None, task=task.id, value=None, unit=task.unit, lower=None, upper=None, coverage=None,
        status="invalid", reason=reason, notes=(), model=model,
    )  # fmt: skip
