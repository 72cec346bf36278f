"""From a recipe to a sealed, calibrated checkpoint."""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from matdarwin import __version__
from matdarwin.data import leakage
from matdarwin.data.leakage import Split
from matdarwin.language.answers import ANSWER_FORMAT, format_answer, grid
from matdarwin.language.prompts import Encoded, Encoder, Style, conditions_text, style, wordings_hash
from matdarwin.models import checkpoint as checkpoints
from matdarwin.models.base import Base, device_and_dtype, find_base, load_model, load_tokenizer
from matdarwin.models.checkpoint import Card, Checkpoint, TaskCard
from matdarwin.models.decoding import SURE_END
from matdarwin.prediction.intervals import Calibration, calibrate
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.loop import Step, TrainingError, UsedWords, batches, optimise, steps_of
from matdarwin.training.recipe import Recipe

_VALIDATION_ROWS = 250
"""Most rows a task that choose the epoch; more would cost more time than they add certainty."""


_SHAPING: Any = {
    "id": True, "version": True, "kind": True, "quantities": True, "leads": True, "bounds": True, "decimals": True, "labels": True,
    "representation": True, "conditions": True, "wordings": True, "metric": True, "folds": True, "reader": True, "source": {"sha256"},
}  # fmt: skip
"""What of a task shapes a result: not its words for people."""


class Report(Protocol):
    """What a run tells while it goes on."""

    def begin(self, text: str, total: int) -> None:
        """A part of the run begins, with this number of steps."""

    def step(self, done: int, text: str) -> None:
        """So many steps of the part are done."""

    def say(self, text: str) -> None:
        """A line for people."""


class Silent:
    """A report that goes nowhere."""

    def begin(self, text: str, total: int) -> None:
        """Say nothing."""

    def step(self, done: int, text: str) -> None:
        """Say nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""


@dataclass
class _Run:
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
        asked = self.recipe.predicting
        return Predictor(
            model, self.tokenizer, tasks=self.cards, style=self.style, name=self.name,
            views=views, batch_size=asked.batch_size, prune=asked.prune, sure_end=sure_end,
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
                for w in self.recipe.prompting.wordings or (self.style.wording,)
                # A piece reads otherwise at the beginning of a material than inside it: each must stand first once.
                for order in _rotations(e.material.source_parts)
            ]
            for ids in encoder.prompts(texts):
                used.update(ids)
            for ids in encoder.answers([format_answer(task, a) for a in (task.labels or grid(task))]):
                used.update(ids)
        return used

    def write(self, **line: Any) -> None:
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _rotations(parts: tuple[str, ...]) -> list[str]:
    return [" ".join(parts[i:] + parts[:i]) for i in range(len(parts))]


def recipe_hash(recipe: Recipe, tasks: Sequence[Task], base: Base) -> str:
    """Hash of everything that shapes a run's result: recipe, tasks with their data, and base weights."""
    return recipe.digest(
        tasks=[task.model_dump(mode="json", include=_SHAPING, exclude_defaults=True) for task in tasks],
        base=base.sha256,
    )


def split_of(recipe: Recipe, tasks: Sequence[Task]) -> Split:
    """The division of the tasks' rows that a recipe trains on."""
    options = recipe.split
    return leakage.split(
        tasks, recipe.fold, seed=options.seed, validation=options.validation, calibration=options.calibration,
        minimum_calibration=options.minimum_calibration, limit=options.limit, folds=options.folds,
    )  # fmt: skip


def checkpoint_name(recipe: Recipe, digest: str) -> str:
    """Folder of a recipe's checkpoint; another recipe has another."""
    fold = "" if recipe.fold is None else f"-fold{recipe.fold}"
    tasks = "-".join(Path(t).stem for t in recipe.tasks[:2]) + (
        "" if len(recipe.tasks) <= 2 else f"-and-{len(recipe.tasks) - 2}-more"
    )
    return f"{recipe.name}-{tasks}{fold}-{digest[:8]}"


def train(
    recipe: Recipe, *, tasks: Sequence[Task] | None = None, report: Report | None = None, split: Split | None = None
) -> Checkpoint:
    """Run a recipe; one that has run already is not run again.

    Args:
        recipe: What to do.
        tasks: Its tasks, where they are no registered ones.
        report: Where progress is told.
        split: A ready division of the rows, for callers whose rows are no files.

    Returns:
        The sealed checkpoint.

    Raises:
        TrainingError: Nothing to train on, a split that is not disjoint, a loss that is no number.
        CheckpointError: Another run holds the checkpoint, or it cannot be written.
        DataError, BaseModelError: Data or base model cannot be had.
    """
    report = report or Silent()
    known = list(tasks) if tasks is not None else [registry.load(name) for name in recipe.tasks]
    base = find_base(recipe.base)
    digest = recipe_hash(recipe, known, base)
    name = checkpoint_name(recipe, digest)
    with checkpoints.hold(name):
        done = checkpoints.checkpoints_folder() / name
        if (done / checkpoints.MANIFEST).is_file():
            report.say(f"{name} is there already")
            return Checkpoint.open(done)
        return _train(recipe, known, base, digest, name, report, split)


