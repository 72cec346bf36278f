"""A server in this process, or as a process of its own, with a tiny trained checkpoint or a stand-in for its predictor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.tiny import at_home, tiny_base, tiny_checkpoint, tiny_task

from matdarwin.api import Darwin
from matdarwin.prediction.prediction import Prediction
from matdarwin.serving.app import Server, create_app, server_of
from matdarwin.serving.settings import Settings

BASE = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def served_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one product, `one`, of tiny_gap and tiny_metal."""
    home = tmp_path_factory.mktemp("served")
    base = tiny_base(home / "base")
    tasks = [tiny_task(home), tiny_task(home, kind="classification", property="metallic character")]
    quick = {"optimising": {"epochs": 1, "minimum_steps": 40, "learning_rate": 1e-2, "batch_size": 16}}
    tiny_checkpoint(home, tasks=tasks, base=base, name="one", **quick)
    return home


@pytest.fixture(scope="session")
def darwin(served_home: Path) -> Darwin:
    """Its model, with the weights read."""
    with at_home(served_home):
        loaded = Darwin.load()
        assert loaded.predictor
    return loaded


@dataclass
class Slow:
    """A predictor whose batches wait until they are let go; it remembers what it was asked."""

    name: str = "slow"
    batch_size: int = 2
    views: int = 1
    batches: list[list[object]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def predict(self, materials: Sequence[object], task: str, **options: Any) -> list[Prediction]:
        self.batches.append(list(materials))
        self.begun.release()
        assert self.go.wait(30)
        if "fault" in materials:
            raise RuntimeError("secret text of a user")
        return [
            Prediction(
                input=str(m), material=str(m), task=task, value=float(len(str(m))), unit="eV", lower=None, upper=None,
                coverage=None, status="uncalibrated", reason="made for a test", notes=(), model=self.name,
            )
            for m in materials
        ]  # fmt: skip


class Stood(Darwin):
    """The real checkpoint with a stand-in for its predictor."""

    def __init__(self, darwin: Darwin, predictor: Any) -> None:
        super().__init__(darwin.checkpoint)
        self._predictor = predictor


@pytest.fixture
def slow(darwin: Darwin) -> Iterator[tuple[Darwin, Slow]]:
    """A model that answers when told to."""
    predictor = Slow()
    yield Stood(darwin, predictor), predictor
    predictor.go.set()


@contextlib.asynccontextmanager
async def running(app: FastAPI, *, ready: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that has started."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        if ready:
            await until(lambda: app.state.serving.batcher.ready)
        yield client


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "what was waited for did not come"
        await asyncio.sleep(0.005)


def asked(darwin: Darwin, work: Callable[[httpx.AsyncClient, Any], Any], **settings: Any) -> Any:
    """Run a test's coroutine on a client and the app of these settings."""

    async def run() -> Any:
        app = create_app(darwin, Settings(**{"rate": 0, **settings}))
        async with running(app) as client:
            return await work(client, app.state.serving)

    return asyncio.run(run())


@contextlib.contextmanager
def started(app: FastAPI) -> Iterator[tuple[Server, threading.Thread]]:
    """The app behind a real socket, as `darwin serve` has it, in a thread; yields both."""
    server = server_of(app)
    server.config.port = 0
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not (server.started and app.state.serving.batcher.ready):
        assert time.monotonic() < end and thread.is_alive()
        time.sleep(0.01)
    try:
        yield server, thread
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def port_of(server: Server) -> int:
    """The port that a server listens at."""
    return int(server.servers[0].sockets[0].getsockname()[1])


@contextlib.contextmanager
def listening(app: FastAPI) -> Iterator[int]:
    """The same; yields the port."""
    with started(app) as (server, _):
        yield port_of(server)


COMMAND = "import sys, typer; from matdarwin.commands.serve import serve; typer.run(serve)"


@contextlib.contextmanager
def process(
    home: Path, *args: str, code: str = COMMAND, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`darwin serve` as a process; yields it and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-c", code, "--port", str(port), *args],
        env={**os.environ, "MATDARWIN_HOME": str(home), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield child, port
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
