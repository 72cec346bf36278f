"""`darwin train`, `darwin evaluate` and `darwin demo`, on a tiny base."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from conftest import Darwin
from matdarwin.tasks import registry
from tiny import tiny_rows, tiny_task

QUICK = [
    "optimising.epochs=2",
    "optimising.minimum_steps=40",
    "optimising.learning_rate=0.01",
    "optimising.batch_size=16",
    "dtype=fp32",
]


def settings(base: Path, *more: str) -> list[str]:
    return [word for setting in (f"base={base}", *QUICK, *more) for word in ("--set", setting)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A user's own table, with columns that no one needs and one row that is no material."""
    path = tmp_path / "My Gaps.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["no", "formula", "gap / eV"])
        for number, (formula, gap) in enumerate([*tiny_rows(160), ("nonsense!", "1.0")]):
            writer.writerow([number, formula, float(gap) + (number % 7) / 10])
    return path


def own(table: Path, base: Path) -> list[str]:
    columns = ["--input-column", "formula", "--target-column", "gap / eV", "--property", "band gap", "--unit", "eV"]
    return ["train", "--data", str(table), *columns, *settings(base)]


@pytest.fixture
def recipe(tmp_path: Path, at_trained: Path) -> Path:
    task = tiny_task(tmp_path, id="tiny_own")
    (tmp_path / "tiny_own.yaml").write_text(task.model_dump_json(exclude_none=True))
    content = {
        "name": "try", "tasks": [str(tmp_path / "tiny_own.yaml")], "fold": 0, "base": str(at_trained / "base"), "dtype": "fp32", "role": "benchmark",
        "optimising": {"epochs": 1, "minimum_steps": 40, "learning_rate": 1e-2, "batch_size": 16}, "split": {"folds": "seeded"},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "recipe.yaml"


def test_own_table_from_csv_to_prediction(darwin: Darwin, at_trained: Path, table: Path) -> None:
    done = darwin(*own(table, at_trained / "base"), "--json")
    card = json.loads(done.out)
    assert done.code == 0
    assert card["name"].startswith("my-gaps-my_band_gap-") and card["role"] == "product"
    assert card["tasks"]["my_band_gap"]["unit"] == "eV" and card["tasks"]["my_band_gap"]["counts"]["train"] > 50
    assert card["validation"]["my_band_gap"][0] == "mae"
    assert "1 of 161 rows are rejected: column formula: no composition (1)." in done.err
    assert re.search(r"^  row 161: column formula: no composition: .*position", done.err, re.MULTILINE)
    assert "a number with 1 decimals" in done.err and "training: " in done.err and "loss " in done.err
    # Newest product: asked without --model and --task.
    answers = json.loads(darwin("predict", "GaN", "--task", "my_band_gap", "--json").out)
    assert answers[0]["model"] == card["name"] and answers[0]["status"] == "ok"
    again = darwin(*own(table, at_trained / "base"))
    assert again.code == 0 and "is there already" in again.err
    assert card["name"] in again.out and re.search(r"validation mae \S+ eV", again.out)


def test_recipe_with_settings(darwin: Darwin, at_trained: Path, recipe: Path) -> None:
    done = darwin("train", str(recipe), "--set", "seed=3", "--json")
    assert done.code == 0
    name = json.loads(done.out)["name"]
    assert name.startswith("try-tiny_own-fold0-") and (at_trained / "checkpoints" / name / "manifest.json").is_file()


def test_a_leaky_recipe_is_refused_or_called_so_wherever_it_is_told(
    darwin: Darwin, at_trained: Path, recipe: Path
) -> None:
    undivided = ["train", str(recipe), "--set", "split.rule=none"]
    refused = darwin(*undivided)
    assert refused.code == 2 and "--allow-leak" in refused.err and not refused.out
    told = darwin(*undivided, "--allow-leak")
    assert told.code == 0 and "(benchmark, LEAKY)" in told.out
    name = told.out.split()[0]
    assert json.loads(darwin(*undivided, "--allow-leak", "--json").out)["training"]["leaky"] is True
    assert "LEAKY" in (at_trained / "checkpoints" / name / "README.md").read_text()
    (answer,) = json.loads(darwin("predict", "GaN", "--model", name, "--json").out)
    assert any("LEAKY" in text for text in answer["notes"])
    # It is not to be had without the option because it stands already.
    assert darwin(*undivided).code == 2
    planned = darwin(*undivided, "--allow-leak", "--dry-run")
    assert planned.code == 0 and f"{name} (LEAKY): there already" in planned.out


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two scored tasks and one that is not, as if they were all of the library."""
    known = {
        "tiny_one": tiny_task(tmp_path, id="tiny_one"),
        "tiny_two": tiny_task(tmp_path, id="tiny_two", kind="classification"),
        "tiny_aux": tiny_task(tmp_path, id="tiny_aux", scored=False),
    }
    load = registry.load
    monkeypatch.setattr(registry, "names", lambda: sorted(known))
    monkeypatch.setattr(registry, "load", lambda name: known[name] if name in known else load(name))
    return [name for name, task in known.items() if task.scored]


def test_one_training_a_task(darwin: Darwin, at_trained: Path, recipe: Path, library: list[str]) -> None:
    done = darwin("train", str(recipe), "--task", "all", "--json")
    assert done.code == 0
    cards = json.loads(done.out)
    assert [list(card["tasks"]) for card in cards] == [[name] for name in library]
    assert all(re.match(f"try-{name}-fold0-", card["name"]) for name, card in zip(library, cards, strict=True))
    one = darwin("train", str(recipe), "--task", "tiny_two", "--json")
    assert json.loads(one.out) == cards[1:] and "is there already" in one.err, "a list, even of one"
    told = darwin("train", str(recipe), "-t", "tiny_one", "-t", "tiny_two")
    assert told.code == 0 and all(card["name"] in told.out for card in cards)
    assert darwin("train", str(recipe), "--task", "all", "--task", "tiny_one").code == 2
    near = darwin("train", str(recipe), "--task", "tiny_tow")
    assert near.code == 2 and "did you mean tiny_two" in near.err


def test_one_score_a_task(
    darwin: Darwin, at_trained: Path, recipe: Path, library: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(at_trained)
    done = darwin("evaluate", str(recipe), "--task", "all", "--fold", "0", "--no-baselines", "--json")
    assert done.code == 0
    assert [result["task"] for result in json.loads(done.out)] == library
    both = yaml.safe_load(recipe.read_text()) | {"tasks": library}
    recipe.write_text(yaml.safe_dump(both))
    refused = darwin("evaluate", str(recipe), "--task", "tiny_one", "--fold", "0")
    assert refused.code == 2 and "trains 2 tasks at once" in refused.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["train"], "give a recipe file or --data"),
        (["train", "nowhere.yaml"], "nowhere.yaml is no recipe file"),
        (["train", "x.yaml", "--data", "y.csv"], "not both"),
        (["train", "x.yaml", "--unit", "eV"], "--unit: only with --data"),
        (["train", "--data", "y.csv", "--unit", "eV"], "--data also needs --input-column, --target-column, --property"),
        (["evaluate", "nowhere.yaml"], "nowhere.yaml is no recipe file"),
        (["evaluate", "nowhere"], "is no checkpoint in"),
        (["evaluate", "nowhere", "--fold", "0"], "belong to a recipe"),
        (["train", "--data", "y.csv", "--task", "expt_gap"], "--task belongs to a recipe"),
        (["train", "x.yaml", "--task", "esol", "--set", "tasks=[glass]"], "both say what to train"),
        (["train", "nowhere.yaml", "--task", "esol"], "nowhere.yaml is no recipe file"),
        (["evaluate", "nowhere", "--task", "esol", "--task", "glass"], "of a checkpoint one task is scored"),
        (["evaluate", "x.yaml", "--wording", "1"], "--wording belongs to a checkpoint"),
        (["evaluate", "nowhere", "--wording", "rude"], "give the number of a wording, or held-out"),
        (["evaluate", "x.yaml", "--task", "esol", "--set", "tasks=[glass]"], "both say what to train"),
        (["evaluate", "x.yaml", "--set", "seed=1", "--set", "fold=2"], "use --fold 2"),
        (["evaluate", "x.yaml", "--set", "fold=null"], "use --fold NUMBER"),
    ],
)
def test_wrong_usage(darwin: Darwin, home: Path, args: list[str], says: str) -> None:
    done = darwin(*args)
    assert (done.code, done.out) == (2, "") and says in done.err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("optimising.epoch=3", "did you mean epochs"),
        ("optimising.epochs", "write key=value"),
        ("tasks=[expt_gpa]", "did you mean expt_gap"),
        ("tasks=[expt_gap]", "MATDARWIN_MIRROR"),
        ("base=smollm2-135", "did you mean smollm2-135m"),
        ("fold=9", "fold"),
        ("split.limit=0", "limit"),
    ],
)
def test_wrong_recipes(
    darwin: Darwin, at_trained: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, setting: str, says: str
) -> None:
    # A test that has the mirror may have read a table, which then needs no file any more.
    monkeypatch.setattr("matdarwin.data.readers._tables", {})
    done = darwin("train", str(recipe), "--set", setting)
    assert (done.code, done.out) == (2, "") and says in done.err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"--input-column": "formla"}, "did you mean 'formula'"),
        ({"--target-column": "formula"}, "name two columns"),
        ({"--property": "{x}"}, "without braces"),
        ({"--name": "Not A Name"}, "name"),
        ({"--set": "tasks=[expt_gap]"}, "to train several tasks, write a recipe"),
    ],
)
def test_wrong_tables(darwin: Darwin, at_trained: Path, table: Path, changes: dict[str, str], says: str) -> None:
    args = own(table, at_trained / "base")
    done = darwin(*args, *(word for pair in changes.items() for word in pair))
    assert (done.code, done.out) == (2, "") and says in done.err


def test_folder_that_another_run_holds(darwin: Darwin, at_trained: Path, recipe: Path) -> None:
    from matdarwin.models.checkpoint import hold

    assert darwin("train", str(recipe)).code == 0
    name = next(p.name for p in (at_trained / "checkpoints").iterdir() if p.name.startswith("try-"))
    with hold(name):
        done = darwin("train", str(recipe))
    assert done.code == 2 and "is held by another run" in done.err and str(os.getpid()) in done.err


def test_stopped_by_hand(darwin: Darwin, at_trained: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matdarwin.training import run

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "calibrations", stop)
    before = sorted(p.name for p in (at_trained / "checkpoints").iterdir() if not p.name.startswith("."))
    done = darwin("train", str(recipe), "--json")
    assert (done.code, done.out) == (130, "") and "stopped; nothing was sealed" in done.err
    assert sorted(p.name for p in (at_trained / "checkpoints").iterdir() if not p.name.startswith(".")) == before
    monkeypatch.undo()


def test_evaluate_a_recipe(
    darwin: Darwin, at_trained: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = darwin("evaluate", str(recipe), "--fold", "1", "--no-baselines", "--json")
    result = json.loads(done.out)[0]
    assert done.code == 0
    assert [fold["fold"] for fold in result["folds"]] == [1] and result["summary"]["mae"]["median"] >= 0
    shown = darwin("evaluate", str(recipe), "--fold", "1", "--no-baselines")
    assert shown.code == 0 and "tiny_own: fold 1" in shown.out and "mae" in shown.out and "read from" in shown.err
    assert (tmp_path / "results" / "board" / "tiny_own.try.json").is_file()


def test_evaluate_a_checkpoint(darwin: Darwin, at_trained: Path, recipe: Path) -> None:
    name = json.loads(darwin("train", str(recipe), "--json").out)["name"]
    done = darwin("evaluate", name, "--no-baselines")
    assert done.code == 0 and "median" in done.out and "tiny_own: fold 0" in done.out
    assert json.loads(darwin("evaluate", name, "--no-baselines", "--json").out)[0]["checkpoint"] == name
    wrong = darwin("evaluate", name, "--task", "tiny_won")
    assert wrong.code == 2


def test_evaluate_what_held_nothing_out(darwin: Darwin, at_trained: Path) -> None:
    one = next(p.name for p in (at_trained / "checkpoints").iterdir() if p.name.startswith("one-"))
    done = darwin("evaluate", one)
    assert done.code == 2 and "nothing is held out" in done.err


def test_demo(darwin: Darwin, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matdarwin.studies import demo
    from matdarwin.training.report import Report

    def quick(report: Report, *, folder: Path) -> Path:
        report.begin("training", 10)
        report.step(10, "loss 1.0")
        print("a library that talks")
        return folder / "report.html"

    monkeypatch.setattr(demo, "run_demo", quick)
    done = darwin("demo", "--folder", str(tmp_path), "--json")
    assert done.code == 0 and json.loads(done.out) == {"report": str(tmp_path / "report.html")}
    assert "a library that talks" in done.err and "10 of 10" in done.err


def test_demo_away_from_the_repository(darwin: Darwin, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert darwin("demo").code == 2
