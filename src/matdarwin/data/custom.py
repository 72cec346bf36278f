"""A user's own table becomes a task without any YAML: what can be found out from the data is not asked for."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from matdarwin.data import guess
from matdarwin.data.guess import GuessError
from matdarwin.data.readers import DECIMAL_COMMA, NUMBER, Table, read
from matdarwin.data.sources import DataError, sha256
from matdarwin.data.tables import COUNTED, Row, rows
from matdarwin.materials.material import Kind
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task

TaskKind = Literal["regression", "classification"]

_LEAST_ROWS = 20
_NUMERIC_SHARE = 0.8
_MOST_CLASSES = 20
_EMPTY = frozenset({"nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL"})
"""What programs write into the cell of an answer that is not there; words such as `none` may be a class."""
_MEANT = {"C": "°C", "A": "angstrom"}
"""Units as column names have them that stand for others than they spell."""


def from_table(
    path: Path,
    input_column: str,
    target_column: str,
    property: str,
    unit: str | None,
    *,
    kind: TaskKind | None = None,
    representation: Kind | None = None,
    id: str | None = None,
) -> Task:
    """The task that a CSV or Parquet table states.

    Found out where not given: whether the target is a number or a class (numbers if at least 80 % of the cells
    are, unless there are only two values), how the material is written, decimals and bounds (see `guess`). Rows that do
    not fit are rejects of the task's table, named there and counted in the task's notes.

    Args:
        path: The table: .csv, .csv.gz (UTF-8) or .parquet.
        input_column: Column with the material.
        target_column: Column with the answer.
        property: The property in words, as a question would have it ("band gap").
        unit: Unit of the answer; None for classes and pure numbers.
        kind: Regression or classification; None to find out.
        representation: composition, molecule or name; None to find out.
        id: Id of the task; None to make one from the property.

    Raises:
        DataError: No such file or column, wrong encoding, decimal commas, under 20 usable rows, a single class
            or value, materials that may be formulas and SMILES alike, numbers that fixed decimals cannot hold, or
            another unit in the column's name than the one that is given.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; correct the path")
    if not property.strip() or "{" in property or "}" in property:
        raise DataError(f"the property is given in words without braces, such as 'band gap'; got {property!r}")
    property = " ".join(property.split())
    check_unit(path, target_column, unit)
    pairs = _pairs(path, input_column, target_column)
    missing = sorted({answer for _, _, answer in pairs} & _EMPTY)
    pairs = [(row, material, "" if answer in missing else answer) for row, material, answer in pairs]
    inputs = [material for _, material, answer in pairs if material and answer]
    answers = [(row, answer) for row, material, answer in pairs if material and answer]
    if len(inputs) < _LEAST_ROWS:
        empty = next(((row, target_column if material else input_column) for row, material, answer in pairs if not (material and answer)), None)  # fmt: skip
        shown = f" (row {empty[0]}, column {empty[1]!r}: the cell is empty; {COUNTED})" if empty else ""
        raise DataError(
            f"{path}: {len(inputs)} of {len(pairs)} rows have both {input_column!r} and {target_column!r}; "
            f"{_LEAST_ROWS} or more are needed{shown}"
        )
    kind = kind or _kind([answer for _, answer in answers])
    shape = _numeric(path, target_column, answers) if kind == "regression" else _classes(path, target_column, answers)
    how = representation or _representation(path, input_column, inputs)
    content: dict[str, Any] = {
        "id": id or _id(property),
        "version": 1,
        "kind": kind,
        "title": f"{property} of the table {path.name}"[:120],
        "property": property,
        "quantities": [property.casefold()],
        "unit": unit,
        "representation": how,
        "wordings": _wordings(property, unit),
        "metric": "mae" if kind == "regression" else "balanced_accuracy",
        "source": {"kind": "file", "name": str(path.resolve()), "sha256": sha256(path)},
        "reader": {"material": input_column, "target": target_column} | ({"missing": missing} if missing else {}),
        "licence": "the user's own",
        "citation": f"table {path.name}",
        "description": f"{property} from column {target_column!r} of {path.name}, by {how} in column {input_column!r}.",
        **shape,
    }
    if content["id"] in registry.names():
        raise DataError(f"{content['id']!r} is the id of a task of the library; give another")
    try:
        task = Task.model_validate(content)
    except ValidationError as error:
        raise DataError("\n".join(registry.render(error, path.name, Task))) from error
    return _checked(task, path)


def check_unit(path: Path, column: str, given: str | None) -> None:
    """Make sure that a column's name does not state another unit than the one that is given.

    Raises:
        DataError: It does, such as `gap (meV)` where the unit given is eV.
    """
    named = guess.heading(column)[1]
    if named is None or given is None:
        return
    # As people write them: `Tg (C)` is not in coulombs, nor `a (A)` in amperes.
    stated, wanted = [guess.unit(one) for one in (named, _MEANT.get(named, named))], guess.unit(given)
    if wanted is not None and wanted not in stated:
        raise DataError(
            f"{path}: column {column!r} is in {named} by its name, and the unit given is {given}; convert the numbers, "
            f"or give the unit {named}"
        )


