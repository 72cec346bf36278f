"""Files to rows of cells: the plain table, and one function for each odd file that gives them as a table would."""

from __future__ import annotations

import gzip
import json
import re
import statistics
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from matdarwin.data.cells import RowError, number
from matdarwin.data.sources import DataError
from matdarwin.data.tables import Row, check_columns, rows
from matdarwin.materials import MaterialError, parse_composition
from matdarwin.materials.composition import amounts_of, count_atoms

Rows = Iterator[tuple[int, Row | RowError]]
"""Rows with their number in the file, the first being 1; those that are no row come as the error that says why."""

UNEVEN = "the row has more or fewer cells than the header"
"""Cause of the reject that a row of another length than the header is."""


def table_rows(paths: Sequence[Path], needed: Sequence[str]) -> Rows:
    """Reader `table`: one row is one example; CSV (also .gz, UTF-8) or Parquet, numbered through all files.

    Raises:
        DataError: Wrong encoding, a missing or repeated column, or a file that is no table.
    """
    before = place = 0
    for path in paths:
        for place_there, row in rows(path, needed):
            place = before + place_there
            yield place, RowError(row, "", UNEVEN) if isinstance(row, str) else row
        before = place


def opv(paths: Sequence[Path], needed: Sequence[str]) -> Rows:
    """Reader `opv`: JSON lists of questions that name donor and acceptor of an organic solar cell.

    Its columns are `donor` (SMILES), `acceptor` and `efficiency` (%).

    Args:
        paths: The files; rows are numbered through all of them.
        needed: The columns that the task asks for.

    Raises:
        DataError: A file is no list of JSON objects, or a column is asked for that the reader does not make.
    """
    check_columns(paths[0], ("donor", "acceptor", "efficiency"), needed)
    place = 0
    for path in paths:
        for item in _json_list(path):
            place += 1
            question, answer = item.get("instruction"), item.get("output")
            found = re.search(r"donor : (\S+), and Acceptors: (\S+)\?", question) if isinstance(question, str) else None
            if found is None:
                yield place, RowError(str(question), "instruction", "no donor and acceptor", " in the question")
            elif not isinstance(answer, str):
                yield place, RowError(str(answer), "output", "no text")
            else:
                yield place, {"donor": found[1], "acceptor": found[2], "efficiency": answer.strip()}


