"""A table becomes a task file without a question that its columns answer, and a task file is checked against its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matdarwin.data.checking import check
from matdarwin.data.draft import Draft, draft, text
from matdarwin.data.sources import DataError
from matdarwin.tasks import registry
from tiny import tiny_rows, tiny_task

FORMULAS = [formula.replace(" ", "") for formula, _ in tiny_rows(30)]
GAPS = [f"{place * 0.11:.2f}" for place in range(30)]


def table(folder: Path, header: str, *columns: list[str]) -> Path:
    path = folder / "own.csv"
    lines = [header, *(",".join(f'"{cell}"' for cell in row) for row in zip(*columns, strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def drafted(folder: Path, header: str, *columns: list[str], **options: Any) -> Draft:
    return draft(table(folder, header, *columns), **options)


NUMBERS = [str(place) for place in range(1, 31)]


def test_everything_is_found_out(tmp_path: Path) -> None:
    papers = [f"paper number {place}" for place in range(30)]
    found = drafted(tmp_path, "id,Formula,Band_Gap (eV),paper", NUMBERS, FORMULAS, GAPS, papers)
    task = found.task
    assert (task.id, task.property, task.unit, task.kind) == ("my_band_gap", "band gap", "eV", "regression")
    assert (task.representation, task.decimals, task.reader.material) == ("composition", 2, "Formula")
    assert task.reader.target == "Band_Gap (eV)" and "in eV" in task.wordings[1]
    assert found.others == ("id", "paper") and any("unit: eV" in line for line in found.found)


def test_the_file_reads_back_as_the_task_and_says_what_was_found(tmp_path: Path) -> None:
    found = drafted(tmp_path, "Formula,gap (eV),T", FORMULAS, GAPS, ["300 K"] * 30)
    written = text(found)
    assert registry.parse(written, "x.yaml") == found.task
    assert "# Not used: 'T'" in written and "#   unit: eV, from the column's name" in written
    assert "log10:" not in written, "what is left at its default is left out"


def test_classes_of_molecules(tmp_path: Path) -> None:
    chains = ["C" * place + "O" for place in range(1, 31)]
    task = drafted(tmp_path, "smiles,toxic", chains, ["yes", "no"] * 15).task
    assert (task.kind, task.representation, task.labels, task.positive) == (
        "classification",
        "molecule",
        ("no", "yes"),
        "yes",
    )
    assert task.unit is None


def test_what_is_given_is_not_guessed(tmp_path: Path) -> None:
    other = [str(5 - place * 0.1) for place in range(30)]
    task = drafted(
        tmp_path, "a,b,c", FORMULAS, GAPS, other,
        target_column="c", property="depth", unit="nm", id="mine", representation="name",
    ).task  # fmt: skip
    assert (task.id, task.property, task.unit, task.reader.target, task.representation) == (
        "mine", "depth", "nm", "c", "name",
    )  # fmt: skip


def test_a_column_called_target_is_the_answer_among_several(tmp_path: Path) -> None:
    found = drafted(tmp_path, "formula,density,target", FORMULAS, NUMBERS[::-1], GAPS, property="gap")
    assert found.task.reader.target == "target"


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        (
            "formula,gap,density",
            [FORMULAS, GAPS, GAPS],
            r"columns 'gap', 'density' may all be the answer.*--target-col",
        ),
        ("formula,target", [FORMULAS, GAPS], r"column 'target' does not say what is measured; .*--property"),
        (
            "host,guest,gap",
            [FORMULAS, FORMULAS[::-1], GAPS],
            r"columns 'host', 'guest' may all hold.*--material-column",
        ),
        (
            "x,gap",
            [[f"thing {n}!" for n in NUMBERS], GAPS],
            r"no column reads as formulas or SMILES.*--material-column",
        ),
        ("formula,id", [FORMULAS, NUMBERS], r"no column holds numbers or a few classes.*--target-column"),
        (
            "formula,gap",
            [FORMULAS, [gap.replace(".", ",") for gap in GAPS]],
            r"row 1, column 'gap': '0,00' has a comma",
        ),
        ("formula,gap,gap", [FORMULAS, GAPS, GAPS], r"no column holds numbers"),
    ],
)
def test_what_cannot_be_told_names_the_option_that_tells_it(
    tmp_path: Path, header: str, columns: list[list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        drafted(tmp_path, header, *columns)


def test_faults_of_the_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.csv: there is no such file"):
        draft(tmp_path / "gone.csv")
    path = table(tmp_path, "formula,gap", FORMULAS, GAPS)
    path.write_bytes(path.read_bytes().replace(b"formula", b"formul\xe9"))
    with pytest.raises(DataError, match=r"own.csv: not UTF-8: byte 0xe9 in line 1"):
        draft(path)
    repeated = table(tmp_path, "formula,gap,gap", FORMULAS, GAPS, GAPS)
    with pytest.raises(DataError, match=r"column 'gap' stands there 2 times"):
        draft(repeated, material_column="formula", target_column="gap")


def test_a_unit_that_does_not_match_the_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"own.csv: column 'gap \(meV\)' is in meV by its name, .* given is eV; convert"
    ):
        drafted(tmp_path, "formula,gap (meV)", FORMULAS, GAPS, unit="eV")
    # Another way to write the same, or words that are no unit known here, are taken.
    assert drafted(tmp_path, "formula,kappa (W/m/K)", FORMULAS, GAPS, unit="W m-1 K-1").task.unit == "W m-1 K-1"
    assert drafted(tmp_path, "formula,gap (meV)", FORMULAS, GAPS, unit="millielectronvolts").task.unit


# Checking


def test_a_sound_task_is_clean(tmp_path: Path) -> None:
    found = check(tiny_task(tmp_path))
    assert found.clean and (found.rows, found.rows_read) == (150, 150)


def test_rejects_are_counted_by_cause(tmp_path: Path) -> None:
    found = check(tiny_task(tmp_path, rows=[*tiny_rows(30), ("Xx", "1"), ("GaN", ""), ("AlN", "9")]))
    assert not found.clean and found.rows == 30 and found.rows_read == 33
    assert found.rejected == {
        "composition: no composition": 1, "target: the cell is empty": 1, "target: outside the bounds [0, 5]": 1,
    }  # fmt: skip


def test_what_else_is_wrong_is_said(tmp_path: Path) -> None:
    rows = tiny_rows(30, kind="classification")
    (remark,) = check(tiny_task(tmp_path, kind="classification", rows=[(x, "metal") for x, _ in rows])).remarks
    assert remark == "no row has the label 'not metal'"
    few = check(tiny_task(tmp_path, rows=tiny_rows(3)))
    assert few.remarks == ("task tiny_gap: 3 different materials do not make 5 folds",)
    taken = check(tiny_task(tmp_path, id="expt_gap"))
    assert taken.remarks == ("'expt_gap' is the id of a task of the library too; give it another",)


def test_a_unit_of_the_column_that_is_not_the_tasks(tmp_path: Path) -> None:
    path = table(tmp_path, "formula,gap (eV)", FORMULAS, GAPS)
    task = draft(path).task
    (remark,) = check(task.model_copy(update={"unit": "meV"})).remarks
    assert "is in eV by its name, and the unit given is meV" in remark
    scaled = task.reader.model_copy(update={"scale": 0.001})
    assert check(task.model_copy(update={"unit": "keV", "reader": scaled})).clean, "the task converts it"


def test_data_that_are_not_here_or_not_as_said(tmp_path: Path, home: Path) -> None:
    away = check(registry.load("expt_gap"))
    assert away.rows is None and "its rows could not be checked" in away.remarks[0]
    with pytest.raises(DataError, match=r"there is no column 'compositoin'; did you mean 'composition'"):
        check(tiny_task(tmp_path, reader={"material": "compositoin", "target": "target"}))
    with pytest.raises(DataError, match=r"none of its 2 rows can be read \(row 1: .*`Xx`"):
        check(tiny_task(tmp_path, rows=[("Xx", "1"), ("Yy", "1")]))
    task = tiny_task(tmp_path)
    Path(task.source.name).write_text("composition,target\nGaN,1\n")
    with pytest.raises(DataError, match=r"wrong checksum"):
        check(task)
