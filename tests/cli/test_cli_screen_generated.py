"""`darwin screen` over generated candidates."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from conftest import Darwin, Quick


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_elements(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    done = darwin("screen", str(out), "--elements", "Zn, S", "--max-elements", "2", "--max-atoms", "4", "--json")
    assert done.code == 0 and json.loads(done.out)["kept"] == 7
    assert [row["composition"] for row in rows(out)] == ["Zn", "S", "ZnS", "ZnS2", "Zn2S", "ZnS3", "Zn3S"]
    # `Quick` values a text by its length.
    assert rows(out)[-1]["value"] == "0.4"


def test_neutral_ones_ranked(darwin: Darwin, quick: list[Quick], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    done = darwin(
        "screen", str(out), "--elements", "Cd,Cu,Sn,S", "--max-elements", "4", "--charge-neutral", "--by", "value", "--top", "1"
    )  # fmt: skip
    assert done.code == 0 and "candidates are generated" in done.err
    # Of eight atoms, three elements at most can have an amount that is written: ten letters.
    assert [(row["value"], len(row["composition"])) for row in rows(out)] == [("1.0", 10)]


@pytest.mark.parametrize("table", [False, True])
def test_substitutes(darwin: Darwin, quick: list[Quick], tmp_path: Path, table: bool) -> None:
    known = tmp_path / "known.csv"
    known.write_text("id,formula\n1,GaN\n2,Xx\n3,AlN\n")
    out = tmp_path / "out.csv"
    done = darwin("screen", str(out), "--substitute", str(known) if table else "GaN,AlN")
    assert done.code == 0 and ("1 rows of" in done.err) == table
    found = {row["composition"]: row["from"] for row in rows(out)}
    assert found["BN"] == "GaN" and found["AlP"] == "AlN" and "AlN" not in found


def test_a_real_model_gives_what_it_gives_for_a_table(darwin: Darwin, at_trained: Path, tmp_path: Path) -> None:
    assert darwin("screen", str(tmp_path / "made.csv"), "--elements", "Ga,N", "--max-atoms", "5").code == 0
    source = tmp_path / "in.csv"
    source.write_text("composition\n" + "".join(row["composition"] + "\n" for row in rows(tmp_path / "made.csv")))
    assert darwin("screen", str(source), str(tmp_path / "read.csv")).code == 0
    assert (tmp_path / "made.csv").read_bytes() == (tmp_path / "read.csv").read_bytes()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "give two files, IN and OUT"),
        (["in.csv", "--elements", "Zn,S"], "give only the file to write"),
        (["--elements", "Zn,S", "--substitute", "GaN"], "choose one"),
        (["in.csv", "--max-atoms", "4"], "--max-atoms belongs to --elements"),
        (["--elements", "Zn,S", "--max-replaced", "2"], "--max-replaced belongs to --substitute"),
        (["in.csv", "--charge-neutral"], "--charge-neutral belongs to"),
        (["--elements", "Zn,Xx"], "'Xx' is no element"),
        (["--substitute", "GaXx"], "Xx"),
        (["--substitute", "nosuch.csv"], "there is no such file"),
    ],
)
def test_wrong_usage(darwin: Darwin, quick: list[Quick], tmp_path: Path, options: list[str], says: str) -> None:
    done = darwin("screen", *options, str(tmp_path / "out.csv"))
    assert done.code == 2 and says in done.err and done.out == ""
    assert [p.name for p in tmp_path.iterdir() if p.name != "home"] == []
