"""Clients that do not read, and a stop: neither holds the server up for ever, and what is broken off is told."""

# Fixtures are imported, since the fault tests use them too.
# ruff: noqa: F811

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from tests.server.helpers import (  # noqa: F401
    Slow,
    darwin,
    port_of,
    served_home,
    slow,
    started,
    until,
)
from tests.tiny import at_home

from matdarwin.api import Darwin
from matdarwin.serving import connections
from matdarwin.serving.app import create_app
from matdarwin.serving.settings import Settings

# Its answer, 24 MB, is more than sockets of this machine keep.
LARGE = json.dumps({"materials": ["\U0001f600" * 10_000] * 100, "tasks": "tiny_gap"}, ensure_ascii=False).encode()
TABLE = b"composition,remark\n" + (b"GaN," + b"x" * 10_000 + b"\n") * 2400
WIDE = {"rate": 0, "wait": 0, "body_limit": 32 << 20, "send_seconds": 1000.0}


@contextlib.contextmanager
def not_reading(port: int, path: str, body: bytes, kind: str = "application/json") -> Iterator[socket.socket]:
    """A client that sends a request and does not read what is answered."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(60)
        raw.connect(("127.0.0.1", port))
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        raw.sendall(head.encode() + body)
        yield raw


def _quick(predictor: Slow) -> None:
    predictor.batch_size = 256
    predictor.go.set()


def test_an_answer_that_is_not_read_does_not_hold_a_stop_up(slow: tuple[Darwin, Slow]) -> None:
    model, predictor = slow
    _quick(predictor)
    app = create_app(model, Settings(**{**WIDE, "drain_seconds": 1.0}))
    with started(app) as (server, thread), not_reading(port_of(server), "/v1/predict", LARGE):
        asyncio.run(until(lambda: bool(predictor.batches) and app.state.serving.open == 0))
        server.handle_exit(signal.SIGTERM, None)
        thread.join(60)
        assert not thread.is_alive() and server.server_state.connections == set()


@pytest.mark.parametrize("sent", [b"", b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_a_connection_on_which_no_whole_request_comes_is_ended(slow: tuple[Darwin, Slow], sent: bytes) -> None:
    app = create_app(slow[0], Settings(**{**WIDE, "body_seconds": 0.5}))
    with started(app) as (server, _), socket.socket() as raw:
        raw.settimeout(30)
        raw.connect(("127.0.0.1", port_of(server)))
        raw.sendall(sent)
        assert raw.recv(1000) == b""


def test_a_connection_is_kept_between_requests_and_ended_within_the_next(slow: tuple[Darwin, Slow]) -> None:
    app = create_app(slow[0], Settings(**{**WIDE, "body_seconds": 2.0}))
    whole = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with started(app) as (server, _), socket.socket() as raw:
        raw.settimeout(30)
        raw.connect(("127.0.0.1", port_of(server)))
        for _ in range(3):
            raw.sendall(whole)
            assert b"200 OK" in raw.recv(10_000)
            time.sleep(1.2)
        raw.sendall(whole[:20])
        assert raw.recv(1000) == b""


def test_a_head_without_end_is_not_kept(slow: tuple[Darwin, Slow]) -> None:
    app = create_app(slow[0], Settings(**WIDE))
    with started(app) as (server, _), socket.socket() as raw:
        raw.settimeout(30)
        raw.connect(("127.0.0.1", port_of(server)))
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        answered = b""
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                raw.sendall(b"X-Long: " + b"x" * 10_000 + b"\r\n")
        with contextlib.suppress(ConnectionError):
            answered = raw.recv(1000)
        assert answered == b"" or b" 400 " in answered
        asyncio.run(until(lambda: not server.server_state.connections))


def test_the_connection_of_who_does_not_read_is_ended(slow: tuple[Darwin, Slow]) -> None:
    model, predictor = slow
    _quick(predictor)
    app = create_app(model, Settings(**{**WIDE, "send_seconds": 0.3}))
    with started(app) as (server, _), not_reading(port_of(server), "/v1/predict", LARGE):
        asyncio.run(until(lambda: bool(predictor.batches)))
        asyncio.run(until(lambda: not server.server_state.connections, 60))


@pytest.mark.parametrize("limit", [{"send_seconds": 0.3}, {"csv_seconds": 3.0}])
def test_a_table_that_is_not_read_gives_its_place_back(slow: tuple[Darwin, Slow], limit: dict[str, float]) -> None:
    model, predictor = slow
    _quick(predictor)
    app = create_app(model, Settings(**{**WIDE, "streams": 1, **limit}))
    path = "/v1/predict/csv?task=tiny_gap"
    with started(app) as (server, _), not_reading(port_of(server), path, TABLE, "text/csv"):
        state = app.state.serving
        asyncio.run(until(lambda: state.streams == 1))
        asyncio.run(until(lambda: state.streams == 0 and state.open == 0, 60))
        url = f"http://127.0.0.1:{port_of(server)}{path}"
        # Far from all of it was asked, since nobody took it.
        assert sum(map(len, predictor.batches)) < 2400
        answer = httpx.post(url, content=b"composition\nGaN\n", headers={"Content-Type": "text/csv"}, timeout=60)
        assert answer.status_code == 200


def test_an_answer_that_is_read_slowly_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 KiB, or all that is left, in each of the times."""
    monkeypatch.setattr(connections, "AutoHTTPProtocol", MagicMock())
    transport = MagicMock()

    def look(unsent: int) -> bool:
        transport.get_write_buffer_size.return_value = unsent
        watched._look()
        return bool(transport.abort.called)

    async def work() -> None:
        nonlocal watched
        watched = connections.protocol(1000.0, 1000.0)(config=None, server_state=None, app_state=None)  # type: ignore[call-arg]
        watched.connection_made(transport)
        transport.get_write_buffer_size.return_value = 200_000
        watched.pause_writing()
        assert [look(134_000), look(68_000), look(68_000 - 65_535)] == [False, False, True]
        watched.connection_lost(None)

    watched: Any = None
    asyncio.run(work())


