"""What an answer hangs on: nearest materials, swaps, wordings, and whether a row is known to have taught."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matdarwin.api import Darwin
from matdarwin.commands.explain import _print
from matdarwin.data.sources import DataError
from matdarwin.materials import parse
from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.prediction.explain import CANDIDATES, ExplainError, explain, swaps_of
from matdarwin.prediction.neighbours import fractions, nearest, taught
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks.schema import Task
from tiny import at_home, tiny_base, tiny_checkpoint, tiny_task

QUICK = {"optimising": {"epochs": 1, "minimum_steps": 20, "learning_rate": 1e-2, "batch_size": 16}}


@pytest.fixture(scope="module")
def darwin(tmp_path_factory: pytest.TempPathFactory) -> Darwin:
    home = tmp_path_factory.mktemp("explained")
    tasks = [tiny_task(home), tiny_task(home, kind="classification")]
    with at_home(home):
        return Darwin(tiny_checkpoint(home, tasks=tasks, base=tiny_base(home / "base"), **QUICK))


@pytest.fixture(scope="module")
def predictor(darwin: Darwin) -> Predictor:
    return darwin.predictor


def test_distance_is_half_the_difference_of_the_fractions(tmp_path: Path) -> None:
    rows = [("GaN", "1.0"), ("Ga2N2", "3.0"), ("Ga3N", "2.0"), ("InN", "0.5"), ("CdTe", "1.5")]
    task = tiny_task(tmp_path, rows=rows)
    found = nearest(task, parse("GaN", "composition"), 10)
    # GaN stands twice, as one material with the median; CdTe has nothing in common and is no neighbour.
    assert [(n.material, n.distance, n.target) for n in found] == [
        ("Ga N", 0, 2.0),
        ("Ga3 N", 0.25, 2.0),
        ("In N", 0.5, 0.5),
    ]
    assert found[0].source == "file tiny_gap.csv, row 1" and found[0].unit == "eV" and found[0].training is None
    assert str(tmp_path) not in found[0].source


def test_of_equally_near_ones_the_most_alike_come_first(tmp_path: Path) -> None:
    rows = [("YN", "1"), ("LaN", "1"), ("InN", "1"), ("GaAs", "1"), ("AlN", "1"), ("RgN", "1")]
    found = nearest(tiny_task(tmp_path, rows=rows), parse("GaN", "composition"), 10)
    assert {n.distance for n in found} == {0.5}
    assert [n.material for n in found][:2] == ["Al N", "In N"] and found[-1].material in ("La N", "Y N")
    # An element past the end of the scale counts as the one above it, here gold.
    assert len(found) == 6


FORMULAS = st.lists(st.sampled_from(["Ga", "In", "N", "O", "Fe", "Cu"]), min_size=1, max_size=4, unique=True).flatmap(
    lambda symbols: st.tuples(*(st.integers(1, 9).map(lambda n, s=s: f"{s}{n}") for s in symbols)).map(" ".join)
)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A task whose index stands already."""
    task = tiny_task(tmp_path_factory.mktemp("indexed"))
    nearest(task, parse("GaN", "composition"))
    return task


@given(FORMULAS, st.integers(1, 7))
def test_the_index_agrees_with_the_definition(indexed: Task, formula: str, count: int) -> None:
    task = indexed
    asked = parse(formula, "composition")
    mine = fractions(asked)
    found = nearest(task, asked, count)
    assert len(found) <= count
    for one in found:
        other = fractions(parse(one.material, "composition"))
        apart = sum(abs(mine.get(e, 0.0) - other.get(e, 0.0)) for e in {*mine, *other}) / 2
        assert math.isclose(one.distance, apart, abs_tol=1e-8)
    assert [n.distance for n in found] == sorted(n.distance for n in found)
    every = nearest(task, asked, 1000)
    assert every[: len(found)] == found


def test_molecules_by_fingerprint_and_names_not_at_all(tmp_path: Path) -> None:
    rows = [("CCO", "1.0"), ("CCCO", "2.0"), ("c1ccccc1", "3.0")]
    molecules = tiny_task(tmp_path, id="tiny_molecule", rows=rows, representation="molecule")
    found = nearest(molecules, parse("OCC", "molecule"), 3)
    assert (found[0].material, found[0].distance) == ("CCO", 0.0)
    assert found[1].material == "CCCO" and 0 < found[1].distance < 1
    assert all(n.material != "c1ccccc1" for n in found)
    names = tiny_task(tmp_path, id="tiny_name", rows=[("amber", "1.0"), ("basalt", "2.0")], representation="name")
    assert nearest(names, parse("amber", "name"), 3) == []


