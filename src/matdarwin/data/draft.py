"""A task drafted from a user's table: which columns, which property and unit, found out where they can be told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from matdarwin.data import guess, tables
from matdarwin.data.cells import DECIMAL_COMMA, NUMBER
from matdarwin.data.custom import TaskKind, from_table, whole_rows
from matdarwin.data.sources import DataError
from matdarwin.materials.material import Kind
from matdarwin.tasks.schema import Task

_NUMERIC_SHARE = 0.8
_MOST_CLASSES = 20
_MATERIAL = ("formula", "composition", "smiles", "material", "compound", "molecule", "alloy", "absorber", "chemical")
_TARGET = frozenset({"target", "y", "label", "class", "answer", "value", "output", "result", "measurement", "property"})
_COUNTERS = frozenset({"id", "index", "no", "no.", "nr", "number", "row", "#", "", "unnamed: 0"})


@dataclass(frozen=True)
class Draft:
    """A drafted task.

    Attributes:
        task: The task, whose table can be read.
        found: What was found out and from what, a line each.
        others: Columns that it does not use.
    """

    task: Task
    found: tuple[str, ...]
    others: tuple[str, ...]


def draft(
    path: Path,
    *,
    material_column: str | None = None,
    target_column: str | None = None,
    property: str | None = None,
    unit: str | None = None,
    kind: TaskKind | None = None,
    representation: Kind | None = None,
    id: str | None = None,
) -> Draft:
    """Draft a task of a CSV or Parquet table; what is not given is found out from the names and cells of its columns.

    Raises:
        DataError: What cannot be told (the message names the option that tells it), or see `custom.from_table`.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; correct the path")
    header = tables.columns(path)
    found: list[str] = []
    if material_column is None or target_column is None:
        if len(header) == 1:
            hint = tables.split_otherwise(header) or "; a material and an answer need two"
            raise DataError(f"{path}: line 1 names one column, {header[0]!r}{hint}")
        cells = _cells(path, [name for name in header if header.count(name) == 1])
        _check_header(path, header, cells)
        if material_column is None:
            material_column = _material(path, {name: one for name, one in cells.items() if name != target_column})
            found.append(f"material: column {material_column!r}, the one that reads as materials")
        if target_column is None:
            target_column = _target(path, {name: one for name, one in cells.items() if name != material_column})
            found.append(f"answer: column {target_column!r}, the one that may be one")
    words, named = guess.heading(target_column)
    if property is None:
        if not words or words.casefold() in _TARGET:
            raise DataError(
                f"{path}: the name of column {target_column!r} does not say what is measured; give it in words: --property"
            )
        property = words
        found.append(f"property: {property!r}, from the column's name")
    task = from_table(
        path, material_column, target_column, property, unit, kind=kind, representation=representation, id=id
    )
    if unit is None and named is not None and task.kind == "regression":
        # Again, since the wordings name the unit.
        task = from_table(
            path, material_column, target_column, property, named, kind=kind, representation=representation, id=id
        )
        found.append(f"unit: {named}, from the column's name")
    elif unit is None and task.kind == "regression":
        found.append("unit: none, since the column's name has none that is known (--unit gives one)")
    if kind is None:
        found.append(f"kind: {task.kind}, from the cells")
    if representation is None:
        found.append(f"representation: {task.representation}, which reads most of the materials")
    if task.kind == "regression" and task.bounds is not None:
        found.append(f"bounds {task.bounds[0]:g} to {task.bounds[1]:g}, {task.decimals} decimals: from the numbers")
    used = {material_column, target_column}
    others = tuple(dict.fromkeys(name for name in header if name not in used))
    found += _conditions(path, task, [name for name in others if header.count(name) == 1])
    return Draft(task, tuple(found), others)


def text(drafted: Draft) -> str:
    """The task file: YAML with what was found out as comments, to be looked through."""
    lines = ["# Drafted from a table; look it through. Found out:", *(f"#   {line}" for line in drafted.found)]
    if drafted.others:
        lines.append(f"# Not used: {', '.join(map(repr, drafted.others))}. One that belongs to the question, such as a")
        lines.append(
            "# temperature, is declared under `conditions` (name, unit) and `reader.conditions` (name: column)."
        )
    task = drafted.task
    told = _filled(task.model_dump(mode="json")) | {
        "reader": task.reader.model_dump(mode="json", exclude_defaults=True)
    }
    content = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=110)
    return "\n".join(lines) + "\n" + content


