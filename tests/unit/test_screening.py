"""The screen: what is kept, and that nothing is lost or twice however it is stopped."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from filelock import FileLock
from tests.tiny import tiny_task

from matdarwin.data.sources import DataError
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction import screening
from matdarwin.prediction.files import open_table
from matdarwin.prediction.prediction import Prediction
from matdarwin.prediction.screening import Input, Screened, Wanted
from matdarwin.tasks.schema import Task

SIZE = 16
ADDED = ["value", "unit", "lower", "upper", "status", "reason"]


def ask(materials: Sequence[str], task: str) -> list[Prediction]:
    """The value is the number in the text; what has none is no material."""
    return [one(text, task) for text in materials]


def one(text: str, task: str) -> Prediction:
    common: dict[str, Any] = {"input": text, "task": task, "unit": "eV", "model": "m"}
    if not text.startswith("A"):
        nothing = dict.fromkeys(("material", "value", "lower", "upper", "coverage"))
        return Prediction(
            **common, **nothing, notes=(), status="invalid", reason=f"`{text}` at position 0 is no element"
        )
    value = float(text[1:])
    answer = AnswerDistribution(np.array([value, value + 1]), (), np.array([0.75, 0.25]), 0.0, 0.0)
    return Prediction(
        **common, material=text, value=value, lower=value - 1, upper=value + 1, coverage=0.9, status="ok", reason=None,
        notes=("never saw A",), distribution=answer,
    )  # fmt: skip


@pytest.fixture
def gap(tmp_path: Path) -> Task:
    return tiny_task(tmp_path / "task")


def table(path: Path, count: int = 100) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "composition", "remark"])
        for i in range(count):
            writer.writerow([i, "bad" if i % 10 == 3 else f"A{(i * 37) % 100}", 'two\nlines, "quoted"'])
    return path


def run(source: Path, output: Path, gap: Task, wanted: Wanted | None = None, **changes: Any) -> Screened:
    read_from = Input(source)
    with open_table(source) as given:
        options: dict[str, Any] = {"model": "m", "identity": {}, "source": read_from, "size": SIZE, **changes}
        asked = options.pop("ask", ask)
        return screening.screen(given, "composition", output, [gap], asked, wanted or Wanted(), **options)


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_without_a_wish_every_row_goes_out_in_its_place(tmp_path: Path, gap: Task) -> None:
    source = table(tmp_path / "in.csv")
    done = run(source, tmp_path / "out.csv", gap)
    before, after = read(source), read(tmp_path / "out.csv")
    assert after[0] == [*before[0], *ADDED]
    assert [row[:3] for row in after] == before
    assert (done.summary.rows, done.summary.without_value, done.kept) == (100, 10, 100)
    assert after[4][3:] == ["", "eV", "", "", "invalid", "`bad` at position 0 is no element"]
    assert left(tmp_path) == []


def test_where_keeps_what_fulfils_it(tmp_path: Path, gap: Task) -> None:
    done = run(table(tmp_path / "in.csv"), tmp_path / "out.csv", gap, Wanted(where="value > 40 and value <= 60"))
    values = [float(row[3]) for row in read(tmp_path / "out.csv")[1:]]
    wanted = [v for i in range(100) if i % 10 != 3 and 40 < (v := (i * 37) % 100) <= 60]
    assert values == wanted and done.matched == done.kept == len(wanted)


@pytest.mark.parametrize("lowest", [False, True])
def test_top_is_sorted_best_first(tmp_path: Path, gap: Task, lowest: bool) -> None:
    done = run(table(tmp_path / "in.csv"), tmp_path / "out.csv", gap, Wanted(by="value", top=7, lowest=lowest))
    rows = read(tmp_path / "out.csv")
    all_values = sorted(((i * 37) % 100 for i in range(100) if i % 10 != 3), reverse=not lowest)
    assert rows[0][-1] == "score"
    assert [float(row[-1]) for row in rows[1:]] == all_values[:7]
    assert [row[1] for row in rows[1:]] == [f"A{value}" for value in all_values[:7]]
    assert (done.matched, done.unranked, done.kept) == (100, 10, 7)


def test_equals_keep_the_order_of_the_table(tmp_path: Path, gap: Task) -> None:
    source = tmp_path / "in.csv"
    source.write_text("composition,id\n" + "".join(f"A5,{i}\n" for i in range(50)))
    run(source, tmp_path / "out.csv", gap, Wanted(by="P(5, 5)", top=20))
    assert [row[1] for row in read(tmp_path / "out.csv")[1:]] == [str(i) for i in range(20)]


def test_a_score_without_a_top_is_a_column(tmp_path: Path, gap: Task) -> None:
    run(table(tmp_path / "in.csv"), tmp_path / "out.csv", gap, Wanted(by="EI(50)"))
    rows = read(tmp_path / "out.csv")[1:]
    assert len(rows) == 100
    assert [row[-1] == "" for row in rows] == [i % 10 == 3 for i in range(100)]


def test_parquet_keeps_its_types(tmp_path: Path, gap: Task) -> None:
    source = tmp_path / "in.parquet"
    columns = {"id": pa.array(range(60), pa.int16()), "composition": [f"A{i}" for i in range(60)]}
    pyarrow.parquet.write_table(pa.table(columns), source)
    run(source, tmp_path / "out.parquet", gap, Wanted(where="value >= 50", by="value", top=3))
    got = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert got.schema.field("id").type == pa.int16()
    assert got.column("id").to_pylist() == [59, 58, 57] and got.column("score").to_pylist() == [59.0, 58.0, 57.0]


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(where="value > 20", by="value", top=30)])
def test_a_stopped_screen_goes_on_and_asks_nothing_twice(tmp_path: Path, gap: Task, wanted: Wanted) -> None:
    source = table(tmp_path / "in.csv")
    run(source, tmp_path / "whole.csv", gap, wanted)
    asked: list[int] = []

    def stopping(materials: Sequence[str], task: str) -> list[Prediction]:
        if len(asked) in (2, 5):
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(len(materials))
        return ask(materials, task)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out.csv", gap, wanted, ask=stopping)
        assert not (tmp_path / "out.csv").exists()
    done = run(source, tmp_path / "out.csv", gap, wanted, ask=stopping)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sum(asked) == 100 and done.found == 4 * SIZE and done.summary.rows == 100
    assert left(tmp_path) == []


def test_another_command_is_refused_and_names_what_differs(tmp_path: Path, gap: Task) -> None:
    source = table(tmp_path / "in.csv")

    def broken(materials: Sequence[str], task: str) -> list[Prediction]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out.csv", gap, Wanted(where="value > 1"), ask=broken)
    with pytest.raises(DataError, match="another where lies here"):
        run(source, tmp_path / "out.csv", gap, Wanted(where="value > 2"))
    table(source, 101)
    with pytest.raises(DataError, match="another input lies here"):
        run(source, tmp_path / "out.csv", gap, Wanted(where="value > 1"))


def test_a_second_screen_into_one_file_is_refused(tmp_path: Path, gap: Task) -> None:
    source = table(tmp_path / "in.csv")
    (tmp_path / ".out.csv.screen.holder").write_text("process 7")
    with FileLock(tmp_path / ".out.csv.screen.lock"), pytest.raises(DataError, match=r"another screen \(process 7\)"):
        run(source, tmp_path / "out.csv", gap)


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, gap: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    source = table(tmp_path / "in.csv")
    left, real = [4], os.fsync

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "no space")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="disk is full; free some space and give the same command again"):
            run(source, tmp_path / "out.csv", gap)
    done = run(source, tmp_path / "out.csv", gap)
    assert done.found == SIZE and len(read(tmp_path / "out.csv")) == 101


def test_an_output_that_cannot_be_is_refused_before_anything_is_asked(tmp_path: Path, gap: Task) -> None:
    def never(materials: Sequence[str], task: str) -> list[Prediction]:
        raise AssertionError("asked for an output that cannot be written")

    source = table(tmp_path / "in.csv")
    for name, says in (("out.xlsx", "spreadsheet"), ("out.json", "JSON")):
        with pytest.raises(DataError, match=says):
            run(source, tmp_path / name, gap, ask=never)
    repeated = tmp_path / "repeated.csv"
    repeated.write_text("composition,x,x\nA1,1,2\n")
    with pytest.raises(DataError, match="'x' stands there 2 times"):
        run(repeated, tmp_path / "out.parquet", gap, ask=never)
    assert run(repeated, tmp_path / "out.csv", gap).kept == 1
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="save the table as a file"):
        Input(tmp_path / "pipe")


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(by="value", top=7)])
@pytest.mark.parametrize("when", ["asking", "assembling"])
def test_a_table_that_changes_meanwhile_gets_no_predictions_of_another(
    tmp_path: Path, gap: Task, monkeypatch: pytest.MonkeyPatch, wanted: Wanted, when: str
) -> None:
    """Its rows are turned round: as many as before, of the same size, and even written at the same time."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    header, *records = ["id,composition\n", *(f"{i},A{i}\n" for i in range(10, 100))]
    source.write_text(first := header + "".join(records))
    stated = source.stat()

    def change() -> None:
        source.write_text(header + "".join(reversed(records)))
        os.utime(source, ns=(stated.st_atime_ns, stated.st_mtime_ns))

    def asking(materials: Sequence[str], task: str) -> list[Prediction]:
        if when == "asking":
            change()
        return ask(materials, task)

    real = screening.open_sink

    def opening(*args: Any, **options: Any) -> Any:
        if when == "assembling":
            change()
        return real(*args, **options)

    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"in\.csv: the table was changed while"):
        patch.setattr(screening, "open_sink", opening)
        run(source, output, gap, wanted, ask=asking)
    assert not output.exists()
    # It goes on where the table is put back, with what was asked of it before.
    source.write_text(first)
    if when == "assembling":
        assert run(source, output, gap, wanted).found == 90


