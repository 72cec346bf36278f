"""`darwin predict` on tables: the same rows and columns come back, in order, whatever is in them."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from conftest import Darwin, Quick

ADDED = ["value", "unit", "lower", "upper", "status", "reason"]


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def test_ten_thousand_rows_with_one_percent_bad(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [["id", "composition", "remark"]]
    for i in range(10_000):
        material = (
            ""
            if i % 500 == 7
            else f"bad{i}"
            if i % 125 == 3
            else f"unread{i}"
            if i % 1000 == 5
            else "A" * rng.randint(1, 30)
        )
        rows.append(
            [f"{i:05}", material, rng.choice(["", 'a "quoted" one', "two\nlines", " padded ", "NaN", "1.50", "ü, ∆"])]
        )
    source, target = write(tmp_path / "in.csv", rows), tmp_path / "out.csv"
    done = darwin("predict", "-i", str(source), "-o", str(target))
    got = read(target)
    assert done.code == 1 and done.out == ""
    assert got[0] == [*rows[0], *ADDED]
    assert [row[:3] for row in got] == rows
    for row in got[1:]:
        material, (value, unit, lower, upper, status, reason) = row[1], row[3:]
        assert unit == "eV"
        if material.startswith("A"):
            assert (
                float(value) == len(material) / 10
                and float(lower) < float(value) < float(upper)
                and (status, reason) == ("ok", "")
            )
        else:
            assert (value, lower, upper) == ("", "", "")
            assert (status, reason) == (
                ("invalid", "empty cell")
                if not material
                else ("unread" if "unread" in material else "invalid", f"`{material}` at position 0 is no element")
            )
    assert max(count for count, _ in quick[0].calls) <= 1024
    assert "110 of 10,000 rows have no value" in done.err


def test_json_summary_of_a_file(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [["composition"], ["GaN"], ["bad"], [""]])
    done = darwin("predict", "-i", str(source), "-o", str(tmp_path / "out.csv"), "--json")
    summary = json.loads(done.out)
    assert (summary["rows"], summary["without_value"], summary["statuses"]) == (3, 2, {"ok": 1, "invalid": 2})
    assert summary["model"].startswith("one-") and summary["tasks"] == ["tiny_gap"]


def test_json_of_a_table(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [["composition"], *([f"{'A' * (i + 1)}"] for i in range(1500))])
    done = darwin("predict", "-i", str(source), "--json")
    assert done.code == 0
    assert [row["input"] for row in json.loads(done.out)] == ["A" * (i + 1) for i in range(1500)]


def test_stdin_to_stdout(darwin: Darwin, quick: list[Quick]) -> None:
    text = '\ufeffid,formula\n1,GaN\n2,"Fe,bad"\n'
    done = darwin("predict", "-i", "-", "-o", "-", stdin=text.encode())
    assert done.code == 1
    assert list(csv.reader(io.StringIO(done.out))) == [
        ["id", "formula", *ADDED],
        ["1", "GaN", "0.3", "eV", "0.25", "0.35", "ok", ""],
        ["2", "Fe,bad", "", "eV", "", "", "invalid", "`Fe,bad` at position 0 is no element"],
    ]


def test_materials_into_a_file(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    assert darwin("predict", "GaN", "PuN", "-o", str(tmp_path / "out.csv")).code == 0
    assert [row[0] for row in read(tmp_path / "out.csv")] == ["input", "GaN", "PuN"]
    assert read(tmp_path / "out.csv")[2][-1] == "never saw Pu"


def test_several_tasks_have_columns_of_their_own(
    darwin: Darwin, quick: list[Quick], tmp_path: Path, at_trained: Path
) -> None:
    two = next(p.name for p in (at_trained / "checkpoints").iterdir() if p.name.startswith("two-"))
    source = write(tmp_path / "in.csv", [["composition"], ["GaN"]])
    done = darwin("predict", "-i", str(source), "-o", "-", "-m", two, "-t", "tiny_gap", "-t", "tiny_metal")
    assert done.out.splitlines()[0].split(",") == [
        "composition",
        *(f"{n}_tiny_gap" for n in ADDED),
        *(f"{n}_tiny_metal" for n in ADDED),
    ]


def test_taken_names_get_a_prefix_and_nothing_is_overwritten(
    darwin: Darwin, quick: list[Quick], tmp_path: Path
) -> None:
    path = write(tmp_path / "t.csv", [["composition", "value", "status"], ["GaN", "mine", "also mine"]])
    assert darwin("predict", "-i", str(path), "-o", str(path)).code == 0
    assert darwin("predict", "-i", str(path), "-o", str(path)).code == 0
    head, row = read(path)
    assert head[:3] == ["composition", "value", "status"] and row[:3] == ["GaN", "mine", "also mine"]
    assert {"darwin_value", "darwin_darwin_value", "unit", "darwin_unit"} <= set(head)
    assert len(set(head)) == len(head) == 15


def test_gzip_both_ways(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"composition\nGaN\n"))
    assert darwin("predict", "-i", str(tmp_path / "in.csv.gz"), "-o", str(tmp_path / "out.csv.gz")).code == 0
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode().splitlines()[1].startswith("GaN,0.3,eV")


def test_parquet_keeps_types_and_rows(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    table = pa.table(
        {
            "composition": pa.array(["GaN", None, "bad", "ZnO2"] * 700).dictionary_encode(),
            "n": pa.array(range(2800), pa.int16()),
            "when": pa.array([None, 1, 2, 3] * 700, pa.timestamp("ms")),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    done = darwin("predict", "-i", str(tmp_path / "in.parquet"), "-o", str(tmp_path / "out.parquet"))
    got = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert done.code == 1
    assert got.column_names == ["composition", "n", "when", *ADDED]
    assert got.column("n").equals(table.column("n")) and got.column("when").equals(table.column("when"))
    assert got.column("composition").to_pylist() == table.column("composition").to_pylist()
    assert got.schema.field("value").type == pa.float64()
    assert got.column("value").to_pylist()[:4] == [0.3, None, None, 0.4]
    assert got.column("reason").to_pylist()[1] == "empty cell"


def test_pandas_index_survives(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"composition": ["GaN", "ZnO"]}, index=pd.Index([7, 9], name="key")).to_parquet(
        tmp_path / "in.parquet"
    )
    assert darwin("predict", "-i", str(tmp_path / "in.parquet"), "-o", str(tmp_path / "out.parquet")).code == 0
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert list(frame.index) == [7, 9] and list(frame["value"]) == [0.3, 0.3]


def test_csv_to_parquet_and_back(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [["composition", "code"], ["GaN", "007"], ["bad", ""]])
    assert darwin("predict", "-i", str(source), "-o", str(tmp_path / "out.parquet")).code == 1
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column("code").to_pylist() == ["007", ""]
    assert (
        darwin(
            "predict", "-i", str(tmp_path / "out.parquet"), "--column", "composition", "-o", str(tmp_path / "back.csv")
        ).code
        == 1
    )
    assert [row[1] for row in read(tmp_path / "back.csv")] == ["code", "007", ""]


@pytest.mark.parametrize(
    ("head", "column", "chosen"),
    [
        (["anything"], None, "anything"),
        (["material", "composition"], None, "composition"),
        (["x", "Formula"], None, "Formula"),
        (["x", "material"], None, "material"),
        (["x", "composition"], "x", "x"),
    ],
)
def test_which_column(
    darwin: Darwin, quick: list[Quick], tmp_path: Path, head: list[str], column: str | None, chosen: str
) -> None:
    source = write(tmp_path / "in.csv", [head, ["A" * (i + 1) for i in range(len(head))]])
    done = darwin("predict", "-i", str(source), "--json", *(["--column", column] if column else []))
    assert json.loads(done.out)[0]["input"] == "A" * (head.index(chosen) + 1)


def test_empty_lines(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("composition\n\nGaN\n\n\nZnO\n\n\n")
    assert [row[0] for row in read_after(darwin, tmp_path / "one.csv")] == ["composition", "", "GaN", "", "", "ZnO"]
    (tmp_path / "more.csv").write_text("composition,x\n\nGaN,1\n\nZnO,2\n")
    assert [row[0] for row in read_after(darwin, tmp_path / "more.csv")] == ["composition", "GaN", "ZnO"]


def read_after(darwin: Darwin, source: Path) -> list[list[str]]:
    darwin("predict", "-i", str(source), "-o", str(source.with_suffix(".out")))
    return read(source.with_suffix(".out"))


UNEVEN = 'id,composition,x\n1,GaN,a\n2,ZnO2\n3\n4,Fe2,O3,b,c\n"5","A,A","two\nlines",d\n6,GaN,e\n'


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_with_missing_or_surplus_cells_keep_their_place(
    darwin: Darwin, quick: list[Quick], tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "in.csv").write_text(UNEVEN)
    out = tmp_path / f"out.{suffix}"
    done = darwin("predict", "-i", str(tmp_path / "in.csv"), "-o", str(out))
    assert done.code == 1 and "3 of 6 rows have no value" in done.err
    if suffix == "csv":
        got = read(out)[1:]
    else:
        columns = pyarrow.parquet.read_table(out).to_pydict().values()
        got = [["" if cell is None else str(cell) for cell in row] for row in zip(*columns, strict=True)]
    quotes = "put a cell that holds commas into double quotes"
    assert [[*row[:4], *row[7:]] for row in got] == [
        ["1", "GaN", "a", "0.3", "ok", ""],
        ["2", "ZnO2", "", "0.4", "ok", "line 3 has 2 cells, the header has 3"],
        ["3", "", "", "", "invalid", "empty cell; line 4 has 1 cell, the header has 3"],
        ["4", "Fe2", "O3,b,c", "", "invalid", f"line 5 has 5 cells, the header has 3; {quotes}"],
        ["5", "A,A", "two\nlines,d", "", "invalid", f"line 7 has 4 cells, the header has 3; {quotes}"],
        ["6", "GaN", "e", "0.3", "ok", ""],
    ]
    assert sum(count for count, _ in quick[0].calls) == 3, "what may stand in another column is not asked about"


def test_a_single_column_keeps_a_material_with_commas_whole(darwin: Darwin, quick: list[Quick]) -> None:
    done = darwin("predict", "-i", "-", "--json", stdin=b"composition\nGa 0.5, In 0.5\nGaN\n")
    rows = json.loads(done.out)
    assert [(row["input"], row["status"]) for row in rows] == [("Ga 0.5, In 0.5", "invalid"), ("GaN", "ok")]
    assert rows[0]["reason"].startswith("line 2 has 2 cells, the header has 1; ")


def test_suffixes_in_capitals(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"composition": ["GaN"]}), tmp_path / "IN.PARQUET")
    assert darwin("predict", "-i", str(tmp_path / "IN.PARQUET"), "-o", str(tmp_path / "OUT.CSV.GZ")).code == 0
    assert gzip.decompress((tmp_path / "OUT.CSV.GZ").read_bytes()).decode().splitlines()[1].startswith("GaN,0.3,eV")
    assert (
        darwin(
            "predict", "-i", str(tmp_path / "OUT.CSV.GZ"), "-o", str(tmp_path / "2.PQ"), "--column", "composition"
        ).code
        == 0
    )
    assert pyarrow.parquet.read_table(tmp_path / "2.PQ").num_rows == 1


def test_table_without_rows(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("composition\n")
    done = darwin("predict", "-i", str(tmp_path / "in.csv"), "-o", "-")
    assert (done.code, done.out.strip()) == (0, ",".join(["composition", *ADDED]))
    assert json.loads(darwin("predict", "-i", str(tmp_path / "in.csv"), "--json").out) == []


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "t.csv", "the file is empty"),
        (b"\ncomposition\nGaN\n", "t.csv", "the first line is empty"),
        (b"composition,composition\nGaN,1\n", "t.csv", "column 'composition' stands there 2 times"),
        (b"GaN\nZnO\n", "t.csv", "the first line, 'GaN', is itself a composition"),
        (b"Ga 0.5 In 0.5 As\nZnO\n", "t.csv", "put a line `composition` above it"),
        (b"a,b\nGaN,1\n", "t.csv", "Say --column; there are 'a', 'b'"),
        (b"composition;x\nGaN;1\n", "t.csv", "semicolons"),
        ("composition\nGaN\nFe\u2082O\n".encode("utf-16"), "t.csv", "not UTF-8: byte 0xff in line 1"),
        (b"composition\n" + b"GaN\n" * 50_000 + b"Fe\xe4\n", "t.csv", "not UTF-8: byte 0xe4 in line 50002"),
        (b'composition\n"GaN"x\n', "t.csv", "is no CSV"),
        (b"PK\x03\x04", "t.xlsx", "save the table as CSV"),
        (b"no parquet", "t.parquet", "cannot be read as Parquet"),
        (b"no gzip", "t.csv.gz", "cannot be read"),
    ],
)
def test_bad_tables(darwin: Darwin, quick: list[Quick], tmp_path: Path, content: bytes, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "out.csv").write_text("earlier")
    done = darwin("predict", "-i", str(tmp_path / name), "-o", str(tmp_path / "out.csv"))
    assert (done.code, done.out) == (2, "")
    assert says in done.err and name in done.err
    assert (tmp_path / "out.csv").read_text() == "earlier"
    assert not quick, "a fault of the table is told before the weights are read"


def test_missing_column_names_the_nearest(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [["composition", "x"], ["GaN", "1"]])
    done = darwin("predict", "-i", str(source), "--column", "compositon")
    assert done.code == 2 and "did you mean 'composition'" in done.err


def test_a_header_that_is_a_formula_too_can_be_named(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [["In"], ["GaN"]])
    assert darwin("predict", "-i", str(source), "-o", "-").code == 2
    done = darwin("predict", "-i", str(source), "--column", "In", "--json")
    assert [row["input"] for row in json.loads(done.out)] == ["GaN"]


@pytest.mark.parametrize("head", ["composition,,", "composition,x,x", "value,composition,value"])
def test_columns_that_repeat_come_back_as_csv(darwin: Darwin, quick: list[Quick], tmp_path: Path, head: str) -> None:
    (tmp_path / "in.csv").write_text(f"{head}\nGaN,GaN,1\n")
    assert darwin("predict", "-i", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv")).code == 0
    got = read(tmp_path / "out.csv")
    assert got[0][:3] == head.split(",") and got[1][:3] == ["GaN", "GaN", "1"]
    assert set(got[0][3:]).isdisjoint(head.split(",")) and got[1][3] == "0.3"
    done = darwin("predict", "-i", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.parquet"))
    assert done.code == 2 and "stands there 2 times" in done.err and "or write CSV" in done.err
    assert not (tmp_path / "out.parquet").exists()


def test_a_parquet_whose_columns_repeat(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["GaN"]), pa.array([1]), pa.array([2])], names=["composition", "x", "x"])
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    assert darwin("predict", "-i", str(tmp_path / "in.parquet"), "-o", str(tmp_path / "out.csv")).code == 0
    assert read(tmp_path / "out.csv")[1][:4] == ["GaN", "1", "2", "0.3"]


@pytest.mark.parametrize("name", ["pipe", "pipe.csv.gz", "pipe.parquet"])
def test_a_pipe_keeps_all_rows(darwin: Darwin, quick: list[Quick], tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "in.csv", [["composition"], *([f"Ga{i + 2}N"] for i in range(1500))])
    if name.endswith(".gz"):
        content = gzip.compress(source.read_bytes())
    elif name.endswith(".parquet"):
        pyarrow.parquet.write_table(
            pa.table({"composition": [r[0] for r in read(source)[1:]]}), tmp_path / "in.parquet"
        )
        content = (tmp_path / "in.parquet").read_bytes()
    else:
        content = source.read_bytes()
    out_of, into = os.pipe()
    assert os.write(into, content) == len(content), "a pipe holds 64 KiB"
    os.close(into)
    (tmp_path / name).symlink_to(f"/dev/fd/{out_of}")
    done = darwin("predict", "-i", str(tmp_path / name), "-o", str(tmp_path / "out.csv"))
    os.close(out_of)
    assert done.code == 0
    assert [row[0] for row in read(tmp_path / "out.csv")] == [row[0] for row in read(source)]


def damaged(path: Path, composition: pa.Array | None = None) -> Path:
    """A Parquet file of four row groups, the last one with a page that is spoilt."""
    cells = pa.array([f"Ga{i + 2}N" for i in range(4000)]) if composition is None else composition
    table = pa.table({"composition": cells, "n": pa.array(range(len(cells)))})
    pyarrow.parquet.write_table(table, path, row_group_size=1000, compression="zstd", use_dictionary=False)
    column = pyarrow.parquet.read_metadata(path).row_group(3).column(1)
    content = bytearray(path.read_bytes())
    begin = column.data_page_offset
    content[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_damaged_page_is_found_before_any_work(
    darwin: Darwin, quick: list[Quick], tmp_path: Path, suffix: str
) -> None:
    source = damaged(tmp_path / "in.parquet")
    done = darwin("predict", "-i", str(source), "-o", str(tmp_path / f"out.{suffix}"))
    assert done.code == 2 and f"{source}: cannot be read as Parquet" in done.err and "copy it anew" in done.err
    assert not quick and not (tmp_path / f"out.{suffix}").exists()


def test_bytes_and_short_numbers_of_a_parquet_are_plain_text(
    darwin: Darwin, quick: list[Quick], tmp_path: Path
) -> None:
    table = pa.table(
        {
            "composition": pa.array([b"GaN", None, b"ZnO2"], pa.binary()),
            "x": pa.array([0.1, None, 1e-5], pa.float32()),
            "y": pa.array([0.1, 0.2, None], pa.float64()),
            "h": pa.array(np.array([0.1, 2.0, 3.5], np.float16)),
            "tag": pa.array([b"ab", b"ab", b"c"], pa.binary()).dictionary_encode(),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    assert darwin("predict", "-i", str(tmp_path / "in.parquet"), "-o", str(tmp_path / "out.csv")).code == 1
    assert [row[:6] for row in read(tmp_path / "out.csv")[1:]] == [
        ["GaN", "0.1", "0.1", "0.1", "ab", "0.3"], ["", "", "0.2", "2.0", "ab", ""], ["ZnO2", "1e-05", "", "3.5", "c", "0.4"],
    ]  # fmt: skip
    again = tmp_path / "out.parquet"
    assert darwin("predict", "-i", str(tmp_path / "in.parquet"), "-o", str(again)).code == 1
    assert pyarrow.parquet.read_table(again).select(table.column_names).schema.types == table.schema.types


@pytest.mark.parametrize(("column", "out"), [("composition", "csv"), ("composition", "parquet"), ("blob", "csv")])
def test_bytes_that_are_no_text_are_named_before_any_work(
    darwin: Darwin, quick: list[Quick], tmp_path: Path, column: str, out: str
) -> None:
    cells = {"composition": [b"GaN"] * 3000, "blob": [b"x"] * 3000}
    cells[column][-1] = b"Fe\xff"
    pyarrow.parquet.write_table(pa.table(cells), tmp_path / "in.parquet")
    done = darwin("predict", "-i", str(tmp_path / "in.parquet"), "-o", str(tmp_path / f"out.{out}"))
    assert done.code == 2 and f"column '{column}' is not UTF-8: it holds the byte 0xff" in done.err
    assert not quick and not (tmp_path / f"out.{out}").exists()
    if column == "blob":
        assert darwin("predict", "-i", str(tmp_path / "in.parquet"), "-o", str(tmp_path / "out.parquet")).code == 0


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_stopped_or_failed_run_leaves_the_old_output(
    darwin: Darwin, quick: list[Quick], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    source = write(tmp_path / "in.csv", [["composition"], *(["GaN"] for _ in range(3000))])
    (tmp_path / f"out.{suffix}").write_text("earlier")
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)

    def stop(self: Quick, materials: list[str], task: str, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Quick, "predict", stop)
    assert darwin("predict", "-i", str(source), "-o", str(tmp_path / f"out.{suffix}")).code == 130
    gc.collect()
    assert (tmp_path / f"out.{suffix}").read_text() == "earlier" and not complaints
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "in.csv", f"out.{suffix}"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk(darwin: Darwin, quick: list[Quick]) -> None:
    done = darwin("predict", "GaN", "-o", "/dev/full")
    assert done.code == 2 and "the disk is full" in done.err


def test_full_disk_at_the_end(
    darwin: Darwin, quick: list[Quick], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = darwin("predict", "GaN", "-o", str(tmp_path / "out.csv"))
    assert done.code == 2 and "the disk is full" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


def test_output_that_cannot_be_written(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    done = darwin("predict", "GaN", "-o", str(tmp_path / "nowhere" / "out.csv"))
    assert done.code == 2 and "nowhere" in done.err and "cannot be written" in done.err
