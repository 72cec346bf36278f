"""Table files: CSV and Parquet as rows of text, with their encoding and columns checked."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from matdarwin.data.sources import DataError
from matdarwin.tasks.registry import nearest

Row = dict[str, str]
"""A row by column; every cell is text without blanks at its ends, empty where the file has nothing."""

_MAX_FIELD = 10_000_000
PARQUET = (".parquet", ".pq")
"""Suffixes of Parquet files, in lower case; everything else is CSV."""
SHEETS = (".xlsx", ".xls", ".ods")
"""Suffixes of spreadsheets, which are not read."""
COUNTED = "rows are counted from 1 below the header, empty lines too"
"""What the number of a row says, for messages: a spreadsheet that has the header in its row 1 shows row N as N + 1."""


def rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row | str]]:
    """The rows of a table file with their numbers, cut down to the columns that are needed.

    A row's number leads to it: it counts what stands below the header, empty lines too, though these are no rows and
    do not come. A row with more or fewer cells than the header comes as its text, in its place.

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
        raise DataError(
            f"{path}: not UTF-8: byte 0x{raw[error.start]:02x} in {_place(raw, error.start)}; save the table as UTF-8 "
            "(a spreadsheet calls it CSV UTF-8) and try again"
        ) from error


def _place(raw: bytes, position: int) -> str:
    """Where a byte stands that is no UTF-8: its line, and its column by name."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "line 1, as a file in UTF-16 begins"
    csv.field_size_limit(_MAX_FIELD)
    line = raw.count(b"\n", 0, position) + 1
    # Latin-1 has a character for every byte, so that what stands around it can be shown.
    begun = next(csv.reader([raw[raw.rfind(b"\n", 0, position) + 1 : position].decode("latin-1")]), [""])
    header = next(csv.reader([raw.removeprefix(codecs.BOM_UTF8).partition(b"\n")[0].decode("latin-1")]), [])
    if line == 1 or len(begun) > len(header):
        return f"line {line}"
    return f"line {line} (row {line - 1}), column {header[len(begun) - 1].strip()!r}"


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
            raise DataError(f"{path}: there is no column {name!r}; {hint}{split_otherwise(header)}")
        if header.count(name) > 1:
            raise DataError(f"{path}: {repeated(header, name)}")


def repeated(header: Sequence[str], name: str) -> str:
    """That a column stands in a header more than once, where, and what to do."""
    places = [str(place) for place, one in enumerate(header, 1) if one == name]
    return f"column {name!r} stands there {len(places)} times (the header's cells {' and '.join(places)}); rename all but one"


def split_otherwise(header: Sequence[str]) -> str:
    """What to say of a header that is one cell only because another sign than the comma splits it; else nothing."""
    signs = {";": "semicolons", "\t": "tabs", "|": "bars"}
    found = next((name for sign, name in signs.items() if len(header) == 1 and sign in header[0]), None)
    return (
        f"; cells seem to be split by {found}: save the table with commas, and decimals with a point" if found else ""
    )


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
            count += 1
            if not cells:  # an empty line is no row, but whoever looks for a row counts it
                continue
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
    for batch in batches(file, str(path), columns=sorted(set(needed))):
        cells = {name: texts(batch.column(name), name, str(path)) for name in needed}
        for row in zip(*cells.values(), strict=True):
            count += 1
            yield count, {name: cell.strip() for name, cell in zip(cells, row, strict=True)}


def batches(file: Any, name: str, **options: Any) -> Iterator[Any]:
    """The record batches of an open Parquet file.

    Args:
        file: A `pyarrow.parquet.ParquetFile`.
        name: What to call it in messages.
        options: See `ParquetFile.iter_batches`.

    Raises:
        DataError: The file is damaged.
    """
    import pyarrow

    try:
        yield from file.iter_batches(**options)
    except (pyarrow.ArrowException, OSError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{name}: cannot be read as Parquet: {why}; the file is damaged, so copy it anew") from error


def texts(column: Any, name: str, path: str) -> list[str]:
    """The cells of an Arrow column as text.

    Args:
        column: The Arrow array.
        name: The column's name, for messages.
        path: What to call the file in messages.

    Returns:
        Empty texts for what is missing; numbers in the shortest form that reads back as the same number of their own
        precision; bytes decoded as UTF-8; everything else as Python words it.

    Raises:
        DataError: Bytes or a text that are no UTF-8.
    """
    import pyarrow.types as types

    type = column.type.value_type if types.is_dictionary(column.type) else column.type
    try:
        cells = column.to_pylist()
        if types.is_float16(type) or types.is_float32(type):
            short = np.float16 if types.is_float16(type) else np.float32
            return ["" if cell is None else str(short(cell)) for cell in cells]
        return ["" if cell is None else cell.decode() if isinstance(cell, bytes) else str(cell) for cell in cells]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: column {name!r} is not UTF-8: it holds the byte 0x{error.object[error.start]:02x}; save it as text, or "
            "leave the column out"
        ) from error


def _parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
