"""The card of a task: what its files hold, what was refused and why, in a form for people and for JSON."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from matdarwin.data import folds, tablecache
from matdarwin.data.leakage import merge
from matdarwin.data.readers import Table, read
from matdarwin.data.sources import DataError, absent, fetch, locate
from matdarwin.tasks.schema import Example, Task

BINS = 20
"""Bins of a histogram."""


class Numbers(TypedDict):
    """Summary of numeric targets, in the task's unit, over all rows kept."""

    least: float
    lower_quartile: float
    median: float
    upper_quartile: float
    greatest: float
    mean: float
    zeros: int


class Histogram(TypedDict):
    """Rows by target: `counts` of equally wide bins, in the task's unit; bin i holds edges[i] <= target < edges[i + 1].

    The last bin holds its upper edge too.
    """

    edges: list[float]
    counts: list[int]


class Merged(TypedDict):
    """What merging rows of one key (and condition) does, over the whole file.

    `materials`: different keys with several rows under one condition (or none). `rows`: rows merged into another.
    `tied_rows`: rows dropped because their classes tie. `disagreeing`: those of the materials of which such rows differ.
    `median_spread`, `greatest_spread`: greatest minus least target of the rows that are merged into one, in the unit; null
    for classes or where none repeats.
    """

    materials: int
    rows: int
    tied_rows: int
    disagreeing: int
    median_spread: float | None
    greatest_spread: float | None


class Refused(TypedDict):
    """A rejected row: its number (the first below the header is 1), column, text and reason."""

    row: int
    column: str
    text: str
    reason: str


class Card(TypedDict):
    """All that is to be said of a task. From `rows` to `merged` null where a source is not on this machine.

    `missing` then says why. `folds`: rows of each test fold, from fold 0; null also where there are too few
    materials to make any. `targets`: `Numbers`, or rows by label. `histogram`: of numbers, else null.
    """

    id: str
    version: int
    kind: str
    scored: bool
    title: str
    property: str
    quantities: list[str]
    origin: str
    unit: str | None
    bounds: list[float] | None
    decimals: int | None
    labels: list[str]
    representation: str
    conditions: list[dict[str, Any]]
    wordings: list[str]
    metric: str
    board: str | None
    fold_kind: str
    licence: str
    citation: str
    description: str
    notes: list[str]
    source: dict[str, Any]
    extra_sources: list[dict[str, Any]]
    missing: str | None
    rows: int | None
    rows_read: int | None
    rejected: dict[str, int] | None
    rejects: list[Refused] | None
    materials: int | None
    folds: list[int] | None
    targets: Numbers | dict[str, int] | None
    histogram: Histogram | None
    merged: Merged | None


def card(task: Task, *, rejects: int = 20) -> Card:
    """The card of a task. Nothing is fetched: what is not on this machine is null.

    Args:
        task: The task.
        rejects: Most rejected rows to list.
    """
    missing: str | None = None
    table: Table | None = None
    assigned: list[Example] = []
    try:
        missing = away(task)
        if missing is None:
            table = read(task)
            assigned = folds.assign(table)
    except DataError as error:
        missing = str(error)
    given = task.model_dump(mode="json")
    sizes = Counter(example.fold for example in assigned if example.fold is not None)
    return Card(
        id=task.id,
        version=task.version,
        kind=task.kind,
        scored=task.scored,
        title=task.title,
        property=task.property,
        quantities=list(task.quantities),
        origin=task.origin,
        unit=task.unit,
        bounds=None if task.bounds is None else list(task.bounds),
        decimals=task.decimals,
        labels=list(task.labels),
        representation=task.representation,
        conditions=given["conditions"],
        wordings=list(task.wordings),
        metric=task.metric,
        board=task.board,
        fold_kind=task.folds,
        licence=task.licence,
        citation=task.citation,
        description=task.description,
        notes=list(task.notes),
        source=given["source"],
        extra_sources=given["extra_sources"],
        missing=missing,
        rows=None if table is None else len(table.examples),
        rows_read=None if table is None else table.rows_read,
        rejected=None if table is None else rejected(table),
        rejects=None
        if table is None
        else [Refused(row=r.row, column=r.column, text=r.text, reason=r.reason) for r in table.rejects[:rejects]],
        materials=None if table is None else len({example.material.key for example in table.examples}),
        folds=None if not assigned else [sizes[fold] for fold in sorted(sizes)],
        targets=None if table is None else _targets(task, table.examples),
        histogram=None if table is None else histogram(task, table.examples),
        merged=None if table is None else _merged(task, table.examples),
    )


class Listed(TypedDict):
    """A task in the list of tasks. `rows`, `rows_read`, `materials` and `folds` null where its data cannot be had.

    `missing` then says why.
    """

    id: str
    kind: str
    scored: bool
    rows: int | None
    rows_read: int | None
    materials: int | None
    unit: str | None
    fold_kind: str
    folds: int | None
    property: str
    quantities: list[str]
    representation: str
    licence: str
    source: str
    missing: str | None