def _json_list(path: Path) -> list[dict[str, Any]]:
    try:
        raw = path.read_bytes()
        content = json.loads((gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8"))
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:  # also a wrong encoding
        raise DataError(f"{path}: no JSON: {error}") from error
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DataError(f"{path}: a list of JSON objects was expected")
    return content


_MOF = "MOF structural features and topology"
_COMPOSITION = "composition"
_AT_300 = "Cv_gravimetric_300.00 (gravimetric heat capacity at 300 K)"
_PER_ATOM = {
    kelvin: f"pCv_{kelvin}.00 (predicted gravimetric heat capacity at {kelvin} K)"
    for kelvin in ("250", "275", "300", "325", "350", "375", "400")
}
_TOLERANCE = 1e-3
"""Furthest, in J/g/K, that the sum over the atoms may lie from the file's own value at 300 K."""


def moosavi(paths: Sequence[Path], needed: Sequence[str]) -> Rows:
    """Reader `moosavi`: heat capacities of frameworks, whole at 300 K and atom by atom at seven temperatures.

    A framework has one row with its composition and its heat capacity at 300 K (J/g/K), and one row for each of
    its atoms (J/mol/K). The first is a row as it stands. The mean over the atoms' rows, times the number of atoms
    and divided by the molar mass, gives a row for each of the other six temperatures, as long as it gives the
    file's own value at 300 K to 0.001 J/g/K. So rows are counted as they are made, not as they stand in the file;
    each is numbered as the framework's own row.

    Its columns are `id`, `framework`, `composition`, `temperature` (K) and `heat capacity` (J/g/K).

    Args:
        paths: The file.
        needed: The columns that the task asks for.

    Raises:
        DataError: Wrong encoding, a missing column, or a column is asked for that the reader does not make.
    """
    check_columns(paths[0], ("id", "framework", "composition", "temperature", "heat capacity"), needed)
    wholes: list[tuple[int, Row]] = []
    atoms: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
    spoilt: dict[str, int] = {}
    for place, row in rows(paths[0], [_MOF, _COMPOSITION, _AT_300, *_PER_ATOM.values()]):
        if isinstance(row, str):
            yield place, RowError(row, "", UNEVEN)
        elif row[_COMPOSITION]:
            wholes.append((place, row))
        else:
            try:
                values = [number(row[column], column) for column in _PER_ATOM.values()]
                atoms[row[_MOF]].append((place, values))
            except RowError as error:
                spoilt[row[_MOF]] = place
                yield place, error
    for place, row in wholes:
        framework, composition = row[_MOF], row[_COMPOSITION]
        given = {"framework": framework, "composition": composition}
        yield place, {"id": f"{place} at 300 K", "temperature": "300", "heat capacity": row[_AT_300], **given}
        summed = _sums(row, atoms.get(framework, []), spoilt.get(framework))
        for kelvin in _PER_ATOM:
            if kelvin == "300":
                continue
            if isinstance(summed, RowError):
                yield place, summed
            else:
                value = repr(summed[kelvin])
                yield place, {"id": f"{place} at {kelvin} K", "temperature": kelvin, "heat capacity": value, **given}
    known = {row[_MOF] for _, row in wholes}
    for framework, lines in atoms.items():
        if framework not in known:
            for place, _ in lines:
                yield place, RowError(framework, _MOF, "an atom of a framework without composition")


def _sums(row: Row, lines: Sequence[tuple[int, list[float]]], spoilt: int | None) -> dict[str, float] | RowError:
    """Heat capacity at each temperature, J/g/K, from the atoms of a framework; or why they do not give it."""
    composition = row[_COMPOSITION]
    if spoilt is not None or not lines:
        hint = f" (row {spoilt})" if spoilt is not None else ""
        return RowError(row[_MOF], _MOF, "the rows of its atoms cannot be read or are not there", hint)
    try:
        mass = _mean_atomic_mass(composition)
        own = number(row[_AT_300], _AT_300)
    except MaterialError as error:
        return RowError(composition, _COMPOSITION, "no composition", f": {error}")
    except RowError as error:
        return error
    means = zip(*(values for _, values in lines), strict=True)
    found = {kelvin: statistics.fmean(values) / mass for kelvin, values in zip(_PER_ATOM, means, strict=True)}
    if abs(found["300"] - own) > _TOLERANCE:
        hint = f": {found['300']:.4f} instead of {own:.4f} J/g/K from {len(lines)} atoms"
        return RowError(composition, _COMPOSITION, "its atoms do not give its value at 300 K", hint)
    return found


def _mean_atomic_mass(formula: str) -> float:
    """Molar mass over number of atoms, g/mol."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    amounts = amounts_of(parse_composition(formula))
    return float(sum(n * table.GetAtomicWeight(symbol) for symbol, n in amounts.items()) / sum(amounts.values()))


_ABSENT = re.compile(r"[A-Z][a-z]?0(?:\.0+)?(?![\d.])", re.ASCII)
_B2 = re.compile(r"([NPY]?)BCC", re.ASCII)


def alloys(paths: Sequence[Path], needed: Sequence[str]) -> Rows:
    """Reader `alloys`: a plain table of alloys, whose formulas (the first of the needed columns) are mended.

    A series of alloys names also the element that one of them lacks (`Al0B18Co82`): such a part is left out. And in
    one file "B2" was replaced by "BCC" whatever its letters' case, in formulas too, so that `Nb22` became `NBCC2` and
    `B2CoW2` became `BCCCoW2`: it is put back, as Nb2, Pb2 or Yb2 after such a capital, else as B2.

    Args:
        paths: The files; rows are numbered through all of them.
        needed: The columns that the task asks for, the material first.

    Raises:
        DataError: Wrong encoding, a missing or repeated column, or a file that is no table.
    """
    for place, row in table_rows(paths, needed):
        yield place, row if isinstance(row, RowError) else {**row, needed[0]: mended(row[needed[0]])}


def mended(formula: str) -> str:
    """The formula of an alloy with "BCC" undone and without parts of amount zero, as `alloys` says."""
    whole = _B2.sub(lambda found: f"{found[1]}b2" if found[1] else "B2", formula)
    return _ABSENT.sub("", whole) or formula


def energies(paths: Sequence[Path], needed: Sequence[str]) -> Rows:
    """Reader `energies`: JSON lists (also .gz) of formulas, each with the energy of a formula unit in eV.

    Its columns are `formula` and `energy` (eV/atom: that of the formula unit divided by its atoms, as it is written).

    Args:
        paths: The files; rows are numbered through all of them.
        needed: The columns that the task asks for.

    Raises:
        DataError: A file is no list of JSON objects, or a column is asked for that the reader does not make.
    """
    check_columns(paths[0], ("formula", "energy"), needed)
    place = 0
    for path in paths:
        for item in _json_list(path):
            place += 1
            formula, energy = item.get("formula"), item.get("exp energy")
            if not isinstance(formula, str) or isinstance(energy, bool) or not isinstance(energy, int | float):
                yield place, RowError(json.dumps(item), "", "no formula with an energy")
                continue
            try:
                value = number(repr(energy), "exp energy")
                per_atom = Decimal(repr(value)) / count_atoms(formula)
            except MaterialError as error:
                yield place, RowError(formula, "formula", "no composition", f": {error}")
            except RowError as error:
                yield place, error
            else:
                yield place, {"formula": formula, "energy": repr(float(per_atom))}
