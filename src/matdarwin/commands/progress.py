"""How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_LINES = 10
"""Lines that a part of a run prints where there is no terminal."""


class Bar:
    """A `training.report.Report` that shows a bar with what is done, the loss, and the time that is left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(), TextColumn("{task.fields[says]}", markup=False),
            console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._text, self._total, self._shown = "", 0, 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def begin(self, text: str, total: int) -> None:
        """A part of the run begins, with this number of steps."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(text, total=total, says="")
        self._text, self._total, self._shown = text, total, 0

    def step(self, done: int, text: str) -> None:
        """So many steps of the part are done."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, says=text)
        part = done * _LINES // max(self._total, 1)
        if not self._console.is_terminal and part > self._shown:
            self._shown = part
            self._print(f"{self._text}: {done:,} of {self._total:,}" + (f", {text}" if text else ""))

    def say(self, text: str) -> None:
        """A line for people."""
        self._print(text)

    def metrics(self, run: str, line: dict[str, Any]) -> None:
        """Say nothing: the loss stands beside the bar."""

    def _print(self, text: str) -> None:
        self._console.print(Text(text))
