"""`darwin models`: checkpoints and base models."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from matdarwin.commands.common import Json, emit, emit_json, emit_table, note, number, working

models_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Checkpoints and base models: list, show, pull."
)


@models_app.command("list")
def list_models(json: Json = False) -> None:
    """List checkpoints, newest first (or why one cannot be used), and base models."""
    with working():
        from matdarwin.api import known_bases
        from matdarwin.models.checkpoint import Checkpoint, checkpoints_folder
        from matdarwin.models.store import list_checkpoints

        rows: list[dict[str, Any]] = []
        for name, found in list_checkpoints():
            row: dict[str, Any] = {"name": name, "sealed": isinstance(found, Checkpoint), "reason": None}
            if isinstance(found, Checkpoint):
                row |= {
                    "role": found.card.role,
                    "created": found.card.created,
                    "base": found.card.base["name"],
                    "tasks": list(found.card.tasks),
                }
            else:
                row |= {"role": None, "created": None, "base": None, "tasks": [], "reason": str(found)}
            rows.append(row)
        bases = known_bases()
        folder = checkpoints_folder()
    if json:
        emit_json({"folder": str(folder), "checkpoints": rows, "bases": bases})
        return
    if rows:
        emit_table(
            ("checkpoint", "role", "created", "base", "tasks", "remarks"),
            [
                [row["name"], row["role"], row["created"], row["base"], ", ".join(row["tasks"]), row["reason"] or ""]
                for row in rows
            ],
        )
    else:
        note(f"no checkpoint in {folder} yet; darwin train RECIPE.yaml or make demo trains one")
    emit_table(
        ("base model", "here", "source"),
        [[base["name"], "yes" if base["present"] else "no", base["source"]] for base in bases],
    )


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")], json: Json = False
) -> None:
    """Print a checkpoint's card, after checking its seal."""
    with working():
        from matdarwin.models.store import changed_since, find_checkpoint

        checkpoint = find_checkpoint(name)
        card = checkpoint.card.model_dump(mode="json")
        calibrations = checkpoint.calibration()
        changed = changed_since(checkpoint)
    if json:
        emit_json({"folder": str(checkpoint.folder), "sealed": True, "changed": changed, **card})
        return
    training = card["training"]
    emit(checkpoint.name)
    for key, value in (
        ("role", card["role"]),
        ("created", f"{card['created']} by matdarwin {card['code']}"),
        ("base", f"{card['base']['name']} (weights {card['base']['sha256'][:12]}…), {card['method']}"),
        ("language", f"prompts {card['style']}, {card['answers']}"),
        (
            "recipe",
            f"{card['recipe']['name']} ({card['recipe_hash'][:12]}…)"
            + ("" if card["fold"] is None else f", fold {card['fold']} held out"),
        ),
        (
            "training",
            ", ".join(f"{k.replace('_', ' ')} {number(v)}" for k, v in training.items() if not isinstance(v, dict)),
        ),
        ("machine", ", ".join(f"{k} {v}" for k, v in card["machine"].items() if v)),
        ("folder", checkpoint.folder),
    ):
        emit(f"  {key:<10}{value}")
    for task, entry in card["tasks"].items():
        scores = training.get("validation", {}).get(task)
        calibrated = calibrations.get(task)
        emit(
            f"  task {task}: {entry['task']['property']}"
            + (f", {entry['task']['unit']}" if entry["task"]["unit"] else "")
        )
        emit(f"    rows      {', '.join(f'{name} {count:,}' for name, count in entry['counts'].items())}")
        emit(f"    elements  {len(entry['elements'])}")
        if task in changed:
            emit(f"    since     {changed[task]}; it is asked as it was taught")
        if scores:
            emit(f"    validation {scores[0]} {number(float(scores[1]))}")
        if calibrated:
            emit(f"    intervals {calibrated['status']} by {calibrated['n']} materials")


@models_app.command("pull")
def pull_model(
    base: Annotated[str, typer.Argument(help="Embedded base model, folder, or hub name.")] = "smollm2-135m",
    json: Json = False,
) -> None:
    """Fetch a base model and convert it, so that training can begin offline."""
    with working():
        from matdarwin.models.base import find_base

        note(f"looking for {base}; the first time it is fetched and converted")
        found = find_base(base)
    if json:
        emit_json({"name": found.name, "folder": str(found.folder), "sha256": found.sha256})
    else:
        emit(f"{found.name}\n  {found.folder}\n  weights' sha256 {found.sha256}")
