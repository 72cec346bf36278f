"""From a recipe to a sealed, calibrated checkpoint."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matdarwin import __version__
from matdarwin.data import evidence, leakage, texts
from matdarwin.data.leakage import Split
from matdarwin.language.answers import ANSWER_FORMAT
from matdarwin.language.prompts import style, wordings_hash
from matdarwin.models import checkpoint as checkpoints
from matdarwin.models.base import Base, device_and_dtype, find_base, load_model, load_tokenizer
from matdarwin.models.checkpoint import Card, Checkpoint, TaskCard
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.feed import Feed
from matdarwin.training.loop import TrainingError
from matdarwin.training.provenance import commit, keys_hash, machine
from matdarwin.training.recipe import DEFAULTS, Recipe, Stage, earlier_tasks
from matdarwin.training.recipe import split_of as split_of
from matdarwin.training.report import Report, Silent
from matdarwin.training.stages import Run, calibrations, own_feed, stage_feed, teach

_SHAPING: Any = {
    "id": True, "version": True, "kind": True, "quantities": True, "leads": True, "bounds": True, "decimals": True, "labels": True,
    "representation": True, "conditions": True, "wordings": True, "metric": True, "folds": True, "reader": True, "source": {"sha256"},
    "extra_sources": {"__all__": {"sha256"}},
}  # fmt: skip
"""What of a task shapes a result: not its words for people."""


def recipe_hash(recipe: Recipe, tasks: Sequence[Task], base: Base) -> str:
    """Hash of everything that shapes a run's result: recipe, tasks with their data, and base weights."""
    return recipe.digest(
        tasks=[_shape(task) for task in tasks],
        base=base.sha256,
        style=style(recipe.prompting.style).id,
        answers=ANSWER_FORMAT,
        defaults=DEFAULTS,
        **_beyond(recipe, tasks),
    )


def _beyond(recipe: Recipe, tasks: Sequence[Task]) -> dict[str, Any]:
    """What shapes a result beyond its tasks' own rows, where there is such a thing: evidence, and what earlier stages learn."""
    found: dict[str, Any] = {}
    if recipe.evidence:
        found["evidence"] = evidence.digest(evidence.choose(recipe.evidence))
    if recipe.before:
        found["texts"] = {name: texts.digest(name) for stage in recipe.before for name in stage.texts}
        found["earlier"] = [_shape(task) for task in earlier_tasks(recipe, tasks)]
    return found


