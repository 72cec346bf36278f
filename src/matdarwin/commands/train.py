"""`darwin train` and `darwin demo`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from matdarwin.commands.common import Json, UsageError, duration, emit, emit_json, emit_table, note, number, working
from matdarwin.commands.recipes import AllowLeak, Settings, Tasks, alone, check_tasks, is_first, load_recipes

if TYPE_CHECKING:
    from matdarwin.commands.progress import Bar
    from matdarwin.models.checkpoint import Checkpoint
    from matdarwin.tasks.schema import Task
    from matdarwin.training.plan import Plan
    from matdarwin.training.recipe import Recipe
    from matdarwin.training.report import Report

_SHOWN = 3
"""Rejected rows that are told one by one."""


def train(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file (YAML).", show_default=False)] = None,
    setting: Settings = None,
    task: Tasks = None,
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
    track: Annotated[
        str | None,
        typer.Option(
            help="Also send metrics and the recipe to MLflow: mlflow, or mlflow:URI with a folder, a server's address or a database."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train nothing: check recipe, audit and disk, measure for 10 seconds, and say what it would take.",
        ),
    ] = False,
    allow_leak: AllowLeak = False,
    save_every: Annotated[
        float,
        typer.Option(min=0, help="Minutes from one saved state to the next; a run that is stopped goes on there."),
    ] = 5.0,
    json: Json = False,
) -> None:
    """Train a checkpoint by a recipe, or on your own table without one.

    A recipe that has run already is not run again, and one that was stopped, however that was, goes on where it stood
    when the same command is given again. Ctrl-C saves its state first; nothing is sealed then.
    With --task the JSON is a list, a checkpoint for each task.
    """
    own: dict[str, Any] = {
        "--input-column": input_column, "--target-column": target_column, "--property": property, "--unit": unit,
        "--kind": kind, "--representation": representation, "--name": name,
    }  # fmt: skip
    if (recipe is None) == (data is None):
        raise UsageError("give a recipe file or --data FILE" + ("" if recipe is None else ", not both"))
    if data is None and (stray := [option for option, value in own.items() if value is not None]):
        raise UsageError(f"{', '.join(stray)}: only with --data")
    if data is not None and task:
        raise UsageError("--task belongs to a recipe; a table is a task of its own")
    check_tasks(task, setting)
    if track is not None and track.partition(":")[0] != "mlflow":
        raise UsageError(f"--track {track}: runs are tracked by mlflow or mlflow:URI")
    if data is not None and (missing := [option for option in list(own)[:3] if own[option] is None]):
        raise UsageError(f"--data also needs {', '.join(missing)}")
    plans: list[Plan] = []
    made: list[Checkpoint] = []
    with working():
        tasks: list[Task] | None = None
        if data is not None:
            own_recipe, tasks = _of_table(
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
            chosen = [own_recipe]
        else:
            chosen = load_recipes(str(recipe), task, setting)
        if dry_run:
            plans = _plans(chosen, tasks, allow_leak=allow_leak)
        else:
            made = _trained(chosen, tasks, track=track, save_every=60 * save_every, allow_leak=allow_leak)
    if dry_run:
        _tell_plans(plans, json=json, listed=bool(task))
        return
    if not is_first():
        return
    if json:
        emit_json([card_summary(checkpoint) for checkpoint in made] if task else card_summary(made[0]))
        return
    for checkpoint in made:
        _tell(checkpoint)
    note(f"ask it: darwin predict MATERIAL --model {made[-1].name}")


def _trained(
    recipes: list[Recipe], tasks: list[Task] | None, *, track: str | None, save_every: float, allow_leak: bool
) -> list[Checkpoint]:
    """Run each recipe."""
    from matdarwin.commands.progress import Bar
    from matdarwin.training.run import train as run

    made: list[Checkpoint] = []
    with Bar() as bar:
        try:
            for one in recipes:
                with _tracked(track if is_first() else None, one, bar) as report:
                    made.append(run(one, tasks=tasks, report=report, save_every=save_every, allow_leak=allow_leak))
        except KeyboardInterrupt:
            sealed = f"{len(made)} of {len(recipes)} are sealed" if made else "nothing was sealed"
            bar.say(f"stopped; {sealed}. The same command goes on where it stood")
            raise typer.Exit(130) from None
    return made


@contextmanager
def _tracked(track: str | None, recipe: Recipe, bar: Bar) -> Iterator[Report]:
    """The bar, and MLflow beside it where it is asked for."""
    if track is None:
        yield bar
        return
    from matdarwin.training.tracking import MlflowReport, Several

    with MlflowReport(track.partition(":")[2] or None, recipe.model_dump(mode="json"), bar.say) as tracker:
        yield Several(bar, tracker)


def _plans(recipes: list[Recipe], tasks: list[Task] | None, *, allow_leak: bool) -> list[Plan]:
    """What each recipe would take."""
    from matdarwin.commands.progress import Bar
    from matdarwin.training.plan import plan

    alone("train --dry-run")
    with Bar() as bar:
        return [plan(one, tasks=tasks, report=bar, allow_leak=allow_leak) for one in recipes]


def _tell_plans(plans: list[Plan], *, json: bool, listed: bool) -> None:
    from dataclasses import asdict

    if json:
        found = [{**asdict(one), "seconds": one.seconds, "enough_disk": one.enough_disk} for one in plans]
        emit_json(found if listed else found[0])
        return
    for one in plans:
        emit(f"{one.checkpoint}{' (LEAKY)' if one.leaky else ''}{': there already' if one.done else ''}")
        rows = [
            (
                stage.name,
                f"{stage.examples:,}",
                f"{stage.steps:,}",
                f"{stage.tokens:,}",
                "stands" if stage.stands else duration(stage.seconds),
            )
            for stage in one.stages
        ]
        emit_table(["stage", "examples", "steps", "tokens", "time"], rows)
        emit(f"  {one.parameters[0]:,} of {one.parameters[1]:,} parameters in training; {one.device}")
        emit(
            f"  {one.tokens_per_second:,.0f} tokens a second, {duration(one.seconds)} in all without validation and calibration"
        )
        emit(
            f"  {one.memory_gib:.1f} GiB of memory; {one.disk_gib:.1f} GiB of disk, of which {one.free_gib:.1f} are free"
        )
        if not one.enough_disk:
            note(f"warning: the disk will not suffice for {one.checkpoint}; free some space or set MATDARWIN_HOME")
    if len(plans) > 1:
        # Stages that several recipes begin with are trained once.
        wanted = {stage.checkpoint: stage for one in plans if not one.done for stage in one.stages if not stage.stands}
        kept = len(wanted) * plans[0].kept_gib
        emit(
            f"{len(plans)} models in all: {duration(sum(stage.seconds for stage in wanted.values()))}, and {kept:.1f} GiB for "
            f"{len(wanted)} checkpoints, of which {plans[0].free_gib:.1f} are free"
        )


def _tell(checkpoint: Checkpoint) -> None:
    """A trained checkpoint in a few lines."""
    summary = card_summary(checkpoint)
    emit(f"{checkpoint.name}  ({checkpoint.card.role}{', LEAKY' if checkpoint.card.leaky else ''})")
    for task, (metric, value) in summary["validation"].items():
        held = summary["tasks"][task]["unit"] if metric == "mae" else None
        emit(f"  {task}: validation {metric} {number(float(value))}{f' {held}' if held else ''}")
    emit(f"  {checkpoint.folder}")


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
