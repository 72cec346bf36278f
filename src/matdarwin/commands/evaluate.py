"""`darwin evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from matdarwin.commands.common import Json, UsageError, emit, emit_json, emit_table, note, number, working
from matdarwin.commands.recipes import AllowLeak, Settings, alone, check_tasks, load_recipes


def evaluate(
    recipe_or_model: Annotated[
        str, typer.Argument(help="Recipe file, or the name or folder of a checkpoint that held rows out.")
    ],
    fold: Annotated[
        list[int] | None, typer.Option("--fold", min=0, max=4, help="Test fold; may be repeated. Default: all five.")
    ] = None,
    setting: Settings = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            help="Of a checkpoint with several tasks: the one to score. Of a recipe of a single task: score it for this one "
            "instead, or for `all` scored tasks; may be repeated then.",
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Also fit the classical rivals on the same rows.")
    ] = True,
    wording: Annotated[
        str | None,
        typer.Option(
            help="Ask a checkpoint in another wording: a number (darwin tasks NAME shows them), or held-out for the one that a "
            "task keeps from training."
        ),
    ] = None,
    allow_leak: AllowLeak = False,
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
    if wording is not None:
        if from_file:
            raise UsageError("--wording belongs to a checkpoint; a recipe says its own (prompting.wordings)")
        if wording != "held-out" and not wording.isdecimal():
            raise UsageError(f"--wording {wording}: give the number of a wording, or held-out")
    if not from_file and len(task or []) > 1:
        raise UsageError("--task: of a checkpoint one task is scored, or without --task all that it knows")
    check_tasks(task, setting)
    alone("evaluate")
    with working():
        from matdarwin.commands.progress import Bar

        results: list[Any]
        with Bar() as bar:
            try:
                if from_file:
                    recipes = load_recipes(recipe_or_model, task, setting)
                    from matdarwin.evaluation.protocol import evaluate as run

                    results = []
                    for recipe in recipes:
                        results += run(
                            recipe, folds=fold or None, baselines=baselines, report=bar, allow_leak=allow_leak
                        )
                else:
                    from matdarwin.models.store import find_checkpoint

                    checkpoint = find_checkpoint(recipe_or_model, task)
                    from matdarwin.evaluation.protocol import evaluate_checkpoint

                    wanted_task = task[0] if task else None
                    results = list(
                        evaluate_checkpoint(
                            checkpoint, task=wanted_task, baselines=baselines, report=bar,
                            wording=int(wording) if wording and wording.isdecimal() else wording,
                        )
                    )  # fmt: skip
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
        rows = [
            (name, {k: v for k, v in score.model_dump().items() if isinstance(v, float) or (k == "unread" and v)})
            for name, score in scores
        ]
        title, where = f"{result.task}: fold {result.fold} ({result.folds}), {result.checkpoint}", None
        if "wording" in result.predicting:
            title += f", asked in wording {result.predicting['wording']}"
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
