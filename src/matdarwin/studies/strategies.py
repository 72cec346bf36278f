"""The comparison of training strategies, as a list of units that can be stopped and gone on with at any time."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import Any

from matdarwin.data.sources import DataError
from matdarwin.models.base import BaseModelError
from matdarwin.models.checkpoint import CheckpointError
from matdarwin.studies.strategies_figure import draw
from matdarwin.studies.strategies_plan import costs, measure, plan, side_by_side, units_of
from matdarwin.studies.strategies_summary import read_units, summarise, write_summary
from matdarwin.studies.strategies_units import (
    FULL,
    MULTIPLE,
    REDUCED,
    Size,
    Unit,
    UnitResult,
    finished,
    run_unit,
    scored_tasks,
    unit_hash,
)
from matdarwin.tasks import registry
from matdarwin.training.errors import TrainingError

_FAULTS = (TrainingError, CheckpointError, DataError, BaseModelError)
"""What spoils one unit and not the others."""

_TELL_EVERY = 60.0

_GPU_GIB = 16
"""What a unit takes of a GPU at most: 15.4 were reserved for one of all tasks, in steps of 32 rows, and CUDA has its own."""


class Lines:
    """A report in lines, a progress line a minute at most."""

    def __init__(self) -> None:
        self._what, self._total, self._told = "", 0, 0.0

    def begin(self, text: str, total: int) -> None:
        """A part of the run begins."""
        self._what, self._total, self._told = text, total, time.monotonic()

    def step(self, done: int, text: str) -> None:
        """Tell how far it is, now and then."""
        if time.monotonic() - self._told >= _TELL_EVERY:
            self._told = time.monotonic()
            self.say(f"  {self._what}: {done:,} of {self._total:,} {text}".rstrip())

    def say(self, text: str) -> None:
        """A line with the time of day."""
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def metrics(self, run: str, line: dict[str, Any]) -> None:
        """Nothing: the metrics of a run stand in its checkpoint."""


def run(
    size: Size, *, only: Sequence[str] = (), minutes: float | None = None, keep: bool = False, jobs: int = 1
) -> list[str]:
    """Run the units that are not finished, and rebuild the summary after each.

    Args:
        size: Within which limits.
        only: STRATEGY or STRATEGY.TASK: these units alone.
        minutes: Begin no unit that would, by its estimate, end later than so many minutes from now.
        keep: Keep checkpoints of single tasks.
        jobs: Units at a time, each in a process of its own: models this small leave a GPU idle for most of a step.

    Returns:
        What went wrong, a line for each unit that failed.

    Raises:
        ValueError: `only` means no unit; `minutes` is given with several jobs, whose time cannot be foreseen; or the GPU has
            no room for so many.
        TrainingError, CheckpointError, DataError, BaseModelError: No training step could be measured.
    """
    began = time.monotonic()
    report = Lines()
    by_task = costs(size)
    units = [unit for unit in _chosen(units_of(by_task), only) if not finished(unit, size)]
    if jobs > 1:
        if minutes is not None:
            raise ValueError("--minutes: only with one job, since the time of several at once cannot be foreseen")
        return _at_once(side_by_side(units, by_task), size, jobs, keep)
    if not units:
        return []
    pace = measure(size, {unit.strategy for unit in units}, report)
    faults = []
    for number, unit in enumerate(units, start=1):
        estimate = pace.seconds(unit, by_task)
        if minutes is not None and time.monotonic() - began + estimate > 60 * minutes:
            report.say(f"{unit.id} is left for another time: about {estimate / 60:.0f} minutes")
            continue
        report.say(f"unit {number} of {len(units)}: {unit.id}, about {estimate / 60:.0f} minutes")
        pace.began(unit)
        try:
            done = run_unit(unit, size, report, keep=keep)
        except _FAULTS as error:
            faults.append(f"{unit.id}: {error}")
            report.say(f"{unit.id} failed: {error}")
            continue
        report.say(f"{unit.id} is done in {done.seconds / 60:.1f} minutes; {summary(size)}")
    return faults


def _chosen(units: Sequence[Unit], only: Sequence[str]) -> list[Unit]:
    for words in only:
        if not any(unit.chosen(words) for unit in units):
            known = ", ".join(dict.fromkeys(unit.strategy for unit in units))
            raise ValueError(f"--only {words}: no unit; give STRATEGY or STRATEGY.TASK, of the strategies {known}")
    return [unit for unit in units if not only or any(unit.chosen(words) for words in only)]


def _at_once(units: Sequence[Unit], size: Size, jobs: int, keep: bool) -> list[str]:
    """Run units in processes of their own, in their order as processes become free."""
    report, faults = Lines(), []
    _refuse_too_many(jobs)
    # Not forked: CUDA does not survive it.
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
    try:
        waiting = {pool.submit(partial(run_unit, unit, size, Lines(), keep=keep)): unit for unit in units}
        for number, future in enumerate(as_completed(waiting), start=1):
            unit = waiting[future]
            try:
                done = future.result()
            except Exception as error:
                # Whatever it is, the units beside it go on.
                faults.append(f"{unit.id}: {error if isinstance(error, _FAULTS) else repr(error)}")
                report.say(f"{unit.id} failed: {error}")
                continue
            report.say(f"{number} of {len(units)}: {unit.id} is done in {done.seconds / 60:.1f} minutes")
    finally:
        pool.shutdown(cancel_futures=True)
        report.say(summary(size))
    return faults


def _refuse_too_many(jobs: int) -> None:
    import torch

    if torch.cuda.is_available() and jobs > (room := int(torch.cuda.mem_get_info()[0] / 2**30 / _GPU_GIB)):
        raise ValueError(f"--jobs {jobs}: a unit takes up to {_GPU_GIB} GiB of the GPU, which has room for {room}")


def summary(size: Size) -> str:
    """Rebuild summary.json and the figure from the units that are of today's recipes and data; says what is missing."""
    units = {_unit(result): result for result in read_units(size.folder)}
    current = {unit: result for unit, result in units.items() if result.hash == unit_hash(unit, size)}
    found = summarise(list(current.values()), {name: registry.load(name).kind for name in scored_tasks(size)})
    write_summary(found, size.folder)
    draw(found, size.folder / "figure2.png")
    missing = sum(len(tasks) for tasks in found.missing.values())
    said = f"{missing} scores are missing yet" if missing else "no score is missing"
    stale = [unit.id for unit in units if unit not in current]
    return said + (f"; of older recipes or data, and left out: {', '.join(stale)}" if stale else "")


