"""Conformal intervals: how far from the median an answer may lie, learnt from rows that no training saw.

Normalised split conformal prediction (Lei et al. 2018, 10.1080/01621459.2017.1307116; with a difficulty estimate and a
floor: Papadopoulos et al. 2011, 10.1613/jair.3198), through crepes. The score of a calibration row is

    |target - median| / (spread + beta)

with the spread of the model's own distribution about its median. The interval of a new row reaches to the score of rank
ceil((n + 1) coverage) among n, times its own spread + beta, to either side. It holds the target of an exchangeable row
at least that often, whatever the model is worth.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Final, Literal, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from matdarwin.tasks.schema import Task

Interval = tuple[float, float]

METHOD: Final = "split-conformal-spread-1"
"""Id of the score's formula; stored with each calibration, and checked when one is read back."""

MINIMUM = 30
"""Fewest calibration scores that count as a calibration."""

FLOOR = 0.5
"""`beta` as a share of the mean spread of the calibration rows.

Coverage is right whatever the floor is; the width is not. On synthetic zero-inflated answers (370 calibration rows, 12
draws) this share is within 3 % of the narrowest tried at 80, 90 and 95 %. A floor of one grid step made the 95 % intervals
15 % wider and twice as unsteady, since rows that the model is wrongly sure of then have huge scores; no use of the
spread at all made the 90 % ones 16 % wider.
The floor is known from the calibration rows alone, so exactness is lost by a term of order 1/n.
"""


_NOISE = 1e-9


class Spread(Protocol):
    """What an interval needs of a distribution: its centre and its own idea of the error, in the task's unit."""

    def median(self) -> float:
        """The value."""
        ...

    def spread(self) -> float:
        """Mean absolute deviation about the median."""
        ...


class Calibration(BaseModel):
    """Everything that makes intervals; goes into the checkpoint as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(description="Id of the task.")
    method: Literal["split-conformal-spread-1"] = Field(default=METHOD, description="Id of the score's formula.")
    status: Literal["calibrated", "uncalibrated"] = Field(
        description="uncalibrated: fewer than 30 scores, no intervals."
    )
    n: int = Field(ge=0, description="Number of scores, one a material.")
    unread: int = Field(default=0, ge=0, description="Calibration rows without a readable answer; they have no score.")
    repeats: int = Field(
        default=0, ge=0, description="Rows left out because another row of the same material was taken."
    )
    beta: float = Field(gt=0, allow_inf_nan=False, description="Floor added to each spread, in the task's unit.")
    bounds: tuple[float, float] = Field(description="The task's bounds; no interval leaves them.")
    decimals: int = Field(ge=0, description="Decimals to which ends are rounded outward: one more than the task's.")
    scores: tuple[float, ...] = Field(description="Scores, rising, without unit.")

    _quantiles: dict[float, float] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n != len(self.scores):
            raise ValueError(f"calibration of {self.task}: n is {self.n}, but there are {len(self.scores)} scores")
        if not all(math.isfinite(score) and score >= 0 for score in self.scores):
            raise ValueError(f"calibration of {self.task}: scores must be finite and not negative")
        if list(self.scores) != sorted(self.scores):
            raise ValueError(f"calibration of {self.task}: scores must rise")
        if self.status != _status(self.n):
            raise ValueError(f"calibration of {self.task}: {self.n} scores are {_status(self.n)}, not {self.status}")
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"calibration of {self.task}: bounds must rise, got {list(self.bounds)}")
        return self

    def interval(self, distribution: Spread, coverage: float, *, value: float | None = None) -> Interval | None:
        """Lower and upper end of the values that hold the target with probability `coverage`.

        Args:
            distribution: The model's answer, its median within the task's bounds.
            coverage: Wanted share of held targets, between 0 and 1, neither included.
            value: The answer that is shown, where it is not the median (the mean, for squared errors): the interval is
                widened to hold it too.

        Returns:
            The ends in the task's unit, rounded outward to one decimal more than the task's answers have, cut at its
            bounds and never past the median or value; the bounds themselves where the coverage asks for more scores than there are; None where the
            calibration is too small to count.

        Raises:
            ValueError: Coverage out of range, a median or spread that cannot be, or a median or value outside the task's bounds.
        """
        reach = self.quantile(coverage)
        centre, sigma = _checked(distribution)
        low, high = self.bounds
        shown = centre if value is None else float(value)
        for name, number in (("median", centre), ("value", shown)):
            # A mean may pass a bound in its last bits.
            if not low - _NOISE <= number <= high + _NOISE:
                raise ValueError(f"the {name} {number} of {self.task} lies outside its bounds [{low}, {high}]")
        if reach is None:
            return None
        if math.isinf(reach):
            return self.bounds
        half = reach * (sigma + self.beta)
        lower = max(low, min(centre, shown, _outward(centre - half, self.decimals, -1)))
        upper = min(high, max(centre, shown, _outward(centre + half, self.decimals, +1)))
        return lower, upper

    def quantile(self, coverage: float) -> float | None:
        """Half width of the interval per unit of spread + beta: the score of rank ceil((n + 1) coverage), from crepes.

        Returns:
            The score; infinity where that rank is past the last one; None where uncalibrated.

        Raises:
            ValueError: Coverage out of range.
        """
        if isinstance(coverage, bool) or not isinstance(coverage, int | float) or not 0 < coverage < 1:
            raise ValueError(f"coverage must lie between 0 and 1, neither included (such as 0.9), got {coverage!r}")
        if self.status == "uncalibrated":
            return None
        if coverage not in self._quantiles:
            self._quantiles[coverage] = self._rank(coverage)
        return self._quantiles[coverage]

    def _rank(self, coverage: float) -> float:
        # crepes floors (1 - confidence)(n + 1), so that 1 - 0.9 = 0.0999... would miss its rank by one: hence the hair.
        confidence = coverage - 1e-12
        if (1 - confidence) * (self.n + 1) < 1:
            return math.inf
        from crepes import ConformalRegressor

        unit = np.ones(self.n)
        fitted = ConformalRegressor().fit(np.array(self.scores), sigmas=unit)
        return float(fitted.predict_int(np.zeros(1), sigmas=unit[:1], confidence=confidence)[0, 1])


def calibrate(
    task: Task,
    distributions: Sequence[Spread | None],
    targets: Sequence[float],
    *,
    keys: Sequence[Hashable] | None = None,
    beta: float | None = None,
    seed: int = 0,
) -> Calibration:
    """Scores of the calibration rows.

    Args:
        task: The task, a regression one.
        distributions: The model's answers [rows], None where unread (counted: intervals hold for rows that are read).
        targets: True values [rows], in the task's unit.
        keys: Identity of each row's material. Of several rows with one key a single one, drawn with `seed`, gives the
            score: rows of one material are not exchangeable, materials are.
        beta: Floor in the task's unit; by default `FLOOR` times the mean spread of the rows that give scores, and at
            least one step of the task's grid.
        seed: Seed of the draw among rows of one key.

    Returns:
        The calibration; its status is "uncalibrated" under `MINIMUM` scores.

    Raises:
        ValueError: A classification task, lengths that differ, or a value that is not finite.
    """
    if task.bounds is None or task.decimals is None:
        raise ValueError(f"{task.id} is a classification task; intervals are for numbers")
    if len(distributions) != len(targets) or (keys is not None and len(keys) != len(targets)):
        raise ValueError(
            f"calibration of {task.id}: {len(distributions)} distributions, {len(targets)} targets"
            + ("" if keys is None else f", {len(keys)} keys")
        )
    if beta is not None and not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta must be positive, got {beta}")
    read: dict[Hashable, list[tuple[float, float]]] = {}
    unread = 0
    for row, (distribution, target) in enumerate(zip(distributions, targets, strict=True)):
        if not math.isfinite(target):
            raise ValueError(f"calibration of {task.id}: the target of row {row} is {target}")
        if distribution is None:
            unread += 1
            continue
        centre, sigma = _checked(distribution)
        read.setdefault(row if keys is None else keys[row], []).append((abs(target - centre), sigma))
    draw = np.random.default_rng(seed)
    taken = [rows[int(draw.integers(len(rows)))] for rows in read.values()]
    if beta is None:
        mean = float(np.mean([sigma for _, sigma in taken])) if taken else 0.0
        beta = max(FLOOR * mean, 10.0**-task.decimals)
    scores = tuple(sorted(error / (sigma + beta) for error, sigma in taken))
    return Calibration(
        task=task.id,
        status=_status(len(scores)),
        n=len(scores),
        unread=unread,
        repeats=sum(len(rows) - 1 for rows in read.values()),
        beta=beta,
        bounds=task.bounds,
        # One more than an answer has: on a coarse grid, rounding both ends outward would widen intervals for nothing.
        decimals=task.decimals + 1,
        scores=scores,
    )


class CoverageReport(BaseModel):
    """How intervals fared on rows with known targets; widths in the targets' unit, None where no row has an interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    without_interval: int
    coverage: float | None = Field(
        description="Share of the rows with an interval whose target it holds, ends included."
    )
    width: float | None = Field(description="Mean width.")


