"""Teaching a model on a feed: steps, epochs, the best of them, and going on where a broken run stood."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from matdarwin.data import disk
from matdarwin.language.prompts import Encoder
from matdarwin.training import judging
from matdarwin.training.errors import TrainingError
from matdarwin.training.feed import Feed
from matdarwin.training.loop import Loop, memory
from matdarwin.training.options import Optimising
from matdarwin.training.page import State
from matdarwin.training.ranks import current
from matdarwin.training.schedule import total_steps
from matdarwin.training.snapshots import Snapshots
from matdarwin.training.stages import PAGE, Run
from matdarwin.training.words import UsedWords

_SHOWN = 30.0
"""Seconds from one training page to the next."""
_WORTH = 60.0
"""Seconds of training at its end that are worth a last state, should what follows be broken off."""


def teach(run: Run, feed: Feed, options: Optimising, *, choose: bool) -> dict[str, Any]:
    """Train on a feed and tell what happened; what was begun before and broken off goes on bit for bit.

    Where several processes train together, all call it, and all have its model and its answer.

    Args:
        run: The run; its model is moved.
        feed: The batches.
        options: How the weights are moved.
        choose: Keep the weights of the epoch that is best on the validation rows; otherwise the last ones stay.

    Raises:
        TrainingError: The loss is no number, the memory or the disk does not suffice; the last good state stands.
    """
    return _Teaching(run, feed, options, choose=choose).go()


@dataclass
class _Went:
    """How far a training has come, and how.

    Attributes:
        position: Examples that were seen.
        tokens: Their tokens.
        seconds: Time in training, over all parts of a run that was broken off; validation apart.
        validating: Time in validation.
        written: Bytes of metrics.
        resumed: How often it went on.
        best: Overall score, epoch, and scores by task of the best epoch so far.
    """

    position: int = 0
    tokens: int = 0
    seconds: float = 0.0
    validating: float = 0.0
    written: int = 0
    resumed: int = 0
    best: tuple[float, int, dict[str, tuple[str, float]]] | None = None


def set_up(run: Run, feed: Feed, options: Optimising, total: int) -> tuple[Loop, UsedWords | None]:
    """A loop over a run's model, before its first step, and the embeddings that it trains apart.

    Args:
        run: The run; which of its model's weights move is set.
        feed: The batches.
        options: How the weights are moved.
        total: Steps of the whole training.

    Raises:
        TrainingError: An option that this base or these processes do not take.
    """
    processes, words = current(), None
    if run.recipe.method == "full":
        # An earlier stage may have left them as it had them.
        for matrix in (run.model.get_input_embeddings().weight, run.model.get_output_embeddings().weight):
            matrix.requires_grad_(options.embeddings != "frozen")
        if options.embeddings == "used":
            if processes.sharded:
                raise TrainingError(
                    "optimising.embeddings: used trains some rows of a matrix apart, which cannot be sharded (FSDP); "
                    "choose trained or frozen"
                )
            words = UsedWords(run.model, feed.vocabulary())
    loop = Loop(
        run.model, options, total, autocast=run.compute if run.compute != torch.float32 else None, words=words,
        digits=_digits(run, options), ranks=processes, seed=run.recipe.seed,
    )  # fmt: skip
    return loop, words


class _Teaching:
    def __init__(self, run: Run, feed: Feed, options: Optimising, *, choose: bool) -> None:
        self._run, self._feed, self._choose = run, feed, choose
        self._ranks = current()
        self._total = total_steps(options, size=feed.size, steps=feed.steps, sources=feed.sources)
        self._epochs = -(-self._total // feed.steps)
        # Small sets are passed over many times; validating after each pass would cost more than training.
        self._every = math.ceil(self._epochs / max(options.epochs, 1))
        self._snapshots = Snapshots(run.folder / "snapshots")
        found = self._snapshots.latest(self._usable) if self._ranks.is_first else None
        state = self._ranks.first(lambda: found[1] if found else None)
        # Whether earlier stages were trained in this process or stood already must not show.
        torch.manual_seed(run.recipe.seed)
        self._loop, self._words = set_up(run, feed, options, self._total)
        self._went = _Went()
        self._resume(found[0] if found else {}, state)
        lines = run.lines() if self._ranks.is_first else []
        self._losses = [float(line["loss"]) for line in lines if "loss" in line]
        self._saved = self._lapped = self._shown = time.perf_counter()
        self._paused = 0.0

    def go(self) -> dict[str, Any]:
        self._run.report.begin("training", self._total)
        try:
            self._steps()
        except TrainingError as error:
            self._failed(str(error))
            raise
        except OSError as error:
            if disk.said(error) is None:
                raise
            told = self._snapshots.broken_off(error)
            self._failed(told)
            raise TrainingError(told) from error
        self._lap()
        best: dict[str, Any] = {}
        self._ranks.first(lambda: best.update(self._snapshots.kept(self._went.best[1]) if self._went.best else {}))
        with self._averaged():
            # Without a mean they stay as they are.
            weights = best or (self._weights() if self._loop.average is not None else {})
        self._restore(weights)
        self._ranks.share(self._run.model)
        return self._ranks.first(self._told)

    def _steps(self) -> None:
        with _between_steps() as stop:
            for rows in self._feed.batches(self._went.position):
                if self._loop.done >= self._total:
                    break
                self._step(rows)
                due, stopped = self._ranks.any(self._due(), bool(stop))
                if due or stopped:
                    self._save()
                if stopped:
                    self._show("stopped")
                    raise KeyboardInterrupt
                if time.perf_counter() - self._shown >= _SHOWN:
                    self._show("running")

    def _failed(self, why: str) -> None:
        """Leave a page that says why the run ended; there may be no room for one."""
        with suppress(OSError):
            self._show("stopped", remark=why)

    def _told(self) -> dict[str, Any]:
        went, run = self._went, self._run
        return {
            "steps": self._total, "epochs": self._epochs, "rows": self._feed.size, "examples": went.position,
            "tokens": went.tokens, "tokens_per_second": round(went.tokens / went.seconds, 1),
            "final_loss": float(np.mean(self._losses[-20:])), "best_epoch": went.best[1] if went.best else self._epochs,
            "validation": went.best[2] if went.best else {}, "resumed": went.resumed,
            "seconds_training": round(went.seconds, 1), "seconds_validating": round(went.validating, 1),
            "dtype": str(run.compute).removeprefix("torch."),
        }  # fmt: skip

    def _step(self, rows: list[Any]) -> None:
        run, went, steps = self._run, self._went, self._feed.steps
        try:
            step = self._loop.step(rows)
        except TrainingError as error:
            if not self._ranks.is_first:
                raise
            last = self._snapshots.last_step()
            good = "no earlier state was saved" if last is None else f"the state of step {last:,} is kept"
            raise TrainingError(f"{error}. The batch: {self._feed.told(went.position, len(rows))}. {good}") from error
        went.position += len(rows)
        went.tokens += step.tokens
        self._losses.append(step.loss)
        self._write(
            step=step.step, loss=step.loss, learning_rate=step.learning_rate, gradient_norm=step.gradient_norm,
            tokens=went.tokens,
        )  # fmt: skip
        run.report.step(step.step, f"loss {step.loss:.3f}")
        if step.step % steps == 0 or step.step == self._total:
            self._epoch_over(-(-step.step // steps))

    def _write(self, **line: Any) -> None:
        if self._ranks.is_first:
            self._run.write(**line)

    def _due(self) -> bool:
        """Whether a state is to be saved now."""
        # A short training is done again sooner than its state is written.
        every = self._run.save_every if self._loop.done < self._total else min(self._run.save_every, _WORTH)
        return time.perf_counter() - self._saved >= every

    def _epoch_over(self, epoch: int) -> None:
        """Tell of an epoch; validate where it is one to choose from, and keep its weights if it is the best so far."""
        run, went = self._run, self._went
        said = f"epoch {epoch} of {self._epochs}: loss {np.mean(self._losses[-50:]):.3f}"
        if not self._choose:
            self._write(epoch=epoch)
            run.report.say(said)
            return
        # With a rate that falls to zero, the best epoch never lies in the first half.
        if epoch != self._epochs and (epoch % self._every or epoch <= self._epochs // 2):
            return
        start = time.perf_counter()
        with self._averaged(), self._ranks.placed(run.model):
            scores = self._ranks.first(lambda: self._judge(epoch))
        spent = time.perf_counter() - start
        went.validating += spent
        self._paused += spent
        self._write(epoch=epoch, validation=scores)
        shown = ", ".join(f"{task} {name} {value:.4g}" for task, (name, value) in scores.items())
        run.report.say(said + (f"; validation {shown}" if shown else ""))

    def _judge(self, epoch: int) -> dict[str, tuple[str, float]]:
        """Scores of the model on the validation rows; its weights are kept if they are the best so far."""
        size = self._run.recipe.predicting.batch_size
        with memory(
            f"validation after epoch {epoch}", lambda: f"; set predicting.batch_size to {max(1, size // 2)} or less"
        ):
            scores = judging.validate(self._run)
        overall = judging.overall(self._run, scores)
        if scores and (self._went.best is None or overall <= self._went.best[0]):
            self._went.best = (overall, epoch, scores)
            self._snapshots.keep(epoch, self._weights())
        return scores

    def _save(self) -> None:
        run, went = self._run, self._went
        self._lap()
        went.written = 0
        if run.log.exists():
            # A state must not be on the disk before the metrics that it goes on from.
            disk.sync(run.log)
            went.written = run.log.stat().st_size
        tensors, numbers = self._loop.state()
        state = {
            "loop": numbers, "feed": self._feed.state(went.position), "went": asdict(went),
        }  # fmt: skip
        best = went.best[1] if went.best else None
        with memory(
            f"saving the state of step {self._loop.done}", lambda: "; close other programs, or set method to lora"
        ):
            self._ranks.first(lambda: self._snapshots.save(self._loop.done, tensors, state, best=best))
        self._saved = time.perf_counter()

    def _show(self, state: State, remark: str = "") -> None:
        """Write the training page."""
        self._lap()
        went = self._went
        if self._ranks.is_first:
            text = self._run.page(
                state, done=self._loop.done, total=self._total, seconds=went.seconds, tokens=went.tokens, remark=remark
            )
            (self._run.folder / PAGE).write_text(text, encoding="utf-8")
        self._shown = time.perf_counter()

    def _lap(self) -> None:
        """Count the time since the last lap, but for what was spent in validation."""
        now = time.perf_counter()
        self._went.seconds += now - self._lapped - self._paused
        self._lapped, self._paused = now, 0.0

    def _usable(self, state: Mapping[str, Any]) -> bool:
        """Whether the metrics that a state goes on from are there: a power cut may have taken the end of them."""
        run = self._run
        there = run.log.stat().st_size if run.log.exists() else 0
        if state["went"]["written"] <= there:
            return True
        run.report.say(
            f"{run.name}: {run.log} is shorter than at step {state['loop']['done']:,}, so an earlier state counts"
        )
        return False

    def _resume(self, tensors: Mapping[str, Any], state: Mapping[str, Any] | None) -> None:
        """Go on from a state, where there is one; what was written after it goes."""
        run = self._run
        if state is not None:
            self._loop.restore(tensors, state["loop"])
            self._went = _Went(**state["went"])
            self._went.position = self._feed.position(state["feed"])
            self._went.resumed += 1
            run.report.say(f"{run.name}: goes on at step {self._loop.done + 1:,} of {self._total:,}")
        if self._ranks.is_first:
            self._snapshots.tidy(self._loop.done if state is not None else None)
            if run.log.exists():
                with run.log.open("r+b") as stream:
                    stream.truncate(self._went.written)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with its averaged weights, where there are any, and with what was trained apart written back."""
        average = self._loop.average
        with average.applied() if average is not None else nullcontext():
            if self._words is not None:
                self._words.write_back()
            self._loop.collect()
            yield

    def _weights(self) -> dict[str, Any]:
        """Copies of the weights that move, on the CPU: a GPU that trains has no room to spare."""
        # Embeddings that are trained apart do not move by gradient, but by being written back.
        apart = {id(matrix) for matrix in self._words.matrices} if self._words else set()
        return {
            name: p.detach().to("cpu", copy=True)
            for name, p in self._run.model.named_parameters()
            if p.requires_grad or id(p) in apart
        }

    def _restore(self, weights: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self._run.model.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])


@contextmanager
def _between_steps() -> Iterator[list[int]]:
    """Ctrl-C and a request to end wait for the step that is being made, whose state is then whole; a second one does not.

    Yields:
        A list that holds the signal once one has come.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _digits(run: Run, options: Optimising) -> list[int] | None:
    """Token ids of the digits; what it costs where the tokenizer has none is said, or refused where they are needed."""
    digits = Encoder(run.tokenizer).digits()
    if digits is None and options.number_loss != "none":
        raise TrainingError(
            f"optimising.number_loss: the tokenizer of {run.base.name} has tokens of several digits, so digits have no "
            "place of their own; set it to none"
        )
    return digits
