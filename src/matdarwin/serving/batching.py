"""Dynamic batching: one thread holds the model; requests that ask the same thing share its batches.

Work goes through in slices of one batch. Between slices, the rows of a request whose client left or whose time is up are
dropped, so that nothing is computed which nobody will read.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Protocol

from matdarwin.prediction.prediction import Prediction

Conditions = Mapping[str, str | float]
Key = tuple[str, float, tuple[tuple[str, str | float], ...]]


class Asked(Protocol):
    """What the thread asks: a `Predictor`, or a stand-in for one in tests."""

    @property
    def batch_size(self) -> int:
        """Prompts a batch."""
        ...

    def predict(
        self, materials: Sequence[object], task: str, *, coverage: float, conditions: dict[str, str | float] | None
    ) -> list[Prediction]:
        """See `Predictor.predict`."""
        ...


class FullError(RuntimeError):
    """The queue has no room for the rows of a request."""


class StoppedError(RuntimeError):
    """The client left, its time was up, or the server is stopping: the work of the request was dropped."""


class Ticket:
    """One request's right to be worked for, until its deadline or until it is stopped.

    Args:
        seconds: Seconds that it lasts.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._stopped = False

    def stop(self) -> None:
        """End it: its client left."""
        self._stopped = True

    @property
    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether no more is to be done for it."""
        return self._stopped or self.left == 0.0


@dataclass(frozen=True)
class Question:
    """One task asked of some materials, with the conditions and the coverage of its intervals."""

    task: str
    materials: Sequence[object]
    coverage: float = 0.9
    conditions: Conditions = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What must be equal for two questions to share a batch; a number and a text are never equal here."""
        return self.task, self.coverage, tuple(sorted(self.conditions.items(), key=lambda item: item[0]))


class _Job:
    """A question in the queue, or another piece of work for the thread (`call`)."""

    def __init__(self, ticket: Ticket, question: Question | None, call: Callable[[], Any] | None = None) -> None:
        self.ticket = ticket
        self.question = question
        self.key = question.key if question else None
        self.call = call
        self.future: Future[Any] = Future()
        self.made: list[Prediction] = []
        self.since = time.monotonic()

    @property
    def left(self) -> int:
        return len(self.question.materials) - len(self.made) if self.question else 1

    def settle(self, result: Any = None, error: BaseException | None = None) -> None:
        # Whoever waits may have cancelled in the same moment.
        with contextlib.suppress(InvalidStateError):
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(result)


_WAITS = 4
"""How long a batch stays open at most, in times without a new row after which it begins."""
_LONGEST_QUIET = 0.1
"""Most seconds without a new row after which a batch begins, where none are set that are longer."""


