"""From a recipe to a sealed, calibrated checkpoint."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from matdarwin import __version__
from matdarwin.data import disk, evidence, leakage, sources, texts
from matdarwin.data.leakage import Split
from matdarwin.language.answers import ANSWER_FORMAT
from matdarwin.language.prompts import Encoder, style
from matdarwin.models import checkpoint as checkpoints
from matdarwin.models.base import Base, device_and_dtype, find_base, load_model, load_tokenizer, refuse_unless_causal
from matdarwin.models.checkpoint import Card, Checkpoint
from matdarwin.models.readme import card_markdown
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training import ranks
from matdarwin.training.audit import audit_recipe, base_faults
from matdarwin.training.cards import task_card
from matdarwin.training.errors import TrainingError
from matdarwin.training.feed import Feed
from matdarwin.training.options import Stage
from matdarwin.training.provenance import commit, machine
from matdarwin.training.recipe import DEFAULTS, Recipe, earlier_tasks, ids_of
from matdarwin.training.recipe import split_of as split_of
from matdarwin.training.report import Report, Silent, waiting
from matdarwin.training.stages import METRICS, PAGE, Run, calibrated, calibrations, own_feed, stage_feed
from matdarwin.training.teach import teach

SAVE_EVERY = 300.0
"""Seconds from one saved state to the next: at 1.5 GB a state, writing it costs some hundredths of the time."""
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
    if recipe.split.calibration and any(task.kind == "classification" for task in tasks):
        # Once, rows of classes were held back too; what was trained so is not what would be trained now.
        found["calibrated"] = "regression"
    if recipe.evidence:
        told = [task.id for task in tasks if task.origin == "measured"]
        found["evidence"] = [evidence.digest(evidence.choose(recipe.evidence)), told]
    # What is scored, and what is computed, decide which rows may teach. Of the library it is known by a task's id.
    scored = {task.id for task in leakage.targets(tasks)}
    if unscored := [task.id for task in tasks if task.id not in scored]:
        found["unscored"] = unscored
    library = {name: registry.load(name).origin for name in registry.names()}
    if origins := {task.id: task.origin for task in tasks if task.origin != library.get(task.id, "measured")}:
        found["origins"] = origins
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
    recipe: Recipe,
    *,
    tasks: Sequence[Task] | None = None,
    report: Report | None = None,
    split: Split | None = None,
    save_every: float = SAVE_EVERY,
    allow_leak: bool = False,
) -> Checkpoint:
    """Run a recipe; one that has run already is not run again, and one that was broken off goes on where it stood.

    Args:
        recipe: What to do.
        tasks: Its tasks, where they are no registered ones.
        report: Where progress is told.
        split: A ready division of the rows, for callers whose rows are no files.
        save_every: Seconds from one saved state to the next.
        allow_leak: Also train what the audit calls leaky; all that is scored of it says so.

    Returns:
        The sealed checkpoint.

    Raises:
        TrainingError: Nothing to train on, a recipe that the audit calls leaky, a loss that is no number, or too little
            memory or disk.
        CheckpointError: Another run holds the checkpoint, or it cannot be written.
        DataError, BaseModelError: Data or base model cannot be had.
    """
    refuse_undivided(recipe, allow_leak=allow_leak)
    world = ranks.current()
    report = (report or Silent()) if world.is_first else Silent()
    known = list(tasks) if tasks is not None else [registry.load(name) for name in recipe.tasks]
    base = find_base(recipe.base)
    digest = recipe_hash(recipe, known, base)
    name = checkpoint_name(recipe, digest)
    with world.hold(name):
        done = checkpoints.checkpoints_folder() / name
        if world.first((done / checkpoints.MANIFEST).is_file):
            report.say(f"{name} is there already")
            world.first(lambda: _clear(name))
            return world.first(lambda: Checkpoint.open(done))
        began = time.perf_counter()
        # Now, not when it is sealed: the code may be edited while a long run goes on with what it loaded.
        code = commit()
        divided = split or split_of(recipe, known)
        leaky = check(recipe, known, divided, audited=split is None, allow_leak=allow_leak)
        run = begin(recipe, known, base, name, report, divided, save_every=save_every)
        run.leaky = leaky
        return _train(run, digest, code, began)


def refuse_undivided(recipe: Recipe, *, allow_leak: bool = False) -> None:
    """Refuse a recipe whose test materials teach by its own words, unless that is asked for.

    Raises:
        TrainingError: It is such a recipe.
    """
    if recipe.split.rule == "none" and not allow_leak:
        raise TrainingError(
            f"recipe {recipe.name} has split.rule none, by which test materials teach, so it is LEAKY and nothing is trained. "
            "See what crosses with darwin audit, and train with split.rule: key; --allow-leak trains it as it is, and "
            "marks every result"
        )


def check(
    recipe: Recipe, tasks: Sequence[Task], split: Split, *, audited: bool = True, allow_leak: bool = False
) -> bool:
    """Whether a recipe leaks and is trained all the same, as is asked for.

    Args:
        recipe: The recipe.
        tasks: Its tasks.
        split: The division of their rows.
        audited: Whether the recipe's tasks are audited too, where a fold is held out.
        allow_leak: Whether a leak is to be borne.

    Raises:
        TrainingError: It leaks, and that was not asked for.
    """
    said = leakage.check(split)
    if recipe.fold is not None and audited:
        found = audit_recipe(recipe, tasks=tasks, folds=[recipe.fold], divided={recipe.fold: split})
        said += [
            f"{pair.found:,} of {pair.test_rows:,} test rows of {pair.task} stand in training of {pair.train_task}"
            for pair in (*(pair for pair in found.pairs if pair.found), *found.twins)
        ]
        said += found.base
    elif recipe.fold is not None:
        said += base_faults(recipe, split)
    if said and not allow_leak:
        raise TrainingError(
            f"recipe {recipe.name} is LEAKY, so nothing is trained: {'; '.join(said[:3])}. See darwin audit; --allow-leak trains it all "
            "the same, and marks every result"
        )
    # What was told to be leaky is called so, though no row of this table may have crossed.
    return bool(said) or recipe.split.rule == "none"


def begin(
    recipe: Recipe, tasks: Sequence[Task], base: Base, name: str, report: Report, split: Split, *,
    save_every: float = SAVE_EVERY,
) -> Run:  # fmt: skip
    """A run with its rows divided and its model loaded, before anything is taught."""
    import torch

    torch.manual_seed(recipe.seed)
    device, compute = ranks.current().first(lambda: device_and_dtype(recipe.dtype, training=True))
    if calibrated(tasks, split):
        # Intervals are calibrated at the end, in this format; what this machine cannot do is to be said before that.
        device_and_dtype(recipe.predicting.dtype, training=False)
    report.say(
        f"{name}: {sum(len(split.train[task.id]) for task in tasks):,} training rows; base {base.name}, {recipe.method}, {compute}"
    )
    model = load_model(
        base.folder, dtype=torch.float32, random_seed=recipe.seed if recipe.weights == "random" else None
    )
    refuse_unless_causal(model, base)
    if not ranks.current().sharded:
        # Sharded weights are cut from it on the CPU, so that no GPU needs room for the whole.
        model = model.to(device)
    run = Run(
        recipe=recipe, tasks=list(tasks), split=split, base=base, style=style(recipe.prompting.style),
        model=_adapt(model, recipe), tokenizer=load_tokenizer(base.folder), name=name, report=report, compute=compute,
        folder=_folder(name), save_every=save_every,
    )  # fmt: skip
    run.cards = {task.id: task_card(task, split) for task in tasks}
    if Encoder(run.tokenizer).digits() is None:
        report.say(
            f"warning: the tokenizer of {base.name} has tokens of several digits, so numbers of like value begin unlike; "
            "expect larger errors than from a base whose digits are single tokens"
        )
    return run


def _train(run: Run, digest: str, code: str | None, began: float) -> Checkpoint:
    recipe, name = run.recipe, run.name
    # Before the earlier stages are trained: what is wrong with the last is to be said at once.
    feed = own_feed(run)
    _settle(run)
    earlier = _earlier(run)
    taught = time.perf_counter()
    told = teach(run, feed, recipe.tuning(), choose=True)
    if earlier:
        told["earlier"] = earlier
    # A run that was stopped had spent time before this process began.
    spent = told["seconds_training"] + told["seconds_validating"]
    began -= max(0.0, spent - (time.perf_counter() - taught))
    told["seconds"] = round(time.perf_counter() - began, 1)
    intervals = ranks.current().first(lambda: calibrations(run))
    told["commit"] = code
    if run.leaky:
        told["leaky"] = True
    told["seconds_with_calibration"] = round(time.perf_counter() - began, 1)
    card = Card(
        name=name, role=recipe.role, created=datetime.now(UTC).isoformat(timespec="microseconds"), code=__version__,
        recipe=recipe.model_dump(mode="json"), recipe_hash=digest, base={"name": run.base.name, "sha256": run.base.sha256},
        method=recipe.method, style=run.style.id, answers=ANSWER_FORMAT, fold=recipe.fold, tasks=run.cards,
        training=told, machine=machine(),
    )  # fmt: skip

    calibration = {task: c.model_dump(mode="json") for task, c in intervals.items()}
    return ranks.current().first(lambda: _seal(run, card, calibration))


def _seal(run: Run, card: Card, calibration: dict[str, Any] | None) -> Checkpoint:
    made = checkpoints.write_checkpoint(
        run.name, card, lambda folder: _fill(run, folder, card, calibration or {}), calibration=calibration
    )
    shutil.rmtree(run.folder)
    return made


def _fill(run: Run, folder: Path, card: Card, calibration: dict[str, Any]) -> None:
    run.model.save_pretrained(folder / checkpoints.WEIGHTS)
    run.tokenizer.save_pretrained(folder / checkpoints.TOKENIZER)
    (folder / METRICS).write_bytes(run.log.read_bytes())
    (folder / checkpoints.README).write_text(card_markdown(card, calibration), encoding="utf-8")
    told = card.training
    page = run.page(
        "finished", done=told["steps"], total=told["steps"], seconds=told["seconds_training"], tokens=told["tokens"],
    )  # fmt: skip
    (folder / PAGE).write_text(page, encoding="utf-8")


def _clear(name: str) -> None:
    """Remove what a run has left that was ended after its checkpoint was sealed."""
    shutil.rmtree(_folder(name), ignore_errors=True)


def _folder(name: str) -> Path:
    """Where what belongs to a run stands until it has ended: its metrics, and states to go on from."""
    return checkpoints.checkpoints_folder() / f".{name}.run"


def _settle(run: Run) -> None:
    """Keep the number format that `dtype: auto` chose when the run began: a busy machine may measure otherwise today."""
    import torch

    file = run.folder / "dtype"

    def settled() -> str:
        if not file.is_file():
            with sources.disk_errors(file):
                disk.write_whole(file, _in_states(run) or str(run.compute).removeprefix("torch."))
        return file.read_text(encoding="utf-8")

    run.compute = getattr(torch, ranks.current().first(settled))


def _in_states(run: Run) -> str | None:
    """The number format that the states of an older version of this library hold."""
    for file in sorted(run.folder.glob("snapshots/step-*/state.json"), reverse=True):
        with suppress(OSError, ValueError):
            if found := json.loads(file.read_text(encoding="utf-8")).get("compute"):
                return str(found)
    return None


def _earlier(run: Run) -> list[str]:
    """Take the model through the earlier stages; returns their checkpoints. One that stands already is not run again.

    A stage is found by its hash (see `stage_digests`), so recipes and folds whose stages agree share one.
    """
    import torch

    names: list[str] = []
    model = run.model
    feeds = [stage_feed(run, stage) for stage in run.recipe.before]
    for stage, feed, digest in zip(run.recipe.before, feeds, stage_digests(run, feeds), strict=True):
        name = f"{stage.name}-{digest[:8]}"
        # Runs side by side share a stage: the first trains it, the others wait.
        with ranks.current().hold(name, waiting=waiting(run.report, name)):
            done = checkpoints.checkpoints_folder() / name
            if ranks.current().first((done / checkpoints.MANIFEST).is_file):
                run.report.say(f"stage {stage.name}: {name} is there already")
                ranks.current().first(partial(_clear, name))
                stood = Checkpoint.open(done)
                model.load_state_dict(stood.model(torch.float32).state_dict())
            else:
                run.report.say(f"stage {stage.name}: {feed.size:,} examples an epoch")
                own = replace(run, name=name, folder=_folder(name), stage=f"stage {stage.name}", leaky=False)
                stood = _stage(own, stage, feed, digest)
        names.append(stood.name)
    return names


def stage_digests(run: Run, feeds: Sequence[Feed]) -> list[str]:
    """Hashes of a recipe's earlier stages, by what each begins with and every row that it is fed."""
    begun = [run.base.sha256, run.recipe.weights, run.recipe.dtype, ANSWER_FORMAT, DEFAULTS]
    found = []
    for stage, feed in zip(run.recipe.before, feeds, strict=True):
        options = stage.optimising.shaping().model_dump(mode="json", exclude_defaults=True)
        # How a row's text is made shapes a stage as its rows do.
        asked = {"tasks": [_shape(task) for task in run.split.tasks if task.id in ids_of(stage)]} if stage.tasks else {}
        digest = feed.digest(begun=begun, optimising=options, **asked)
        found.append(digest)
        begun = [digest]
    return found


