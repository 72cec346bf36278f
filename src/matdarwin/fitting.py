"""What a table in memory says of the task that it is: materials, targets, the grid of answers, and the division of its rows."""

from __future__ import annotations

import math
import numbers as abstract
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdarwin.data import guess, leakage
from matdarwin.data.leakage import Split
from matdarwin.materials import is_missing, parse
from matdarwin.materials.material import Kind, Material, MaterialError
from matdarwin.tasks.schema import MAX_GRID, Example, Task

_MINIMUM_CALIBRATION = 50
_MOST_DECIMALS = 6


def parsed(given: Sequence[object], kind: Kind) -> list[Material]:
    """The materials of a column.

    Raises:
        ValueError: One is none; its index, token and position are named.
    """
    found = []
    for index, one in enumerate(given):
        try:
            found.append(parse(one, kind))
        except MaterialError as error:
            raise ValueError(f"X[{index}] is no {kind}: {error}") from error
    return found


def numbers(y: object) -> list[float]:
    """The values of a column; a number of fewer digits (float32) as the shortest decimal that stands for it.

    Raises:
        ValueError: It is no column, or one of its values is no finite number; its index is named.
    """
    values = []
    for index, given in enumerate(_column(y, "numbers")):
        if is_missing(given):
            raise ValueError(f"y[{index}] is {given}; drop the row or give its value")
        try:
            # A float32 of 0.1 is 0.10000000149011612 as a float64, and would ask for answers of as many digits.
            value = float(str(given) if isinstance(given, np.floating) else given)
        except (TypeError, ValueError) as error:
            raise ValueError(f"y holds what is no number: y[{index}] is {given!r}") from error
        if not math.isfinite(value):
            raise ValueError(f"y[{index}] is {value}; drop the row or give its value")
        values.append(value)
    return values


def classes(y: object) -> tuple[NDArray[Any], list[str], list[str]]:
    """The classes sorted, each row's label, and the labels in the classes' order.

    Args:
        y: Texts, whole numbers (also as floats, such as 1.0) or booleans; the classes keep their type.

    Raises:
        ValueError: It is no column, has an element that is missing or of another type than the first (its index is
            named), one class only, or a class that an answer could not spell.
    """
    given = _column(y, "classes")
    for index, value in enumerate(given):
        if is_missing(value):
            raise ValueError(f"y[{index}] is missing ({value}); drop the row or give its class")
        if _type(value) is None:
            raise ValueError(f"y[{index}] is {value!r}; classes are texts, whole numbers or booleans")
        if _type(value) != _type(given[0]):
            raise ValueError(
                f"y[{index}] is {value!r}, a {_type(value)}, and y[0] is {given[0]!r}, a {_type(given[0])}; write all "
                "classes as texts, all as whole numbers or all as booleans"
            )
    array = np.asarray(y).reshape(-1)
    if array.dtype == object and not isinstance(given[0], str):
        array = np.asarray(given)  # whole numbers of pandas' nullable kinds
    classes, places = np.unique(array, return_inverse=True)
    labels = [str(int(value) if isinstance(value, float) else value) for value in classes.tolist()]
    if len(labels) < 2:
        raise ValueError(f"y has the one class {labels[0]!r}; there is nothing to learn")
    for label in labels:
        if not label.strip() or label != " ".join(label.split()):
            raise ValueError(f"the class {label!r} is empty or has blanks at its ends or in a row; write it without")
    return classes, [labels[place] for place in places], labels


