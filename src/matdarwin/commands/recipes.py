"""What commands on recipes share: their options, and the recipes that they name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from matdarwin.commands.common import UsageError

if TYPE_CHECKING:
    from matdarwin.training.recipe import Recipe

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a key of the recipe: KEY=VALUE, dotted as in optimising.epochs=3; may be repeated."
    ),
]


Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        "-t",
        help="Use a recipe of a single task for this one instead, or for `all` scored tasks one after the other; may be repeated.",
    ),
]

AllowLeak = Annotated[
    bool, typer.Option("--allow-leak", help="Also train what the audit calls LEAKY; every result is marked so.")
]


def check_tasks(task: list[str] | None, setting: list[str] | None) -> None:
    """Refuse tasks that are named in two ways."""
    if task and (given := [text for text in setting or [] if text.partition("=")[0].strip() == "tasks"]):
        raise UsageError(f"--task {task[0]} and --set {given[-1]} both say what to train; give one of them")


def load_recipes(recipe: str, task: list[str] | None, setting: list[str] | None) -> list[Recipe]:
    """The recipe of a file; or, where tasks are named, one for each of them."""
    from matdarwin.training.recipe_files import load_for_tasks, load_recipe

    return load_for_tasks(recipe, task, setting or []) if task else [load_recipe(recipe, setting or [])]


def alone(command: str) -> None:
    """Refuse several processes where each would do the whole work.

    Raises:
        UsageError: A launcher has started several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"darwin {command} runs as one process; only darwin train shares its work among several")


def is_first() -> bool:
    """Whether this process is the one of a launcher's that tells."""
    return os.environ.get("RANK", "0") == "0"
