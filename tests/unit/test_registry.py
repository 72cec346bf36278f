"""Tasks are found by id or path, and a faulty file is told what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matdarwin.tasks import registry
from matdarwin.tasks.registry import TaskFileError, UnknownTaskError, load, names, nearest

LIBRARY = ["esol", "expt_gap", "expt_is_metal", "glass", "steels_yield", "zhuo_gap", "zhuo_is_metal"]

YAML = """
id: hardness
version: 1
kind: regression
title: Hardness
property: hardness
quantities: [hardness]
unit: GPa
bounds: [0, 100]
decimals: 1
representation: composition
wordings: ["hardness of {material}"]
metric: mae
source: {kind: file, name: hardness.csv, sha256: "%s"}
reader: {material: formula, target: hardness}
licence: MIT
citation: ours
description: A task for tests.
""" % ("0" * 64)


def test_the_library_holds_the_tasks_of_this_version() -> None:
    assert set(LIBRARY) <= set(names())
    assert names() == sorted(names())


@pytest.mark.parametrize("name", names())
def test_every_task_of_the_library_is_sound(name: str) -> None:
    task = load(name)
    assert task.id == name
    assert 3 <= len(task.wordings) <= 6
    assert len(set(task.wordings)) == len(task.wordings)
    # The compact prompt shares its beginning over all rows, so nothing may follow the material.
    assert task.wordings[0].endswith("{material}")
    for wording in task.wordings:
        assert "NaCl" in wording.format(material="NaCl", conditions="")
    assert task.unit or task.kind == "classification" or name == "refractive_index"  # a pure number
    assert task.source.archive_sha256 or task.source.kind != "wheel"


BEFORE = {"for", "of", "given", "does", "how", "well", "is", "classify", "can", "no:", "in", "whether", "with"}
"""Words that go before a material and before "the given material" alike; a noun ("the alloy") does not."""


@pytest.mark.parametrize("name", names())
def test_a_wording_reads_as_english_with_a_material_and_with_the_words_for_one(name: str) -> None:
    task = load(name)
    # Steels were taught before this was seen; their results hang on all their wordings.
    for wording in task.wordings[1:2] if name == "steels_yield" else task.wordings[1:]:
        before = wording[: wording.index("{material}")].replace("{conditions}", "").split()
        assert not before or before[-1].casefold() in BEFORE or before[-1].endswith(","), wording
        assert not wording.startswith("{conditions}")


def test_files_of_one_repository_are_of_one_commit() -> None:
    from matdarwin.data.evidence import DATABASES

    sources = [source for name in names() for source in load(name).sources()]
    sources += [source for database in DATABASES for source in database.sources()]
    commits: dict[str, set[str | None]] = {}
    for source in sources:
        if source.kind == "github":
            commits.setdefault(source.name, set()).add(source.version)
        elif source.made_from and "CrabNet" in source.made_from:
            commits["anthony-wang/CrabNet"].add(source.made_from.partition(" @ ")[2][:40])
    assert commits["anthony-wang/CrabNet"] == {"457b4d4835737ecbe4dd33e53174bd818bd82143"}
    assert commits["CompRhys/roost"] == {"aaabc34d6ee6ac788e36f1c759c0582a997ea9b9"}


def test_board_tasks_have_official_folds_and_their_board_name() -> None:
    board = {name: load(name).board for name in LIBRARY if load(name).folds == "official"}
    assert board == {
        "expt_gap": "matbench_expt_gap",
        "expt_is_metal": "matbench_expt_is_metal",
        "glass": "matbench_glass",
        "steels_yield": "matbench_steels",
    }


def test_all_that_tell_of_a_gap_share_its_quantity() -> None:
    assert [name for name in LIBRARY if "band gap" in load(name).quantities] == [
        "expt_gap",
        "expt_is_metal",
        "zhuo_gap",
        "zhuo_is_metal",
    ]
    assert load("expt_gap").leads == ("band gap",)


def test_an_unknown_id_names_the_nearest() -> None:
    with pytest.raises(UnknownTaskError, match=r"'expt_gpa' is no task; did you mean expt_gap"):
        load("expt_gpa")


def test_an_id_like_none_lists_all() -> None:
    with pytest.raises(UnknownTaskError, match=r"known are .*expt_gap.*steels_yield"):
        load("xxxxxxxx")


def test_an_id_cannot_lead_out_of_the_library() -> None:
    with pytest.raises(UnknownTaskError):
        load("../library/expt_gap")


def test_nearest_does_not_mind_case_and_keeps_the_spelling() -> None:
    assert nearest("FORMULA", ["Formula", "target"]) == ["Formula"]
    assert nearest("zzz", ["Formula"]) == []


def test_a_task_loads_from_a_path(tmp_path: Path) -> None:
    file = tmp_path / "hardness.yaml"
    file.write_text(YAML, encoding="utf-8")
    assert load(str(file)).id == "hardness"


def test_a_path_without_a_file_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UnknownTaskError, match=r"there is no task file"):
        load(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("decimals: 1", "decimal: 1"), "f.yaml: decimal: unknown key; did you mean decimals?"),
        (("target: hardness}", "targett: hardness}"), "f.yaml: reader.target: this key is needed and absent"),
        (("target: hardness}", "targett: hardness}"), "f.yaml: reader.targett: unknown key; did you mean target?"),
        (("unit: GPa", "qqqqqqq: GPa"), "f.yaml: qqqqqqq: unknown key; known are id, version"),
        (("metric: mae", "metric: mea"), "f.yaml: metric: .*given 'mea'"),
        (("bounds: [0, 100]", "bounds: [9, 1]"), "f.yaml: task hardness: bounds must rise"),
        (("title: Hardness", "title: [Hardness"), "f.yaml: not valid YAML"),
        (
            ("description: A task for tests.", "conditions: [{name: a, units: K}]\ndescription: x"),
            r"conditions.0.units: unknown key; did you mean unit\?",
        ),
    ],
)
def test_a_fault_is_named_by_file_key_and_remedy(change: tuple[str, str], message: str) -> None:
    text = YAML.replace(*change)
    assert text != YAML
    with pytest.raises(TaskFileError, match=message.replace("[Hardness", "")):
        registry.parse(text, "f.yaml")


def test_a_list_is_no_task() -> None:
    with pytest.raises(TaskFileError, match=r"not list"):
        registry.parse("- a\n", "f.yaml")


def test_a_task_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes("title: Härte".encode("latin-1"))
    with pytest.raises(TaskFileError, match=r"not UTF-8"):
        load(str(file))


def test_yaml_cannot_run_code() -> None:
    with pytest.raises(TaskFileError, match=r"not valid YAML"):
        registry.parse("id: !!python/object/apply:os.getcwd []\n", "f.yaml")


def test_the_schema_documents_every_key() -> None:
    schema = registry.schema()
    assert {"id", "wordings", "source", "reader"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_loading_a_task_imports_nothing_heavy() -> None:
    code = (
        "import sys; from matdarwin.tasks import registry; registry.load('expt_gap'); import matdarwin.data.leakage, matdarwin.data.cards, matdarwin.data.custom;"
        "print([m for m in ('torch', 'pandas', 'pymatgen', 'rdkit', 'sklearn', 'transformers', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
