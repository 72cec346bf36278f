"""The stream of training examples over several tasks: seeded, sampled by a stated rule, resumable at any position.

An epoch has as many examples as the tasks have rows (a capped task counts its cap), and every epoch has the same
number of each task, that of the rule. So where a task stands after n examples is arithmetic and not history: the
k-th example of a task is row k mod size of the shuffle of pass k // size. Nothing is replayed but one epoch's order.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matdarwin.data.sampling import Ints, Sampling, bits, counts, permutation, shares
from matdarwin.data.sources import DataError
from matdarwin.tasks.schema import Example

_WINDOW = 16
"""Batches that are sorted by length together; more would leave too little chance in what stands beside what."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One example of the stream.

    Attributes:
        position: Its place in the stream, from 0.
        epoch: Epoch of the mixture, from 0.
        turn: How often the task's rows have all come before, from 0.
        example: The training row.
        wording: Index of the wording to ask it in.
        seed: A number from 0 below 2^64 for whatever else is drawn for it, such as the order of its elements.
    """

    position: int
    epoch: int
    turn: int
    example: Example
    wording: int
    seed: int

    @property
    def task(self) -> str:
        """Id of the task."""
        return self.example.task

    @property
    def key(self) -> str:
        """Identity of the material."""
        return self.example.material.key


@dataclass(frozen=True, slots=True)
class _Plan:
    """One epoch's order. Its examples have numbers, task after task; `order` and `ends` go by place in the epoch."""

    epoch: int
    rows: Ints
    turns: Ints
    order: Ints
    ends: list[int]
    drawn: NDArray[np.uint64]


