"""Candidates that nobody has listed: every composition of some elements, or known ones with elements replaced by similar ones.

Both are enumerated lazily, in a fixed order, and none comes twice. Oxidation states are those of the ICSD (2024), and the
test that anions are more electronegative than cations is that of smact (Davies et al. 2019, doi:10.21105/joss.01361).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from matdarwin.materials import parse
from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.materials.material import Material, MaterialError
from matdarwin.materials.refusals import MISSING
from matdarwin.prediction.chunks import Chunk
from matdarwin.prediction.files import Table
from matdarwin.tasks.registry import nearest

STATES = "icsd24"
"""Set of oxidation states, by smact's name."""


class CandidateError(ValueError):
    """Candidates that cannot be generated: an unknown element, a limit that lets nothing through, smact not there."""


class Generated:
    """Candidates as a table: made anew each time that it is read, so that memory does not grow with their number.

    Args:
        columns: Names of the columns, the material's first.
        rows: Makes the rows, the same ones each time.
        identity: What the rows hang on, as JSON types.

    Raises:
        CandidateError: There are none.
    """

    def __init__(
        self, columns: Sequence[str], rows: Callable[[], Iterator[list[str]]], identity: dict[str, Any]
    ) -> None:
        self.name = "generated candidates"
        self.columns = list(columns)
        self.identity = identity
        self._rows = rows
        self.count = sum(1 for _ in rows())
        if not self.count:
            raise CandidateError("nothing can be generated under these limits; allow more atoms, or other elements")

    def chunks(self, column: str, size: int) -> Iterator[Chunk]:
        """See `matdarwin.prediction.files.Table`."""
        place = self.columns.index(column)
        rows = self._rows()
        while part := list(itertools.islice(rows, size)):
            yield Chunk([cells[place] for cells in part], part)


def of_elements(
    elements: Sequence[str], *, max_elements: int = 3, max_atoms: int = 8, charge_neutral: bool = False
) -> Generated:
    """All compositions of some elements, with whole amounts that have no common divisor.

    They come by number of elements, then as the elements were given, then by rising number of atoms.

    Args:
        elements: Symbols.
        max_elements: Most different elements in a formula.
        max_atoms: Most atoms in a formula.
        charge_neutral: Only those of several elements whose oxidation states can add up to zero, with anions that are
            more electronegative than cations.

    Raises:
        CandidateError: An unknown or repeated symbol, an element without known oxidation states, or nothing to be had.
    """
    symbols = _checked(elements)
    if max_elements < 1 or max_atoms < 1:
        raise CandidateError(f"at least one element and one atom: got {max_elements} elements and {max_atoms} atoms")
    if charge_neutral:
        for symbol in symbols:
            if not _states(symbol):
                raise CandidateError(
                    f"{symbol} has no oxidation states in smact's set {STATES}; leave it out, or do without --charge-neutral"
                )

    def rows() -> Iterator[list[str]]:
        for count in range(2 if charge_neutral else 1, min(max_elements, len(symbols)) + 1):
            for chosen in itertools.combinations(symbols, count):
                charges = _charges(chosen) if charge_neutral else None
                if charges == []:
                    continue
                for amounts in _amounts(count, max_atoms):
                    if charges is None or _balances(charges, amounts):
                        yield [_formula([(s, str(n) if n > 1 else "") for s, n in zip(chosen, amounts, strict=True)])]

    identity = {"elements": symbols, "max elements": max_elements, "max atoms": max_atoms}
    return Generated(["composition"], rows, {**identity, **_rule(charge_neutral)})


