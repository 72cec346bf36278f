"""The measured materials nearest to one: by composition, or by fingerprint, among the rows of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdarwin.data import cards, leakage
from matdarwin.data.readers import read
from matdarwin.data.sources import DataError
from matdarwin.materials.composition import amounts_of
from matdarwin.materials.material import Material
from matdarwin.models.checkpoint import TaskCard
from matdarwin.tasks.schema import Example, Task

_BITS, _RADIUS = 2048, 2
_LAST_OF_SCALE = 103


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A material of a task's data that is near to another.

    Attributes:
        material: Its canonical text.
        key: Its identity.
        distance: From 0 (the same) to 1 (nothing in common); of embeddings the cosine distance, 0 to 2.
        target: Its value in the data, a number in `unit` or a label; of several rows the median or the majority.
        unit: Unit of the target; None for classes and pure numbers.
        source: Where the value is from.
        training: Whether the row taught the checkpoint; None where that cannot be known, so that it is a material of
            the task's data and no more.
        conditions: Conditions of the value, by name.
    """

    material: str
    key: str
    distance: float
    target: float | str
    unit: str | None
    source: str
    training: bool | None = None
    conditions: Mapping[str, str | float] = field(default_factory=dict)


def nearest(
    task: Task, material: Material, count: int = 5, *, conditions: Mapping[str, str | float] | None = None
) -> list[Neighbour]:
    """The materials of a task's data nearest to one, itself included where it is among them, nearest first.

    Compositions: half the sum over elements of the differences of the atomic fractions. Molecules: 1 minus the Tanimoto
    similarity of Morgan fingerprints of radius 2 (2,048 bits). Names have no distance, so there are no neighbours.

    Of equally near compositions those come first whose other elements lie nearest on Pettifor's scale (AlN before YN for GaN;
    the distance of Hargreaves et al. 2020, doi:10.1021/acs.chemmater.0c03381), then the plainest.

    Args:
        task: The task whose data is searched.
        material: The material, of the task's representation.
        count: Most neighbours.
        conditions: Where a material has rows of several conditions, those of most in common with these stand for it.

    Raises:
        DataError: The data are not on this machine, or cannot be read. Nothing is fetched.
    """
    found = candidates(task, material, count, conditions=conditions)
    return [neighbour(task, example, distance) for example, distance in found]


def candidates(
    task: Task, material: Material, count: int, *, conditions: Mapping[str, str | float] | None = None
) -> list[tuple[Example, float]]:
    """As `nearest`, as examples with their distances."""
    missing = cards.away(task)
    if missing is not None:
        raise DataError(
            f"task {task.id}: its data are not on this machine; darwin data fetch {task.id} tries to bring them ({missing})"
        )
    if task.representation == "name":
        return []
    index = _index(task.model_dump_json(exclude={"notes"}))
    distances = index.distances(material)
    # What has nothing in common is no neighbour. Equals are ranked by more than that, so the cut is made by distance first.
    near = np.flatnonzero(distances < 1.0)
    if len(near) > count:
        near = near[distances[near] <= np.partition(distances[near], count - 1)[count - 1]]
    exchanged = index.exchanged(material)
    ranked = sorted(near.tolist(), key=lambda i: (distances[i], exchanged(i), *_plainness(index.rows[i][0])))[:count]
    return [(_closest(index.rows[i], conditions or {}), float(distances[i])) for i in ranked]


def neighbour(task: Task, example: Example, distance: float, training: bool | None = None) -> Neighbour:
    """A row of a task's data as a neighbour."""
    if example.target is None:
        raise ValueError(f"row {example.row} of {task.id} has no value, so it can be no neighbour")
    return Neighbour(
        material=example.material.text, key=example.material.key, distance=distance, target=example.target,
        unit=task.unit, source=f"{_origin(task)}, row {example.row}", training=training,
        conditions=dict(example.conditions),
    )  # fmt: skip


def taught(tasks: Mapping[str, TaskCard], recipe: Mapping[str, Any] | None, task: str) -> frozenset[str] | None:
    """Keys of the materials that taught a checkpoint a task.

    The division is drawn again as the recipe says, and believed only if it hashes to what the card remembers.

    Args:
        tasks: The checkpoint's tasks.
        recipe: Its recipe, as its card has it; None where it is not known.
        task: Id of the task.

    Returns:
        The keys; None where they cannot be known with certainty: earlier stages that taught too, data that are not on
        this machine, or a hash that is another.
    """
    expected = tasks[task].parts.get("train")
    if recipe is None or expected is None or recipe.get("before"):
        return None
    split = recipe.get("split")
    if split is None:
        return None
    known = [card.task for card in tasks.values()]
    scored = {other.id for other in leakage.targets(known)}
    known = [other.model_copy(update={"scored": other.id in scored}) for other in known]
    # Keys are drawn quantity by quantity, so that the other tasks need not be read.
    cluster = next(group for group in leakage.clusters(known) if any(other.id == task for other in group))
    if any(cards.away(other) is not None for other in cluster):
        return None
    options = tuple(
        (name, split.get(name))
        for name in ("seed", "validation", "calibration", "minimum_calibration", "limit", "folds")
    )
    declared = tuple(other.model_dump_json() for other in cluster)
    return _divided(declared, task, recipe.get("fold"), options, split.get("rule", "key"), expected)


