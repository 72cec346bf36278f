"""What of a vLLM server's address, key and faults can be told without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from matdarwin import cli
from matdarwin.prediction import vllm_server
from matdarwin.prediction.engines import EngineError
from matdarwin.prediction.vllm_server import KEY, VllmServer


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://host.example/v1/", "https://host.example"),
        ("https://host.example/a/v1", "https://host.example/a"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_addresses(given: str, used: str) -> None:
    server = VllmServer(given, "m", key="")
    assert server.url == used
    server.close()


@pytest.mark.parametrize(
    "given", ["", "localhost:8000", "ftp://a", "http://", "http://a:x", "http://a:99999", "http://[a", "http://a?b=1"]
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(EngineError, match="give it as http://HOST:PORT"):
        VllmServer(given, "m", key="")


@pytest.mark.parametrize("given", ["http://me:hush@host:1", "http://hush@host", "ftp://:hush@host"])
def test_a_password_in_the_address_is_not_repeated(given: str) -> None:
    with pytest.raises(EngineError, match=KEY) as caught:
        VllmServer(given, "m", key="")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "line\n", "\u00fcber"])
def test_a_key_that_no_header_takes_is_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    with pytest.raises(EngineError, match=KEY) as caught:
        VllmServer("http://127.0.0.1:1", "m")
    assert key.strip() not in str(caught.value)


def test_a_server_that_is_away_is_asked_five_times(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    tries = []

    def fail(*args: object, **options: object) -> None:
        tries.append(options["timeout"])
        raise requests.ConnectionError("refused")

    monkeypatch.setattr(requests.Session, "request", fail)
    monkeypatch.setattr(vllm_server, "_LONGEST_PAUSE", 0.0)
    server = VllmServer("http://127.0.0.1:1", "m", key="", timeout=7)
    with pytest.raises(
        EngineError, match=r"http://127\.0\.0\.1:1 cannot be reached.*5 times over.*same command goes on"
    ):
        server.logps([([1], [], (2,))])
    assert tries == [(7, 7)] * 5
    # A first look is not repeated.
    with pytest.raises(EngineError, match="cannot be reached"):
        server.models()
    assert len(tries) == 6
    server.close()


def test_nothing_asked_is_nothing_sent() -> None:
    server = VllmServer("http://127.0.0.1:1", "m", key="")
    assert server.logps([]) == [] and server.encoded([], special=True) == []
    server.close()


@pytest.mark.parametrize(
    "words", [["--engine", "vllm"], ["--url", "http://127.0.0.1:1"], ["--engine", "ray", "--url", "http://a"]]
)
def test_engine_and_url_belong_together(words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["screen", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), *words]) == 2
    assert "--engine vllm and --url belong together" in capfd.readouterr().err
