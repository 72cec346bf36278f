"""Test folds: the official ones, or five seeded ones in which equal materials always stand together."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from matdarwin.data.readers import Table, read
from matdarwin.data.sources import DataError
from matdarwin.materials.material import Material
from matdarwin.tasks.schema import Example, Task

Scheme = Literal["official", "aligned", "seeded"]
"""official: a task's own folds where it has them, else seeded. seeded: five by key for all.
aligned: as official, but a key that the task's leader has takes the fold that it has in the leader's own folds. A task has
one leader, so a key that it shares with other tasks alone may stand in other folds there, and so may the leader's own, where
that has a leader itself."""

FOLDS = 5
_SEED = 0  # part of what a fold is: changing it makes every published score incomparable
_QUANTILES = 10


def order(salt: str, key: str) -> float:
    """A number in [0, 1) drawn for a key: the same on every machine, whatever other keys there are."""
    return int.from_bytes(hashlib.sha256(f"{salt}|{key}".encode()).digest()[:8], "big") / 2**64


def groups(examples: Sequence[Example]) -> list[list[int]]:
    """Places of the examples that belong together because they share a key, directly or through others.

    Returns:
        Groups in the order of their first example; each a list of places in `examples`, rising.
    """
    root = roots(example.material for example in examples)
    found: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        found.setdefault(root(example.material.key), []).append(place)
    return list(found.values())


def roots(materials: Iterable[Material]) -> Callable[[str], str]:
    """The closure of keys: two of them have one root if some materials join them, directly or through others.

    Args:
        materials: Each joins all of its keys.

    Returns:
        The root of a key; a key of no material is its own.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for material in materials:
        first = root(material.key)
        for other in material.keys:
            parent[root(other)] = first
    return root


def assign(table: Table, *, scheme: Scheme = "official", leader: Task | None = None) -> list[Example]:
    """The examples of a table with their test fold set, in the table's order.

    Args:
        table: What the reader gave.
        scheme: See `Scheme`.
        leader: For `aligned`: the task whose own folds (not aligned to yet another's) the shared keys take; None where
            the task leads itself.

    Raises:
        DataError: Fewer groups of keys than folds.
    """
    task = table.task
    if scheme == "aligned" and leader is not None and leader.id != task.id:
        return _aligned(table, assign(read(leader)))
    if scheme != "seeded" and task.folds == "official":
        return list(table.examples)
    return _seeded(task, table.examples)


def _seeded(task: Task, examples: Sequence[Example], taken: dict[str, int] | None = None) -> list[Example]:
    """Five folds, stratified by class or by quantile of the target; keys in `taken` keep the fold they have there."""
    together = groups(examples)
    if len(together) < FOLDS:
        raise DataError(f"task {task.id}: {len(together)} different materials do not make {FOLDS} folds")
    strata = _strata(task, examples, together)
    folds = [-1] * len(together)
    total = [0] * FOLDS
    within: dict[int, list[int]] = {}

    def put(group: int, fold: int) -> None:
        folds[group] = fold
        total[fold] += len(together[group])
        within.setdefault(strata[group], [0] * FOLDS)[fold] += len(together[group])

    free = []
    for group, places in enumerate(together):
        fold = (
            next((taken[key] for place in places for key in examples[place].material.keys if key in taken), None)
            if taken
            else None
        )
        if fold is None:
            free.append(group)
        else:
            put(group, fold)
    names = [min(examples[place].material.key for place in places) for places in together]
    # Large groups first, so that the small ones level the folds; the draw decides among equals.
    free.sort(key=lambda group: (strata[group], -len(together[group]), order(f"fold|{_SEED}", names[group])))
    for group in free:
        counts = within.setdefault(strata[group], [0] * FOLDS)
        put(group, min(range(FOLDS), key=lambda fold: (counts[fold], total[fold], fold)))
    result = list(examples)
    for group, places in enumerate(together):
        for place in places:
            result[place] = replace(examples[place], fold=folds[group])
    return result


def _strata(task: Task, examples: Sequence[Example], together: Sequence[Sequence[int]]) -> list[int]:
    """Stratum of each group: its commonest class, or the quantile of its median."""
    if task.kind == "classification":
        labels = [statistics.mode(sorted(str(examples[place].target) for place in places)) for places in together]
        return [task.labels.index(label) for label in labels]
    medians = [statistics.median(_floats(examples[place] for place in places)) for places in together]
    ranked = sorted(medians)
    edges = sorted({ranked[len(ranked) * part // _QUANTILES] for part in range(1, _QUANTILES)})
    return [sum(median >= edge for edge in edges) for median in medians]


def _floats(examples: Iterable[Example]) -> list[float]:
    return [float(example.target) for example in examples if example.target is not None]


def _aligned(table: Table, leading: Sequence[Example]) -> list[Example]:
    taken: dict[str, int] = {}
    for example in leading:
        if example.fold is not None:
            for key in example.material.keys:
                taken.setdefault(key, example.fold)
    return _seeded(table.task, table.examples, taken)


def leader(task: Task, among: Sequence[Task] = ()) -> Task | None:
    """The one task whose folds a task takes when folds are aligned.

    The one that declares (`leads`) that it leads a quantity of the task's, in the list or in the library, so that a
    single-task and a multi-task run have the same folds; else the first of the list that shares a quantity with it, which
    depends on the list. The leader may have a leader of its own, whose folds are then not the task's.
    """
    from matdarwin.tasks import registry

    library = [registry.load(name) for name in registry.names()]
    for quantity in task.quantities:
        for candidate in [*among, *library]:
            if quantity in candidate.leads:
                return candidate
    return next((other for other in among if set(other.quantities) & set(task.quantities)), None)
