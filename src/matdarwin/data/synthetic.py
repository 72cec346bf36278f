"""Synthetic controls: a task's rows with their meaning taken out, to see what of auxiliary data it is that helps.

Each takes one thing more away (DARWIN 1.5, arXiv 2412.11970, which has three of these names and defines two):

| control | materials | values | what is left |
|---|---|---|---|
| syn1 | real | real ones, dealt out anew | both distributions, not which value belongs to which material |
| syn3 | random | real ones | the distribution of the values, and the format |
| syn2 | random | random | the format |

Values are dealt out by permutation and not drawn from the empirical distribution: it keeps the distribution exactly
(every zero of a metal, every count of a class), so that nothing but the association is lost. In syn2 they are uniform
over the observed range, or over the labels: dealt out anew, random materials would make it the same as syn3.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

from matdarwin.data.sampling import bits, permutation
from matdarwin.data.sources import DataError
from matdarwin.materials import parse_composition
from matdarwin.materials.material import Material
from matdarwin.tasks.schema import Example, Task

Control = Literal["syn1", "syn2", "syn3"]

_ATTEMPTS = 1_000


def control(
    task: Task, examples: Sequence[Example], which: Control, *, seed: int, avoid: Collection[str] = ()
) -> list[Example]:
    """Synthetic examples, one for each of the rows given, in their order.

    Rows that share a material share a random one afterwards, and conditions stay where they are. A random composition
    has the amounts of another material of the task and elements drawn evenly from those that occur in it, so that the
    numbers of elements and the amounts have the task's own distribution. Evidence speaks of a real material: it stays
    in syn1 and goes in the others.

    Args:
        task: The task.
        examples: Its training rows; test rows have no place here, since syn1 has their materials.
        which: The control.
        seed: Seed of all that is drawn.
        avoid: Keys that no random material may have, such as those of other tasks; the rows' own are avoided anyway.

    Returns:
        Examples of the same task, `row` marked with the control's name, `spread` 0; a random material has no fold.

    Raises:
        DataError: Fewer than two rows or materials, a row without target, random materials asked for other than
            compositions, or a composition that leaves no other one to be drawn.
    """
    if len(examples) < 2:
        raise DataError(
            f"task {task.id}: {which} deals out anew what rows have, and needs two or more, got {len(examples)}"
        )
    if empty := next((row.row for row in examples if row.target is None), None):
        raise DataError(f"task {task.id}: row {empty} has no target; {which} is made of training rows")
    salt = f"{which}|{seed}|{task.id}"
    marked = [replace(row, row=f"{which}-{row.row}", spread=0.0) for row in examples]
    if which == "syn1":
        source = _moved(f"{salt}|values", len(marked))
        return [replace(row, target=marked[place].target) for row, place in zip(marked, source, strict=True)]
    values = [row.target for row in marked] if which == "syn3" else _uniform(task, marked, f"{salt}|values")
    materials = _random_materials(task, marked, which, salt, avoid)
    return [
        replace(row, material=materials[row.material.key], target=value, evidence=(), fold=None)
        for row, value in zip(marked, values, strict=True)
    ]


def _moved(salt: str, count: int) -> list[int]:
    """For each place another, each once: one step along a random round trip, so nothing stays where it was."""
    order = permutation(salt, count).tolist()
    source = [0] * count
    for here, there in zip(order, [*order[1:], order[0]], strict=True):
        source[here] = there
    return source


def _uniform(task: Task, examples: Sequence[Example], salt: str) -> list[float | str]:
    """Labels, each equally likely; or numbers from the least to the greatest that occur, with the task's decimals."""
    drawn = bits(salt, len(examples))
    if task.kind == "classification":
        return [task.labels[int(number) % len(task.labels)] for number in drawn]
    targets = [float(row.target) for row in examples if row.target is not None]
    low, high = min(targets), max(targets)
    # Rounding may lead past the ends, which may be the task's bounds.
    values = [round(low + (high - low) * int(number) / 2**64, task.decimals) for number in drawn]
    return [min(max(value, low), high) for value in values]


def _random_materials(
    task: Task, examples: Sequence[Example], which: Control, salt: str, avoid: Collection[str]
) -> dict[str, Material]:
    """Real key -> random composition; no two are equal, and none is real."""
    real = {row.material.key: row.material for row in examples}
    if other := next((material.kind for material in real.values() if material.kind != "composition"), None):
        raise DataError(
            f"task {task.id}: {which} needs random materials of the same format, which can be made of compositions "
            f"alone, and its rows have a {other}; use syn1"
        )
    if len(real) < 2:
        raise DataError(f"task {task.id}: {which} needs two or more different materials, got {len(real)}")
    taken = {key for row in examples for key in row.material.keys} | set(avoid)
    symbols = sorted({symbol for material in real.values() for symbol in material.elements})
    amounts = [[part.lstrip(string.ascii_letters) for part in material.source_parts] for material in real.values()]
    found = {}
    # Another material's amounts: with its own, what they say of the value would stay.
    for key, place in zip(real, _moved(f"{salt}|amounts", len(real)), strict=True):
        for attempt in range(_ATTEMPTS):
            chosen = permutation(f"{salt}|{key}|{attempt}", len(symbols))
            text = " ".join(symbols[number] + amount for number, amount in zip(chosen, amounts[place], strict=False))
            material = parse_composition(text)
            if taken.isdisjoint(material.keys):
                break
        else:
            raise DataError(
                f"task {task.id}: {_ATTEMPTS} draws of {len(amounts[place])} of its {len(symbols)} elements with the "
                f"amounts {', '.join(amount or '1' for amount in amounts[place])} gave real materials alone; leave "
                "out rows of so few elements"
            )
        taken.update(material.keys)
        found[key] = material
    return found
