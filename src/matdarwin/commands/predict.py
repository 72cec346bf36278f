"""`darwin predict`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matdarwin.commands.common import (
    BatchSize,
    Column,
    ConditionTexts,
    Coverage,
    Json,
    Model,
    NumberFormat,
    Tasks,
    UsageError,
    answer_text,
    conditions_of,
    emit_json,
    emit_table,
    note,
    short,
    working,
)

if TYPE_CHECKING:
    from matdarwin.api import Darwin
    from matdarwin.prediction.files import Summary
    from matdarwin.prediction.prediction import Prediction


def predict(
    materials: Annotated[
        list[str] | None,
        typer.Argument(
            help='Formulas, SMILES or names; one with spaces in quotes: "Ga 0.5 In 0.5 As".', show_default=False
        ),
    ] = None,
    task: Tasks = None,
    model: Model = None,
    coverage: Coverage = 0.9,
    condition: ConditionTexts = None,
    dtype: NumberFormat = "auto",
    batch_size: BatchSize = None,
    views: Annotated[
        int | None, typer.Option(min=1, max=16, help="Element orders to average over. Default: as the recipe has it.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Prune nothing and score every end of an answer; several times slower.")
    ] = False,
    input: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            help="Table with materials: CSV (UTF-8; .gz too) or .parquet; - is a CSV on standard input.",
        ),
    ] = None,
    column: Column = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the table with value, unit, lower, upper, status and reason added: CSV, or .parquet; - is standard output.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Predict properties of materials, each with an interval.

    With --input and --output all rows and columns are kept, in order; a row that is no material, or has no readable
    answer, says so in its status. Exit code 1 if any row has no value, 2 if nothing could be predicted.
    """
    given = materials or []
    if bool(given) == (input is not None):
        raise UsageError("give either materials or --input" if given else "give materials, or a table with --input")
    if column is not None and input is None:
        raise UsageError("--column belongs to --input")
    if output == "-" and json:
        raise UsageError("--json and --output - both want standard output; choose one")
    with working() as out:
        from matdarwin.api import Darwin, check_coverage

        check_coverage(coverage)
        conditions = conditions_of(condition or [])
        darwin = Darwin.load(
            model, tasks=list(dict.fromkeys(task or [])), dtype=dtype, batch_size=batch_size, views=views, exact=exact
        )
        names = darwin.resolve(task or None)
        darwin.conditions(names, conditions)
        note(f"using checkpoint {darwin.name} (base {darwin.card.base['name']}), task {', '.join(names)}")
        # In a table it stands in the reason of every row, where nobody looks first.
        if output is not None and darwin.caveat:
            note(f"of every row: {darwin.caveat}")
        done = _rows(darwin, names, coverage, conditions, given, input, column, output, as_json=json, out=out)
    if done.table is not None:
        emit_table(*done.table, right=("value",))
    if output is not None and output != "-" and json:
        summary = {
            "rows": done.summary.rows,
            "without_value": done.summary.without_value,
            "statuses": dict(done.summary.statuses),
        }
        emit_json({**summary, "tasks": names, "model": darwin.name, "output": output})
    if done.summary.without_value:
        note(f"{done.summary.without_value:,} of {done.summary.rows:,} rows have no value; each says why")
        raise typer.Exit(1)


class _Done:
    """What a run over rows leaves to be printed."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary
        self.table: tuple[tuple[str, ...], list[list[object]]] | None = None


def _rows(
    darwin: Darwin, names: list[str], coverage: float, conditions: dict[str, str | float], given: list[str],
    input: str | None, column: str | None, output: str | None, *, as_json: bool, out: Any,
) -> _Done:  # fmt: skip
    from matdarwin.commands.progress import Bar
    from matdarwin.prediction import files, outputs

    tasks = [darwin.tasks[name] for name in names]
    done = _Done(files.Summary())
    with ExitStack() as stack:
        table = files.ListTable(given) if input is None else stack.enter_context(files.open_table(input))
        kind = tasks[0].representation if input is None else files.kind_of(tasks)
        chosen = files.choose_column(table, column, kind)
        sink = None if output is None else stack.enter_context(outputs.open_sink(output, table, tasks, stdout=out))
        bar = stack.enter_context(Bar())
        total = table.count * len(names)
        asked = 0

        def ask(materials: Sequence[str], task: str) -> list[Prediction]:
            nonlocal asked
            before = asked
            asked += len(materials)
            return darwin.predict(
                materials, task, coverage=coverage, conditions=conditions or None,
                progress=lambda had, _: bar.step(before + had, "") if total > _FEW else None,
            )  # fmt: skip

        if total > _FEW:
            note("reading the model's weights")
            darwin.predictor  # noqa: B018 - now, so that the bar times predictions alone
            bar.begin("predicting", total)
        chunks = files.answered(table, chosen, tasks, ask, model=darwin.name, summary=done.summary)
        if sink is not None:
            for chunk, found in chunks:
                sink.write(chunk, found)
        elif as_json:
            _print_json((p for _, found in chunks for row in found for p in row), out)
        else:
            done.table = _table(
                [p for _, found in chunks for row in found for p in row], {task.id: task.decimals for task in tasks}
            )
    return done


_FEW = 64
"""Answers that need no bar."""


def _print_json(predictions: Iterator[Prediction], out: Any) -> None:
    """A JSON list, printed as it grows: a table of millions of rows would not fit the memory."""
    out.write("[")
    for number, prediction in enumerate(predictions):
        out.write(",\n" if number else "\n")
        out.write(json.dumps(prediction.to_dict(), allow_nan=False))
    out.write("\n]\n")
    out.flush()


def _table(
    predictions: Sequence[Prediction], decimals: dict[str, int | None]
) -> tuple[tuple[str, ...], list[list[object]]]:
    """Rows for people; the column of tasks only where there are several."""
    several = len(decimals) > 1
    rows: list[list[object]] = []
    for p in predictions:
        digits = decimals[p.task] or 0
        value, lower, upper = (
            answer_text(p.value, digits),
            answer_text(p.lower, digits + 1),
            answer_text(p.upper, digits + 1),
        )
        interval = None if p.coverage is None else f"{lower} to {upper} ({100 * p.coverage:g} %)"
        remarks = [*([] if p.status == "ok" else [p.status]), *filter(None, [p.reason]), *p.notes]
        task = [p.task] if several else []
        rows.append(
            [short(p.input), p.material and short(p.material), *task, value, p.unit, interval, "; ".join(remarks)]
        )
    return ("input", "material", *(["task"] if several else []), "value", "unit", "interval", "notes"), rows
