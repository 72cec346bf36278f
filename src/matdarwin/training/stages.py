"""The parts of a run: teach the model, choose its best epoch, calibrate its intervals."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from matdarwin.data.leakage import Split
from matdarwin.language.answers import format_answer, grid
from matdarwin.language.prompts import Encoded, Encoder, Style, conditions_text
from matdarwin.models.base import Base, device_and_dtype
from matdarwin.models.checkpoint import TaskCard
from matdarwin.models.decoding import SURE_END
from matdarwin.prediction.intervals import Calibration, calibrate
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks.schema import Task
from matdarwin.training.loop import Step, TrainingError, UsedWords, batches, optimise, steps_of
from matdarwin.training.recipe import Recipe
from matdarwin.training.report import Report

_VALIDATION_ROWS = 250
"""Most rows a task that choose the epoch; more would cost more time than they add certainty."""


@dataclass
class Run:
    """What the parts of one run share."""

    recipe: Recipe
    tasks: list[Task]
    split: Split
    base: Base
    style: Style
    model: Any
    tokenizer: Any
    name: str
    report: Report
    compute: Any
    """torch dtype that training computes in."""
    log: Path
    cards: dict[str, TaskCard] = field(default_factory=dict)

    def predictor(self, *, views: int, model: Any, sure_end: float = SURE_END) -> Predictor:
        """A predictor over a model of this run."""
        asked, taught = self.recipe.predicting, self.recipe.prompting
        return Predictor(
            model, self.tokenizer, tasks=self.cards, style=self.style, name=self.name,
            views=views, batch_size=asked.batch_size, prune=asked.prune, sure_end=sure_end,
            wording=taught.wordings[0] if taught.wordings else None, order=taught.order,
        )  # fmt: skip

    def vocabulary(self, encoder: Encoder) -> set[int]:
        """Tokens that training can meet: every wording of every row, and every answer of the format."""
        used: set[int] = {encoder.terminator}
        for task in self.tasks:
            texts = [
                self.style.render(
                    task,
                    order,
                    wording=w,
                    conditions=conditions_text(task, e.conditions),
                    evidence=" ".join(e.evidence),
                )
                for e in self.split.train[task.id]
                for w in self.recipe.prompting.wordings or (self.style.wording_of(task),)
                # A piece reads otherwise at the beginning of a material than inside it: each must stand first once.
                for order in _rotations(e.material.source_parts)
            ]
            for ids in encoder.prompts(texts):
                used.update(ids)
            for ids in encoder.answers([format_answer(task, a) for a in (task.labels or grid(task))]):
                used.update(ids)
        return used

    def write(self, **line: Any) -> None:
        """Add a line to the run's metrics."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _rotations(parts: tuple[str, ...]) -> list[str]:
    return [" ".join(parts[i:] + parts[:i]) for i in range(len(parts))]


