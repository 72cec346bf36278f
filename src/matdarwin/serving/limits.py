"""Who may come in, how often, and how much they may bring."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from matdarwin.serving.problems import Problem
from matdarwin.serving.settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

OPEN = ("/healthz", "/readyz")
"""Paths that are answered at any rate, at any load and without a key."""
_PAGE = ("/", "/docs", "/favicon.ico")


class Gone(Exception):
    """The client left before it was answered."""


class Buckets:
    """A token bucket for each client, for a bounded number of clients.

    Args:
        rate: Requests a second; 0: no limit.
        burst: Requests at once.
        clients: Clients that are remembered; the one that was away longest is forgotten first.
        clock: Gives the time in seconds.
    """

    def __init__(self, rate: float, burst: int, clients: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clients, self._clock = rate, burst, clients, clock
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def take(self, client: str) -> int:
        """Take one token; returns 0, or the seconds after which there will be one."""
        if not self._rate:
            return 0
        now = self._clock()
        tokens, since = self._known.pop(client, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - since) * self._rate)
        allowed = tokens >= 1
        self._known[client] = (tokens - 1 if allowed else tokens, now)
        while len(self._known) > self._clients:
            self._known.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1 - tokens) / self._rate))


def header(scope: Message, name: bytes) -> str | None:
    """A header of a request, or None."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def check_origin(scope: Message, settings: Settings) -> None:
    """Refuse what another site's page sends.

    Raises:
        Problem: 421 for a host that is none of ours, 403 for a page of another origin.
    """
    host = (header(scope, b"host") or "").lower()
    if settings.hosts is not None and _name(host) not in settings.hosts:
        raise Problem(
            421,
            f"this server answers to {', '.join(sorted(settings.hosts))} alone; to serve it under another name, set an API key",
        )
    origin = header(scope, b"origin")
    if origin is not None and scope["method"] not in ("GET", "HEAD") and _site(origin) != host:
        raise Problem(403, "pages of other sites may not send requests here")


def check_key(scope: Message, settings: Settings) -> None:
    """Refuse a request without the key, where there is one.

    Raises:
        Problem: 401.
    """
    path = scope["path"]
    if settings.api_key is None or path in OPEN or path in _PAGE or path.startswith("/static/"):
        return
    scheme, _, given = (header(scope, b"authorization") or "").partition(" ")
    # In constant time, so that the time of an answer does not tell how much of a guess was right.
    right = hmac.compare_digest(given.strip().encode("latin-1"), settings.api_key.encode("ascii"))
    if scheme.lower() != "bearer" or not right:
        raise Problem(
            401, "send the API key as `Authorization: Bearer KEY`", headers={"WWW-Authenticate": "Bearer"}
        )  # fmt: skip


async def read_body(scope: Message, receive: Receive, settings: Settings) -> bytes:
    """Read a request's body, whether it says its length or comes in chunks.

    Raises:
        Problem: 413 where it is too large, after the rest of it was read, up to the limit for that; 408 where it is slow.
        Gone: The client left.
    """
    said = header(scope, b"content-length")
    limit = settings.body_limit
    if said is not None and said.isdigit() and int(said) > limit:
        # Who asks before sending is told without having to send.
        if header(scope, b"expect") is None and int(said) <= settings.drain_limit:
            await drain(receive, settings)
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                size += len(message.get("body", b""))
                if size > limit:
                    break
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Problem(
            408, f"the body did not come within {settings.body_seconds:g} s", headers={"Connection": "close"}
        ) from None
    if message.get("more_body", False):
        await drain(receive, settings, size)
    raise _too_large(limit)


async def drain(receive: Receive, settings: Settings, had: int = 0, *, seconds: float | None = None) -> None:
    """Read and forget a body, up to the limit: a client that is still sending does not read its answer.

    Args:
        receive: Gives the body.
        settings: The settings.
        had: Bytes that count as read already.
        seconds: Seconds that it may take; None: as many as a body that is wanted.

    Raises:
        Gone: The client left.
    """
    try:
        async with asyncio.timeout(settings.body_seconds if seconds is None else seconds):
            while had <= settings.drain_limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                had += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def replayed(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read, and after it what the server says: that the client left."""
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        f"the body is larger than {limit:,} bytes; send fewer rows at a time, or use `darwin predict --input`",
        headers={"Connection": "close"},
    )


def _site(origin: str) -> str | None:
    """The host, and the port where there is one, of an Origin header; None where it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
