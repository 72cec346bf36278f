"""Estimators with scikit-learn's manners: a table in memory to a fine-tuned model, `fit` and `predict`.

Each `fit` leaves a sealed checkpoint in the folder `checkpoints` (role `benchmark`, so that it is never taken by default);
the same data with the same settings find it there and are not trained again.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from matdarwin import fitting
from matdarwin.api import Darwin, as_list, check_coverage, recipe_for
from matdarwin.data import guess
from matdarwin.materials.material import Kind, Material
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.prediction import Prediction
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Source, Task
from matdarwin.training.report import Report, Silent
from matdarwin.training.run import train

Floats = NDArray[np.float64]

_NAME = "fit"


class _Lines(Silent):
    """A report that prints its lines to stderr."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)


class _DarwinEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share. Parameters are documented in the subclasses."""

    property_name: str
    unit: str | None
    representation: Kind | None
    base: str
    method: Literal["full", "lora"]
    epochs: int
    batch_size: int
    learning_rate: float
    minimum_steps: int
    embeddings: Literal["used", "trained", "frozen"]
    views: int
    validation: float
    dtype: Literal["auto", "fp32", "bf16"]
    seed: int
    verbose: bool

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = True
        tags.input_tags.string = True
        tags.target_tags.required = True
        return tags

    def _fit(self, X: object, targets: Sequence[float | str], shape: dict[str, Any], *, calibration: float) -> Self:
        given = as_list(X)
        if len(given) != len(targets):
            raise ValueError(f"X has {len(given)} materials and y has {len(targets)} targets; they must be as many")
        kind = self.representation or guess.representation(given)
        materials = fitting.parsed(given, kind)
        task = self._task(materials, targets, kind, shape)
        examples = [
            Example(task=task.id, row=str(i), material=m, target=t)
            for i, (m, t) in enumerate(zip(materials, targets, strict=True))
        ]
        recipe = recipe_for(
            task, name=_NAME, role="benchmark", base=self.base, method=self.method, dtype=self.dtype, seed=self.seed,
            split={"validation": self.validation, "calibration": calibration, "seed": self.seed},
            optimising={
                "epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate,
                "minimum_steps": self.minimum_steps, "embeddings": self.embeddings,
            },
            predicting={"views": self.views},
            # A model that is to be asked in several orders must be taught in several.
            prompting={"order": "permuted" if self.views > 1 else "canonical"},
        )  # fmt: skip
        split = fitting.divide(task, examples, seed=self.seed, validation=self.validation, calibration=calibration)
        report: Report = _Lines() if self.verbose else Silent()
        self.darwin_ = Darwin(train(recipe, tasks=[task], split=split, report=report))
        self.task_ = task
        self.checkpoint_ = str(self.darwin_.checkpoint.folder)
        self.n_features_in_ = 1
        names = list(getattr(X, "columns", []))
        if len(names) == 1 and isinstance(names[0], str):
            self.feature_names_in_ = np.array(names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_  # of an earlier fit
        return self

    def _task(
        self, materials: Sequence[Material], targets: Sequence[float | str], kind: Kind, shape: dict[str, Any]
    ) -> Task:
        """The task that the data state; its source is the hash of the data, so that other data are another model."""
        property = " ".join(str(self.property_name).split())
        if not property or "{" in property or "}" in property:
            raise ValueError(
                f"property_name is given in words without braces, such as 'band gap'; got {self.property_name!r}"
            )
        rows = [
            [material.kind, material.key, *material.source_parts, target]
            for material, target in zip(materials, targets, strict=True)
        ]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        slug = re.sub(r"[^a-z0-9]+", "_", property.casefold()).strip("_") or "property"
        content: dict[str, Any] = {
            "id": f"my_{slug}"[:60],
            "version": 1,
            "title": f"{property}, fitted in Python",
            "property": property,
            "quantities": [property.casefold()],
            "unit": self.unit,
            "representation": kind,
            "wordings": [f"{property} of {{material}}"],
            "source": Source(kind="file", name="(memory)", sha256=digest),
            "reader": {"material": "X", "target": "y"},
            "licence": "the user's own",
            "citation": "the user's own data",
            "description": f"{property} of {len(targets)} rows given in memory.",
            **shape,
        }
        try:
            return Task.model_validate(content)
        except ValidationError as error:
            raise ValueError("; ".join(registry.render(error, "the task of X and y", Task))) from error

    def _ask(self, X: object, coverage: float | None = None) -> list[Prediction]:
        check_is_fitted(self, "darwin_")
        given = as_list(X)
        fitting.parsed(given, self.task_.representation)
        found = self.darwin_.predict(given, self.task_.id, coverage=0.9 if coverage is None else coverage)
        if unread := sum(prediction.value is None for prediction in found):
            warnings.warn(
                f"{unread} of {len(found)} materials have no readable answer; they are NaN (None for classes)",
                UserWarning,
                stacklevel=3,
            )
        return found

    def predict_distribution(self, X: object) -> list[AnswerDistribution | None]:
        """The whole answer for each material; None where none could be read.

        Args:
            X: Materials [n].

        Raises:
            ValueError: An element of X is no material; its index and token are named.
        """
        return [prediction.distribution for prediction in self._ask(X)]


class DarwinRegressor(RegressorMixin, _DarwinEstimator):  # type: ignore[misc]
    """A language model, fine-tuned on a table of numbers.

    Args:
        property_name: The property in words, as a question has it ("band gap").
        unit: Unit of y, for people; None for pure numbers.
        representation: How materials are given: composition, molecule or name; None to find out.
        base: Embedded base model, folder, or hub name.
        method: "full" (all weights move) or "lora".
        epochs: Passes over the training rows.
        batch_size: Rows a step.
        learning_rate: Peak learning rate.
        minimum_steps: Fewest steps; small tables are passed over more often to reach them.
        embeddings: Which token embeddings learn: "used" (of tokens that occur), "trained" (all, slower) or "frozen" (none).
        views: Element orders to average an answer over.
        coverage: Share of true values that `predict_interval` is to hold.
        decimals: Digits after the point of an answer, 0 to 6; None to find out from y.
        bounds: Least and greatest value of an answer; None to find out from y, with room to either side.
        validation: Share of the materials that choose the best epoch.
        calibration: Share of the materials that calibrate the intervals; at least 50 where there are enough.
        dtype: Number format while training: auto, fp32 or bf16.
        seed: Seed of everything random.
        verbose: Print progress to stderr.

    Attributes:
        darwin_: The fitted model.
        task_: The task as it was put to it.
        checkpoint_: Folder of its checkpoint.
        n_features_in_: 1, the column of materials.
        feature_names_in_: Name of that column, where X was a frame.
    """

    def __init__(
        self,
        property_name: str = "property",
        *,
        unit: str | None = None,
        representation: Kind | None = None,
        base: str = "smollm2-135m",
        method: Literal["full", "lora"] = "full",
        epochs: int = 6,
        batch_size: int = 32,
        learning_rate: float = 1.5e-4,
        minimum_steps: int = 150,
        embeddings: Literal["used", "trained", "frozen"] = "used",
        views: int = 1,
        coverage: float = 0.9,
        decimals: int | None = None,
        bounds: tuple[float, float] | None = None,
        validation: float = 0.1,
        calibration: float = 0.1,
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.property_name = property_name
        self.unit = unit
        self.representation = representation
        self.base = base
        self.method = method
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.minimum_steps = minimum_steps
        self.embeddings = embeddings
        self.views = views
        self.coverage = coverage
        self.decimals = decimals
        self.bounds = bounds
        self.validation = validation
        self.calibration = calibration
        self.dtype = dtype
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: object, y: object) -> Self:
        """Fine-tune on materials and their values.

        Args:
            X: Materials [n]: texts, compositions, structures or molecules; a list, array, Series or one-column frame.
            y: Values [n], in `unit`; finite.

        Raises:
            ValueError: X or y hold what is no material or number (index and token are named), or differ in length.
            TrainingError, BaseModelError, CheckpointError: See `matdarwin.training.run.train`.
        """
        check_coverage(self.coverage)
        values = fitting.numbers(y)
        shape = {"kind": "regression", "metric": "mae", **fitting.grid(values, self.decimals, self.bounds)}
        return self._fit(X, values, shape, calibration=self.calibration)

    def predict(self, X: object) -> Floats:
        """The median of each answer, in `unit` [n]; NaN where the model gave no readable one (with a warning).

        Raises:
            ValueError: An element of X is no material; its index and token are named.
        """
        return np.array([math.nan if p.value is None else float(p.value) for p in self._ask(X)], dtype=np.float64)

    def predict_interval(self, X: object, coverage: float | None = None) -> Floats:
        """Lower and upper end of calibrated intervals, in `unit` [n, 2].

        Args:
            X: Materials [n].
            coverage: Share of true values that they are to hold; None: the estimator's.

        Returns:
            NaN where there is no interval: an unread answer, or fewer than 30 materials to calibrate on.

        Raises:
            ValueError: An element of X is no material, or a coverage that is no share.
        """
        found = self._ask(X, self.coverage if coverage is None else coverage)
        ends = [[math.nan, math.nan] if p.lower is None or p.upper is None else [p.lower, p.upper] for p in found]
        return np.array(ends, dtype=np.float64).reshape(len(ends), 2)


class DarwinClassifier(ClassifierMixin, _DarwinEstimator):  # type: ignore[misc]
    """A language model, fine-tuned on a table of classes.

    Args:
        property_name: What is asked, in words ("class", "crystal system").
        unit: Not used; there for symmetry with `DarwinRegressor`.
        representation: How materials are given: composition, molecule or name; None to find out.
        base: Embedded base model, folder, or hub name.
        method: "full" (all weights move) or "lora".
        epochs: Passes over the training rows.
        batch_size: Rows a step.
        learning_rate: Peak learning rate.
        minimum_steps: Fewest steps; small tables are passed over more often to reach them.
        embeddings: Which token embeddings learn: "used" (of tokens that occur), "trained" (all, slower) or "frozen" (none).
        views: Element orders to average an answer over.
        balanced: Answer with the class that is likeliest in proportion to its training share (best for balanced
            accuracy) instead of the likeliest one (best for accuracy).
        validation: Share of the materials that choose the best epoch.
        dtype: Number format while training: auto, fp32 or bf16.
        seed: Seed of everything random.
        verbose: Print progress to stderr.

    Attributes:
        classes_: The classes, sorted, as y has them.
        darwin_: The fitted model.
        task_: The task as it was put to it.
        checkpoint_: Folder of its checkpoint.
        n_features_in_: 1, the column of materials.
        feature_names_in_: Name of that column, where X was a frame.
    """

    def __init__(
        self,
        property_name: str = "class",
        *,
        unit: str | None = None,
        representation: Kind | None = None,
        base: str = "smollm2-135m",
        method: Literal["full", "lora"] = "full",
        epochs: int = 6,
        batch_size: int = 32,
        learning_rate: float = 1.5e-4,
        minimum_steps: int = 150,
        embeddings: Literal["used", "trained", "frozen"] = "used",
        views: int = 1,
        balanced: bool = False,
        validation: float = 0.1,
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.property_name = property_name
        self.unit = unit
        self.representation = representation
        self.base = base
        self.method = method
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.minimum_steps = minimum_steps
        self.embeddings = embeddings
        self.views = views
        self.balanced = balanced
        self.validation = validation
        self.dtype = dtype
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: object, y: object) -> Self:
        """Fine-tune on materials and their classes.

        Args:
            X: Materials [n]: texts, compositions, structures or molecules; a list, array, Series or one-column frame.
            y: Classes [n]: all texts, all whole numbers (also as floats) or all booleans; two or more different ones.

        Raises:
            ValueError: X holds what is no material (index and token are named), y a single class or one that is missing
                or of another type, or their lengths differ.
            TrainingError, BaseModelError, CheckpointError: See `matdarwin.training.run.train`.
        """
        classes, texts, labels = fitting.classes(y)
        shape = {
            "kind": "classification",
            "metric": "balanced_accuracy" if self.balanced else "accuracy",
            "labels": labels,
            "positive": labels[1] if len(labels) == 2 else None,
        }
        self._fit(X, texts, shape, calibration=0.0)
        self.classes_ = classes
        return self

    def predict(self, X: object) -> NDArray[Any]:
        """The class of each material [n], as y had them; None where the model gave no readable answer (with a warning).

        Raises:
            ValueError: An element of X is no material; its index and token are named.
        """
        found = self._ask(X)
        place = {label: number for number, label in enumerate(self.task_.labels)}
        if all(p.value is not None for p in found):
            return np.asarray(self.classes_[[place[str(p.value)] for p in found]])
        return np.array([None if p.value is None else self.classes_[place[str(p.value)]] for p in found], dtype=object)

    def predict_proba(self, X: object) -> Floats:
        """Probability of each class, in the order of `classes_` [n, classes]; NaN where no answer could be read.

        Raises:
            ValueError: An element of X is no material; its index and token are named.
        """
        nothing = [math.nan] * len(self.task_.labels) if hasattr(self, "task_") else []
        rows = [
            nothing if p.distribution is None else list(map(float, p.distribution.probabilities)) for p in self._ask(X)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.classes_))
