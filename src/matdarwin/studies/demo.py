"""The demonstration: a fine-tune of minutes on real data, scored beside its classical rivals, as one page of HTML."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from matdarwin.data import disk, leakage, sources
from matdarwin.data.leakage import Split
from matdarwin.evaluation import baselines, results
from matdarwin.evaluation.features import FEATURE_VERSION
from matdarwin.evaluation.metrics import score_regression
from matdarwin.materials import parse
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.predictor import Predictor
from matdarwin.studies.outcome import (
    FORMAT,
    Asked,
    Covered,
    Curve,
    DemoResult,
    HeldOut,
    LanguagePart,
    Rival,
    RivalsPart,
)
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.recipe import Recipe
from matdarwin.training.recipe_files import load_recipe
from matdarwin.training.report import Report
from matdarwin.training.run import split_of, train

RECIPE = Path("recipes") / "demo.yaml"
COVERAGE = 0.9
NOMINAL = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
FORMULAS = (
    "CdCu2SnS4", "CdTe", "Cu2ZnSnS4", "TiO2", "Si", "MgO", "CdS", "InAs", "GaN", "ZnO", "GaAs", "CuInSe2", "BaTiO3", "PbTe",
    "Ga2O3", "AlN", "NaCl", "LiNbO3", "Bi2Te3", "SiC",
)  # fmt: skip
"""Well-known semiconductors and insulators; the first `ASKED` that nothing was learnt from are predicted."""

ASKED = 6
"""Formulas to predict."""

Part = TypeVar("Part", bound=BaseModel)


class DemoError(RuntimeError):
    """A demonstration that cannot be given, and what to do about it."""


def run_demo(report: Report, *, folder: Path, recipe: Path = RECIPE, trees: int = baselines.TREES) -> Path:
    """Train (or reuse) the demonstration's model, score it beside its rivals, and write `report.html` and `result.json`.

    What is there from an earlier run and still holds is reused: the checkpoint by its recipe's hash, the answers of the
    model and of its rivals by the hash of all that they depend on.

    Args:
        report: Where progress is told.
        folder: Where the page, its data and the parts of both go; made where need be.
        recipe: Recipe file, by default that of the repository, in the working folder.
        trees: Trees of each rival forest.

    Returns:
        Path of the page.

    Raises:
        DemoError: The recipe is not there, holds nothing out, or is not of one numeric task over compositions.
        RecipeError, DataError, BaseModelError, TrainingError, CheckpointError: As from training.
    """
    from matdarwin.studies.report import page

    began, started = time.perf_counter(), datetime.now(UTC).isoformat(timespec="microseconds")
    settings, task = _recipe(recipe)
    report.say(f"{task.title} ({task.licence}), and the base model {settings.base}: fetched once, then read from here")
    split = split_of(settings, [task])
    checkpoint = train(settings, tasks=[task], report=report, split=split)
    reused = ["the checkpoint"] if checkpoint.card.created < started else []
    test = _test(task, split, settings)
    folder.mkdir(parents=True, exist_ok=True)
    language = _language(checkpoint, settings, task, split, test, folder / "language.json", report, reused)
    rivals = _rivals(settings, task, split, test, folder / "rivals.json", trees, report, reused)
    result = DemoResult(
        task=task.id, title=task.title, unit=task.unit, decimals=task.decimals or 0, citation=task.citation, licence=task.licence,
        checkpoint=checkpoint.name, base=checkpoint.card.base["name"], recipe=checkpoint.card.recipe,
        recipe_hash=checkpoint.card.recipe_hash, data_sha256=task.data_sha256(),
        rows={
            "train": len(split.train[task.id]), "validation": len(split.validation[task.id]),
            "calibration": len(split.calibration[task.id]), "test": len(test), "held_out": len(leakage.merge(task, split.test[task.id])),
        },
        training=checkpoint.card.training, machine=checkpoint.card.machine, coverage=COVERAGE, language=language, rivals=rivals,
        seconds=round(time.perf_counter() - began, 1), reused=reused,
    )  # fmt: skip
    results.write(result, folder / "result.json")
    path = folder / "report.html"
    disk.write_whole(path, page(result))
    report.say((f"reused {', '.join(reused)}; " if reused else "") + f"the report is {path}")
    return path


def _recipe(file: Path) -> tuple[Recipe, Task]:
    """The recipe and its only task, after checks that it can be demonstrated."""
    if not file.is_file():
        raise DemoError(f"{file} is not here; run the demonstration in the root of the repository (make demo does)")
    recipe = load_recipe(file)
    if recipe.fold is None:
        raise DemoError(f"{file}: fold is null, so nothing is held out to score on; set it to a number from 0 to 4")
    if len(recipe.tasks) != 1:
        raise DemoError(f"{file}: the demonstration is of one task, got {', '.join(recipe.tasks)}")
    task = registry.load(recipe.tasks[0])
    if task.kind != "regression" or task.representation != "composition":
        raise DemoError(
            f"{file}: the demonstration is of a number over compositions, but {task.id} is a {task.kind} over {task.representation}s"
        )
    return recipe, task


def _test(task: Task, split: Split, recipe: Recipe) -> list[Example]:
    """Held-out materials, each once, a seeded sample of them where the recipe limits their number.

    Repeated measurements are merged as they are for training: rows of one material are not independent, and much
    measured ones would count more.
    """
    merged = leakage.merge(task, split.test[task.id])
    limit = recipe.split.test_limit
    if limit is None or limit >= len(merged):
        return merged
    chosen = random.Random(recipe.split.seed).sample(range(len(merged)), limit)
    return [merged[place] for place in sorted(chosen)]


def _usable(task: Task, split: Split) -> list[Example]:
    """Every row that the language model could use in any way: to train, to choose its epoch, to calibrate."""
    return [*split.train[task.id], *split.validation[task.id], *split.calibration[task.id]]


def _targets(examples: Sequence[Example]) -> list[float]:
    return [float(example.target) for example in examples if example.target is not None]


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _rows(examples: Sequence[Example]) -> list[tuple[str, object]]:
    return [(example.material.key, example.target) for example in examples]


def _kept(path: Path, kind: type[Part], key: str) -> Part | None:
    """The part of an earlier run where it was made from the same things; one that is not readable is made anew."""
    if not path.is_file():
        return None
    try:
        part = kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        return None
    return part if getattr(part, "key", None) == key else None


def _language(
    checkpoint: Checkpoint,
    recipe: Recipe,
    task: Task,
    split: Split,
    test: list[Example],
    path: Path,
    report: Report,
    reused: list[str],
) -> LanguagePart:
    """The language model's answers: on the test materials, and for formulas that it learnt nothing from."""
    card = checkpoint.card
    key = _hash(
        FORMAT,
        card.recipe_hash,
        card.created,
        recipe.predicting.model_dump(),
        _rows(test),
        NOMINAL,
        COVERAGE,
        FORMULAS,
        ASKED,
    )
    if (kept := _kept(path, LanguagePart, key)) is not None:
        reused.append("the model's answers")
        return kept
    predictor = Predictor.of(checkpoint, dtype=recipe.predicting.dtype)
    report.begin("scoring held-out materials", len(test))
    began = time.perf_counter()
    answers = predictor.distributions(task, test, progress=lambda done, total: report.step(done, ""))
    seconds = time.perf_counter() - began
    targets = _targets(test)
    middle = float(np.median(_targets(_usable(task, split))))
    intervals = _intervals(predictor, task, answers, COVERAGE)
    scores = {}
    for name in ("median", "mean", "mode"):
        values = [getattr(answer, name)() if answer else None for answer in answers]
        # Only the median is the centre that the intervals were calibrated about.
        held = intervals if name == "median" else None
        scores[name] = score_regression(targets, values, training_median=middle, intervals=held, fold=recipe.fold)
    asked, curve = _asked(predictor, task, split)
    part = LanguagePart(
        key=key,
        scores=scores,
        covered=[
            covered
            for nominal in NOMINAL
            if (covered := _covered(nominal, targets, _intervals(predictor, task, answers, nominal)))
        ],
        tested=[_tested(example, answer, ends) for example, answer, ends in zip(test, answers, intervals, strict=True)],
        asked=asked,
        curve=curve,
        seconds=round(seconds, 1),
    )
    results.write(part, path)
    return part


