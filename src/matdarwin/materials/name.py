"""Names: free text to a validated `Material`, folded so that spellings which look alike are one material."""

from __future__ import annotations

import unicodedata

from matdarwin.materials.material import Material, MaterialError
from matdarwin.materials.refusals import MISSING, fault

MAX_LENGTH = 300
"""Most characters of a name."""

# Dashes, single and double quotes are folded before NFKC, which would make a space and an accent of some of them. The
# soft hyphen only says where a line may break, and goes.
_FOLDS = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d", "-")
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u0060\u02b9\u02bc\uff07", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\uff02\u00ab\u00bb", '"')
    | {"\u00ad": ""}
)


def parse_name(text: str) -> Material:
    """Read a name, such as "HKUST-1" or "methylammonium lead iodide".

    The wording is the text in Unicode's form NFKC, with plain dashes and quotes and single spaces. The key is the same
    without regard to case.

    Args:
        text: The name; at most 300 characters, with a letter in it.

    Returns:
        The material, of kind "name"; it has no elements.

    Raises:
        MaterialError: The text is empty, too long, without a letter, or holds an invisible character.
    """
    if len(text) > MAX_LENGTH:
        says = f"is past the limit: a name has at most {MAX_LENGTH} characters, and this text has {len(text):,}"
        raise fault(text, text[MAX_LENGTH : MAX_LENGTH + 40], MAX_LENGTH, says)
    word = text.strip()
    if not word:
        raise MaterialError("the name is empty", given=text, position=0)
    start = text.index(word)
    if word in MISSING:
        raise fault(text, word, start, "stands for a missing value, not for a material")
    for at, char in enumerate(word, start):
        if unicodedata.category(char)[0] == "C" and char not in "\t\r\n\v\f\u00ad":
            raise fault(text, char, at, f"is an invisible character (U+{ord(char):04X}); delete it")
    if not any(char.isalpha() for char in word):
        raise fault(text, word, start, "has no letter, so it is no name; write words, or a code with letters")
    wording = _fold(text)
    key = f"name:{_fold(wording.casefold())}"
    return Material(
        kind="name", given=text, parts=(wording,), source_parts=(wording,), key=key, keys=(key,), elements=()
    )


def _fold(text: str) -> str:
    """Fold dashes, quotes, compatible characters and white space."""
    return " ".join(unicodedata.normalize("NFKC", text.translate(_FOLDS)).translate(_FOLDS).split())
