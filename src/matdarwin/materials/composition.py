"""Chemical formulas: text to a validated `Material`, in one pass, with exact decimals and no guessing.

What is read: element symbols, plain decimal amounts (subscripts too), nested brackets, spaces between the pieces, and a
middle dot that adds a part with its own multiplier (CuSO4·5H2O). Everything else is refused where it stands.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

from matdarwin.materials import plain
from matdarwin.materials.elements import ELECTRONEGATIVITY, canonical_order
from matdarwin.materials.material import Material, MaterialError
from matdarwin.materials.refusals import (
    DIGITS,
    LOWER,
    MISSING,
    PAIRS,
    SIGNS,
    SPACE,
    TRIM,
    UPPER,
    fault,
    quote,
    strange,
    wrong_symbol,
)

MAX_LENGTH = 10_000
"""Most characters of a formula."""
MAX_DIGITS = 30
"""Most digits of one amount, written out."""
MAX_AMOUNT = Decimal(1_000_000_000)
"""Greatest amount of one element."""

_ALSO_FORMULAS = {"NaN": ("sodium and nitrogen", "Na N"), "INF": ("iodine, nitrogen and fluorine", "I N F")}
"""Missing values that could be formulas as well."""
_DOTS = frozenset("·•⋅∙*")
_SOLVATES = ("H2O", "H₂O", "(H2O)", "(H₂O)", "NH3", "NH₃", "HCl")
_PIECE = re.compile(r"([A-Z][a-z]?)([0-9.eE+-]*)")
_EXACT = Context(prec=200)  # Factors have at most MAX_DIGITS digits, so no product or sum is ever rounded here.
_FOUR = Decimal("0.0001")


@dataclass(slots=True)
class _Token:
    """One piece of the text; `amount` is as written, with plain digits, and None where there is none."""

    kind: Literal["element", "open", "close", "dot"]
    text: str
    position: int
    amount: str | None = None


def parse_composition(text: str) -> Material:
    """Read a chemical formula.

    Amounts are exact decimals that keep their digits: "0.620" stays "0.620", and no exponent is ever written. Whole
    numbers lose a trailing ".0", and 1 is not written. Repeated elements are summed. Where all amounts are whole they
    are divided by their greatest common divisor (Ga2N2 is Ga N). The key holds atomic fractions, rounded half-even to
    4 decimals.

    Args:
        text: The formula, such as "Ag2GeS3", "Ga 0.5 In 0.5 As" or "CuSO4·5H2O"; at most 10,000 characters.

    Returns:
        The material, of kind "composition".

    Raises:
        MaterialError: The text is no formula; the message has the part at fault, its place and what to write instead.
    """
    whole = plain.amounts(text)
    if whole is not None:
        return plain.material(text, whole)
    if len(text) > MAX_LENGTH:
        says = f"is past the limit: a formula has at most {MAX_LENGTH:,} characters, and this text has {len(text):,}"
        raise fault(text, text[MAX_LENGTH : MAX_LENGTH + 40], MAX_LENGTH, says)
    word = text.strip(TRIM)
    if not word:
        raise MaterialError("the formula is empty; write one such as Fe2O3", given=text, position=0)
    if word in MISSING:
        compound = _ALSO_FORMULAS.get(word)
        hint = f"; for a compound of {compound[0]} write `{compound[1]}`" if compound else ""
        raise fault(text, word, text.index(word), f"stands for a missing value, not for a formula{hint}")
    return _material(text, _sum(text, _scan(text)))


def count_atoms(text: str) -> Decimal:
    """Number of atoms in a formula as it is written: 4 in Hg2Cl2, whose composition is that of HgCl.

    Raises:
        MaterialError: The text is no formula.
    """
    parse_composition(text)  # refuses what is none
    return sum((amount for amount, _ in _sum(text, _scan(text)).values()), Decimal(0))


def amounts_of(material: Material) -> dict[str, float]:
    """Amount of each element of a composition, as its canonical wording has it.

    Raises:
        ValueError: A piece of it is no element with its amount.
    """
    amounts: dict[str, float] = {}
    for part in material.parts:
        match = _PIECE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} in {material.text!r} is no element with its amount")
        amounts[match[1]] = amounts.get(match[1], 0.0) + float(match[2] or 1)
    return amounts


def from_amounts(given: str, amounts: Sequence[tuple[str, Decimal]]) -> Material:
    """Make a composition of (symbol, amount) pairs, as they come from another library's object.

    Args:
        given: How the object is called in the material and in errors.
        amounts: Symbols with positive, finite amounts of at most 30 digits.

    Returns:
        The same material that the formula with these amounts gives.

    Raises:
        MaterialError: A symbol is no element, or an amount is out of range.
    """
    if not amounts:
        raise MaterialError("the composition is empty; it needs an element", given=given)
    written: dict[str, tuple[Decimal, str]] = {}
    for symbol, amount in amounts:
        if symbol not in ELECTRONEGATIVITY:
            raise MaterialError(f"{quote(symbol)} is not an element", given=given, token=symbol)
        if not amount.is_finite() or not 0 < amount <= MAX_AMOUNT or _length(amount) > MAX_DIGITS:
            limits = f"above 0, at most {MAX_AMOUNT:,} and of at most {MAX_DIGITS} digits"
            says = f"the amount of {quote(symbol)} is {amount}; it must be {limits}"
            raise MaterialError(says, given=given, token=symbol)
        total = amount if symbol not in written else _EXACT.add(written[symbol][0], amount)
        written[symbol] = (total, _plain(total))
    return _material(given, written)


def _scan(text: str) -> list[_Token]:
    """Cut the text into tokens, each with its amount; brackets match and no group is empty afterwards."""
    tokens: list[_Token] = []
    opened: list[_Token] = []
    at = len(text) - len(text.lstrip(TRIM))
    size = len(text.rstrip(TRIM))
    while at < size:
        char = text[at]
        if char in UPPER:
            end = at + 1
            while end < size and text[end] in LOWER:
                end += 1
            if text[at:end] not in ELECTRONEGATIVITY:
                raise wrong_symbol(text, at, end)
            tokens.append(_Token("element", text[at:end], at))
            at = end
        elif char in DIGITS:
            at = _attach_amount(text, at, tokens)
        elif char in PAIRS:
            tokens.append(_Token("open", char, at))
            opened.append(tokens[-1])
            at += 1
        elif char in PAIRS.values():
            if not opened:
                raise fault(text, char, at, "closes a bracket that was never opened; delete it or add the opening one")
            start = opened.pop()
            if PAIRS[start.text] != char:
                says = (
                    f"does not close {quote(start.text)} of position {start.position}; write {quote(PAIRS[start.text])}"
                )
                raise fault(text, char, at, says)
            if tokens[-1].kind == "open":
                empty = text[start.position : at + 1]
                raise fault(text, empty, start.position, "is a bracket with nothing in it; delete it")
            tokens.append(_Token("close", char, at))
            at += 1
        elif char in _DOTS:
            if opened:
                raise fault(text, char, at, "joins two formulas inside a bracket; give each part its own bracket")
            if not tokens or tokens[-1].kind == "dot":
                raise fault(text, char, at, "joins two formulas, and none stands before it")
            tokens.append(_Token("dot", char, at))
            at += 1
        elif char in SPACE:
            at += 1
        else:
            raise strange(text, at)
    if opened:
        start = opened[-1]
        says = f"opens a bracket that is never closed; add {quote(PAIRS[start.text])}"
        raise fault(text, start.text, start.position, says)
    last = tokens[-1]
    if last.kind == "dot":
        raise fault(text, last.text, last.position, "joins two formulas, and none stands after it")
    return tokens


def _attach_amount(text: str, at: int, tokens: list[_Token]) -> int:
    """Read the amount that begins at `at`, give it to the token before it, and return where it ends."""
    end, size = at, len(text)
    while end < size and (text[end] in DIGITS or text[end] == "."):
        end += 1
    raw = text[at:end]
    amount = _amount(text, raw, at)
    if not tokens or tokens[-1].kind == "open":
        says = "stands before what it counts; write no leading coefficient, and amounts after their symbol or bracket"
        raise fault(text, raw, at, says)
    owner = tokens[-1]
    if owner.amount is not None:
        raise fault(text, raw, at, "is a second amount for one part; keep one, or join another formula with `·`")
    glued = end < size and (text[end] in UPPER or text[end] in PAIRS)
    if glued and owner.kind != "dot" and text[at - 1].isspace():
        says = (
            f"may count {quote(owner.text)} or what follows; close the gap before it, or write `·` for another formula"
        )
        raise fault(text, raw, at, says)
    if glued and "." in raw and not amount.startswith("0.") and _solvate_follows(text, end):
        left, _, right = raw.partition(".")
        says = f"is a decimal, or an amount and a dot; write `{left}·{right}` for the latter, else a space after it"
        raise fault(text, raw, at, says)
    owner.amount = amount
    return end


def _solvate_follows(text: str, at: int) -> bool:
    """Say whether the rest of the text is one molecule of solvent, as in CuSO4.5H2O."""
    return len(text) - at < 50 and text[at:].strip() in _SOLVATES


def _amount(text: str, raw: str, at: int) -> str:
    """Check a run of digits and points that begins at `at`, and give it with plain digits."""
    end = at + len(raw)
    tail = text[end : end + 3]
    if tail[:1] in ("e", "E") and (tail[1:2] in DIGITS or (tail[1:2] in SIGNS and tail[2:3] in DIGITS)):
        stop = end + 2
        while stop < len(text) and text[stop] in DIGITS:
            stop += 1
        raise fault(text, text[at:stop], at, "is scientific notation; write a plain decimal such as 0.00001")
    if tail[:1] == "," and tail[1:2] in DIGITS:
        raise fault(text, text[at : end + 2], at, "has a decimal comma; write a decimal point")
    if raw.count(".") > 1:
        raise fault(text, raw, at, "has more than one point; write one decimal point, and `·` between formulas")
    if raw.endswith("."):
        raise fault(text, raw, at, "ends in a point; delete it, or write `·` between formulas")
    marks = [char for char in raw if char != "."]
    if len(marks) > MAX_DIGITS:
        raise fault(text, raw, at, f"has {len(marks):,} digits; an amount has at most {MAX_DIGITS}")
    if len({char in string.digits for char in marks}) > 1:
        raise fault(text, raw, at, "mixes ordinary and subscript digits; use one of them for an amount")
    amount = "".join(DIGITS.get(char, char) for char in raw)
    value = Decimal(amount)
    if value == 0:
        raise fault(text, raw, at, "is an amount of zero; leave that part out or give its amount")
    if len(amount) > 1 and amount[0] == "0" and amount[1] != ".":
        bare = amount.lstrip("0")
        decimal = "" if "." in bare else f"0.{bare} or "
        raise fault(text, raw, at, f"begins with a zero; write {decimal}{bare}, or the letter O where oxygen is meant")
    if value > MAX_AMOUNT:
        raise fault(text, raw, at, f"is too large; an amount is at most {MAX_AMOUNT:,}")
    return amount


def _sum(text: str, tokens: Sequence[_Token]) -> dict[str, tuple[Decimal, str]]:
    """Multiply the brackets out and add up: symbol -> (amount, its wording), in order of first appearance."""
    factors: list[Decimal] = []
    found: list[tuple[_Token, Decimal, str]] = []
    factor = Decimal(1)
    # From the right a bracket's multiplier is known before its content, so one pass does, however deep the brackets.
    # A dot's multiplier stands on its left, so it is looked up beforehand.
    scales: list[Decimal] = []
    scale = Decimal(1)
    for token in tokens:
        if token.kind == "dot":
            scale = Decimal(token.amount or "1")
        scales.append(scale)
    for token, scale in zip(reversed(tokens), reversed(scales), strict=True):
        if token.kind == "open":
            factor = factors.pop()
        elif token.kind != "dot":
            own = factor if factors else scale
            total = _times(text, token, own)
            if token.kind == "close":
                factors.append(factor)
                factor = total
            else:
                found.append((token, total, token.amount if own == 1 and token.amount else _plain(total)))
    summed: dict[str, tuple[Decimal, str]] = {}
    for token, amount, wording in reversed(found):
        if token.text in summed:
            amount = _EXACT.add(summed[token.text][0], amount)
            if amount > MAX_AMOUNT:
                raise fault(text, token.text, token.position, f"adds up to over {MAX_AMOUNT:,}; write less of it")
            wording = _plain(amount)
        summed[token.text] = (amount, wording)
    return summed


def _times(text: str, token: _Token, factor: Decimal) -> Decimal:
    """Multiply a token's amount by the factor of what surrounds it, exactly."""
    if token.amount is None:
        return factor
    product = _EXACT.multiply(Decimal(token.amount), factor)
    if product > MAX_AMOUNT or (factor != 1 and _length(product) > MAX_DIGITS):
        says = (
            f"with its multipliers is above {MAX_AMOUNT:,} or has more than {MAX_DIGITS} digits; write smaller amounts"
        )
        raise fault(text, token.text + token.amount, token.position, says)
    return product


