"""The mean of a training's last weights, which generalises better than the last of them.

Stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407), here over the falling rate's last part, as latest
weight averaging does (Kaddour 2022, arXiv 2209.14981).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

EVERY = 4
"""Steps from one taken weight to the next: neighbours hardly differ, and taking one costs a pass over the memory."""
_FEW = 8
"""Steps up to which each one counts."""


class WeightAverage:
    """The running mean of weights.

    Args:
        weights: Parameters in training; the mean has their number format, fp32.
        first: The first step (from 1) whose weights count.
        total: The last step.

    Attributes:
        means: The mean of each weight so far.
        count: How many times weights were taken.
    """

    def __init__(self, weights: Sequence[Any], first: int, total: int) -> None:
        self._weights = list(weights)
        self._first = first
        self._every = EVERY if total - first >= _FEW else 1
        self.means = [weight.detach().clone() for weight in self._weights]
        self.count = 0

    def take(self, step: int) -> None:
        """Count the weights after a step in, where it is one that counts."""
        import torch

        if step < self._first or (step - self._first) % self._every:
            return
        self.count += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.means, [weight.detach() for weight in self._weights], 1 / self.count)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The mean in the weights' place while this lasts; nothing happens before the first was taken."""
        if not self.count:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        import torch

        with torch.no_grad():
            for weight, mean in zip(self._weights, self.means, strict=True):
                kept = weight.detach().clone()
                weight.copy_(mean)
                mean.copy_(kept)
