"""The classical rivals on the same folds: dummy, random forest, extremely randomised trees and LightGBM."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdarwin.evaluation.features import FeatureSet, featurise
from matdarwin.materials.material import Kind
from matdarwin.tasks.schema import Example, Task

Floats = NDArray[np.float64]

TREES = 500
"""Trees of each forest."""

_FEATURES: dict[Kind, FeatureSet] = {"composition": "magpie", "molecule": "molecule", "name": "name"}


class BaselineError(ValueError):
    """Rows that no rival can be fitted on."""


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """What one rival answered for the test rows.

    Attributes:
        name: Name of the rival, as in the results file.
        features: Feature set it saw; "none" for the dummy.
        predictions: One answer a test row, the right one for the task's metric: a number in the task's unit, or a
            label (`weighted` for balanced accuracy, else `plain`).
        plain: Most probable label a row; None for numbers.
        weighted: Label of greatest probability / training share a row; None for numbers.
        probabilities: Probability of each label a row; None for numbers.
        seconds: Time to fit and predict. `extra_trees_mean` and `extra_trees_median` share one fit, whose time each has.
        feature_seconds: Time to compute or read the features, shared by all rivals of a call.
        imputed: Missing feature values (training and test rows) filled with the column's median over the training rows.
        note: What a reader of the score must know, or None.
    """

    name: str
    features: str
    predictions: tuple[float | str, ...]
    plain: tuple[str, ...] | None
    weighted: tuple[str, ...] | None
    probabilities: tuple[dict[str, float], ...] | None
    seconds: float
    feature_seconds: float = 0.0
    imputed: int = 0
    note: str | None = None


def fit_predict(
    task: Task,
    train: Sequence[Example],
    test: Sequence[Example],
    *,
    seed: int,
    cache: Path | None = None,
    n_jobs: int = 1,
    trees: int = TREES,
) -> dict[str, BaselineResult]:
    """Fit every rival on the training rows and answer the test rows.

    Rivals: `dummy` (median, for RMSE the mean, or majority of the training rows), `random_forest`, `extra_trees_mean`,
    `extra_trees_median` (median over the trees: the Bayes answer for the absolute error, where each fully grown tree
    counts as one draw) and `lightgbm` (L1 loss for numbers). Compositions are seen through Magpie's element
    statistics (10.1038/npjcompumats.2016.28) and, by the extra trees once more, as plain atomic fractions
    (`extra_trees_*_fractions`); molecules through RDKit's descriptors and a Morgan count fingerprint; names through
    hashed runs of characters. Conditions are appended as columns. Extremely randomised trees: 10.1007/s10994-006-6226-1.

    For classes the median over trees means nothing, so `extra_trees_median` repeats `extra_trees_mean` and says so in
    its note; the key stays, so that all results files have the same rivals.

    Args:
        task: The task that all rows belong to.
        train: Rows to learn from; each has a target.
        test: Rows to answer; their targets are not looked at.
        seed: Seed of every random choice; the same seed gives the same answers, whatever `n_jobs` is.
        cache: Folder of cached features (one parquet file a feature set), or None to compute them afresh.
        n_jobs: Threads for the forests and for LightGBM.
        trees: Trees of each forest.

    Returns:
        Results by name of the rival.

    Raises:
        BaselineError: No rows, rows of another task or kind, or training rows without a usable target.
    """
    _check(task, train, test)
    truth = [example.target for example in train]
    main = _FEATURES[task.representation]
    fit = _numbers if task.kind == "regression" else _classes
    results = fit(task, truth, main, *_matrices(main, train, test, cache), seed, n_jobs, trees, dummy=True)
    if main == "magpie":
        extra = fit(
            task, truth, "fractions", *_matrices("fractions", train, test, cache), seed, n_jobs, trees, dummy=False
        )
        results |= {f"{name}_fractions": replace(result, name=f"{name}_fractions") for name, result in extra.items()}
    return results


def weigh(probabilities: Floats, shares: Floats) -> NDArray[np.int64]:
    """Column of greatest probability / training share in each row: the Bayes answer for balanced accuracy.

    Args:
        probabilities: Array [rows, labels].
        shares: Share of each label among the training rows [labels]; a label of share 0 is never answered.
    """
    ratio = np.divide(probabilities, shares, out=np.full_like(probabilities, -1.0), where=shares > 0)
    return np.asarray(np.argmax(ratio, axis=1), dtype=np.int64)


def _check(task: Task, train: Sequence[Example], test: Sequence[Example]) -> None:
    """Refuse what no rival could be fairly fitted on."""
    for part, rows in (("training", train), ("test", test)):
        if not rows:
            raise BaselineError(f"baselines of {task.id}: no {part} rows")
        for example in rows:
            if example.task != task.id:
                raise BaselineError(
                    f"baselines of {task.id}: row {example.row} of the {part} part is of task {example.task}"
                )
            if example.material.kind != task.representation:
                raise BaselineError(
                    f"baselines of {task.id}: row {example.row} is a {example.material.kind}, not a {task.representation}"
                )
    for example in train:
        if task.kind == "regression":
            usable = isinstance(example.target, int | float) and bool(np.isfinite(example.target))
        else:
            usable = example.target in task.labels
        if not usable:
            raise BaselineError(
                f"baselines of {task.id}: training row {example.row} has the unusable target {example.target!r}"
            )


def _numbers(
    task: Task, truth: Sequence[float | str | None], features: str, x: Floats, z: Floats, imputed: int,
    feature_seconds: float, seed: int, n_jobs: int, trees: int, *, dummy: bool,
) -> dict[str, BaselineResult]:  # fmt: skip
    """Regression rivals on the matrices `x` (training) and `z` (test); only the extra trees unless `dummy`."""
    from lightgbm import LGBMRegressor
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

    y = np.asarray(truth, dtype=np.float64)
    low, high = task.bounds or (-np.inf, np.inf)
    results = {}

    def add(name: str, values: Floats, seconds: float) -> None:
        clipped = tuple(float(value) for value in np.clip(values, low, high))
        seen, fill = ("none", 0) if name == "dummy" else (features, imputed)
        results[name] = BaselineResult(name, seen, clipped, None, None, None, seconds, feature_seconds, fill)

    if dummy:
        add("dummy", np.full(len(z), np.mean(y) if task.metric == "rmse" else np.median(y)), 0.0)
        forest = RandomForestRegressor(trees, max_features=1 / 3, random_state=seed, n_jobs=n_jobs)
        single, seconds = _timed(lambda: _each_tree(forest.fit(x, y), z))
        add("random_forest", single.mean(axis=0), seconds)
    extra = ExtraTreesRegressor(trees, bootstrap=False, random_state=seed, n_jobs=n_jobs)
    # One fit answers twice: the trees' single answers [trees, rows], then their mean and their median.
    single, seconds = _timed(lambda: _each_tree(extra.fit(x, y), z))
    add("extra_trees_mean", single.mean(axis=0), seconds)
    add("extra_trees_median", np.median(single, axis=0), seconds)
    if dummy:
        boosting = LGBMRegressor(objective="l1", **_boosting(seed, n_jobs))
        values, seconds = _timed(lambda: boosting.fit(x, y).predict(z))
        add("lightgbm", values, seconds)
    return results


def _classes(
    task: Task, truth: Sequence[float | str | None], features: str, x: Floats, z: Floats, imputed: int,
    feature_seconds: float, seed: int, n_jobs: int, trees: int, *, dummy: bool,
) -> dict[str, BaselineResult]:  # fmt: skip
    """Classification rivals, as `_numbers`."""
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    labels = task.labels
    y = np.array([labels.index(str(target)) for target in truth])
    shares = np.bincount(y, minlength=len(labels)) / len(y)
    results = {}

    def add(name: str, model: Any) -> None:
        def answer() -> Floats:
            model.fit(x, y)
            # A label that no training row has keeps the probability 0.
            full = np.zeros((len(z), len(labels)))
            forest = hasattr(model, "estimators_")
            full[:, model.classes_] = _each_tree(model, z).mean(axis=0) if forest else model.predict_proba(z)
            return full

        if model is None:
            probabilities, seconds = np.tile(shares, (len(z), 1)), 0.0
            plain = weighted = np.argmax(probabilities, axis=1)
        else:
            probabilities, seconds = _timed(answer)
            plain, weighted = np.argmax(probabilities, axis=1), weigh(probabilities, shares)
        by_plain, by_weight = (tuple(labels[i] for i in column) for column in (plain, weighted))
        results[name] = BaselineResult(
            name=name,
            features="none" if model is None else features,
            predictions=by_weight if task.metric == "balanced_accuracy" else by_plain,
            plain=by_plain,
            weighted=by_weight,
            probabilities=tuple(dict(zip(labels, map(float, row), strict=True)) for row in probabilities),
            seconds=seconds,
            feature_seconds=feature_seconds,
            imputed=0 if model is None else imputed,
        )

    if np.count_nonzero(shares) < 2:
        raise BaselineError(f"baselines of {task.id}: all {len(y)} training rows have the label {labels[y[0]]!r}")
    if dummy:
        add("dummy", None)
        add("random_forest", RandomForestClassifier(trees, random_state=seed, n_jobs=n_jobs))
    add("extra_trees_mean", ExtraTreesClassifier(trees, bootstrap=False, random_state=seed, n_jobs=n_jobs))
    note = "classes have no median over the trees: the same answers as extra_trees_mean"
    results["extra_trees_median"] = replace(results["extra_trees_mean"], name="extra_trees_median", note=note)
    if dummy:
        add("lightgbm", LGBMClassifier(**_boosting(seed, n_jobs)))
    return results


def _each_tree(forest: Any, z: Floats) -> Floats:
    """Answers of the single trees [trees, rows], or their probabilities [trees, rows, labels], always in the same order.

    The forest's own `predict` adds the trees up in the order in which threads finish, so its last bits differ from run to run.
    """
    narrow = z.astype(np.float32)
    ask = "predict_proba" if hasattr(forest, "classes_") else "predict"
    return np.stack([getattr(tree, ask)(narrow) for tree in forest.estimators_])


def _boosting(seed: int, n_jobs: int) -> dict[str, Any]:
    """Settings of LightGBM, the same for numbers and classes; `deterministic` makes threads harmless."""
    return {
        "n_estimators": 500,
        "learning_rate": 0.05,
        "min_child_samples": 10,
        "random_state": seed,
        "n_jobs": n_jobs,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `work` and the seconds it took."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
        # scikit-learn warns that LightGBM was fitted with names it made up itself.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        result = work()
    return result, time.perf_counter() - begin


def _matrices(
    features: FeatureSet, train: Sequence[Example], test: Sequence[Example], cache: Path | None
) -> tuple[Floats, Floats, int, float]:
    """Training and test matrices without gaps, how many values were filled, and the seconds it took."""
    begin = time.perf_counter()
    rows = [*train, *test]
    table = featurise([example.material for example in rows], features, cache=cache)
    table = np.hstack([table, _conditions(rows, len(train))])
    table[~np.isfinite(table)] = np.nan
    gaps = np.isnan(table)
    if gaps.any():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="All-NaN slice")
            median = np.nanmedian(table[: len(train)], axis=0)
        # A column that no training row has tells nothing: one constant for all.
        table = np.where(gaps, np.nan_to_num(median, nan=0.0), table)
    return table[: len(train)], table[len(train) :], int(gaps.sum()), time.perf_counter() - begin


def _conditions(rows: Sequence[Example], training: int) -> Floats:
    """Conditions as columns [rows, columns]: numbers as they are (NaN where missing), texts one column a value seen in training."""
    columns = []
    for name in sorted({name for example in rows for name in example.conditions}):
        given = [example.conditions.get(name) for example in rows]
        if any(isinstance(value, str) for value in given):
            for value in sorted({str(seen) for seen in given[:training] if seen is not None}):
                columns.append([float(str(one) == value) for one in given])
        else:
            columns.append([float("nan") if one is None else float(one) for one in given])
    return np.array(columns, dtype=np.float64).reshape(len(columns), len(rows)).T
