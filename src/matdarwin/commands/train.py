"""`darwin train`, `darwin evaluate` and `darwin demo`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from matdarwin.commands.common import Json, UsageError, emit, emit_json, emit_table, note, number, working

if TYPE_CHECKING:
    from matdarwin.models.checkpoint import Checkpoint
    from matdarwin.tasks.schema import Task
    from matdarwin.training.recipe import Recipe

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a key of the recipe: KEY=VALUE, dotted as in optimising.epochs=3; may be repeated."
    ),
]


_SHOWN = 3
"""Rejected rows that are told one by one."""


def train(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file (YAML).", show_default=False)] = None,
    setting: Settings = None,
    data: Annotated[
        Path | None, typer.Option(help="In place of a recipe: your own table (CSV or Parquet), which becomes a task.")
    ] = None,
    input_column: Annotated[str | None, typer.Option(help="Its column with the materials.")] = None,
    target_column: Annotated[str | None, typer.Option(help="Its column with the numbers or classes.")] = None,
    property: Annotated[
        str | None, typer.Option(help='The property in words, as a question has it: "band gap".')
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of the numbers; none for classes and pure numbers.")] = None,
    kind: Annotated[
        Literal["regression", "classification"] | None,
        typer.Option(help="Whether the target is a number or a class. Default: found out."),
    ] = None,
    representation: Annotated[
        Literal["composition", "molecule", "name"] | None,
        typer.Option(help="What the materials are given as. Default: found out."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the checkpoint's name begins with. Default: the table's name.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a checkpoint by a recipe, or on your own table without one.

    A recipe that has run already is not run again. Ctrl-C stops cleanly, and nothing is sealed then.
    """
    own: dict[str, Any] = {
        "--input-column": input_column, "--target-column": target_column, "--property": property, "--unit": unit,
        "--kind": kind, "--representation": representation, "--name": name,
    }  # fmt: skip
    if (recipe is None) == (data is None):
        raise UsageError("give a recipe file or --data FILE" + ("" if recipe is None else ", not both"))
    if data is None and (stray := [option for option, value in own.items() if value is not None]):
        raise UsageError(f"{', '.join(stray)}: only with --data")
    if data is not None and (missing := [option for option in list(own)[:3] if own[option] is None]):
        raise UsageError(f"--data also needs {', '.join(missing)}")
    with working():
        from matdarwin.commands.progress import Bar

        tasks: list[Task] | None = None
        if data is not None:
            chosen, tasks = _of_table(
                data,
                str(input_column),
                str(target_column),
                str(property),
                unit,
                kind,
                representation,
                name,
                setting or [],
            )
        else:
            from matdarwin.training.recipe import load_recipe

            chosen = load_recipe(recipe or "", setting or [])
        with Bar() as bar:
            try:
                from matdarwin.training.run import train as run

                checkpoint = run(chosen, tasks=tasks, report=bar)
            except KeyboardInterrupt:
                bar.say("stopped; nothing was sealed")
                raise typer.Exit(130) from None
    summary = card_summary(checkpoint)
    if json:
        emit_json(summary)
        return
    emit(f"{checkpoint.name}  ({checkpoint.card.role})")
    for task, (metric, value) in summary["validation"].items():
        held = summary["tasks"][task]["unit"] if metric == "mae" else None
        emit(f"  {task}: validation {metric} {number(float(value))}{f' {held}' if held else ''}")
    emit(f"  {checkpoint.folder}")
    note(f"ask it: darwin predict MATERIAL --model {checkpoint.name}")


def _of_table(
    data: Path, input_column: str, target_column: str, property: str, unit: str | None, kind: Any, representation: Any,
    name: str | None, settings: list[str],
) -> tuple[Recipe, list[Task]]:  # fmt: skip
    """The recipe and task of a user's table."""
    from matdarwin.api import recipe_for
    from matdarwin.data.custom import from_table
    from matdarwin.data.readers import read

    task = from_table(data, input_column, target_column, property, unit, kind=kind, representation=representation)
    stem = re.sub(r"[^a-z0-9._-]+", "-", data.name.split(".")[0].lower()).strip("-._") or "table"
    asks = f"one of {', '.join(task.labels)}" if task.labels else f"a number with {task.decimals} decimals"
    note(f"task {task.id}: {task.property} by {task.representation}, answered by {asks}")
    for line in task.notes:
        note(line)
    rejects = read(task).rejects
    for reject in rejects[:_SHOWN]:
        note(f"  row {reject.row}: {reject.reason}")
    if len(rejects) > _SHOWN:
        note(f"  and {len(rejects) - _SHOWN:,} more")
    return recipe_for(task, name=name or stem, settings=settings), [task]