def test_what_is_not_done_in_time_is_told_before_the_end(slow: tuple[Darwin, Slow]) -> None:
    """One request is with the model, another waits."""
    model, predictor = slow
    app = create_app(model, Settings(rate=0, wait=0, drain_seconds=0.5))
    answers: dict[str, httpx.Response] = {}
    with started(app) as (server, thread):
        url, state = f"http://127.0.0.1:{port_of(server)}/v1/predict", app.state.serving

        def ask(material: str) -> None:
            body = {"materials": material, "tasks": "tiny_gap"}
            # The first may be answered still, or not.
            with contextlib.suppress(httpx.TransportError):
                answers[material] = httpx.post(url, json=body, timeout=60)

        clients = [threading.Thread(target=ask, args=(material,)) for material in ("first", "second")]
        clients[0].start()
        assert predictor.begun.acquire(timeout=30)
        clients[1].start()
        asyncio.run(until(lambda: state.batcher.queued == 1))
        server.handle_exit(signal.SIGTERM, None)
        clients[1].join(60)
        predictor.go.set()
        thread.join(60)
        assert not thread.is_alive()
        clients[0].join(60)
    assert answers["second"].status_code == 503 and "stopping" in answers["second"].json()["detail"]
    assert predictor.batches == [["first"]]


def test_a_table_is_finished_after_the_stop_where_it_may_take_as_long(slow: tuple[Darwin, Slow]) -> None:
    model, predictor = slow
    app = create_app(model, Settings(rate=0, wait=0, drain_seconds=300))
    got: list[httpx.Response] = []
    with started(app) as (server, thread):
        url = f"http://127.0.0.1:{port_of(server)}/v1/predict/csv?task=tiny_gap"
        table = {"content": b"composition\n" + b"GaN\n" * 600, "headers": {"Content-Type": "text/csv"}}
        client = threading.Thread(target=lambda: got.append(httpx.post(url, timeout=60, **table)))  # type: ignore[arg-type]
        client.start()
        assert predictor.begun.acquire(timeout=30)
        server.handle_exit(signal.SIGTERM, None)
        predictor.go.set()
        client.join(60)
        thread.join(60)
        assert not thread.is_alive()
    assert got[0].status_code == 200 and got[0].text.count("\n") == 601


def test_the_command_says_how_long_a_stop_may_take(served_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matdarwin.serving.app
    from matdarwin.commands.serve import serve

    given: list[Settings] = []
    monkeypatch.setattr(matdarwin.serving.app, "run", lambda darwin, settings: given.append(settings) or True)
    with at_home(served_home):
        serve(drain_seconds=1800.0)
        serve()
    assert [settings.drain_seconds for settings in given] == [1800.0, 60.0]
