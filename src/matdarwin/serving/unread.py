"""Answers that their clients do not read: their connections are ended, since what lies unsent keeps its place for ever."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from matdarwin.serving.logs import log

PART = 1 << 16
"""Bytes of an answer, or all that is left of it, that a client has a time for."""


def protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, on connections that are ended where an answer is not read.

    Args:
        seconds: Seconds in which a client must take each `PART` of an answer.
    """

    class Limited(_Limited):
        limit = seconds

    return Limited


class _Limited(asyncio.Protocol):
    """Hands all on to uvicorn's own protocol, and watches what lies unsent."""

    limit: float

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self._inner: Any = AutoHTTPProtocol(  # type: ignore[call-arg]
            config=config, server_state=server_state, app_state=app_state, _loop=_loop
        )
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        # Told of every byte that lies unsent: a connection that is being closed is kept for its last one.
        self._transport.set_write_buffer_limits(high=0)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._rest()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._inner.data_received(data)

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
