"""The materials that a text names: by formula, chemical name, name or SMILES."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from matdarwin.data.elements import periodic_table
from matdarwin.materials import MaterialError, parse_composition, parse_molecule
from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.materials.material import Material


def normal(text: str) -> str:
    """The words of a text in lower case, in Unicode's form NFKC, one blank between."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


_ENDING_WORDS = """
oxide O sulfide S sulphide S selenide Se telluride Te nitride N phosphide P arsenide As antimonide Sb carbide C silicide Si
boride B fluoride F chloride Cl bromide Br iodide I hydride H germanide Ge hydroxide OH titanate TiO zirconate ZrO
niobate NbO tantalate TaO tungstate WO molybdate MoO vanadate VO phosphate PO sulfate SO sulphate SO carbonate CO
nitrate NO silicate SiO aluminate AlO ferrite FeO chromite CrO manganite MnO manganate MnO cuprate CuO stannate SnO borate BO
"""
_TRIVIAL_WORDS = """
diamond C graphite C graphene C silica SiO quartz SiO alumina AlO sapphire AlO corundum AlO titania TiO rutile TiO
anatase TiO zirconia ZrO ceria CeO magnesia MgO hematite FeO haematite FeO magnetite FeO pyrite FeS galena PbS
sphalerite ZnS cinnabar HgS cuprite CuO yttria YO hafnia HfO thoria ThO carborundum SiC aluminium Al caesium Cs sulphur S
"""


def _table(words: str) -> dict[str, str]:
    split = words.split()
    return dict(zip(split[::2], split[1::2], strict=True))


_ENDINGS = _table(_ENDING_WORDS)
"""Ending of a name -> elements that go with the one named first: zinc oxide, barium titanate, calcium hydroxide."""
_TRIVIAL = _table(_TRIVIAL_WORDS)
"""Names of one word -> their elements."""
_SYMBOL = re.compile("[A-Z][a-z]?")
_FORMULA = re.compile(r"[A-Za-z0-9.()\[\]{}·]+")
_LOOKS = re.compile(r"(?:[A-Z][a-z]?|[\d.()\[\]{}·])+")
_SPACED = re.compile(
    r"(?<![A-Za-z0-9])[A-Z][a-z]?(?:\d+(?:\.\d+)?| \d+\.\d+)?(?: [A-Z][a-z]?(?:\d+(?:\.\d+)?| \d+\.\d+)?)+(?![a-z])"
)
_PIECE = re.compile(r"[A-Z][a-z]?(?: ?\d+(?:\.\d+)?)?")
_MOST_PIECES = 12
_MARKS = " \t\n.,:;!?\"'`->=\u2192"
_SHORTEST_NAME = 3
_ENGLISH = frozenset(("In", "As", "He", "No", "At", "Be", "Am"))


class Mentions:
    """Finds materials (those of a test set) in a text: by formula, chemical name, name or SMILES.

    Args:
        materials: What is looked for.
        names: Other names by key. Those of under three letters and digits, such as the P1 of a paper's list, are not
            looked for: they mean something else nearly everywhere.
    """

    def __init__(self, materials: Iterable[Material], names: Mapping[str, Sequence[str]] | None = None) -> None:
        self._formulas: dict[str, str] = {}
        self._elements: dict[frozenset[str], str] = {}
        self._words: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._smiles: dict[str, str] = {}
        self._molecules: dict[str, str] = {}
        for material in materials:
            for key in material.keys:
                if key.startswith("composition:"):
                    self._formulas[key] = material.key
                    self._elements[frozenset(_SYMBOL.findall(key.partition(":")[2]))] = material.key
            called = [normal(name) for name in (names or {}).get(material.key, ())]
            called = [name for name in called if len(name.replace(" ", "")) >= _SHORTEST_NAME]
            if material.kind == "name":
                called.append(normal(material.text))
            for name in dict.fromkeys(called):
                self._words[name.split()[0]].append((f" {name} ", material.key))
            if material.kind == "molecule":
                self._smiles |= dict.fromkeys((material.text, material.given), material.key)
                self._molecules |= dict.fromkeys(material.keys, material.key)

    def bare(self, text: str) -> tuple[str, str] | None:
        """Key and spelling of the test material that a text is nothing but, or None; marks about it do not count."""
        alone = _alone(text)
        keys: list[str | None] = [self._formulas.get(alone.formula), self._elements.get(alone.elements)]
        if self._words:
            known = self._words.get(alone.words.partition(" ")[0], ())
            keys += [key for name, key in known if name == f" {alone.words} "]
        if self._smiles and " " not in alone.text:
            keys.append(self._smiles.get(alone.text) or self._molecules.get(_molecule(alone.text)))
        return next(((key, alone.text) for key in keys if key is not None), None)

    def find(self, text: str) -> tuple[str, str] | None:
        """Key and spelling of the first test material that the text names, or None."""
        if self._formulas:
            for key, spelling in _formulas(text).items():
                if key in self._formulas:
                    return self._formulas[key], spelling
            for elements, spelling in _names(text):
                if elements in self._elements:
                    return self._elements[elements], spelling
        if self._words:
            plain = f" {normal(text)} "
            for word in dict.fromkeys(plain.split()):
                for name, key in self._words.get(word, ()):
                    if name in plain:
                        return key, name.strip()
        for word in text.split() if self._smiles else ():
            if (bare := word.strip(".,;:?\"'")) in self._smiles:
                return self._smiles[bare], bare
        return None


