"""Hard splits and synthetic controls as CSV: every row once, on its side, and read back by what takes a user's table."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from matdarwin.data import export
from matdarwin.data.custom import from_table
from matdarwin.data.readers import read
from matdarwin.data.sources import DataError
from matdarwin.materials import parse_composition
from matdarwin.tasks.schema import Task
from tiny import tiny_rows, tiny_task


@pytest.fixture
def task(tmp_path: Path) -> Task:
    # A number with many digits, one row twice.
    return tiny_task(tmp_path, rows=[*tiny_rows(120)[:-1], ("Ga N", "0.0000123"), ("Ga N", "0.0000125")])


def cells(path: Path) -> list[list[str]]:
    return list(csv.reader(path.open(encoding="utf-8")))


@pytest.mark.parametrize("by", ["element:Fe", "system:0", "system:4", "highest:0.3"])
def test_both_sides_hold_every_material_once(task: Task, by: str) -> None:
    train, test = export.hard_split(task, by)
    keys = [{row.material.key for row in side} for side in (train, test)]
    assert keys[0] and keys[1] and keys[0].isdisjoint(keys[1])
    assert keys[0] | keys[1] == {row.material.key for row in read(task).examples}
    assert len(train) == len(keys[0]), "training rows of one material are merged"
    assert len(train) + len(test) in (len(keys[0] | keys[1]), len(keys[0] | keys[1]) + 1)


def test_test_rows_stay_as_they_are_and_what_is_merged_is_told(task: Task) -> None:
    removed: Counter[str] = Counter()
    train, test = export.hard_split(task, "element:Ga", removed)
    assert [row.target for row in test if row.material.given == "Ga N"] == [0.0000123, 0.0000125] and not removed
    train, test = export.hard_split(task, "element:Fe", removed)
    assert [row.target for row in train if row.material.given == "Ga N"] == [0.0000124]
    assert removed == {"tiny_gap: merged into another row of its key": 1}


def test_each_split_is_what_its_name_says(task: Task) -> None:
    train, test = export.hard_split(task, "element:Fe")
    assert all("Fe" in row.material.elements for row in test)
    assert not any("Fe" in row.material.elements for row in train)
    train, test = export.hard_split(task, "system:2")
    systems = [{frozenset(row.material.elements) for row in side} for side in (train, test)]
    assert systems[0].isdisjoint(systems[1])
    train, test = export.hard_split(task, "highest:0.3")
    assert min(float(row.target or 0) for row in test) > max(float(row.target or 0) for row in train)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("Fe", "'Fe' is no split; write element:SYMBOL, system:FOLD"),
        ("element:Xx", "'Xx' is no element"),
        ("system:", "give the test fold, from 0 to 4, such as system:0"),
        ("scaffold:0", "scaffolds belong to molecules"),
        ("highest:much", "give a share, such as highest:0.2"),
        ("highest:2", "must lie between 0 and 1"),
    ],
)
def test_what_is_no_split_is_refused(task: Task, by: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        export.hard_split(task, by)


def test_rows_come_back_as_a_users_table(task: Task, tmp_path: Path) -> None:
    train, _ = export.hard_split(task, "element:Fe")
    path = tmp_path / "train.csv"
    export.write(path, task, train)
    assert cells(path)[0] == ["composition", "target"]
    assert ["Ga N", "0.0000124"] in cells(path), "digits as they are, without an exponent"
    again = read(from_table(path, "composition", "target", "band gap", "eV")).examples
    assert [(row.material.key, row.target) for row in again] == [(row.material.key, row.target) for row in train]
    with pytest.raises(DataError, match=r"train\.csv is there already"):
        export.write(path, task, train)


def test_conditions_have_columns(task: Task, tmp_path: Path) -> None:
    from dataclasses import replace

    conditions = [{"name": "temperature", "unit": "K"}, {"name": "form", "required": False}]
    asked = Task.model_validate(task.model_dump() | {"conditions": conditions})
    rows = [replace(row, conditions={"temperature": 300.0}) for row in read(task).examples[:2]]
    export.write(tmp_path / "t.csv", asked, rows)
    assert cells(tmp_path / "t.csv")[0] == ["composition", "temperature", "form", "target"]
    assert cells(tmp_path / "t.csv")[1][1:3] == ["300.0", ""]


@pytest.mark.parametrize("which", export.CONTROLS)
def test_a_control_knows_nothing_of_the_test_fold(task: Task, which: export.Control) -> None:
    from matdarwin.data.leakage import split

    whole, less = (export.synthetic(task, which, seed=0, fold=fold) for fold in (None, 0))
    tested = {row.material.key for row in split([task], 0).test[task.id]}
    assert len(whole) - len(less) == len(tested)
    assert tested.isdisjoint(row.material.key for row in less)
    real = {row.material.key for row in read(task).examples}
    assert all((parse_composition(row.material.given).key in real) == (which == "syn1") for row in less)
    assert export.synthetic(task, which, seed=0, fold=0) == less != export.synthetic(task, which, seed=1, fold=0)
