"""`darwin screen`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matdarwin.commands.common import (
    BatchSize,
    Column,
    ConditionTexts,
    Coverage,
    Json,
    Model,
    Tasks,
    UsageError,
    condition_of,
    duration,
    emit,
    emit_json,
    note,
    working,
)

if TYPE_CHECKING:
    from matdarwin.prediction.prediction import Prediction


def screen(
    input: Annotated[Path, typer.Argument(metavar="IN", help="Candidates: CSV (UTF-8; .gz too) or .parquet.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The rows kept: CSV (.gz too) or .parquet.")],
    task: Tasks = None,
    where: Annotated[
        str | None,
        typer.Option(help='Keep what fulfils this, such as "value > 1.1 and value < 1.7" or "P(1.1, 1.7) > 0.5".'),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help='What to rank by: value, lower, upper, "P(1.1, 1.7)" (probability of a window) or "EI(2.5)" (expected '
            "improvement over 2.5)."
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Keep this many of the best, best first. Needs --by.")] = None,
    lowest: Annotated[bool, typer.Option("--lowest", help="Little is better.")] = False,
    column: Column = None,
    model: Model = None,
    coverage: Coverage = 0.9,
    condition: ConditionTexts = None,
    batch_size: BatchSize = None,
    json: Json = False,
) -> None:
    """Predict a table of candidates of any length and keep those that are wanted.

    The same command goes on after any stop: no row twice, none lost, and the same file as without one. With several tasks a term
    begins with its task: expt_gap.value > 1. Rows without a value fulfil no condition; they are counted, and the exit
    code is then 1. P and EI are of the model's own distribution.
    """
    if top is not None and by is None:
        raise UsageError("--top needs --by: the best by what?")
    if lowest and by is None:
        raise UsageError("--lowest belongs to --by")
    if input.resolve() == output.resolve():
        raise UsageError(f"{output} would be written over while it is read; choose another name for the output")
    began = time.monotonic()
    with working():
        from matdarwin.api import Darwin, check_coverage
        from matdarwin.commands.progress import Bar
        from matdarwin.prediction import files, screening, wishes

        check_coverage(coverage)
        conditions = dict(map(condition_of, condition or []))
        darwin = Darwin.load(model, tasks=list(dict.fromkeys(task or [])), batch_size=batch_size)
        names = darwin.resolve(task or None)
        asked = darwin.conditions(names, conditions)
        tasks = [darwin.tasks[name] for name in names]
        # Faults in what is wanted come before a file is looked through.
        if where is not None:
            wishes.condition(where, tasks)
        if by is not None:
            wishes.rank(by, tasks, lowest=lowest)
        note(f"using checkpoint {darwin.name} (base {darwin.card.base['name']}), task {', '.join(names)}")
        with files.open_table(input) as table, Bar() as bar:
            chosen = files.choose_column(table, column, tasks[0].representation)

            def ask(materials: Sequence[str], name: str) -> list[Prediction]:
                return darwin.predict(materials, name, coverage=coverage, conditions=conditions or None)

            def told(rows: int) -> None:
                bar.step(rows, f"{(rows - before) / max(time.monotonic() - started, 1e-9):,.1f} rows/s")

            if table.count:
                note("reading the model's weights")
                darwin.predictor  # noqa: B018 - now, so that the bar times predictions alone
            before = 0
            started = time.monotonic()
            bar.begin("screening", table.count)
            identity = {
                "input": screening.file_identity(input), "model": darwin.name, "weights": darwin.checkpoint.digest,
                "coverage": coverage, "conditions": asked, "batch size": batch_size,
            }  # fmt: skip
            done = screening.screen(
                table, chosen, output, tasks, ask, screening.Wanted(where, by, top, lowest),
                model=darwin.name, identity=identity, progress=told,
            )  # fmt: skip
        screened = time.monotonic() - started
    seconds = time.monotonic() - began
    rows = done.summary.rows
    if done.found:
        note(f"{done.found:,} rows were done by an earlier run")
    if json:
        emit_json(
            {
                "rows": rows, "without_value": done.summary.without_value, "statuses": dict(done.summary.statuses),
                "matched": done.matched, "unranked": done.unranked, "kept": done.kept, "resumed_at": done.found,
                "seconds": round(seconds, 3), "screening_seconds": round(screened, 3), "tasks": names, "model": darwin.name, "output": str(output),
            }
        )  # fmt: skip
    else:
        emit(f"{done.kept:,} of {rows:,} rows are kept in {output} ({duration(seconds)})")
    if done.unranked:
        note(f"{done.unranked:,} rows fulfil the condition but have no {by}, so they are not ranked")
    if done.summary.without_value:
        note(f"{done.summary.without_value:,} of {rows:,} rows have no value")
        raise typer.Exit(1)
