"""Refusals: errors that name the part of a text at fault, its place, and what to write instead."""

from __future__ import annotations

import re
import string
import unicodedata

from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.materials.material import MaterialError

DIGITS = {digit: digit for digit in string.digits} | {chr(0x2080 + n): str(n) for n in range(10)}
"""Digits of an amount, subscripts too -> plain digits."""
PAIRS = {"(": ")", "[": "]", "{": "}"}
_MINUS = "-\u2212"
_DASHES = _MINUS + "\u2010\u2011\u2013\u2014"
SIGNS = frozenset(_DASHES + "+⁺⁻±^")
_SUPERSCRIPTS = frozenset("⁰¹²³⁴⁵⁶⁷⁸⁹")
_VARIABLES = frozenset("xyznmδ")
UPPER = frozenset(string.ascii_uppercase)
LOWER = frozenset(string.ascii_lowercase)
_MISSING_WORDS = ("nan", "none", "null", "n/a", "<na>", "inf", "infinity", "-", ".", "?")
MISSING = frozenset({spelt for word in _MISSING_WORDS for spelt in (word, word.upper(), word.capitalize())} | {"NaN"})
"""What tables and programs write where there is no value, in their usual spellings. Other mixtures of case are none: InF
is a compound of indium. NaN and INF could be formulas too, but hardly ever are."""
SPACE = " \t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
TRIM = SPACE + "\r\n\v\f"
_NUMERAL = re.compile(rf"(?<=[A-Za-z0-9)\]}}{SPACE}])V?II+(?![a-z])")


def bare_numeral(text: str) -> re.Match[str] | None:
    """Roman numeral behind a symbol (`FeIII2O3`); one I or V may well be an element, but no formula has iodine twice running."""
    return _NUMERAL.search(text) if "II" in text else None