class Mixture:
    """The stream, without end.

    The order depends on the seed, the rows and the options alone. The tasks are spread evenly: any stretch of an epoch
    has each in its share, but for a few examples a task (one batch a task, or a window of lengths, where asked for).

    Args:
        rows: Training rows by task id, such as `Split.train`.
        sampling: The rule.
        seed: Seed of all that is drawn.
        batch_size: Most examples a batch; the last of an epoch (with batches of one task, of each task) may be shorter.
        wordings: Wordings to draw from, by task id.
        length: Length of an example's prompt in any unit; given, batches hold examples of like length, which spares
            padding: 16 batches are sorted together, and then shuffled.

    Attributes:
        shares: Each task's part of the stream by the rule.
        counts: Examples of each task in an epoch.
        size: Examples in an epoch.
        steps: Batches in an epoch.

    Raises:
        DataError: No task, a task without rows or wordings, a row under another task's id, a weight or cap of an
            unknown task, or a share that comes to no example in an epoch.
    """

    def __init__(
        self,
        rows: Mapping[str, Sequence[Example]],
        sampling: Sampling,
        *,
        seed: int,
        batch_size: int,
        wordings: Mapping[str, Sequence[int]],
        length: Callable[[Example], int] | None = None,
    ) -> None:
        _check(rows, sampling, batch_size, wordings)
        self._rows = {task: list(examples) for task, examples in rows.items()}
        self._sampling = sampling
        self._seed = seed
        self._batch_size = batch_size
        self._wordings = {task: tuple(wordings[task]) for task in rows}
        sizes = {task: len(examples) for task, examples in rows.items()}
        self.size = sum(min(size, sampling.caps.get(task, size)) for task, size in sizes.items())
        self.shares = shares(sizes, sampling)
        self.counts = counts(self.shares, self.size)
        parts = list(self.counts.values()) if sampling.batches == "task" else [self.size]
        self.steps = sum(-(-part // batch_size) for part in parts)
        self._tasks = [task for task, count in self.counts.items() for _ in range(count)]
        self._lengths = (
            {task: np.array([length(row) for row in examples]) for task, examples in rows.items()} if length else None
        )
        self._digest = self._hash()
        self._kept: _Plan | None = None

    def at(self, position: int) -> Draw:
        """The example at a position of the stream, from 0.

        Raises:
            ValueError: The position is below 0.
        """
        epoch, offset = divmod(_checked(position), self.size)
        return self._draw(self._plan(epoch), offset)

    def draws(self, start: int = 0) -> Iterator[Draw]:
        """The stream from a position on, without end.

        Raises:
            ValueError: The position is below 0.
        """
        return itertools.chain.from_iterable(self.batches(start))

    def batches(self, start: int = 0) -> Iterator[list[Draw]]:
        """The stream from a position on in batches, without end; inside a batch, its rest comes first.

        Raises:
            ValueError: The position is below 0.
        """
        return self._batches(*divmod(_checked(start), self.size))

    def state(self, position: int) -> dict[str, int | str]:
        """What is to be stored in order to go on at a position: small, and fit for JSON."""
        return {"position": _checked(position), "mixture": self._digest}

    def position(self, state: Mapping[str, object]) -> int:
        """The position that a state was taken at.

        Raises:
            DataError: It is no state, or that of a mixture of other rows, options or seed.
        """
        position = state.get("position")
        if not isinstance(position, int) or isinstance(position, bool) or position < 0 or "mixture" not in state:
            raise DataError(
                f"{dict(state)!r} is no state of a mixture; it has a position from 0 and the mixture's hash"
            )
        if state["mixture"] != self._digest:
            raise DataError(
                "the state is that of another mixture: rows, rule, seed, wordings or batch size have changed since, so "
                "the stream cannot go on where it stood; restore them, or begin anew"
            )
        return position

    def _batches(self, epoch: int, offset: int) -> Iterator[list[Draw]]:
        while True:
            plan = self._plan(epoch)
            for begin, end in itertools.pairwise([0, *plan.ends]):
                if end > offset:
                    yield [self._draw(plan, place) for place in range(max(begin, offset), end)]
            epoch, offset = epoch + 1, 0

    def _draw(self, plan: _Plan, place: int) -> Draw:
        number = plan.order[place]
        task = self._tasks[number]
        wordings = self._wordings[task]
        return Draw(
            position=plan.epoch * self.size + place,
            epoch=plan.epoch,
            turn=int(plan.turns[number]),
            example=self._rows[task][plan.rows[number]],
            wording=wordings[int(plan.drawn[place, 0]) % len(wordings)],
            seed=int(plan.drawn[place, 1]),
        )

    def _plan(self, epoch: int) -> _Plan:
        if self._kept is None or self._kept.epoch != epoch:
            salt = f"{self._seed}|epoch|{epoch}"
            chosen = [self._choose(task, epoch) for task in self._rows]
            batches = self._order([rows for rows, _ in chosen], salt)
            self._kept = _Plan(
                epoch=epoch,
                rows=np.concatenate([rows for rows, _ in chosen]),
                turns=np.concatenate([turns for _, turns in chosen]),
                order=np.concatenate(batches),
                ends=list(itertools.accumulate(map(len, batches))),
                drawn=bits(f"{salt}|drawn", 2 * self.size).reshape(self.size, 2),
            )
        return self._kept

    def _choose(self, task: str, epoch: int) -> tuple[Ints, Ints]:
        """Rows of a task that an epoch has, and the turn of each, in the order in which they come."""
        count, size = self.counts[task], len(self._rows[task])
        places = np.arange(epoch * count, (epoch + 1) * count)
        turns = places // size
        first, last = int(turns[0]), int(turns[-1])
        shuffled = [permutation(f"{self._seed}|rows|{task}|{turn}", size) for turn in range(first, last + 1)]
        return np.concatenate(shuffled)[places - first * size], turns

    def _order(self, chosen: Sequence[Ints], salt: str) -> list[Ints]:
        """Batches of an epoch, as the numbers of their examples."""
        lengths = None
        if self._lengths is not None:
            lengths = np.concatenate([self._lengths[task][rows] for task, rows in zip(self._rows, chosen, strict=True)])
        each = list(self.counts.values())
        if self._sampling.batches == "mixed":
            return self._cut(_spread(each, f"{salt}|tasks"), lengths, salt)
        numbers = np.split(np.arange(self.size), np.cumsum(each)[:-1])
        own = [self._cut(part, lengths, f"{salt}|{task}") for task, part in zip(self._rows, numbers, strict=True)]
        every = list(itertools.chain.from_iterable(own))
        return [every[place] for place in _spread([len(part) for part in own], f"{salt}|tasks")]

    def _cut(self, numbers: Ints, lengths: Ints | None, salt: str) -> list[Ints]:
        """Cut a sequence into batches, of like length where lengths are known."""
        size = self._batch_size
        if lengths is None:
            return [numbers[start : start + size] for start in range(0, len(numbers), size)]
        made: list[Ints] = []
        for start in range(0, len(numbers), size * _WINDOW):
            window = numbers[start : start + size * _WINDOW]
            window = window[np.argsort(lengths[window], kind="stable")]
            cut = [window[place : place + size] for place in range(0, len(window), size)]
            made.extend(cut[place] for place in permutation(f"{salt}|window|{start}", len(cut)))
        return made

    def _hash(self) -> str:
        """Hash of all that shapes the stream."""
        options = [self._seed, self._batch_size, self._sampling.model_dump(mode="json"), self._wordings]
        digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
        for task, examples in self._rows.items():
            digest.update(f"\n{task}\n".encode())
            for row in examples:
                line = [row.row, row.material.key, row.target, row.conditions, row.evidence, row.question, row.answer]
                digest.update(json.dumps(line, sort_keys=True).encode())
            if self._lengths is not None:
                digest.update(self._lengths[task].astype("<i8").tobytes())
        return digest.hexdigest()[:16]


def _spread(counts: Sequence[int], salt: str) -> Ints:
    """Order in which several sequences come together, each spread evenly; numbers run sequence after sequence.

    The k-th of n stands at (k + a random part of 1) / n of the way, so each sequence is stratified and keeps its order.
    """
    jitter = (bits(salt, sum(counts)) >> np.uint64(11)) * 2.0**-53
    places = np.concatenate([np.arange(count) for count in counts])
    return np.argsort((places + jitter) / np.repeat(counts, counts), kind="stable")


def _check(
    rows: Mapping[str, Sequence[Example]], sampling: Sampling, batch_size: int, wordings: Mapping[str, Sequence[int]]
) -> None:
    if not rows:
        raise DataError("a mixture needs one or more tasks, got none")
    if batch_size < 1:
        raise DataError(f"batch_size must be 1 or more, got {batch_size}")
    for name, given in (("weights", sampling.weights), ("caps", sampling.caps)):
        if stray := sorted(set(given) - set(rows)):
            raise DataError(f"{name}: {', '.join(stray)} is no task of the mixture; it has {', '.join(rows)}")
    for task, examples in rows.items():
        if not examples:
            raise DataError(f"task {task}: no training row, so it cannot be in the mixture")
        if not wordings.get(task):
            raise DataError(f"task {task}: no wording to draw from")
        if other := next((row.task for row in examples if row.task != task), None):
            raise DataError(f"task {task}: a row of task {other} stands among its own")


def _checked(position: int) -> int:
    position = operator.index(position)  # numpy's integers too, which JSON would refuse
    if position < 0:
        raise ValueError(f"a position in the stream is 0 or more, got {position}")
    return position