def _pairs(path: Path, input_column: str, target_column: str) -> list[tuple[int, str, str]]:
    """Row number, material and answer of each whole row."""
    if input_column == target_column:
        raise DataError(f"{path}: input and target are both column {input_column!r}; name two columns")
    names = [input_column, target_column]
    return [(number, row[input_column], row[target_column]) for number, row in whole_rows(path, names)]


def whole_rows(path: Path, names: Sequence[str]) -> list[tuple[int, Row]]:
    """The rows that have as many cells as the header, with their numbers.

    Raises:
        DataError: Most have more or fewer, as where decimal commas split cells; or see `tables.rows`.
    """
    found = list(rows(path, names))
    uneven = [(number, row) for number, row in found if isinstance(row, str)]
    if 2 * len(uneven) > len(found):
        number, text = uneven[0]
        raise DataError(
            f"{path}: row {number} ({text[:60]!r}) has more or fewer cells than the header, and so have {len(uneven)} of "
            f"{len(found)} rows; write decimals with a point, and put a cell with a comma into double quotes ({COUNTED})"
        )
    return [(number, row) for number, row in found if not isinstance(row, str)]


def _kind(answers: Sequence[str]) -> TaskKind:
    numbers = sum(bool(NUMBER.fullmatch(answer) or DECIMAL_COMMA.fullmatch(answer)) for answer in answers)
    return "regression" if numbers >= _NUMERIC_SHARE * len(answers) and len(set(answers)) > 2 else "classification"


def _numeric(path: Path, column: str, answers: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Bounds and decimals of a regression task."""
    for row, answer in answers:
        if DECIMAL_COMMA.fullmatch(answer):
            raise DataError(
                f"{path}: row {row}, column {column!r}: {answer!r} has a comma; write decimals with a point and no "
                f"grouping ({COUNTED})"
            )
    values = [Decimal(answer) for _, answer in answers if NUMBER.fullmatch(answer) and math.isfinite(float(answer))]
    if len(values) < _LEAST_ROWS:
        raise DataError(f"{path}: column {column!r} has {len(values)} numbers; {_LEAST_ROWS} or more are needed")
    least, greatest = min(values), max(values)
    if least == greatest:
        raise DataError(
            f"{path}: column {column!r} has the same value in every row ({least}); there is nothing to learn"
        )
    try:
        return guess.grid(values)
    except GuessError as error:
        raise DataError(f"{path}: column {column!r}: {error}") from error


def _classes(path: Path, column: str, answers: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Labels of a classification task."""
    labels = sorted({answer for _, answer in answers})
    if len(labels) == 1:
        raise DataError(f"{path}: column {column!r} has one class only ({labels[0]!r}); there is nothing to learn")
    if len(labels) > max(_MOST_CLASSES, len(answers) // 20):
        raise DataError(
            f"{path}: column {column!r} has {len(labels)} different texts in {len(answers)} rows, neither numbers nor classes, "
            f"such as {labels[0]!r} and {labels[1]!r}; clean the column or name another"
        )
    folded: dict[str, str] = {}
    for label in labels:
        if other := folded.get(label.casefold()):
            raise DataError(
                f"{path}: column {column!r}: the classes {other!r} and {label!r} differ in case only; write them alike"
            )
        folded[label.casefold()] = label
    positive = next((folded[word] for word in ("yes", "true", "1", "positive") if word in folded), None)
    return {"labels": labels, "positive": positive if len(labels) == 2 else None}


def _representation(path: Path, column: str, inputs: Sequence[str]) -> Kind:
    try:
        return guess.representation(inputs, column)
    except GuessError as error:
        raise DataError(f"{path}: column {column!r}: {error} (--representation)") from error


def _id(property: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", property.casefold()).strip("_")
    return f"my_{words or 'task'}"


def _wordings(property: str, unit: str | None) -> list[str]:
    within = f" in {unit}" if unit else ""
    wordings = [
        f"{property} of {{material}}",
        f"What is the {property}{within} of {{material}}?",
        f"State the {property}{within} of {{material}}.",
        f"Given {{material}}, write its {property}{within}.",
    ]
    return [
        wording.replace("{material}", "\0").replace("{", "{{").replace("}", "}}").replace("\0", "{material}")
        for wording in wordings
    ]


def _checked(task: Task, path: Path) -> Task:
    """Read the table as the task will, so that what is wrong shows now and not in training; the task notes what."""
    table = read(task)
    if len(table.examples) < _LEAST_ROWS:
        shown = "; ".join(f"row {reject.row}: {reject.reason}" for reject in table.rejects[:3])
        raise DataError(
            f"{path}: {len(table.examples)} of {table.rows_read} rows can be read; {_LEAST_ROWS} or more are needed ({shown})"
        )
    return task.model_copy(update={"notes": _notes(table)})


def _notes(table: Table) -> tuple[str, ...]:
    """How many rows are rejected, and for which causes."""
    if not table.rejects:
        return ()
    causes = Counter(f"column {r.column}: {r.cause}" if r.column else r.cause for r in table.rejects)
    told = "; ".join(f"{cause} ({count:,})" for cause, count in causes.most_common())
    return (f"{len(table.rejects):,} of {table.rows_read:,} rows are rejected: {told}.",)
