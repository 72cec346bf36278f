"""The app: routes, page, limits and the model's thread put together, and the server that runs it."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from matdarwin import __version__
from matdarwin.api import Darwin
from matdarwin.serving import connections, logs, problems
from matdarwin.serving.door import Door
from matdarwin.serving.routes import routes
from matdarwin.serving.settings import Settings
from matdarwin.serving.state import State

STATIC = Path(__file__).parent / "static"
_LINGER = 0.3
"""Seconds that a stopping server still answers /readyz, for whoever sends it requests to see that it should not."""

_BROKEN_OFF = 2
"""Seconds that those whose work is broken off have to read so."""

_CHECKED = {"cache-control": "no-cache"}
"""Browsers ask whether they have the newest: modules of two versions would not go together."""


class Files(StaticFiles):
    """The page's files."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """See starlette."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_CHECKED)
        return response


def create_app(darwin: Darwin, settings: Settings) -> FastAPI:
    """The app of one model.

    Args:
        darwin: The model; its weights are read once the app has started, in the model's own thread.
        settings: The settings.
    """
    state = State(darwin, settings)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        state.batcher.start()
        try:
            yield
        finally:
            state.close()

    app = FastAPI(
        title="matdarwin",
        version=__version__,
        description="Properties of materials, each with an interval.",
        lifespan=life,
        # Their pages load scripts from elsewhere, which ours, at /docs, never does.
        docs_url=None,
        redoc_url=None,
        # A path that is nearly right is not right: no redirects.
        redirect_slashes=False,
    )
    app.state.serving = state
    problems.install(app)
    app.include_router(routes(state))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers=_CHECKED)

    @app.get("/docs", include_in_schema=False)
    async def interface() -> Response:
        return FileResponse(STATIC / "interface.html", headers=_CHECKED)

    app.mount("/static", Files(directory=STATIC), name="static")
    app.add_middleware(Door, state=state)
    return app


class Server(uvicorn.Server):
    """A server that, told to stop, first finishes what it has accepted, and says meanwhile that it is not ready.

    It takes `drain_seconds` for that at most, for work as for clients who still read their answers. Told a second time,
    it stops at once. The batch that is with the model is waited for in any case.
    """

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state
        self._told: float | None = None
        self.failed = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        if self._told is not None:
            self.should_exit = self.force_exit = True
            return
        self._told = time.monotonic()
        self._state.draining = True
        logs.log(logging.INFO, "stopping", signal=signal.Signals(sig).name, open=self._state.open)

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn; called ten times a second."""
        state = self._state
        if state.batcher.fault is not None:
            self.failed = self.should_exit = True
        if self._told is not None:
            if self._left() == 0:
                logs.log(logging.WARNING, "stopped before all work was done", open=state.open)
                # Whoever waits is told so.
                state.batcher.stop()
                self.should_exit = True
            elif state.open == 0 and time.monotonic() - self._told > _LINGER:
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn; it waits for every connection to end, which without a limit is for ever where a client does not read."""
        self.config.timeout_graceful_shutdown = max(_BROKEN_OFF, math.ceil(self._left()))
        try:
            await super().shutdown(sockets)
        finally:
            # Told a second time, uvicorn ends the app no more, and a thread that waits for the model would not end.
            self._state.batcher.stop()
            for connection in list(self.server_state.connections):
                connection.transport.abort()

    def _left(self) -> float:
        """Seconds that are left of those for finishing."""
        since = 0.0 if self._told is None else time.monotonic() - self._told
        return max(0.0, self._state.settings.drain_seconds - since)


def server_of(app: FastAPI) -> Server:
    """The server of an app that `create_app` made."""
    settings: Settings = app.state.serving.settings
    options: dict[str, Any] = {
        "host": settings.host.strip("[]"),
        "port": settings.port,
        "http": connections.protocol(settings.send_seconds, settings.body_seconds),
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "ws": "none",
        # Behind a proxy that is not declared, anybody could give himself another address.
        "proxy_headers": False,
        "timeout_keep_alive": 15,
        "h11_max_incomplete_event_size": connections.HEAD,
    }
    return Server(uvicorn.Config(app, **options), app.state.serving)


def run(darwin: Darwin, settings: Settings) -> bool:
    """Serve until told to stop; returns whether it went well."""
    logs.install()
    server = server_of(create_app(darwin, settings))
    server.run()
    return server.started and not server.failed