def teach(run: Run) -> dict[str, Any]:
    """Train, keep the weights of the best epoch, and tell what happened."""
    import torch

    recipe, options = run.recipe, run.recipe.optimising
    encoder = Encoder(run.tokenizer)
    rows = sum(map(len, run.split.train.values()))
    if not rows:
        raise TrainingError("no training row is left")
    epochs, total = steps_of(rows, options)
    rng = random.Random(recipe.seed)

    def encoded() -> list[Encoded]:
        return [
            row
            for task in run.tasks
            for row in encoder.examples(
                task,
                run.split.train[task.id],
                style=run.style,
                wordings=recipe.prompting.wordings or (run.style.wording_of(task),),
                order=recipe.prompting.order,
                rng=rng,
            )
        ]

    def make() -> list[list[Encoded]]:
        return batches(encoded(), options.batch_size, rng)

    words = None
    if recipe.method == "full" and options.embeddings == "used":
        words = UsedWords(run.model, run.vocabulary(encoder))
    autocast = run.compute if run.compute != torch.float32 else None
    best: tuple[float, int, dict[str, Any], dict[str, Any]] | None = None
    tokens, losses = 0, []
    began = time.perf_counter()
    spent_validating = 0.0
    # Small sets are passed over many times; validating after each pass would cost more than training. And with a
    # rate that falls to zero, the best epoch never lies in the first half.
    every = math.ceil(epochs / max(options.epochs, 1))
    run.report.begin("training", total)
    for event in optimise(run.model, [make] * epochs, total, options, autocast=autocast, words=words):
        if isinstance(event, Step):
            tokens += event.tokens
            losses.append(event.loss)
            run.write(
                step=event.step,
                loss=event.loss,
                learning_rate=event.learning_rate,
                gradient_norm=event.gradient_norm,
                tokens=tokens,
            )
            run.report.step(event.step, f"loss {event.loss:.3f}")
        elif (event % every == 0 and event > epochs // 2) or event == epochs:
            start = time.perf_counter()
            scores = _validate(run)
            spent_validating += time.perf_counter() - start
            run.write(epoch=event, validation=scores)
            shown = ", ".join(f"{task} {name} {value:.4g}" for task, (name, value) in scores.items())
            run.report.say(
                f"epoch {event} of {epochs}: loss {np.mean(losses[-50:]):.3f}"
                + (f"; validation {shown}" if shown else "")
            )
            overall = _overall(run, scores)
            if best is None or overall <= best[0]:
                best = (overall, event, _weights(run.model, words), scores)
    assert best is not None
    _restore(run.model, best[2])
    seconds = time.perf_counter() - began - spent_validating
    return {
        "steps": total, "epochs": epochs, "rows": rows, "tokens": tokens, "tokens_per_second": round(tokens / seconds, 1),
        "final_loss": float(np.mean(losses[-20:])), "best_epoch": best[1], "validation": best[3],
        "seconds_training": round(seconds, 1), "seconds_validating": round(spent_validating, 1),
        "dtype": str(run.compute).removeprefix("torch."),
    }  # fmt: skip


def _validate(run: Run) -> dict[str, tuple[str, float]]:
    """Score the validation rows through the predictor: MAE of the median, or accuracy, by task."""
    # A model that has just begun ends few answers surely, and scoring every end would take longer than an epoch.
    predictor = run.predictor(views=1, model=_as(run.model, run.compute), sure_end=0.0)
    scores: dict[str, tuple[str, float]] = {}
    for task in run.tasks:
        examples = run.split.validation[task.id]
        # A seeded sample: the files are sorted, so that their head would be no fair one.
        examples = random.Random(run.recipe.seed).sample(examples, min(_VALIDATION_ROWS, len(examples)))
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


def _overall(run: Run, scores: dict[str, tuple[str, float]]) -> float:
    """One number, less is better: error of each task relative to what its scale is, averaged; 0 without validation."""
    parts = []
    for task in run.tasks:
        if task.id not in scores:
            continue
        name, value = scores[task.id]
        if name == "accuracy":
            parts.append(1 - value)
        else:
            targets = np.array([float(e.target) for e in run.split.train[task.id] if e.target is not None])
            parts.append(value / (float(np.abs(targets - np.median(targets)).mean()) or 1.0))
    return float(np.mean(parts)) if parts else 0.0


def _weights(model: Any, words: UsedWords | None) -> dict[str, Any]:
    # Embeddings that are trained apart do not move by gradient, but by being written back.
    apart = {id(matrix) for matrix in words.matrices} if words else set()
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad or id(p) in apart}


def _restore(model: Any, weights: dict[str, Any]) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def _as(model: Any, dtype: Any) -> Any:
    """The model in a number format: a copy where it is another one, so that the weights in training stay as they are."""
    return model if next(model.parameters()).dtype == dtype else copy.deepcopy(model).to(dtype)


def calibrations(run: Run) -> dict[str, Calibration]:
    """Calibrate intervals with the predictor as it will be asked: the same views and number format."""
    _, number_format = device_and_dtype(run.recipe.predicting.dtype, training=False)
    predictor = run.predictor(views=run.recipe.predicting.views, model=_as(run.model, number_format))
    made = {}
    for task in run.tasks:
        examples = run.split.calibration[task.id]
        if task.kind != "regression" or not examples:
            continue
        run.report.begin(f"calibrating {task.id}", len(examples))
        answers = predictor.distributions(task, examples, progress=lambda done, total: run.report.step(done, ""))
        made[task.id] = calibrate(
            task,
            answers,
            [float(e.target) for e in examples if e.target is not None],
            keys=[e.material.key for e in examples],
        )
    return made
