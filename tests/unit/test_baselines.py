"""The rivals: the same answers for the same seed, better than knowing nothing, and features that hide no gaps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matdarwin.data.sources import DataError
from matdarwin.evaluation import baselines, features
from matdarwin.evaluation.baselines import fit_predict, weigh
from matdarwin.evaluation.features import featurise
from matdarwin.evaluation.metrics import balanced_accuracy, mae, roc_auc
from matdarwin.materials.material import Kind, Material
from matdarwin.tasks.schema import Example, Task

RIVALS = {"dummy", "random_forest", "extra_trees_mean", "extra_trees_median", "lightgbm"}
FRACTIONS = {"extra_trees_mean_fractions", "extra_trees_median_fractions"}


def task(kind: str = "regression", representation: str = "composition", **changes: Any) -> Task:
    given: dict[str, Any] = {
        "id": "toy",
        "version": 1,
        "kind": kind,
        "title": "t",
        "property": "p",
        "quantities": ["q"],
        "representation": representation,
        "wordings": ["{material}"],
        "source": {"kind": "file", "name": "x.csv", "sha256": "0" * 64},
        "reader": {"material": "m", "target": "t"},
        "licence": "MIT",
        "citation": "ours",
        "description": "d",
    }
    numbers = {"bounds": [0, 100], "decimals": 1, "metric": "mae"}
    classes = {"labels": ["low", "high"], "positive": "high", "metric": "balanced_accuracy"}
    return Task.model_validate({**given, **(numbers if kind == "regression" else classes), **changes})


def material(*parts: str, kind: Kind = "composition") -> Material:
    text = " ".join(parts)
    return Material(kind, text, parts, parts, text, (text,), ())


def alloys(n: int, seed: int = 0) -> list[tuple[Material, float]]:
    """Iron with nickel and copper; the property is the percentage of nickel, and a little of copper's."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        nickel, copper = rng.uniform(0.01, 0.8), rng.uniform(0.01, 0.2)
        rows.append(
            (material(f"Fe{1 - nickel - copper:.4f}", f"Ni{nickel:.4f}", f"Cu{copper:.4f}"), 100 * nickel + 10 * copper)
        )
    return rows


def examples(rows: list[tuple[Material, float]], target: Callable[[float], float | str] = float) -> list[Example]:
    return [Example("toy", str(i), given, target=target(value)) for i, (given, value) in enumerate(rows)]


def halves(value: float) -> str:
    return "high" if value > 60 else "low"


def test_numbers_beat_the_dummy_and_a_seed_fixes_them(tmp_path: Path) -> None:
    rows = examples(alloys(90))
    train, test = rows[:60], rows[60:]
    results = fit_predict(task(), train, test, seed=1, cache=tmp_path, trees=30)
    assert set(results) == RIVALS | FRACTIONS
    truth = [float(str(row.target)) for row in test]
    errors = {name: mae(truth, [float(p) for p in result.predictions]) for name, result in results.items()}
    assert set(results["dummy"].predictions) == {float(np.median([float(str(row.target)) for row in train]))}
    for name in (RIVALS | FRACTIONS) - {"dummy"}:
        assert errors[name] < 0.5 * errors["dummy"], name
        assert results[name].name == name and results[name].seconds > 0 and results[name].probabilities is None
    assert results["lightgbm"].features == "magpie"
    assert results["extra_trees_mean_fractions"].features == "fractions"

    again = fit_predict(task(), train, test, seed=1, cache=tmp_path, trees=30, n_jobs=2)
    other = fit_predict(task(), train, test, seed=2, cache=tmp_path, trees=30)
    assert {n: r.predictions for n, r in again.items()} == {n: r.predictions for n, r in results.items()}
    assert other["random_forest"].predictions != results["random_forest"].predictions
    assert other["extra_trees_mean"].predictions != results["extra_trees_mean"].predictions


def test_median_over_the_trees_answers_zero_where_most_trees_do() -> None:
    # Two thirds of equal materials are 0, one third 9: the trees' mean is 3, but a leaf of one material has one value,
    # so materials must differ: the nearest in training decide.
    train = [
        Example("toy", str(i), material(f"Fe{1 + i / 1000:.3f}", "Ni"), target=9.0 if i % 3 == 0 else 0.0)
        for i in range(60)
    ]
    test = [Example("toy", str(i), material(f"Fe{1 + (i + 0.5) / 1000:.4f}", "Ni")) for i in range(5, 55)]
    results = fit_predict(task(), train, test, seed=0, trees=60)
    mean, median = (
        np.array(results[name].predictions, dtype=float) for name in ("extra_trees_mean", "extra_trees_median")
    )
    # Trees are fully grown, so each says 0 or 9, and so does their median; the mean lies between.
    assert set(np.unique(median)) <= {0.0, 4.5, 9.0}
    assert 0.5 < mean.mean() < 8.5
    assert np.count_nonzero(median == 0) > 25


