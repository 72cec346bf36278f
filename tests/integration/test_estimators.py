"""`DarwinRegressor` and `DarwinClassifier` among scikit-learn's tools, on a tiny base."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Composition
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from matdarwin import DarwinClassifier, DarwinRegressor
from matdarwin.data.folds import order
from matdarwin.fitting import grid
from matdarwin.materials import parse
from matdarwin.models.checkpoint import CheckpointError
from matdarwin.models.store import find_checkpoint, list_checkpoints
from tiny import tiny_base, tiny_rows

FORMULAS = [formula for formula, _ in tiny_rows(150)]
GAPS = [float(gap) for _, gap in tiny_rows(150)]
METALS = [label for _, label in tiny_rows(150, kind="classification")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


def regressor(base: Path, **changes: Any) -> DarwinRegressor:
    quick = {
        "epochs": 2,
        "minimum_steps": 40,
        "learning_rate": 1e-2,
        "batch_size": 16,
        "dtype": "fp32",
        "decimals": 1,
        "bounds": (0, 5),
    }
    return DarwinRegressor("band gap", unit="eV", base=str(base), **{**quick, **changes})


def classifier(base: Path, **changes: Any) -> DarwinClassifier:
    quick = {"epochs": 2, "minimum_steps": 40, "learning_rate": 1e-2, "batch_size": 16, "dtype": "fp32"}
    return DarwinClassifier("metal", base=str(base), **{**quick, **changes})


def test_regressor_end_to_end(home: Path, base: Path) -> None:
    fitted = regressor(base).fit(FORMULAS, GAPS)
    values = fitted.predict(FORMULAS[:10])
    assert values.dtype == np.float64 and values.shape == (10,) and np.isfinite(values).all()
    ends = fitted.predict_interval(FORMULAS[:10])
    assert ends.shape == (10, 2) and (ends[:, 0] <= values).all() and (values <= ends[:, 1]).all()
    wide = fitted.predict_interval(FORMULAS[:10], coverage=0.95)
    assert ((wide[:, 1] - wide[:, 0]) >= (ends[:, 1] - ends[:, 0])).all()
    answers = fitted.predict_distribution(FORMULAS[:2])
    assert answers[0] is not None and answers[0].median() == values[0]
    assert fitted.task_.property == "band gap" and fitted.n_features_in_ == 1 and is_regressor(fitted)
    counts = fitted.darwin_.card.tasks[fitted.task_.id].counts
    assert counts["calibration"] == 50 and sum(counts[part] for part in ("train", "validation", "calibration")) == 150
    # Never taken without being named.
    with pytest.raises(CheckpointError):
        find_checkpoint(None, [fitted.task_.id])
    assert find_checkpoint(fitted.darwin_.name).name == fitted.darwin_.name


def test_same_data_is_not_trained_again_and_other_data_is(home: Path, base: Path) -> None:
    first = regressor(base).fit(FORMULAS[:90], GAPS[:90])
    again = regressor(base).fit(np.array(FORMULAS[:90]), np.array(GAPS[:90]))
    other = regressor(base).fit(FORMULAS[:90], [*GAPS[:89], 2.0])
    assert first.checkpoint_ == again.checkpoint_ != other.checkpoint_
    assert len(list_checkpoints()) == 2
    assert np.array_equal(first.predict(FORMULAS[:5]), again.predict(FORMULAS[:5]))


@pytest.mark.parametrize("shape", ["array", "column", "series", "frame", "compositions", "rows"])
def test_shapes_of_x(home: Path, base: Path, shape: str) -> None:
    few = FORMULAS[:60]
    X: Any = {
        "array": np.array(few), "column": np.array(few, dtype=object).reshape(-1, 1), "series": pd.Series(few, index=range(5, 65)),
        "frame": pd.DataFrame({"formula": few}), "compositions": [Composition(formula) for formula in few], "rows": [[f] for f in few],
    }[shape]  # fmt: skip
    fitted = regressor(base, epochs=1).fit(X, pd.Series(GAPS[:60], index=range(5, 65)))
    assert fitted.task_.representation == "composition"
    assert fitted.predict(X).shape == (60,)


def test_the_name_of_a_frames_column_is_kept(home: Path, base: Path) -> None:
    fitted = regressor(base, epochs=1).fit(pd.DataFrame({"formula": FORMULAS[:60]}), GAPS[:60])
    assert fitted.feature_names_in_.tolist() == ["formula"] and fitted.n_features_in_ == 1
    assert not hasattr(fitted.fit(FORMULAS[:60], GAPS[:60]), "feature_names_in_")


def test_one_material_teaches_whatever_it_is_drawn_for(home: Path, base: Path) -> None:
    drawn = next(f for f in FORMULAS if order("validation|0", parse(f, "composition").key) < 0.1)
    fitted = regressor(base, epochs=1).fit([drawn], [2.0])
    assert fitted.darwin_.card.tasks[fitted.task_.id].counts["train"] == 1
    assert fitted.predict([drawn]).shape == (1,)


def test_repeats_never_cross_parts(home: Path, base: Path) -> None:
    X = [*FORMULAS[:100], *(formula.replace(" ", "") for formula in FORMULAS[:100])]
    fitted = regressor(base, epochs=1).fit(X, [*GAPS[:100], *GAPS[:100]])
    counts = fitted.darwin_.card.tasks[fitted.task_.id].counts
    assert sum(counts[part] for part in ("train", "validation", "calibration")) == 100


def test_classifier_end_to_end(home: Path, base: Path) -> None:
    fitted = classifier(base).fit(FORMULAS, METALS)
    assert list(fitted.classes_) == ["metal", "not metal"] and is_classifier(fitted)
    P = fitted.predict_proba(FORMULAS[:10])
    assert P.shape == (10, 2) and np.allclose(P.sum(axis=1), 1)
    assert list(fitted.predict(FORMULAS[:10])) == list(fitted.classes_[P.argmax(axis=1)])
    assert 0 <= fitted.score(FORMULAS, METALS) <= 1


@pytest.mark.parametrize("y", [[0, 1] * 30, [True, False] * 30, ["b", "a"] * 30, [3, 1, 2] * 20, [0.0, 1.0] * 30])
def test_classes_come_back_as_they_were(home: Path, base: Path, y: list[Any]) -> None:
    fitted = classifier(base, epochs=1).fit(FORMULAS[:60], y)
    assert list(fitted.classes_) == sorted(set(y))
    answers = fitted.predict(FORMULAS[:5])
    assert answers.dtype == fitted.classes_.dtype and set(answers.tolist()) <= set(y)


def test_balanced_answers_weigh_by_share(home: Path, base: Path) -> None:
    fitted = classifier(base, epochs=1, balanced=True).fit(FORMULAS, METALS)
    entry = fitted.darwin_.card.tasks[fitted.task_.id]
    shares = np.array([entry.shares[label] for label in entry.task.labels])
    expected = (fitted.predict_proba(FORMULAS[:20]) / shares).argmax(axis=1)
    assert list(fitted.predict(FORMULAS[:20])) == list(fitted.classes_[expected])


def test_sklearn_tools(home: Path, base: Path) -> None:
    model = regressor(base, epochs=1)
    copy = clone(model)
    assert copy.get_params() == model.get_params() and copy is not model
    assert copy.set_params(seed=3).seed == 3
    scores = cross_val_score(model, FORMULAS[:90], GAPS[:90], cv=3, scoring="neg_mean_absolute_error")
    assert scores.shape == (3,) and np.isfinite(scores).all() and (scores <= 0).all()
    search = GridSearchCV(classifier(base), {"epochs": [1, 2]}, cv=2).fit(
        np.array(FORMULAS[:60]), np.array(METALS[:60])
    )
    assert search.best_params_["epochs"] in (1, 2)
    assert "band gap" in repr(model)


def test_pickle(home: Path, base: Path) -> None:
    fitted = regressor(base, epochs=1).fit(FORMULAS[:60], GAPS[:60])
    expected = fitted.predict(FORMULAS[:5])
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict(FORMULAS[:5]), expected)


def test_few_rows_have_values_without_intervals(home: Path, base: Path) -> None:
    fitted = regressor(base).fit(FORMULAS[:40], GAPS[:40])
    assert np.isfinite(fitted.predict(FORMULAS[:3])).all()
    assert np.isnan(fitted.predict_interval(FORMULAS[:3])).all()


def test_unread_answers_are_nan_and_counted(home: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = regressor(base, epochs=1).fit(FORMULAS[:60], GAPS[:60])
    labels = classifier(base, epochs=1).fit(FORMULAS[:60], METALS[:60])
    for model in (fitted, labels):
        real = model.darwin_.predictor.distributions

        def some(*args: Any, real: Any = real, **options: Any) -> list[Any]:
            return [None if place == 1 else answer for place, answer in enumerate(real(*args, **options))]

        monkeypatch.setattr(model.darwin_.predictor, "distributions", some)
    with pytest.warns(UserWarning, match="1 of 3 materials have no readable answer"):
        assert [math.isnan(value) for value in fitted.predict(FORMULAS[:3])] == [False, True, False]
    with pytest.warns(UserWarning, match="1 of 3"):
        assert [value is None for value in labels.predict(FORMULAS[:3])] == [False, True, False]
    with pytest.warns(UserWarning, match="1 of 3"):
        assert np.isnan(labels.predict_proba(FORMULAS[:3])).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("X", "y", "says"),
    [
        (["GaN", "Xx2O", "ZnO"], [1, 2, 3], r"X\[1\] is no composition: `Xx` at position 0"),
        (["GaN", "ZnO"], [1, 2, 3], "X has 2 materials and y has 3"),
        (["GaN", "ZnO"], [1, float("nan")], r"y\[1\] is nan"),
        (["GaN", "ZnO"], ["high", "low"], "y holds what is no number"),
        (["GaN", "ZnO"], [[1, 2], [3, 4]], "y is a column"),
        ([["GaN", "x"]], [1], "one column"),
        ([], [], "y is a column"),
        (["GaN", "ZnO"], [1, 9], "outside the bounds"),
        (b"GaN", [1], "texts, not bytes"),
        (np.array("GaN"), [1], "give a list of them"),
    ],
)
def test_wrong_tables(home: Path, base: Path, X: Any, y: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        regressor(base).fit(X, y)
    assert list_checkpoints() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bounds": (0,)}, r"bounds are two numbers, .*; got \(0,\)"),
        ({"decimals": 9}, "decimals is a whole number from 0 to 6, or None to find out; got 9"),
        ({"unit": 3}, "the task of X and y: unit: "),
    ],
)
def test_wrong_parameters(home: Path, base: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        regressor(base).set_params(**options).fit(FORMULAS[:60], GAPS[:60])
    assert "\n" not in str(caught.value) and list_checkpoints() == []


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (["a"] * 60, "one class"),
        ([0.5, 1.5] * 30, r"y\[0\] is 0.5"),
        ([" a", "b"] * 30, "blanks"),
        (["", "b"] * 30, "empty"),
    ],
)
def test_wrong_classes(home: Path, base: Path, y: list[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        classifier(base).fit(FORMULAS[:60], y)


def test_wrong_materials_to_predict(home: Path, base: Path) -> None:
    with pytest.raises(NotFittedError):
        regressor(base).predict(["GaN"])
    fitted = regressor(base, epochs=1).fit(FORMULAS[:60], GAPS[:60])
    with pytest.raises(ValueError, match=r"X\[2\] is no composition"):
        fitted.predict(["GaN", "ZnO", "nonsense!"])
    with pytest.raises(ValueError, match="coverage"):
        fitted.predict_interval(["GaN"], coverage=2)
    assert fitted.predict([]).shape == (0,)
    assert fitted.predict_interval([]).shape == (0, 2)


def test_grid_is_found_from_the_values() -> None:
    assert grid([0.5, 1.25, 3.0], None, None) == {"bounds": [0.0, 5.5], "decimals": 2}
    assert grid([-1.0, 2.0], None, None) == {"bounds": [-4.0, 5.0], "decimals": 0}
    assert grid([7.0, 7.0], None, None)["bounds"] == [0.0, 14.0]
    third = grid([i / 3 for i in range(30)], None, None)
    assert third["decimals"] == 4
    assert grid([1.0, 2.5], 3, (0, 10)) == {"bounds": [0.0, 10.0], "decimals": 3}
    with pytest.raises(ValueError, match="give the log10"):
        grid([1e-6 * i for i in range(1, 30)] + [1e6], None, None)
    with pytest.raises(ValueError, match="bounds must rise"):
        grid([1.0], None, (3, 1))
    assert grid([1.0, 2.5], None, (0, 10.25)) == {"bounds": [0.0, 10.25], "decimals": 2}, "answers reach the bounds"
    with pytest.raises(ValueError, match="have 2 decimals, and answers have 1"):
        grid([1.0, 2.5], 1, (0, 10.25))


def test_smiles_that_are_formulas_too_are_taken_for_smiles(home: Path, base: Path) -> None:
    chains = ["C" * n + end for n in range(1, 20) for end in ("O", "N", "F")]
    fitted = regressor(base, epochs=1).fit(chains, [len(chain) / 10 for chain in chains])
    assert fitted.task_.representation == "molecule"
    with pytest.raises(ValueError, match="say which: representation composition or molecule"):
        regressor(base).fit(["CO", "BN", "CS"] * 20, [1.0, 2.0, 3.0] * 20)
