"""Near-duplicates: compositions that are not one key, yet differ by under 1 % in every fraction; names spelt otherwise."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
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
_NAME = "name:"
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
        test_rows: Test rows whose material is a composition or a name.
        found: Those that have a composition in training that differs by under 1 % in every atomic fraction, or a name
            that is the same but for its spelling.
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
    """Count near-duplicates for each scored task that has compositions or names.

    Args:
        split: Whose test rows.
        fold: Its fold.
        training: Rows to look among; those of the task's own quantities count.
        stage: When they are learnt from.
    """
    result = []
    known = {task: _looked_at(rows) for task, rows in training.items()}
    for task in (task for task in split.tasks if task.id in split.targets):
        test = _looked_at(split.test[task.id])
        among = set(
            chain.from_iterable(known[other.id] for other in split.tasks if other.id in known and related(task, other))
        )
        found = near(test, among) | respelt(test, among)
        keys = [set(row.material.keys) for row in split.test[task.id]]
        if rows := sum(not one.isdisjoint(test) for one in keys):
            hits = sum(not one.isdisjoint(found) for one in keys)
            result.append(Near(task.id, stage, fold, rows, hits, tuple(found.items())[:_EXAMPLES]))
    return result


def _looked_at(rows: Iterable[Example]) -> set[str]:
    return {key for row in rows for key in row.material.keys if key.startswith((_PREFIX, _NAME))}


def respelt(keys: Collection[str], among: Collection[str]) -> dict[str, str]:
    """For each name that has one, another that is the same but for its spelling.

    What is spelling: everything but letters and digits, the order of the parts of a blend (between : / +), a remark in
    brackets at the end, and a Greek letter in front, which names the phase.

    Args:
        keys: Keys to look for; those of compositions are passed over.
        among: Keys to look among.

    Returns:
        key -> the first of the others, in the order of their letters.
    """
    known: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in sorted(among):
        if key.startswith(_NAME):
            known[_loose(key)].append(key)
    asked = (key for key in sorted(keys) if key.startswith(_NAME))
    others = ((key, [other for other in known.get(_loose(key), ()) if other != key]) for key in asked)
    return {key: found[0] for key, found in others if found}


@cache
def _loose(key: str) -> tuple[str, ...]:
    text = unicodedata.normalize("NFKC", key.removeprefix(_NAME)).casefold()
    text = re.sub(r"\s+\([^()]*\)$", "", re.sub(r"^[\u03b1-\u03c9]-", "", text))
    return tuple(sorted("".join(re.findall(r"\w", part)) for part in re.split(r"[:/+]", text)))


def near(keys: Collection[str], among: Collection[str]) -> dict[str, str]:
    """For each composition that has one, its nearest near-duplicate.

    Elements that only one of the two has count too (as 0 in the other), so a trace element makes no difference.

    Args:
        keys: Keys to look for; those of names are passed over.
        among: Keys to look among.

    Returns:
        key -> the key among the others that is nearest by its greatest difference in any atomic fraction.
    """
    from scipy.spatial import KDTree

    asked, known = (sorted(key for key in side if key.startswith(_PREFIX)) for side in (keys, among))
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