def _intervals(
    predictor: Predictor, task: Task, answers: Sequence[AnswerDistribution | None], coverage: float
) -> list[tuple[float, float] | None]:
    calibration = predictor.calibrations.get(task.id)
    return [calibration.interval(answer, coverage) if calibration and answer else None for answer in answers]


def _covered(
    nominal: float, targets: Sequence[float], intervals: Sequence[tuple[float, float] | None]
) -> Covered | None:
    pairs = [(target, ends) for target, ends in zip(targets, intervals, strict=True) if ends is not None]
    if not pairs:
        return None
    return Covered(
        nominal=nominal,
        observed=float(np.mean([low <= target <= high for target, (low, high) in pairs])),
        width=float(np.mean([high - low for _, (low, high) in pairs])),
        rows=len(pairs),
    )


def _tested(example: Example, answer: AnswerDistribution | None, ends: tuple[float, float] | None) -> HeldOut:
    target = float(example.target or 0.0)
    if answer is None:
        return HeldOut(material=example.material.text, target=target)
    lower, upper = ends or (None, None)
    return HeldOut(
        material=example.material.text, target=target, median=answer.median(), mean=round(answer.mean(), 6), mode=answer.mode(),
        lower=lower, upper=upper,
    )  # fmt: skip


def _asked(predictor: Predictor, task: Task, split: Split) -> tuple[list[Asked], Curve | None]:
    """Predictions of the first formulas that no learning, choosing or calibrating row is of; one answer as a curve."""
    learnt = {key for example in _usable(task, split) for key in example.material.keys}
    held_out = {
        key: float(example.target)
        for example in leakage.merge(task, split.test[task.id])
        if example.target is not None
        for key in example.material.keys
    }
    fresh = []
    for formula in FORMULAS:
        material = parse(formula, task.representation)
        if learnt.isdisjoint(material.keys):
            fresh.append((formula, next((held_out[key] for key in material.keys if key in held_out), None)))
    fresh = fresh[:ASKED]
    predictions = predictor.predict([formula for formula, _ in fresh], task.id, coverage=COVERAGE)
    asked = [
        Asked(prediction=p.to_dict(), measured=measured) for p, (_, measured) in zip(predictions, fresh, strict=True)
    ]
    for prediction, (_, measured) in zip(predictions, fresh, strict=True):
        given = prediction.distribution
        if given is not None and prediction.material is not None:
            return asked, Curve(
                material=prediction.input, values=[float(v) for v in given.values],
                probabilities=[round(float(p), 8) for p in given.probabilities], median=given.median(),
                lower=prediction.lower, upper=prediction.upper, measured=measured,
            )  # fmt: skip
    return asked, None


