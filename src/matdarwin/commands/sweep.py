"""`darwin sweep`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from matdarwin.commands.common import Json, emit, emit_json, emit_table, note, number, working
from matdarwin.commands.recipes import Settings, alone


def sweep(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML) with a validation part.", show_default=False)],
    vary: Annotated[
        list[str],
        typer.Option(
            help="What to vary: KEY=log:LOW:HIGH, KEY=float:LOW:HIGH, KEY=int:LOW:HIGH or KEY=choice:A,B; may be repeated.",
            show_default=False,
        ),
    ],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier starts counted.")] = 20,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no trial after so many minutes; run it again to go on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is tried.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the checkpoint of every trial, not of the best alone.")
    ] = False,
    setting: Settings = None,
    json: Json = False,
) -> None:
    """Search for good settings of a recipe, by its validation rows; test folds are never looked at.

    A sweep that was stopped goes on where it stood when the same command is run again.
    """
    alone("sweep")
    with working():
        from matdarwin.commands.progress import Bar
        from matdarwin.training.sweep import sweep as run
        from matdarwin.training.vary import parse

        wanted = [parse(text) for text in vary]
        with Bar() as bar:
            try:
                found = run(
                    recipe,
                    wanted,
                    trials=trials,
                    minutes=minutes,
                    seed=seed,
                    keep=keep,
                    settings=setting or [],
                    report=bar,
                )
            except KeyboardInterrupt:
                bar.say("stopped; run the same command to go on with what is finished")
                raise typer.Exit(130) from None
    if json:
        emit_json({**found.model_dump(mode="json"), "set": list(found.best.settings)})
        return
    keys = [one.key for one in wanted]
    scores = [f"{task} {metric}" for task, (metric, _) in found.best.validation.items()]
    rows = []
    for trial in found.trials:
        remark = (
            "best" if trial.number == found.best.number else f"as {trial.repeats}" if trial.repeats else trial.reason
        )
        values = [number(float(value)) for _, value in trial.validation.values()] or [None] * len(scores)
        rows.append(
            [
                trial.number,
                *(text.partition("=")[2] for text in trial.settings),
                *values,
                number(trial.score),
                f"{trial.seconds:.0f}",
                remark,
            ]
        )
    emit_table(
        ["trial", *keys, *scores, "score", "seconds", ""], rows, right=["trial", *keys, *scores, "score", "seconds"]
    )
    emit(found.arguments())
    whole = " ".join(
        [shlex.quote(str(recipe)), *(f"--set {shlex.quote(text)}" for text in setting or []), found.arguments()]
    )
    note(f"kept: {found.best.checkpoint}")
    note(f"the best was chosen by these scores, which flatters it; for a fair one: darwin evaluate {whole}")
