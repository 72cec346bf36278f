"""Formulas cut into tokens, each with its amount; what could be read in two ways is refused where it stands."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.materials.refusals import (
    DIGITS,
    LOWER,
    PAIRS,
    SIGNS,
    SPACE,
    TRIM,
    UPPER,
    bare_numeral,
    fault,
    quote,
    strange,
    wrong_symbol,
)

MAX_DIGITS = 30
"""Most digits of one amount, written out."""
MAX_AMOUNT = Decimal(1_000_000_000)
"""Greatest amount of one element."""

_DOTS = frozenset("·•⋅∙*")
_SOLVATES = ("H2O", "H₂O", "(H2O)", "(H₂O)", "NH3", "NH₃", "HCl")
_ROMAN = frozenset({"I", "II", "III", "IV", "V", "VI", "VII", "VIII"})
_OXIDATION_STATE = "an oxidation state; leave it out (for iodine or vanadium write I2 or V2"
_ANIONS = frozenset({"H", "N", "O", "F", "S", "Cl", "Se", "Br", "Te", "I"})
"""What the first part of a salt or hydrate ends in; alloys, where decimals are common, hardly ever end a part so."""
_MOST_PARTS = 24
"""Greatest multiplier of the second part of a salt or hydrate."""
_REACH = 24
"""Tokens that are looked at to either side of a decimal; no part of a salt or hydrate has as many."""


@dataclass(slots=True)
class Token:
    """One piece of the text.

    Attributes:
        kind: What it is.
        text: The symbol or sign.
        position: Index of its first character.
        amount: Its amount as written, with plain digits; None where there is none.
        place: Index of the amount's first character.
    """

    kind: Literal["element", "open", "close", "dot"]
    text: str
    position: int
    amount: str | None = None
    place: int = -1


def scan(text: str) -> list[Token]:
    """Cut a formula into tokens, each with its amount.

    Args:
        text: The formula, with at least one character that is no space.

    Returns:
        The tokens; brackets match, and no group is empty.

    Raises:
        MaterialError: A part of the text is no piece of a formula, or may be read in two ways.
    """
    tokens: list[Token] = []
    opened: list[Token] = []
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
            tokens.append(Token("element", text[at:end], at))
            at = end
        elif char in DIGITS:
            at = _attach_amount(text, at, tokens)
        elif char in PAIRS:
            tokens.append(Token("open", char, at))
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
            if _is_oxidation_state(tokens, start):
                state = text[start.position : at + 1]
                says = f"is {_OXIDATION_STATE} without a bracket)"
                raise fault(text, state, start.position, says)
            tokens.append(Token("close", char, at))
            at += 1
        elif char in _DOTS:
            if opened:
                raise fault(text, char, at, "joins two formulas inside a bracket; give each part its own bracket")
            if not tokens or tokens[-1].kind == "dot":
                raise fault(text, char, at, "joins two formulas, and none stands before it")
            tokens.append(Token("dot", char, at))
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
    numeral = bare_numeral(text[:size])
    if numeral is not None:
        raise fault(text, numeral[0], numeral.start(), f"looks like {_OXIDATION_STATE})")
    _refuse_joined(text, tokens)
    return tokens


def _is_oxidation_state(tokens: Sequence[Token], start: Token) -> bool:
    """Say whether the bracket that `start` opens, and that now closes, is a Roman numeral behind a symbol or bracket."""
    numeral = ""
    for number in range(len(tokens) - 1, -1, -1):
        token = tokens[number]
        if token is start:
            return numeral in _ROMAN and number > 0 and tokens[number - 1].kind in ("element", "close")
        if token.kind != "element" or token.amount is not None or len(numeral) > 4:
            return False
        numeral = token.text + numeral
    return False


def _refuse_joined(text: str, tokens: Sequence[Token]) -> None:
    """Refuse a number that is a decimal or, as in CuSO4.5H2O and CaCl2.2MgCl2, an amount and the dot before a second formula.

    Before a solvent any number is. Elsewhere both sides must be compounds that the dot could join, and one number
    that can only be a decimal shows that the text is written with decimals (Li1.2Mn0.8O2).
    """
    points = [n for n, token in enumerate(tokens) if token.kind != "dot" and "." in (token.amount or "")]
    glued = [n for n in points if _is_glued(tokens, n)]
    doubtful = [n for n in glued if _is_before_solvent(text, tokens, n)][:1]
    if not doubtful and len(glued) == len(points) and all(_may_join_compounds(tokens, n) for n in points):
        doubtful = points[:1]
    for number in doubtful:
        token = tokens[number]
        raw = text[token.place : token.place + len(token.amount or "")]
        left, _, right = raw.partition(".")
        says = f"is a decimal, or an amount and a dot; write `{left}·{right}` for the latter, else a space after it"
        raise fault(text, raw, token.place, says)


def _is_glued(tokens: Sequence[Token], number: int) -> bool:
    """Say whether a symbol or bracket follows an amount without a gap."""
    token = tokens[number]
    if number + 1 == len(tokens) or tokens[number + 1].kind not in ("element", "open"):
        return False
    return tokens[number + 1].position == token.place + len(token.amount or "")


def _is_before_solvent(text: str, tokens: Sequence[Token], number: int) -> bool:
    """Say whether one molecule of solvent, and nothing else, follows an amount within its bracket."""
    behind = _beside(tokens[number + 1 : number + 1 + _REACH], "open")
    end = number + 1 + len(behind)
    rest = text[behind[0].position : tokens[end].position if end < len(tokens) else len(text)]
    return not (tokens[number].amount or "").startswith("0.") and rest.strip(TRIM) in _SOLVATES


def _may_join_compounds(tokens: Sequence[Token], number: int) -> bool:
    """Say whether the point of an amount may be a dot between two compounds."""
    left, _, right = (tokens[number].amount or "").partition(".")
    # An amount of 1 is not written before a dot, and a multiplier has no leading zero.
    if int(left) < 2 or right.startswith("0") or int(right) > _MOST_PARTS:
        return False
    before = _beside(tokens[max(0, number + 1 - _REACH) : number + 1][::-1], "close")
    behind = _beside(tokens[number + 1 : number + 1 + _REACH], "open")
    first = [token.text for token in before if token.kind == "element"]
    second = {token.text for token in behind if token.kind == "element"}
    return bool(first) and first[0] in _ANIONS and len(set(first)) > 1 and len(second) > 1


def _beside(tokens: Sequence[Token], inward: str) -> list[Token]:
    """The first tokens that are of one formula: up to a dot or the bracket around them; `inward` brackets go deeper."""
    depth = 0
    for number, token in enumerate(tokens):
        if token.kind in ("open", "close"):
            depth += 1 if token.kind == inward else -1
        if token.kind == "dot" or depth < 0:
            return list(tokens[:number])
    return list(tokens)


def _attach_amount(text: str, at: int, tokens: list[Token]) -> int:
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
    owner.amount, owner.place = amount, at
    return end


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