def _stage(run: Run, stage: Stage, feed: Feed, digest: str) -> Checkpoint:
    """Train an earlier stage and seal it."""
    began = time.perf_counter()
    code = commit()
    _settle(run)
    try:
        told = teach(run, feed, stage.optimising, choose=False)
    except TrainingError as error:
        # What is to be changed is the stage's own, not the tasks'.
        own = re.sub(r"\boptimising\.", f"before.{stage.name}.optimising.", str(error))
        raise TrainingError(f"stage {stage.name}: {own}") from error
    told |= {"commit": code, "seconds": round(time.perf_counter() - began, 1)}
    card = Card(
        name=run.name, role="stage", created=datetime.now(UTC).isoformat(timespec="microseconds"), code=__version__,
        recipe={"stage": stage.model_dump(mode="json"), "seed": run.recipe.seed}, recipe_hash=digest,
        base={"name": run.base.name, "sha256": run.base.sha256}, method="full", style=run.style.id, answers=ANSWER_FORMAT,
        fold=None, tasks={}, training=told, machine=machine(),
    )  # fmt: skip

    return ranks.current().first(lambda: _seal(run, card, None))


def _adapt(model: Any, recipe: Recipe) -> Any:
    if recipe.method == "full":
        return model
    import torch
    from peft import LoraConfig, get_peft_model

    lora = recipe.lora
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        kinds = sorted(
            {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
        )
        raise TrainingError(f"lora.targets: this base has no {lora.targets}; it has {', '.join(kinds)}") from error
