"""Cells of a table: a text to a number, read strictly, and the error that names what is wrong with a row."""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_EVEN, Decimal

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""What counts as a number in a cell; stricter than `float`, which takes `1_0`, other scripts' digits and `nan`."""
DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)+(\.\d+)?", re.ASCII)
"""`1,5` or `1,234.5`: either meaning is a guess, so neither is made."""


class RowError(ValueError):
    """A row that cannot become an example: the text at fault, its column, and the cause in few words."""

    def __init__(self, text: str, column: str, cause: str, hint: str = "") -> None:
        super().__init__(f"column {column}: {cause}{hint}" if column else f"{cause}{hint}")
        self.text = text[:200]
        self.column = column
        self.cause = cause


def number(text: str, column: str) -> float:
    """A finite decimal number, read strictly: no units, no digit grouping, no decimal comma.

    Args:
        text: The cell.
        column: Its column, for the error.

    Raises:
        RowError: The text is no such number.
    """
    if DECIMAL_COMMA.fullmatch(text):
        raise RowError(text, column, "a decimal comma", f" in {text!r}; write decimals with a point and no grouping")
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise RowError(text, column, "not finite", f": {text!r}")
    if not NUMBER.fullmatch(text):
        raise RowError(text, column, "no number", f": {text!r}")
    value = float(text)
    if not math.isfinite(value):  # 1e999
        raise RowError(text, column, "not finite", f": {text!r}")
    return value


def written(value: float, decimals: int) -> str:
    """A number with fixed decimals, rounded half-even, never minus zero and without an exponent."""
    rounded = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN)
    return f"{abs(rounded) if rounded == 0 else rounded:f}"
