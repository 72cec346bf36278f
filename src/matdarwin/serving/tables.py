"""CSV in, CSV out, streamed: the same bytes that `darwin predict --input --output` writes."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from matdarwin.data.sources import DataError
from matdarwin.materials.material import Kind
from matdarwin.prediction import files
from matdarwin.prediction.outputs import CsvSink
from matdarwin.prediction.prediction import Prediction
from matdarwin.serving.batching import FullError, Question, StoppedError, Ticket
from matdarwin.serving.limits import Gone
from matdarwin.serving.problems import Problem
from matdarwin.serving.state import State, left

_CHUNK = 256
"""Rows that are asked and written at a time."""
_BODY = "the body"
_COLUMNS = 1_000


async def answer(
    state: State, request: Request, body: bytes, column: str | None, names: Sequence[str], coverage: float,
    conditions: dict[str, dict[str, Any]],
) -> Response:  # fmt: skip
    """The table with the predictions beside its rows.

    The first rows are answered before the first byte goes out, so that whatever refuses a table does so with its own
    status. After that a fault breaks the answer off, which HTTP shows the client as an answer without its end.

    Raises:
        Problem: 422, what is wrong with the table; 503, no room; 504, the time is up.
    """
    tasks = [state.darwin.tasks[name] for name in names]
    try:
        files.kind_of(tasks)
    except DataError as error:
        raise Problem(422, str(error), field="task") from error
    if state.streams >= state.settings.streams:
        raise Problem.later(503, f"{state.streams} tables are being answered already; come again", 5)
    state.streams += 1
    ticket = Ticket(state.settings.csv_seconds)
    leaving = asyncio.ensure_future(_stop_when_left(request, ticket))
    out = io.StringIO(newline="")
    opened = _Opened(state, body, column, tasks, ticket, coverage, conditions, out)

    def end() -> None:
        ticket.stop()
        leaving.cancel()
        opened.close()
        state.streams -= 1

    try:
        first = await run_in_threadpool(opened.begin)
    except (DataError, StoppedError) as error:
        end()
        if leaving.done() and not leaving.cancelled():
            raise Gone from error
        if isinstance(error, StoppedError):
            raise Problem(
                504, f"not answered within {state.settings.csv_seconds:g} s, so the work was stopped"
            ) from error
        raise Problem(422, str(error), field="body") from error
    except BaseException:
        end()
        raise

    async def stream() -> AsyncIterator[bytes]:
        try:
            part: bytes | None = first
            while part is not None:
                yield part
                part = await run_in_threadpool(opened.more)
        except StoppedError:
            if not leaving.done():
                raise

    return _Timed(stream(), ticket, end)


class _Timed(StreamingResponse):
    """An answer that is broken off once its time is up, be it because its client does not read.

    Args:
        parts: Its parts.
        ticket: Its time.
        end: Called at its end, whatever that is.
    """

    def __init__(self, parts: AsyncIterator[bytes], ticket: Ticket, end: Callable[[], None]) -> None:
        super().__init__(parts, media_type="text/csv; charset=utf-8")
        self._ticket, self._end = ticket, end

    async def stream_response(self, send: Send) -> None:
        """See starlette."""
        try:
            async with asyncio.timeout(self._ticket.left):
                await super().stream_response(send)
        finally:
            self._end()


class _Opened:
    """A table that is being answered; used by one thread at a time."""

    def __init__(
        self, state: State, body: bytes, column: str | None, tasks: Sequence[Any], ticket: Ticket, coverage: float,
        conditions: dict[str, dict[str, Any]], out: io.StringIO,
    ) -> None:  # fmt: skip
        self._state, self._body, self._column, self._tasks, self._ticket = state, body, column, tasks, ticket
        self._coverage, self._conditions, self._out = coverage, conditions, out
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._answered: Iterator[Any] = iter(())
        self._sink: CsvSink | None = None
        self._admitted = False

    def begin(self) -> bytes:
        """Look the table through and answer its first rows.

        Raises:
            DataError: It is no table that can be answered.
            Problem: 422 for its length; 503.
            StoppedError: The client left or the time is up.
        """
        # On disk, because a table is read twice.
        self._folder = tempfile.TemporaryDirectory(prefix="darwin-")
        path = Path(self._folder.name) / "table.csv"
        path.write_bytes(self._body)
        table = files.CsvTable(path, _BODY)
        if len(table.columns) > _COLUMNS:
            # Each row is brought to the header's width, however short it came.
            raise Problem(
                422, f"a table of {len(table.columns):,} columns, and at most {_COLUMNS:,} are read", field="body"
            )
        kind: Kind = self._tasks[0].representation
        try:
            column = files.choose_column(table, self._column, kind)
        except DataError as error:
            raise Problem(422, str(error), field="column") from error
        settings = self._state.settings
        if table.count * len(self._tasks) > settings.csv_rows:
            raise Problem(
                422,
                f"{table.count:,} rows of {len(self._tasks)} tasks are more than {settings.csv_rows:,} answers; send fewer at a time",
                field="body",
            )
        row = 0
        for chunk in table.chunks(column, files.CHUNK):
            for text in chunk.materials:
                if len(text) > settings.text:
                    raise Problem(422, f"row {row}: a text of over {settings.text:,} characters", field="body", row=row)
                row += 1
        self._sink = CsvSink(self._out, table, self._tasks)
        size = min(_CHUNK, settings.queue_rows)
        self._answered = files.answered(
            table, column, self._tasks, self._ask, model=self._state.darwin.name, summary=files.Summary(), size=size
        )
        head = self._taken()
        return head + (self.more() or b"")

    def more(self) -> bytes | None:
        """The next rows; None after the last.

        Raises:
            StoppedError: The client left or the time is up.
        """
        found = next(self._answered, None)
        if found is None:
            return None
        assert self._sink is not None
        self._sink.write(*found)
        return self._taken()

    def close(self) -> None:
        """Remove the copy."""
        if self._folder is not None:
            self._folder.cleanup()

    def _taken(self) -> bytes:
        text = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return text.encode()

    def _ask(self, materials: Sequence[str], task: str) -> list[Prediction]:
        if not materials:
            return []
        question = Question(task, materials, self._coverage, self._conditions[task])
        batcher = self._state.batcher
        if self._admitted:
            (future,) = batcher.submit(self._ticket, [question], admitted=True)
        else:
            try:
                (future,) = batcher.submit(self._ticket, [question])
            except FullError as error:
                raise Problem.later(503, f"{error}; come again", 1) from error
            self._admitted = True
        return list(future.result())


async def _stop_when_left(request: Request, ticket: Ticket) -> None:
    await left(request)
    ticket.stop()
