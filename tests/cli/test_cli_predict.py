"""`darwin predict` on materials: tasks and models found, JSON alone on stdout, exit codes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from conftest import Darwin, Quick

KEYS = [
    "input",
    "material",
    "task",
    "value",
    "unit",
    "lower",
    "upper",
    "coverage",
    "status",
    "reason",
    "notes",
    "model",
]


def test_json_of_a_real_model_stands_alone(trained: Path) -> None:
    command = [sys.executable, "-m", "matdarwin", "predict", "GaN", "Ga 0.5 In 0.5 As", "Xx2O", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "MATDARWIN_HOME": str(trained)}
    )
    rows = json.loads(done.stdout)
    assert done.returncode == 1
    assert [row["input"] for row in rows] == ["GaN", "Ga 0.5 In 0.5 As", "Xx2O"]
    for row in rows:
        assert list(row)[:12] == KEYS
    assert rows[0]["lower"] <= rows[0]["value"] <= rows[0]["upper"] and rows[0]["unit"] == "eV"
    assert (rows[2]["status"], rows[2]["value"], rows[2]["material"]) == ("invalid", None, None)
    assert "`Xx` at position 0" in rows[2]["reason"]
    assert rows[0]["model"].startswith("one-tiny_gap-") and rows[0]["model"] in done.stderr
    assert "Traceback" not in done.stderr and "Loading weights" not in done.stderr and "Warning" not in done.stderr


def test_one_answer_whatever_the_company(darwin: Darwin, at_trained: Path) -> None:
    alone = json.loads(darwin("predict", "GaN", "--json").out)
    among = json.loads(darwin("predict", "Al2O3", "GaN", "CdTe", "--json", "--batch-size", "2").out)
    assert [alone[0][k] for k in KEYS] == [among[1][k] for k in KEYS]


def test_table_for_people(darwin: Darwin, quick: list[Quick]) -> None:
    done = darwin("predict", "GaN", "PuN", "[red]bad[/red]")
    assert done.code == 1
    for text in ("GaN", "0.3", "eV", "0.25 to 0.35 (90 %)", "never saw Pu", "invalid; `[red]bad[/red]` at position 0"):
        assert text in done.out
    assert "using checkpoint one-tiny_gap-" in done.err and "1 of 3 rows have no value" in done.err


def test_all_values_is_code_0(darwin: Darwin, quick: list[Quick]) -> None:
    assert darwin("predict", "GaN", "ZnO").code == 0


def test_several_tasks(darwin: Darwin, quick: list[Quick]) -> None:
    done = darwin(
        "predict", "GaN", "ZnO2", "-t", "tiny_gap", "-t", "tiny_metal", "-t", "tiny_gap", "-m", two(), "--json"
    )
    assert [(row["input"], row["task"]) for row in json.loads(done.out)] == [
        ("GaN", "tiny_gap"), ("GaN", "tiny_metal"), ("ZnO2", "tiny_gap"), ("ZnO2", "tiny_metal"),
    ]  # fmt: skip
    assert "tiny_metal" in darwin("predict", "GaN", "-t", "tiny_gap", "-t", "tiny_metal", "-m", two()).out


def two() -> str:
    root = Path(os.environ["MATDARWIN_HOME"]) / "checkpoints"
    return next(p.name for p in root.iterdir() if p.name.startswith("two-"))


def test_options_reach_the_predictor(darwin: Darwin, quick: list[Quick]) -> None:
    darwin("predict", "GaN", "--coverage", "0.5")
    assert quick[0].calls[0][1]["coverage"] == 0.5


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["GaN", "--coverage", "1.5"], "coverage lies between 0 and 1"),
        (["GaN", "--coverage", "nan"], "coverage lies between 0 and 1"),
        (["GaN", "--condition", "temperature=300"], "has no condition 'temperature'; it has none"),
        (["GaN", "--condition", "temperature"], "write NAME=VALUE"),
        (["GaN", "--condition", "t=1", "--condition", " t = 2"], "--condition t is given as 1 and as 2; give it once"),
        (
            ["GaN", "-o", "out.xlsx"],
            "out.xlsx: a spreadsheet is not written; name a file that ends in .csv or .parquet",
        ),
        (["GaN", "-o", "out.XLS"], "a spreadsheet is not written"),
        (["GaN", "-o", "out.ods"], "a spreadsheet is not written"),
        (["GaN", "-o", "out.json"], "`darwin predict --json > out.json` gives"),
        (["GaN", "-o", "out.jsonl.gz"], "a table is not written as JSON"),
        (["GaN", "-o", "out.parquet.gz"], "Parquet is packed already"),
        (["GaN", "--task", "tiny_gpa"], "did you mean tiny_gap"),
        (["GaN", "--task", "expt_gapp"], "'expt_gapp' is no task; did you mean expt_gap"),
        (["GaN", "--task", "zhuo_gap"], "no checkpoint knows the task zhuo_gap"),
        (["GaN", "--model", "nothing-like-it"], "is no checkpoint in"),
        ([], "give materials"),
        (["GaN", "--input", "x.csv"], "either materials or --input"),
        (["GaN", "--column", "x"], "--column belongs to --input"),
        (["GaN", "--json", "--output", "-"], "standard output"),
        (["--input", "nowhere.csv"], "nowhere.csv: there is no such file"),
    ],
)
def test_wrong_questions(darwin: Darwin, quick: list[Quick], args: list[str], says: str) -> None:
    done = darwin("predict", *args)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert not quick, "wrong usage is told before the weights are read"


def test_model_with_several_tasks_needs_one_named(darwin: Darwin, quick: list[Quick]) -> None:
    done = darwin("predict", "GaN", "--model", two())
    assert done.code == 2 and "say which: tiny_gap, tiny_metal" in done.err


def test_task_of_another_model_of_that_name(darwin: Darwin, quick: list[Quick]) -> None:
    done = darwin("predict", "GaN", "--model", two(), "--task", "expt_gap")
    assert done.code == 2 and "does not know" in done.err and "tiny_metal" in done.err


def test_benchmark_is_never_taken_by_default(darwin: Darwin, quick: list[Quick]) -> None:
    assert darwin("predict", "GaN", "--task", "tiny_metal").code == 2


def test_no_checkpoint_at_all(darwin: Darwin, home: Path) -> None:
    done = darwin("predict", "GaN")
    assert done.code == 2 and "make demo" in done.err
    unknown = darwin("predict", "GaN", "--task", "expt_gapp")
    assert unknown.code == 2 and "'expt_gapp' is no task; did you mean expt_gap" in unknown.err


def test_model_as_folder(darwin: Darwin, quick: list[Quick], at_trained: Path) -> None:
    assert darwin("predict", "GaN", "-t", "tiny_gap", "--model", str(at_trained / "checkpoints" / two())).code == 0


def test_unsealed_and_damaged_checkpoints(darwin: Darwin, quick: list[Quick], at_trained: Path) -> None:
    folder = at_trained / "checkpoints" / two()
    weights = next((folder / "weights").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    damaged = darwin("predict", "GaN", "-t", "tiny_gap", "--model", two())
    assert damaged.code == 2 and "is damaged" in damaged.err and weights.name in damaged.err
    (folder / "manifest.json").unlink()
    unsealed = darwin("predict", "GaN", "-t", "tiny_gap", "--model", two())
    assert unsealed.code == 2 and "is not sealed" in unsealed.err
    shutil.rmtree(folder)
    assert darwin("predict", "GaN").code == 0


@pytest.mark.parametrize(
    "text", ["Fe0O3", "D2O", "Fe1e400", "Na+", "(((", "", "   ", "\N{SNOWMAN}", "x" * 100_000, "Fe2O3\udcff"]
)
def test_no_material_is_a_row_and_never_a_crash(darwin: Darwin, at_trained: Path, tmp_path: Path, text: str) -> None:
    done = darwin("predict", "GaN", text, "--json")
    rows = json.loads(done.out)
    assert done.code == 1
    assert [row["status"] for row in rows] == ["ok", "invalid"]
    assert rows[1]["input"] == text and rows[1]["reason"]
    assert darwin("predict", text).code == 1
    assert darwin("predict", "GaN", text, "-o", str(tmp_path / "out.csv")).code == 1
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    assert darwin("predict", "GaN", text, "-o", str(tmp_path / "out.parquet")).code == 1
    for table in (written, pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()):
        assert [row["status"] for row in table] == ["ok", "invalid"]
        assert table[1]["input"] == text.encode("utf-8", "backslashreplace").decode()
