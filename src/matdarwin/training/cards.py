"""What a checkpoint remembers of each of its tasks: how many rows each part had, which materials, and of what elements."""

from __future__ import annotations

from collections import Counter

from matdarwin.data import leakage
from matdarwin.data.leakage import Split
from matdarwin.language.prompts import wordings_hash
from matdarwin.models.checkpoint import TaskCard
from matdarwin.tasks.schema import Example, Task


def _parts(split: Split, task: Task) -> list[tuple[str, list[Example]]]:
    """A task's parts by name."""
    return [
        ("train", split.train[task.id]),
        ("validation", split.validation[task.id]),
        ("calibration", split.calibration[task.id]),
        ("test", split.test.get(task.id, [])),
    ]


def parts_of(split: Split, task: Task) -> dict[str, str]:
    """Hash of the materials in each part of a task, as its checkpoint remembers them."""
    return {name: leakage.keys_hash(rows) for name, rows in _parts(split, task)}


def task_card(task: Task, split: Split) -> TaskCard:
    """A task's entry in a checkpoint's card.

    Args:
        task: The task.
        split: The division of its rows that teaches.
    """
    train: list[Example] = split.train[task.id]
    elements = Counter(symbol for example in train for symbol in set(example.material.elements))
    shares: dict[str, float] = {}
    if task.kind == "classification":
        count = Counter(str(example.target) for example in train)
        shares = {label: count[label] / max(len(train), 1) for label in task.labels}
    return TaskCard(
        task=task,
        wordings=wordings_hash(task),
        counts={
            **{name: len(rows) for name, rows in _parts(split, task)},
            **{f"removed: {reason}": n for reason, n in split.removed.items() if reason.startswith(f"{task.id}:")},
        },
        elements=dict(sorted(elements.items())),
        shares=shares,
        data_sha256=task.data_sha256(),
        spreads={example.material.key: example.spread for example in train if example.spread > 0},
        parts=parts_of(split, task),
    )
