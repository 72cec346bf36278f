"""What a table in memory says of the task that it is: materials, targets, the grid of answers, and the division of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdarwin.data import guess, leakage
from matdarwin.data.leakage import Split
from matdarwin.materials import parse
from matdarwin.materials.material import Kind, Material, MaterialError
from matdarwin.tasks.schema import Example, Task

_MINIMUM_CALIBRATION = 50


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
    """The values of a column.

    Raises:
        ValueError: It is no column, or one of its values is no finite number; its index is named.
    """
    try:
        values = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"y holds what is no number: {error}") from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or not len(values):
        raise ValueError(f"y is a column of numbers, one or more; got the shape {values.shape}")
    for index in np.flatnonzero(~np.isfinite(values)):
        raise ValueError(f"y[{index}] is {values[index]}; drop the row or give its value")
    return [float(value) for value in values]


def classes(y: object) -> tuple[NDArray[Any], list[str], list[str]]:
    """The classes sorted, each row's label, and the labels in the classes' order.

    Raises:
        ValueError: It is no column, has one class only, or a class that an answer could not spell.
    """
    given = np.asarray(y)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1 or not len(given):
        raise ValueError(f"y is a column of classes, one or more; got the shape {given.shape}")
    for index, value in enumerate(given.tolist()):
        if not isinstance(value, str | int):
            raise ValueError(f"y[{index}] is {value!r}; classes are texts, whole numbers or booleans")
    classes, places = np.unique(given, return_inverse=True)
    labels = [str(value) for value in classes.tolist()]
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
    exact = [Decimal(repr(value)) for value in values]
    ends = None
    if bounds is not None:
        low, high = ends = (Decimal(repr(float(bounds[0]))), Decimal(repr(float(bounds[1]))))
        if not low < high:
            raise ValueError(f"bounds must rise, got {bounds}")
        for index, value in enumerate(exact):
            if not low <= value <= high:
                raise ValueError(f"y[{index}] is {value}, outside the bounds {bounds}")
    return guess.grid(exact, decimals=decimals, bounds=ends)


def divide(task: Task, examples: list[Example], *, seed: int, validation: float, calibration: float) -> Split:
    """Merge and divide the rows by key, by the rule that divides files (see `leakage.split`)."""
    removed: Counter[str] = Counter()
    merged = leakage.merge(task, examples, removed)
    parts = leakage.draw(merged, [task.id], seed, validation, calibration, _MINIMUM_CALIBRATION)
    rows = {
        name: {task.id: [example for example, part in zip(merged, parts, strict=True) if part == name]}
        for name in ("train", "validation", "calibration")
    }
    return Split(
        tasks=(task,), targets=(task.id,), fold=None, scheme="seeded", seed=seed, test={task.id: []},
        kept={task.id: len(examples)}, removed=dict(removed),
        train=rows["train"], validation=rows["validation"], calibration=rows["calibration"],
    )  # fmt: skip
