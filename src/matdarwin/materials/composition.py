"""Chemical formulas: text to a validated `Material`, in one pass, with exact decimals and no guessing.

What is read: element symbols, plain decimal amounts (subscripts too), nested brackets, spaces between the pieces, and a
middle dot that adds a part with its own multiplier (CuSO4·5H2O). Everything else is refused where it stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal

from matdarwin.materials import plain
from matdarwin.materials.elements import ELECTRONEGATIVITY, canonical_order
from matdarwin.materials.material import Material, MaterialError
from matdarwin.materials.refusals import MISSING, TRIM, fault, quote
from matdarwin.materials.scanning import MAX_AMOUNT, MAX_DIGITS, Token, scan

MAX_LENGTH = 10_000
"""Most characters of a formula."""

_ALSO_FORMULAS = {"NaN": ("sodium and nitrogen", "Na N"), "INF": ("iodine, nitrogen and fluorine", "I N F")}
"""Missing values that could be formulas as well."""
_PIECE = re.compile(r"([A-Z][a-z]?)([0-9.eE+-]*)")
_EXACT = Context(prec=200)  # Factors have at most MAX_DIGITS digits, so no product or sum is ever rounded here.
_FOUR = Decimal("0.0001")


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
    return _material(text, _sum(text, scan(text)))


def count_atoms(text: str) -> Decimal:
    """Number of atoms in a formula as it is written: 4 in Hg2Cl2, whose composition is that of HgCl.

    Raises:
        MaterialError: The text is no formula.
    """
    parse_composition(text)  # refuses what is none
    return sum((amount for amount, _ in _sum(text, scan(text)).values()), Decimal(0))


def amounts_of(material: Material) -> dict[str, float]:
    """Amount of each element of a composition, as its canonical wording has it.

    Raises:
        ValueError: A piece of it is no element with its amount.
    """
    amounts: dict[str, float] = {}
    for part in material.parts:
        try:
            symbol, amount = split_part(part)
        except ValueError as error:
            raise ValueError(f"{part!r} in {material.text!r} is no element with its amount") from error
        amounts[symbol] = amounts.get(symbol, 0.0) + float(amount)
    return amounts


def split_part(part: str) -> tuple[str, Decimal]:
    """Symbol and amount of one piece of a composition's wording: Fe and 0.62 of "Fe0.62", Ge and 1 of "Ge".

    Raises:
        ValueError: The piece is no element with its amount.
    """
    match = _PIECE.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is no element with its amount")
    return match[1], Decimal(match[2] or 1)


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


def _sum(text: str, tokens: Sequence[Token]) -> dict[str, tuple[Decimal, str]]:
    """Multiply the brackets out and add up: symbol -> (amount, its wording), in order of first appearance."""
    factors: list[Decimal] = []
    found: list[tuple[Token, Decimal, str]] = []
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


def _times(text: str, token: Token, factor: Decimal) -> Decimal:
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
