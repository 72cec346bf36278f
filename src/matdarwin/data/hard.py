"""Hard splits beside the five folds: an element, a chemical system, a scaffold or a range that training never saw.

Rows that share a key, directly or through others, always stand on one side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from matdarwin.data.folds import FOLDS, groups, order
from matdarwin.data.sources import DataError
from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.tasks.schema import Example

Sides = tuple[list[Example], list[Example]]
"""Training and test rows, each in the order given."""


def leave_element_out(examples: Sequence[Example], element: str) -> Sides:
    """Test on all rows that contain an element, train on those without it.

    Raises:
        DataError: It is no element, a material is a name (which has no elements), or no row or every row contains it.
    """
    if element not in ELECTRONEGATIVITY:
        raise DataError(f"{element!r} is no element; write a symbol, such as O or Fe")
    _need_elements(examples, "leave-one-element-out")
    held = [any(element in examples[place].material.elements for place in places) for places in groups(examples)]
    if not any(held):
        raise DataError(f"no row contains {element}, so it cannot be left out; {_occurring(examples)}")
    if all(held):
        raise DataError(f"every row contains {element}: without it, nothing is left to train on")
    return _sides(examples, held)


def by_chemical_system(examples: Sequence[Example], *, folds: int = FOLDS, seed: int = 0) -> list[Example]:
    """Set the test fold so that all materials of one set of elements, whatever their amounts, stand together.

    Args:
        examples: Compositions or molecules.
        folds: Number of folds.
        seed: Seed that decides among systems of equal size.

    Returns:
        The examples in their order with `fold` set. The folds are as even as whole systems allow.

    Raises:
        DataError: A material is a name, or there are fewer chemical systems than folds.
    """
    _need_elements(examples, "the split by chemical system")
    return _folded(
        examples, lambda row: "-".join(sorted(row.material.elements)), "chemical systems", folds=folds, seed=seed
    )


def by_scaffold(examples: Sequence[Example], *, folds: int = FOLDS, seed: int = 0) -> list[Example]:
    """Set the test fold so that all molecules of one Murcko scaffold stand together.

    The scaffold is the rings and what links them, without stereochemistry (Bemis and Murcko 1996,
    doi 10.1021/jm9602928), by RDKit. Molecules without a ring all have the empty one, as is the custom (MoleculeNet,
    arXiv 1703.00564), and may make one fold much larger than the others.

    Args:
        examples: Molecules.
        folds: Number of folds.
        seed: Seed that decides among scaffolds of equal size.

    Returns:
        The examples in their order with `fold` set. The folds are as even as whole scaffolds allow.

    Raises:
        DataError: A material is no molecule, or there are fewer scaffolds than folds.
    """
    if other := next((row for row in examples if row.material.kind != "molecule"), None):
        raise DataError(
            f"scaffolds belong to molecules; {_row(other)} is a {other.material.kind}; "
            "for compositions there is the split by chemical system"
        )
    return _folded(examples, _scaffold, "scaffolds", folds=folds, seed=seed)


def extrapolate(examples: Sequence[Example], share: float = 0.2) -> Sides:
    """Test on the materials with the highest targets, train on the others.

    A material with several rows (conditions) goes by its greatest, so no training row reaches a test material's best.

    Args:
        examples: Rows of one regression task.
        share: Part of the rows to test on; more where values at the limit are equal, since equal ones stand together.

    Raises:
        DataError: The share is not between 0 and 1, a target is no number, or all rows would be test rows.
    """
    if not 0 < share < 1:
        raise DataError(f"the share of rows to test on must lie between 0 and 1, got {share}")
    if not examples:
        raise DataError("there are no rows to split")
    together = groups(examples)
    best = [max(_value(examples[place]) for place in places) for places in together]
    limit, reached = 0.0, 0
    for number in sorted(range(len(together)), key=lambda number: -best[number]):
        if reached >= share * len(examples):
            break
        limit = best[number]
        reached += len(together[number])
    held = [value >= limit for value in best]
    if all(held):
        raise DataError(
            f"every material reaches {limit:g}, the limit of the highest {share:.0%}, so nothing is left to train on; "
            "take a smaller share"
        )
    return _sides(examples, held)


def _folded(
    examples: Sequence[Example], label: Callable[[Example], str], what: str, *, folds: int, seed: int
) -> list[Example]:
    """Folds in which rows of one label, and of one key, stand together; the largest groups are placed first."""
    if folds < 2:
        raise DataError(f"a split needs two or more folds, got {folds}")
    # A label that joins the keys has its groups found in the same way.
    joined = [
        replace(row, material=replace(row.material, keys=(*row.material.keys, f"label:{label(row)}")))
        for row in examples
    ]
    together = groups(joined)
    if len(together) < folds:
        raise DataError(f"{len(together)} {what} do not make {folds} folds")
    names = [min(examples[place].material.key for place in places) for places in together]
    largest = sorted(
        range(len(together)), key=lambda group: (-len(together[group]), order(f"hard|{seed}", names[group]))
    )
    result = list(examples)
    total = [0] * folds
    for group in largest:
        fold = min(range(folds), key=lambda fold: (total[fold], fold))
        total[fold] += len(together[group])
        for place in together[group]:
            result[place] = replace(examples[place], fold=fold)
    return result


def _sides(examples: Sequence[Example], held: Sequence[bool]) -> Sides:
    test = {place for places, out in zip(groups(examples), held, strict=True) if out for place in places}
    train = [row for place, row in enumerate(examples) if place not in test]
    return train, [row for place, row in enumerate(examples) if place in test]


def _scaffold(example: Example) -> str:
    from rdkit import rdBase
    from rdkit.Chem.Scaffolds import MurckoScaffold

    scaffolds: Any = MurckoScaffold  # RDKit declares no types for it.
    with rdBase.BlockLogs():  # it warns of each hydrogen that is written out, as polymers have them
        return str(scaffolds.MurckoScaffoldSmiles(example.material.text))


def _value(example: Example) -> float:
    if not isinstance(example.target, int | float):
        raise DataError(f"extrapolation needs numbers; {_row(example)} has the target {example.target!r}")
    return float(example.target)


def _need_elements(examples: Sequence[Example], what: str) -> None:
    if other := next((row for row in examples if not row.material.elements), None):
        raise DataError(
            f"{what} needs the elements of a material; {_row(other)} is a {other.material.kind} without any"
        )


def _occurring(examples: Sequence[Example]) -> str:
    found = sorted({symbol for row in examples for symbol in row.material.elements})
    return f"those that occur are {', '.join(found)}" if found else "there are no rows"


def _row(example: Example) -> str:
    return f"row {example.row} of task {example.task} ({example.material.text[:60]})"