@lru_cache(maxsize=16)
def _divided(
    declared: tuple[str, ...],
    task: str,
    fold: int | None,
    options: tuple[tuple[str, Any], ...],
    rule: Any,
    expected: str,
) -> frozenset[str] | None:
    given = {name: value for name, value in options if value is not None}
    try:
        done = leakage.split([Task.model_validate_json(text) for text in declared], fold, rule=rule, **given)
    except DataError:
        return None
    if leakage.keys_hash(done.train[task]) != expected:
        return None
    return frozenset(example.material.key for example in done.train[task])


# -- distances -----------------------------------------------------------------------------------------------


class _Index(ABC):
    """A task's rows, one list a material, with what distances are computed from."""

    def __init__(self, rows: list[list[Example]]) -> None:
        self.rows = rows

    @abstractmethod
    def distances(self, material: Material) -> NDArray[np.float64]:
        """Distance of each of the materials [rows]."""

    def exchanged(self, material: Material) -> Callable[[int], float]:
        """How far the elements in which a row differs lie apart; it ranks rows of equal distance."""
        return lambda place: 0.0


class _Compositions(_Index):
    """Atomic fractions by element: only rows that share an element with what is asked are looked at."""

    def __init__(self, rows: list[list[Example]]) -> None:
        super().__init__(rows)
        places: dict[str, list[int]] = defaultdict(list)
        shares: dict[str, list[float]] = defaultdict(list)
        for place, row in enumerate(rows):
            for symbol, share in fractions(row[0].material).items():
                places[symbol].append(place)
                shares[symbol].append(share)
        self._held = {symbol: (np.array(places[symbol]), np.array(shares[symbol])) for symbol in places}

    def distances(self, material: Material) -> NDArray[np.float64]:
        common = np.zeros(len(self.rows))
        for symbol, share in sorted(fractions(material).items()):
            if symbol in self._held:
                places, shares = self._held[symbol]
                common[places] += np.minimum(shares, share)
        # Of two lists of fractions that add up to 1, half the differences are 1 minus what they have in common.
        distances: NDArray[np.float64] = np.clip(np.round(1.0 - common, 9), 0.0, 1.0)
        return distances

    def exchanged(self, material: Material) -> Callable[[int], float]:
        from scipy.stats import wasserstein_distance

        here = fractions(material)
        mine = [_pettifor(symbol) for symbol in here], list(here.values())

        def between(place: int) -> float:
            there = fractions(self.rows[place][0].material)
            far = wasserstein_distance(mine[0], [_pettifor(symbol) for symbol in there], mine[1], list(there.values()))
            return round(float(far), 9)

        return between


class _Molecules(_Index):
    """Morgan fingerprints."""

    def __init__(self, rows: list[list[Example]]) -> None:
        super().__init__(rows)
        self._prints = [_fingerprint(row[0].material.text) for row in rows]

    def distances(self, material: Material) -> NDArray[np.float64]:
        from rdkit import DataStructs

        alike = DataStructs.BulkTanimotoSimilarity(_fingerprint(material.text), self._prints)
        distances: NDArray[np.float64] = np.round(1.0 - np.array(alike, dtype=np.float64), 9)
        return distances


@lru_cache(maxsize=8)
def _index(declared: str) -> _Index:
    """The index of a task's data; built once a process."""
    task = Task.model_validate_json(declared)
    together: dict[str, list[Example]] = defaultdict(list)
    for example in leakage.merge(task, [row for row in read(task).examples if row.target is not None]):
        together[example.material.key].append(example)
    rows = list(together.values())
    return _Molecules(rows) if task.representation == "molecule" else _Compositions(rows)


def fractions(material: Material) -> dict[str, float]:
    """Atomic fraction of each element of a composition; they add up to 1."""
    amounts = amounts_of(material)
    whole = sum(amounts.values())
    return {symbol: amount / whole for symbol, amount in amounts.items()}


@cache
def _pettifor(symbol: str) -> float:
    """An element's number on Pettifor's scale (1984), on which neighbours can stand for each other in a crystal."""
    from pymatgen.core.periodic_table import Element

    element = Element(symbol)
    # The scale ends at lawrencium; what comes after stands with the element above it.
    known = element if element.Z <= _LAST_OF_SCALE else Element.from_row_and_group(element.row - 1, element.group)
    return float(known.mendeleev_no)


def _fingerprint(smiles: str) -> Any:
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdFingerprintGenerator

    with rdBase.BlockLogs():  # it warns of each hydrogen that is written out
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(f"RDKit cannot read the SMILES {smiles!r}")
    return rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=_BITS).GetFingerprint(molecule)


def _plainness(example: Example) -> tuple[int, str]:
    """Of equally near materials the plainest comes first: GaAs before a dilute alloy."""
    return len(example.material.text), example.material.key


def _closest(rows: Sequence[Example], conditions: Mapping[str, str | float]) -> Example:
    """Of the rows of one material, the first with most of the conditions in common."""

    def alike(example: Example) -> int:
        return sum(_same(example.conditions.get(name), value) for name, value in conditions.items())

    return max(rows, key=alike)


def _same(one: str | float | None, other: str | float) -> bool:
    if one is None:
        return False
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _origin(task: Task) -> str:
    """Where a task's values are from; of a file on this machine its name alone, since others may read the answer."""
    source = task.source
    if source.kind == "file":
        return f"file {PurePath(source.name).name}"
    return cards.origin(source.model_dump(mode="json"))