def _filled(value: Any) -> Any:
    """Without keys that are empty."""
    if isinstance(value, dict):
        return {key: _filled(one) for key, one in value.items() if one not in (None, [], {}, ())}
    return value


def _cells(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The cells of each column that are not empty."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for _, row in whole_rows(path, names):
        for name in names:
            if row[name]:
                found[name].append(row[name])
    return {name: cells for name, cells in found.items() if cells}


def _check_header(path: Path, header: Sequence[str], cells: dict[str, list[str]]) -> None:
    """Refuse a first line that names no columns, or one of which the answer cannot be told.

    Raises:
        DataError: It is a row, or a column is repeated.
    """
    values = [
        name for name in header if _is_numeric([name]) or (_is_class(cells.get(name, [])) and name in cells[name])
    ]
    materials = [name for name in header if name and guess.is_readable([name])]
    if values and materials:
        raise DataError(
            f"{path}: line 1 reads as a row ({materials[0]!r}, {values[0]!r}) and not as names of columns; put a line of "
            "names above it, such as: formula,band gap (eV)"
        )
    for name in header:
        if name and header.count(name) > 1:
            raise DataError(f"{path}: {tables.repeated(header, name)}")


def _conditions(path: Path, task: Task, others: Sequence[str]) -> list[str]:
    """Columns that tell rows of one material apart whose answers differ: no wording asks by them."""
    material, answer = task.reader.material, task.reader.target
    together: dict[str, list[tuple[int, tables.Row]]] = defaultdict(list)
    for number, row in whole_rows(path, [material, answer, *others]):
        together[row[material]].append((number, row))
    differing = [rows for rows in together.values() if len({row[answer] for _, row in rows}) > 1]
    found = []
    for name in others:
        cells = [row[name] for rows in together.values() for _, row in rows if row[name]]
        if name.strip().casefold() in _COUNTERS or len(set(cells)) == len(cells) or not (_is_numeric(cells) or _is_class(cells)):  # fmt: skip
            continue
        apart = [rows for rows in differing if len({row[name] for _, row in rows}) == len(rows)]
        if apart and 2 * len(apart) >= len(differing):
            (one, row), (other, _) = apart[0][:2]
            found.append(
                f"column {name!r} tells rows of one material apart (rows {one} and {other}, {row[material]}), and no wording "
                "asks by it; if it belongs to the question, declare it under conditions and reader.conditions, and write "
                "{conditions} into each wording"
            )
    return found


def _is_numeric(cells: Sequence[str]) -> bool:
    numbers = sum(bool(NUMBER.fullmatch(cell) or DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
    return numbers >= _NUMERIC_SHARE * len(cells)


def _is_class(cells: Sequence[str]) -> bool:
    return 2 <= len(set(cells)) <= min(_MOST_CLASSES, len(cells) // 2)


def _material(path: Path, columns: dict[str, list[str]]) -> str:
    texts = {name: cells for name, cells in columns.items() if not _is_numeric(cells) and not _is_class(cells)}
    called = [name for name in texts if any(word in name.casefold() for word in _MATERIAL)]
    readable = [name for name, cells in texts.items() if guess.is_readable(cells)]
    both = [name for name in called if name in readable]
    for candidates in (both, readable, called):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise DataError(
                f"{path}: columns {_several(candidates)} may all hold the material; say which: --material-column"
            )
    raise DataError(
        f"{path}: no column reads as formulas or SMILES, or is called by a material; say which holds it: "
        f"--material-column (it has {_several(list(columns))})"
    )


def _target(path: Path, columns: dict[str, list[str]]) -> str:
    possible = {
        name: cells
        for name, cells in columns.items()
        if name.strip().casefold() not in _COUNTERS
        and not _counts(cells)
        and (_is_class(cells) or (_is_numeric(cells) and len(set(cells)) > 1))
    }
    called = [name for name in possible if name.strip().casefold() in _TARGET]
    for candidates in (called, list(possible)):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise DataError(f"{path}: columns {_several(candidates)} may all be the answer; say which: --target-column")
    raise DataError(
        f"{path}: no column holds numbers or a few classes; say which is the answer: --target-column "
        f"(it has {_several(list(columns))})"
    )


def _counts(cells: Sequence[str]) -> bool:
    """Whether a column just numbers the rows."""
    start = cells[0]
    return start in ("0", "1") and all(cell == str(int(start) + place) for place, cell in enumerate(cells))


def _several(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (" …" if len(names) > 10 else "")
