"""How a run tells what it does: the interface that progress bars implement, and one that keeps silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Report(Protocol):
    """What a run tells while it goes on."""

    def begin(self, text: str, total: int) -> None:
        """A part of the run begins, with this number of steps."""

    def step(self, done: int, text: str) -> None:
        """So many steps of the part are done."""

    def say(self, text: str) -> None:
        """A line for people."""

    def metrics(self, run: str, line: dict[str, Any]) -> None:
        """A line of the metrics of a run, as its file has it: of a step, or of an epoch."""


class Silent:
    """A report that goes nowhere."""

    def begin(self, text: str, total: int) -> None:
        """Say nothing."""

    def step(self, done: int, text: str) -> None:
        """Say nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def metrics(self, run: str, line: dict[str, Any]) -> None:
        """Say nothing."""


def waiting(report: Report, name: str) -> Callable[[str], None]:
    """What tells that a run waits for the process that trains what it begins from."""
    return lambda process: report.say(f"{name} is being trained by another run ({process}); waiting for it")
