"""Answered rows out again, as CSV or Parquet: all columns as they came, the predictions beside them, written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import gzip
import io
import os
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from matdarwin.data.sources import DataError
from matdarwin.data.tables import PARQUET, SHEETS, repeated, texts
from matdarwin.prediction.chunks import Cells, Chunk
from matdarwin.prediction.files import Table
from matdarwin.prediction.parquet import ParquetTable
from matdarwin.prediction.prediction import Prediction
from matdarwin.tasks.schema import Task

ADDED = ("value", "unit", "lower", "upper", "status", "reason")
"""Columns that are added for each task. `reason` also holds the notes: what a reader of the value must know."""


_JSON = (".json", ".jsonl", ".ndjson")

SCORE = "score"
"""Column that is added last where rows are ranked."""


def added_columns(columns: Sequence[str], tasks: Sequence[Task], *, scored: bool = False) -> list[str]:
    """Names of the added columns, by task: `value` …, or `value_TASK` … for several; `darwin_` before one that is taken."""
    names: list[str] = []
    by_task = [name if len(tasks) == 1 else f"{name}_{task.id}" for task in tasks for name in ADDED]
    for wanted in [*by_task, *([SCORE] if scored else [])]:
        while wanted in columns or wanted in names:
            wanted = f"darwin_{wanted}"
        names.append(wanted)
    return names


def check_output(path: Path | str, table: Table) -> None:
    """Make sure, before any work, that a table can be written so.

    Raises:
        DataError: The path's suffix is that of another kind of file, Parquet is to have a column twice, or CSV is to have
            bytes that are no text.
    """
    final = Path(path).resolve()
    suffixes = [suffix.lower() for suffix in final.suffixes[-2:]]
    packed = suffixes[-1:] == [".gz"]
    kind = suffixes[0] if packed else final.suffix.lower()
    if kind in SHEETS:
        raise DataError(f"{path}: a spreadsheet is not written; name a file that ends in .csv or .parquet")
    if kind in _JSON:
        raise DataError(
            f"{path}: a table is not written as JSON; name a file that ends in .csv or .parquet (JSON is what "
            f"`darwin predict --json > {path}` gives)"
        )
    if kind in PARQUET and packed:
        raise DataError(f"{path}: Parquet is packed already; name a file that ends in .parquet or .csv.gz")
    if kind in PARQUET:
        twice = next((name for name in table.columns if table.columns.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{table.name}: {repeated(table.columns, twice)}, or write CSV, which can hold it")
    elif isinstance(table, ParquetTable):
        table.check_texts(table.columns)


class Sink(Protocol):
    """Where answered chunks go."""

    def write(
        self, chunk: Chunk, found: Sequence[Sequence[Prediction]], scores: Sequence[float | None] | None = None
    ) -> None:
        """Add the rows of a chunk with their predictions, and their scores where the sink was opened for them."""
        ...


_UNENCODABLE = "backslashreplace"
"""What becomes of half characters, which an argument that is not UTF-8 is read as."""


class CsvSink:
    """Writes answered rows as CSV."""

    def __init__(self, stream: Any, table: Table, tasks: Sequence[Task], *, scored: bool = False) -> None:
        self._plain = csv.writer(stream, lineterminator="\n")
        self._quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        self._scored, self._name = scored, table.name
        self._row([*table.columns, *added_columns(table.columns, tasks, scored=scored)])

    def write(
        self, chunk: Chunk, found: Sequence[Sequence[Prediction]], scores: Sequence[float | None] | None = None
    ) -> None:
        """See `Sink`."""
        rows = chunk.rows if isinstance(chunk.rows, list) else _texts(chunk.rows, self._name)
        for cells, added in zip(rows, _answers(found, scores, self._scored), strict=True):
            self._row([*cells, *map(_text, added)])

    def _row(self, cells: list[str]) -> None:
        # The writer quotes the line ends that it writes itself, but readers also take a lone carriage return for one.
        (self._quoting if any("\r" in cell for cell in cells) else self._plain).writerow(cells)


_GROUP = 1024
"""Rows that are written together at least: each group of a Parquet file costs kilobytes, and the best come one by one."""


class ParquetSink:
    """Writes answered rows as Parquet; columns that were read as text stay text."""

    def __init__(self, stream: BinaryIO, table: Table, tasks: Sequence[Task], *, scored: bool = False) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        number = {True: pa.float64(), False: pa.string()}
        given = (
            list(table.schema)
            if isinstance(table, ParquetTable)
            else [pa.field(name, pa.string()) for name in table.columns]
        )
        types = [
            number[name in ("lower", "upper") or (name == "value" and task.kind == "regression")]
            for task in tasks
            for name in ADDED
        ]
        types += [number[True]] * scored
        names = added_columns(table.columns, tasks, scored=scored)
        fields = [pa.field(name, type) for name, type in zip(names, types, strict=True)]
        metadata = table.schema.metadata if isinstance(table, ParquetTable) else None
        self._given, self._scored = len(given), scored
        self._schema = pa.schema([*given, *fields], metadata=metadata)
        self._writer = pyarrow.parquet.ParquetWriter(stream, self._schema)
        self._held: list[Any] = []

    def write(
        self, chunk: Chunk, found: Sequence[Sequence[Prediction]], scores: Sequence[float | None] | None = None
    ) -> None:
        """See `Sink`."""
        import pyarrow as pa

        if isinstance(chunk.rows, list):
            arrays = [pa.array(map(_encodable, column), pa.string()) for column in zip(*chunk.rows, strict=True)]
        else:
            arrays = list(chunk.rows.columns)
        answers = _answers(found, scores, self._scored)
        fields = list(self._schema)[self._given :]
        columns = [[_encodable(c) if isinstance(c, str) else c for c in cells] for cells in zip(*answers, strict=True)]
        arrays += [pa.array(column, f.type) for column, f in zip(columns, fields, strict=True)]
        self._held.append(pa.Table.from_arrays(arrays, schema=self._schema))
        if sum(table.num_rows for table in self._held) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._held:
            self._writer.write_table(pa.concat_tables(self._held))
            self._held = []

    def close(self) -> None:
        """Write what is held, and the file's end."""
        try:
            self._flush()
            self._writer.close()
        finally:
            # A writer that could not be closed tries again when it goes, and complains on stderr.
            self._writer.is_open = False


