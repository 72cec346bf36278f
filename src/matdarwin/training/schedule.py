"""How long a training goes on, and how fast it learns at each step."""

from __future__ import annotations

import math

from matdarwin.training.options import Optimising


def total_steps(options: Optimising, *, size: int, steps: int, sources: int) -> int:
    """Number of steps of a training.

    Args:
        options: The recipe's `optimising`.
        size: Examples in an epoch.
        steps: Steps in an epoch.
        sources: Number of tasks and texts that share the stream.
    """
    if options.steps is not None:
        return options.steps
    if options.examples is not None:
        return max(1, math.ceil(options.examples * sources * steps / size))
    return max(options.epochs, math.ceil(options.minimum_steps / steps)) * steps


def learning_rate(step: int, total: int, options: Optimising) -> float:
    """Learning rate of a step (from 0): linear warm-up, then half a cosine down to `final_rate` of the peak."""
    warm = max(1, round(options.warmup * total))
    if step < warm:
        return options.learning_rate * (step + 1) / warm
    way = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    return options.learning_rate * (options.final_rate + (1 - options.final_rate) * way)
