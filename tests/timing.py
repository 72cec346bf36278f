"""How long something takes, so that a busy machine does not fail a test."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


def least_seconds(action: Callable[[], object], repeats: int = 15, enough: float = 0.0) -> float:
    """Processor time of the fastest of some runs; no run follows one that took less than `enough`."""
    best = math.inf
    for _ in range(repeats):
        begin = time.process_time()
        action()
        best = min(best, time.process_time() - begin)
        if best < enough:
            break
    return best
