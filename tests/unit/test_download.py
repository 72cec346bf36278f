"""What is fetched from an address arrives whole and as pinned, and what broke off goes on where it stood."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from matdarwin.data import bringers
from matdarwin.data.sources import DataError, fetch
from matdarwin.tasks.schema import Source

BODY = random.Random(0).randbytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()


@dataclass
class Server:
    """A file server on this machine that can be told to misbehave.

    Attributes:
        cuts: After how many bytes of its body each of the next answers is cut; None: not at all.
        ranges: Whether it can send a part of a file.
        status: The status that it answers with, where it refuses.
        sized: Whether it says how long the file is.
        asked: Path and Range of each request.
    """

    address: str = ""
    body: bytes = BODY
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int | None = None
    sized: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            if state.status is not None:
                self.send_error(state.status)
                return
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if begin >= len(state.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.body)}")
                self.end_headers()
                return
            rest = state.body[begin:]
            self.send_response(206 if wanted and state.ranges else 200)
            if wanted and state.ranges:
                self.send_header("Content-Range", f"bytes {begin}-{len(state.body) - 1}/{len(state.body)}")
            if state.sized:
                self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: state.cuts.pop(0)] if state.cuts else rest)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        state.address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield state
        running.shutdown()
        thread.join()


def url(server: Server, sha256: str = SHA) -> Source:
    return Source(kind="url", name=f"{server.address}/d/t.bin", sha256=sha256)


def part(home: Path, sha256: str = SHA) -> Path:
    folder = home / ".cache" / "sources" / sha256[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "t.bin.part"


def left(home: Path) -> list[str]:
    return [path.name for path in home.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_a_file_is_fetched_once_and_its_progress_told(home: Path, server: Server) -> None:
    told: list[tuple[int, int | None]] = []
    path = fetch(url(server), lambda here, whole: told.append((here, whole)))
    assert path.read_bytes() == BODY and left(home) == ["t.bin"]
    assert told[-1] == (len(BODY), len(BODY)) and [here for here, _ in told] == sorted(here for here, _ in told)
    assert fetch(url(server)) == path and server.asked == [("/d/t.bin", None)]


def test_a_file_of_a_repository_is_asked_for_at_its_commit(
    home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringers, "GITHUB", server.address)
    source = Source(kind="github", name="owner/name", version="c0ffee", path="a folder/t#1.csv", sha256=SHA)
    assert fetch(source).read_bytes() == BODY
    assert server.asked == [("/owner/name/c0ffee/a%20folder/t%231.csv", None)]
    monkeypatch.undo()
    assert bringers.address_of(source).startswith("https://raw.githubusercontent.com/owner/name/c0ffee/")


def test_with_the_mirror_nothing_is_asked_of_the_network(
    home: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATDARWIN_MIRROR", str(tmp_path))
    source = url(server).model_copy(update={"mirror": "t.bin"})
    with pytest.raises(DataError, match=r"t.bin: missing from the mirror"):
        fetch(source)
    (tmp_path / "t.bin").write_bytes(BODY)
    assert fetch(source) == tmp_path / "t.bin" and server.asked == []


def test_a_cut_connection_is_taken_up_where_it_broke_off(home: Path, server: Server) -> None:
    server.cuts = [100_000, 50_000]
    assert fetch(url(server)).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_cut_without_a_stated_length_is_found_by_the_checksum(home: Path, server: Server) -> None:
    server.sized, server.cuts = False, [100_000]
    with pytest.raises(DataError, match=r"wrong checksum"):
        fetch(url(server))
    assert left(home) == [] and fetch(url(server)).read_bytes() == BODY


def test_what_a_stopped_process_left_is_gone_on_with(home: Path, server: Server) -> None:
    part(home).write_bytes(BODY[:123_456])
    assert fetch(url(server)).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == ["bytes=123456-"] and left(home) == ["t.bin"]


def test_a_server_that_brings_nothing_more_ends_it_and_the_beginning_stays(home: Path, server: Server) -> None:
    server.cuts = [100_000, 0]
    with pytest.raises(
        DataError, match=r"t.bin: cannot be fetched: .*check the network, .*; 100,000 bytes are here, and the next try"
    ):
        fetch(url(server))
    assert part(home).read_bytes() == BODY[:100_000]
    server.asked.clear()
    assert fetch(url(server)).read_bytes() == BODY and [wanted for _, wanted in server.asked] == ["bytes=100000-"]


def test_a_server_without_ranges_sends_all_anew(home: Path, server: Server) -> None:
    server.ranges, server.cuts = False, [100_000, 200_000]
    assert fetch(url(server)).read_bytes() == BODY and len(server.asked) == 3


def test_a_beginning_of_another_version_is_thrown_away(home: Path, server: Server) -> None:
    part(home).write_bytes(b"x" * 1000)
    assert fetch(url(server)).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("there", [BODY, BODY + b"longer", b"y" * len(BODY)])
def test_a_beginning_that_is_as_long_as_the_file(home: Path, server: Server, there: bytes) -> None:
    part(home).write_bytes(there)
    assert fetch(url(server)).read_bytes() == BODY and left(home) == ["t.bin"]
    assert len(server.asked) == (1 if there == BODY else 2)


def test_wrong_content_is_not_kept(home: Path, server: Server) -> None:
    with pytest.raises(DataError, match=f"wrong checksum: expected sha256 {'1' * 64}, got {SHA}; nothing was kept"):
        fetch(url(server, "1" * 64))
    assert left(home) == []


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"t.bin: the server has no such file for us \(404 Not Found\); the address may have moved"),
        (503, r"t.bin: cannot be fetched: the server answers 503 .*; try again later"),
    ],
)
def test_a_server_that_refuses_is_quoted(home: Path, server: Server, status: int, message: str) -> None:
    part(home).write_bytes(BODY[:10])
    server.status = status
    with pytest.raises(DataError, match=message):
        fetch(url(server))
    assert len(server.asked) == 1 and left(home) == ["t.bin.part"]


def test_a_server_out_of_reach_says_what_to_do(home: Path, server: Server) -> None:
    gone = Source(kind="url", name="http://127.0.0.1:9/t.bin", sha256=SHA)
    with pytest.raises(DataError, match=r"t.bin: cannot be fetched: ConnectionError; check the network"):
        fetch(gone)


def test_a_disk_that_fills_up_keeps_the_beginning(home: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(here: int, whole: int | None) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"t.bin: the disk is full; free some space"):
        fetch(url(server), full)
    assert BODY.startswith(part(home).read_bytes())
    assert fetch(url(server)).read_bytes() == BODY