def _rivals(
    recipe: Recipe,
    task: Task,
    split: Split,
    test: list[Example],
    path: Path,
    trees: int,
    report: Report,
    reused: list[str],
) -> RivalsPart:
    """The classical models on the same test materials, fitted on every row that the language model could use."""
    usable = _usable(task, split)
    key = _hash(FORMAT, FEATURE_VERSION, trees, recipe.seed, _rows(usable), _rows(test))
    if (kept := _kept(path, RivalsPart, key)) is not None:
        reused.append("the rivals' answers")
        return kept
    report.say(f"fitting the classical models on {len(usable):,} rows")
    began = time.perf_counter()
    made = baselines.fit_predict(
        task,
        usable,
        test,
        seed=recipe.seed,
        cache=sources.cache() / "features",
        n_jobs=os.cpu_count() or 1,
        trees=trees,
    )
    middle = float(np.median(_targets(usable)))
    rivals = {}
    for name, found in made.items():
        answers = [float(value) for value in found.predictions]
        score = score_regression(_targets(test), answers, training_median=middle, fold=recipe.fold)
        rivals[name] = Rival(
            score=score,
            features=found.features,
            seconds=round(found.seconds, 2),
            answers=[round(a, 6) for a in answers],
        )
    part = RivalsPart(key=key, rows=len(usable), rivals=rivals, seconds=round(time.perf_counter() - began, 1))
    results.write(part, path)
    return part