def listed(task: Task) -> Listed:
    """A task for the list of tasks; a table that was parsed before is not built anew. Nothing is fetched."""
    found: tablecache.Counts | None = None
    try:
        missing = away(task)
        if missing is None:
            found = counted(task)
    except DataError as error:
        missing = str(error)
    return Listed(
        id=task.id,
        kind=task.kind,
        scored=task.scored,
        rows=None if found is None else found.rows,
        rows_read=None if found is None else found.rows_read,
        materials=None if found is None else found.materials,
        unit=task.unit,
        fold_kind=task.folds,
        folds=None if found is None else found.folds or (folds.FOLDS if found.materials >= folds.FOLDS else None),
        property=task.property,
        quantities=list(task.quantities),
        representation=task.representation,
        licence=task.licence,
        source=origin(task.model_dump(mode="json")["source"]),
        missing=missing,
    )


def counted(task: Task) -> tablecache.Counts:
    """Rows and materials of a task whose sources are on this machine; parsed only where they are not kept.

    Raises:
        DataError: A source cannot be had, is not what was pinned, or cannot be read.
    """
    for source in task.sources():
        fetch(source)  # a changed file is told, though its table is kept
    return tablecache.counts(task) or tablecache.count(read(task))


def away(task: Task) -> str | None:
    """Why the data of a task are not on this machine; None where they are.

    Raises:
        DataError: The mirror is set to what is no folder.
    """
    return next((absent(source) for source in task.sources() if locate(source) is None), None)


def origin(source: Mapping[str, Any]) -> str:
    """Where a source comes from, in words: `github owner/name @ commit: path`."""
    at = (
        f" @ {source['version']}"
        if source["kind"] == "github"
        else f" {source['version']}"
        if source["version"]
        else ""
    )
    return f"{source['kind']} {source['name']}{at}" + (f": {source['path']}" if source["path"] else "")


def public(cards: Sequence[Card]) -> dict[str, Any]:
    """Cards as they are published: without rows of the data, and without what holds for one machine alone.

    Raises:
        DataError: The data of a task are not on this machine.
    """
    for one in cards:
        if one["missing"] is not None:
            raise DataError(f"task {one['id']}: {one['missing']}")
    return {"tasks": [{key: value for key, value in one.items() if key not in ("rejects", "missing")} for one in cards]}


def rejected(table: Table) -> dict[str, int]:
    """Rejected rows counted by column and cause, most first."""
    counts = Counter(f"{reject.column}: {reject.cause}" if reject.column else reject.cause for reject in table.rejects)
    return dict(counts.most_common())


def _targets(task: Task, examples: Sequence[Example]) -> Numbers | dict[str, int] | None:
    if task.kind == "classification":
        counts = Counter(str(example.target) for example in examples)
        return {label: counts[label] for label in task.labels}
    values = [float(example.target) for example in examples if example.target is not None]
    if len(values) < 2:
        return None
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Numbers(
        least=min(values),
        lower_quartile=lower,
        median=median,
        upper_quartile=upper,
        greatest=max(values),
        mean=statistics.fmean(values),
        zeros=values.count(0.0),
    )


def histogram(task: Task, examples: Sequence[Example]) -> Histogram | None:
    """Histogram of numeric targets from the least to the greatest; None for classes, or where all are equal."""
    values = [float(example.target) for example in examples if example.target is not None and task.kind == "regression"]
    if not values or min(values) == max(values):
        return None
    low, high = min(values), max(values)
    edges = [float(f"{low + (high - low) * place / BINS:.6g}") for place in range(BINS + 1)]
    # By the rounded edges, so that what is published holds to the row.
    counts = Counter(min(max(bisect_right(edges, value) - 1, 0), BINS - 1) for value in values)
    return Histogram(edges=edges, counts=[counts[place] for place in range(BINS)])


def _merged(task: Task, examples: Sequence[Example]) -> Merged:
    together: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        together[repr((example.material.key, sorted(example.conditions.items())))].append(example)
    repeated = [rows for rows in together.values() if len(rows) > 1]
    removed: Counter[str] = Counter()
    merged = merge(task, [row for rows in repeated for row in rows], removed)
    spreads = [example.spread for example in merged] if task.kind == "regression" else []
    tied = removed[f"{task.id}: classes of one key tie"]
    return Merged(
        materials=len({rows[0].material.key for rows in repeated}),
        rows=sum(map(len, repeated)) - len(merged) - tied,
        tied_rows=tied,
        disagreeing=len({rows[0].material.key for rows in repeated if len({row.target for row in rows}) > 1}),
        median_spread=statistics.median(spreads) if spreads else None,
        greatest_spread=max(spreads) if spreads else None,
    )
