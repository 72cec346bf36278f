"""Clients that do not read their answers, or do not end their questions: their connections keep a place for ever, and are ended."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from matdarwin.serving.logs import log

HEAD = 1 << 16
"""Bytes of a request's head that are read."""
PART = 1 << 16
"""Bytes of an answer, or all that is left of it, that a client has a time for."""


def protocol(seconds: float, head_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, on connections that are ended where an answer is not read, or a request's head does not come.

    Args:
        seconds: Seconds in which a client must take each `PART` of an answer.
        head_seconds: Seconds in which the head of a request must have come, from its first byte; of the first request
            from the connection's beginning.
    """

    class Limited(_Limited):
        limit = seconds
        head_limit = head_seconds

    return Limited


class _Limited(asyncio.Protocol):
    """Hands all on to uvicorn's own protocol, and watches what lies unsent and what does not come."""

    limit: float
    head_limit: float

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self._inner: Any = AutoHTTPProtocol(  # type: ignore[call-arg]
            config=config, server_state=server_state, app_state=app_state, _loop=_loop
        )
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._head: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        # Told of every byte that lies unsent: a connection that is being closed is kept for its last one.
        self._transport.set_write_buffer_limits(high=0)
        self._inner.connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._rest()
        self._had_head()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        had = self._inner.cycle
        in_body = had is not None and had.more_body
        self._inner.data_received(data)
        # There is a cycle from a request's head on, until the next one's.
        cycle = self._inner.cycle
        if cycle is not had or in_body:
            self._head_bytes = 0
        else:
            self._head_bytes += len(data)
        if cycle is None or cycle.response_complete:
            self._await_head()
        else:
            self._had_head()
        if self._head_bytes > HEAD:
            # uvicorn's usual protocol, httptools', takes heads of any length.
            log(logging.WARNING, "ended a connection whose request has too large a head", read=self._head_bytes)
            self._transport.abort()

    def eof_received(self) -> bool | None:
        """See asyncio."""
        kept: bool | None = self._inner.eof_received()
        return kept

    def pause_writing(self) -> None:
        """See asyncio."""
        self._watch()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._rest()
        self._inner.resume_writing()

    def _await_head(self) -> None:
        if self._head is None and not self._transport.is_closing():
            self._head = self._loop.call_later(self.head_limit, self._no_head)

    def _had_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _no_head(self) -> None:
        log(logging.WARNING, "ended a connection on which no further request came whole")
        self._transport.abort()

    def _watch(self) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self.limit, self._look)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        left = self._transport.get_write_buffer_size()
        if self._unsent - left >= PART:
            self._watch()
            return
        log(logging.WARNING, "ended a connection whose client does not read", unsent=left)
        self._transport.abort()