def test_classes_beat_the_dummy_and_both_answers_are_given() -> None:
    rows = examples(alloys(120), halves)
    train, test = rows[:80], rows[80:]
    results = fit_predict(task("classification"), train, test, seed=0, trees=30)
    assert set(results) == RIVALS | FRACTIONS
    truth = [str(row.target) for row in test]
    for name, result in results.items():
        assert result.predictions == result.weighted
        assert result.plain is not None and result.probabilities is not None
        for row in result.probabilities:
            assert sum(row.values()) == pytest.approx(1.0)
        score = balanced_accuracy(truth, [str(p) for p in result.predictions], ("low", "high"))
        assert score == 0.5 if name == "dummy" else score > 0.8, name
        area = roc_auc(truth, result.probabilities, ("low", "high"), "high")
        assert area == 0.5 if name == "dummy" else area > 0.9, name
    assert set(results["dummy"].plain or ()) == {"low"}
    assert results["extra_trees_median"].predictions == results["extra_trees_mean"].predictions
    assert results["extra_trees_median"].note
    threaded = fit_predict(task("classification"), train, test, seed=0, trees=30, n_jobs=2)
    assert {n: r.probabilities for n, r in threaded.items()} == {n: r.probabilities for n, r in results.items()}
    by_accuracy = fit_predict(task("classification", metric="accuracy"), train, test, seed=0, trees=5)
    assert all(result.predictions == result.plain for result in by_accuracy.values())


def test_weighing_by_training_share() -> None:
    probabilities = np.array([[0.6, 0.4, 0.0], [0.8, 0.2, 0.0], [0.1, 0.1, 0.8]])
    # 0.6 / 0.7 < 0.4 / 0.3, but 0.8 / 0.7 > 0.2 / 0.3; a label never seen in training is never answered.
    assert weigh(probabilities, np.array([0.7, 0.3, 0.0])).tolist() == [1, 0, 1]


def test_a_label_without_training_rows_has_probability_zero() -> None:
    three = task("classification", labels=["low", "high", "other"], positive=None)
    rows = examples(alloys(40), halves)
    results = fit_predict(three, rows[:30], rows[30:], seed=0, trees=5)
    for result in results.values():
        assert result.probabilities is not None
        assert all(row["other"] == 0 for row in result.probabilities)
        assert "other" not in result.predictions


def test_features_of_compositions() -> None:
    magpie = featurise([material("Ga", "N"), material("Ga2", "N2")], "magpie")
    assert magpie.shape == (2, 132)
    assert np.array_equal(magpie[0], magpie[1]), "amounts count in proportion"
    assert magpie[0, :4].tolist() == pytest.approx([7.0, 31.0, 24.0, 19.0]), (
        "atomic number: least, greatest, range, mean"
    )
    fractions = featurise([material("Fe0.75", "C0.0000616", "Ni2.5e-1")], "fractions")
    total = 0.75 + 0.0000616 + 0.25
    assert fractions.shape == (1, 118)
    assert fractions[0, [25, 5, 27]].tolist() == pytest.approx(
        [0.75 / total, 0.0000616 / total, 0.25 / total], rel=1e-9
    )
    assert fractions.sum() == pytest.approx(1.0)
    with pytest.raises(features.FeatureError, match="'Fe\\?' in 'Fe\\? Ni' is no element"):
        featurise([material("Fe?", "Ni")], "fractions")


def test_gaps_of_magpie_are_filled_from_training_rows_and_counted() -> None:
    table = featurise([material("Og")], "magpie")
    assert np.isnan(table).all(), "matminer must not fill gaps with a mean over all elements"
    rows = examples(alloys(30))
    test = [Example("toy", "og", material("Og"))]
    results = fit_predict(task(), rows, test, seed=0, trees=5)
    assert results["lightgbm"].imputed == 132
    assert results["dummy"].imputed == 0
    assert all(np.isfinite(result.predictions[0]) for result in results.values())
    x, z, filled, _ = baselines._matrices("magpie", rows, test, None)
    assert (filled, np.isnan(z).sum()) == (132, 0)
    assert z[0] == pytest.approx(np.median(x, axis=0)), "the test row gets the training median"


