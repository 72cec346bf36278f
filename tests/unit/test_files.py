"""Tables in and out: what is in the cells comes back, whatever it is, and faults are found before any work."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matdarwin.data.sources import DataError
from matdarwin.prediction import files, outputs
from matdarwin.prediction.prediction import Prediction
from matdarwin.tasks.schema import Task
from tiny import tiny_task

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny_task(tmp_path_factory.mktemp("task"), rows=[("GaN", "1.0")])


def echo(materials: Sequence[str], task: str) -> list[Prediction]:
    """Answers each material with itself as the reason, so that a shifted row would show."""
    return [
        Prediction(m, None, task, None, "eV", None, None, None, status="invalid", reason=f"<{m}>", notes=(), model="m")
        for m in materials
    ]  # fmt: skip


def through(source: Path, target: Path, task: Task, size: int) -> files.Summary:
    summary = files.Summary()
    with files.open_table(source) as table, outputs.open_sink(target, table, [task]) as sink:
        for chunk, found in files.answered(
            table, table.columns[0], [task], echo, model="m", summary=summary, size=size
        ):
            sink.write(chunk, found)
    return summary


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12), size=st.integers(1, 5))
def test_cells_come_back_as_they_were(task: Task, rows: list[tuple[str, str, str]], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.csv", Path(folder) / "out.csv"
        with source.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("a", "b", "c"), *rows])
        summary = through(source, target, task, size)
        got = rows_of(target)
        assert [tuple(row[:3]) for row in got[1:]] == rows
        assert [row[8] for row in got[1:]] == [f"<{row[0]}>" if row[0].strip() else "empty cell" for row in rows]
        assert summary.rows == summary.without_value == len(rows)


@settings(deadline=None, max_examples=60)
@given(cells=st.lists(CELLS, min_size=1, max_size=8), size=st.integers(1, 3))
def test_single_column_keeps_its_empty_cells(task: Task, cells: list[str], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.csv", Path(folder) / "out.csv"
        with source.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["material"], *([cell] for cell in cells)])
        through(source, target, task, size)
        assert [row[0] for row in rows_of(target)[1:]] == cells


def test_names_of_added_columns(task: Task) -> None:
    other = task.model_copy(update={"id": "other"})
    assert outputs.added_columns(["x"], [task]) == list(outputs.ADDED)
    assert outputs.added_columns(["value", "darwin_value"], [task])[0] == "darwin_darwin_value"
    both = outputs.added_columns(["unit_other"], [task, other])
    assert both[:2] == ["value_tiny_gap", "unit_tiny_gap"] and both[6:8] == ["value_other", "darwin_unit_other"]


def test_small_numbers_have_no_exponent() -> None:
    assert outputs._text(0.0000616) == "0.0000616"
    assert outputs._text(1e-6) == "0.000001"
    assert float(outputs._text(0.1 + 0.2)) == 0.1 + 0.2
    assert outputs._text(None) == ""


def test_rows_are_counted_by_task() -> None:
    summary = files.Summary()
    summary.add([*echo(["x"], "a"), *echo(["x"], "b")])
    assert (summary.rows, summary.without_value, summary.statuses["invalid"]) == (1, 1, 2)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=5), max_size=10), size=st.integers(1, 4))
def test_no_row_is_lost_or_shifted_whatever_its_length(task: Task, rows: list[list[str]], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.csv", Path(folder) / "out.csv"
        with source.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("a", "b", "c"), *rows])
        assert through(source, target, task, size).rows == len(rows)
        got = rows_of(target)[1:]
        assert [len(row) for row in got] == [9] * len(rows)
        for cells, row in zip(rows, got, strict=True):
            assert row[:2] == cells[:2] and row[2] == ",".join(cells[2:])
            assert row[7] == "invalid"
            if len(cells) > 3:
                assert f"has {len(cells)} cells, the header has 3; put a cell" in row[8]
            elif cells[0].strip():
                assert row[8].startswith(f"<{cells[0]}>")


def test_fault_in_the_last_row_is_found_first(tmp_path: Path, task: Task) -> None:
    (tmp_path / "in.csv").write_text("a,b\n" + "GaN,1\n" * 5000 + '"GaN"x,1\n')
    with pytest.raises(DataError, match="line 5002 is no CSV"):
        through(tmp_path / "in.csv", tmp_path / "out.csv", task, 100)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("rows", [3000, 10])
def test_a_file_that_changes_meanwhile_is_told(tmp_path: Path, task: Task, rows: int) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a\n" + "GaN\n" * 2000)
    with files.open_table(source) as table:
        source.write_text("a\n" + "GaN\n" * rows)
        with pytest.raises(DataError, match=f"2,000 rows were counted and {rows:,} came afterwards"):
            list(table.chunks("a", 100))


def test_output_through_a_link(tmp_path: Path, task: Task) -> None:
    (tmp_path / "in.csv").write_text("a\nGaN\n")
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    through(tmp_path / "in.csv", tmp_path / "link.csv", task, 10)
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text().startswith("a,value")


def test_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"), files.open_table(tmp_path):
        pass


def test_tasks_that_are_asked_of_different_kinds_share_no_column(task: Task, tmp_path: Path) -> None:
    """`CO` is a compound to one of them and an alcohol to the other, and both would be answered."""
    molecules = tiny_task(tmp_path, id="tiny_esol", rows=[("CO", "1.0")], representation="molecule")
    assert files.kind_of([task, task]) == "composition"
    with pytest.raises(DataError, match=r"tiny_gap of a composition, tiny_esol of a molecule\); give the table once"):
        files.kind_of([task, molecules])
