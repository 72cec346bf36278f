"""Tables that were parsed once, kept as Parquet: reading formulas and SMILES is what costs."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from matdarwin.data import sources
from matdarwin.data.readers import Reject, Table
from matdarwin.materials.material import Material
from matdarwin.tasks.schema import Example, Task

LEAST_ROWS = 100
"""Tables with fewer rows are not kept; they are parsed in no time."""
PARSING = (
    "materials", "tasks/schema.py", "data/cells.py", "data/odd.py", "data/readers.py", "data/tables.py", "data/tablecache.py",
)  # fmt: skip
"""Folders and files of the package that turn cells into examples."""

# What a declaration says that shapes no row. A key that is new to the schema counts until it is named here.
_SHAPELESS = {
    "version", "scored", "title", "property", "quantities", "leads", "origin", "unit", "decimals", "positive", "wordings",
    "held_out_wording", "metric", "folds", "board", "source", "extra_sources", "licence", "citation", "description", "notes",
    "known_rejects", "name_columns",
}  # fmt: skip
_LIBRARIES = ("pymatgen", "rdkit")
_HEAD = b"matdarwin"


class Counts(NamedTuple):
    """What a list of tasks needs of a table.

    `rows_read`: rows of the file. `rows`: those that are examples. `materials`: different keys. `folds`: official ones.
    """

    rows_read: int
    rows: int
    materials: int
    folds: int


def cached(task: Task, make: Callable[[], Table]) -> Table:
    """The table of a task, from the cache where it stands there whole, else made and put there.

    The key is the part of the declaration that shapes rows, the pinned sha256 of the files and the code that parses.
    A file of the cache that is damaged counts as none. Safe to call from several processes at once.

    Args:
        task: The task; its files have been checked against their sha256.
        make: Reads the files.
    """
    found = _find(task)
    if found is not None:
        return _load(task, found)
    table = make()
    if table.rows_read >= LEAST_ROWS:
        _store(table)
    return table


def counts(task: Task) -> Counts | None:
    """What the cache says of a table, without building it; None where it does not hold it."""
    found = _find(task)
    if found is None:
        return None
    import pyarrow.parquet

    return Counts(**json.loads(pyarrow.parquet.read_metadata(BytesIO(found)).metadata[_HEAD]))


def count(table: Table) -> Counts:
    """The same of a table that is at hand."""
    return Counts(
        rows_read=table.rows_read,
        rows=len(table.examples),
        materials=len({example.material.key for example in table.examples}),
        folds=len({example.fold for example in table.examples if example.fold is not None}),
    )


def folder() -> Path:
    """Where the tables are kept."""
    return sources.cache() / "tables"


@cache
def parser() -> str:
    """What stands for the code that turns cells into examples: other code, or another library, is another parser."""
    digest = hashlib.sha256()
    package = files("matdarwin")
    for name in PARSING:
        place = package.joinpath(name)
        for file in [place] if place.is_file() else sorted(place.iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                digest.update(f"{name}/{file.name}\0".encode() + file.read_bytes() + b"\0")
    for library in _LIBRARIES:
        digest.update(f"{library} {version(library)}\0".encode())
    return digest.hexdigest()[:12]


def _shape(task: Task) -> str:
    """What stands for the rows that a declaration makes of its files."""
    told = task.model_dump(mode="json", exclude=_SHAPELESS)
    # By content, so that a file may be moved; but its suffixes say how it is read.
    told["files"] = [
        ["".join(PurePath(source.path or source.name).suffixes).lower(), source.sha256] for source in task.sources()
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _find(task: Task) -> bytes | None:
    """The bytes of the task's file in the cache, whole; None where there is none."""
    # The name ends in the checksum of the content, so that a damaged file is known as one without being read as Parquet.
    for path in folder().glob(f"{task.id}.{_shape(task)}.{parser()}.*.parquet"):
        with suppress(OSError):  # another process may have removed it
            content = path.read_bytes()
            if path.name.split(".")[3] == _checksum(content):
                return content
            path.unlink()
    return None


