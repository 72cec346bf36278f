"""Steps as CUDA graphs: the way forward and back is recorded once for each shape of batch, and then started as one.

A small model keeps a GPU busy for a small part of a step: starting its thousands of kernels one by one takes far longer
than they run (docs/log.md). Recorded, they are started together (Gray 2019, Getting started with CUDA graphs). A recording has fixed
shapes, so rows are padded to few of them (`batches.padded`) and bring their own prefixes: work that a GPU hardly notices.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from matdarwin.language.prompts import Encoded
from matdarwin.training.batches import Batch, padded

MOST = 64
"""Most shapes that are recorded; each holds a part of the GPU's memory."""
_MOVED = ("ids", "judged", "targets", "digits")


@dataclass
class _Recording:
    graph: Any
    batch: Batch
    share: Any
    loss: Any


class Graphs:
    """The way forward and back of a module over padded batches.

    Gradients are added to those that the weights have, whose tensors must stay the same from step to step.

    Args:
        loss: The module that sums a batch's losses.
        device: The CUDA device.
        autocast: torch dtype to compute in, or None for that of the weights.
        rows: Rows of a batch; smaller ones are padded.
    """

    def __init__(self, loss: Any, device: Any, autocast: Any | None, rows: int) -> None:
        self._module, self._device, self._autocast, self._rows = loss, device, autocast, rows
        self._recordings: dict[tuple[int, int], _Recording] = {}
        self._seen: set[tuple[int, int]] = set()
        self._pool: Any = None

    def run(self, rows: Sequence[Encoded], judged: float) -> Any:
        """Add the gradients of some rows' losses over `judged`; returns that loss, which the next run overwrites.

        A shape is recorded when it comes a second time: the first run is as usual, and wakes what a recording must not.
        """
        batch = padded(rows, max(len(rows), self._rows))
        shape = (len(batch.ids), len(batch.judged))
        if shape not in self._recordings:
            if shape not in self._seen or len(self._recordings) >= MOST:
                self._seen.add(shape)
                return self._once(self._moved(batch), 1 / judged)
            self._recordings[shape] = self._record(batch)
        recording = self._recordings[shape]
        for name in _MOVED:
            getattr(recording.batch, name).copy_(getattr(batch, name), non_blocking=True)
        recording.share.fill_(1 / judged)
        recording.graph.replay()
        return recording.loss

    def _moved(self, batch: Batch) -> Batch:
        """The batch on the device."""
        names = (*_MOVED, "places", "back")
        return replace(batch, **{name: getattr(batch, name).to(self._device) for name in names})

    def _once(self, batch: Batch, share: Any) -> Any:
        with self._cast():
            loss = self._module(batch) * share
        loss.backward()
        return loss.detach()

    def _record(self, batch: Batch) -> _Recording:
        graph = torch.cuda.CUDAGraph()
        still, share = self._moved(batch), torch.zeros((), device=self._device)
        # One after the other they may use the same memory.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            loss = self._once(still, share)
        self._pool = self._pool or graph.pool()
        return _Recording(graph, still, share, loss)

    def _cast(self) -> AbstractContextManager[Any]:
        # Casts that were kept from before a recording would not be part of it.
        return (
            torch.autocast(self._device.type, self._autocast, cache_enabled=False) if self._autocast else nullcontext()
        )

    @staticmethod
    def take(rows: Sequence[Encoded]) -> bool:
        """Whether rows can be run so: not where a distribution is taught in a token's place, whose size differs."""
        return not any(any(row.soft) for row in rows)