def _unit(result: UnitResult) -> Unit:
    return Unit(result.strategy, None if result.strategy in MULTIPLE else next(iter(result.tasks)))


def main(words: list[str] | None = None) -> None:
    """Run, plan or sum up."""
    parser = argparse.ArgumentParser(prog="python -m matdarwin.studies.strategies", description=__doc__)
    parser.add_argument("what", nargs="?", default="run", choices=["run", "plan", "summary"], help="default: run")
    parser.add_argument(
        "--only", metavar="STRATEGY[.TASK]", action="append", default=[], help="these units alone; may be repeated"
    )
    parser.add_argument("--minutes", type=float, help="begin no unit that would end later than this")
    parser.add_argument("--full", action="store_true", help="all rows and more examples, for a GPU")
    parser.add_argument(
        "--jobs", type=int, default=1, help="units at a time, on a GPU that one does not fill; default: 1"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the checkpoints of single tasks, half a gigabyte each"
    )
    given = parser.parse_args(words)
    size = FULL if given.full else REDUCED
    try:
        if given.what == "plan":
            units = units_of(costs(size))
            pace = measure(size, {unit.strategy for unit in units}, Lines())
            print(plan(size, pace, [unit for unit in units if finished(unit, size)]))
        elif given.what == "summary":
            print(summary(size))
        elif faults := run(size, only=given.only, minutes=given.minutes, keep=given.keep, jobs=given.jobs):
            raise SystemExit("error: " + "\nerror: ".join(faults))
    except KeyboardInterrupt:
        print("stopped; finished units are kept, and the one at work goes on where it stood", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, *_FAULTS) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
