"""What the requests of one server share: the model, its queue, the counters, and whether it is stopping."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from matdarwin.api import Darwin
from matdarwin.serving.batching import Asked, Batcher, FullError, StoppedError, Ticket
from matdarwin.serving.limits import Buckets, Gone
from matdarwin.serving.logs import log
from matdarwin.serving.metrics import Metrics
from matdarwin.serving.problems import Problem
from matdarwin.serving.settings import Settings

T = TypeVar("T")
_READERS = 2


class State:
    """What is shared.

    Args:
        darwin: The model.
        settings: The settings.

    Attributes:
        draining: The server is told to stop: it finishes what it has and takes no more.
        open: Requests that are being answered, those that are refused among them.
        admitted: Requests among them that were let in, which alone count towards the limit.
        streams: CSV requests among these.
        readers: Threads that look through questions in plain words, which takes too long for the thread of all requests.
    """

    def __init__(self, darwin: Darwin, settings: Settings) -> None:
        self.darwin = darwin
        self.settings = settings
        self.draining = False
        self.open = 0
        self.admitted = 0
        self.streams = 0
        self.readers = ThreadPoolExecutor(_READERS, thread_name_prefix="darwin-reader")
        self.buckets = Buckets(settings.rate, settings.burst, settings.clients)
        self.metrics = Metrics(lambda: self.batcher.queued)
        self.batcher = Batcher(
            self._load,
            queue_rows=settings.queue_rows,
            wait=settings.wait,
            on_batch=self._batch,
            on_drop=self.metrics.dropped.inc,
        )

    def _load(self) -> Asked:
        try:
            predictor = self.darwin.predictor
        except Exception as error:
            log(
                logging.ERROR,
                "the model cannot be loaded",
                fault=error,
                model=self.darwin.name,
                reason=str(error)[:500],
            )
            raise
        log(logging.INFO, "ready", model=self.darwin.name)
        return predictor

    def _batch(self, task: str, rows: int) -> None:
        self.metrics.batches.observe(rows)
        self.metrics.rows.labels(task).inc(rows)

    def close(self) -> None:
        """End the threads; that of the model is waited for."""
        self.readers.shutdown(wait=False, cancel_futures=True)
        self.batcher.close()

    def check_ready(self) -> None:
        """Make sure that the model can be asked.

        Raises:
            Problem: 503.
        """
        if self.draining:
            raise Problem.later(503, "the server is stopping", 5)
        if self.batcher.fault is not None:
            raise Problem.later(503, "the model could not be loaded; the server's log says why", 60)
        if not self.batcher.ready:
            raise Problem.later(503, "the model's weights are being read; come again in a moment", 2)

    def queue(self, submit: Callable[[], T]) -> T:
        """Put work into the queue.

        Raises:
            Problem: 503, where it is full, or the model is not there.
        """
        self.check_ready()
        try:
            return submit()
        except FullError as error:
            raise Problem.later(503, f"{error}; come again", 1) from error
        except StoppedError as error:
            raise Problem.later(503, str(error), 5) from error

    async def had(self, request: Request, ticket: Ticket, futures: Sequence[Future[Any]]) -> list[Any]:
        """What queued work gives, in order.

        Raises:
            Problem: 504 where the time is up, 503 where the server stops; the work has stopped.
            Gone: The client left; the work has stopped.
        """
        waiting = asyncio.gather(*map(asyncio.wrap_future, futures))
        leaving = asyncio.ensure_future(left(request))
        try:
            either: set[asyncio.Future[Any]] = {waiting, leaving}
            await asyncio.wait(either, timeout=ticket.left, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return list(waiting.result())
            if leaving.done():
                raise Gone
            raise self.late()
        except StoppedError:
            raise (self.late() if ticket.left == 0 else Problem.later(503, "the server is stopping", 5)) from None
        finally:
            ticket.stop()
            leaving.cancel()
            # Looked at, or asyncio complains that nobody did; it may end only after this.
            waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            waiting.cancel()

    def late(self) -> Problem:
        """The problem of a request whose time is up."""
        return Problem(
            504, f"not answered within {self.settings.seconds:g} s, so the work was stopped; send fewer rows"
        )

    def ticket(self) -> Ticket:
        """A ticket for a request that is to be answered as JSON."""
        return Ticket(self.settings.seconds)


async def left(request: Request) -> None:
    """Return once the client has left; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
