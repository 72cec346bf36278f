"""Evidence: what open databases compute for a composition, looked up by key and put into words for the prompt."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from matdarwin.data import disk, tablecache
from matdarwin.data.cells import RowError, number, written
from matdarwin.data.sources import DataError, cache, disk_errors, fetch
from matdarwin.data.tables import rows
from matdarwin.materials import MaterialError, parse_composition, plain
from matdarwin.materials.material import Material
from matdarwin.tasks.schema import Example, Source, Task

CAUTION = (
    "Presence in a computed database is itself a hint at 'metal'. Of expt_gap's 2,450 zero gaps all but one have a "
    "formation energy in the Materials Project set and 96 % a computed gap; of the other materials 57 % and 58 %. Scores "
    "with evidence are given for metals and non-metals apart."
)
"""What the card of every result with evidence says."""

_VERSION = 1  # of the rules below; raised when they change, so that no old cache is read


@dataclass(frozen=True)
class Database:
    """One computed quantity of one database.

    Attributes:
        id: Name, to choose it by.
        label: The database as the prompt has it.
        quantity: What is computed, as the prompt has it.
        unit: Unit of the values.
        decimals: Digits after the point in the prompt.
        rule: How several entries of one composition (polymorphs) become one value.
        files: Where the values stand: columns `formula` and `target`.
        others: Files for what `files` know nothing of: columns `composition` and `band_gap`.
    """

    id: str
    label: str
    quantity: str
    unit: str
    decimals: int
    rule: Literal["median", "least"]
    files: tuple[Source, ...]
    others: tuple[Source, ...] = ()

    def sources(self) -> tuple[Source, ...]:
        """All its files."""
        return (*self.files, *self.others)


_COLUMNS = ("formula", "target")
_OTHER_COLUMNS = ("composition", "band_gap")


def _github(name: str, version: str, path: str, mirror: str, sha256: str) -> Source:
    return Source(kind="github", name=name, version=version, path=path, mirror=mirror, sha256=sha256)


_CRABNET = "457b4d4835737ecbe4dd33e53174bd818bd82143"


def _crabnet(path: str, sha256: str) -> Source:
    return _github("anthony-wang/CrabNet", _CRABNET, f"crabnet/data/{path}", f"crabnet/{path}", sha256)


def _mirror(path: str, sha256: str, how: str) -> Source:
    made_from = f"github anthony-wang/CrabNet @ {_CRABNET}, {how}"
    return Source(kind="mirror", name=path, mirror=path, sha256=sha256, made_from=made_from)


_MP_GAP = _crabnet("matbench/mp_gap.csv", "4084e584467e6f81ec8bf12c438eeb2c049ae39e11401bae694ef6a9983b9d9f")
# A later release than mp_gap, one row a composition, non-metals alone.
_MP_NON_METALS = _github(
    "CompRhys/roost",
    "aaabc34d6ee6ac788e36f1c759c0582a997ea9b9",
    "data/datasets/roost/mp-non-metals.csv",
    "mp_roost/mp-non-metals.csv",
    "96e84365f7ebd984d5c39501b8be6b988bec694329b5d33415e51b611adddb5a",
)
_O = "benchmark_data/OQMD_Bandgap"
_OQMD = (
    _mirror(f"crabnet/{_O}/train.csv.gz", "f7f088ea998d15838a0ba7003e338aeb47472ec1b5a7fcc83fee44c684e1139d", "packed"),
    _crabnet(f"{_O}/val.csv", "7838750eb3b5b09ec296b0fbf194271f6588b4bcd4653e392aba6df04c645002"),
    _crabnet(f"{_O}/test.csv", "59206d9cf13387a6cbf5a155f5b350043aee2f190663bb9baf97a6ee85e63d55"),
)
_A = "benchmark_data/aflow__Egap"
_AFLOW = (
    _crabnet(f"{_A}/train.csv", "54cfdde0f9dc313acf2ffb22f49c9861d8d0e1fc5ee3938b8810785db65c1c17"),
    _crabnet(f"{_A}/val.csv", "798bd5b2d16cca829be8873a483872910de4c948a1bc55ae89c70efb9be0c545"),
    _crabnet(f"{_A}/test.csv", "d2096c4b87dcc1f13407532f048552544cd389d49486770b9b065dffd5cc92ef"),
)
_MP_ENERGY = _mirror(
    "crabnet/matbench/mp_e_form.csv", "90e895635c96447c5be4e9070d26f26e1b4d17925102a6597ae3c4d79c32555b", "unchanged"
)

DATABASES = (
    # mp_gap has a row a polymorph and no energies, so the ground state cannot be told: the median, as wherever rows of
    # one key are merged. The least would call many a semiconductor with one metallic polymorph a metal.
    Database("gap_mp", "MP", "gap", "eV", 1, "median", (_MP_GAP,), (_MP_NON_METALS,)),
    Database("gap_oqmd", "OQMD", "gap", "eV", 1, "median", _OQMD),
    Database("gap_aflow", "AFLOW", "gap", "eV", 1, "median", _AFLOW),
    # Here the energy is known: the least is the most stable polymorph.
    Database("energy_mp", "MP", "formation energy", "eV/atom", 2, "least", (_MP_ENERGY,)),
)
"""Every database that is known (the files' repositories are MIT). Gaps are by density functional theory (PBE), which
puts most of them too low."""

GAPS = ("gap_mp", "gap_oqmd", "gap_aflow")
"""Ids of the computed gaps alone."""


@dataclass(frozen=True, slots=True)
class Value:
    """What one database has for a composition: one value, and of how many entries it was made.

    `least` and `greatest` are those of the entries, in the database's unit like `value`.
    """

    value: float
    least: float
    greatest: float
    entries: int


class _Texts(Sequence[str]):
    """A column of texts as a sequence that `bisect` can search without making a list of it."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, place: Any) -> Any:
        return self._column[place].as_py()


def choose(names: Sequence[str] | None = None) -> list[Database]:
    """The databases of these ids; None for all.

    Raises:
        DataError: None at all, one twice, or one that is not known.
    """
    known = {database.id: database for database in DATABASES}
    chosen = list(known) if names is None else list(names)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(known):
        raise DataError(
            f"evidence: {', '.join(chosen)} is no choice of different databases; known are {', '.join(known)}"
        )
    return [known[name] for name in chosen]


class Evidence:
    """The lookup: composition key -> what each database computes for it. Made by `load`.

    Attributes:
        databases: The databases that were asked for, in the order in which they are worded.
    """

    def __init__(self, databases: Sequence[Database], table: Any) -> None:
        """Wrap a pyarrow table with the columns of `_build`, sorted by key."""
        self.databases = tuple(databases)
        table = table.combine_chunks()
        self._keys = _Texts(table["key"].chunk(0) if len(table) else [])
        self._columns = {name: table[name].to_numpy() for name in table.column_names if name != "key"}

    @classmethod
    def load(cls, names: Sequence[str] | None = None) -> Evidence:
        """The lookup over some databases, from the cache or, the first time, from the files.

        Args:
            names: Ids of the databases (see `DATABASES`); None for all.

        Raises:
            DataError: Unknown name, a file that cannot be had or is not what was pinned, or a broken cache.
        """
        databases = choose(names)
        path = cache_file(databases)
        if not path.is_file():
            _write(_build(databases), path)
        return cls(databases, _read(path))

    def __len__(self) -> int:
        """Number of (composition, database) pairs."""
        return len(self._keys)

    def of(self, key: str) -> dict[str, Value]:
        """Values of a composition key by id of the database; empty where no database knows it."""
        found: dict[str, Value] = {}
        place = bisect_left(self._keys, key)
        while place < len(self._keys) and self._keys[place] == key:
            row = {name: column[place].item() for name, column in self._columns.items()}
            database = self.databases[row.pop("database")]
            found[database.id] = Value(**row)
            place += 1
        return found

    def find(self, material: Material) -> dict[str, Value]:
        """Values of the first key of a material that a database knows: a name may be a composition as well."""
        return next((found for key in material.keys if (found := self.of(key))), {})

    def words(self, material: Material) -> tuple[str, ...]:
        """What is known of a material, one phrase a quantity: `computed gap 1.2 eV (MP), 1.3 (OQMD)`.

        Values are rounded half-even to the database's decimals; a database that does not know the material is not
        named, and where none does there is no phrase.
        """
        phrases: dict[str, list[str]] = {}
        found = self.find(material)
        for database in self.databases:
            if database.id in found:
                said = phrases.setdefault(database.quantity, [])
                unit = f" {database.unit}" if not said else ""
                said.append(f"{written(found[database.id].value, database.decimals)}{unit} ({database.label})")
        return tuple(f"computed {quantity} {', '.join(said)}" for quantity, said in phrases.items())


def attach(task: Task, examples: Sequence[Example], evidence: Evidence) -> list[Example]:
    """The examples with their evidence set; those of which nothing is known keep none.

    Args:
        task: Whose examples.
        examples: The examples.
        evidence: The lookup.

    Raises:
        DataError: The task's labels are computed themselves, so that the evidence might be the label.
        ValueError: An example belongs to another task.
    """
    if task.origin == "computed":
        raise DataError(
            f"task {task.id}: its labels are computed, and computed evidence may hold the very answer; "
            "evidence is for measured tasks"
        )
    for example in examples:
        if example.task != task.id:
            raise ValueError(f"row {example.row} belongs to {example.task}, not to {task.id}")
    return [replace(example, evidence=evidence.words(example.material)) for example in examples]


class Presence(TypedDict):
    """How many materials of a group are known: `any` to at least one database, `found` by id of the database."""

    group: str
    materials: int
    any: int
    found: dict[str, int]


def presence(task: Task, examples: Sequence[Example], evidence: Evidence) -> list[Presence]:
    """How many of the materials stand in each database: of all, and of each class apart.

    Classes of a band gap in eV are `metal` (exactly 0) and `not metal`; other numbers have none. A material whose
    rows disagree counts in each of its classes.

    Args:
        task: Whose examples.
        examples: The examples.
        evidence: The lookup.
    """
    groups: dict[str, dict[str, Material]] = {"all": {}}
    for example in examples:
        groups["all"].setdefault(example.material.key, example.material)
        name = None
        if isinstance(example.target, str):
            name = example.target
        elif example.target is not None and "band gap" in task.quantities:
            name = "metal" if example.target == 0 else "not metal"
        if name is not None:
            groups.setdefault(name, {}).setdefault(example.material.key, example.material)
    result = []
    for name, materials in groups.items():
        known = [evidence.find(material) for material in materials.values()]
        found = {database.id: sum(database.id in one for one in known) for database in evidence.databases}
        result.append(Presence(group=name, materials=len(materials), any=sum(map(bool, known)), found=found))
    return result


def key_of(formula: str) -> str:
    """Key of a formula: that of `parse_composition`, of which a plain formula needs no more than its amounts.

    Raises:
        MaterialError: The text is no formula.
    """
    amounts = plain.amounts(formula)
    return parse_composition(formula).key if amounts is None else plain.key(amounts)


def cache_file(databases: Sequence[Database]) -> Path:
    """Where the lookup over these databases is kept; its name stands for every source, the rules and the code that parses."""
    return cache() / "evidence" / f"{digest(databases)}.{tablecache.parser()}.parquet"


def digest(databases: Sequence[Database]) -> str:
    """Hash of the databases' rules and of the sha256 of all their files."""
    pinned = [[database.id, database.rule, [source.sha256 for source in database.sources()]] for database in databases]
    return hashlib.sha256(json.dumps([_VERSION, pinned]).encode()).hexdigest()[:16]


def _build(databases: Sequence[Database]) -> Any:
    """The table with one row a (key, database): key, number of the database, value, least, greatest, entries."""
    import pyarrow

    merge: dict[str, Callable[[list[float]], float]] = {"median": statistics.median, "least": min}
    content: list[tuple[str, int, float, float, float, int]] = []
    for place, database in enumerate(databases):
        entries = _entries(database.files, _COLUMNS)
        entries = _entries(database.others, _OTHER_COLUMNS) | entries
        for key, values in entries.items():
            content.append((key, place, merge[database.rule](values), min(values), max(values), len(values)))
    content.sort()  # by key, then in the order of the databases
    types = ("string", "int8", "float64", "float64", "float64", "int32")
    names = ("key", "database", "value", "least", "greatest", "entries")
    columns = zip(*content, strict=True) if content else [()] * len(names)
    return pyarrow.table(
        {
            name: pyarrow.array(column, pyarrow.type_for_alias(alias))
            for name, alias, column in zip(names, types, columns, strict=True)
        }
    )


def _entries(files: Sequence[Source], columns: tuple[str, str]) -> dict[str, list[float]]:
    """All values of each key; a row that cannot be read is an error, since the files are pinned."""
    found: dict[str, list[float]] = {}
    for source in files:
        path = fetch(source)
        for row, formula, value in _cells(path, columns):
            try:
                found.setdefault(key_of(formula), []).append(number(value, columns[1]))
            except (MaterialError, RowError) as error:
                raise DataError(f"{path}: row {row}: {error}") from error
    return found


def _cells(path: Path, columns: tuple[str, str]) -> Iterator[tuple[int, str, str]]:
    for row, cells in rows(path, columns):
        if isinstance(cells, str):
            raise DataError(f"{path}: row {row} has more or fewer cells than the header: {cells[:80]}")
        yield row, cells[columns[0]], cells[columns[1]]


def _write(table: Any, path: Path) -> None:
    """Write beside the target, sync, and only then give it its name: another process sees all of it or nothing."""
    import pyarrow.parquet

    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        try:
            pyarrow.parquet.write_table(table, part, compression="zstd", row_group_size=50_000)
            disk.sync(Path(part))
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)


def _read(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: the cache of evidence is broken ({error}); delete it, it is made anew") from error