def _train(
    recipe: Recipe, tasks: list[Task], base: Base, digest: str, name: str, report: Report, split: Split | None
) -> Checkpoint:
    import torch

    split = split or split_of(recipe, tasks)
    if problems := leakage.check(split):
        raise TrainingError("the split is not disjoint, so nothing is trained: " + "; ".join(problems[:3]))
    began = time.perf_counter()
    torch.manual_seed(recipe.seed)
    device, compute = device_and_dtype(recipe.dtype, training=True)
    report.say(
        f"{name}: {sum(map(len, split.train.values())):,} training rows; base {base.name}, {recipe.method}, {compute}"
    )
    model = load_model(
        base.folder, dtype=torch.float32, random_seed=recipe.seed if recipe.weights == "random" else None
    ).to(device)
    model = _adapt(model, recipe)
    log = checkpoints.checkpoints_folder() / f".{name}.metrics.jsonl"
    log.unlink(missing_ok=True)
    run = _Run(
        recipe=recipe, tasks=tasks, split=split, base=base, style=style(recipe.prompting.style), model=model,
        tokenizer=load_tokenizer(base.folder), name=name, report=report, compute=compute, log=log,
    )  # fmt: skip
    run.cards = {task.id: _card(task, split) for task in tasks}
    told = _optimise(run)
    told["seconds"] = round(time.perf_counter() - began, 1)
    calibrations = _calibrate(run)
    told["seconds_with_calibration"] = round(time.perf_counter() - began, 1)
    card = Card(
        name=name, role=recipe.role, created=datetime.now(UTC).isoformat(timespec="seconds"), code=__version__,
        recipe=recipe.model_dump(mode="json"), recipe_hash=digest, base={"name": base.name, "sha256": base.sha256},
        method=recipe.method, style=run.style.id, answers=ANSWER_FORMAT, fold=recipe.fold, tasks=run.cards,
        training=told, machine=machine(),
    )  # fmt: skip

    def fill(folder: Path) -> None:
        run.model.save_pretrained(folder / checkpoints.WEIGHTS)
        run.tokenizer.save_pretrained(folder / checkpoints.TOKENIZER)
        (folder / "metrics.jsonl").write_bytes(log.read_bytes())

    made = checkpoints.write_checkpoint(
        name, card, fill, calibration={task: c.model_dump(mode="json") for task, c in calibrations.items()}
    )
    log.unlink()
    return made


def _adapt(model: Any, recipe: Recipe) -> Any:
    if recipe.method == "full":
        if recipe.optimising.embeddings == "frozen":
            model.get_input_embeddings().weight.requires_grad_(False)
            model.get_output_embeddings().weight.requires_grad_(False)
        return model
    from peft import LoraConfig, get_peft_model

    lora = recipe.lora
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
        ),
    )


def _optimise(run: _Run) -> dict[str, Any]:
    """Train, keep the weights of the best epoch, and tell what happened."""
    import torch

    recipe, options = run.recipe, run.recipe.optimising
    encoder = Encoder(run.tokenizer)
    rows = sum(map(len, run.split.train.values()))
    if not rows:
        raise TrainingError("no training row is left")
    epochs, total = steps_of(rows, options)
    rng = random.Random(recipe.seed)

    wordings = recipe.prompting.wordings or (run.style.wording,)

    def encoded() -> list[Encoded]:
        return [
            row
            for task in run.tasks
            for row in encoder.examples(
                task,
                run.split.train[task.id],
                style=run.style,
                wordings=wordings,
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


def _validate(run: _Run) -> dict[str, tuple[str, float]]:
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


def _overall(run: _Run, scores: dict[str, tuple[str, float]]) -> float:
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


def _calibrate(run: _Run) -> dict[str, Calibration]:
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


def _card(task: Task, split: Split) -> TaskCard:
    train: list[Example] = split.train[task.id]
    elements = Counter(symbol for example in train for symbol in set(example.material.elements))
    shares: dict[str, float] = {}
    if task.kind == "classification":
        count = Counter(str(example.target) for example in train)
        shares = {label: count[label] / max(len(train), 1) for label in task.labels}
    spreads = [example.spread for example in train if example.spread > 0]
    return TaskCard(
        task=task,
        wordings=wordings_hash(task),
        counts={
            "train": len(train),
            "validation": len(split.validation[task.id]),
            "calibration": len(split.calibration[task.id]),
            "test": len(split.test.get(task.id, [])),
            **{f"removed: {reason}": n for reason, n in split.removed.items() if reason.startswith(f"{task.id}:")},
        },
        elements=dict(sorted(elements.items())),
        shares=shares,
        data_sha256=task.source.sha256,
        spread=float(np.median(spreads)) if spreads else 0.0,
    )


def machine() -> dict[str, Any]:
    """What this machine is, in terms that mean something elsewhere."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