def quote(token: str) -> str:
    """Put a token into backticks, cut to 40 characters, with invisible characters spelled out."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in token[:40])
    return f"`{shown}`"


def fault(given: str, token: str, position: int, says: str) -> MaterialError:
    """Build the error "`token` at position n says"; `position` counts characters of `given` from 0."""
    message = f"{quote(token)} at position {position} {says}"
    return MaterialError(message, given=given, token=token, position=position)


def wrong_symbol(text: str, at: int, end: int) -> MaterialError:
    """Say why `text[at:end]`, a capital and all lower-case letters after it, is no element."""
    run = text[at:end]
    before = text[at - 1 : at] if at else ""
    after = text[end : end + 1]
    if run in ("D", "T"):
        name = "deuterium" if run == "D" else "tritium"
        shouted = run + after.lower()
        hint = f", or {shouted} if that is meant" if after in UPPER and shouted in ELECTRONEGATIVITY else ""
        return fault(text, run, at, f"is {name}, an isotope, and isotopes are not told apart here; write H{hint}")
    for known in (2, 1):
        rest = run[known:]
        if run[:known] in ELECTRONEGATIVITY and len(rest) == 1 and (rest in "xyz" or (rest in "nm" and len(run) > 2)):
            return fault(text, rest, at + known, "is a variable; write its number")
    if len(run) == 1 and after in UPPER and run + after.lower() in ELECTRONEGATIVITY:
        near = [run + after.lower()]
    elif len(run) == 1 and before in UPPER and before + run.lower() in ELECTRONEGATIVITY:
        near = [before + run.lower()]
    elif len(run) <= 3:
        near = sorted(symbol for symbol in ELECTRONEGATIVITY if symbol[0] == run[0])
    else:
        near = []
    hint = ""
    if 1 <= len(near) <= 3:
        hint = f"; did you mean {' or '.join(near)}?"
    elif len(run) > 3:
        hint = "; write symbols, as in Fe2O3"
    return fault(text, run, at, f"is not an element{hint}")


def strange(text: str, at: int) -> MaterialError:
    """Say what is wrong with a character that begins no token."""
    char = text[at]
    if char in LOWER:
        return _lower_case(text, at)
    if char in SIGNS:
        return _sign(text, at)
    if char in _SUPERSCRIPTS:
        return fault(text, char, at, "is a superscript, as of a charge; write a neutral formula with plain digits")
    if char == "%":
        return fault(text, char, at, "is a percent sign; write atomic amounts, as in Fe0.95C0.05")
    if char == ".":
        end = at + 1
        while end < len(text) and text[end] in DIGITS:
            end += 1
        decimal = "0" + (text[at:end] if end > at + 1 else ".5")
        says = f"has no digit before its point; write `{decimal}` for a decimal, or `·` between formulas"
        return fault(text, text[at:end], at, says)
    if char == ",":
        return fault(text, char, at, "is a comma; separate the parts by spaces")
    if char == "/":
        return fault(text, char, at, "is a slash; write a fraction as a decimal, and elements side by side")
    if char in "_$\\":
        return fault(text, char, at, "is typesetting; write the formula plainly, as in Fe2O3")
    if char == "δ":
        return fault(text, char, at, "is a variable; write its number")
    category = unicodedata.category(char)
    if category[0] == "C" or category in ("Zl", "Zp"):
        return fault(text, char, at, f"is an invisible character (U+{ord(char):04X}); delete it")
    name = unicodedata.name(char, f"U+{ord(char):04X}").lower()
    if category[0] == "N":
        return fault(text, char, at, f"is not a plain digit ({name}); write amounts with 0 to 9")
    if category[0] == "L":
        return fault(text, char, at, f"is not a plain letter ({name}); write symbols with A to Z")
    return fault(text, char, at, f"has no place in a formula ({name}); delete it")


def _sign(text: str, at: int) -> MaterialError:
    """Say what is wrong with a plus, minus or caret: a variable, a charge, a negative amount, or a joint."""
    char = text[at]
    after = text[at + 1 : at + 30].lstrip(SPACE)[:1]
    begin = at
    while begin and at - begin < 30 and (text[begin - 1] in DIGITS or text[begin - 1] == "."):
        begin -= 1
    end = at + 1
    while end < len(text) and end - at < 30 and (text[end] in DIGITS or text[end] in _MINUS + ".+"):
        end += 1
    if char == "±":
        return fault(text, char, at, "gives an uncertainty; write one amount")
    if after and after in _VARIABLES:
        return fault(text, text[begin : text.index(after, at + 1) + 1], begin, "holds a variable; write its number")
    if char in _MINUS and after in DIGITS and begin == at:
        says = "is a negative amount or a charge; amounts are above zero and formulas neutral"
        return fault(text, text[at:end], at, says)
    if char in _DASHES and (after in UPPER or after in DIGITS or after in PAIRS):
        return fault(text, char, at, "joins parts or gives a range; write symbols side by side, with one amount each")
    if char == "+" and after in UPPER:
        return fault(text, char, at, "is a charge or a sum; write one neutral formula, with `·` between added parts")
    return fault(text, text[begin:end], begin, "is a charge; write the neutral formula, without it")


def _lower_case(text: str, at: int) -> MaterialError:
    """Say what is wrong with letters that begin in lower case: a variable, a unit, or symbols without capitals."""
    end = at
    while end < len(text) and text[end] in LOWER:
        end += 1
    run = text[at:end]
    if run in ("wt", "at", "mol", "vol"):
        return fault(text, run, at, "is a unit of percentages; write atomic amounts, as in Fe0.95C0.05")
    if run in ("nan", "inf", "infinity"):
        return fault(text, run, at, "is not a number; write a finite amount")
    if run in _VARIABLES:
        return fault(text, run, at, "is a variable; write its number")
    readings = _readings(run) if len(run) <= 20 else []
    hint = f"; did you mean {readings[0]}?" if len(readings) == 1 else ""
    return fault(text, run, at, f"begins in lower case, and symbols begin with a capital{hint}")


def _readings(run: str) -> list[str]:
    """List the ways, two at most, to cut lower-case letters into symbols."""
    found: list[list[str]] = [[""]] + [[] for _ in run]
    for end in range(1, len(run) + 1):
        for width in (1, 2):
            symbol = run[max(0, end - width) : end].capitalize()
            if width <= end and symbol in ELECTRONEGATIVITY:
                found[end] += [head + symbol for head in found[end - width]]
        found[end] = found[end][:2]
    return found[-1]
