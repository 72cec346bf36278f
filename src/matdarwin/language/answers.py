"""Values to answer texts and back: the only place where a text becomes a value.

An answer is the value alone, after one space: ` 1.20`, ` not metal`. A task's numbers have exactly its
`decimals`, so that the set of all answers is finite and a language model's distribution over them exact.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

from matdarwin.tasks.schema import Task

ANSWER_FORMAT = "answers-1"
"""Id of the answer format and parser; stored in checkpoints and compared on load."""

_NUMBER = re.compile(
    r"""(?P<sign>[-+])?
        (?P<digits>[1-9]\d{0,2}(?:,\d{3})+(?![\d,]) | \d+)?   # 1,234 or 1234; never 1,5 or 0,123
        (?P<fraction>\.\d*)?
        (?P<exponent>[eE][-+]?\d+)?
    """,
    re.VERBOSE | re.ASCII,
)
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-", "\u00a0": " ", "\u202f": " "})
# Letters, maybe with an exponent, maybe several by a slash or a dot: eV, %, cm3/g, W/m/K. Not words in a row, nor 1/2.
_ATOM = "[A-Za-z\u00b0\u00b5\u00c5\u03a9\u03bc%]+(?:\\^?[-\u207b]?[1-4\u00b9\u00b2\u00b3])?"
_UNIT = re.compile(rf"\s*{_ATOM}(?:[/\u00b7*]{_ATOM})*\.?\s*")
# Room for the longest float with its decimals; the default of 28 digits is less.
_EXACT = Context(prec=400)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer text says: a value, or the reason why it says none."""

    value: float | str | None
    reason: str | None = None


def format_number(value: float, decimals: int) -> str:
    """Write a number with exactly `decimals` digits, rounded half-even, never `-0.00`, no exponent.

    Raises:
        ValueError: `value` is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number, so it cannot be an answer")
    rounded = Decimal(repr(float(value))).quantize(
        Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_EVEN, context=_EXACT
    )
    return f"{abs(rounded) if rounded == 0 else rounded:f}"


def format_answer(task: Task, target: float | str) -> str:
    """The answer text of a target, with its leading space.

    Raises:
        ValueError: The target lies outside the task's bounds, or is none of its labels.
    """
    if task.kind == "classification":
        if target not in task.labels:
            raise ValueError(f"{target!r} is no label of {task.id}; its labels are {', '.join(task.labels)}")
        return f" {target}"
    assert task.bounds is not None and task.decimals is not None
    number = float(target)
    low, high = task.bounds
    if not low <= number <= high:
        raise ValueError(f"{number} lies outside the bounds of {task.id}, {low} to {high} {task.unit or ''}".rstrip())
    return f" {format_number(number, task.decimals)}"


def grid(task: Task) -> list[float]:
    """All values that a regression task's answer may take, rising, in the task's unit."""
    assert task.bounds is not None and task.decimals is not None
    step = Decimal(1).scaleb(-task.decimals)
    low, high = (Decimal(repr(bound)) for bound in task.bounds)
    first = math.ceil(low / step)
    last = math.floor(high / step)
    return [float(step * k) for k in range(first, last + 1)]


def parse_number(text: str) -> Reading:
    """Read one number from an answer text.

    Accepted are a sign (also the typographic minus), thousands in groups of three, a decimal point, an
    exponent, and a unit after the number. Anything else is no reading: text before the number, a
    second number, a decimal comma, nothing at all.
    """
    cleaned = text.translate(_MINUS).strip()
    if not cleaned:
        return Reading(None, "the answer is empty")
    match = _NUMBER.match(cleaned)
    assert match is not None
    digits, fraction = match["digits"], match["fraction"]
    if digits is None and (fraction is None or fraction == "."):
        return Reading(None, f"the answer {_shown(text)} does not begin with a number")
    rest = cleaned[match.end() :]
    if rest and not _UNIT.fullmatch(rest):
        return Reading(None, f"the answer {_shown(text)} holds more than one number and its unit")
    value = float(match.group().replace(",", ""))
    if not math.isfinite(value):
        return Reading(None, f"the answer {_shown(text)} is not a finite number")
    return Reading(value)


def parse_answer(task: Task, text: str) -> Reading:
    """Read a generated answer text as a value of the task; never guesses, never answers 0 for nothing."""
    if task.kind == "classification":
        folded = " ".join(text.split()).casefold().rstrip(".")
        for label in task.labels:
            if folded == label.casefold():
                return Reading(label)
        return Reading(None, f"the answer {_shown(text)} is none of the labels {', '.join(task.labels)}")
    reading = parse_number(text)
    if isinstance(reading.value, float):
        assert task.bounds is not None
        low, high = task.bounds
        if not low <= reading.value <= high:
            return Reading(None, f"the answer {reading.value} lies outside the bounds of {task.id}, {low} to {high}")
    return reading


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