@contextlib.contextmanager
def open_sink(
    path: Path | str, table: Table, tasks: Sequence[Task], *, stdout: Any = None, scored: bool = False
) -> Iterator[Sink]:
    """A sink into a file (Parquet by its suffix, else CSV), or as CSV into `stdout` where the path is `-`.

    With `scored` there is a last column for what rows are ranked by.

    The file gets its name when it is whole: until then, and after any fault, what stood there before is untouched.

    Raises:
        DataError: See `check_output`; the folder is not there or cannot be written to, or the disk is full.
    """
    check_output(path, table)
    if str(path) == "-":
        text = io.TextIOWrapper(stdout.buffer, encoding="utf-8", errors=_UNENCODABLE, newline="", write_through=True)
        try:
            yield CsvSink(text, table, tasks, scored=scored)
        finally:
            text.detach()
        return
    # A link stays a link; what is no file (a pipe, a device) is written to as it is.
    final = Path(path).resolve()
    plain = not final.exists() or final.is_file()
    part = final.with_name(f".{final.name}.{os.getpid()}.part") if plain else final
    try:
        # Closing writes too, hence the outer watch over a full disk.
        with _disk_errors(Path(path), full_only=True):
            with _disk_errors(Path(path)):
                raw = part.open("wb")
            with raw:
                yield from _filled(raw, final, table, tasks, scored)
                if plain:
                    os.fsync(raw.fileno())
        if plain:
            with _disk_errors(Path(path)):
                part.replace(final)
    finally:
        if plain:
            part.unlink(missing_ok=True)


def _filled(raw: BinaryIO, final: Path, table: Table, tasks: Sequence[Task], scored: bool) -> Iterator[Sink]:
    """Yield the sink of the file's kind, then write out what it still holds."""
    if final.suffix.lower() in PARQUET:
        sink = ParquetSink(raw, table, tasks, scored=scored)
        try:
            yield sink
        except BaseException:
            with contextlib.suppress(Exception):
                sink.close()
            raise
        sink.close()
        return
    stream: Any = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if final.suffix.lower() == ".gz" else raw
    text = io.TextIOWrapper(stream, encoding="utf-8", errors=_UNENCODABLE, newline="")
    yield CsvSink(text, table, tasks, scored=scored)
    text.flush()
    text.detach()
    if stream is not raw:
        stream.close()
    raw.flush()


@contextlib.contextmanager
def _disk_errors(path: Path, *, full_only: bool = False) -> Iterator[None]:
    """Turn what the disk says into a `DataError` with its remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"{path}: the disk is full, so the output was not written; free some space or choose another folder"
            ) from error
        if full_only:
            raise
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def _cells(prediction: Prediction) -> list[float | str | None]:
    """The added cells of one prediction."""
    says = "; ".join([*filter(None, [prediction.reason]), *prediction.notes]) or None
    return [prediction.value, prediction.unit, prediction.lower, prediction.upper, prediction.status, says]


def _answers(
    found: Sequence[Sequence[Prediction]], scores: Sequence[float | None] | None, scored: bool
) -> list[list[float | str | None]]:
    """The added cells of some rows."""
    rows = [[cell for p in predictions for cell in _cells(p)] for predictions in found]
    if scored:
        for row, score in zip(rows, scores or [], strict=True):
            row.append(score)
    return rows


def _text(cell: float | str | None) -> str:
    """A cell as text; numbers in full, without an exponent."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{Decimal(repr(float(cell))):f}"


def _texts(batch: Any, table: str) -> Cells:
    """The rows of an Arrow batch as text."""
    columns = [texts(cells, name, table) for name, cells in zip(batch.schema.names, batch.columns, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _encodable(text: str) -> str:
    """A text that UTF-8 can hold."""
    return text.encode("utf-8", _UNENCODABLE).decode("utf-8")