def test_of_several_conditions_the_one_asked_for(tmp_path: Path) -> None:
    table = tmp_path / "warm.csv"
    table.write_text("composition,target,temperature\nGaN,1.0,300\nGaN,2.0,500\n")
    from hashlib import sha256

    task = tiny_task(tmp_path)
    content = task.model_dump() | {
        "conditions": [{"name": "temperature", "unit": "K"}],
        "reader": {"material": "composition", "target": "target", "conditions": {"temperature": "temperature"}},
        "source": {"kind": "file", "name": str(table), "sha256": sha256(table.read_bytes()).hexdigest()},
    }
    warm = Task.model_validate(content)
    material = parse("GaN", "composition")
    assert [n.target for n in nearest(warm, material, conditions={"temperature": 500})] == [2.0]
    assert [n.target for n in nearest(warm, material)] == [1.0]


def test_data_that_are_not_here_are_said(tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    Path(task.source.name).unlink()
    with pytest.raises(DataError, match="darwin data fetch tiny_gap"):
        nearest(task, parse("GaN", "composition"))


@pytest.mark.parametrize(
    ("symbol", "by"),
    [
        ("Ga", ["Al", "In", "Zn?", "Ge"]), ("N", ["P", "C", "O"]), ("F", ["Cl", "O"]), ("H", ["Li"]), ("Zn", ["Cd", "Cu"]),
        ("Y", ["Sc", "Lu", "Zr"]), ("Ce", ["Th", "La", "Pr"]), ("U", ["Nd", "Pa", "Np"]), ("Li", ["H", "Na", "Be"]),
    ],
)  # fmt: skip
def test_the_rule_of_swaps(symbol: str, by: list[str]) -> None:
    # Zn is left of Ga, but of another block.
    assert swaps_of(symbol) == [name for name in by if not name.endswith("?")]


def test_swaps_go_both_ways() -> None:
    asked = [name for name, value in ELECTRONEGATIVITY.items() if value is not None and name not in ("Kr", "Xe", "Rn")]
    for symbol in asked:
        for other in swaps_of(symbol):
            assert symbol in swaps_of(other), (symbol, other)


def test_explanation_of_a_number(darwin: Darwin, predictor: Predictor) -> None:
    found = explain(predictor, "GaN", "tiny_gap")
    alone = darwin.predict("GaN", "tiny_gap")[0]
    assert found.prediction.to_dict() == alone.to_dict()
    assert found.prompt == "band gap of Ga N:"
    assert [(c.element, c.material) for c in found.without_element] == [("Ga", "N"), ("N", "Ga")]
    assert [(c.element, c.by, c.material) for c in found.swapped_element] == [
        ("Ga", "Al", "Al N"), ("Ga", "In", "In N"), ("Ga", "Ge", "Ge N"), ("N", "P", "Ga P"), ("N", "C", "Ga C"), ("N", "O", "Ga O"),
    ]  # fmt: skip
    for change in (*found.without_element, *found.swapped_element):
        asked = darwin.predict(change.material, "tiny_gap")[0]
        assert change.value == asked.value
        assert change.delta == pytest.approx(float(asked.value or 0) - float(alone.value or 0), abs=1e-9)
    assert [w.asked for w in found.wordings] == [True, False] and found.wordings[0].value == alone.value
    assert [w.taught for w in found.wordings] == [True, False]
    assert found.elements == {e: darwin.card.tasks["tiny_gap"].elements[e] for e in ("Ga", "N")}
    plain = found.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert sum(plain["distribution"]["probabilities"]) == pytest.approx(1)
    assert set(plain["neighbours"][0]) == {"material", "distance", "target", "unit", "source", "training", "conditions"}


def test_no_two_elements_become_one(predictor: Predictor) -> None:
    found = explain(predictor, "Al0.5Ga0.5N", "tiny_gap", parts=["swaps"])
    assert all(c.by not in ("Al", "Ga", "N") for c in found.swapped_element)
    assert {c.material for c in found.swapped_element} >= {"Al0.5 In0.5 N"}


def test_explanation_of_a_class_and_of_one_element(predictor: Predictor) -> None:
    found = explain(predictor, "Fe", "tiny_metal")
    assert found.without_element == ()
    assert isinstance(found.prediction.value, str)
    assert all(c.delta is None or -1 <= c.delta <= 1 for c in found.swapped_element)
    assert any(c.delta for c in found.swapped_element)
    assert set(found.to_dict()["distribution"]) == {"labels", "probabilities"}


def test_what_is_no_material_is_said_and_nothing_else(predictor: Predictor) -> None:
    found = explain(predictor, "Xx2", "tiny_gap")
    assert found.prediction.status == "invalid" and found.prompt is None
    assert found.to_dict()["neighbours"] == [] and found.to_dict()["distribution"] is None


def test_a_question_that_is_too_long_is_asked_in_no_words(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "_longest", 5)
    asked: list[Any] = []
    monkeypatch.setattr(predictor._decoder, "distributions", lambda *given, **_: asked.extend(given[0]) or [])
    found = explain(predictor, "GaN", "tiny_gap", parts=["wordings", "embedding", "without", "swaps"])
    assert "at most 5 are read" in str(found.prediction.reason) and found.prompt is None and not asked


def test_parts_are_computed_where_they_are_asked_for(predictor: Predictor) -> None:
    found = explain(predictor, "GaN", "tiny_gap", parts=["neighbours"], neighbours=3)
    assert len(found.neighbours) == 3
    assert not (found.embedding_neighbours or found.without_element or found.swapped_element or found.wordings)
    with pytest.raises(ExplainError, match="'colour' is no part of an explanation; choose from neighbours"):
        explain(predictor, "GaN", "tiny_gap", parts=["colour"])
    with pytest.raises(ExplainError, match="1 or more, got 0"):
        explain(predictor, "GaN", "tiny_gap", neighbours=0)


def test_the_flag_training_is_what_the_run_did(darwin: Darwin, predictor: Predictor) -> None:
    card = darwin.card.tasks["tiny_gap"]
    keys = taught(predictor.tasks, predictor.recipe, "tiny_gap")
    assert keys is not None and len(keys) == card.counts["train"]
    found = explain(predictor, "GaN", "tiny_gap", neighbours=CANDIDATES).neighbours
    assert {n.training for n in found} == {True, False}
    assert all(n.training == (n.key in keys) for n in found)


@pytest.mark.parametrize("change", ["seed", "before", "no recipe", "no hash"])
def test_what_cannot_be_drawn_again_is_not_claimed(predictor: Predictor, change: str) -> None:
    recipe: dict[str, Any] | None = json.loads(json.dumps(predictor.recipe))
    tasks = dict(predictor.tasks)
    assert recipe is not None
    if change == "seed":
        recipe["split"]["seed"] = 7
    elif change == "before":
        recipe["before"] = [{"name": "earlier"}]
    elif change == "no recipe":
        recipe = None
    else:
        tasks["tiny_gap"] = tasks["tiny_gap"].model_copy(update={"parts": {}})
    assert taught(tasks, recipe, "tiny_gap") is None


def test_neighbours_that_cannot_be_had_leave_the_rest(
    predictor: Predictor, darwin: Darwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matdarwin.data import cards

    monkeypatch.setattr(cards, "away", lambda task: "it is elsewhere")
    found = explain(predictor, "GaN", "tiny_gap")
    assert found.neighbours == () and found.embedding_neighbours == ()
    assert found.neighbours_missing is not None and "darwin data fetch tiny_gap" in found.neighbours_missing
    assert found.swapped_element and found.wordings


def test_embeddings_do_not_depend_on_the_company(darwin: Darwin, predictor: Predictor) -> None:
    task = darwin.tasks["tiny_gap"]
    asked = [predictor.example(task, parse(text, "composition")) for text in ("GaN", "Al2O3", "GaN", "In0.5Ga0.5As")]
    states = predictor.embeddings(task, asked)
    assert states.shape == (4, 32)
    assert np.array_equal(states[0], states[2]) and not np.allclose(states[0], states[1])
    for one, state in zip(asked, states, strict=True):
        assert np.allclose(predictor.embeddings(task, [one])[0], state, atol=1e-5)


def test_nearest_by_embedding_is_the_material_itself(darwin: Darwin, predictor: Predictor) -> None:
    itself = nearest(darwin.tasks["tiny_gap"], parse("GaN", "composition"), 1)[0].material
    found = explain(predictor, itself, "tiny_gap", parts=["embedding"]).embedding_neighbours
    assert found[0].material == itself and found[0].distance == 0
    assert [n.distance for n in found] == sorted(n.distance for n in found)


@pytest.mark.parametrize(("material", "task"), [("GaN", "tiny_gap"), ("Fe", "tiny_metal"), ("Xx", "tiny_gap")])
def test_tables_for_people(
    darwin: Darwin, predictor: Predictor, material: str, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _print(explain(predictor, material, task), darwin.tasks[task])
    out = capsys.readouterr().out
    if material == "Xx":
        assert out.startswith("Xx: invalid\n") and "`Xx`" in out and "asked" not in out
    else:
        for said in ("asked:\n", "distribution", "by composition\n", "by embedding", "swapped", "in other words"):
            assert said in out
    assert "nan" not in out.lower().split()


def test_the_command_prints_json(
    darwin: Darwin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer
    from typer.testing import CliRunner

    from matdarwin.commands import explain as command

    assert "matdarwin.prediction.explain" in sys.modules
    monkeypatch.setattr(Darwin, "load", lambda *_, **__: darwin)
    app = typer.Typer()
    app.command()(command.explain)
    done = CliRunner().invoke(app, ["GaN", "--task", "tiny_gap", "--json", "--neighbours", "2"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == explain(darwin.predictor, "GaN", "tiny_gap", neighbours=2).to_dict()
    done = CliRunner().invoke(app, ["Xx", "--task", "tiny_gap"])
    assert done.exit_code == 1
