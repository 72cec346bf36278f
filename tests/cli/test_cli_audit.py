"""`darwin audit` as a user meets it: verdicts, exit codes, the table, the JSON, and wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from conftest import Darwin
from tiny import tiny_rows, tiny_task

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tasks(tmp_path: Path, home: Path) -> list[str]:
    """Task files of one quantity with the same materials, whose seeded folds differ."""
    paths = []
    for kind in ("regression", "classification"):
        # The second has a few materials more, so that its folds fall otherwise.
        rows = tiny_rows(100 if kind == "regression" else 110, kind=kind)
        task = tiny_task(tmp_path, kind=kind, rows=rows, quantities=["band gap"])
        path = tmp_path / f"{task.id}.yaml"
        path.write_text(yaml.safe_dump(task.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
        paths.append(str(path))
    return paths


def recipe(folder: Path, tasks: list[str], **keys: object) -> str:
    path = folder / "mixed.yaml"
    path.write_text(yaml.safe_dump({"name": "mixed", "tasks": tasks, **keys}), encoding="utf-8")
    return str(path)


def test_a_leaky_recipe_is_code_1_with_the_pairs_in_a_table(darwin: Darwin, tasks: list[str], tmp_path: Path) -> None:
    done = darwin("audit", recipe(tmp_path, tasks, split={"rule": "none"}))
    assert done.code == 1
    assert done.out.startswith("LEAKY: mixed (tiny_gap, tiny_metal)\nfolds 0, 1, 2, 3, 4 (official), split.rule none\n")
    line = next(line for line in done.out.splitlines() if line.split()[:2] == ["tiny_gap", "tiny_metal"])
    assert line.split()[2] == "tune" and "of" in line and "%" in line
    assert "For example:" in done.out and "What the rule cost" not in done.out
    assert "all five folds are audited" in done.err and "fold: null" in done.err


def test_a_clean_recipe_is_code_0_with_its_cost(darwin: Darwin, tasks: list[str], tmp_path: Path) -> None:
    done = darwin("audit", recipe(tmp_path, tasks, fold=2))
    assert done.code == 0 and done.out.startswith("CLEAN: mixed")
    assert "What the rule cost" in done.out and "key in the test fold of tiny_metal" in done.out
    assert "For example:" not in done.out
    assert "not only the recipe's own (fold: 2)" in done.err


def test_what_cannot_be_compared_is_no_clean_bill(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    """A list of metals alone, of another quantity: its one label tells as much as it likes."""
    rows = tiny_rows(100)
    gap = tiny_task(tmp_path, rows=rows, quantities=["band gap"])
    metals = [(formula, "metal") for formula, value in rows if value == "0.0"]
    some = tiny_task(tmp_path, kind="classification", rows=[*metals, ("Xe F2", "not metal")], scored=False)
    both = []
    for task in (gap, some):
        both.append(str(tmp_path / f"{task.id}.yaml"))
        Path(both[-1]).write_text(yaml.safe_dump(task.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    done = darwin("audit", recipe(tmp_path, both))
    assert done.code == 0 and "which is no leak" not in done.out
    assert "with too few labels that can be compared. It is a leak if they say the same in other words" in done.out
    # All labels in other words are enough to know.
    told = [(formula, "not metal" if value == "3.0" else "metal") for formula, value in rows]
    whole = tiny_task(tmp_path, kind="classification", rows=told, scored=False)
    Path(both[-1]).write_text(yaml.safe_dump(whole.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    done = darwin("audit", recipe(tmp_path, both))
    assert done.code == 1 and "Labels that agree under another quantity's name" in done.out


def test_json_stands_alone(darwin: Darwin, tasks: list[str], tmp_path: Path) -> None:
    done = darwin("audit", recipe(tmp_path, tasks, split={"rule": "none"}), "--json")
    found = json.loads(done.out)
    assert done.code == 1 and found["verdict"] == "LEAKY"
    assert (found["recipe"], found["recipe_fold"], found["folds"]) == ("mixed", None, [0, 1, 2, 3, 4])
    pairs = [pair for pair in found["pairs"] if (pair["task"], pair["train_task"]) == ("tiny_gap", "tiny_metal")]
    assert [pair["fold"] for pair in pairs] == [0, 1, 2, 3, 4]
    assert all(pair["stage"] == "tune" and pair["share"] == pair["found"] / pair["test_rows"] for pair in pairs)
    total = next(t for t in found["totals"] if (t["task"], t["train_task"]) == ("tiny_gap", "tiny_metal"))
    assert total["found"] == sum(pair["found"] for pair in pairs) > 0
    assert total["labels_agree"] == total["labels_compared"] == total["found"] and total["test_rows"] == 100
    assert pairs[0]["examples"][0].keys() >= {"material", "target", "train_material", "train_target", "agree"}


def test_tasks_without_a_recipe(darwin: Darwin, tasks: list[str]) -> None:
    options = [word for task in tasks for word in ("--task", task)]
    clean = darwin("audit", *options, "--fold", "0", "--json")
    assert clean.code == 0 and clean.err == ""
    found = json.loads(clean.out)
    assert (found["verdict"], found["folds"], found["tasks"]) == ("CLEAN", [0], ["tiny_gap", "tiny_metal"])
    leaky = darwin("audit", *options, "--fold", "1", "--fold", "0", "--set", "split.rule=none", "--json")
    assert leaky.code == 1 and json.loads(leaky.out)["folds"] == [0, 1]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "give a recipe file or --task NAME"),
        (["x.yaml", "--task", "expt_gap"], "not both"),
        (["nowhere.yaml"], "nowhere.yaml is no recipe file"),
        (["--task", "expt_gapp"], "'expt_gapp' is no task; did you mean expt_gap"),
        (["--task", "expt_gap", "--task", "expt_gap"], "names one task twice"),
        (["--task", "expt_gap", "--fold", "5"], "'--fold': Input should be less than or equal to 4"),
        (["--task", "expt_gap", "--set", "split.rules=none"], "split.rules is no key of a recipe; did you mean rule?"),
        (["--task", "expt_gap", "--set", "split.rule=maybe"], "'key' or 'none', got 'maybe'"),
    ],
)
def test_wrong_usage_is_code_2(darwin: Darwin, home: Path, args: list[str], says: str) -> None:
    done = darwin("audit", *args)
    assert (done.code, done.out) == (2, "") and says in done.err


def test_a_recipe_without_a_rule_is_never_trained(darwin: Darwin, home: Path) -> None:
    done = darwin("train", str(ROOT / "recipes" / "darwin-matbench.yaml"))
    assert (done.code, done.out) == (2, "")
    assert "split.rule none" in done.err and "darwin audit" in done.err
