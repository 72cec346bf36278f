"""True sentences about elements and compounds, made by us of open tables."""

from __future__ import annotations

import math
import re
import statistics
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matdarwin.data.cells import written
from matdarwin.data.elements import mendeleev_table, periodic_table
from matdarwin.data.folds import order
from matdarwin.data.sources import DataError
from matdarwin.materials import parse_composition
from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.materials.material import Material
from matdarwin.tasks.schema import Example, Task


@dataclass(frozen=True, slots=True)
class Pair:
    """One question with its answer.

    Attributes:
        question: The question, without blanks at its ends; what it is asked about, where an instruction asks.
        answer: The answer, likewise.
        row: Where it stands in its source: the number of the pair, the first being 1, or an id.
        source: What it comes from, such as `sciqag`, `elements` or an auxiliary task's id.
        task: Id of the auxiliary task whose value it states; empty for other text.
        key: Key of the material whose value it states; empty where that is not known.
        instruction: What is to be done with the question, likewise, where its file says so apart from it.
    """

    question: str
    answer: str
    row: str
    source: str
    task: str = ""
    key: str = ""
    instruction: str = ""

    @property
    def asked(self) -> str:
        """The whole question, as it teaches: the instruction stands before what it is about."""
        return f"{self.instruction} {self.question}".strip()

    def example(self, text: str) -> Example:
        """The pair as an example of free text, as a mixture takes it.

        Args:
            text: Name of the text that stands for its task.
        """
        key = self.key or f"{self.source}:{self.row}"
        material = Material("name", self.question, (self.question,), (self.question,), key, (key,), ())
        return Example(task=text, row=self.row, material=material, question=self.asked, answer=self.answer)

    @classmethod
    def of(cls, example: Example) -> Pair:
        """The pair that became an example by `example`, as far as a filter looks at it."""
        about = example.material.given
        instruction = (example.question or "").removesuffix(about).strip()
        return cls(about, example.answer or "", example.row, example.task, instruction=instruction)


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
    for element in periodic_table():
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
