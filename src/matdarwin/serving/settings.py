"""What a server is told: where it listens, its key, and each of its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


class SettingsError(ValueError):
    """Settings that do not go together, or that would leave the server open."""


@dataclass(frozen=True)
class Settings:
    """Settings of one server. All limits are checked where they are declared.

    Attributes:
        host: Address to listen at; any but a loopback address needs a key.
        port: Port to listen at; 0 takes a free one.
        api_key: What clients send as `Authorization: Bearer KEY`; None: nobody is asked for one.
        body_limit: Bytes of a request's body.
        drain_limit: Bytes of a body that is too large which are read all the same, so that its sender gets to read why.
        body_seconds: Seconds in which a body must have come; before it, a request's head.
        rows: Answers (materials times tasks) of one JSON request.
        csv_rows: Answers (rows times tasks) of one CSV request.
        text: Characters of one material or condition.
        question: Characters of a question in plain words, which is searched for its material.
        queue_rows: Answers that wait at a time; what would go past it is refused at once.
        requests: Requests that are open at a time.
        streams: CSV requests that are open at a time.
        rate: Requests a second of one client; 0: as many as it likes.
        burst: Requests that a client may send at once before its rate counts.
        clients: Clients that are remembered for their rate.
        seconds: Seconds in which a JSON request is answered, or its work stops.
        csv_seconds: The same for a CSV request.
        send_seconds: Seconds in which a client must take each 64 KiB of its answer, or its connection is ended.
        wait: Seconds after which a batch begins when nothing more comes to share it, or a twentieth of what the last one
            took, up to 0.1 s; at most four times that after its first row, or after the batch before it.
        drain_seconds: Seconds that accepted work has to finish once the server is told to stop; what is not done and read
            by then is broken off.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    body_limit: int = 1 << 20
    drain_limit: int = 64 << 20
    body_seconds: float = 30.0
    rows: int = 1000
    csv_rows: int = 50_000
    text: int = 10_000
    question: int = 2_000
    queue_rows: int = 4096
    requests: int = 256
    streams: int = 8
    rate: float = 100.0
    burst: int = 200
    clients: int = 10_000
    seconds: float = 60.0
    csv_seconds: float = 1800.0
    send_seconds: float = 30.0
    wait: float = 0.01
    drain_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in (
            "body_limit", "rows", "csv_rows", "text", "question", "queue_rows", "requests", "streams", "burst", "clients",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is at least 1, got {getattr(self, name)}")
        for name in ("body_seconds", "seconds", "csv_seconds", "send_seconds", "drain_seconds"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} is more than 0, got {getattr(self, name)}")
        if self.rate < 0 or self.wait < 0:
            raise SettingsError(f"rate and wait are not below 0, got {self.rate} and {self.wait}")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port lies between 0 and 65535, got {self.port}")
        if self.drain_limit < self.body_limit:
            raise SettingsError(f"drain_limit ({self.drain_limit}) is not below body_limit ({self.body_limit})")
        if self.rows > self.queue_rows:
            raise SettingsError(
                f"a request of {self.rows} rows would never fit the queue of {self.queue_rows}; lower rows or raise queue_rows"
            )
        if self.api_key is not None and (
            len(self.api_key) < 16
            or not self.api_key.isascii()
            or not self.api_key.isprintable()
            or " " in self.api_key
        ):
            raise SettingsError(
                "an API key has 16 or more printable ASCII characters and no space; make one by `openssl rand -hex 32`"
            )
        if not self.local and self.api_key is None:
            raise SettingsError(
                f"{self.host} can be reached from other machines, so an API key is needed: set MATDARWIN_API_KEY or give "
                "--api-key-file; or listen at 127.0.0.1, where none is"
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that the Host header may have, without a port; None: any.

        On a loopback address without a key, a page of another site could have its own name resolve to this machine and
        so read the answers; such a request has that name as its host.
        """
        if self.api_key is not None:
            return None
        return frozenset({"localhost", "127.0.0.1", "[::1]", f"[{self.host}]" if ":" in self.host else self.host})
