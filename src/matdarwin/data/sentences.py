"""True sentences about elements and compounds, made by us of open tables; and the materials that a text names."""

from __future__ import annotations

import math
import re
import statistics
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from matdarwin.data.cells import written
from matdarwin.data.elements import mendeleev_table
from matdarwin.data.folds import order
from matdarwin.data.sources import DataError
from matdarwin.materials import MaterialError, parse_composition
from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.materials.material import Material
from matdarwin.tasks.schema import Example, Task


@dataclass(frozen=True, slots=True)
class Pair:
    """One question with its answer.

    Attributes:
        question: The question, without blanks at its ends.
        answer: The answer, likewise.
        row: Where it stands in its source: the number of the pair, the first being 1, or an id.
        source: What it comes from, such as `sciqag`, `elements` or an auxiliary task's id.
        task: Id of the auxiliary task whose value it states; empty for other text.
        key: Key of the material whose value it states; empty where that is not known.
    """

    question: str
    answer: str
    row: str
    source: str
    task: str = ""
    key: str = ""

    def example(self, text: str) -> Example:
        """The pair as an example of free text, as a mixture takes it.

        Args:
            text: Name of the text that stands for its task.
        """
        key = self.key or f"{self.source}:{self.row}"
        material = Material("name", self.question, (self.question,), (self.question,), key, (key,), ())
        return Example(task=text, row=self.row, material=material, question=self.question, answer=self.answer)


@dataclass(frozen=True, slots=True)
class _Fact:
    """A column of the table of elements: how it is asked for, how it is rounded, and how it is read (None: unknown)."""

    id: str
    noun: str
    unit: str
    decimals: int
    read: Callable[[Any], float | str | None]


_HEAVIEST = 99
"""Beyond einsteinium the tables hold estimates (ionization energies of 50 and 65 eV for Mt and Ds among them)."""


def _valence(element: Any) -> int | None:
    """Electrons of the outer shell: by the group, for the main groups alone."""
    if element.symbol == "He":
        return 2
    group = int(element.group)
    return None if element.block not in ("s", "p") else group if group <= 2 else group - 10


def _boiling(element: Any) -> float | None:
    """Not where the element sublimes first (As: a boiling point below its melting point)."""
    boiling, melting = element.boiling_point, element.melting_point
    return None if boiling is None or melting is None or boiling <= melting else boiling


def _measured(column: str, scale: float = 1) -> Callable[[Any], float | None]:
    """Reads a column of mendeleev's table, in the unit that the table's times the scale gives."""

    def read(element: Any) -> float | None:
        value = mendeleev_table()[element.symbol][column]
        return None if value is None or math.isnan(value) else float(value) * scale

    return read


def _affinity(element: Any) -> float | None:
    """Not where the anion is unbound: the table then has an estimate below zero, of which sources differ."""
    value = _measured("electron_affinity")(element)
    return None if value is None or value <= 0 else value


def _states(element: Any) -> str | None:
    """The main oxidation states, rising."""
    return ", ".join(f"{state:+d}" for state in sorted(mendeleev_table()[element.symbol]["states"])) or None