def grid(values: Sequence[float], decimals: int | None, bounds: tuple[float, float] | None) -> dict[str, Any]:
    """Decimals and bounds of the answers: what was asked for, else what the values call for (see `guess.grid`).

    Raises:
        ValueError: Bounds that do not rise or do not hold every value, or values that fixed decimals cannot hold.
    """
    if decimals is not None and (
        isinstance(decimals, bool)
        or not isinstance(decimals, abstract.Integral)
        or not 0 <= int(decimals) <= _MOST_DECIMALS
    ):
        raise ValueError(
            f"decimals is a whole number from 0 to {_MOST_DECIMALS}, or None to find out; got {decimals!r}"
        )
    exact = [Decimal(repr(value)) for value in values]
    ends = None
    if bounds is not None:
        low, high = ends = _ends(bounds)
        for index, value in enumerate(exact):
            if not low <= value <= high:
                raise ValueError(f"y[{index}] is {value}, outside the bounds {bounds}")
    found = guess.grid(exact, decimals=None if decimals is None else int(decimals), bounds=ends)
    least, greatest = found["bounds"]
    if (greatest - least) * 10 ** found["decimals"] > MAX_GRID:
        raise ValueError(
            f"answers from {least:g} to {greatest:g} with {found['decimals']} decimals are over {MAX_GRID:,}; give fewer "
            "decimals or narrower bounds"
        )
    return found


def divide(task: Task, examples: list[Example], *, seed: int, validation: float, calibration: float) -> Split:
    """Merge and divide the rows by key, by the rule that divides files (see `leakage.split`).

    Where every material was drawn for validation, as one or two may be, they teach instead.
    """
    removed: Counter[str] = Counter()
    merged = leakage.merge(task, examples, removed)
    parts = leakage.draw(merged, [task.id], seed, validation, calibration, _MINIMUM_CALIBRATION)
    if "train" not in parts:
        parts = ["train" if part == "validation" else part for part in parts]
    rows = {
        name: {task.id: [example for example, part in zip(merged, parts, strict=True) if part == name]}
        for name in ("train", "validation", "calibration")
    }
    return Split(
        tasks=(task,), targets=(task.id,), fold=None, scheme="seeded", seed=seed, test={task.id: []},
        kept={task.id: len(examples)}, removed=dict(removed),
        train=rows["train"], validation=rows["validation"], calibration=rows["calibration"],
    )  # fmt: skip


def _column(y: object, what: str) -> list[Any]:
    """The elements of a column as they were given, before any array makes them alike.

    Raises:
        ValueError: It is no column, or an empty one.
    """
    shape = getattr(y, "shape", None)
    given: Any = y
    if shape is not None and len(shape) == 2 and shape[1] == 1:
        given = given.iloc[:, 0] if hasattr(given, "iloc") else given[:, 0]
    elif (
        (shape is not None and len(shape) != 1)
        or (shape is None and not isinstance(y, Sequence))
        or isinstance(y, str | bytes)
    ):
        got = f"the shape {tuple(shape)}" if shape is not None else f"`{type(y).__name__}`"
        raise ValueError(f"y is a column of {what}, one or more; got {got}")
    rows = list(given)
    dtype = getattr(given, "dtype", None)
    plain = getattr(dtype, "numpy_dtype", dtype)
    if isinstance(plain, np.dtype) and plain.kind == "f" and plain.itemsize < 8:
        # pandas gives them as float64, with digits that were never there.
        rows = [row if is_missing(row) else plain.type(row) for row in rows]
    if rows and all(isinstance(row, list | tuple | np.ndarray) and len(row) == 1 for row in rows):
        rows = [row[0] for row in rows]
    if not rows:
        raise ValueError(f"y is a column of {what}, one or more; got none")
    for index, row in enumerate(rows):
        if isinstance(row, list | tuple | np.ndarray):
            raise ValueError(f"y is a column of {what}; y[{index}] has {np.size(row)} elements")
    return rows


def _type(value: object) -> str | None:
    """What kind of class an element is; None where it can be none."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, abstract.Integral):
        return "number"
    return "number" if isinstance(value, float | np.floating) and float(value).is_integer() else None


def _ends(bounds: object) -> tuple[Decimal, Decimal]:
    """Bounds as exact numbers.

    Raises:
        ValueError: They are not two finite numbers that rise.
    """
    try:
        low, high = (float(end) for end in bounds)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"bounds are two numbers, least and greatest answer, such as (0, 5); got {bounds!r}"
        ) from error
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"bounds are finite numbers, got {bounds!r}")
    if not low < high:
        raise ValueError(f"bounds must rise, got {bounds}")
    return Decimal(repr(low)), Decimal(repr(high))