def card_summary(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says of itself, without what is long."""
    card = checkpoint.card
    return {
        "name": checkpoint.name,
        "folder": str(checkpoint.folder),
        "role": card.role,
        "created": card.created,
        "base": card.base,
        "method": card.method,
        "fold": card.fold,
        "recipe_hash": card.recipe_hash,
        "tasks": {
            name: {
                "property": entry.task.property,
                "unit": entry.task.unit,
                "kind": entry.task.kind,
                "counts": entry.counts,
            }
            for name, entry in card.tasks.items()
        },
        "validation": card.training.get("validation", {}),
        "training": card.training,
    }


def evaluate(
    recipe_or_model: Annotated[
        str, typer.Argument(help="Recipe file, or the name or folder of a checkpoint that held rows out.")
    ],
    fold: Annotated[
        list[int] | None, typer.Option("--fold", min=0, max=4, help="Test fold; may be repeated. Default: all five.")
    ] = None,
    setting: Settings = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Of a checkpoint with several tasks: the one to score.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Also fit the classical rivals on the same rows.")
    ] = True,
    json: Json = False,
) -> None:
    """Score a recipe on its test folds, or a checkpoint on the rows that it held out, beside its rivals.

    A fold that has been scored under the same recipe is read, not run again.
    """
    from_file = recipe_or_model.endswith((".yaml", ".yml")) or Path(recipe_or_model).is_file()
    if not from_file and (fold or setting):
        raise UsageError("--fold and --set belong to a recipe; a checkpoint has its own fold and recipe")
    if from_file and (given := [text for text in setting or [] if text.partition("=")[0].strip() == "fold"]):
        wanted = given[-1].partition("=")[2].strip()
        raise UsageError(
            f"--set {given[-1]}: evaluation chooses the folds itself; use --fold {wanted if wanted.isdigit() else 'NUMBER'}"
        )
    if from_file and task:
        raise UsageError(f"--task belongs to a checkpoint; choose a recipe's tasks with --set tasks=[{task}]")
    with working():
        from matdarwin.commands.progress import Bar

        results: list[Any]
        with Bar() as bar:
            try:
                if from_file:
                    from matdarwin.training.recipe import load_recipe

                    recipe = load_recipe(recipe_or_model, setting or [])
                    from matdarwin.evaluation.protocol import evaluate as run

                    results = list(run(recipe, folds=fold or None, baselines=baselines, report=bar))
                else:
                    from matdarwin.models.store import find_checkpoint

                    checkpoint = find_checkpoint(recipe_or_model, [task] if task else None)
                    from matdarwin.evaluation.protocol import evaluate_checkpoint

                    results = list(evaluate_checkpoint(checkpoint, task=task, baselines=baselines, report=bar))
            except KeyboardInterrupt:
                bar.say("stopped; folds that were finished are kept")
                raise typer.Exit(130) from None
    if json:
        emit_json([result.model_dump(mode="json") for result in results])
        return
    for result in results:
        _show(result)


def _show(result: Any) -> None:
    """One result as a table: the model, its rivals of the same run, and the published board."""
    from matdarwin.evaluation.results import BoardResult

    if isinstance(result, BoardResult):
        rows = result.table()
        folds = "all five folds" if result.complete else f"fold {', '.join(str(f['fold']) for f in result.folds)}"
        title = f"{result.task}: {folds} ({result.folds_scheme}), {result.metric}{f' in {result.unit}' if result.unit else ''}"
        rows += [
            (f"board: {row.algorithm}{' (leaked)' if row.leaked else ''}", {row.metric: row.mean})
            for row in result.board
        ]
        where: str | None = str(result.path)
    else:
        scores = [*result.scores.items(), *result.baselines.items()]
        rows = [(name, {k: v for k, v in score.model_dump().items() if isinstance(v, float)}) for name, score in scores]
        title, where = f"{result.task}: fold {result.fold} ({result.folds}), {result.checkpoint}", None
    names = [
        name
        for name in dict.fromkeys(key for _, scores in rows for key in scores)
        if any(scores.get(name) is not None for _, scores in rows)
    ]
    emit(title)
    emit_table(
        ["", *names], [[name, *(number(scores.get(key)) for key in names)] for name, scores in rows], right=names
    )
    if where:
        note(f"written to {where}")


def demo(
    folder: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("demo"),
    json: Json = False,
) -> None:
    """Train on real band gaps for a few minutes, score beside classical rivals, and write a report (HTML)."""
    with working():
        from matdarwin.commands.progress import Bar
        from matdarwin.studies.demo import run_demo

        with Bar() as bar:
            try:
                page = run_demo(bar, folder=folder)
            except KeyboardInterrupt:
                bar.say("stopped; run it again to go on with what is finished")
                raise typer.Exit(130) from None
    if json:
        emit_json({"report": str(page)})
    else:
        emit(str(page))