_FACTS = (
    _Fact("number", "atomic number", "", 0, lambda element: element.Z),
    _Fact("group", "group number in the periodic table", "", 0, lambda e: None if e.block == "f" else e.group),
    _Fact("period", "period number in the periodic table", "", 0, lambda element: element.row),
    _Fact("valence", "number of valence electrons", "", 0, _valence),
    _Fact("electronegativity", "Pauling electronegativity", "", 2, lambda e: ELECTRONEGATIVITY[e.symbol]),
    _Fact("radius", "empirical atomic radius", "angstrom", 2, lambda element: element.atomic_radius),
    # A whole number is the mass number of one isotope, where no standard mass exists.
    _Fact(
        "mass", "standard atomic mass", "u", 2, lambda e: None if float(e.atomic_mass).is_integer() else e.atomic_mass
    ),
    _Fact("melting", "melting point", "K", 0, lambda element: element.melting_point),
    _Fact("boiling", "boiling point", "K", 0, _boiling),
    _Fact("density", "density as a solid", "kg/m3", 0, lambda element: element.density_of_solid),
    _Fact("ionization", "first ionization energy", "eV", 2, lambda element: element.ionization_energy),
    _Fact("affinity", "electron affinity", "eV", 2, _affinity),
    _Fact("covalent", "covalent radius for single bonds", "angstrom", 2, _measured("covalent_radius_pyykko", 0.01)),
    _Fact("surface", "van der Waals radius", "angstrom", 2, _measured("vdw_radius", 0.01)),
    _Fact("polarizability", "static dipole polarizability", "cubic bohr", 1, _measured("dipole_polarizability")),
    _Fact("heat", "molar heat capacity at room temperature", "J/mol/K", 1, _measured("molar_heat_capacity")),
    _Fact("states", "list of usual oxidation states", "", 0, _states),
)
"""What is told of an element. mendeleev's heats of fusion and evaporation are left out (potassium's are swapped)."""

_OF_ELEMENTS = (
    ("What is the {noun} of {name}?", "The {noun} of {name} is {value}."),
    ("State the {noun} of the element {symbol}.", "{Name} ({symbol}) has the {noun} {value}."),
    ("Give the {noun} of {name}, whose symbol is {symbol}.", "For {name} the {noun} is {value}."),
)
_OF_COMPOUNDS = (
    ("What is the {noun} of {name}?", "The {noun} of {name} is {value}."),
    ("State the {noun} of {name}.", "{name} has the {noun} {value}."),
    ("What do calculations say of the {noun} of {name}?", "They give {value} as the {noun} of {name}."),
    ("A calculation for {name} was asked for its {noun}. What came out?", "It gave {value} for {name}."),
)


def elements(seed: int = 0, each: int = 1) -> list[Pair]:
    """What the tables of pymatgen and mendeleev say of the elements 1 to 99, as questions and answers.

    Of pymatgen: atomic number, group, period, valence electrons (main groups), Pauling electronegativity, empirical atomic
    radius (angstrom), standard atomic mass (u), melting and boiling point (K), density as a solid (kg/m3) and first
    ionization energy (eV). Of mendeleev: electron affinity (eV), Pyykko's covalent radius for single bonds and van der
    Waals radius (angstrom), static dipole polarizability (cubic bohr), molar heat capacity (J/mol/K) and the main oxidation
    states. Rounded half-even to 0, 1 or 2 decimals. What the tables lack is left out.

    Args:
        seed: Seed of the choice of wordings.
        each: Wordings of each fact, 1 to 3.

    Raises:
        ValueError: `each` is out of range.
    """
    pairs = []
    for element in _periodic_table():
        if element.Z > _HEAVIEST:
            continue
        key = parse_composition(element.symbol).key
        for fact in _FACTS:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="No data available")  # pymatgen, beside its None
                value = fact.read(element)
            if value is None or (isinstance(value, float) and math.isnan(value)):
                continue
            words = {"name": element.long_name.lower(), "Name": element.long_name, "symbol": element.symbol}
            told = value if isinstance(value, str) else _written(value, fact.decimals, fact.unit)
            words |= {"noun": fact.noun, "value": told}
            for number, question, answer in _wordings(_OF_ELEMENTS, f"{element.symbol}:{fact.id}", seed, each):
                row = f"{element.symbol}:{fact.id}:{number}"
                pairs.append(Pair(question.format(**words), answer.format(**words), row, "elements", key=key))
    return pairs


def check(task: Task) -> None:
    """Make sure that sentences can be made of a task.

    Raises:
        DataError: It is measured (its values are labels), has classes, or depends on conditions.
    """
    if task.origin != "computed" or task.kind != "regression" or task.conditions:
        raise DataError(
            f"task {task.id}: sentences are made of computed numbers without conditions; this is a {task.origin} "
            f"{task.kind} task" + (" with conditions" if task.conditions else "")
        )


