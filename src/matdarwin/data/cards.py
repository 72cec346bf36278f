"""The card of a task: what its file holds, what was refused and why, in a form for people and for JSON."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, TypedDict

from matdarwin.data import folds
from matdarwin.data.leakage import merge
from matdarwin.data.readers import Table, read
from matdarwin.data.sources import DataError, locate
from matdarwin.tasks.schema import Example, Task


class Numbers(TypedDict):
    """Summary of numeric targets, in the task's unit, over all rows kept."""

    least: float
    lower_quartile: float
    median: float
    upper_quartile: float
    greatest: float
    mean: float
    zeros: int


class Merged(TypedDict):
    """What merging rows of one key (and condition) does, over the whole file.

    `materials`: keys with several rows. `rows`: rows merged into another. `tied_rows`: rows dropped because
    their classes tie. `disagreeing`: merged materials whose rows differ. `median_spread`, `greatest_spread`:
    greatest minus least target of a repeated material, in the unit; null for classes or where none repeats.
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
    """All that is to be said of a task. From `rows` to `merged` null where the source is not on this machine.

    `missing` then says why. `folds`: rows of each test fold, from fold 0; null also where there are too few
    materials to make any. `targets`: `Numbers`, or rows by label.
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
    missing: str | None
    rows: int | None
    rows_read: int | None
    rejected: dict[str, int] | None
    rejects: list[Refused] | None
    materials: int | None
    folds: list[int] | None
    targets: Numbers | dict[str, int] | None
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
        if locate(task.source) is None:
            way = "it cannot be fetched:" if task.source.kind == "mirror" else "darwin data fetch brings it, or"
            missing = f"the source is not on this machine; {way} set MATDARWIN_MIRROR to a folder that holds it"
        else:
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
        missing=missing,
        rows=None if table is None else len(table.examples),
        rows_read=None if table is None else table.rows_read,
        rejected=None if table is None else _rejected(table),
        rejects=None
        if table is None
        else [Refused(row=r.row, column=r.column, text=r.text, reason=r.reason) for r in table.rejects[:rejects]],
        materials=None if table is None else len({example.material.key for example in table.examples}),
        folds=None if not assigned else [sizes[fold] for fold in sorted(sizes)],
        targets=None if table is None else _targets(task, table.examples),
        merged=None if table is None else _merged(task, table.examples),
    )


def _rejected(table: Table) -> dict[str, int]:
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
        materials=len(repeated),
        rows=sum(map(len, repeated)) - len(merged) - tied,
        tied_rows=tied,
        disagreeing=sum(len({row.target for row in rows}) > 1 for rows in repeated),
        median_spread=statistics.median(spreads) if spreads else None,
        greatest_spread=max(spreads) if spreads else None,
    )
