"""Folds: equal materials together, balanced, and the same on every machine."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from matdarwin.data import folds
from matdarwin.data.folds import FOLDS, assign, groups, leader
from matdarwin.data.readers import Table
from matdarwin.data.sources import DataError
from matdarwin.materials.material import Material
from matdarwin.tasks.registry import load
from matdarwin.tasks.schema import Example, Task

GAP, METAL, ZHUO = load("expt_gap"), load("expt_is_metal"), load("zhuo_gap")


def example(task: Task, row: int, key: str, target: Any, *others: str, fold: int | None = None) -> Example:
    material = Material("composition", key, (key,), (key,), key, (key, *others), ())
    return Example(task=task.id, row=str(row), material=material, target=target, fold=fold)


def table(task: Task, examples: list[Example]) -> Table:
    return Table(task, examples, [], len(examples))


def test_rows_that_share_any_key_are_one_group() -> None:
    rows = [
        example(GAP, 0, "a", 1.0, "x"),
        example(GAP, 1, "b", 1.0, "y"),
        example(GAP, 2, "c", 1.0, "x"),
        example(GAP, 3, "d", 1.0, "y", "x"),
        example(GAP, 4, "e", 1.0),
    ]
    assert groups(rows) == [[0, 1, 2, 3], [4]]


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 12)), min_size=60, max_size=120))
def test_seeded_folds_keep_keys_together_and_are_balanced(rows: list[tuple[int, float]]) -> None:
    assume(len({key for key, _ in rows}) >= FOLDS)
    found = assign(table(ZHUO, [example(ZHUO, row, f"k{key}", gap) for row, (key, gap) in enumerate(rows)]))
    by_key: dict[str, set[int | None]] = {}
    for one in found:
        by_key.setdefault(one.material.key, set()).add(one.fold)
    assert all(len(of_key) == 1 for of_key in by_key.values())
    assert [one.row for one in found] == [str(row) for row in range(len(rows))]
    sizes = Counter(one.fold for one in found)
    largest = max(Counter(one.material.key for one in found).values())
    assert max(sizes.values()) - min(sizes[fold] for fold in range(FOLDS)) <= 2 * largest + 10


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [example(ZHUO, row, f"k{row % 83}", row % 7) for row in range(200)]
    forward = {one.row: one.fold for one in assign(table(ZHUO, rows))}
    backward = {one.row: one.fold for one in assign(table(ZHUO, rows[::-1]))}
    assert forward == backward


def test_seeded_folds_never_change() -> None:
    rows = [example(ZHUO, row, f"k{row}", float(row)) for row in range(20)]
    assert [one.fold for one in assign(table(ZHUO, rows))] == [
        0,
        1,
        3,
        2,
        4,
        0,
        1,
        2,
        3,
        4,
        1,
        0,
        3,
        2,
        0,
        4,
        2,
        1,
        4,
        3,
    ]


def test_classes_are_spread_evenly() -> None:
    rows = [example(METAL, row, f"k{row}", "metal" if row % 10 == 0 else "not metal", fold=0) for row in range(500)]
    found = assign(table(METAL, rows), scheme="seeded")
    assert set(Counter(one.fold for one in found if one.target == "metal").values()) == {10}
    assert set(Counter(one.fold for one in found).values()) == {100}


def test_quantiles_are_spread_evenly() -> None:
    rows = [example(ZHUO, row, f"k{row}", float(row)) for row in range(500)]
    for low in range(0, 500, 50):
        part = [one.fold for one in assign(table(ZHUO, rows)) if low <= float(one.target or 0) < low + 50]
        assert set(Counter(part).values()) == {10}


def test_official_folds_stay_as_they_are() -> None:
    rows = [example(GAP, row, f"k{row}", 1.0, fold=row % 3) for row in range(9)]
    assert assign(table(GAP, rows)) == rows


def test_aligned_folds_follow_the_leader_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    leading = [example(GAP, row, f"k{row}", 1.0, fold=(7 * row) % 5) for row in range(100)]
    monkeypatch.setattr(folds, "read", lambda task: table(task, leading))
    rows = [
        example(METAL, row, f"k{row}", "metal" if row % 2 else "not metal", fold=(row + 1) % 5) for row in range(150)
    ]
    found = assign(table(METAL, rows), scheme="aligned", leader=GAP)
    assert [one.fold for one in found[:100]] == [one.fold for one in leading]
    assert set(Counter(one.fold for one in found).values()) == {30}


def test_the_leader_of_a_quantity_is_the_same_alone_and_in_a_list() -> None:
    assert [leader(task, among) for task, among in ((METAL, [METAL]), (ZHUO, [METAL, ZHUO]), (GAP, []))] == [
        GAP,
        GAP,
        GAP,
    ]
    first = GAP.model_copy(update={"id": "first", "quantities": ("colour",), "leads": ()})
    second = first.model_copy(update={"id": "second"})
    assert leader(second, [first, second]) == first


def test_too_few_materials_make_no_folds() -> None:
    with pytest.raises(DataError, match=r"zhuo_gap: 4 different materials do not make 5 folds"):
        assign(table(ZHUO, [example(ZHUO, row, f"k{row % 4}", 1.0) for row in range(50)]))
