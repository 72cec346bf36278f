"""Columns of a table in memory: what is a class or number, what is missing or mixed, and who teaches."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from matdarwin import fitting
from matdarwin.materials import parse
from matdarwin.tasks.schema import Example
from tiny import tiny_rows, tiny_task


@pytest.mark.parametrize(
    ("y", "classes", "labels"),
    [
        (["b", "a", "b"], ["a", "b"], ["a", "b"]),
        (np.array(["b", "a", "nan"]), ["a", "b", "nan"], ["a", "b", "nan"]),  # a text in an array of texts is one
        (pd.Series(["b", "a"], index=[7, 9]), ["a", "b"], ["a", "b"]),
        (pd.Series(["b", "a"], dtype="string"), ["a", "b"], ["a", "b"]),
        (pd.Categorical(["b", "a"]), ["a", "b"], ["a", "b"]),
        (pd.DataFrame({"y": ["b", "a"]}), ["a", "b"], ["a", "b"]),
        ([["b"], ["a"]], ["a", "b"], ["a", "b"]),
        ([0.0, 1.0], [0.0, 1.0], ["0", "1"]),
        (np.array([[10.0], [2.0]], np.float32), [2.0, 10.0], ["2", "10"]),
        (np.array([3, 1], np.int8), [1, 3], ["1", "3"]),
        (np.array([3, 1], object), [1, 3], ["1", "3"]),
        (pd.Series([3, 1], dtype="Int64"), [1, 3], ["1", "3"]),
        (pd.Series([True, False], dtype="boolean"), [False, True], ["False", "True"]),
        ([np.True_, False], [False, True], ["False", "True"]),
    ],
)
def test_classes_keep_their_type(y: Any, classes: list[Any], labels: list[str]) -> None:
    found, rows, named = fitting.classes(y)
    assert found.tolist() == classes and named == labels and len(rows) == len(y)
    assert [type(one) for one in found.tolist()] == [type(one) for one in classes]
    if isinstance(y, np.ndarray) and y.dtype != object:
        assert found.dtype == y.dtype


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (["a", None, "b"], r"y\[1\] is missing \(None\); drop the row or give its class"),
        (["a", "b", float("nan")], r"y\[2\] is missing \(nan\)"),
        (pd.Series(["a", None, "b"]), r"y\[1\] is missing"),
        (pd.Series(["a", pd.NA, "b"], dtype="string"), r"y\[1\] is missing \(<NA>\)"),
        (pd.Series([1, pd.NA, 2], dtype="Int64"), r"y\[1\] is missing \(<NA>\)"),
        (pd.Categorical(["a", None, "b"]), r"y\[1\] is missing"),
        (np.array(["a", np.nan, "b"], object), r"y\[1\] is missing"),
        (np.array([0.0, np.nan, 1.0]), r"y\[1\] is missing"),
        (["a", 1, "b"], r"y\[1\] is 1, a number, and y\[0\] is 'a', a text"),
        ([1, "a", 2], r"y\[1\] is 'a', a text, and y\[0\] is 1, a number"),
        ([True, 0], r"y\[1\] is 0, a number, and y\[0\] is True, a boolean"),
        ([0.0, 0.5], r"y\[1\] is 0\.5; classes are texts, whole numbers or booleans"),
        ([0.0, float("inf")], r"y\[1\] is inf"),
        ([b"a", b"b"], r"y\[0\] is b'a'"),
        ([["a", "b"], ["c", "d"]], r"y is a column of classes; y\[0\] has 2 elements"),
        (np.array([["a", "b"]]), r"y is a column of classes, one or more; got the shape \(1, 2\)"),
        (np.array("a"), r"got the shape \(\)"),
        ("ab", "got `str`"),
        (3, "got `int`"),
        ([], "got none"),
        (["a", "a"], "one class 'a'"),
    ],
)
def test_what_is_no_column_of_classes(y: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fitting.classes(y)


def test_numbers_of_any_kind() -> None:
    assert fitting.numbers(pd.Series([0.1, 0.2], dtype="Float32")) == [0.1, 0.2]
    assert fitting.numbers([1, 2.5, "3.5", Decimal("0.1"), True]) == [1.0, 2.5, 3.5, 0.1, 1.0]
    assert fitting.numbers(pd.Series([1, 2], dtype="Int64")) == [1.0, 2.0]
    assert fitting.numbers(np.array([[0.1], [0.2]])) == [0.1, 0.2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_short_numbers_call_for_no_finer_answers(dtype: Any) -> None:
    values = [number / 10 for number in range(30)]
    assert fitting.numbers(np.array(values, dtype)) == values
    assert fitting.numbers(pd.Series(values, dtype=dtype)) == values
    assert fitting.numbers(pd.DataFrame({"y": np.array(values, dtype)})) == values
    assert fitting.grid(fitting.numbers(np.array(values, dtype)), None, None)["decimals"] == 1


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([1.0, None], r"y\[1\] is None; drop the row"),
        (pd.Series([1, pd.NA], dtype="Int64"), r"y\[1\] is <NA>; drop the row"),
        ([1.0, float("inf")], r"y\[1\] is inf"),
        ([1.0, "high"], r"y holds what is no number: y\[1\] is 'high'"),
        ([1.0, [2.0, 3.0]], r"y is a column of numbers; y\[1\] has 2 elements"),
        (np.array(1.0), r"got the shape \(\)"),
    ],
)
def test_what_is_no_column_of_numbers(y: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fitting.numbers(y)


@pytest.mark.parametrize(
    ("decimals", "bounds", "says"),
    [
        (9, None, "decimals is a whole number from 0 to 6, or None to find out; got 9"),
        (-1, None, "got -1"),
        (1.0, None, r"got 1\.0"),
        (True, None, "got True"),
        (None, (0,), r"bounds are two numbers, least and greatest answer, such as \(0, 5\); got \(0,\)"),
        (None, 5, "bounds are two numbers"),
        (None, (0, "high"), "bounds are two numbers"),
        (None, (0, float("inf")), "bounds are finite"),
        (6, (0, 100_000), "with 6 decimals are over .* give fewer decimals or narrower bounds"),
    ],
)
def test_grids_that_cannot_be(decimals: Any, bounds: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fitting.grid([1.0, 2.5], decimals, bounds)


def test_whole_numbers_of_numpy_are_decimals_too() -> None:
    assert fitting.grid([1.0, 2.5], np.int64(3), np.array([0, 10])) == {"bounds": [0.0, 10.0], "decimals": 3}  # type: ignore[arg-type]


def test_whoever_is_alone_teaches(tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    for formula, _ in tiny_rows(60):
        row = Example(task=task.id, row="0", material=parse(formula, "composition"), target=1.0)
        split = fitting.divide(task, [row], seed=0, validation=0.1, calibration=0.1)
        assert split.train[task.id] == [row] and not split.validation[task.id]
