"""A command line in this process, with its three streams apart, and a small trained checkpoint to ask."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matdarwin import cli
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.prediction import Prediction
from matdarwin.prediction.predictor import Predictor
from tiny import tiny_base, tiny_checkpoint, tiny_task


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Darwin = Callable[..., Done]


@pytest.fixture
def darwin(monkeypatch: pytest.MonkeyPatch) -> Darwin:
    """Runs `darwin ARGS` and checks what holds for every command: no traceback, ever."""

    def call(*args: str, stdin: bytes = b"") -> Done:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
        with monkeypatch.context() as patch:
            # Some runners of tests set a width, which tables of ours would keep to.
            patch.delenv("COLUMNS", raising=False)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            code = cli.run(list(args))
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode("utf-8"))  # type: ignore[attr-defined]
        assert "Traceback" not in texts[0] + texts[1]
        return Done(code, *texts)

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a base, and two checkpoints: `one` of tiny_gap, and an older one, `two`, of tiny_gap and tiny_metal."""
    home = tmp_path_factory.mktemp("trained")
    base = tiny_base(home / "base")
    gap, metal = tiny_task(home), tiny_task(home, kind="classification")
    quick = {"optimising": {"epochs": 1, "minimum_steps": 40, "learning_rate": 1e-2, "batch_size": 16}}
    tiny_checkpoint(home, tasks=[gap, metal], base=base, name="two", role="benchmark", **quick)
    tiny_checkpoint(home, tasks=[gap], base=base, name="one", **quick)
    return home


@pytest.fixture
def at_trained(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained home, as MATDARWIN_HOME."""
    home = tmp_path / "home"
    shutil.copytree(trained, home)
    monkeypatch.setenv("MATDARWIN_HOME", str(home))
    return home


class Quick:
    """Answers at once: the value is the length of the text; a text with `bad` is no material, one with `unread` has no answer."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.name = checkpoint.name
        self.calls: list[tuple[int, dict[str, Any]]] = []

    def predict(self, materials: Sequence[object], task: str, **options: Any) -> list[Prediction]:
        self.calls.append((len(materials), options))
        return [self._one(str(given), task) for given in materials]

    def _one(self, given: str, task: str) -> Prediction:
        common: dict[str, Any] = {"input": given, "task": task, "unit": "eV", "model": self.name, "notes": ()}
        if "bad" in given or "unread" in given:
            status = "invalid" if "bad" in given else "unread"
            nothing = dict.fromkeys(("material", "value", "lower", "upper", "coverage"))
            return Prediction(**common, **nothing, status=status, reason=f"`{given}` at position 0 is no element")
        value = float(len(given)) / 10
        answer = AnswerDistribution(np.array([value]), (), np.array([1.0]), 0.0, 0.0)
        common["notes"] = ("never saw Pu",) if "Pu" in given else ()
        return Prediction(**common, material=given, value=value, lower=value - 0.05, upper=value + 0.05, coverage=0.9, status="ok", reason=None, distribution=answer)  # fmt: skip


@pytest.fixture
def quick(at_trained: Path, monkeypatch: pytest.MonkeyPatch) -> list[Quick]:
    """The real checkpoint with a predictor that answers at once; the list holds those that were made."""
    made: list[Quick] = []

    def of(checkpoint: Checkpoint, **options: Any) -> Quick:
        made.append(Quick(checkpoint))
        return made[-1]

    monkeypatch.setattr(Predictor, "of", of)
    return made