def _length(value: Decimal) -> int:
    """Count the digits of a number when it is written without exponent."""
    _, digits, exponent = value.normalize(_EXACT).as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is not finite")
    return max(len(digits), -exponent + 1) + max(exponent, 0)


def _plain(value: Decimal) -> str:
    """Write a number without exponent and without trailing zeros."""
    return format(value.normalize(_EXACT), "f")


def _material(given: str, amounts: dict[str, tuple[Decimal, str]]) -> Material:
    """Word the amounts, and make the key from the atomic fractions."""
    values = {symbol: value for symbol, (value, _) in amounts.items()}
    wording = {symbol: _plain(value) if value == int(value) else text for symbol, (value, text) in amounts.items()}
    if all(value == int(value) for value in values.values()):
        divisor = math.gcd(*(int(value) for value in values.values()))
        wording = {symbol: str(int(value) // divisor) for symbol, value in values.items()}
    pieces = {symbol: symbol if text == "1" else symbol + text for symbol, text in wording.items()}
    total = Decimal(0)
    for value in values.values():
        total = _EXACT.add(total, value)
    fractions = {
        symbol: _EXACT.divide(value, total).quantize(_FOUR, ROUND_HALF_EVEN) for symbol, value in values.items()
    }
    key = "composition:" + " ".join(f"{symbol}{fractions[symbol]}" for symbol in sorted(fractions))
    order = canonical_order(pieces)
    return Material(
        kind="composition",
        given=given,
        parts=tuple(pieces[symbol] for symbol in order),
        source_parts=tuple(pieces.values()),
        key=key,
        keys=(key,),
        elements=tuple(order),
    )
