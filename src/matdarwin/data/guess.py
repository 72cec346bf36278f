"""What can be found out from a column: how its materials are written, its unit, and which answers its numbers call for."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from matdarwin.materials import parse
from matdarwin.materials.material import Kind, MaterialError
from matdarwin.tasks.schema import MAX_GRID

_TRIED = 200
_MOST_DECIMALS = 6
_SYMBOL = re.compile(r"[A-Z][a-z]?")
_CALLED: dict[str, Kind] = {"smiles": "molecule", "formula": "composition", "composition": "composition"}


_BASE = (
    r"(?:log10 )?(?:[numkMGTpfcd\u00b5\u03bc]?(?:eV|V|A|W|J|Pa|m|g|K|s|S|Hz|F|C|T|N|mol|L|l|\u03a9|\u2126|ohm|Ohm|cal|bar|B)|%|"
    r"\u00b0C|degC|\u00c5|Angstrom|angstrom|muB|atom|cell|Da|HV|ppm|h|min|d|wt%|at%)"
)
_TERM = re.compile(rf"({_BASE})(?:\^?([-\u2212]?[0-9]+)|([\u207b\u00b9\u00b2\u00b3\u2074]+))?")
_RAISED = str.maketrans("\u207b\u00b9\u00b2\u00b3\u2074", "-1234")
_SAME = {
    "\u03a9": "ohm",
    "\u2126": "ohm",
    "Ohm": "ohm",
    "\u00c5": "angstrom",
    "Angstrom": "angstrom",
    "degC": "\u00b0C",
    "l": "L",
    "muB": "uB",
}
_NAMES = frozenset({"Seebeck", "Young", "Curie", "Hall", "Vickers", "Debye", "Poisson", "Fermi"})
_WORDS = frozenset({"atom", "cell", "min", "bar", "cal", "mol"})
# `gap (eV)`, `gap [eV]`, `kappa (W/(m K))`; `gap / eV`, `gap, eV`, `gap in eV`; `gap_eV`.
_HEADERS = (
    re.compile(r"(?P<words>.*?)\s*[(\[](?P<unit>[^()\[\]]+)[)\]]\s*"),
    re.compile(r"(?P<words>[^()]*?)\s*\((?P<unit>.+)\)\s*"),
    re.compile(r"(?P<words>.+?)(?:\s+/\s*|,\s*|\s+in\s+)(?P<unit>\S.*)"),
    re.compile(r"(?P<words>.+)_(?P<unit>[A-Za-z%]{2,}|K|V)"),
)


class GuessError(ValueError):
    """A column that does not say what it holds, or numbers that fixed decimals cannot hold."""


def unit(text: str) -> dict[str, int] | None:
    """The powers of the units that a text is made of (`W/m/K` and `W m-1 K-1`: W 1, m -1, K -1); None where it is no unit."""
    powers: Counter[str] = Counter()
    sign = 1
    text = text.replace("W/mK", "W/m/K")  # often written so, and never meant as a millikelvin
    for place, piece in enumerate(re.split(r"\s*([/\u00b7*.]|\s)\s*", " ".join(text.split()).strip("()"))):
        if place % 2:
            # W/m/K and W/(m K): what follows a slash stays below the line.
            sign = -1 if piece == "/" or sign < 0 else 1
            continue
        found = _TERM.fullmatch(piece.strip("()"))
        if found is None:
            return None
        power = int((found[2] or "").replace("\u2212", "-") or (found[3] or "").translate(_RAISED) or 1)
        name = found[1].replace("\u03bc", "u").replace("\u00b5", "u")
        powers[_SAME.get(name, name)] += sign * power
    return dict(powers)


def heading(column: str) -> tuple[str, str | None]:
    """A column's name as words and a unit: `Band_Gap (eV)` is `band gap` in `eV`; None where it names no known unit."""
    text = column.strip()
    named = None
    for pattern in _HEADERS:
        found = pattern.fullmatch(text)
        if found is None or unit(found["unit"]) is None:
            continue
        # Behind an underscore stand words as well as units: `gap_min`, `energy_per_atom`.
        if pattern is not _HEADERS[-1] or not (
            found["unit"] in _WORDS or re.search(r"(?:^|[_\s])per$", found["words"], re.IGNORECASE)
        ):
            text, named = found["words"], found["unit"].strip()
            break
    words = text.replace("_", " ").split()
    # Short names such as PCE and Tc, and those of people, stay as they are.
    lowered = (
        word.lower() if word.istitle() and word not in _NAMES and (len(word) > 3 or word == "Gap") else word
        for word in words
    )
    return " ".join(lowered), named


