"""States of a run on disk, to go on from: whole or not there, the last ones kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
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

    def save(self, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Save a state, and drop the oldest beyond those that are kept.

        Raises:
            TrainingError: The disk is full; the earlier ones stand.
        """
        self.put(f"step-{step:09d}", tensors, state)
        for old in self._standing()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def put(self, name: str, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Save a state under a name of its own, in the place of one of that name; see `save`."""
        from safetensors.torch import save_file

        work, final = self._folder / f".{name}", self._folder / name
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            save_file(
                {key: value.detach().contiguous().clone() for key, value in tensors.items()}, work / "state.safetensors"
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
            left = self._standing()
            kept = f"the last good state is {left[-1]}" if left else "no earlier state was saved"
            raise TrainingError(
                f"{disk.full(self._folder) if disk.is_full(error) else error}; the run stops here, {kept}. The same "
                "command goes on from there"
            ) from error

    def latest(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Tensors and state of the newest one that is whole; None where there is none."""
        for path in reversed(self._standing()):
            if (found := self._load(path)) is not None:
                return found
        return None

    def get(self, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Tensors and state under a name; None where there is none that is whole."""
        return self._load(self._folder / name)

    def _standing(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))

    def _load(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
        from safetensors.torch import load_file

        if sealing.fault(path):
            return None
        return load_file(path / "state.safetensors"), json.loads((path / "state.json").read_text(encoding="utf-8"))