class Batcher:
    """The queue and its thread.

    Args:
        load: Gives the predictor; called in the thread, so that a server can answer while weights are read.
        queue_rows: Rows that wait at most.
        wait: Seconds after which a batch begins when nothing more comes, or a twentieth of what the last one took, up to
            0.1 s; at most four times that after its first row, or after the batch before it.
        on_batch: Called with the task and the number of rows of each batch.
        on_drop: Called with the number of rows that were dropped.
    """

    def __init__(
        self,
        load: Callable[[], Asked],
        *,
        queue_rows: int,
        wait: float = 0.01,
        on_batch: Callable[[str, int], None] = lambda task, rows: None,
        on_drop: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._load = load
        self._limit = queue_rows
        self._wait = wait
        self._on_batch, self._on_drop = on_batch, on_drop
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._called: Ticket | None = None
        self._thread = threading.Thread(target=self._run, name="darwin-model", daemon=True)
        self.ready = False
        self.fault: BaseException | None = None
        self._asked: Asked | None = None
        self._ended = 0.0
        self._quiet = wait
        self._expected = 1

    def start(self) -> None:
        """Start the thread, which loads the model first."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more, drop what waits, and have the thread end after its present batch."""
        with self._changed:
            self._closing = True
            self._drop_all()
            if self._called is not None:
                self._called.stop()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def queued(self) -> int:
        """Rows that wait."""
        with self._changed:
            return self._rows()

    def submit(self, ticket: Ticket, questions: Sequence[Question], *, admitted: bool = False) -> list[Future[Any]]:
        """Queue the questions of a request, all or none; a future each, of a list of predictions in its materials' order.

        Args:
            ticket: The request's ticket.
            questions: The questions.
            admitted: The request is being answered already, so its next rows are taken though the queue be full.

        Raises:
            FullError: There is no room.
            StoppedError: The batcher was closed.
        """
        return self._queue([_Job(ticket, question) for question in questions], admitted)

    def run(self, ticket: Ticket, work: Callable[[Watched], Any]) -> Future[Any]:
        """Queue another piece of work on the model, which counts as one row.

        Raises:
            FullError, StoppedError: See `submit`.
        """

        def call() -> Any:
            assert self._asked is not None
            return work(Watched(self._asked, ticket))

        return self._queue([_Job(ticket, None, call)], False)[0]

    # -- parts ---------------------------------------------------------------------------------------------

    def _queue(self, jobs: list[_Job], admitted: bool) -> list[Future[Any]]:
        with self._changed:
            if self._closing:
                raise StoppedError("the server is stopping")
            self._drop_over()
            wanted, waiting = sum(job.left for job in jobs), self._rows()
            if not admitted and waiting + wanted > self._limit:
                raise FullError(
                    f"{waiting} rows wait already, and {wanted} more would not fit the queue of {self._limit}"
                )
            for job in jobs:
                if job.left:
                    self._jobs.append(job)
                else:
                    job.settle([])
            self._changed.notify_all()
        return [job.future for job in jobs]

    def _rows(self) -> int:
        return sum(job.left for job in self._jobs)

    def _drop_over(self) -> None:
        """Take jobs out whose ticket is over. With the lock held."""
        over = [job for job in self._jobs if job.ticket.over]
        if over:
            self._jobs = deque(job for job in self._jobs if not job.ticket.over)
            self._on_drop(sum(job.left for job in over))
            for job in over:
                job.settle(error=StoppedError("the request's client left or its time was up"))

    def _drop_all(self) -> None:
        """Take all jobs out. With the lock held."""
        for job in self._jobs:
            job.settle(error=StoppedError("the server is stopping"))
        self._jobs.clear()

    def _run(self) -> None:
        try:
            self._asked = self._load()
            self.ready = True
        except BaseException as error:
            self.fault = error
        while True:
            taken = self._take()
            if taken is None:
                return
            first = taken[0][0]
            if first.call is not None:
                self._call(first)
            else:
                began = time.monotonic()
                self._answer(taken)
                self._ended = time.monotonic()
                with self._changed:
                    # Those that were answered, and those that could not be taken along.
                    self._expected = sum(n for _, n in taken) + sum(j.left for j in self._jobs if j.key == first.key)
                # A slow model may wait longer, at a twentieth of its time: it takes its clients longer to come back, too.
                self._quiet = max(self._wait, min(_LONGEST_QUIET, (self._ended - began) / 20))

    def _take(self) -> list[tuple[_Job, int]] | None:
        """The next batch, as jobs with the number of their rows that are in it; None: no more is to be done."""
        with self._changed:
            while True:
                self._drop_over()
                if self._closing or self.fault is not None:
                    self._drop_all()
                    if self._closing:
                        return None
                if not self._jobs:
                    self._changed.wait()
                    continue
                first = self._jobs[0]
                if first.call is not None:
                    self._jobs.popleft()
                    self._called = first.ticket
                    return [(first, 1)]
                size = self._size()
                alike = [job for job in self._jobs if job.key == first.key]
                # While others keep coming the batch stays open, within bounds. Clients that the last batch answered ask again
                # just after it: begun without them, every batch would be a half, which costs more than half the time.
                opened = max(first.since, self._ended)
                closes = min(max(alike[-1].since, opened) + self._quiet, opened + _WAITS * self._quiet)
                remains = closes - time.monotonic()
                if remains > 0 and sum(job.left for job in alike) < min(size, self._expected):
                    self._changed.wait(remains)
                    continue
                taken: list[tuple[_Job, int]] = []
                for job in alike:
                    count = min(job.left, size - sum(n for _, n in taken))
                    if count:
                        taken.append((job, count))
                chosen = {id(job) for job, _ in taken}
                self._jobs = deque(job for job in self._jobs if id(job) not in chosen)
                return taken

    def _size(self) -> int:
        """Rows a batch: a row is asked in as many prompts as there are views."""
        return max(1, self._asked.batch_size // max(1, getattr(self._asked, "views", 1))) if self._asked else 1

    def _answer(self, taken: list[tuple[_Job, int]]) -> None:
        parts = [(job, self._rows_of(job)[len(job.made) : len(job.made) + count]) for job, count in taken]
        try:
            self._fill(parts)
        except Exception as error:
            if len(parts) == 1:
                parts[0][0].settle(error=error)
            else:
                # The fault of one request must not be another's.
                for part in parts:
                    try:
                        self._fill([part])
                    except Exception as own:
                        part[0].settle(error=own)
        with self._changed:
            # What is left of a long job goes to the end, so that short ones need not wait for all of it.
            self._jobs.extend(job for job, _ in parts if job.left and not job.future.done())
        for job, _ in parts:
            if not job.left:
                job.settle(job.made)

    def _fill(self, parts: list[tuple[_Job, Sequence[object]]]) -> None:
        answers = iter(self._ask(parts[0][0], [material for _, rows in parts for material in rows]))
        for job, rows in parts:
            job.made += [next(answers) for _ in rows]

    def _rows_of(self, job: _Job) -> Sequence[object]:
        assert job.question is not None
        return job.question.materials

    def _ask(self, job: _Job, materials: list[object]) -> list[Prediction]:
        assert job.question is not None and self._asked is not None
        question = job.question
        answers = self._asked.predict(
            materials, question.task, coverage=question.coverage, conditions=dict(question.conditions)
        )
        self._on_batch(question.task, len(materials))
        return answers

    def _call(self, job: _Job) -> None:
        assert job.call is not None
        try:
            job.settle(job.call())
        except Exception as error:
            job.settle(error=error)


class Watched:
    """A predictor that stops between its batches once a ticket is over.

    Args:
        predictor: The predictor.
        ticket: The ticket.
    """

    def __init__(self, predictor: Any, ticket: Ticket) -> None:
        self._predictor = predictor
        self._ticket = ticket

    def predict(self, *args: Any, **options: Any) -> list[Prediction]:
        """See `Predictor.predict`."""
        return list(self._predictor.predict(*args, **self._watched(options)))

    def distributions(self, *args: Any, **options: Any) -> list[Any]:
        """See `Predictor.distributions`."""
        return list(self._predictor.distributions(*args, **self._watched(options)))

    def embeddings(self, *args: Any, **options: Any) -> Any:
        """See `Predictor.embeddings`."""
        return self._predictor.embeddings(*args, **self._watched(options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def _watched(self, options: dict[str, Any]) -> dict[str, Any]:
        self._check()
        told = options.get("progress")

        def progress(done: int, total: int) -> None:
            self._check()
            if told:
                told(done, total)

        return {**options, "progress": progress}

    def _check(self) -> None:
        if self._ticket.over:
            raise StoppedError("the request's client left or its time was up")