def report(targets: Sequence[float | None], intervals: Sequence[Interval | None]) -> CoverageReport:
    """Coverage and width over rows with known targets.

    Args:
        targets: True values [rows].
        intervals: (lower, upper) [rows], None where a row has none; such rows are counted and not scored.

    Raises:
        ValueError: Lengths differ, there are no rows, a value is not finite, or an interval's ends are the wrong way
            round.
    """
    if len(targets) == 0:
        raise ValueError("there are no rows to report on")
    if len(targets) != len(intervals):
        raise ValueError(f"{len(targets)} targets, {len(intervals)} intervals")
    held, widths = [], []
    for row, (target, interval) in enumerate(zip(targets, intervals, strict=True)):
        if target is None or not math.isfinite(target):
            raise ValueError(f"the target of row {row} is {target}")
        if interval is None:
            continue
        low, high = interval
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(f"the interval of row {row} is {interval}; its ends must be finite and rise")
        held.append(low <= target <= high)
        widths.append(high - low)
    return CoverageReport(
        rows=len(targets),
        without_interval=len(targets) - len(held),
        coverage=float(np.mean(held)) if held else None,
        width=float(np.mean(widths)) if widths else None,
    )


def _status(n: int) -> Literal["calibrated", "uncalibrated"]:
    return "calibrated" if n >= MINIMUM else "uncalibrated"


def _checked(distribution: Spread) -> tuple[float, float]:
    """Median and spread, or an error where they are none."""
    centre, sigma = float(distribution.median()), float(distribution.spread())
    if not math.isfinite(centre) or not math.isfinite(sigma) or sigma < 0:
        raise ValueError(f"a distribution needs a finite median and a spread of at least 0, got {centre} and {sigma}")
    return centre, sigma


def _outward(value: float, decimals: int, side: Literal[-1, 1]) -> float:
    """`value` moved to the grid of `decimals` digits: down for side -1, up for +1, unmoved where it is on it but for float noise."""
    steps = value * 10**decimals
    nearest = round(steps)
    if abs(steps - nearest) > 1e-6:
        nearest = math.floor(steps) if side < 0 else math.ceil(steps)
    return float(round(nearest / 10**decimals, decimals))
