"""Whether the labels of two tasks say the same of the same materials, in whatever words, and how much of that is chance."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matdarwin.data import guess
from matdarwin.tasks.schema import Task

FEWEST = 5
"""Labels that must be there for a likeness to be found: fewer that agree may be chance."""

_ZERO = {"band gap": ("metal", "not metal")}
"""Quantity -> the class that a value of exactly 0 means, and the one that every greater value means."""

_SURE = 3.0  # standard deviations that agreement must lie above chance

Found = Sequence[tuple[Any, Sequence[Any]]]
"""Test labels, each with the training labels that it is to be compared with; none where there is nothing comparable."""

_Read = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a comparison found.

    Attributes:
        agree: By test label, whether all its training labels say the same; None where that cannot be said.
        by_chance: Test labels that would agree if the training labels that were met were dealt out at random.
    """

    agree: tuple[bool | None, ...]
    by_chance: float


def kappa(agree: int, compared: int, by_chance: float) -> float | None:
    """Cohen's kappa: 1 where all labels agree, 0 where as many as by chance; None where chance alone would make all agree.

    Args:
        agree: Labels that agree.
        compared: Labels that were compared.
        by_chance: Those of them that would agree by chance.
    """
    return None if by_chance >= compared - 1e-9 else (agree - by_chance) / (compared - by_chance)


def are_one(agree: int, compared: int, by_chance: float, least: float) -> bool:
    """Whether labels agree so well that both lists have the same data.

    Args:
        agree: Labels that agree.
        compared: Labels that were compared.
        by_chance: Those of them that would agree by chance.
        least: Kappa from which on they are.
    """
    found = kappa(agree, compared, by_chance)
    if compared < FEWEST or found is None or found < least:
        return False
    share = by_chance / compared
    return agree - by_chance > _SURE * math.sqrt(compared * share * (1 - share))


def compare(task: Task, other: Task, found: Found) -> Agreement:
    """Compare test labels of one task with training labels of another.

    Numbers agree if they are equal to the decimals of the test's task. Where their units differ or are not said, one factor
    between them is found from the labels themselves, as between eV and meV. Classes agree if they are of one name, or, where
    the two tasks name theirs otherwise, if they are partners: the names that most often meet, one to one. A number and a
    class are compared where one of the tasks is of a quantity whose 0 is a class of its own: a metal has no band gap. What
    is found from the labels needs `FEWEST` of them.

    Args:
        task: The task of the test labels.
        other: The task of the training labels.
        found: The labels.
    """
    met = [(test, train) for test, train in found if train]
    read = _reading(task, other, [(test, train[0]) for test, train in met])
    if read is None or not met:
        return Agreement((None,) * len(found), 0.0)
    one, two = read
    agree = tuple(all(one(test) == two(label) for label in train) if train else None for test, train in found)
    tests, trains = Counter(one(test) for test, _ in met), Counter(two(train[0]) for _, train in met)
    return Agreement(agree, sum(count * trains[name] for name, count in tests.items()) / len(met))


def _reading(task: Task, other: Task, met: Sequence[tuple[Any, Any]]) -> tuple[_Read, _Read] | None:
    """How a test label and a training label become two things that are equal if they say the same; None: they cannot."""
    if task.kind == other.kind == "regression":
        return _numbers(task, other, met)
    if task.kind == other.kind:
        return _classes(_same, set(task.labels), _same, set(other.labels), met)
    for quantity, classes in _ZERO.items():
        if quantity in (*task.quantities, *other.quantities):
            zero, above = classes

            def as_class(value: Any, zero: str = zero, above: str = above) -> str:
                return zero if value == 0 else above

            if task.kind == "classification":
                return _classes(_same, set(task.labels), as_class, set(classes), met)
            return _classes(as_class, set(classes), _same, set(other.labels), met)
    return None


def _same(label: Any) -> Any:
    return label


def _numbers(task: Task, other: Task, met: Sequence[tuple[Any, Any]]) -> tuple[_Read, _Read] | None:
    digits = task.decimals
    factor: float | None = 1.0
    # Numbers without a unit are alike only where they are of one property: an index is no share of anything.
    if not (_one_unit(task.unit, other.unit) and (task.unit or task.property == other.property)):
        factor = _factor(met)
    if factor is None:
        return None
    scale = factor
    return lambda test: round(float(test), digits), lambda train: round(scale * float(train), digits)


def _one_unit(one: str | None, other: str | None) -> bool:
    if one is None or other is None or one == other:
        return one == other
    powers = guess.unit(one)
    return powers is not None and powers == guess.unit(other)


def _factor(met: Sequence[tuple[Any, Any]]) -> float | None:
    """What training numbers are multiplied by to be test numbers, in most of the rows."""
    ratios = [float(test) / float(train) for test, train in met if float(test) and float(train)]
    return statistics.median(ratios) if len(ratios) >= FEWEST else None


def _classes(
    one: _Read, ones: set[str], two: _Read, twos: set[str], met: Sequence[tuple[Any, Any]]
) -> tuple[_Read, _Read] | None:
    if ones == twos:
        return one, two
    if len(met) < FEWEST:
        return None
    partners = _partners([(one(test), two(train)) for test, train in met])
    return one, lambda train: partners.get(two(train))


def _partners(met: Sequence[tuple[Any, Any]]) -> Mapping[Any, Any]:
    """Training class -> the test class that it stands for: those that meet most often first, each taken once."""
    found: dict[Any, Any] = {}
    for (test, train), _ in sorted(Counter(met).items(), key=lambda item: (-item[1], str(item[0]))):
        if train not in found and test not in found.values():
            found[train] = test
    return found
