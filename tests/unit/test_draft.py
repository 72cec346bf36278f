"""A table becomes a task file without a question that its columns answer, and a task file is checked against its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matdarwin.data.checking import check
from matdarwin.data.draft import Draft, draft, text
from matdarwin.data.sources import DataError
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
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
        (
            "formula,gap,gap",
            [FORMULAS, GAPS, GAPS],
            r"own.csv: column 'gap' stands there 2 times \(the header's cells 2 and 3\); rename all but one",
        ),
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


ROWS = [f"{formula},{gap}" for formula, gap in zip(FORMULAS, GAPS, strict=True)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["formula;gap", *(row.replace(",", ";").replace(".", ",") for row in ROWS)],
            r"line 1 names one column, 'formula;gap'; cells seem to be split by semicolons: save the table with commas, "
            r"and decimals with a point",
        ),
        (["formula\tgap", *(row.replace(",", "\t") for row in ROWS)], r"line 1 .* split by tabs: save the table"),
        (["formula", *FORMULAS], r"line 1 names one column, 'formula'; a material and an answer need two"),
        (
            ["ZnO,1.5", *ROWS],
            r"line 1 reads as a row \('ZnO', '1.5'\) and not as names of columns; put a line of names",
        ),
        (
            ["ZnO,yes", *(f"{formula},{('yes', 'no')[place % 2]}" for place, formula in enumerate(FORMULAS))],
            r"line 1 reads as a row \('ZnO', 'yes'\)",
        ),
        (
            ["formula,gap", *(row.replace(".", ",") for row in ROWS)],
            r"row 1 \('[A-Za-z0-9]+,0,00'\) has more or fewer cells than the header, and so have 30 of 30 rows; write "
            r"decimals with a point, and put a cell with a comma into double quotes \(rows are counted",
        ),
        (
            ["formula,gap", "", *(f"{formula}," for formula in FORMULAS[:15]), *ROWS[15:]],
            r"15 of 30 rows have both 'formula' and 'gap'; 20 or more are needed \(row 2, column 'gap': the cell is empty; "
            r"rows are counted from 1 below the header, empty lines too\)",
        ),
    ],
)
def test_a_faulty_table_is_told_by_file_line_or_row_column_and_remedy(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = tmp_path / "own.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"own\.csv: " + message):
        draft(path)


def test_a_row_number_of_a_message_leads_past_empty_lines(tmp_path: Path) -> None:
    lines = ["formula,gap", "", *ROWS[:20], "", *ROWS[20:29], 'GaN,"1,5"']
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 32, column 'gap': '1,5' has a comma; write decimals with a point"):
        draft(tmp_path / "own.csv")
    assert lines[32].startswith("GaN")


def test_a_wrong_encoding_is_told_by_line_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    rows = [f'"{formula}",{gap},"a, b"' for formula, gap in zip(FORMULAS, GAPS, strict=True)]
    rows[4] = rows[4].replace("a, b", "a, caf\xe9")
    path.write_text("\n".join(["formula,gap,remark", *rows]), encoding="latin-1")
    with pytest.raises(
        DataError, match=r"byte 0xe9 in line 6 \(row 5\), column 'remark'; save the table as UTF-8 \(a spread"
    ):
        draft(path)
    path.write_text("formula,gap\nGaN,3.4\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"not UTF-8: byte 0xff in line 1, as a file in UTF-16 begins; save the table"):
        draft(path)


def test_a_column_that_tells_rows_of_one_material_apart_is_told(tmp_path: Path) -> None:
    formulas, kelvin = [*FORMULAS, *FORMULAS], ["300"] * 30 + ["400"] * 30
    columns = [formulas, [*GAPS, *reversed(GAPS)], kelvin, [str(n) for n in range(60)]]
    found = drafted(tmp_path, "formula,gap (eV),T (K),id", *columns, target_column="gap (eV)")
    (line,) = [line for line in found.found if "no wording asks by it" in line]
    assert line.startswith(f"column 'T (K)' tells rows of one material apart (rows 1 and 31, {FORMULAS[0]})")
    assert "declare it under conditions and reader.conditions" in line and line in text(found)
    # The same answer at both: nothing hangs on it.
    columns[1] = [*GAPS, *GAPS]
    same = drafted(tmp_path, "formula,gap (eV),T (K),id", *columns, target_column="gap (eV)")
    assert not any("no wording asks" in line for line in same.found)


def test_a_unit_that_does_not_match_the_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"own.csv: column 'gap \(meV\)' is in meV by its name, .* given is eV; convert"
    ):
        drafted(tmp_path, "formula,gap (meV)", FORMULAS, GAPS, unit="eV")
    # Another way to write the same, or words that are no unit known here, are taken.
    assert drafted(tmp_path, "formula,kappa (W/m/K)", FORMULAS, GAPS, unit="W m-1 K-1").task.unit == "W m-1 K-1"
    assert drafted(tmp_path, "formula,gap (meV)", FORMULAS, GAPS, unit="millielectronvolts").task.unit
    # As people write degrees and angstroms, and the Materials Project its columns.
    assert drafted(tmp_path, "formula,Tg (C)", FORMULAS, GAPS, unit="°C").task.unit == "°C"
    assert drafted(tmp_path, "formula,a (A)", FORMULAS, GAPS, unit="angstrom").task.unit == "angstrom"
    assert drafted(tmp_path, "formula,formation_energy_per_atom", FORMULAS, GAPS, unit="eV/atom").task.unit == "eV/atom"


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


def test_what_a_task_declares_is_no_fault(tmp_path: Path) -> None:
    rows = [*tiny_rows(30), ("GaN", "133"), ("Xx", "1"), ("AlN", "3"), ("AlN", "3"), ("InN", "")]
    reader = {"material": "composition", "target": "target", "drop": {"target": {"133": "hundredfold"}}}
    reader["unique"] = ["target"]
    known = ["composition: no composition", "target: the cell is empty"]
    found = check(tiny_task(tmp_path, rows=rows, reader=reader, known_rejects=known))
    assert found.clean and found.rejected == {}
    assert found.declared == {
        "target: hundredfold": 1, "composition: no composition": 1, "repeats an earlier row": 1, "target: the cell is empty": 1,
    }  # fmt: skip
    # Without the declaration, and with one too many.
    del reader["unique"]
    other = check(tiny_task(tmp_path, rows=rows, reader=reader, known_rejects=[*known[:1], "target: no number"]))
    assert other.rejected == {"target: the cell is empty": 1} and not other.clean
    assert other.remarks == ("known_rejects: no row is rejected by 'target: no number'; leave it out",)
    classes = [("Ga N", "metal"), ("N Ga", "not metal"), *tiny_rows(30, kind="classification")]
    drops = {"material": "composition", "target": "target", "conflicts": "drop"}
    found = check(tiny_task(tmp_path, kind="classification", rows=classes, reader=drops))
    assert found.clean and list(found.declared) == ["target: other labels for the same material"]


def test_a_condition_that_no_question_can_state_is_told(tmp_path: Path) -> None:
    path = table(tmp_path, "formula,gap (eV),T", FORMULAS, GAPS, ["300"] * 30)
    task = draft(path, target_column="gap (eV)").task
    told = task.model_dump() | {"conditions": [{"name": "temperature", "unit": "K", "required": False}]}
    (remark,) = check(Task.model_validate(told)).remarks
    assert remark == "condition 'temperature' has no column; name it under reader.conditions, or leave it out"
    told["reader"] = told["reader"] | {"conditions": {"temperature": "T"}}
    told["wordings"] = ["gap {conditions} of {material}", "What gap has {material}?", "Say the gap of {material}."]
    (remark,) = check(Task.model_validate(told)).remarks
    assert remark.startswith("column 'T': wording 1, 2 (from 0) does not say where the condition 'temperature' goes")
    told["conditions"] = [{"name": "temperature", "unit": "K"}, {"name": "form"}]
    with pytest.raises(DataError, match=r"condition form is needed and not given; name its column under reader.cond"):
        check(Task.model_validate(told))


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
