"""States of a run on disk, to go on from: whole or not there, the last ones kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matdarwin.data import disk
from matdarwin.models import sealing
from matdarwin.training.errors import TrainingError

KEPT = 2
"""Snapshots that are kept: the newest, and one more should that be damaged."""


class Snapshots:
    """The states of one run.

    Args:
        folder: Where they stand; made when the first is saved.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any], *, best: int | None = None) -> None:
        """Save a state, and drop the oldest beyond those that are kept, with the weights that none refers to any more.

        Args:
            step: The step that was made last.
            tensors: Its tensors.
            state: The rest, as JSON takes it.
            best: The epoch whose weights belong to it; see `keep`.

        Raises:
            TrainingError: The disk is full; the earlier ones stand.
        """
        self._put(f"step-{step:09d}", tensors, {**state, "best": best})
        standing = self._standing()
        for old in standing[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        self._drop_weights(standing[-KEPT:])

    def keep(self, epoch: int, weights: Mapping[str, Any]) -> None:
        """Keep the weights of an epoch, which stay for as long as a state refers to them, or until others are better.

        Raises:
            TrainingError: As from `save`.
        """
        self._put(_best(epoch), weights, {"epoch": epoch})
        self._drop_weights(self._standing(), newest=epoch)

    def kept(self, epoch: int) -> dict[str, Any]:
        """The weights that were kept of an epoch.

        Raises:
            TrainingError: They are missing or damaged.
        """
        path = self._folder / _best(epoch)
        if (found := self._load(path)) is None:
            raise TrainingError(
                f"{sealing.fault(path)}; those are the weights of epoch {epoch}, the best by validation, and others would "
                f"belie its scores. Remove {self._folder.parent} and train again"
            )
        return found[0]

    def latest(
        self, usable: Callable[[Mapping[str, Any]], bool] = lambda _: True
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Tensors and state of the newest one that is whole and usable; None where there is none."""
        for path in reversed(self._standing()):
            if (found := self._load(path)) is not None and usable(found[1]):
                return found
        return None

    def last_step(self) -> int | None:
        """The step of the newest one that is whole; None where there is none."""
        return next((_step(path) for path in reversed(self._standing()) if not sealing.fault(path)), None)

    def tidy(self, step: int | None) -> None:
        """Remove what a run that goes on from a step has no use for: later states, and what was left half written.

        Args:
            step: The step it goes on from; None: it begins anew.
        """
        newest = -1 if step is None else step
        left = [path for path in self._standing() if _step(path) <= newest]
        for path in [*self._folder.glob(".*"), *(path for path in self._standing() if path not in left)]:
            shutil.rmtree(path, ignore_errors=True)
        self._drop_weights(left)

    def _drop_weights(self, states: Sequence[Path], *, newest: int | None = None) -> None:
        """Remove the weights of epochs that none of some states refers to, and that are not the newest."""
        epochs = [self._read(path).get("best") for path in states] + [newest]
        named = {_best(epoch) for epoch in epochs if epoch is not None}
        for path in self._folder.glob("best*"):
            if path.name not in named:
                shutil.rmtree(path, ignore_errors=True)

    def _put(self, name: str, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        from safetensors.torch import save_file

        work, final = self._folder / f".{name}", self._folder / name
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            # On the CPU, or a GPU would need room for a second state; written from where they stand if they are there already.
            save_file(
                {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, work / "state.safetensors"
            )
            (work / "state.json").write_text(json.dumps(state), encoding="utf-8")
            sealing.seal(work)
            shutil.rmtree(final, ignore_errors=True)
            work.rename(final)
            disk.sync(self._folder)
        except BaseException as error:
            shutil.rmtree(work, ignore_errors=True)
            if disk.said(error) is None:
                raise
            raise TrainingError(self.broken_off(error)) from error

    def broken_off(self, error: BaseException) -> str:
        """What to say of a fault of the disk that ends a run: from where it can go on."""
        left = self._standing()
        kept = f"the last good state is {left[-1]}" if left else "no earlier state was saved"
        return (
            f"{disk.full(self._folder) if disk.is_full(error) else error}; the run stops here, {kept}. The same command "
            "goes on from there"
        )

    def _standing(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))

    def _load(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
        from safetensors.torch import load_file

        if sealing.fault(path):
            return None
        return load_file(path / "state.safetensors"), self._read(path)

    def _read(self, path: Path) -> dict[str, Any]:
        """The state beside its tensors; nothing where it cannot be read."""
        try:
            read: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return read


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _best(epoch: int) -> str:
    return f"best-{epoch:06d}"