def test_features_are_computed_once_and_read_back_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [material("Ga", "N"), material("Og"), material("Ga", "N")]
    calls: list[int] = []
    true_magpie = features._magpie

    def counting(materials: list[Material]) -> Any:
        calls.append(len(materials))
        return true_magpie(materials)

    monkeypatch.setattr(features, "_magpie", counting)
    first = featurise(given, "magpie", cache=tmp_path)
    second = featurise(given, "magpie", cache=tmp_path)
    assert np.array_equal(first, second, equal_nan=True)
    featurise([*given, material("Al", "N")], "magpie", cache=tmp_path)
    assert calls == [2, 1]
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("features-by-text-magpie-v1-matminer-")
    file.write_text("not parquet")
    with pytest.raises(features.FeatureError, match="no readable feature cache; delete it"):
        featurise(given, "magpie", cache=tmp_path)
    file.unlink()

    def full(self: object, path: Path, **_: object) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_parquet", full)
    with pytest.raises(DataError, match="the disk is full; free some space, or set MATDARWIN_HOME"):
        featurise(given, "magpie", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_was_asked_before_does_not_change_features(tmp_path: Path) -> None:
    one, other = (
        Material("molecule", text, (text,), (text,), "one InChIKey", (text,), ())
        for text in ("O=c1cc[nH]cc1", "Oc1ccncc1")
    )
    plain = featurise([other], "molecule")
    featurise([one], "molecule", cache=tmp_path)
    assert np.array_equal(featurise([other], "molecule", cache=tmp_path), plain, equal_nan=True)


def test_molecules_and_names() -> None:
    carbons = [material("C" * n + "O", kind="molecule") for n in range(1, 31)]
    rows = [Example("toy", str(n), given, target=float(3 * n)) for n, given in enumerate(carbons)]
    results = fit_predict(task(representation="molecule"), rows[::2], rows[1::2], seed=0, trees=20)
    assert set(results) == RIVALS
    truth = [float(str(row.target)) for row in rows[1::2]]
    errors = {name: mae(truth, [float(p) for p in result.predictions]) for name, result in results.items()}
    assert errors["extra_trees_mean"] < 0.3 * errors["dummy"]
    with pytest.raises(features.FeatureError, match="cannot read the SMILES"):
        featurise([material("C1CC", kind="molecule")], "molecule")
    name = featurise(
        [material("ZIF-8", kind="name"), material("ZIF-8", kind="name"), material("MOF-5", kind="name")], "name"
    )
    assert np.array_equal(name[0], name[1]) and not np.array_equal(name[0], name[2])


def test_conditions_are_columns() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        hot, phase = float(rng.uniform(0, 50)), "wet" if i % 2 else "dry"
        rows.append(
            Example("toy", str(i), material("Ga", "N"), {"temperature": hot, "state": phase}, target=hot + 40 * (i % 2))
        )
    results = fit_predict(task(), rows[:45], rows[45:], seed=0, trees=20)
    truth = [float(str(row.target)) for row in rows[45:]]
    assert mae(truth, [float(p) for p in results["extra_trees_mean"].predictions]) < 5


def test_nonsense_is_refused() -> None:
    rows = examples(alloys(4))
    with pytest.raises(baselines.BaselineError, match="no training rows"):
        fit_predict(task(), [], rows, seed=0)
    with pytest.raises(baselines.BaselineError, match="no test rows"):
        fit_predict(task(), rows, [], seed=0)
    with pytest.raises(baselines.BaselineError, match="of task other"):
        fit_predict(task(), [Example("other", "0", material("Ga"), target=1.0)], rows, seed=0)
    with pytest.raises(baselines.BaselineError, match="is a name, not a composition"):
        fit_predict(task(), rows, [Example("toy", "0", material("Ga", kind="name"))], seed=0)
    for target in (None, float("nan"), "low"):
        with pytest.raises(baselines.BaselineError, match="unusable target"):
            fit_predict(task(), [Example("toy", "0", material("Ga"), target=target)], rows, seed=0)
    with pytest.raises(baselines.BaselineError, match="all 4 training rows have the label 'low'"):
        fit_predict(task("classification"), examples(alloys(4), lambda _: "low"), rows, seed=0)