def by_substitution(known: Sequence[str], *, max_replaced: int = 1, charge_neutral: bool = False) -> Generated:
    """Known compositions with elements replaced by similar ones: of the same group, with an oxidation state in common.

    Lanthanides and actinides count to group 3. No element is replaced by one that the formula has already, so that amounts
    never change. A candidate comes once, with the first composition that it can be made from; one that is known does not
    come. Memory grows with the known ones alone.

    Args:
        known: Formulas; in the order of which the candidates come.
        max_replaced: Most elements of a formula that are replaced at once.
        charge_neutral: See `of_elements`.

    Raises:
        CandidateError: There are none, or nothing to be had.
        MaterialError: A formula that is none.
    """
    if max_replaced < 1:
        raise CandidateError(f"at least one element is replaced, got {max_replaced}")
    if not known:
        raise CandidateError("no formula is given to replace elements in")
    first: dict[str, int] = {}
    parents: list[Material] = []
    for text in known:
        material = parse(text, "composition")
        if material.key not in first:
            first[material.key] = len(parents)
            parents.append(material)

    def rows() -> Iterator[list[str]]:
        for number, parent in enumerate(parents):
            # Elements of one group and amount can change places: two ways to the same candidate.
            here: set[str] = set()
            for swap in _swaps(parent.elements, max_replaced):
                key = _swapped_key(parent.key, swap)
                if key in here:
                    continue
                here.add(key)
                symbols = [swap.get(e, e) for e in parent.elements]
                # Similarity goes both ways, so that what could have made this one is found from itself.
                others = (_swapped_key(key, back) for back in _swaps(symbols, max_replaced))
                if key in first or any(first.get(other, number) < number for other in others):
                    continue
                pieces = [(swap.get(e, e), p[len(e) :]) for e, p in zip(parent.elements, parent.parts, strict=True)]
                if charge_neutral and not _neutral(key):
                    continue
                yield [_formula(pieces), parent.given]

    made = hashlib.sha256("\n".join(parent.given for parent in parents).encode()).hexdigest()
    identity = {"known": made, "max replaced": max_replaced, "smact": _smact()}
    return Generated(["composition", "from"], rows, {**identity, **_rule(charge_neutral)})


def known_of(table: Table, column: str) -> tuple[list[str], int]:
    """The compositions of a table that can be read, and the number of rows that cannot."""
    found, bad = [], 0
    for chunk in table.chunks(column, 1024):
        for place, text in enumerate(chunk.materials):
            try:
                if place in chunk.refused:
                    raise MaterialError(chunk.refused[place], given=text)
                parse(text, "composition")
            except MaterialError:
                bad += 1
            else:
                found.append(text)
    return found, bad


def similar(symbol: str) -> tuple[str, ...]:
    """Elements of the same group with an oxidation state in common, by atomic number, without itself.

    Raises:
        CandidateError: smact is not installed.
    """
    return _similar(symbol)


# -- chemistry ---------------------------------------------------------------------------------------------------


@functools.cache
def _similar(symbol: str) -> tuple[str, ...]:
    from pymatgen.core.periodic_table import Element

    group, states = Element(symbol).group, set(_states(symbol))
    return tuple(
        other
        for other in sorted(ELECTRONEGATIVITY, key=lambda s: int(Element(s).Z))
        if other != symbol and Element(other).group == group and states & set(_states(other))
    )


def _smact() -> str:
    """smact's version: its tables decide what comes.

    Raises:
        CandidateError: It is not installed.
    """
    try:
        import smact  # noqa: F401
    except ImportError as error:
        raise CandidateError("oxidation states come from smact, which is not installed: pip install smact") from error
    return version("smact")


@functools.cache
def _states(symbol: str) -> tuple[int, ...]:
    """Oxidation states of an element; none where the set does not have it."""
    _smact()
    from smact.data_loader import lookup_element_oxidation_states_icsd24

    return tuple(lookup_element_oxidation_states_icsd24(symbol) or ())


def _charges(symbols: Sequence[str]) -> list[tuple[int, ...]]:
    """Oxidation states that some elements can have beside each other, one an element: anions the more electronegative ones."""
    from smact.screening import pauling_test

    enegs = [ELECTRONEGATIVITY[symbol] for symbol in symbols]
    return [found for found in itertools.product(*map(_states, symbols)) if pauling_test(found, enegs)]


