"""A task checked against its data: are the columns there, do the rows parse, is what it declares to be found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from matdarwin.data import custom, folds
from matdarwin.data.cards import away, rejected
from matdarwin.data.readers import CONFLICT, REPEAT, names, read
from matdarwin.data.sources import DataError
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task


@dataclass(frozen=True)
class Checked:
    """What was found of a task that fits the schema.

    Attributes:
        task: Its id.
        rows_read: Rows of its files; None where they are not on this machine.
        rows: Those that are examples.
        declared: Those that the task itself says are left out, counted by column and cause.
        rejected: The others, counted so.
        remarks: What else is wrong or cannot be checked, a sentence each.
    """

    task: str
    rows_read: int | None
    rows: int | None
    declared: dict[str, int]
    rejected: dict[str, int]
    remarks: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether every row is an example, or left out as declared, and nothing else is to be said."""
        return not self.rejected and not self.remarks


def check(task: Task) -> Checked:
    """Check a task against its data; nothing is fetched.

    Raises:
        DataError: The data are not what the task says (checksum, encoding, columns), or no row can be read.
    """
    remarks: list[str] = []
    if task.id in registry.names() and registry.load(task.id) != task:
        remarks.append(f"{task.id!r} is the id of a task of the library too; give it another")
    remarks += _conditions(task)
    reason = away(task)
    if reason is not None:
        return Checked(task.id, None, None, {}, {}, (*remarks, f"its rows could not be checked: {reason}"))
    table = read(task)
    names(task)  # are the columns there?
    if not table.examples:
        shown = "; ".join(f"row {reject.row}: {reject.reason}" for reject in table.rejects[:3])
        raise DataError(f"task {task.id}: none of its {table.rows_read} rows can be read ({shown})")
    if task.kind == "classification":
        counts = Counter(str(example.target) for example in table.examples)
        for label in task.labels:
            if not counts[label]:
                remarks.append(f"no row has the label {label!r}")
    elif task.reader.scale is None and not task.reader.log10:
        try:
            custom.check_unit(Path(task.source.path or task.source.name), task.reader.target, task.unit)
        except DataError as error:
            remarks.append(str(error))
    try:
        folds.assign(table)
    except DataError as error:
        remarks.append(str(error))
    causes = rejected(table)
    declared = {cause: count for cause, count in causes.items() if cause in _declared(task)}
    unused = [one for one in task.known_rejects if one not in causes]
    remarks += [f"known_rejects: no row is rejected by {one!r}; leave it out" for one in unused]
    others = {cause: count for cause, count in causes.items() if cause not in declared}
    return Checked(task.id, table.rows_read, len(table.examples), declared, others, tuple(remarks))


def _declared(task: Task) -> set[str]:
    """Causes of rejects that the task states, as cards count them."""
    reader = task.reader
    causes = {f"{column}: {reason}" for column, reasons in reader.drop.items() for reason in reasons.values()}
    causes |= {REPEAT} if reader.unique else set()
    causes |= {f"{reader.target}: {CONFLICT}"} if reader.conflicts == "drop" else set()
    return causes | set(task.known_rejects)


def _conditions(task: Task) -> list[str]:
    """Conditions that no question can state well."""
    remarks = []
    for condition in task.conditions:
        column = task.reader.conditions.get(condition.name)
        if column is None:
            remarks.append(
                f"condition {condition.name!r} has no column; name it under reader.conditions, or leave it out"
            )
            continue
        lacking = [str(place) for place, wording in enumerate(task.wordings) if "{conditions}" not in wording]
        if lacking:
            remarks.append(
                f"column {column!r}: wording {', '.join(lacking)} (from 0) does not say where the condition "
                f"{condition.name!r} goes, so it is put in front; write {{conditions}} where it belongs"
            )
    return remarks
