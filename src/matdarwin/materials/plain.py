"""Formulas of symbols and whole numbers alone (`Fe2O3`), read about five times as fast as by the whole parser.

Computed databases hold hundreds of thousands of them. What comes out is what the parser makes of them, to the letter.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from matdarwin.materials.elements import ELECTRONEGATIVITY, canonical_order
from matdarwin.materials.material import Material
from matdarwin.materials.refusals import MISSING, bare_numeral

_PLAIN = re.compile(r"(?:[A-Z][a-z]?(?:[1-9]\d{0,5})?)+", re.ASCII)
_PART = re.compile(r"([A-Z][a-z]?)(\d*)", re.ASCII)
_LONGEST = 200  # so that no sum of amounts comes near the parser's limit
_RANK = {symbol: place for place, symbol in enumerate(canonical_order(ELECTRONEGATIVITY))}


def amounts(formula: str) -> dict[str, int] | None:
    """Amount of each element, in order of first appearance; None where the formula is not plain or is none at all.

    Args:
        formula: The text, without blanks around it.
    """
    if len(formula) > _LONGEST or formula in MISSING or not _PLAIN.fullmatch(formula) or bare_numeral(formula):
        return None
    found: dict[str, int] = {}
    for symbol, amount in _PART.findall(formula):
        if symbol not in _RANK:
            return None
        found[symbol] = found.get(symbol, 0) + int(amount or 1)
    return found


def key(found: dict[str, int]) -> str:
    """Key of a composition: atomic fractions, rounded half-even to 4 decimals, exactly."""
    total = sum(found.values())
    pieces = []
    for symbol in sorted(found):
        quotient, rest = divmod(found[symbol] * 10_000, total)
        if 2 * rest > total or (2 * rest == total and quotient % 2):
            quotient += 1
        pieces.append(f"{symbol}{quotient // 10_000}.{quotient % 10_000:04d}")
    return "composition:" + " ".join(pieces)


def material(formula: str, found: dict[str, int]) -> Material:
    """The material of a formula whose amounts these are, divided by their greatest common divisor."""
    divisor = math.gcd(*found.values())
    pieces = {symbol: _piece(symbol, amount // divisor) for symbol, amount in found.items()}
    order = tuple(sorted(pieces, key=_RANK.__getitem__))
    own = key(found)
    return Material(
        "composition",
        formula,
        tuple([pieces[symbol] for symbol in order]),
        tuple(pieces.values()),
        own,
        (own,),
        order,
    )


@lru_cache(maxsize=20_000)  # a few thousand different ones stand for millions: one object each
def _piece(symbol: str, amount: int) -> str:
    return symbol if amount == 1 else f"{symbol}{amount}"