def test_no_part_is_kept_of_a_table_that_was_changed(tmp_path: Path, gap: Task) -> None:
    """Else a table that is put back would get the predictions of the one that stood there meanwhile."""
    source, output = table(tmp_path / "in.csv"), tmp_path / "out.csv"
    first = source.read_bytes()
    run(source, tmp_path / "whole.csv", gap)
    asked: list[int] = []

    def asking(materials: Sequence[str], task: str) -> list[Prediction]:
        asked.append(len(materials))
        if len(asked) == 3:
            table(source, 101)
        return ask(materials, task)

    with pytest.raises(DataError, match="was changed while it was screened"):
        run(source, output, gap, ask=asking)
    assert len(asked) == 3
    source.write_bytes(first)
    assert run(source, output, gap).found == 2 * SIZE
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_file_that_was_only_touched_is_not_changed(tmp_path: Path, gap: Task) -> None:
    source = table(tmp_path / "in.csv")

    def touching(materials: Sequence[str], task: str) -> list[Prediction]:
        source.write_bytes(source.read_bytes())
        return ask(materials, task)

    assert run(source, tmp_path / "out.csv", gap, ask=touching).kept == 100


def test_no_folder_and_no_rows(tmp_path: Path, gap: Task) -> None:
    source = table(tmp_path / "in.csv", 0)
    with pytest.raises(DataError, match="there is no folder"):
        run(source, tmp_path / "no" / "out.csv", gap)
    done = run(source, tmp_path / "out.csv", gap, Wanted(by="value", top=3))
    assert done.kept == 0 and read(tmp_path / "out.csv") == [["id", "composition", "remark", *ADDED, "score"]]