def _balances(charges: Sequence[tuple[int, ...]], amounts: Sequence[int]) -> bool:
    return any(sum(q * n for q, n in zip(states, amounts, strict=True)) == 0 for states in charges)


def _neutral(key: str) -> bool:
    """Whether a composition of this key can be neutral; its fractions are rounded, so that a sum is zero within that."""
    pairs = [_pair(piece) for piece in key.partition(":")[2].split()]
    symbols, shares = [s for s, _ in pairs], [float(x) for _, x in pairs]
    if len(symbols) < 2 or not all(map(_states, symbols)):
        return False
    return any(
        abs(sum(q * x for q, x in zip(states, shares, strict=True))) <= 0.5e-4 * sum(map(abs, states)) + 1e-12
        for states in _charges(symbols)
    )


# -- counting ----------------------------------------------------------------------------------------------------


def _amounts(count: int, most: int) -> Iterator[tuple[int, ...]]:
    """Whole numbers from 1 without a common divisor, `count` of them, by rising sum up to `most`."""
    for total in range(count, most + 1):
        # The places of the cuts of a row of `total` atoms into `count` pieces.
        for cuts in itertools.combinations(range(1, total), count - 1):
            found = tuple(b - a for a, b in zip((0, *cuts), (*cuts, total), strict=True))
            if math.gcd(*found) == 1:
                yield found


def _swaps(symbols: Sequence[str], most: int) -> Iterator[dict[str, str]]:
    """Ways to replace up to `most` elements by similar ones, each new one once and none that is there."""
    for count in range(1, min(most, len(symbols)) + 1):
        for chosen in itertools.combinations(symbols, count):
            for new in itertools.product(*map(_similar, chosen)):
                if len(set(new)) == count and not set(new) & set(symbols):
                    yield dict(zip(chosen, new, strict=True))


def _swapped_key(key: str, swap: dict[str, str]) -> str:
    """Key of a composition after its elements were replaced."""
    kind, _, pieces = key.partition(":")
    found = sorted((swap.get(symbol, symbol), share) for symbol, share in map(_pair, pieces.split()))
    return f"{kind}:{' '.join(symbol + share for symbol, share in found)}"


def _pair(piece: str) -> tuple[str, str]:
    """Symbol and number of a piece such as Ga0.5000."""
    symbol = piece.rstrip("0123456789.")
    return symbol, piece[len(symbol) :]


def _formula(pieces: Sequence[tuple[str, str]]) -> str:
    """Symbols and amounts as a formula that reads as they do."""
    words = [symbol + amount for symbol, amount in pieces]
    joined = "".join(words)
    # Joined, sodium and nitrogen spell a missing value (NaN), and so do iodine, nitrogen and fluorine (INF).
    apart = joined in MISSING or any("." in amount for _, amount in pieces)
    return " ".join(words) if apart else joined


def _checked(elements: Sequence[str]) -> list[str]:
    """The symbols, made sure of."""
    found: list[str] = []
    for given in elements:
        symbol = given.strip()
        if symbol not in ELECTRONEGATIVITY:
            near = nearest(symbol, list(ELECTRONEGATIVITY))
            hint = f"; did you mean {near[0]}?" if near else "; write symbols such as Cd,Zn,S"
            raise CandidateError(f"{symbol!r} is no element{hint}")
        if symbol in found:
            raise CandidateError(f"element {symbol} is named twice")
        found.append(symbol)
    if not found:
        raise CandidateError("no element is named; write symbols such as Cd,Zn,S")
    return found


def _rule(charge_neutral: bool) -> dict[str, Any]:
    return {
        "charge neutral": charge_neutral,
        **({"smact": _smact(), "oxidation states": STATES} if charge_neutral else {}),
    }
