"""What all tests share: no network unless asked for, no mirror unless asked for, and where the mirror stands."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Read before any test changes the environment.
_MIRROR = os.environ.get("MATDARWIN_MIRROR")
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class NetworkBlockedError(RuntimeError):
    """A test reached for the network without the fixture `network`."""


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """A connect that lets only this machine through."""

    def connect(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _LOOPBACK:
            raise NetworkBlockedError(
                f"a test tried to connect to {address}; it needs the fixture `network`, or is not offline"
            )
        return method(self, address)

    return connect


@pytest.fixture
def network() -> None:
    """Asked for by a test that goes to the package index; mark such a test slow."""


@pytest.fixture(autouse=True)
def _offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise "offline after set-up": every other test fails as soon as it reaches out."""
    if "network" in request.fixturenames:
        return
    monkeypatch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))
    resolve = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and host not in _LOOPBACK:
            raise NetworkBlockedError(
                f"a test tried to look up {host!r}; it needs the fixture `network`, or is not offline"
            )
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    # Child processes are not reached by the patches above, so those that would fetch are told not to.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _no_mirror(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that does not ask for the mirror must pass without one."""
    if "mirror" not in request.fixturenames:
        monkeypatch.delenv("MATDARWIN_MIRROR", raising=False)


@pytest.fixture
def mirror() -> Path:
    """The data mirror. Without one the test is skipped, but in CI (CI=true) it fails: there it must run."""
    if not _MIRROR:
        if os.environ.get("CI") == "true":
            pytest.fail("MATDARWIN_MIRROR is not set, and in CI the tests of the real data must run")
        pytest.skip("MATDARWIN_MIRROR is not set")
    if not Path(_MIRROR).is_dir():
        pytest.fail(f"MATDARWIN_MIRROR is set to {_MIRROR}, which is no folder")
    return Path(_MIRROR)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the user's: caches and checkpoints go there."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("MATDARWIN_HOME", str(folder))
    return folder
