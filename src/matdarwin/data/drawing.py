"""Which keys go to validation and calibration, and which rows are a sample: drawn by a number of the key alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from matdarwin.data.folds import groups, order
from matdarwin.tasks.schema import Example

LEAST_CALIBRATION = 30
"""Fewest keys that a calibration is made of; a task that cannot spare them gets none and stays uncalibrated."""

_LEAST_VALIDATION = 10


def draw(
    examples: Sequence[Example], scored: Sequence[str], seed: int, validation: float, calibration: float, minimum: int,
    *, calibrated: Collection[str] | None = None,
) -> list[str]:  # fmt: skip
    """The part that each example goes to; examples that share a key go together.

    Args:
        examples: Merged examples of one cluster of tasks.
        scored: Ids of the tasks that have validation and calibration rows.
        seed: Seed of the draw.
        validation: Share of the keys for validation.
        calibration: Share of the keys for calibration.
        minimum: Fewest calibration keys a task, at most a third of what it has.
        calibrated: Ids of the scored tasks that have intervals to calibrate; None: all. Rows of the others teach, but for
            those whose key is drawn for one of these.

    Returns:
        "train", "validation" or "calibration" for each example.
    """
    together = groups(examples)
    names = [min(examples[place].material.key for place in places) for places in together]
    members = [{examples[place].task for place in places} for places in together]
    sizes = {task: sum(task in inside for inside in members) for task in scored}
    part = ["train"] * len(together)

    def fill(name: str, share: float, least: dict[str, int]) -> None:
        rank = {group: order(f"{name}|{seed}", names[group]) for group in range(len(together))}
        free = [group for group in sorted(rank, key=rank.__getitem__) if part[group] == "train"]
        for group in free:
            if rank[group] < share and not members[group].isdisjoint(least):
                part[group] = name
        for task, count in least.items():
            missing = count - sum(task in members[group] for group in range(len(together)) if part[group] == name)
            more = [group for group in free if task in members[group] and part[group] == "train"]
            for group in more[: max(missing, 0)]:
                part[group] = name

    mine = scored if calibrated is None else [task for task in scored if task in calibrated]
    able = {task: sizes[task] for task in mine if sizes[task] // 3 >= LEAST_CALIBRATION}
    if calibration > 0 and able:
        fill("calibration", calibration, {task: min(minimum, size // 3) for task, size in able.items()})
    if validation > 0:
        # The draw is among the keys that calibration left, hence the larger share of fewer.
        left = 1 - calibration if mine else 1
        least = {task: min(_LEAST_VALIDATION, int(size * validation)) for task, size in sizes.items()}
        fill("validation", validation / left, least)
    result = ["train"] * len(examples)
    for group, places in enumerate(together):
        for place in places:
            result[place] = part[group]
    return result


def sample(examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
    """A seeded sample of so many examples, in the order of the examples; that of a smaller limit is part of that of a larger one."""
    drawn = sorted(
        range(len(examples)),
        key=lambda place: order(f"limit|{seed}", f"{examples[place].material.key}|{examples[place].row}"),
    )
    return [examples[place] for place in sorted(drawn[:limit])]
