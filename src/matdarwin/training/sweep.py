"""A sweep: one recipe trained with one setting after another, each scored on validation rows, never on a test fold."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matdarwin.data import disk, sources
from matdarwin.data.leakage import Split
from matdarwin.models import checkpoint as checkpoints
from matdarwin.models.base import find_base
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training.errors import TrainingError
from matdarwin.training.recipe import RecipeError, split_of
from matdarwin.training.recipe_files import load_recipe
from matdarwin.training.report import Report, Silent
from matdarwin.training.run import checkpoint_name, recipe_hash, train
from matdarwin.training.scales import deviation, overall
from matdarwin.training.vary import SweepError, Vary, propose

_TRIALS, _BEGUN, RESULT = "trials.jsonl", "begun.json", "result.json"


class Trial(BaseModel):
    """One setting and what became of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(description="From 1.")
    settings: tuple[str, ...] = Field(description="What was set, as KEY=VALUE.")
    drawn: dict[str, float | int | str] = Field(description="By key, what the sampler drew, before it was rounded.")
    checkpoint: str = Field(description="Name of its checkpoint; empty where the settings exclude one another.")
    ours: bool = Field(description="Whether the checkpoint was made by this sweep and may be removed by it.")
    seconds: float = Field(description="Time that it took, in seconds.")
    score: float | None = Field(
        description="Less is better: mean absolute error as a share of the targets' own deviation, or 1 - accuracy; the "
        "mean over tasks. None where training failed."
    )
    validation: dict[str, tuple[str, float]] = Field(description="Metric and value by task.")
    repeats: int | None = Field(default=None, description="Number of the earlier trial that had these settings.")
    reason: str | None = Field(default=None, description="Why training failed.")


