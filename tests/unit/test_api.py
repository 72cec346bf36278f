"""`Darwin` in Python: what it takes, what it gives, and what it refuses."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Composition, Lattice, Structure

import matdarwin
from matdarwin import Darwin, Prediction
from matdarwin.api import QuestionError, as_list, example_of, recipe_for
from matdarwin.models.checkpoint import CheckpointError
from matdarwin.tasks.schema import Condition
from matdarwin.training.recipe import RecipeError
from tiny import tiny_base, tiny_checkpoint, tiny_recipe, tiny_task


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with one checkpoint of a gap that needs a temperature, and of a class."""
    root = tmp_path_factory.mktemp("api")
    base = tiny_base(root / "base")
    gap, metal = tiny_task(root), tiny_task(root, kind="classification")
    patch = pytest.MonkeyPatch()
    patch.setenv("MATDARWIN_HOME", str(root))
    tiny_checkpoint(
        root,
        tasks=[gap, metal],
        base=base,
        optimising={"epochs": 1, "minimum_steps": 40, "learning_rate": 1e-2, "batch_size": 16},
    )
    yield root
    patch.undo()


@pytest.fixture(scope="module")
def darwin(home: Path) -> Darwin:
    return Darwin.load()


def test_public_names() -> None:
    assert set(matdarwin.__all__) <= set(dir(matdarwin))
    for name in matdarwin.__all__:
        assert getattr(matdarwin, name)
    with pytest.raises(AttributeError, match="Darvin"):
        matdarwin.Darvin  # noqa: B018


def test_loading(darwin: Darwin, home: Path) -> None:
    assert Darwin.load(darwin.name).name == Darwin.load(home / "checkpoints" / darwin.name).name == darwin.name
    assert list(darwin.tasks) == ["tiny_gap", "tiny_metal"] and darwin.card.role == "product"
    assert darwin.name in repr(darwin)
    with pytest.raises(CheckpointError, match="did you mean"):
        Darwin.load(darwin.name[:-1])


def test_predictions(darwin: Darwin) -> None:
    found = darwin.predict(["GaN", "Xx", "ZnO"], "tiny_gap")
    assert [type(p) for p in found] == [Prediction] * 3
    assert [p.status for p in found] == ["ok", "invalid", "ok"]
    assert found[0].distribution is not None and found[0].model == darwin.name
    frame = found.to_frame()
    assert list(frame["input"]) == ["GaN", "Xx", "ZnO"] and frame["value"].isna().tolist() == [False, True, False]
    json.dumps([p.to_dict() for p in found], allow_nan=False)


def test_several_tasks_go_material_by_material(darwin: Darwin) -> None:
    seen: list[tuple[int, int]] = []
    found = darwin.predict(
        ["GaN", "ZnO"], ["tiny_gap", "tiny_metal"], progress=lambda done, total: seen.append((done, total))
    )
    assert [(p.input, p.task) for p in found] == [
        ("GaN", "tiny_gap"),
        ("GaN", "tiny_metal"),
        ("ZnO", "tiny_gap"),
        ("ZnO", "tiny_metal"),
    ]
    assert seen[-1] == (4, 4)
    alone = darwin.predict("ZnO", "tiny_metal")[0]
    assert (found[3].value, found[3].to_dict()["probabilities"]) == (
        alone.value,
        pytest.approx(alone.to_dict()["probabilities"], abs=1e-4),
    )