def _shape(task: Task) -> dict[str, Any]:
    return task.model_dump(mode="json", include=_SHAPING, exclude_defaults=True)


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
        TrainingError: Nothing to train on, a split that is not disjoint or has no rule, a loss that is no number.
        CheckpointError: Another run holds the checkpoint, or it cannot be written.
        DataError, BaseModelError: Data or base model cannot be had.
    """
    if recipe.split.rule == "none":
        raise TrainingError(
            f"recipe {recipe.name} has split.rule none, which states a run and is never trained: test materials would "
            "teach. See what crosses with darwin audit, and train with split.rule: key"
        )
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
    # Now, not when it is sealed: the code may be edited while a long run goes on with what it loaded.
    code = commit()
    torch.manual_seed(recipe.seed)
    device, compute = device_and_dtype(recipe.dtype, training=True)
    report.say(
        f"{name}: {sum(len(split.train[task.id]) for task in tasks):,} training rows; base {base.name}, {recipe.method}, {compute}"
    )
    model = load_model(
        base.folder, dtype=torch.float32, random_seed=recipe.seed if recipe.weights == "random" else None
    ).to(device)
    run = Run(
        recipe=recipe, tasks=tasks, split=split, base=base, style=style(recipe.prompting.style),
        model=_adapt(model, recipe), tokenizer=load_tokenizer(base.folder), name=name, report=report, compute=compute,
        log=_log(name),
    )  # fmt: skip
    run.cards = {task.id: _card(task, split) for task in tasks}
    # Before the earlier stages are trained: what is wrong with the last is to be said at once.
    feed = own_feed(run)
    earlier = _earlier(run)
    told = teach(run, feed, recipe.optimising, choose=True)
    if earlier:
        told["earlier"] = earlier
    told["seconds"] = round(time.perf_counter() - began, 1)
    calibrated = calibrations(run)
    told["commit"] = code
    told["seconds_with_calibration"] = round(time.perf_counter() - began, 1)
    card = Card(
        name=name, role=recipe.role, created=datetime.now(UTC).isoformat(timespec="microseconds"), code=__version__,
        recipe=recipe.model_dump(mode="json"), recipe_hash=digest, base={"name": base.name, "sha256": base.sha256},
        method=recipe.method, style=run.style.id, answers=ANSWER_FORMAT, fold=recipe.fold, tasks=run.cards,
        training=told, machine=machine(),
    )  # fmt: skip

    made = checkpoints.write_checkpoint(
        name,
        card,
        lambda folder: _fill(run, folder),
        calibration={task: c.model_dump(mode="json") for task, c in calibrated.items()},
    )
    run.log.unlink()
    return made


def _fill(run: Run, folder: Path) -> None:
    run.model.save_pretrained(folder / checkpoints.WEIGHTS)
    run.tokenizer.save_pretrained(folder / checkpoints.TOKENIZER)
    (folder / "metrics.jsonl").write_bytes(run.log.read_bytes())


def _log(name: str) -> Path:
    """The metrics of a run that has not ended; those of one that was broken off go."""
    log = checkpoints.checkpoints_folder() / f".{name}.metrics.jsonl"
    log.unlink(missing_ok=True)
    return log


def _earlier(run: Run) -> list[str]:
    """Take the model through the earlier stages; returns their checkpoints. One that stands already is not run again.

    A stage is found by a hash of what it begins with and of every row that it is fed, so recipes and folds whose stages
    agree share one.
    """
    import torch

    begun = [run.base.sha256, run.recipe.weights, run.recipe.dtype, ANSWER_FORMAT, DEFAULTS]
    names: list[str] = []
    model = run.model
    for stage in run.recipe.before:
        feed = stage_feed(run, stage)
        digest = feed.digest(begun=begun, optimising=stage.optimising.model_dump(mode="json", exclude_defaults=True))
        name = f"{stage.name}-{digest[:8]}"
        with checkpoints.hold(name):
            done = checkpoints.checkpoints_folder() / name
            if (done / checkpoints.MANIFEST).is_file():
                run.report.say(f"stage {stage.name}: {name} is there already")
                stood = Checkpoint.open(done)
                model.load_state_dict(stood.model(torch.float32).state_dict())
            else:
                run.report.say(f"stage {stage.name}: {feed.size:,} examples an epoch")
                stood = _stage(replace(run, name=name, log=_log(name)), stage, feed, digest)
        names.append(stood.name)
        begun = [digest]
    return names


def _stage(run: Run, stage: Stage, feed: Feed, digest: str) -> Checkpoint:
    """Train an earlier stage and seal it."""
    began = time.perf_counter()
    code = commit()
    told = teach(run, feed, stage.optimising, choose=False)
    told |= {"commit": code, "seconds": round(time.perf_counter() - began, 1)}
    card = Card(
        name=run.name, role="stage", created=datetime.now(UTC).isoformat(timespec="microseconds"), code=__version__,
        recipe={"stage": stage.model_dump(mode="json"), "seed": run.recipe.seed}, recipe_hash=digest,
        base={"name": run.base.name, "sha256": run.base.sha256}, method="full", style=run.style.id, answers=ANSWER_FORMAT,
        fold=None, tasks={}, training=told, machine=machine(),
    )  # fmt: skip

    made = checkpoints.write_checkpoint(run.name, card, lambda folder: _fill(run, folder))
    run.log.unlink()
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


def _parts(split: Split, task: Task) -> list[tuple[str, list[Example]]]:
    """A task's parts by name."""
    return [
        ("train", split.train[task.id]),
        ("validation", split.validation[task.id]),
        ("calibration", split.calibration[task.id]),
        ("test", split.test.get(task.id, [])),
    ]


def parts_of(split: Split, task: Task) -> dict[str, str]:
    """Hash of the materials in each part of a task, as its checkpoint remembers them."""
    return {name: keys_hash(rows) for name, rows in _parts(split, task)}


def _card(task: Task, split: Split) -> TaskCard:
    train: list[Example] = split.train[task.id]
    elements = Counter(symbol for example in train for symbol in set(example.material.elements))
    shares: dict[str, float] = {}
    if task.kind == "classification":
        count = Counter(str(example.target) for example in train)
        shares = {label: count[label] / max(len(train), 1) for label in task.labels}
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
        data_sha256=task.data_sha256(),
        spreads={example.material.key: example.spread for example in train if example.spread > 0},
        parts=parts_of(split, task),
    )
