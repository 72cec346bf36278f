"""The parts of a run: what a stage is fed, teaching the model, choosing its best epoch, calibrating its intervals."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from matdarwin.data import texts
from matdarwin.data.leakage import Split
from matdarwin.data.negative import negatives, reasons
from matdarwin.data.sampling import Sampling
from matdarwin.language.prompts import Encoder, Style
from matdarwin.models.base import Base, device_and_dtype
from matdarwin.models.checkpoint import TaskCard
from matdarwin.models.decoding import SURE_END
from matdarwin.prediction.intervals import Calibration, calibrate
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.average import WeightAverage
from matdarwin.training.feed import Feed
from matdarwin.training.loop import Step, TrainingError, UsedWords, epochs_of, optimise, trainable
from matdarwin.training.recipe import Optimising, Recipe, Stage, ids_of
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

    def write(self, **line: Any) -> None:
        """Add a line to the run's metrics."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def own_feed(run: Run) -> Feed:
    """What the tasks' own stage is fed: their training rows, and negative examples where the recipe asks for them."""
    recipe = run.recipe
    rows = {task.id: list(run.split.train[task.id]) for task in run.tasks}
    if empty := [name for name, examples in rows.items() if not examples]:
        raise TrainingError(f"no training row is left of {', '.join(empty)}")
    if recipe.negatives:
        able = [task for task in run.tasks if reasons(task)]
        if not able:
            raise TrainingError(
                f"negatives: no negative example is sound for {', '.join(rows)}: any word could be a name, and no "
                "condition is required; set it to 0"
            )
        for task in able:
            rows[task.id] += negatives(task, rows[task.id], recipe.negatives, seed=recipe.seed)
    return _feed(run, rows, run.tasks, recipe.sampling, recipe.optimising)


def stage_feed(run: Run, stage: Stage) -> Feed:
    """What an earlier stage is fed: rows of its tasks, and its texts."""
    known = {task.id: task for task in run.split.tasks}
    rows: dict[str, Sequence[Example]] = {name: run.split.train[name] for name in ids_of(stage)}
    for name in stage.texts:
        text = texts.load(name, run.tasks)
        if not text.rows:
            raise TrainingError(f"stage {stage.name}: no pair of {name} is left to learn from")
        rows[name] = text.rows
    return _feed(run, rows, [known[name] for name in ids_of(stage)], stage.sampling, stage.optimising)


def _feed(
    run: Run, rows: Mapping[str, Sequence[Example]], tasks: Sequence[Task], sampling: Sampling, options: Optimising
) -> Feed:
    for task in tasks:
        for wording in run.recipe.prompting.wordings:
            if wording >= len(task.wordings) or wording == task.held_out_wording:
                why = "it is held out, to test with" if wording < len(task.wordings) else f"it has {len(task.wordings)}"
                raise TrainingError(f"prompting.wordings: {task.id} is not taught wording {wording}: {why}")
    return Feed(
        rows, tasks, encoder=Encoder(run.tokenizer), style=run.style, prompting=run.recipe.prompting, sampling=sampling,
        batch_size=options.batch_size, seed=run.recipe.seed,
    )  # fmt: skip


def teach(run: Run, feed: Feed, options: Optimising, *, choose: bool) -> dict[str, Any]:
    """Train on a feed and tell what happened.

    Args:
        run: The run; its model is moved.
        feed: The batches.
        options: How the weights are moved.
        choose: Keep the weights of the epoch that is best on the validation rows; otherwise the last ones stay.
    """
    import torch

    epochs = epochs_of(feed.steps, options)
    total = epochs * feed.steps
    words = None
    if run.recipe.method == "full" and options.embeddings == "used":
        words = UsedWords(run.model, feed.vocabulary())
    autocast = run.compute if run.compute != torch.float32 else None
    average = None
    if options.average:
        average = WeightAverage(trainable(run.model, words), first=total - round(options.average * total) + 1)
    best: tuple[float, int, dict[str, Any], dict[str, Any]] | None = None
    tokens, losses = 0, []
    began = time.perf_counter()
    spent_validating = 0.0
    # Small sets are passed over many times; validating after each pass would cost more than training. And with a
    # rate that falls to zero, the best epoch never lies in the first half.
    every = math.ceil(epochs / max(options.epochs, 1))
    run.report.begin("training", total)
    for event in optimise(run.model, feed.batches(), epochs, feed.steps, options, autocast=autocast, words=words):
        if isinstance(event, Step):
            tokens += event.tokens
            losses.append(event.loss)
            if average is not None:
                average.take(event.step)
            run.write(
                step=event.step,
                loss=event.loss,
                learning_rate=event.learning_rate,
                gradient_norm=event.gradient_norm,
                tokens=tokens,
            )
            run.report.step(event.step, f"loss {event.loss:.3f}")
        elif not choose:
            if event == epochs:
                with _averaged(average, words):
                    best = (0.0, event, _weights(run.model, words), {})
            run.write(epoch=event)
            run.report.say(f"epoch {event} of {epochs}: loss {np.mean(losses[-50:]):.3f}")
        elif (event % every == 0 and event > epochs // 2) or event == epochs:
            start = time.perf_counter()
            with _averaged(average, words):
                scores = _validate(run)
                weights = _weights(run.model, words)
            spent_validating += time.perf_counter() - start
            run.write(epoch=event, validation=scores)
            shown = ", ".join(f"{task} {name} {value:.4g}" for task, (name, value) in scores.items())
            run.report.say(
                f"epoch {event} of {epochs}: loss {np.mean(losses[-50:]):.3f}"
                + (f"; validation {shown}" if shown else "")
            )
            overall = _overall(run, scores)
            if best is None or overall <= best[0]:
                best = (overall, event, weights, scores)
    if best is not None:
        _restore(run.model, best[2])
    seconds = time.perf_counter() - began - spent_validating
    return {
        "steps": total, "epochs": epochs, "rows": feed.size, "tokens": tokens, "tokens_per_second": round(tokens / seconds, 1),
        "final_loss": float(np.mean(losses[-20:])), "best_epoch": best[1] if best else epochs,
        "validation": best[3] if best else {},
        "seconds_training": round(seconds, 1), "seconds_validating": round(spent_validating, 1),
        "dtype": str(run.compute).removeprefix("torch."),
    }  # fmt: skip


@contextmanager
def _averaged(average: WeightAverage | None, words: UsedWords | None) -> Iterator[None]:
    """The model with its averaged weights, where there are any."""
    if average is None:
        yield
        return
    with average.applied():
        if words is not None:
            words.write_back()
        yield
    if words is not None:
        words.write_back()


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