def test_materials_of_every_kind(darwin: Darwin) -> None:
    structure = Structure(Lattice.cubic(4.5), ["Ga", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    expected = darwin.predict("GaN", "tiny_gap")[0].value
    for given in (
        Composition("GaN"),
        structure,
        [Composition("GaN")],
        np.array(["GaN"]),
        np.array([["GaN"]]),
        pd.Series(["GaN"]),
        ("GaN",),
    ):
        found = darwin.predict(given, "tiny_gap")
        assert [p.value for p in found] == [expected], given
    assert darwin.predict(pd.DataFrame({"c": ["GaN", "Xx"]}), "tiny_gap")[1].status == "invalid"
    assert darwin.predict([], "tiny_gap") == []
    assert [p.status for p in darwin.predict([None, float("nan"), 3, ""], "tiny_gap")] == ["invalid"] * 4


def test_list_of_materials() -> None:
    from rdkit import Chem

    molecule = Chem.MolFromSmiles("CCO")
    assert as_list(molecule) == [molecule]
    assert as_list([["GaN"], ["ZnO"]]) == ["GaN", "ZnO"]
    assert as_list(iter(["GaN"])) == ["GaN"]
    assert as_list(None) == [None]
    for text in (b"GaN", bytearray(b"GaN")):
        with pytest.raises(QuestionError, match="texts, not bytes"):
            as_list(text)
    for array in (np.array("GaN"), np.array([[["GaN"]]])):
        with pytest.raises(QuestionError, match="give a list of them"):
            as_list(array)
    assert as_list(np.str_("GaN")) == ["GaN"] and as_list(np.float64(3)) == [3.0]
    for wrong in (np.array([["GaN", "x"]]), pd.DataFrame({"a": ["x"], "b": ["y"]}), [["GaN", "x"]]):
        with pytest.raises(QuestionError, match="one column"):
            as_list(wrong)


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [
        (None, {}, "say which: tiny_gap, tiny_metal"),
        ([], {}, "no task is named"),
        ("tiny_gpa", {}, "did you mean tiny_gap"),
        ("zzz", {}, "it knows tiny_gap, tiny_metal"),
        ("tiny_gap", {"coverage": 1.0}, "coverage lies between 0 and 1"),
        ("tiny_gap", {"conditions": {"temperature": 300}}, "has no condition 'temperature'"),
    ],
)
def test_wrong_questions(darwin: Darwin, task: str | None, options: dict[str, object], says: str) -> None:
    with pytest.raises(QuestionError, match=says):
        darwin.predict(["GaN"], task, **options)  # type: ignore[arg-type]


def test_conditions_go_to_the_tasks_that_have_them(darwin: Darwin, monkeypatch: pytest.MonkeyPatch) -> None:
    warm = darwin.tasks["tiny_gap"].model_copy(
        update={"conditions": (Condition(name="temperature", unit="K"), Condition(name="phase", required=False))}
    )
    monkeypatch.setattr(
        Darwin, "tasks", property(lambda self: {"tiny_gap": warm, "tiny_metal": self.card.tasks["tiny_metal"].task})
    )
    assert darwin.conditions(["tiny_gap", "tiny_metal"], {"temperature": "300", "phase": "bcc"}) == {
        "tiny_gap": {"temperature": 300.0, "phase": "bcc"}, "tiny_metal": {},
    }  # fmt: skip
    with pytest.raises(QuestionError, match="needs the condition 'temperature'"):
        darwin.conditions(["tiny_gap"], {})
    with pytest.raises(QuestionError, match="is a number, got 'hot'"):
        darwin.conditions(["tiny_gap"], {"temperature": "hot"})


def test_pickle_leaves_the_weights_behind(darwin: Darwin) -> None:
    value = darwin.predict("GaN", "tiny_gap")[0].value
    sent = pickle.dumps(darwin)
    assert len(sent) < 100_000
    assert pickle.loads(sent).predict("GaN", "tiny_gap")[0].value == value


def test_training_from_python(home: Path) -> None:
    task = tiny_task(home)
    made = Darwin.train(tiny_recipe(home / "base", [task], name="python", optimising={"epochs": 1}), tasks=[task])
    assert made.name.startswith("python-") and made.resolve() == ["tiny_gap"]


def test_recipe_for_a_task(home: Path) -> None:
    task = tiny_task(home)
    recipe = recipe_for(task, name="mine", settings=["optimising.epochs=9"], base="x", optimising={"batch_size": 4})
    assert (recipe.optimising.epochs, recipe.optimising.batch_size, recipe.optimising.minimum_steps) == (9, 4, 150)
    assert (recipe.role, recipe.fold, recipe.base, recipe.tasks) == ("product", None, "x", ("tiny_gap",))
    with pytest.raises(RecipeError, match="write a recipe file"):
        recipe_for(task, settings=["tasks=[expt_gap]"])


def test_example(home: Path, tmp_path: Path) -> None:
    task = tiny_task(tmp_path, rows=[("Ga2 O3", "3.04")])
    assert example_of(task) == {"prompt": "band gap of Ga2 O3:", "answer": " 3.0"}
    Path(task.source.name).unlink()
    assert example_of(task.model_copy(update={"version": 2})) is None
