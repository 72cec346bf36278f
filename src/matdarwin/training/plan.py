"""What a recipe would train: tokens, time, memory and disk on this machine, from a short measurement."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

from matdarwin.data.leakage import Split
from matdarwin.models import checkpoint as checkpoints
from matdarwin.models.base import find_base
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training import run as runs
from matdarwin.training.feed import Feed
from matdarwin.training.options import Optimising
from matdarwin.training.provenance import peak_memory
from matdarwin.training.recipe import Recipe, split_of
from matdarwin.training.report import Report, Silent
from matdarwin.training.schedule import total_steps
from matdarwin.training.stages import Run, own_feed, stage_feed
from matdarwin.training.teach import set_up

_MEASURED = 10.0
"""Seconds that the measurement takes, but for its first step."""
_SAMPLE = 20
"""Batches whose tokens are counted; an epoch's batches are shuffled, so that these stand for all."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage as it would be trained.

    Attributes:
        name: Its name; `tune` is that of the tasks themselves.
        checkpoint: What it leaves.
        examples: Examples that are seen.
        steps: Steps.
        tokens: Tokens, prompts and answers together, estimated from a sample.
        seconds: Time to train, estimated from the measurement; 0 where it stands already.
        stands: Whether an earlier run has left it, so that it is not trained again.
    """

    name: str
    checkpoint: str
    examples: int
    steps: int
    tokens: int
    seconds: float
    stands: bool


@dataclass(frozen=True)
class Plan:
    """What would be trained.

    Attributes:
        checkpoint: Name of the checkpoint.
        done: Whether it is there already.
        leaky: Whether the audit calls the recipe leaky, which was allowed.
        stages: Its stages, in order.
        tokens_per_second: What this machine makes of the tasks' own stage; 0 where nothing was measured.
        memory_gib: Greatest resident memory of the measurement, of all stages that do not stand, in GiB; on CUDA that of the device.
        disk_gib: Disk that the run takes at most, in GiB: two states, the best weights and the checkpoints.
        kept_gib: Disk that each checkpoint it leaves takes, in GiB.
        free_gib: Disk that is free, in GiB.
        device: Where it would compute, and in what number format.
        parameters: Parameters in training, and of the model in all.
    """

    checkpoint: str
    done: bool
    leaky: bool
    stages: tuple[PlannedStage, ...]
    tokens_per_second: float
    memory_gib: float
    disk_gib: float
    kept_gib: float
    free_gib: float
    device: str
    parameters: tuple[int, int]

    @property
    def seconds(self) -> float:
        """Time of all stages that do not stand yet."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def enough_disk(self) -> bool:
        """Whether the disk has room for it."""
        return self.done or self.disk_gib <= self.free_gib


def plan(
    recipe: Recipe,
    *,
    tasks: Sequence[Task] | None = None,
    report: Report | None = None,
    split: Split | None = None,
    allow_leak: bool = False,
) -> Plan:
    """Check a recipe, its audit and the disk, and measure some steps; nothing is written.

    Args:
        recipe: What would be trained.
        tasks: Its tasks, where they are no registered ones.
        report: Where progress is told.
        split: A ready division of the rows, as for `training.run.train`.
        allow_leak: Bear a leak.

    Raises:
        TrainingError: As from `training.run.train`, before anything is trained.
    """
    runs.refuse_undivided(recipe, allow_leak=allow_leak)
    report = report or Silent()
    known = list(tasks) if tasks is not None else [registry.load(name) for name in recipe.tasks]
    base = find_base(recipe.base)
    name = runs.checkpoint_name(recipe, runs.recipe_hash(recipe, known, base))
    root = checkpoints.checkpoints_folder()
    done = (root / name / checkpoints.MANIFEST).is_file()
    divided = split or split_of(recipe, known)
    leaky = runs.check(recipe, known, divided, audited=split is None, allow_leak=allow_leak)
    run = runs.begin(recipe, known, base, name, report, divided)
    feed = own_feed(run)
    earlier = [(stage, stage_feed(run, stage)) for stage in recipe.before]
    digests = runs.stage_digests(run, [own for _, own in earlier])
    stages = []
    for (stage, own), digest in zip(earlier, digests, strict=True):
        left = f"{stage.name}-{digest[:8]}"
        stands = (root / left / checkpoints.MANIFEST).is_file()
        rate = 0.0
        if not (stands or done):
            report.say(f"measuring stage {stage.name} for {_MEASURED:.0f} seconds")
            rate = _measure(run, own, stage.optimising)[0]
        stages.append(_planned(stage.name, left, own, stage.optimising, rate, stands=stands))
    report.say(f"measuring for {_MEASURED:.0f} seconds")
    rate, moving, kept, memory = _measure(run, feed, recipe.tuning())
    stages.append(_planned("tune", name, feed, recipe.optimising, 0.0 if done else rate, stands=done))
    total = sum(p.numel() for p in run.model.parameters())
    # A state holds each weight in training, its two moments and maybe its mean; the checkpoint is written beside two.
    state = moving * 4 * (4 if recipe.optimising.average else 3)
    # The best weights so far stand beside each state that refers to them.
    best = 3 * kept * 4 if recipe.split.validation else 0
    free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free
    return Plan(
        checkpoint=name, done=done, leaky=leaky, stages=tuple(stages), tokens_per_second=rate, memory_gib=memory,
        disk_gib=(3 * state + best + total * 4 * (1 + sum(not stage.stands for stage in stages[:-1]))) / 2**30,
        kept_gib=total * 4 / 2**30, free_gib=free / 2**30,
        device=f"{next(run.model.parameters()).device.type}, {str(run.compute).removeprefix('torch.')}",
        parameters=(moving, total),
    )  # fmt: skip


def _planned(name: str, checkpoint: str, feed: Feed, options: Optimising, rate: float, *, stands: bool) -> PlannedStage:
    """A stage as planned; at the rate 0, which is not measured, none of it is to be trained."""
    steps = total_steps(options, size=feed.size, steps=feed.steps, sources=feed.sources)
    sample = list(itertools.islice(feed.batches(), min(steps, _SAMPLE)))
    tokens = sum(len(row.prompt) + len(row.answer) - 1 for rows in sample for row in rows)
    examples = round(steps * feed.size / feed.steps)
    counted = round(tokens / sum(map(len, sample)) * examples)
    return PlannedStage(name, checkpoint, examples, steps, counted, counted / rate if rate else 0.0, stands)


def _measure(run: Run, feed: Feed, options: Optimising) -> tuple[float, int, int, float]:
    """Tokens a second, parameters in training, those of kept weights, and GiB of memory so far, from real steps on the model.

    Which is then spoiled, but not for further measurements.
    """
    loop, words = set_up(run, feed, options, 10_000)
    batches = feed.batches()
    # The first step sets memory aside and compiles what there is to compile.
    loop.step(next(batches))
    steps: list[tuple[int, float]] = []
    began = last = time.perf_counter()
    while last - began < _MEASURED:
        tokens = loop.step(next(batches)).tokens
        last, before = time.perf_counter(), last
        steps.append((tokens, last - before))
    # On CUDA the first ones record what the later ones, and nearly all of a training, only start.
    counted = steps[len(steps) // 2 :] if next(run.model.parameters()).device.type == "cuda" else steps
    moving = kept = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    if words is not None:
        # Some rows of a matrix move, but the whole of it is kept.
        moving += sum(p.numel() for p in words.parameters)
        kept += sum(matrix.numel() for matrix in words.matrices)
    return sum(tokens for tokens, _ in counted) / sum(spent for _, spent in counted), moving, kept, peak_memory()
