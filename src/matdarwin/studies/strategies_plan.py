"""What the strategy comparison costs, and in which order its units come."""

from __future__ import annotations

import bisect
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matdarwin.data import texts
from matdarwin.language.answers import grid
from matdarwin.language.prompts import Asked, Encoder, style
from matdarwin.language.writing import Writing
from matdarwin.models.base import find_base, load_tokenizer
from matdarwin.studies.strategies_units import (
    MULTIPLE,
    RIVALS,
    SINGLE,
    Size,
    Unit,
    own_rows,
    recipe_of,
    rows_of,
    scored_tasks,
)
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.options import Stage

RATE = 220.0
"""Tokens that training takes a second and thread, of the small base in fp32: what Random-MT had on an AMD EPYC under load."""

_FORWARD = 1 / 3
"""Cost of a token that is only read, of one that is learnt from."""

_EACH = {RIVALS: 20.0}
_OTHERWISE = 20.0
"""Seconds a unit beside its tokens: fitting trees; or loading, sealing and hashing a model."""

_LOOKED_AT = 200


@dataclass(frozen=True)
class Cost:
    """What one task costs a strategy.

    Attributes:
        learnt: Tokens that are learnt from.
        read: Tokens that are read to score the test rows.
        rows: Training rows.
        tests: Test rows.
    """

    learnt: int
    read: int
    rows: int
    tests: int

    @property
    def seconds(self) -> float:
        """Time by the rate above, on all cores."""
        return (self.learnt + _FORWARD * self.read) / (RATE * (os.cpu_count() or 1))


def costs(size: Size) -> dict[str, Cost]:
    """What each task costs one strategy, by its id."""
    split = own_rows(size)
    encoder = _encoder(size)
    found = {}
    for name in scored_tasks(size):
        task, rows = registry.load(name), split.train[name]
        prompt, answer = _tokens(rows, task, encoder)
        tests = len(split.test[name])
        read = tests * (prompt + answer + _branches(task, rows))
        found[name] = Cost(round(size.examples * (prompt + answer)), round(read), len(rows), tests)
    return found


def stage_tokens(size: Size) -> dict[str, int]:
    """Tokens of each earlier stage, by its name; a stage is trained once, by the first unit that needs it."""
    encoder = _encoder(size)
    found: dict[str, int] = {}
    for strategy in MULTIPLE:
        recipe = recipe_of(Unit(strategy), size)
        tasks = [registry.load(name) for name in recipe.tasks]
        for stage in recipe.before:
            rows = rows_of(recipe, tasks, size).train
            found[stage.name] = stage.optimising.epochs * sum(
                _of_source(name, rows.get(name), stage, tasks, encoder) for name in (*stage.texts, *stage.tasks)
            )
    return found


def _of_source(name: str, rows: Sequence[Example] | None, stage: Stage, tasks: Sequence[Task], encoder: Encoder) -> int:
    task = None if rows is None else registry.load(name)
    known = texts.load(name, tasks).rows if rows is None else rows
    count = min(len(known), stage.sampling.caps.get(name, len(known)))
    return round(count * sum(_tokens(known, task, encoder)))


def _encoder(size: Size) -> Encoder:
    return Encoder(load_tokenizer(find_base(recipe_of(Unit("base-mt"), size).base).folder))


def _tokens(rows: Sequence[Example], task: Task | None, encoder: Encoder) -> tuple[float, float]:
    """Mean tokens of question and of answer, over rows from all parts of the list."""
    looked = rows[:: max(1, len(rows) // _LOOKED_AT)]
    done = encoder.examples([Asked(task, row, 0, 0) for row in looked], style=style("compact"), writing=Writing())
    return statistics.fmean(len(row.prompt) for row in done), statistics.fmean(len(row.answer) for row in done)


def _branches(task: Task, rows: Sequence[Example]) -> float:
    """Tokens that an unsure model has to read of the answer tree for one row: the branches to the usual answers."""
    if task.kind == "classification":
        return 2.0 * len(task.labels)
    values = sorted(float(row.target) for row in rows if row.target is not None)
    low, high = values[len(values) // 100], values[-1 - len(values) // 100]
    answers = grid(task)
    usual = bisect.bisect_right(answers, high) - bisect.bisect_left(answers, low)
    # A branch has ten leaves, which are read together.
    return usual / 9


def seconds_of(unit: Unit, by_task: dict[str, Cost]) -> float:
    """Estimated time of a unit, without an earlier stage."""
    fixed = _EACH.get(unit.strategy, _OTHERWISE)
    if unit.strategy == RIVALS:
        return fixed
    return fixed + sum(cost.seconds for name, cost in by_task.items() if unit.task in (None, name))


def units_of(by_task: dict[str, Cost]) -> list[Unit]:
    """All units, cheap and most telling first.

    The rivals, then the single-task strategies on the cheaper half of the tasks, then the multi-task ones, then what
    remains. A task's strategies come one after the other, so that it can be compared as soon as possible.
    """
    order = sorted(by_task, key=lambda name: (by_task[name].seconds, name))
    half = len(order) // 2
    cheap, dear = (
        [Unit(strategy, name) for name in part for strategy in SINGLE] for part in (order[:half], order[half:])
    )
    return [*(Unit(RIVALS, name) for name in order), *cheap, *(Unit(strategy) for strategy in MULTIPLE), *dear]


def side_by_side(units: Sequence[Unit], by_task: dict[str, Cost]) -> list[Unit]:
    """The order for units that run at the same time: the longest first, and last those that an earlier stage is made for.

    Those of all tasks with an earlier stage come before all others, since they train it.
    """

    def place(unit: Unit) -> tuple[bool, bool, float]:
        staged = unit.strategy.startswith(("qa", "know"))
        return staged and unit.task is not None, not (staged and unit.task is None), -seconds_of(unit, by_task)

    return sorted(units, key=place)


def plan(size: Size, done: Sequence[Unit] = ()) -> str:
    """The whole reckoning as text: tasks, stages, strategies and hours.

    Args:
        size: Within which limits.
        done: Units whose results stand.
    """
    by_task = costs(size)
    units = units_of(by_task)
    cores = os.cpu_count() or 1
    lines = [f"{'task':26}{'train rows':>11}{'test rows':>11}{'tokens learnt':>15}{'tokens read':>13}{'minutes':>9}"]
    for name, cost in sorted(by_task.items(), key=lambda item: item[1].seconds):
        lines.append(
            f"{name:26}{cost.rows:11,}{cost.tests:11,}{cost.learnt:15,}{cost.read:13,}{cost.seconds / 60:9.1f}"
        )
    lines.append("")
    total = 0.0
    for name, tokens in stage_tokens(size).items():
        seconds = tokens / (RATE * cores)
        total += seconds
        lines.append(f"stage {name}: {tokens:,} tokens, {seconds / 3600:.2f} hours, once, unless it stands already")
    for strategy in dict.fromkeys(unit.strategy for unit in units):
        mine = [unit for unit in units if unit.strategy == strategy]
        each = [seconds_of(unit, by_task) for unit in mine]
        total += sum(each)
        left = sum(unit not in done for unit in mine)
        lines.append(
            f"{strategy}: {len(mine)} units ({left} to do), {sum(each) / 3600:.2f} hours, the longest {max(each) / 60:.0f} minutes"
        )
    lines.append(f"all: {total / 3600:.1f} hours at {RATE:.0f} tokens a second and thread on {cores} cores")
    return "\n".join(lines)
