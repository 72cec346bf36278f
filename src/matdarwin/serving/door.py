"""The door that every request goes through: its id, its limits, the headers of its answer, its line in the log."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from matdarwin.serving import limits
from matdarwin.serving.limits import Gone, Message, Receive
from matdarwin.serving.logs import log
from matdarwin.serving.problems import GONE, Problem
from matdarwin.serving.state import State

Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_REFUSED_SECONDS = 1.0
"""Seconds in which the body of a request that was refused is read."""
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REASONS = {401: "key", 403: "origin", 408: "slow body", 413: "body", 421: "host", 429: "rate", 503: "load"}


class Door:
    """ASGI middleware around the app.

    Args:
        app: The app.
        state: What the server shares.
    """

    def __init__(self, app: App, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "websocket":
            # Nothing here speaks it; refused before the handshake.
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = self._state
        began = time.perf_counter()
        given = limits.header(scope, b"x-request-id")
        identity = given if given and _SAFE_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = identity
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = {**HEADERS, "x-request-id": identity}
                if scope["path"].startswith("/v1/"):
                    extra["cache-control"] = "no-store"
                message["headers"] = [
                    *message.get("headers", ()),
                    *((k.encode(), v.encode()) for k, v in extra.items()),
                ]
            await send(message)

        state.open += 1
        try:
            try:
                await self._admitted(scope, receive, answer)
            except Problem as problem:
                await problem.response()(scope, receive, answer)
        except Gone:
            status = GONE
        except Exception as error:
            log(logging.ERROR, "fault", fault=error, request=identity)
            if status:
                # Headers are out already, so the only honest end is one that the client sees as broken off.
                raise
            fault = Problem(500, f"a fault in the server; its log has it under the request id {identity}")
            await fault.response()(scope, receive, answer)
        finally:
            state.open -= 1
            self._told(scope, identity, status or GONE, time.perf_counter() - began)

    async def _admitted(self, scope: Message, receive: Receive, answer: Send) -> None:
        """Check a request, read its body, and hand it on."""
        state, settings = self._state, self._state.settings
        counted = scope["path"] not in limits.OPEN
        try:
            limits.check_origin(scope, settings)
            if counted:
                client = scope.get("client") or ("unknown", 0)
                if seconds := state.buckets.take(str(client[0])):
                    raise Problem.later(
                        429, f"more than {settings.rate:g} requests a second; wait {seconds} s and send fewer", seconds
                    )
                limits.check_key(scope, settings)
                if state.admitted >= settings.requests:
                    raise Problem.later(503, f"{settings.requests} requests are open already; come again", 1)
                if state.draining and scope["path"].startswith("/v1/"):
                    raise Problem.later(503, "the server is stopping; come again", 5)
        except Problem:
            # Short bodies are read, since who is still sending does not read; nobody gets to send long ones for nothing.
            said = limits.header(scope, b"content-length")
            if limits.header(scope, b"expect") is None and (
                limits.header(scope, b"transfer-encoding")
                or (said and said.isdigit() and 0 < int(said) <= settings.body_limit)
            ):
                had = settings.drain_limit - settings.body_limit
                await limits.drain(receive, settings, had, seconds=min(_REFUSED_SECONDS, settings.body_seconds))
            raise
        # Not before, so that who has no key takes no place from who has.
        state.admitted += counted
        try:
            body = await limits.read_body(scope, receive, settings)
            await self._app(scope, limits.replayed(body, receive), answer)
        finally:
            state.admitted -= counted

    def _told(self, scope: Message, identity: str, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        # The pattern, not the path: paths are what users send, and there are endlessly many.
        name = str(getattr(route, "path", None) or "other")
        metrics = self._state.metrics
        metrics.requests.labels(name, str(status)).inc()
        metrics.latency.labels(name).observe(seconds)
        if status in _REASONS:
            metrics.rejects.labels(_REASONS[status]).inc()
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        log(
            logging.INFO,
            "request",
            request=identity,
            method=method,
            route=name,
            status=status,
            ms=round(1000 * seconds, 1),
        )
