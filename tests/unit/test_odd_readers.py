"""Readers of odd files, on a few rows that we made up."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from matdarwin.data.odd import mended
from matdarwin.data.readers import Table, read
from matdarwin.data.sources import DataError
from matdarwin.tasks.schema import Task


def source(file: Path) -> dict[str, str]:
    return {"kind": "file", "name": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def task(files: list[Path], reader: dict[str, Any], **changes: Any) -> Task:
    content: dict[str, Any] = {
        "id": "odd",
        "version": 1,
        "kind": "regression",
        "title": "Odd",
        "property": "something",
        "quantities": ["something"],
        "bounds": [-1, 50],
        "decimals": 3,
        "representation": "name",
        "wordings": ["something of {material}"],
        "metric": "mae",
        "source": source(files[0]),
        "extra_sources": [source(file) for file in files[1:]],
        "reader": reader,
        "licence": "MIT",
        "citation": "ours",
        "description": "A task for tests.",
    }
    return Task.model_validate({**content, **changes})


# opv

OPV = {"name": "opv", "material": "donor", "target": "efficiency", "conditions": {"acceptor": "acceptor"}}


def asked(folder: Path, name: str, *pairs: tuple[Any, Any]) -> Path:
    file = folder / name
    file.write_text(json.dumps([{"instruction": question, "output": answer} for question, answer in pairs]))
    return file


def cells(*files: Path, reader: dict[str, Any] | None = None) -> Table:
    return read(task(list(files), reader or OPV, representation="molecule", conditions=[{"name": "acceptor"}]))


def test_donor_and_acceptor_are_taken_out_of_the_question(tmp_path: Path) -> None:
    one = asked(tmp_path, "a.json", ("how good? donor : CCO, and Acceptors: PC61BM? ->", " 1.25\n"))
    two = asked(tmp_path, "b.json", ("donor : c1ccsc1, and Acceptors: TiO2?", "0.5"), ("donor : CC and none", "1"))
    table = cells(one, two)
    assert [(e.row, e.material.text, e.conditions, e.target) for e in table.examples] == [
        ("1", "CCO", {"acceptor": "PC61BM"}, 1.25),
        ("2", "c1ccsc1", {"acceptor": "TiO2"}, 0.5),
    ]
    assert [(r.row, r.column, r.cause) for r in table.rejects] == [(3, "instruction", "no donor and acceptor")]
    assert table.rejects[0].text == "donor : CC and none" and table.rows_read == 3


def test_answers_and_donors_that_cannot_be_read_are_rejects(tmp_path: Path) -> None:
    question = "donor : {}, and Acceptors: C60?"
    file = asked(tmp_path, "a.json", (question.format("CC"), 3), (question.format("C("), "3"), (None, "3"))
    table = cells(file)
    assert table.examples == [] and table.rows_read == 3
    assert [(r.row, r.column) for r in table.rejects] == [(1, "output"), (2, "donor"), (3, "instruction")]


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]", b"\xff"])
def test_what_is_no_list_of_questions_is_refused(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=r"a.json: (no JSON|a list of JSON objects)"):
        cells(file)


def test_a_column_that_the_reader_does_not_make_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'doner'; did you mean 'donor'"):
        cells(asked(tmp_path, "a.json"), reader={**OPV, "material": "doner"})


# moosavi

MOOSAVI = {
    "name": "moosavi",
    "material": "framework",
    "target": "heat capacity",
    "row_id": "id",
    "conditions": {"temperature": "temperature", "composition": "composition"},
}
KELVINS = (250, 275, 300, 325, 350, 375, 400)
HEADER = ",".join(
    [
        "MOF structural features and topology",
        "composition",
        "Cv_gravimetric_300.00 (gravimetric heat capacity at 300 K)",
        *(f"pCv_{kelvin}.00 (predicted gravimetric heat capacity at {kelvin} K)" for kelvin in KELVINS),
    ]
)


def heat(folder: Path, *lines: str) -> Table:
    file = folder / "m.csv"
    file.write_text("\n".join([HEADER, *lines]) + "\n")
    conditions = [{"name": "temperature", "unit": "K"}, {"name": "composition"}]
    return read(task([file], MOOSAVI, conditions=conditions))


def atom(framework: str, at_300: float) -> str:
    """An atom whose value rises by 0.04 J/mol/K each kelvin."""
    return f"{framework},,," + ",".join(f"{at_300 + 0.04 * (kelvin - 300):.2f}" for kelvin in KELVINS)


def test_atoms_give_the_other_temperatures(tmp_path: Path) -> None:
    # CO2: 44.009 g/mol over three atoms is 14.6697 g/mol an atom; a mean of 11 J/mol/K is 0.74984 J/g/K.
    table = heat(tmp_path, "net A,C2 O4,0.7498,,,,,,,", *(atom("net A", value) for value in (9, 11, 13)))
    assert table.rejects == [] and table.rows_read == 7
    found = {example.conditions["temperature"]: example for example in table.examples}
    assert sorted(found) == [float(kelvin) for kelvin in KELVINS]
    assert found[300.0].target == 0.7498 and found[300.0].row == "1 at 300 K"
    assert found[250.0].target == pytest.approx(9 / 14.6697, abs=1e-5)
    assert found[400.0].target == pytest.approx(15 / 14.6697, abs=1e-5)
    assert {example.material.key for example in table.examples} == {"name:net a"}
    assert {example.conditions["composition"] for example in table.examples} == {"C2 O4"}


def test_where_the_atoms_do_not_give_the_value_at_300_only_that_is_kept(tmp_path: Path) -> None:
    table = heat(tmp_path, "net A,C O2,0.76,,,,,,,", atom("net A", 11), "net B,C O2,0.75,,,,,,,")
    assert [example.row for example in table.examples] == ["1 at 300 K", "3 at 300 K"]
    assert table.rows_read == 14 and [reject.row for reject in table.rejects] == [1] * 6 + [3] * 6
    assert table.rejects[0].cause == "its atoms do not give its value at 300 K"
    assert "0.7498 instead of 0.7600 J/g/K from 1 atoms" in table.rejects[0].reason
    assert table.rejects[6].cause == "the rows of its atoms cannot be read or are not there"


def test_an_atom_that_cannot_be_read_spoils_its_framework_and_no_other(tmp_path: Path) -> None:
    good = [f"net {name},C O2,0.7498,,,,,,," for name in "AB"]
    broken = atom("net A", 13).replace("13.00", "x")
    table = heat(tmp_path, *good, atom("net A", 9), broken, atom("net B", 11), "short,row", atom("net C", 5))
    assert sorted(example.row for example in table.examples if example.material.text == "net A") == ["1 at 300 K"]
    assert sum(example.material.text == "net B" for example in table.examples) == 7
    causes = [(reject.row, reject.cause) for reject in table.rejects]
    assert causes[:2] == [(4, "no number"), (6, "the row has more or fewer cells than the header")]
    assert causes[2:8] == [(1, "the rows of its atoms cannot be read or are not there")] * 6
    assert causes[8:] == [(7, "an atom of a framework without composition")]
    assert "(row 4)" in table.rejects[2].reason


def test_a_composition_that_is_none_keeps_the_value_at_300_alone(tmp_path: Path) -> None:
    table = heat(tmp_path, "net A,Xx2,0.7498,,,,,,,", atom("net A", 11))
    assert len(table.examples) == 1 and {reject.cause for reject in table.rejects} == {"no composition"}


# alloys


def alloys(folder: Path, *lines: str) -> Table:
    file = folder / "a.csv"
    file.write_text("\n".join(["name,index,Phase", *lines]) + "\n")
    reader = {"name": "alloys", "material": "index", "target": "Phase", "row_id": "name"}
    return read(
        task(
            [file], reader, kind="classification", labels=["BCC", "FCC"], bounds=None, decimals=None, metric="accuracy",
            representation="composition",
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spoilt", "formula"),
    [
        ("Ti20NBCC2Mo58", "Ti20Nb22Mo58"),  # b2 of Nb
        ("Mg40YBCC0Zn40", "Mg40Yb20Zn40"),
        ("AgPBCC", "AgPb2"),
        ("BCCNi3", "B2Ni3"),
        ("Ni4BCC.5Si", "Ni4B2.5Si"),
        ("Ti0Zr50Cu50", "Zr50Cu50"),
        ("CoCrNi0.0", "CoCr"),
        ("(CoNi)50Mo0", "(CoNi)50"),
        ("Co0.5Ni0.05Cr10V1.0", "Co0.5Ni0.05Cr10V1.0"),  # nothing is zero
        ("CoO", "CoO"),
        ("Co0", "Co0"),  # nothing would be left, so it is refused as it stands
        ("", ""),
    ],
)
def test_formulas_of_alloys_are_mended(spoilt: str, formula: str) -> None:
    assert mended(spoilt) == formula


def test_only_the_formulas_are_mended(tmp_path: Path) -> None:
    table = alloys(tmp_path, "BCC1,Ni0CoNBCC,BCC", "x2,Fe0,FCC", "x3,CoFe,FCC,more", "x4,Co3Fe,FCC")
    assert [(e.row, e.material.given, e.target) for e in table.examples] == [
        ("BCC1", "CoNb2", "BCC"),
        ("x4", "Co3Fe", "FCC"),
    ]
    assert [(r.row, r.cause) for r in table.rejects] == [
        (2, "no composition"),
        (3, "the row has more or fewer cells than the header"),
    ]


# energies

ENERGIES = {"name": "energies", "material": "formula", "target": "energy"}


def measured(folder: Path, *items: Any, packed: bool = False) -> Table:
    file = folder / ("e.json.gz" if packed else "e.json")
    content = json.dumps(items).encode()  # NaN as Python and pymatgen write it
    file.write_bytes(gzip.compress(content) if packed else content)
    return read(task([file], ENERGIES, representation="composition", bounds=[-6, 4]))


@pytest.mark.parametrize("packed", [False, True])
def test_energies_are_divided_by_the_atoms_as_written(tmp_path: Path, packed: bool) -> None:
    table = measured(
        tmp_path,
        {"formula": "Hg2Cl2", "exp energy": -2.8, "uncertainty": float("nan"), "mpid": None},
        {"formula": "Al2(SO4)3", "exp energy": -34, "uncertainty": 0.1, "mpid": "mp-1"},
        packed=packed,
    )
    assert [(e.material.text, e.target, e.row) for e in table.examples] == [
        ("Hg Cl", -0.7, "1"),
        ("Al2 S3 O12", -2.0, "2"),
    ]


def test_items_without_formula_or_energy_are_rejects(tmp_path: Path) -> None:
    table = measured(
        tmp_path,
        {"formula": "NaCl"},
        {"formula": "NaCl", "exp energy": float("nan")},
        {"formula": "NaCl", "exp energy": True},
        {"formula": "Nax", "exp energy": -1},
        {"exp energy": -1},
        {"formula": "NaCl", "exp energy": -60},
        {"formula": "NaCl", "exp energy": -4},
    )
    assert [(e.row, e.target) for e in table.examples] == [("7", -2.0)]
    assert [reject.cause for reject in table.rejects] == [
        "no formula with an energy", "not finite", "no formula with an energy", "no composition",
        "no formula with an energy", "outside the bounds [-6, 4]",
    ]  # fmt: skip


def test_a_packed_file_that_is_broken_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "e.json.gz"
    for content in (b"no gzip", gzip.compress(b"[]")[:-9]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"e\.json\.gz: cannot be read"):
            read(task([file], ENERGIES, representation="composition"))
