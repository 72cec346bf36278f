"""Near-duplicates: compositions that are not the same key, yet differ by under 1 % in every atomic fraction."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
import numpy.typing as npt

from matdarwin.data.leakage import Rows, Split, related
from matdarwin.tasks.schema import Example

NEAR = 0.01
"""Atomic fractions that differ by less than this are near."""

_PREFIX = "composition:"
_STEPS = 10_000  # keys have four decimals, so whole steps compare exactly
_PART = re.compile(r"([A-Z][a-z]?)(\d+\.\d+)")
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Near:
    """Test rows of a task that have a near-duplicate in training rows of its quantity.

    Attributes:
        task: The task.
        stage: When the rows are learnt from.
        fold: The fold.
        test_rows: Test rows whose material is a composition.
        found: Those that have a composition in training that differs by under 1 % in every atomic fraction.
        examples: A few pairs of keys, test first.
    """

    task: str
    stage: str
    fold: int
    test_rows: int
    found: int
    examples: tuple[tuple[str, str], ...]

    @property
    def share(self) -> float:
        """Part of the test rows that is found, 0 to 1."""
        return self.found / self.test_rows if self.test_rows else 0.0


def near_duplicates(split: Split, fold: int, training: Rows, stage: str) -> list[Near]:
    """Count near-duplicates for each scored task that has compositions.

    Args:
        split: Whose test rows.
        fold: Its fold.
        training: Rows to look among; those of the task's own quantities count.
        stage: When they are learnt from.
    """
    result = []
    known = {task: _compositions(rows) for task, rows in training.items()}
    for task in (task for task in split.tasks if task.id in split.targets):
        test = _compositions(split.test[task.id])
        among = set(
            chain.from_iterable(known[other.id] for other in split.tasks if other.id in known and related(task, other))
        )
        found = near(test, among)
        keys = [set(row.material.keys) for row in split.test[task.id]]
        if rows := sum(not one.isdisjoint(test) for one in keys):
            hits = sum(not one.isdisjoint(found) for one in keys)
            result.append(Near(task.id, stage, fold, rows, hits, tuple(found.items())[:_EXAMPLES]))
    return result


def _compositions(rows: Iterable[Example]) -> set[str]:
    return {key for row in rows for key in row.material.keys if key.startswith(_PREFIX)}


def near(keys: Collection[str], among: Collection[str]) -> dict[str, str]:
    """For each composition that has one, its nearest near-duplicate.

    Elements that only one of the two has count too (as 0 in the other), so a trace element makes no difference.

    Args:
        keys: Keys of compositions to look for.
        among: Keys of compositions to look among.

    Returns:
        key -> the key among the others that is nearest by its greatest difference in any atomic fraction.
    """
    from scipy.spatial import KDTree

    asked, known = sorted(keys), sorted(among)
    if not asked or not known:
        return {}
    vectors = _vectors([*asked, *known])
    # The two nearest, since a key that stands among them is its own nearest.
    tree = KDTree(vectors[len(asked) :])
    _, places = tree.query(vectors[: len(asked)], k=2, p=np.inf, distance_upper_bound=NEAR * _STEPS - 0.5)
    found = {}
    for key, row in zip(asked, places, strict=True):
        others = [known[place] for place in row if place < len(known) and known[place] != key]
        if others:
            found[key] = others[0]
    return found


def _vectors(keys: list[str]) -> npt.NDArray[np.float64]:
    """Atomic fractions in whole steps of 0.0001: one row a key, one column an element."""
    parts = [_steps(key) for key in keys]
    columns = {symbol: n for n, symbol in enumerate(sorted({symbol for row in parts for symbol, _ in row}))}
    vectors = np.zeros((len(keys), len(columns)))
    for place, row in enumerate(parts):
        for symbol, steps in row:
            vectors[place, columns[symbol]] = steps
    return vectors


@cache
def _steps(key: str) -> tuple[tuple[str, int], ...]:
    # Asked for again in every fold, hence remembered.
    return tuple((symbol, round(float(fraction) * _STEPS)) for symbol, fraction in _PART.findall(key))
