"""Table files: CSV and Parquet as rows of text, with their encoding and columns checked."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matdarwin.data.sources import DataError
from matdarwin.tasks.registry import nearest

Row = dict[str, str]
"""A row by column; every cell is text without blanks at its ends, empty where the file has nothing."""

_MAX_FIELD = 10_000_000
PARQUET = (".parquet", ".pq")
"""Suffixes of Parquet files, in lower case; everything else is CSV."""
SHEETS = (".xlsx", ".xls", ".ods")
"""Suffixes of spreadsheets, which are not read."""


def rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row | str]]:
    """The rows of a table file, numbered from 1, cut down to the columns that are needed.

    A row with more or fewer cells than the header comes as its text, in its place.

    Raises:
        DataError: Wrong encoding, a missing or repeated column, or a file that is no table.
    """
    if path.suffix.lower() in PARQUET:
        yield from _parquet_rows(path, needed)
    else:
        yield from _csv_rows(path, needed)


def columns(path: Path) -> list[str]:
    """Names of a table's columns as they stand there, a repeated one repeatedly.

    Raises:
        DataError: Wrong encoding, or a file that is no table.
    """
    if path.suffix.lower() in PARQUET:
        return list(_parquet(path).schema_arrow.names)
    return _header(csv.reader(io.StringIO(_text(path), newline=""), strict=True), path)


def _text(path: Path) -> str:
    if path.suffix.lower() in SHEETS:
        raise DataError(f"{path}: a spreadsheet is not read; save the table as CSV (UTF-8) and try again")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(f"{path}: cannot be read: {error}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: not UTF-8: byte 0x{raw[error.start]:02x} in line {line}; save the table as UTF-8 and try again"
        ) from error


def _header(reader: Iterator[list[str]], path: Path) -> list[str]:
    header = next(reader, None)
    if not header:
        raise DataError(f"{path}: the file is empty; a table begins with a line of column names")
    return [name.strip() for name in header]


def check_columns(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    """Make sure that each needed column is there once.

    Raises:
        DataError: One is missing or repeated; the message has the nearest names.
    """
    for name in needed:
        if name not in header:
            close = nearest(name, header)
            hint = (
                f"did you mean {' or '.join(map(repr, close))}?"
                if close
                else f"it has {', '.join(map(repr, header[:20]))}"
            )
            if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
                hint += "; cells seem to be split by semicolons or tabs: save the table with commas"
            raise DataError(f"{path}: there is no column {name!r}; {hint}")
        if header.count(name) > 1:
            raise DataError(f"{path}: column {name!r} stands there {header.count(name)} times; rename all but one")


def _csv_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row | str]]:
    csv.field_size_limit(_MAX_FIELD)
    # newline="" keeps line breaks inside quoted cells as they are.
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    header = _header(reader, path)
    check_columns(path, header, needed)
    places = {name: header.index(name) for name in needed}
    count = 0
    try:
        for cells in reader:
            if not cells:  # an empty line is no row
                continue
            count += 1
            if len(cells) != len(header):
                yield count, ",".join(cells)
            else:
                yield count, {name: cells[place].strip() for name, place in places.items()}
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is no CSV: {error}") from error


def _parquet_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row | str]]:
    file = _parquet(path)
    check_columns(path, file.schema_arrow.names, needed)
    count = 0
    for batch in file.iter_batches(columns=sorted(set(needed))):
        for record in batch.to_pylist():
            count += 1
            # str(float) is the shortest text that reads back as the same number.
            yield count, {name: "" if (cell := record[name]) is None else str(cell).strip() for name in needed}


def _parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
