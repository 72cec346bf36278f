"""Every row of a file is an example or a reject with its reason."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matdarwin.data.cards import card
from matdarwin.data.custom import from_table
from matdarwin.data.readers import RowError, names, number, read
from matdarwin.data.sources import DataError
from matdarwin.tasks.schema import Task


def task(file: Path, **changes: Any) -> Task:
    content: dict[str, Any] = {
        "id": "gap",
        "version": 1,
        "kind": "regression",
        "title": "Gap",
        "property": "band gap",
        "quantities": ["band gap"],
        "unit": "eV",
        "bounds": [0, 20],
        "decimals": 2,
        "representation": "composition",
        "wordings": ["band gap of {material}"],
        "metric": "mae",
        "source": {"kind": "file", "name": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
        "reader": {"material": "formula", "target": "gap"},
        "licence": "MIT",
        "citation": "ours",
        "description": "A task for tests.",
    }
    return Task.model_validate({**content, **changes})


def write(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


METAL = {
    "kind": "classification",
    "labels": ["metal", "not metal"],
    "metric": "accuracy",
    "bounds": None,
    "decimals": None,
    "unit": None,
}


def test_rows_become_examples_in_their_order(tmp_path: Path) -> None:
    file = write(tmp_path, "id,formula,gap,fold\na,GaN,3.4,1\nb, ZnO ,3.30,0\n")
    reader = {"material": "formula", "target": "gap", "row_id": "id", "fold": "fold"}
    table = read(task(file, reader=reader, folds="official"))
    assert [(e.row, e.target, e.fold) for e in table.examples] == [("a", 3.4, 1), ("b", 3.3, 0)]
    assert table.examples[1].material.given == "ZnO"
    assert table.rejects == [] and table.rows_read == 2


def test_what_cannot_be_read_is_a_reject_with_row_column_and_reason(tmp_path: Path) -> None:
    rows = [
        "GaN,3.4",
        "Xx2,1",
        "ZnO,nan",
        "ZnO,inf",
        "ZnO,-1",
        "ZnO,21",
        'ZnO,"3,3"',
        "ZnO,",
        ",3",
        "ZnO,3 eV",
        "ZnO",
        "ZnO,1,2",
        "ZnO,1e999",
    ]
    table = read(task(write(tmp_path, "formula,gap\n" + "\n".join(rows) + "\n")))
    assert len(table.examples) == 1 and table.rows_read == len(rows)
    assert [reject.row for reject in table.rejects] == list(range(2, 14))
    causes = [reject.cause for reject in table.rejects]
    outside, cells = "outside the bounds [0, 20]", "the row has more or fewer cells than the header"
    empty = "the cell is empty"
    assert causes == [
        "no composition",
        "not finite",
        "not finite",
        outside,
        outside,
        "a decimal comma",
        empty,
        empty,
        "no number",
        cells,
        cells,
        "not finite",
    ]
    assert [reject.column for reject in table.rejects[:2]] == ["formula", "gap"]
    assert table.rejects[0].text == "Xx2" and "Xx" in table.rejects[0].reason
    assert "point" in table.rejects[5].reason


def test_labels_are_mapped_and_unknown_ones_rejected(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,metal\nFe,True\nNaCl,False\nCu,maybe\n")
    reader = {"material": "formula", "target": "metal", "labels": {"True": "metal", "False": "not metal"}}
    table = read(task(file, reader=reader, **METAL))
    assert [example.target for example in table.examples] == ["metal", "not metal"]
    assert table.rejects[0].reason == "column metal: unknown label 'maybe'; known are True, False"


def test_conditions_are_read_and_a_missing_one_rejects_its_row(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,gap,T\nGaN,3.4,300\nZnO,3.3,\n")
    reader = {"material": "formula", "target": "gap", "conditions": {"temperature": "T"}}
    table = read(task(file, reader=reader, conditions=[{"name": "temperature", "unit": "K"}]))
    assert table.examples[0].conditions == {"temperature": 300.0}
    assert table.rejects[0].cause == "condition temperature is needed and not given"


def test_byte_order_mark_gzip_quoted_cells_and_empty_lines(tmp_path: Path) -> None:
    text = '\ufeffformula,note,gap\r\n"GaN","a, ""b""\nc",3.4\r\n\r\nZnO,,3.3\r\n'
    file = write(tmp_path, gzip.compress(text.encode()), "t.csv.gz")
    assert [example.target for example in read(task(file)).examples] == [3.4, 3.3]


def test_a_rows_number_leads_to_its_line_past_empty_ones(tmp_path: Path) -> None:
    lines = ["formula,gap", "GaN,3.4", "", "", "Xx,1", "ZnO,3.3", "AlN,6,2", ""]
    table = read(task(write(tmp_path, "\n".join(lines))))
    # Line 1 is the header, so row N stands in line N + 1.
    assert {reject.row: lines[reject.row] for reject in table.rejects} == {4: "Xx,1", 6: "AlN,6,2"}
    assert [lines[int(example.row)] for example in table.examples] == ["GaN,3.4", "ZnO,3.3"]
    assert table.rows_read == 4


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"formula": ["GaN", "ZnO", "Fe"], "gap": [3.4, None, 0.1 + 0.2]})
    frame.to_parquet(tmp_path / "t.parquet")
    table = read(task(tmp_path / "t.parquet"))
    assert [example.target for example in table.examples] == [3.4, 0.1 + 0.2]
    assert [reject.row for reject in table.rejects] == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("formula,Gap\nGaN,3\n", "no column 'gap'; did you mean 'Gap'"),
        ("formula,abc\nGaN,3\n", "no column 'gap'; it has 'formula', 'abc'"),
        ("formula;gap\nGaN;3\n", "no column 'formula'.*semicolons"),
        ("formula,gap,gap\nGaN,3,4\n", "column 'gap' stands there 2 times"),
        ("", "the file is empty"),
        ("formula,gap\nGaN,3\nK\xe9,1\n".encode("latin-1"), "not UTF-8: byte 0xe9 in line 3"),
        ('formula,gap\n"GaN"x,3\n', "line 2 is no CSV"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(task(write(tmp_path, text)))


@pytest.mark.parametrize(
    ("name", "message"), [("t.parquet", "as Parquet"), ("t.csv.gz", "cannot be read"), ("t.xlsx", "spreadsheet")]
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(task(write(tmp_path, "formula,gap\nGaN,3\n", name)))


def test_an_unknown_reader_names_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,gap\nGaN,3\n")
    with pytest.raises(DataError, match=r"'tabel' is no reader; did you mean table"):
        read(task(file, reader={"name": "tabel", "material": "formula", "target": "gap"}))


def test_a_table_is_read_once_but_another_column_is_another_table(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,gap,other\nGaN,3,4\n")
    assert read(task(file)) is read(task(file))
    noted = task(file).model_copy(update={"notes": ("a note",)})
    assert read(noted).task == noted and read(noted).examples is read(task(file)).examples
    assert read(task(file, reader={"material": "formula", "target": "other"})).examples[0].target == 4.0


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_read_exactly(value: float) -> None:
    assert number(repr(value), "x") == value


@pytest.mark.parametrize(
    "text", ["1_000", "0x10", "٣", "1,5", "1,234.5", "1.2.3", "1e", "--1", "nan", "1 2", "\u22121"]
)
def test_what_float_would_take_or_guess_is_refused(text: str) -> None:
    with pytest.raises(RowError):
        number(text, "x")


# Cleaning rules

READER = {"material": "formula", "target": "gap"}


def test_cells_are_mended_emptied_and_rows_dropped_for_a_stated_reason(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,gap,note\nGaN,3 .4,a\nZnO,.,a\nSi,1.1,b\nGe,0.7,a\n")
    rules = {"spellings": {"gap": {"3 .4": "3.4"}}, "missing": ["."], "drop": {"note": {"b": "measured wrongly"}}}
    table = read(task(file, reader={**READER, **rules}))
    assert [(example.row, example.target) for example in table.examples] == [("1", 3.4), ("4", 0.7)]
    assert [(r.row, r.column, r.cause) for r in table.rejects] == [
        (2, "gap", "the cell is empty"),
        (3, "note", "measured wrongly"),
    ]
    assert table.rows_read == 4


def test_a_rule_for_a_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,gap\nGaN,3.4\n")
    for rules in ({"drop": {"Note": {"b": "c"}}}, {"spellings": {"Note": {"b": "c"}}}, {"unique": ["Note"]}):
        with pytest.raises(DataError, match=r"there is no column 'Note'"):
            read(task(file, reader={**READER, **rules}))


def test_units_are_scaled_exactly_and_logarithms_taken(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,gap\nGaN,1077\nZnO,3e3\nSi,0\nGe,-5\n")
    scaled = read(task(file, reader={**READER, "scale": 0.001}))
    assert [example.target for example in scaled.examples] == [1.077, 3.0, 0.0]
    assert scaled.rejects[0].cause == "outside the bounds [0, 20]"
    logs = read(task(file, reader={**READER, "scale": 0.1, "log10": True}))
    assert [example.target for example in logs.examples] == [pytest.approx(2.0322157), pytest.approx(2.4771213)]
    assert [(r.row, r.cause) for r in logs.rejects] == [(3, "no logarithm"), (4, "no logarithm")]


def test_a_repeat_of_an_earlier_example_is_left_out(tmp_path: Path) -> None:
    rows = "GaN,x,a\nGaN,3.4,a\nNGa,3.4,a\nGaN,3.4,b\nGaN,3.5,a\nZnO,3.4,a\n"
    table = read(task(write(tmp_path, "formula,gap,ref\n" + rows), reader={**READER, "unique": ["gap", "ref"]}))
    assert [example.row for example in table.examples] == ["2", "4", "5", "6"]
    assert [(r.row, r.cause) for r in table.rejects] == [(1, "no number"), (3, "repeats an earlier row")]
    assert table.rejects[1].text == "NGa" and table.rejects[1].reason.endswith("row 2")


def test_materials_with_two_labels_are_left_out_with_all_their_rows(tmp_path: Path) -> None:
    rows = "Fe,metal\nGaN,metal\nCu,metal\nXx,metal\nNGa,not metal\nFe,metal\n"
    file = write(tmp_path, "formula,gap\n" + rows)
    table = read(task(file, reader={**READER, "conflicts": "drop"}, **METAL))
    assert [example.row for example in table.examples] == ["1", "3", "6"]
    assert [reject.row for reject in table.rejects] == [2, 4, 5] and table.rows_read == 6
    assert table.rejects[0].cause == table.rejects[2].cause == "other labels for the same material"
    assert "metal in row 2, not metal in row 5" in table.rejects[0].reason
    assert len(read(task(file, reader=READER, **METAL)).examples) == 5


def test_labels_under_other_conditions_are_no_conflict(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,gap,T\nFe,metal,300\nFe,not metal,900\n")
    reader = {**READER, "conflicts": "drop", "conditions": {"temperature": "T"}}
    found = read(task(file, reader=reader, conditions=[{"name": "temperature", "unit": "K"}], **METAL))
    assert len(found.examples) == 2


def test_the_material_may_stand_in_one_of_several_columns(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,alloy,gap\nGaN,,3.4\n,ZnO,3.3\n,,1\nGaN,ZnO,2\n")
    table = read(task(file, reader={**READER, "alternatives": ["alloy"]}))
    assert [example.material.given for example in table.examples] == ["GaN", "ZnO"]
    assert [(r.row, r.column, r.cause) for r in table.rejects] == [
        (3, "formula", "the cell is empty"),
        (4, "alloy", "a second material"),
    ]
    assert table.rejects[0].reason.endswith("and so are alloy")


def test_further_columns_give_further_keys_where_they_can_be_read(tmp_path: Path) -> None:
    file = write(tmp_path, "formula,short,gap\none,FA0.5MA0.5PbI3,1\ntwo,MA0.5FA0.5PbI3,2\nthree,??,3\nfour,,4\n")
    rules = {"keys": {"short": "composition"}, "abbreviations": {"MA": "(CH6N)", "FA": "(CH5N2)"}}
    one, two, three, four = read(task(file, reader={**READER, **rules}, representation="name")).examples
    assert one.material.key == "name:one" and two.material.key == "name:two"
    assert one.material.keys[1:] == two.material.keys[1:] and one.material.keys[1].startswith("composition:")
    assert three.material.keys == ("name:three",) and four.material.keys == ("name:four",)


def test_several_files_are_read_as_one_and_numbered_through(tmp_path: Path) -> None:
    first = write(tmp_path, "formula,gap\nGaN,3.4\nXx,1\n")
    second = write(tmp_path, "gap,formula\n3.3,ZnO\n1,Yy\n", "u.csv")
    more = {"kind": "file", "name": str(second), "sha256": hashlib.sha256(second.read_bytes()).hexdigest()}
    table = read(task(first, extra_sources=[more]))
    assert [example.row for example in table.examples] == ["1", "3"]
    assert [reject.row for reject in table.rejects] == [2, 4] and table.rows_read == 4


def test_the_card_counts_what_was_kept_and_why_the_rest_was_not(tmp_path: Path) -> None:
    rows = "GaN,3.4\nNGa,3.0\nZnO,3.3\nSi,1.1\nGe,0\nSn,0\nXx,1\nYy,2\nC,99\n"
    found = card(task(write(tmp_path, "formula,gap\n" + rows)))
    assert (found["rows"], found["rows_read"], found["materials"]) == (6, 9, 5)
    assert found["rejected"] == {"formula: no composition": 2, "gap: outside the bounds [0, 20]": 1}
    assert found["rejects"] is not None and found["rejects"][0]["row"] == 7
    assert found["folds"] is not None and sum(found["folds"]) == 6 and len(found["folds"]) == 5
    assert found["merged"] == {
        "materials": 1,
        "rows": 1,
        "tied_rows": 0,
        "disagreeing": 1,
        "median_spread": pytest.approx(0.4),
        "greatest_spread": pytest.approx(0.4),
    }
    targets: Any = found["targets"]
    assert (targets["least"], targets["greatest"], targets["zeros"]) == (0.0, 3.4, 2)


def test_the_card_counts_materials_that_repeat_and_not_their_conditions(tmp_path: Path) -> None:
    rows = "GaN,300,1\nGaN,300,2\nGaN,400,1\nGaN,400,1\nZnO,300,5\nZnO,400,6\nSi,300,1\nSi,300,1\n"
    told = {"material": "formula", "target": "gap", "conditions": {"temperature": "T"}}
    path = write(tmp_path, "formula,T,gap\n" + rows)
    found = card(task(path, conditions=[{"name": "temperature", "unit": "K"}], reader=told))["merged"]
    assert found is not None
    assert (found["materials"], found["rows"], found["disagreeing"]) == (2, 3, 1)


def test_the_card_of_a_task_without_its_data_is_null_there_and_says_why(home: Path) -> None:
    from matdarwin.tasks.registry import load

    found = card(load("expt_gap"))
    assert found["rows"] is None and found["folds"] is None
    assert found["missing"] is not None and "MATDARWIN_MIRROR" in found["missing"]
    assert found["unit"] == "eV"


# A user's own table

FORMULAS = [f"{a}{b}" for a in ("Li", "Na", "K", "Rb") for b in ("F", "Cl", "Br", "I", "H", "At")]
SMILES = ["C" * length + end for length in range(2, 10) for end in ("O", "N", "C=O")]


def own(folder: Path, inputs: list[str], answers: list[Any], header: str = "x,y") -> Path:
    return write(folder, header + "\n" + "".join(f"{x},{y}\n" for x, y in zip(inputs, answers, strict=True)))


def test_a_table_of_numbers_becomes_a_regression_task(tmp_path: Path) -> None:
    file = own(tmp_path, FORMULAS, [f"{1 + i / 4:.2f}" for i in range(24)])
    found = from_table(file, "x", "y", "melting point", "kK")
    assert (found.kind, found.representation, found.decimals, found.unit) == ("regression", "composition", 2, "kK")
    assert found.bounds == (0.0, 12.5)  # greatest 6.75 and the width 5.75 above it; never below 0
    assert found.id == "my_melting_point" and found.quantities == ("melting point",)
    assert found.wordings[0] == "melting point of {material}"
    assert len(read(found).examples) == 24


@pytest.mark.parametrize("empty", ["N/A", "NA", "NaN", "nan", "<NA>", "null", "#N/A"])
def test_what_programs_write_for_no_answer_is_none(tmp_path: Path, empty: str) -> None:
    classes = from_table(
        own(tmp_path, FORMULAS, [empty, *["metal", "nonmetal"] * 11, empty]), "x", "y", "metallicity", None
    )
    assert classes.labels == ("metal", "nonmetal") and len(read(classes).examples) == 22
    assert classes.notes == ("2 of 24 rows are rejected: column y: the cell is empty (2).",)
    # A quarter of such cells does not make classes of numbers.
    numbers = from_table(
        own(tmp_path, [*FORMULAS, *FORMULAS[:8]], [*map(float, range(24)), *[empty] * 8]), "x", "y", "energy", None
    )
    assert numbers.kind == "regression" and len(read(numbers).examples) == 24
    assert from_table(own(tmp_path, FORMULAS, ["none", "some"] * 12), "x", "y", "order", None).labels == (
        "none",
        "some",
    )


def test_negative_numbers_leave_room_below(tmp_path: Path) -> None:
    found = from_table(own(tmp_path, FORMULAS, [i - 10 for i in range(24)]), "x", "y", "energy", None)
    assert found.bounds == (-33.0, 36.0) and found.decimals == 0


@pytest.mark.parametrize(
    ("scale", "decimals"),
    [(1.0, 4), (1e-4, 5), (1e3, 1)],  # six digits in the file: at most 4, more for small values, fewer for large ones
)
def test_decimals_follow_the_scale_of_the_data(tmp_path: Path, scale: float, decimals: int) -> None:
    answers = [f"{scale * (1 + i * 1.234567):.6f}" for i in range(24)]
    assert from_table(own(tmp_path, FORMULAS, answers), "x", "y", "p", None).decimals == decimals


def test_a_table_of_smiles_with_classes(tmp_path: Path) -> None:
    found = from_table(own(tmp_path, SMILES, ["yes", "no"] * 12, "SMILES,y"), "SMILES", "y", "toxicity", None)
    assert (found.kind, found.representation, found.labels, found.positive) == (
        "classification",
        "molecule",
        ("no", "yes"),
        "yes",
    )


def test_two_numbers_are_classes_unless_said_otherwise(tmp_path: Path) -> None:
    file = own(tmp_path, FORMULAS, [0, 1] * 12)
    assert from_table(file, "x", "y", "p", None).kind == "classification"
    assert from_table(file, "x", "y", "p", None, kind="regression").kind == "regression"


def test_what_no_parser_reads_is_a_name(tmp_path: Path) -> None:
    file = own(tmp_path, [f"sample no. {i}" for i in range(24)], [i % 7 for i in range(24)])
    assert from_table(file, "x", "y", "p", None).representation == "name"


def test_empty_cells_are_named_and_rejected(tmp_path: Path) -> None:
    answers: list[Any] = list(range(24))
    answers[4] = answers[9] = ""
    found = from_table(own(tmp_path, FORMULAS, answers), "x", "y", "p", None)
    assert found.notes == ("2 of 24 rows are rejected: column y: the cell is empty (2).",)
    assert [reject.row for reject in read(found).rejects] == [5, 10]


def test_rejected_rows_are_counted_by_cause(tmp_path: Path) -> None:
    inputs = [*FORMULAS, *(f"?{i}" for i in range(12)), "", "LiF,surplus"]
    found = from_table(own(tmp_path, inputs, [*range(24), *range(12), 3, 4]), "x", "y", "p", None)
    assert found.notes == (
        "14 of 38 rows are rejected: column x: no composition (12); column x: the cell is empty (1); "
        "the row has more or fewer cells than the header (1).",
    )


def test_smiles_that_are_formulas_too(tmp_path: Path) -> None:
    chains = ["C" * n + end for n in range(1, 9) for end in ("O", "N", "F")]
    assert from_table(own(tmp_path, chains, list(range(24))), "x", "y", "p", None).representation == "molecule"
    file = own(tmp_path, ["CO", "BN", "CS"] * 8, list(range(24)))
    with pytest.raises(DataError, match=r"column 'x': CO, BN, CS … may be formulas or SMILES.*--representation"):
        from_table(file, "x", "y", "p", None)
    assert from_table(file, "x", "y", "p", None, representation="molecule").representation == "molecule"


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    import gzip

    import pandas as pd

    frame = pd.DataFrame({"x": FORMULAS, "y": range(24)})
    frame.to_parquet(tmp_path / "X.PARQUET")
    (tmp_path / "X.CSV.GZ").write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    for name in ("X.PARQUET", "X.CSV.GZ"):
        assert from_table(tmp_path / name, "x", "y", "p", None).bounds == (0.0, 46.0)


def test_cells_of_a_parquet_are_the_texts_that_they_stand_for(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    x = pa.array([formula.encode() for formula in FORMULAS], pa.binary())
    y = pa.array([number / 10 for number in range(24)], pa.float32())
    pyarrow.parquet.write_table(pa.table({"x": x, "y": y}), tmp_path / "t.parquet")
    found = from_table(tmp_path / "t.parquet", "x", "y", "p", None)
    assert (found.decimals, found.representation) == (1, "composition")
    assert [example.target for example in read(found).examples] == [number / 10 for number in range(24)]

    bad = pa.table({"x": pa.array([b"Ga\xffN"] * 24), "y": y})
    pyarrow.parquet.write_table(bad, tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"bad\.parquet: column 'x' is not UTF-8: it holds the byte 0xff"):
        from_table(tmp_path / "bad.parquet", "x", "y", "p", None)

    pyarrow.parquet.write_table(pa.table({"x": x, "y": y}), tmp_path / "spoilt.parquet", use_dictionary=False)
    column = pyarrow.parquet.read_metadata(tmp_path / "spoilt.parquet").row_group(0).column(0)
    content = bytearray((tmp_path / "spoilt.parquet").read_bytes())
    end = column.data_page_offset + column.total_compressed_size
    content[column.data_page_offset : end] = b"\xff" * column.total_compressed_size
    (tmp_path / "spoilt.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"spoilt\.parquet: cannot be read as Parquet: .*copy it anew"):
        from_table(tmp_path / "spoilt.parquet", "x", "y", "p", None)


def test_a_changed_table_is_noticed(tmp_path: Path) -> None:
    found = from_table(own(tmp_path, FORMULAS, list(range(24))), "x", "y", "first", None)
    own(tmp_path, FORMULAS, list(range(1, 25)))
    with pytest.raises(DataError, match=r"wrong checksum.*make the task anew"):
        read(found.model_copy(update={"id": "again"}))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["1.5"] * 24, "the same value in every row|one class only"),
        (["yes"] * 24, "one class only"),
        (['"1,5"'] + [str(i) for i in range(23)], "row 1, column 'y': '1,5' has a comma"),
        ([f"text {i}" for i in range(24)], "24 different texts"),
        (["Yes", "yes", "no"] * 8, "differ in case only"),
        ([""] * 10 + ["1"] * 14, "14 of 24 rows have both"),
        ([f"1e{i}" for i in range(24)], "give the log10"),
    ],
)
def test_a_table_that_teaches_nothing_is_refused(tmp_path: Path, answers: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_table(own(tmp_path, FORMULAS, answers), "x", "y", "p", None)


def test_the_same_number_throughout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the same value in every row"):
        from_table(own(tmp_path, FORMULAS, ["1.5"] * 24), "x", "y", "p", None, kind="regression")


def test_a_table_with_a_missing_column_or_no_file(tmp_path: Path) -> None:
    file = own(tmp_path, FORMULAS, list(range(24)), "formula,gap")
    with pytest.raises(DataError, match=r"no column 'formulae'; did you mean 'formula'"):
        from_table(file, "formulae", "gap", "p", None)
    with pytest.raises(DataError, match=r"there is no such file"):
        from_table(tmp_path / "none.csv", "x", "y", "p", None)
    with pytest.raises(DataError, match=r"name two columns"):
        from_table(file, "gap", "gap", "p", None)
    with pytest.raises(DataError, match=r"is the id of a task of the library"):
        from_table(file, "formula", "gap", "p", None, id="expt_gap")
    with pytest.raises(DataError, match=r"my.csv: id: .*pattern|t.csv: id: .*pattern"):
        from_table(file, "formula", "gap", "p", None, id="No Id")


def test_rows_that_the_task_cannot_read_are_shown(tmp_path: Path) -> None:
    file = own(tmp_path, [*FORMULAS[:15], *["??"] * 9], list(range(24)))
    with pytest.raises(DataError, match=r"15 of 24 rows can be read.*row 16"):
        from_table(file, "x", "y", "p", None)


def test_other_names_of_materials_are_read_by_key(tmp_path: Path) -> None:
    text = "formula,gap,mineral,trade name\nTiO2,3.0,rutile,\nO2Ti,3.2,anatase,white\nxx,1,nothing,\nZnS,3.6,,\n"
    given = task(write(tmp_path, text), name_columns=["mineral", "trade name"])
    titania = read(given).examples[0].material.key
    assert names(given) == {titania: ("rutile", "anatase", "white"), read(given).examples[2].material.key: ()}
    assert names(task(write(tmp_path, text))) == {}
    numbered = task(write(tmp_path, text), name_columns=["mineral"], reader={"material": "formula", "target": "gap", "row_id": "mineral"})  # fmt: skip
    assert names(numbered)[titania] == ("rutile", "anatase")
    with pytest.raises(DataError, match="colour"):
        names(task(write(tmp_path, text), name_columns=["colour"]))
