"""What the strategy comparison costs, and in which order its units come."""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

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
from matdarwin.training.plan import PlannedStage
from matdarwin.training.plan import plan as plan_training
from matdarwin.training.report import Report

_FORWARD = 1 / 3
"""Cost of a token that is only read, of one that is learnt from."""

_EACH = 20.0
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
    def tokens(self) -> float:
        """Tokens that, were they learnt from, would take as long."""
        return self.learnt + _FORWARD * self.read


@dataclass
class Pace:
    """How fast this machine is, and what it has to do beside the units.

    Attributes:
        tokens_per_second: Tokens that training learns from.
        stages: Earlier stages, by what the strategies that need them begin with; the first unit that needs them trains them.
    """

    tokens_per_second: float
    stages: dict[str, tuple[PlannedStage, ...]] = field(default_factory=dict)

    def seconds(self, unit: Unit, by_task: dict[str, Cost]) -> float:
        """Estimated time of a unit, with what earlier stages it would train."""
        waited = sum(stage.seconds for stage in self.stages.get(_family(unit.strategy), ()))
        return waited + _EACH + tokens_of(unit, by_task) / self.tokens_per_second

    def began(self, unit: Unit) -> None:
        """The earlier stages of a unit are trained by it, and not by those that come after."""
        self.stages.pop(_family(unit.strategy), None)


def measure(size: Size, strategies: Collection[str], report: Report | None = None) -> Pace:
    """Measure real training steps, some seconds for each of the earlier stages that the strategies need.

    Args:
        size: Within which limits.
        strategies: Those that would be run.
        report: Where progress is told.

    Raises:
        TrainingError, CheckpointError, DataError, BaseModelError: As from training.
    """
    if set(strategies) <= {RIVALS}:
        return Pace(math.inf)
    families = {_family(strategy) for strategy in strategies}
    wanted = [name for name in MULTIPLE if _family(name) in families and recipe_of(Unit(name), size).before]
    pace = Pace(0.0)
    for name in wanted or ["base-mt"]:
        recipe = recipe_of(Unit(name), size)
        tasks = [registry.load(task) for task in recipe.tasks]
        found = plan_training(recipe, tasks=tasks, split=rows_of(recipe, tasks, size), report=report)
        pace.tokens_per_second = found.tokens_per_second
        pace.stages[_family(name)] = found.stages[:-1]
    return pace


def _family(strategy: str) -> str:
    return strategy.partition("-")[0]


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


def _encoder(size: Size) -> Encoder:
    return Encoder(load_tokenizer(find_base(recipe_of(Unit("base-mt"), size).base).folder))


def _tokens(rows: Sequence[Example], task: Task, encoder: Encoder) -> tuple[float, float]:
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


def tokens_of(unit: Unit, by_task: dict[str, Cost]) -> float:
    """Tokens of a unit, without an earlier stage; none for rivals."""
    if unit.strategy == RIVALS:
        return 0.0
    return sum(cost.tokens for name, cost in by_task.items() if unit.task in (None, name))


def units_of(by_task: dict[str, Cost]) -> list[Unit]:
    """All units, cheap and most telling first.

    The rivals, then the single-task strategies on the cheaper half of the tasks, then the multi-task ones, then what
    remains. A task's strategies come one after the other, so that it can be compared as soon as possible.
    """
    order = sorted(by_task, key=lambda name: (by_task[name].tokens, name))
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
        return staged and unit.task is not None, not (staged and unit.task is None), -tokens_of(unit, by_task)

    return sorted(units, key=place)


def plan(size: Size, pace: Pace, done: Sequence[Unit] = ()) -> str:
    """The whole reckoning as text: tasks, stages, strategies and hours.

    Args:
        size: Within which limits.
        pace: How fast this machine is.
        done: Units whose results stand.
    """
    by_task = costs(size)
    units = units_of(by_task)
    rate = pace.tokens_per_second
    lines = [f"{'task':26}{'train rows':>11}{'test rows':>11}{'tokens learnt':>15}{'tokens read':>13}{'minutes':>9}"]
    for name, cost in sorted(by_task.items(), key=lambda item: item[1].tokens):
        minutes = cost.tokens / rate / 60
        lines.append(f"{name:26}{cost.rows:11,}{cost.tests:11,}{cost.learnt:15,}{cost.read:13,}{minutes:9.1f}")
    lines.append("")
    total = left = 0.0
    for family, stages in pace.stages.items():
        wanted = any(_family(unit.strategy) == family and unit not in done for unit in units)
        for stage in stages:
            whole = stage.tokens / rate
            total, left = total + whole, left + stage.seconds * wanted
            said = "which stands" if stage.stands else "once" if wanted else "not to do"
            lines.append(f"stage {stage.name}: {stage.tokens:,} tokens, {whole / 3600:.2f} hours, {said}")
    alone = Pace(rate)
    for strategy in dict.fromkeys(unit.strategy for unit in units):
        each = {unit: alone.seconds(unit, by_task) for unit in units if unit.strategy == strategy}
        open_ = [seconds for unit, seconds in each.items() if unit not in done]
        total, left = total + sum(each.values()), left + sum(open_)
        lines.append(
            f"{strategy}: {len(each)} units ({len(open_)} to do), {sum(each.values()) / 3600:.2f} hours, the longest "
            f"{max(each.values()) / 60:.0f} minutes"
        )
    lines.append(f"all: {total / 3600:.1f} hours at {rate:,.0f} tokens a second, as measured; {left / 3600:.1f} to do")
    return "\n".join(lines)
