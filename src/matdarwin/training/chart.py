"""Line charts as inline SVG for the training page: drawn by hand, since a page is made again and again while a run goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

_WIDTH, _HEIGHT = 420.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 12.0, 10.0, 34.0
_DOTS = 30
"""Most points that are marked one by one."""
_PAYS = 10.0
"""Greatest over least value from which a logarithmic axis shows more."""


@dataclass(frozen=True)
class Line:
    """One line of a chart: its points in the order of x, and its class in the page's style."""

    points: Sequence[Point]
    style: str


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many points (and two more) that look the same: of each piece the least and the greatest stay.

    Args:
        points: Points in the order of x.
        most: How many may stay; 2 or more.
    """
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    kept: list[Point] = [points[0]]
    for start in range(0, len(points), size):
        piece = points[start : start + size]
        ends = (min(piece, key=lambda p: p[1]), max(piece, key=lambda p: p[1]))
        kept += sorted(set(ends))
    # The ends of the whole: the last says where the run stands.
    kept.append(points[-1])
    return [point for place, point in enumerate(kept) if place == 0 or point != kept[place - 1]]


def smooth(points: Sequence[Point]) -> list[Point]:
    """The exponential mean over about a fiftieth of the points, at least 5; the start is not pulled towards zero."""
    keep = 1 - 2 / (max(5.0, len(points) / 50) + 1)
    total, weight, found = 0.0, 0.0, []
    for x, y in points:
        total, weight = keep * total + (1 - keep) * y, keep * weight + (1 - keep)
        found.append((x, total / weight))
    return found


def chart(lines: Sequence[Line], *, title: str, end: float, logarithmic: bool = False) -> str:
    """A chart over steps.

    Args:
        lines: What is drawn, the first at the bottom; the last decides the heights that are shown, and of the others
            the outermost hundredths may be cut. Values are finite.
        title: What it shows, for those who cannot see it.
        end: Last step of the axis.
        logarithmic: Whether heights may be logarithmic; they are where that shows more.
    """
    low, high = _range(lines)
    logarithmic = logarithmic and low > 0 and high / low >= _PAYS
    if not logarithmic:
        room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        # What is never below zero has an axis that is not either.
        low, high = (low - room if low < 0 or low > 2 * room else 0.0), high + room
    end = max(end, 1.0)

    def across(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / end

    def up(y: float) -> float:
        y = min(max(y, low), high)
        share = math.log(y / low) / math.log(high / low) if logarithmic else (y - low) / (high - low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    parts = [
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(title)}">',
    ]
    right, base = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for tick in _decades(low, high) if logarithmic else _even(low, high):
        at = up(tick)
        parts.append(f'<path class="grid" d="M{_LEFT:g} {at:.1f}H{right:g}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 6:g}" y="{at + 4:.1f}">{_height(tick)}</text>')
    for tick in _even(0, end, 4):
        parts.append(f'<text class="x" x="{across(tick):.1f}" y="{base + 16:g}">{_count(tick)}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT:g} {base:g}H{right:g}"/>')
    parts.append(f'<text class="x" x="{(_LEFT + right) / 2:g}" y="{_HEIGHT - 3:g}">step</text>')
    for line in lines:
        drawn = [(across(x), up(y)) for x, y in line.points]
        parts.append(f'<polyline class="{line.style}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)}"/>')
        if len(drawn) <= _DOTS:
            parts += (f'<circle class="{line.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in drawn)
    return "".join((*parts, "</svg>"))


def _range(lines: Sequence[Line]) -> Point:
    """Least and greatest value to be shown."""
    shown = [y for _, y in lines[-1].points]
    for line in lines[:-1]:
        heights = sorted(y for _, y in line.points)
        aside = len(heights) // 100
        shown += heights[aside : len(heights) - aside]
    return min(shown), max(shown)


def _even(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two others, evenly apart."""
    rough = (high - low) / about
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    # Multiplied, not added up, so that no tick reads 0.30000000000000004; rounded to the digits of the step.
    digits = max(0, -math.floor(math.log10(step)))
    return [round(k * step, digits) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten between two numbers; the powers alone where that would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 4 else (1,)
    return [value for power in powers for factor in factors if low <= (value := factor * 10.0**power) <= high]


def _height(value: float) -> str:
    """A value on the axis, short enough for the margin."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:g}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def _count(value: float) -> str:
    """A number of steps, short."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"
