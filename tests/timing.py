"""How long something takes, so that a busy or slow machine does not fail a test."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_YARDSTICK = 0.008
"""Processor seconds of `_yardstick` on the machine that limits are meant for (one core of 2.5 GHz, otherwise idle)."""


def _yardstick() -> None:
    sum(number * number for number in range(100_000))


def least_seconds(action: Callable[[], object], repeats: int = 15, enough: float = 0.0) -> float:
    """Processor time of the fastest of some runs, as of the machine that limits are meant for.

    A core that is shared, or slow, takes longer for the yardstick too, and by that much less is counted.

    Args:
        action: What to run.
        repeats: Most runs.
        enough: No run follows one that took less than this.
    """
    best = own = math.inf
    for _ in range(repeats):
        own = min(own, _seconds(_yardstick))
        best = min(best, _seconds(action))
        if best * min(1.0, _YARDSTICK / own) < enough:
            break
    return best * min(1.0, _YARDSTICK / own)


def _seconds(action: Callable[[], object]) -> float:
    begin = time.process_time()
    action()
    return time.process_time() - begin
