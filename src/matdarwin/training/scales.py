"""What errors of different tasks are measured by, so that they can be added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from matdarwin.tasks.schema import Example


def deviation(rows: Iterable[Example]) -> float:
    """Mean absolute deviation of numbers from their median, in their unit; rows without a number are left aside."""
    targets = np.array([float(row.target) for row in rows if row.target is not None])
    return float(np.abs(targets - np.median(targets)).mean())


def overall(validation: Mapping[str, tuple[str, float]], scales: Mapping[str, float]) -> float:
    """One number for scores of several tasks, less is better: 1 - accuracy, or error over scale, averaged; 0 for none.

    Args:
        validation: Metric (accuracy or mae) and value by task.
        scales: What a task's error is measured by, see `deviation`.
    """
    parts = [
        1 - value if metric == "accuracy" else value / scales[task] for task, (metric, value) in validation.items()
    ]
    return float(np.mean(parts)) if parts else 0.0
