"""`darwin screen`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Darwin, Quick


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("id,composition\n" + "".join(f"{i},{'A' * (i % 40 + 1)}\n" for i in range(100)) + "100,bad\n")
    return path


def test_keeps_the_best_and_says_how_many(darwin: Darwin, quick: list[Quick], source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    done = darwin("screen", str(source), str(out), "--where", "value < 3.5", "--by", "value", "--top", "2", "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert (told["rows"], told["without_value"], told["kept"], told["resumed_at"]) == (101, 1, 2, 0)
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert rows[0] == ["id", "composition", "value", "unit", "lower", "upper", "status", "reason", "score"]
    # Thirty-four letters are worth 3.4; of equals the earlier one comes first.
    assert [(row[0], row[2], row[6], row[8]) for row in rows[1:]] == [
        ("33", "3.4", "ok", "3.4"),
        ("73", "3.4", "ok", "3.4"),
    ]
    assert "1 of 101 rows have no value" in done.err
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_real_model_gives_what_predict_gives(darwin: Darwin, at_trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("composition\nGaN\nCdTe\nXx\nZnO\n")
    assert darwin("predict", "-i", str(source), "-o", str(tmp_path / "predicted.csv")).code == 1
    done = darwin("screen", str(source), str(tmp_path / "screened.csv"))
    assert done.code == 1 and "4 of 4 rows are kept" in done.out
    assert (tmp_path / "screened.csv").read_bytes() == (tmp_path / "predicted.csv").read_bytes()


def test_a_screen_in_eight_bits_gives_what_predict_gives_in_them(
    darwin: Darwin, at_trained: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("composition\nGaN\nCdTe\nZnO\nGa2O3\nInP\n")
    predicted, screened = tmp_path / "predicted.csv", tmp_path / "screened.csv"
    written = darwin("predict", "-i", str(source), "-o", str(predicted), "--dtype", "int8")
    kept = darwin("screen", str(source), str(screened), "--dtype", "int8")
    for done in (written, kept):
        assert done.code == 0 and "of every row: its interval was calibrated otherwise: asked with int8" in done.err
    assert screened.read_bytes() == predicted.read_bytes()
    done = darwin("predict", "GaN", "--dtype", "int8", "--json")
    assert "int8 instead of float32" in str(json.loads(done.out)[0]["notes"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--dtype", "int8", "--engine", "vllm", "--url", "http://127.0.0.1:9"], "--dtype int8: the vLLM server"),
        (["--top", "3"], "--top needs --by"),
        (["--lowest"], "--lowest belongs to --by"),
        (["--where", "valeu > 1"], "`valeu` at position 0: did you mean value?"),
        (["--by", "value > 1"], "at position 6"),
        (["--column", "nosuch"], "nosuch"),
        (["--task", "tiny_gab"], "did you mean tiny_gap?"),
        (["--top", "0", "--by", "value"], "greater than or equal to 1"),
    ],
)
def test_wrong_usage(
    darwin: Darwin, quick: list[Quick], source: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    done = darwin("screen", str(source), str(tmp_path / "out.csv"), *options)
    assert done.code == 2 and says in done.err and done.out == ""
    assert not (tmp_path / "out.csv").exists()


def test_the_table_is_not_written_over(darwin: Darwin, quick: list[Quick], source: Path) -> None:
    before = source.read_bytes()
    done = darwin("screen", str(source), str(source))
    assert done.code == 2 and "written over" in done.err and source.read_bytes() == before


def test_known_materials_are_not_written_over(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    known = tmp_path / "known.csv"
    known.write_text("composition\nGaN\n")
    done = darwin("screen", "--substitute", str(known), str(tmp_path / "." / "known.csv"))
    assert done.code == 2 and "written over" in done.err and known.read_text() == "composition\nGaN\n"


def test_standard_output_is_no_place_to_screen_into(
    darwin: Darwin, quick: list[Quick], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = darwin("screen", str(source), "-")
    assert done.code == 2 and "OUT is a file" in done.err and not quick and not list(tmp_path.glob(".*"))


def test_the_best_come_in_few_groups(darwin: Darwin, quick: list[Quick], source: Path, tmp_path: Path) -> None:
    """They are written one by one, and each group of a Parquet file costs kilobytes."""
    import pyarrow.parquet

    out = tmp_path / "best.parquet"
    darwin("screen", str(source), str(out), "--by", "value", "--top", "20")
    file = pyarrow.parquet.ParquetFile(out)
    assert file.metadata.num_rows > 5 and file.num_row_groups == 1


def test_a_table_that_changes_while_it_is_looked_through_is_not_screened(
    darwin: Darwin, quick: list[Quick], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matdarwin.prediction import files

    real = files.choose_column

    def choosing(*args: Any) -> str:
        # After the columns were read: the material's place is another's.
        rows = [line.split(",") for line in source.read_text().splitlines()]
        source.write_text("".join(f"{material},{number}\n" for number, material in rows))
        return real(*args)

    monkeypatch.setattr(files, "choose_column", choosing)
    done = darwin("screen", str(source), str(tmp_path / "out.csv"))
    assert done.code == 2 and "the table was changed while it was screened" in done.err
    assert not (tmp_path / "out.csv").exists()