class _Alone(NamedTuple):
    """A whole text without marks about it, as a material may be written; empty where it reads as none."""

    text: str
    words: str
    formula: str
    elements: frozenset[str]


@lru_cache(maxsize=4)
def _alone(text: str) -> _Alone:
    bare = text.strip(_MARKS)
    words = normal(bare)
    first, pattern = _name_pattern()
    match = pattern.fullmatch(words)
    return _Alone(bare, words, _key(_plain(bare)) or "", _named(first, match) if match else frozenset())


@lru_cache(maxsize=4)
def _formulas(text: str) -> dict[str, str]:
    """Key of everything in a text that reads as a formula -> its spelling there."""
    plain = _plain(text)
    found: dict[str, str] = {}
    for match in _FORMULA.finditer(plain):
        word = match[0].strip(".")
        if word in ELECTRONEGATIVITY and _no_element(word, plain[max(0, match.start() - 20) : match.start()]):
            continue
        for piece in dict.fromkeys((word.strip("()[]{}"), word, *re.split(r"[()\[\]{}·]", word))):
            if _LOOKS.fullmatch(piece) and (key := _key(piece)):
                found.setdefault(key, piece)
    for run in _SPACED.findall(plain):
        pieces = [piece.replace(" ", "") for piece in _PIECE.findall(run)]
        for start in range(len(pieces)):
            for end in range(start + 2, min(start + _MOST_PIECES, len(pieces)) + 1):
                if key := _key(" ".join(pieces[start:end])):
                    found.setdefault(key, " ".join(pieces[start:end]))
    return found


def _plain(text: str) -> str:
    """A text with its formulas as plain ones."""
    plain = re.sub(r"</?sub>|\$", "", unicodedata.normalize("NFKC", text))
    plain = re.sub(r"_\{?([\d.]+)\}?", r"\1", plain)
    return re.sub(r"(?<=[A-Za-z0-9])[-\u2010-\u2014](?=[A-Z])", "", plain)  # Cd-Te is CdTe here


def _no_element(symbol: str, before: str) -> bool:
    """Whether a lone symbol is a unit (5 V, 300 K, °C), a word that begins a sentence (In, As), or I (iodine is I2)."""
    blank = before.rstrip(" ")
    begins = not blank or blank[-1] in '.?!:;"\n('
    return symbol == "I" or blank[-1:].isdigit() or blank.endswith("°") or (symbol in _ENGLISH and begins)


@lru_cache(maxsize=100_000)
def _key(formula: str) -> str | None:
    try:
        return parse_composition(formula).key
    except MaterialError:
        return None


@lru_cache(maxsize=10_000)
def _molecule(smiles: str) -> str:
    try:
        return parse_molecule(smiles).key
    except MaterialError:
        return ""


def _names(text: str) -> Iterator[tuple[frozenset[str], str]]:
    """Elements of everything that a text calls by a chemical name, and the name."""
    first, pattern = _name_pattern()
    for match in pattern.finditer(normal(text)):
        yield _named(first, match), match[0]


def _named(first: Mapping[str, str], match: re.Match[str]) -> frozenset[str]:
    """Elements of a chemical name."""
    return frozenset(_SYMBOL.findall(first[match[1]] + _ENDINGS.get(match[2], "")))


@cache
def _name_pattern() -> tuple[dict[str, str], re.Pattern[str]]:
    """Elements by the word that begins a name, and the pattern of a name: zinc oxide, titanium iv dioxide, diamond."""
    first = {element.long_name.lower(): element.symbol for element in periodic_table()} | _TRIVIAL
    count = "(?:mono|di|tri|tetra|penta|hexa|hepta|sesqui|per|sub)?"
    ending = f"(?: [ivx]+)? {count}({'|'.join(_ENDINGS)})s?"
    return first, re.compile(rf"\b{count}({'|'.join(sorted(first, key=len, reverse=True))})(?:{ending})?\b")