def compounds(task: Task, examples: Sequence[Example], seed: int = 0, each: int = 1) -> list[Pair]:
    """What an auxiliary task has computed for its materials, as questions and answers.

    Every answer says that the value is computed. Several rows of one key give one sentence with their median;
    values are rounded half-even to the task's decimals. Rows without a target are left out.

    Args:
        task: A computed regression task without conditions.
        examples: Its rows.
        seed: Seed of the choice of wordings.
        each: Wordings of each value, 1 to 4.

    Raises:
        DataError: As from `check`.
        ValueError: `each` is out of range.
    """
    check(task)
    assert task.decimals is not None
    values: dict[str, list[float]] = defaultdict(list)
    first: dict[str, Example] = {}
    for example in examples:
        if example.target is not None and math.isfinite(float(example.target)):
            values[example.material.key].append(float(example.target))
            first.setdefault(example.material.key, example)
    noun = task.property if re.search(r"\b(computed|calculated)\b", task.property) else f"computed {task.property}"
    pairs = []
    for key, example in first.items():
        value = _written(statistics.median(values[key]), task.decimals, task.unit or "")
        words = {"noun": noun, "name": example.material.text, "value": value}
        for number, question, answer in _wordings(_OF_COMPOUNDS, f"{task.id}:{key}", seed, each):
            row = f"{example.row}:{number}"
            pairs.append(Pair(question.format(**words), answer.format(**words), row, task.id, task.id, key))
    return pairs


def _wordings(known: Sequence[tuple[str, str]], key: str, seed: int, each: int) -> Iterator[tuple[int, str, str]]:
    """Number, question and answer of `each` wordings, beginning at one drawn for the key."""
    if not 1 <= each <= len(known):
        raise ValueError(f"there are {len(known)} wordings; each is from 1 to that, got {each}")
    start = int(order(f"sentence|{seed}", key) * len(known))
    for number in range(start, start + each):
        yield number % len(known), *known[number % len(known)]


def _written(value: float, decimals: int, unit: str) -> str:
    """A number with its unit."""
    return f"{written(value, decimals)} {unit}".strip()


@cache
def _periodic_table() -> tuple[Any, ...]:
    from pymatgen.core.periodic_table import Element

    return tuple(Element(symbol) for symbol in ELECTRONEGATIVITY)


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


@lru_cache(maxsize=4)
def _formulas(text: str) -> dict[str, str]:
    """Key of everything in a text that reads as a formula -> its spelling there."""
    plain = re.sub(r"</?sub>|\$", "", unicodedata.normalize("NFKC", text))
    plain = re.sub(r"_\{?([\d.]+)\}?", r"\1", plain)
    plain = re.sub(r"(?<=[A-Za-z0-9])[-\u2010-\u2014](?=[A-Z])", "", plain)  # Cd-Te is CdTe here
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


def _names(text: str) -> Iterator[tuple[frozenset[str], str]]:
    """Elements of everything that a text calls by a chemical name, and the name."""
    first, pattern = _name_pattern()
    for match in pattern.finditer(normal(text)):
        alone = first[match[1]]
        if match[2]:
            yield frozenset(_SYMBOL.findall(alone + _ENDINGS[match[2]])), match[0]
        else:
            yield frozenset(_SYMBOL.findall(alone)), match[0]


@cache
def _name_pattern() -> tuple[dict[str, str], re.Pattern[str]]:
    """Elements by the word that begins a name, and the pattern of a name: zinc oxide, titanium iv dioxide, diamond."""
    first = {element.long_name.lower(): element.symbol for element in _periodic_table()} | _TRIVIAL
    count = "(?:mono|di|tri|tetra|penta|hexa|hepta|sesqui|per|sub)?"
    ending = f"(?: [ivx]+)? {count}({'|'.join(_ENDINGS)})s?"
    return first, re.compile(rf"\b{count}({'|'.join(sorted(first, key=len, reverse=True))})(?:{ending})?\b")
