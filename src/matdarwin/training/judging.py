"""Scores on validation rows, which choose the best epoch."""

from __future__ import annotations

import random

import numpy as np

from matdarwin.models.base import as_dtype
from matdarwin.training import scales
from matdarwin.training.stages import Run

_ROWS = 250
"""Most rows a task that choose the epoch; more would cost more time than they add certainty."""


def validate(run: Run) -> dict[str, tuple[str, float]]:
    """Score the validation rows through the predictor: MAE of the median, or accuracy, by task."""
    # A model that has just begun ends few answers surely, and scoring every end would take longer than an epoch.
    predictor = run.predictor(views=1, model=as_dtype(run.model, run.compute), sure_end=0.0)
    scores: dict[str, tuple[str, float]] = {}
    for task in run.tasks:
        examples = run.split.validation[task.id]
        # A seeded sample: the files are sorted, so that their head would be no fair one.
        examples = random.Random(run.recipe.seed).sample(examples, min(_ROWS, len(examples)))
        if not examples:
            continue
        answers = predictor.distributions(task, examples)
        if task.kind == "regression":
            center = float(np.median([float(e.target) for e in run.split.train[task.id] if e.target is not None]))
            # An unread answer is scored as the training median would be: no gain from being unreadable.
            errors = [
                abs((a.median() if a else center) - float(e.target or 0))
                for a, e in zip(answers, examples, strict=True)
            ]
            scores[task.id] = ("mae", float(np.mean(errors)))
        else:
            right = [a is not None and a.label() == e.target for a, e in zip(answers, examples, strict=True)]
            scores[task.id] = ("accuracy", float(np.mean(right)))
    return scores


def overall(run: Run, scores: dict[str, tuple[str, float]]) -> float:
    """One number, less is better; 0 without validation."""
    numbers = [task.id for task in run.tasks if task.kind == "regression" and task.id in scores]
    return scales.overall(scores, {name: scales.deviation(run.split.train[name]) or 1.0 for name in numbers})
