"""The published board: the right column under its true name, with the leak marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matdarwin.evaluation.board import BOARD, BoardError, published
from matdarwin.tasks.schema import Task

HEAD = "task,algorithm,benchmark_dir,metric,mean,std,min,max,n_folds,source\n"
TABLE = """\
matbench_expt_gap,Darwin,d,mae,0.20,0.01,0.1,0.3,5,computed
matbench_expt_gap,Forest,f,mae,0.40,0.02,0.3,0.5,5,computed
matbench_expt_gap,Paper,,mae,0.30,,,,5,page
matbench_expt_gap,Forest,f,rmse,0.90,0.02,0.8,1.0,5,computed
matbench_toy_metal,Forest,f,rocauc,0.91,0.01,0.9,0.92,5,computed
matbench_toy_metal,Forest,f,balanced_accuracy,0.915,0.01,0.9,0.93,5,computed
matbench_toy_metal,Paper,,rocauc,0.95,,,,5,page
matbench_toy_metal,Darwin,d,rocauc,0.96,0.01,0.95,0.97,5,computed
"""


def task(**changes: Any) -> Task:
    given: dict[str, Any] = {
        "id": "toy",
        "version": 1,
        "kind": "regression",
        "title": "t",
        "property": "p",
        "quantities": ["q"],
        "bounds": [0, 12],
        "decimals": 2,
        "representation": "composition",
        "wordings": ["{material}"],
        "metric": "mae",
        "board": "matbench_expt_gap",
        "source": {"kind": "file", "name": "x.csv", "sha256": "0" * 64},
        "reader": {"material": "m", "target": "t"},
        "licence": "MIT",
        "citation": "ours",
        "description": "d",
    }
    return Task.model_validate({**given, **changes})


def metal() -> Task:
    return task(
        kind="classification",
        bounds=None,
        decimals=None,
        labels=["yes", "no"],
        metric="balanced_accuracy",
        board="matbench_toy_metal",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / BOARD).parent.mkdir()
    (tmp_path / BOARD).write_text(HEAD + TABLE)
    return tmp_path


def test_rows_best_first_and_the_leak_marked(folder: Path) -> None:
    rows = published(task(), folder)
    assert [(row.algorithm, row.mean, row.leaked) for row in rows] == [
        ("Darwin", 0.2, True),
        ("Paper", 0.3, False),
        ("Forest", 0.4, False),
    ]
    assert rows[0].note and "test compositions" in rows[0].note
    assert (rows[1].std, rows[1].note, rows[1].folds, rows[1].source) == (None, None, 5, "page")
    assert [row.mean for row in published(task(), folder, "rmse")] == [0.9]


def test_the_boards_roc_auc_is_balanced_accuracy(folder: Path) -> None:
    rows = published(metal(), folder)
    assert [(row.algorithm, row.mean, row.published_as) for row in rows] == [
        ("Darwin", 0.96, "rocauc"),
        ("Paper", 0.95, "rocauc"),
        ("Forest", 0.915, "balanced_accuracy"),
    ]
    assert all(row.metric == "balanced_accuracy" for row in rows)
    assert rows[1].note == "the board calls it ROC-AUC; it was computed from hard labels"
    assert not rows[0].leaked, "a leak is of an entry's task, and not of all that it was scored on"
    assert published(metal(), folder, "roc_auc") == []


def test_no_mirror_no_file_or_no_board_entry_is_no_rows(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert published(task(), None) == []
    assert published(task(), tmp_path_factory.mktemp("empty")) == []
    assert published(task(board=None), folder) == []


@pytest.mark.parametrize(
    "line",
    [
        "matbench_expt_gap,X,x,mae,much,,,,5,page\n",
        "matbench_expt_gap,X,x,mae,nan,,,,5,page\n",
        "matbench_expt_gap,X,x,mae\n",
    ],
)
def test_a_broken_line_is_named(folder: Path, line: str) -> None:
    (folder / BOARD).write_text(HEAD + TABLE + line)
    with pytest.raises(BoardError, match="line 10 of"):
        published(task(), folder)


def test_a_missing_column_is_named(folder: Path) -> None:
    (folder / BOARD).write_text((HEAD + TABLE).replace("n_folds", "folds"))
    with pytest.raises(BoardError, match="n_folds"):
        published(task(), folder)


def test_a_file_that_is_no_text_is_named(folder: Path) -> None:
    (folder / BOARD).write_bytes((HEAD + TABLE).encode() + b"\xff\n")
    with pytest.raises(BoardError, match=r"leaderboard_composition_tasks\.csv cannot be read"):
        published(task(), folder)


@pytest.mark.mirror
def test_the_real_board(mirror: Path) -> None:
    rows = published(task(board="matbench_expt_gap"), mirror)
    assert (rows[0].algorithm, rows[0].leaked, round(rows[0].mean, 4)) == ("Darwin", True, 0.2865)
    glass = published(task(**metal().model_dump(exclude={"board"}), board="matbench_glass"), mirror)
    assert glass[0].algorithm == "MODNet (v0.1.12)" and glass[0].note and "far above" in glass[0].note