def test_wishes_that_go_nowhere() -> None:
    with pytest.raises(ValueError, match="the best by what"):
        Wanted(top=3)
    with pytest.raises(ValueError, match="at least one row"):
        Wanted(by="value", top=0)


_SLOW = """
import sys, time
from pathlib import Path
from tests.unit import test_screening as t
from matdarwin.prediction.screening import Wanted
folder = Path(sys.argv[1])
gap = t.tiny_task(folder / "task")
def slow(materials, task):
    time.sleep(0.02)
    return t.ask(materials, task)
t.run(folder / "in.csv", folder / "out.csv", gap, Wanted(where="value > 20", by="value"), ask=slow)
"""


@pytest.mark.slow
def test_killed_at_any_moment_the_file_is_the_same(tmp_path: Path, gap: Task) -> None:
    source = table(tmp_path / "in.csv", 1000)
    run(source, tmp_path / "whole.csv", gap, Wanted(where="value > 20", by="value"))
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen([sys.executable, "-c", _SLOW, str(tmp_path)], cwd=Path(__file__).parents[2])
        parts = len(list((tmp_path / ".out.csv.screen").glob("*.jsonl")))
        deadline = time.monotonic() + 60
        # Kill it some moments after it has got further than the one before.
        while process.poll() is None and len(list((tmp_path / ".out.csv.screen").glob("*.jsonl"))) <= parts:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.3)))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            if not (tmp_path / "out.csv").exists():
                continue
        break
    assert kills >= 3
    if left(tmp_path):
        run(source, tmp_path / "out.csv", gap, Wanted(where="value > 20", by="value"))
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