class Outcome(BaseModel):
    """What a sweep found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    vary: tuple[str, ...]
    seed: int
    validation_rows: dict[str, int]
    """Validation rows by task; a trial is scored on these or on a sample of them."""
    trials: tuple[Trial, ...]
    best: Trial

    def arguments(self) -> str:
        """The best settings as arguments of `darwin train`."""
        return " ".join(f"--set {shlex.quote(text)}" for text in self.best.settings)


def sweep(
    path: Path | str,
    vary: Sequence[Vary],
    *,
    trials: int,
    minutes: float | None = None,
    seed: int = 0,
    keep: bool = False,
    settings: Sequence[str] = (),
    report: Report | None = None,
) -> Outcome:
    """Try settings of a recipe; a sweep that was broken off goes on where it stood, and draws what it would have drawn.

    Trials stand in the folder `sweeps` beside the checkpoints. The best one's checkpoint is kept and the others' are
    removed; one that was there before is never removed.

    Args:
        path: The recipe file.
        vary: What is varied; see `matdarwin.training.vary.parse`.
        trials: Trials in all, those of earlier starts counted.
        minutes: No trial but the first is begun once so many have gone by; None: no limit.
        seed: Seed of the drawing.
        keep: Keep every trial's checkpoint.
        settings: What is set in all trials, as KEY=VALUE.
        report: Where progress is told.

    Raises:
        SweepError: No validation rows, a key that may not vary, Optuna is not installed, another process is at this
            sweep, no trial could be trained.
        RecipeError, DataError, BaseModelError, CheckpointError: As from training.
    """
    report = report or Silent()
    recipe = load_recipe(path, list(settings))
    for one in vary:
        for text in one.ends():
            # An unknown key or a value out of its bounds is told before the first trial.
            load_recipe(path, [*settings, text])
    if recipe.split.validation == 0:
        raise SweepError(
            f"{path} has split.validation 0, so there is nothing to choose settings by, and test folds are never looked at "
            "for that; add --set split.validation=0.1"
        )
    tasks = [registry.load(name) for name in recipe.tasks]
    split = split_of(recipe, tasks)
    if empty := [task.id for task in tasks if not split.validation[task.id]]:
        raise SweepError(f"no validation row is left of {', '.join(empty)}; raise split.validation")
    digest = recipe_hash(recipe, tasks, find_base(recipe.base))
    words = sorted(one.text() for one in vary)
    whole = hashlib.sha256(json.dumps([digest, words, seed]).encode()).hexdigest()
    folder = sources.home() / "sweeps" / f"{recipe.name}-{whole[:8]}"
    with sources.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            found = _Sweep(
                Path(path), list(settings), list(vary), seed, keep, tasks, _scales(split, tasks), folder, report
            )
            found.run(trials, None if minutes is None else time.monotonic() + 60 * minutes)
    except Timeout:
        raise SweepError(f"another process is at this sweep ({folder}); wait for it or stop it") from None
    done = found.trials
    if (best := found.best()) is None:
        raise SweepError(f"none of {len(done)} trials could be trained; the last one: {done[-1].reason}")
    rows = {task.id: len(split.validation[task.id]) for task in tasks}
    outcome = Outcome(
        recipe=recipe.name, vary=tuple(words), seed=seed, validation_rows=rows, trials=tuple(done), best=best
    )
    _write(folder / RESULT, outcome.model_dump_json(indent=1))
    report.say(f"written to {folder / RESULT}")
    return outcome


class _Sweep:
    """A sweep at work on its folder."""

    def __init__(
        self, path: Path, settings: list[str], vary: list[Vary], seed: int, keep: bool, tasks: list[Task],
        scales: Mapping[str, float], folder: Path, report: Report,
    ) -> None:  # fmt: skip
        self._path, self._settings, self._vary, self._seed, self._keep = path, settings, vary, seed, keep
        self._tasks, self._scales, self._folder, self._report = tasks, scales, folder, report
        self.trials = _read(folder / _TRIALS)

    def best(self) -> Trial | None:
        """The first of the trials with the least score."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return min(scored, key=lambda trial: trial.score or 0.0, default=None)

    def run(self, count: int, deadline: float | None) -> None:
        """Make the trials that are missing."""
        if self.trials:
            self._report.say(f"{len(self.trials)} trials are there already")
        self._tidy()
        first = len(self.trials)
        while len(self.trials) < count:
            if deadline is not None and time.monotonic() >= deadline and len(self.trials) > first:
                self._report.say(f"the time is up after {len(self.trials)} of {count} trials")
                return
            trial = self._one(len(self.trials) + 1, count)
            with sources.disk_errors(self._folder), (self._folder / _TRIALS).open("a", encoding="utf-8") as stream:
                stream.write(trial.model_dump_json() + "\n")
            disk.sync(self._folder / _TRIALS)
            self.trials.append(trial)
            self._tidy()

    def _one(self, number: int, count: int) -> Trial:
        past = [(trial.drawn, trial.score) for trial in self.trials]
        drawn = propose(self._vary, past, seed=self._seed)
        settings = tuple(one.setting(drawn[one.key]) for one in self._vary)
        self._report.say(f"trial {number} of {count}: {', '.join(settings)}")
        for trial in self.trials:
            if trial.settings == settings:
                self._report.say(f"these are the settings of trial {trial.number}")
                return trial.model_copy(
                    update={"number": number, "drawn": drawn, "seconds": 0.0, "repeats": trial.number}
                )
        try:
            recipe = load_recipe(self._path, [*self._settings, *settings])
        except RecipeError as error:
            # Each of them may be had, but not together; the next draw shall know.
            self._report.say(f"trial {number} failed: {error}")
            return Trial(
                number=number, settings=settings, drawn=drawn, checkpoint="", ours=False, seconds=0.0, score=None,
                validation={}, reason=str(error),
            )  # fmt: skip
        name = checkpoint_name(recipe, recipe_hash(recipe, self._tasks, find_base(recipe.base)))
        ours = self._claim(number, name)
        began = time.perf_counter()
        validation: dict[str, tuple[str, float]] = {}
        reason = None
        try:
            validation = dict(train(recipe, tasks=self._tasks, report=self._report).card.training["validation"])
        except TrainingError as error:
            if error.__cause__ is not None and disk.said(error.__cause__) is not None:
                raise  # of the disk, not of these settings
            reason = str(error)
            self._report.say(f"trial {number} failed: {reason}")
            if ours:
                # The state of a run that cannot go on.
                shutil.rmtree(checkpoints.checkpoints_folder() / f".{name}.run", ignore_errors=True)
        score = None if reason else overall(validation, self._scales)
        return Trial(
            number=number, settings=settings, drawn=drawn, checkpoint=name, ours=ours,
            seconds=round(time.perf_counter() - began, 1), score=score, validation=validation, reason=reason,
        )  # fmt: skip

    def _claim(self, number: int, name: str) -> bool:
        """Whether the checkpoint is this sweep's own: it did not stand before the trial first began."""
        file = self._folder / _BEGUN
        if file.is_file() and (begun := json.loads(file.read_text(encoding="utf-8")))["number"] == number:
            return bool(begun["ours"])
        ours = not (checkpoints.checkpoints_folder() / name).exists()
        _write(file, json.dumps({"number": number, "ours": ours}))
        return ours

    def _tidy(self) -> None:
        """Remove the checkpoints of this sweep that are not the best."""
        if self._keep or (best := self.best()) is None:
            return
        root = checkpoints.checkpoints_folder()
        for name in dict.fromkeys(trial.checkpoint for trial in self.trials if trial.ours):
            if name != best.checkpoint and (root / name).is_dir():
                with checkpoints.hold(name):
                    shutil.rmtree(root / name)


def _scales(split: Split, tasks: Sequence[Task]) -> dict[str, float]:
    """Mean absolute deviation of the training targets from their median, by regression task; 1 where it is 0."""
    found = {}
    for task in tasks:
        if task.kind == "regression":
            found[task.id] = deviation(split.train[task.id]) or 1.0
    return found


def _read(file: Path) -> list[Trial]:
    """The trials that a file holds; half a line, which a sweep that was killed may leave, is cut off."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        _write(file, whole)
    try:
        return [Trial.model_validate_json(line) for line in whole.splitlines()]
    except ValidationError as error:
        raise SweepError(f"{file} cannot be read ({error.error_count()} faults); remove it to begin anew") from error


def _write(file: Path, text: str) -> None:
    with sources.disk_errors(file):
        disk.write_whole(file, text)