def representation(given: Sequence[object], column: str = "") -> Kind:
    """The parser that reads most of the first 200 materials; a name is what neither other reads at least half of.

    Texts such as CO, CCO or C1CC1 are formulas and SMILES alike. Where both parsers read as many, the column's name
    decides (smiles, formula, composition), else whether an element stands in a text twice: no SMILES with hydrogen
    written out can be a formula too, and formulas without hydrogen hardly ever repeat an element.

    Args:
        given: The materials: texts or objects.
        column: Name of the column, where it has one.

    Raises:
        GuessError: Every text may be either.
    """
    tried = given[:_TRIED]
    read = {kind: [one for one in tried if _reads(one, kind)] for kind in ("composition", "molecule")}
    formulas, molecules = len(read["composition"]), len(read["molecule"])
    if 2 * max(formulas, molecules) < len(tried):
        return "name"
    if formulas != molecules:
        return "composition" if formulas > molecules else "molecule"
    for word, kind in _CALLED.items():
        if word in column.casefold():
            return kind
    if any(_repeats(one) for one in read["molecule"]):
        return "molecule"
    shown = ", ".join(str(one) for one in tried[:3])
    raise GuessError(f"{shown} … may be formulas or SMILES; say which: representation composition or molecule")


def is_readable(given: Sequence[str]) -> bool:
    """Whether at least half of the first 200 different texts can be read as formulas, or as SMILES."""
    tried = list(dict.fromkeys(given))[:_TRIED]
    return any(2 * sum(_reads(one, kind) for one in tried) >= len(tried) for kind in ("composition", "molecule"))


def _reads(given: object, kind: Kind) -> bool:
    try:
        parse(given, kind)
    except MaterialError:
        return False
    return True


def _repeats(given: object) -> bool:
    """Whether an element stands in a text twice."""
    return isinstance(given, str) and max(Counter(_SYMBOL.findall(given)).values(), default=0) > 1


def grid(
    values: Sequence[Decimal], *, decimals: int | None = None, bounds: tuple[Decimal, Decimal] | None = None
) -> dict[str, Any]:
    """Decimals and bounds of the answers that numbers call for.

    Decimals: as many as are written, but no more than four, or than three significant digits of the middle half's width
    need. Bounds: room of the whole width to either side, but none below 0 where no value is.

    Args:
        values: The numbers, in the task's unit.
        decimals: Digits after the point; None to find out.
        bounds: Least and greatest answer; None to find out.

    Returns:
        `bounds` and `decimals`, as a task has them.

    Raises:
        GuessError: Bounds that need more decimals than are given, or numbers that fixed decimals cannot hold.
    """
    least, greatest = min(values), max(values)
    width = (greatest - least) or max(abs(greatest), Decimal(1))
    low, high = bounds or ((Decimal(0) if least >= 0 else least - width), greatest + width)
    written = max(map(_written, values))
    needed = max(map(_written, bounds)) if bounds else 0
    if decimals is None:
        lower, _, upper = (
            statistics.quantiles(map(float, values), n=4, method="inclusive") if len(values) > 1 else (0, 0, 0)
        )
        scale = upper - lower or float(width)
        telling = max(0, 2 - math.floor(math.log10(scale)))  # decimals that show three significant digits of the scale
        wanted = max(min(written, telling, _MOST_DECIMALS), needed)
        decimals = max(min(written, max(4, telling), _MOST_DECIMALS), needed)
        while decimals > 0 and (high - low + 2) * 10**decimals > MAX_GRID:
            decimals -= 1
        if decimals < wanted or (high - low) * 10**decimals > MAX_GRID:
            raise GuessError(
                f"the numbers run from {least} to {greatest} while their middle half is {scale:.3g} wide; answers have "
                "fixed decimals, which cannot hold both: give the log10, or another unit"
            )
    elif needed > decimals:
        raise GuessError(f"the bounds [{low}, {high}] have {needed} decimals, and answers have {decimals}")
    if bounds is None:
        step = Decimal(1).scaleb(-decimals)
        low = (low / step).to_integral_value(ROUND_FLOOR) * step
        high = (high / step).to_integral_value(ROUND_CEILING) * step
    return {"bounds": [float(low), float(high)], "decimals": decimals}


def _written(value: Decimal) -> int:
    """Digits after the point that a number needs."""
    return max(0, -int(value.normalize().as_tuple().exponent))
