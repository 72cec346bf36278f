"""The parts of a run: what they share, what a stage is fed, and calibrating its intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from matdarwin.data import texts
from matdarwin.data.leakage import Split
from matdarwin.data.negative import negatives, reasons
from matdarwin.data.sampling import Sampling
from matdarwin.language.prompts import Encoder, Style
from matdarwin.models.base import Base, as_dtype, device_and_dtype
from matdarwin.models.checkpoint import LEAKY, TaskCard
from matdarwin.models.decoding import SURE_END
from matdarwin.prediction.intervals import Calibration, calibrate
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.errors import TrainingError
from matdarwin.training.feed import Feed
from matdarwin.training.loop import memory
from matdarwin.training.options import Optimising, Stage
from matdarwin.training.page import Facts, State, render
from matdarwin.training.provenance import machine, peak_memory
from matdarwin.training.recipe import Recipe, ids_of
from matdarwin.training.report import Report

METRICS = "metrics.jsonl"
PAGE = "training.html"


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
    folder: Path
    """Where what belongs to the run stands while it goes on."""
    save_every: float
    """Seconds from one saved state to the next."""
    stage: str = "the tasks themselves"
    """What is taught, in words."""
    cards: dict[str, TaskCard] = field(default_factory=dict)
    leaky: bool = False
    """Whether it is trained in spite of its audit; then its scores and its page say so. Never an earlier stage, which clean runs may share."""

    def predictor(self, *, views: int, model: Any, sure_end: float = SURE_END) -> Predictor:
        """A predictor over a model of this run."""
        asked, taught = self.recipe.predicting, self.recipe.prompting
        return Predictor(
            model, self.tokenizer, tasks=self.cards, style=self.style, name=self.name,
            views=views, batch_size=asked.batch_size, prune=asked.prune, sure_end=sure_end,
            wording=taught.wordings[0] if taught.wordings else None, writing=taught.writing(),
        )  # fmt: skip

    @property
    def log(self) -> Path:
        """The run's metrics, a line of JSON each step and epoch."""
        return self.folder / METRICS

    def write(self, **line: Any) -> None:
        """Add a line to the run's metrics."""
        if self.leaky and "validation" in line:
            line["leaky"] = True
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self.report.metrics(self.name, line)

    def lines(self) -> list[dict[str, Any]]:
        """The metrics so far."""
        if not self.log.is_file():
            return []
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def page(self, state: State, *, done: int, total: int, seconds: float, tokens: int, remark: str = "") -> str:
        """The training page as it stands, as HTML."""
        facts = Facts(
            name=self.name, stage=self.stage, state=state, done=done, total=total, seconds=seconds, tokens=tokens,
            written=datetime.now(UTC), recipe=yaml.safe_dump(self.recipe.model_dump(mode="json", exclude_defaults=True), sort_keys=False),
            machine=machine(), memory_gib=peak_memory(), units={task.id: task.unit for task in self.tasks if task.unit},
            remark="; ".join(filter(None, [remark, LEAKY if self.leaky else ""])),
        )  # fmt: skip
        return render(self.lines(), facts)


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
        batch_size=options.batch_size, smoothing=options.smoothing, seed=run.recipe.seed,
    )  # fmt: skip


def calibrated(tasks: Sequence[Task], split: Split) -> list[Task]:
    """The tasks whose intervals are calibrated."""
    return [task for task in tasks if task.kind == "regression" and split.calibration[task.id]]


def calibrations(run: Run) -> dict[str, Calibration]:
    """Calibrate intervals with the predictor as it will be asked: the same views and number format."""
    asked = run.recipe.predicting
    made: dict[str, Calibration] = {}
    if not (tasks := calibrated(run.tasks, run.split)):
        return made
    _, number_format = device_and_dtype(asked.dtype, training=False)
    predictor = run.predictor(views=asked.views, model=as_dtype(run.model, number_format))
    for task in tasks:
        examples = run.split.calibration[task.id]
        run.report.begin(f"calibrating {task.id}", len(examples))
        with memory(
            f"calibrating {task.id}", lambda: f"; set predicting.batch_size to {max(1, asked.batch_size // 2)} or less"
        ):
            answers = predictor.distributions(task, examples, progress=lambda done, total: run.report.step(done, ""))
        made[task.id] = calibrate(
            task,
            answers,
            [float(e.target) for e in examples if e.target is not None],
            keys=[e.material.key for e in examples],
        )
    return made
