"""The server's promises: limits told with their own status, work that stops, a stop that loses nothing."""

# Fixtures are imported, since they stand with the server's own tests.
# ruff: noqa: F811

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.helpers import (  # noqa: F401
    BASE,
    COMMAND,
    Slow,
    asked,
    darwin,
    listening,
    process,
    running,
    served_home,
    slow,
    until,
)

from matdarwin.api import Darwin
from matdarwin.commands.common import UsageError
from matdarwin.serving.app import create_app
from matdarwin.serving.door import POLICY
from matdarwin.serving.limits import Buckets
from matdarwin.serving.settings import Settings, SettingsError

KEY = "0123456789abcdef0123"
ONE = {"materials": "GaN", "tasks": "tiny_gap"}


def _problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["detail"]
    return dict(problem)


# -- body, rows, text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict/csv", "/nowhere"])
def test_a_body_too_large_is_refused_whatever_its_form(darwin: Darwin, chunked: bool, path: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    async def work(client: httpx.AsyncClient, state: Any) -> httpx.Response:
        return await client.post(path, content=chunks() if chunked else b"x" * 2000)

    answer = asked(darwin, work, body_limit=1000)
    assert "1,000 bytes" in _problem(answer, 413)["detail"]
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_is_drained_so_that_its_sender_reads_the_answer(slow: tuple[Darwin, Slow], chunked: bool) -> None:
    """Over a real socket: eight megabytes go out before the client reads; without draining it would get a reset."""
    app = create_app(slow[0], Settings(rate=0))
    with listening(app) as port, socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        length = 8 << 20
        how = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
        raw.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n{how}\r\n\r\n".encode())
        part = b"x" * (1 << 16)
        for _ in range(length // len(part)):
            raw.sendall(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
        if chunked:
            raw.sendall(b"0\r\n\r\n")
        got = b""
        while more := raw.recv(65536):
            got += more
    assert got.startswith(b"HTTP/1.1 413 ") and b"application/problem+json" in got


def test_what_is_past_the_drain_limit_is_not_read_for_ever(slow: tuple[Darwin, Slow]) -> None:
    app = create_app(slow[0], Settings(rate=0, body_limit=1000, drain_limit=10_000))
    with listening(app) as port, socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000000000\r\n\r\n")
        assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_not_waited_for(slow: tuple[Darwin, Slow]) -> None:
    app = create_app(slow[0], Settings(rate=0, body_seconds=0.3))
    with listening(app) as port, socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nxx")
        assert raw.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_rows_and_text_have_limits(slow: tuple[Darwin, Slow]) -> None:
    slow[1].go.set()

    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        csv = {"content": "composition\n" + "GaN\n" * 5, "headers": {"Content-Type": "text/csv"}}
        wide = {"content": f"composition\nGaN\n{'x' * 51}\n", "headers": {"Content-Type": "text/csv"}}
        chat = {"messages": [{"role": "user", "content": "x" * 51}]}
        return [
            await client.post("/v1/predict", json={"materials": ["GaN"] * 4, "tasks": "tiny_gap"}),
            await client.post("/v1/predict", json={"materials": ["GaN"] * 5, "tasks": "tiny_gap"}),
            await client.post("/v1/predict", json={"materials": ["GaN"] * 3, "tasks": ["tiny_gap", "tiny_metal"]}),
            await client.post("/v1/predict", json={"materials": ["GaN", "x" * 51], "tasks": "tiny_gap"}),
            await client.post("/v1/predict/csv?task=tiny_gap", **csv),
            await client.post("/v1/predict/csv?task=tiny_gap", **wide),
            await client.post("/v1/chat/completions", json=chat),
        ]

    fine, *refused = asked(slow[0], work, rows=4, csv_rows=4, text=50)
    assert fine.status_code == 200
    problems = [_problem(answer, 422) for answer in refused]
    assert [p["field"] for p in problems] == ["materials", "materials", "materials", "body", "body", "messages"]
    assert problems[2]["row"] == 1 and problems[2]["position"] == 50 and problems[2]["token"] == "x" * 40
    assert problems[4]["row"] == 1


def test_a_question_in_plain_words_is_not_as_long_as_a_material(slow: tuple[Darwin, Slow]) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        questions = ("x" * length for length in (20, 21))
        bodies = [{"messages": [{"role": "user", "content": question}]} for question in questions]
        return [await client.post("/v1/chat/completions", json=body) for body in bodies]

    fine, refused = asked(slow[0], work, question=20)
    problem = _problem(refused, 422)
    assert fine.status_code == 200 and problem["field"] == "messages"
    assert "a question of 21 characters, and at most 20 are read" in problem["detail"]


# -- queue, rate, time, absence ----------------------------------------------------------------------------


def test_a_full_queue_is_told_at_once_and_what_was_accepted_is_answered(slow: tuple[Darwin, Slow]) -> None:
    """A queue of 4 and 50 clients."""
    model, predictor = slow
    predictor.batch_size = 1

    async def work(client: httpx.AsyncClient, state: Any) -> tuple[list[httpx.Response], list[float]]:
        took = [0.0] * 50

        async def one(number: int) -> httpx.Response:
            began = time.perf_counter()
            answer = await client.post("/v1/predict", json={"materials": f"m{number}", "tasks": "tiny_gap"})
            took[number] = time.perf_counter() - began
            return answer

        tasks = [asyncio.ensure_future(one(i)) for i in range(50)]
        await until(lambda: sum(task.done() for task in tasks) >= 45)
        assert all(task.result().status_code == 503 for task in tasks if task.done())
        assert state.batcher.queued <= 4
        predictor.go.set()
        return list(await asyncio.gather(*tasks)), took

    answers, took = asked(model, work, queue_rows=4, rows=4, wait=0)
    accepted = [i for i, answer in enumerate(answers) if answer.status_code == 200]
    assert 4 <= len(accepted) <= 5
    for i in accepted:
        assert answers[i].json()["predictions"][0]["input"] == f"m{i}"
    refused = [i for i in range(50) if i not in accepted]
    for i in refused:
        assert _problem(answers[i], 503) and int(answers[i].headers["retry-after"]) >= 1
    assert statistics.median(took[i] for i in refused) < 3.0


def test_a_client_over_its_rate_is_told_when_to_come_again(slow: tuple[Darwin, Slow]) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        answers = [await client.get("/v1/tasks") for _ in range(4)]
        return [*answers, await client.get("/healthz"), await client.get("/readyz")]

    *answers, health, ready = asked(slow[0], work, rate=0.01, burst=3)
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert _problem(answers[3], 429) and 50 < int(answers[3].headers["retry-after"]) <= 100
    assert health.status_code == ready.status_code == 200


def test_who_has_no_key_takes_no_place_from_who_has(slow: tuple[Darwin, Slow]) -> None:
    """One place; the body of who is refused does not come, and is not waited for as long as one that is wanted."""
    never = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await never.wait()

    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        refused = asyncio.ensure_future(client.post("/v1/predict", content=body()))
        await until(lambda: state.open == 1)
        let_in = await client.get("/v1/tasks", headers={"Authorization": f"Bearer {KEY}"})
        assert not refused.done()
        return [let_in, await asyncio.wait_for(refused, 60)]

    let_in, refused = asked(slow[0], work, api_key=KEY, requests=1, body_seconds=1000)
    assert let_in.status_code == 200 and _problem(refused, 401)


def test_places_are_limited_and_given_back(slow: tuple[Darwin, Slow]) -> None:
    model, predictor = slow

    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        first = asyncio.ensure_future(client.post("/v1/predict", json=ONE))
        await until(lambda: bool(predictor.batches))
        refused, health = await client.get("/v1/tasks"), await client.get("/healthz")
        predictor.go.set()
        return [refused, health, await first, await client.get("/v1/tasks")]

    refused, *others = asked(model, work, requests=1)
    assert "1 requests are open already" in _problem(refused, 503)["detail"]
    assert [answer.status_code for answer in others] == [200, 200, 200]


def test_questions_in_plain_words_hold_nobody_up(slow: tuple[Darwin, Slow], monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from matdarwin.serving import chat

    begun, go, waited = threading.Event(), threading.Event(), []
    real = chat.understand

    def long(*args: Any) -> Any:
        begun.set()
        waited.append(go.wait(30))
        return real(*args)

    monkeypatch.setattr(chat, "understand", long)
    slow[1].go.set()

    async def work(client: httpx.AsyncClient, state: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": "What is the band gap of GaN?"}]}
        asking = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
        await until(begun.is_set)
        assert (await client.get("/healthz")).status_code == 200
        go.set()
        return await asking

    answer = asked(slow[0], work)
    assert waited == [True] and "band gap of GaN is predicted" in answer.text


def test_buckets_fill_again_and_are_bounded() -> None:
    now = 0.0
    buckets = Buckets(2.0, 2, 3, clock=lambda: now)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 1]
    now = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 1]
    assert buckets.take("b") == 0
    for i in range(100):
        buckets.take(f"c{i}")
    assert len(buckets) == 3


def test_time_up_is_504_and_the_work_stops(slow: tuple[Darwin, Slow]) -> None:
    model, predictor = slow

    async def work(client: httpx.AsyncClient, state: Any) -> httpx.Response:
        body = {"materials": [f"m{i}" for i in range(100)], "tasks": "tiny_gap"}
        answer = await client.post("/v1/predict", json=body)
        predictor.go.set()
        later = await client.post("/v1/predict", json={"materials": "after", "tasks": "tiny_gap"})
        assert later.status_code == 200
        return answer

    answer = asked(model, work, seconds=0.3, wait=0)
    assert "0.3 s" in _problem(answer, 504)["detail"]
    assert [m for batch in predictor.batches for m in batch] == ["m0", "m1", "after"]


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict/csv?task=tiny_gap"])
def test_a_client_that_leaves_stops_its_work(slow: tuple[Darwin, Slow], path: str) -> None:
    model, predictor = slow
    app = create_app(model, Settings(rate=0, wait=0))
    body = json.dumps({"materials": ["m"] * 200, "tasks": "tiny_gap"})
    kind = "application/json"
    if "csv" in path:
        body, kind = "composition\n" + "m\n" * 200, "text/csv"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with listening(app) as port:
        state = app.state.serving
        with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
            raw.sendall((head + body).encode())
            asyncio.run(until(lambda: bool(predictor.batches)))
        # The server has to see that it has left before the batch ends.
        time.sleep(0.5)
        predictor.go.set()
        asyncio.run(until(lambda: state.open == 0 and state.batcher.queued == 0))
        assert state.streams == 0
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/predict", json={"materials": "z", "tasks": "tiny_gap"})
        assert answer.status_code == 200
    assert len(predictor.batches) <= 4


def test_a_table_whose_time_is_up_is_seen_to_be_broken_off(slow: tuple[Darwin, Slow]) -> None:
    """After the first byte there is no other status to be had, so the answer must not end as a whole one does."""
    model, predictor = slow
    predictor.batch_size = 256
    before = predictor.predict

    def predict(materials: Any, task: str, **options: Any) -> Any:
        if predictor.batches:
            predictor.go.clear()
            time.sleep(1.0)
            predictor.go.set()
        return before(materials, task, **options)

    predictor.predict = predict  # type: ignore[method-assign]
    predictor.go.set()
    app = create_app(model, Settings(rate=0, wait=0, csv_seconds=0.5))
    rows = "composition\n" + "m\n" * 1000
    had = b""
    with listening(app) as port:
        url = f"http://127.0.0.1:{port}/v1/predict/csv?task=tiny_gap"
        with (
            httpx.stream("POST", url, content=rows, headers={"Content-Type": "text/csv"}, timeout=20) as answer,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            assert answer.status_code == 200
            for part in answer.iter_bytes():
                had += part
        asyncio.run(until(lambda: app.state.serving.open == 0))
        assert app.state.serving.streams == 0
    assert had.count(b"\n") < 1001


def test_a_fault_is_500_without_what_the_user_sent(slow: tuple[Darwin, Slow], caplog: pytest.LogCaptureFixture) -> None:
    slow[1].go.set()

    async def work(client: httpx.AsyncClient, state: Any) -> httpx.Response:
        return await client.post("/v1/predict", json={"materials": "fault", "tasks": "tiny_gap"})

    answer = asked(slow[0], work)
    assert answer.headers["x-request-id"] in _problem(answer, 500)["detail"]
    assert "secret" not in answer.text


# -- health, stop ------------------------------------------------------------------------------------------


def test_health_is_not_readiness(darwin: Darwin) -> None:
    import threading

    go = threading.Event()

    class Loading(Darwin):
        @property
        def predictor(self) -> Any:
            assert go.wait(20)
            return darwin.predictor

    async def run() -> None:
        app = create_app(Loading(darwin.checkpoint), Settings(rate=0))
        async with running(app, ready=False) as client:
            assert (await client.get("/healthz")).status_code == 200
            ready, early = await client.get("/readyz"), await client.post("/v1/predict", json=ONE)
            for answer in (ready, early):
                assert "being read" in _problem(answer, 503)["detail"] and int(answer.headers["retry-after"]) >= 1
            go.set()
            await until(lambda: app.state.serving.batcher.ready)
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.post("/v1/predict", json=ONE)).status_code == 200

    asyncio.run(run())


def test_a_model_that_cannot_be_loaded_is_never_ready(darwin: Darwin) -> None:
    class Broken(Darwin):
        @property
        def predictor(self) -> Any:
            raise OSError("no such weights")

    async def run() -> None:
        app = create_app(Broken(darwin.checkpoint), Settings(rate=0))
        async with running(app, ready=False) as client:
            await until(lambda: app.state.serving.batcher.fault is not None)
            assert (await client.get("/healthz")).status_code == 200
            assert "could not be loaded" in _problem(await client.get("/readyz"), 503)["detail"]
            _problem(await client.post("/v1/predict", json=ONE), 503)

    asyncio.run(run())


_SLOWED = (
    "import time\n"
    "from matdarwin.prediction.predictor import Predictor\n"
    "before = Predictor.predict\n"
    "def after(self, *args, **options):\n"
    "    time.sleep(1.0)\n"
    "    return before(self, *args, **options)\n"
    "Predictor.predict = after\n"
)


def _ready(child: subprocess.Popen[str], port: int) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert child.poll() is None, child.communicate()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("the server did not become ready")


@pytest.mark.slow
def test_sigterm_drains_and_leaves_no_child(served_home: Path) -> None:
    import threading

    import psutil

    with process(served_home, code=_SLOWED + COMMAND) as (child, port):
        _ready(child, port)
        own = psutil.Process(child.pid)
        answers: list[httpx.Response] = []
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as other:
            assert other.get("/readyz").status_code == 200

            def ask() -> None:
                body = {"materials": ["GaN", "InP"], "tasks": ["tiny_gap", "tiny_metal"]}
                answers.append(httpx.post(f"http://127.0.0.1:{port}/v1/predict", json=body, timeout=60))

            clients = [threading.Thread(target=ask) for _ in range(3)]
            for client in clients:
                client.start()
            time.sleep(0.5)
            children = own.children(recursive=True)
            child.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            assert _problem(other.get("/readyz"), 503)["detail"] == "the server is stopping"
            assert other.get("/healthz").status_code == 200
            assert int(other.post("/v1/predict", json=ONE).headers["retry-after"]) >= 1
        for client in clients:
            client.join(60)
        assert [a.status_code for a in answers] == [200, 200, 200]
        assert all(len(a.json()["predictions"]) == 4 for a in answers)
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        assert out == "" and not any(c.is_running() for c in children)
        lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
        assert {"ready", "stopping", "request"} <= {line["message"] for line in lines}
        assert "GaN" not in err and "InP" not in err
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


# -- who may come in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.10", "example.org"])
def test_another_host_needs_a_key(host: str) -> None:
    with pytest.raises(SettingsError, match="MATDARWIN_API_KEY"):
        Settings(host=host)
    assert Settings(host=host, api_key=KEY).hosts is None


@pytest.mark.parametrize("key", ["", "short", "x" * 15, "with a space in it", "ключ-ключ-ключ-ключ"])
def test_a_weak_key_is_none(key: str) -> None:
    with pytest.raises(SettingsError, match="16 or more"):
        Settings(host="0.0.0.0", api_key=key)


def test_the_command_refuses_to_be_open(served_home: Path) -> None:
    from matdarwin.commands.serve import serve

    with pytest.raises(SettingsError, match="API key"):
        serve(host="0.0.0.0", api_key_file=None)
    with pytest.raises(UsageError, match="cannot be read"):
        serve(api_key_file=served_home / "nothing")


def test_the_key_is_asked_for(slow: tuple[Darwin, Slow]) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> dict[str, int]:
        got = {}
        for name, header in {
            "none": None, "wrong": "Bearer 0123456789abcdef012", "longer": f"Bearer {KEY}x", "basic": f"Basic {KEY}",
            "odd": "Bearer \xff\xfe", "right": f"Bearer {KEY}",
        }.items():  # fmt: skip
            headers = {} if header is None else {"Authorization": header.encode("latin-1")}
            answer = await client.get("/v1/tasks", headers=headers)
            got[name] = answer.status_code
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == "Bearer" and KEY not in answer.text
        for path in ("/metrics", "/version", "/openapi.json", "/v1/models", "/nowhere"):
            got[path] = (await client.get(path)).status_code
        for path in ("/healthz", "/readyz"):
            got[path] = (await client.get(path, headers={"Host": "darwin.example"})).status_code
        return got

    got = asked(slow[0], work, api_key=KEY, host="0.0.0.0")
    assert [name for name, status in got.items() if status == 200] == ["right", "/healthz", "/readyz"]
    assert {status for status in got.values()} == {200, 401}


def test_the_key_is_compared_in_constant_time(slow: tuple[Darwin, Slow], monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    seen: list[tuple[bytes, bytes]] = []
    before = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: seen.append((a, b)) or before(a, b))

    async def work(client: httpx.AsyncClient, state: Any) -> int:
        return (await client.get("/v1/tasks", headers={"Authorization": "Bearer guess"})).status_code

    assert asked(slow[0], work, api_key=KEY) == 401
    assert seen == [(b"guess", KEY.encode())]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("", 421),
        ("[::2]", 421),
    ],
)
def test_a_name_that_was_rebound_to_this_machine_gets_nothing(
    slow: tuple[Darwin, Slow], host: str, status: int
) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> int:
        return (await client.get("/v1/tasks", headers={"Host": host})).status_code

    assert asked(slow[0], work) == status


def test_pages_of_other_sites_may_not_send_and_get_no_leave_to_read(slow: tuple[Darwin, Slow]) -> None:
    slow[1].go.set()

    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        origins = ("https://evil.example", "null", "http://[", BASE)
        return [await client.post("/v1/predict", json=ONE, headers={"Origin": origin}) for origin in origins]

    answers = asked(slow[0], work)
    assert [a.status_code for a in answers] == [403, 403, 403, 200]
    assert not any(name.startswith("access-control") for a in answers for name in a.headers)


def test_headers_of_every_answer(slow: tuple[Darwin, Slow]) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        return [
            await client.get("/healthz"),
            await client.get("/nowhere"),
            await client.get("/v1/tasks", headers={"X-Request-ID": "trace-1.2_3"}),
            await client.get("/v1/tasks", headers={"X-Request-ID": 'a b"<script>'}),
            await client.get("/v1/tasks", headers={"X-Request-ID": "x" * 65}),
            await client.post("/v1/predict", content=b"{"),
            await client.get("/v1/tasks", headers={"Host": "evil.example"}),
        ]

    answers = asked(slow[0], work)
    for answer in answers:
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    ids = [a.headers["x-request-id"] for a in answers]
    assert ids[2] == "trace-1.2_3" and len(set(ids)) == len(ids)
    assert all(len(identity) == 16 for identity in ids[3:5])


def test_the_log_has_a_line_a_request_and_no_user_data(slow: tuple[Darwin, Slow]) -> None:
    from matdarwin.serving.logs import JsonLines

    slow[1].go.set()
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonLines().format(record))

    logger = logging.getLogger("matdarwin.serving")
    handler = Kept()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    async def work(client: httpx.AsyncClient, state: Any) -> str:
        secret = {"materials": ["SECRET", "fault"], "tasks": "tiny_gap"}
        answer = await client.post("/v1/predict?q=SECRET", json=secret)
        await client.get("/SECRET")
        await client.post("/v1/predict", content=b'{"SECRET": 1', headers={"Content-Type": "application/json"})
        return answer.headers["x-request-id"]

    try:
        identity = asked(slow[0], work)
    finally:
        logger.removeHandler(handler)
    entries = [json.loads(line) for line in lines]
    requests = [e for e in entries if e["message"] == "request"]
    assert [(e["route"], e["status"]) for e in requests] == [("/v1/predict", 500), ("other", 404), ("/v1/predict", 400)]
    assert requests[0]["request"] == identity and requests[0]["ms"] >= 0
    (fault,) = [e for e in entries if e["message"] == "fault"]
    assert fault["fault"] == "RuntimeError" and fault["request"] == identity and fault["trace"]
    assert not any("secret" in line.lower() for line in lines)


@pytest.mark.parametrize("wrong", [{"rows": 5, "queue_rows": 4}, {"port": 70000}, {"seconds": 0}, {"rate": -1}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Settings(**wrong)