def _store(table: Table) -> None:
    task = table.task
    content = _pack(table)
    target = folder() / f"{task.id}.{_shape(task)}.{parser()}.{_checksum(content)}.parquet"
    try:
        folder().mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            part.write_bytes(content)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        for old in folder().glob(f"{task.id}.*.parquet"):
            if old.name.split(".")[2] != parser():
                old.unlink(missing_ok=True)
    except OSError as error:
        # The table itself is at hand, so nothing is lost but time.
        logging.getLogger(__name__).warning(
            "%s: the parsed table of %s cannot be kept (%s), so it will be parsed anew next time",
            folder(), task.id, error.strerror or error,
        )  # fmt: skip


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _pack(table: Table) -> bytes:
    """A table as Parquet: a row an example, and after them a row a reject, each with its own columns."""
    import pyarrow
    import pyarrow.parquet

    examples, rejects = table.examples, table.rejects
    materials = [example.material for example in examples]
    texts, lists = pyarrow.string(), pyarrow.list_(pyarrow.string())
    columns: dict[str, tuple[Any, list[Any]]] = {
        "kind": (texts, [material.kind for material in materials]),
        "given": (texts, [material.given for material in materials]),
        "parts": (lists, [material.parts for material in materials]),
        "source_parts": (lists, [material.source_parts for material in materials]),
        "key": (texts, [material.key for material in materials]),
        "keys": (lists, [material.keys for material in materials]),
        "elements": (lists, [material.elements for material in materials]),
        "row": (texts, [example.row for example in examples]),
        "conditions": (texts, [json.dumps(example.conditions) for example in examples]),
        "evidence": (lists, [example.evidence for example in examples]),
        "number": (pyarrow.float64(), [None if isinstance(e.target, str) else e.target for e in examples]),
        "label": (texts, [e.target if isinstance(e.target, str) else None for e in examples]),
        "fold": (pyarrow.int32(), [example.fold for example in examples]),
        "spread": (pyarrow.float64(), [example.spread for example in examples]),
        "question": (texts, [example.question for example in examples]),
        "answer": (texts, [example.answer for example in examples]),
    }
    refused: dict[str, tuple[Any, list[Any]]] = {
        "reject_row": (pyarrow.int64(), [reject.row for reject in rejects]),
        "reject_text": (texts, [reject.text for reject in rejects]),
        "reject_reason": (texts, [reject.reason for reject in rejects]),
        "reject_column": (texts, [reject.column for reject in rejects]),
        "reject_cause": (texts, [reject.cause for reject in rejects]),
    }
    arrays = {name: pyarrow.array([*values, *[None] * len(rejects)], kind) for name, (kind, values) in columns.items()}
    arrays |= {
        name: pyarrow.array([*[None] * len(examples), *values], kind) for name, (kind, values) in refused.items()
    }
    told = pyarrow.table(arrays).replace_schema_metadata({_HEAD: json.dumps(count(table)._asdict())})
    sink = BytesIO()
    pyarrow.parquet.write_table(told, sink, compression="zstd")
    return sink.getvalue()


def _load(task: Task, content: bytes) -> Table:
    import pyarrow.parquet

    told = pyarrow.parquet.read_table(BytesIO(content), use_threads=False)
    head = Counts(**json.loads(told.schema.metadata[_HEAD]))
    examples = told.slice(0, head.rows)
    rejects = told.slice(head.rows).select([name for name in told.column_names if name.startswith("reject_")])
    materials = map(
        Material, _texts(examples, "kind"), _texts(examples, "given"), _lists(examples, "parts"),
        _lists(examples, "source_parts"), _texts(examples, "key"), _lists(examples, "keys"), _lists(examples, "elements"),
    )  # fmt: skip
    targets = [
        number if label is None else label
        for number, label in zip(_values(examples, "number"), _values(examples, "label"), strict=True)
    ]
    conditions = (json.loads(text) if text != "{}" else {} for text in _values(examples, "conditions"))
    rows = zip(
        _values(examples, "row"), materials, conditions, _lists(examples, "evidence"), targets,
        _values(examples, "fold"), _values(examples, "spread"), _values(examples, "question"), _values(examples, "answer"),
        strict=True,
    )  # fmt: skip
    return Table(
        task=task,
        examples=[Example(task.id, *row) for row in rows],
        rejects=[Reject(*row) for row in zip(*(column.to_pylist() for column in rejects.columns), strict=True)],
        rows_read=head.rows_read,
    )


def _values(table: Any, name: str) -> list[Any]:
    values: list[Any] = table.column(name).to_pylist()
    return values


def _texts(table: Any, name: str) -> Iterable[Any]:
    """A column of texts that repeat, each different one built once."""
    known: dict[str, str] = {}
    return (known.setdefault(text, text) for text in _values(table, name))


def _lists(table: Any, name: str) -> list[tuple[str, ...]]:
    """A column of lists as tuples, cut out of one flat list, which is several times faster than a list a row."""
    column = table.column(name).combine_chunks()
    chunks: Sequence[Any] = column.chunks if hasattr(column, "chunks") else [column]
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    found = []
    for chunk in chunks:
        ends = chunk.offsets.to_pylist()
        flat = chunk.values.to_pylist()
        for begin, end in pairwise(ends):
            one = tuple(flat[begin:end])
            found.append(known.setdefault(one, one))
    return found
