"""`darwin tasks` and `darwin data`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matdarwin.commands.common import Json, UsageError, emit, emit_json, emit_table, note, number, working

if TYPE_CHECKING:
    from matdarwin.data.sources import SourceRow
    from matdarwin.tasks.schema import Task

data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Data sources of the tasks: where they stand, fetch, verify."
)

Names = Annotated[list[str] | None, typer.Argument(help="Tasks; default: all.", show_default=False)]


def tasks(
    name: Annotated[str | None, typer.Argument(help="Print this task's card.", show_default=False)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of task files.")] = False,
    json: Json = False,
) -> None:
    """List the tasks, or print the card of one: rows, units, source, licence, folds, an example.

    Nothing is fetched: counts of rows are empty where the data are not on this machine.
    """
    if schema:
        if name is not None:
            raise UsageError("--schema is of all task files; leave the name out")
        from matdarwin.tasks.registry import schema as task_schema

        emit_json(task_schema())
        return
    with working():
        from matdarwin.api import example_of
        from matdarwin.data.cards import card
        from matdarwin.tasks import registry

        chosen = [registry.load(name)] if name is not None else [registry.load(known) for known in registry.names()]
        cards: list[dict[str, Any]] = [{**card(task)} for task in chosen]
        if name is not None:
            # Where the card says why the data are missing, there is no example either.
            cards[0]["example"] = example_of(chosen[0]) if cards[0]["missing"] is None else None
    if name is not None:
        if json:
            emit_json(cards[0])
        else:
            _show(cards[0])
        return
    keys = ("id", "kind", "scored", "rows", "materials", "unit", "property", "quantities", "representation", "licence")
    if json:
        emit_json([{key: one[key] for key in keys} for one in cards])
        return
    columns = ("id", "kind", "scored", "rows", "materials", "unit", "property", "licence")
    emit_table(columns, [[_cell(one[key]) for key in columns] for one in cards], right=("rows", "materials"))
    if any(one["rows"] is None for one in cards):
        note(
            "rows and materials are empty where the data are not on this machine; darwin data fetch brings those that can "
            "be fetched, the others are read from a mirror (MATDARWIN_MIRROR)"
        )


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else value


def _show(card: dict[str, Any]) -> None:
    """The card of one task for people."""
    bounds = (
        f", {card['bounds'][0]:g} to {card['bounds'][1]:g}, {card['decimals']} decimal{'' if card['decimals'] == 1 else 's'}"
        if card["bounds"]
        else ""
    )
    lines: list[tuple[str, object]] = [
        ("title", card["title"]),
        ("kind", card["kind"] + ("" if card["scored"] else " (auxiliary: teaches, is not scored)")),
        ("property", f"{card['property']} ({card['origin']})"),
        ("unit", f"{card['unit'] or 'none'}{bounds}"),
        ("labels", ", ".join(card["labels"])),
        ("given as", card["representation"]),
        ("quantities", ", ".join(card["quantities"])),
        ("metric", card["metric"]),
        ("board", card["board"]),
        ("rows", _rows(card)),
        ("materials", None if card["materials"] is None else f"{card['materials']:,} different"),
        (
            "folds",
            f"{card['fold_kind']}" + (f": {', '.join(f'{n:,}' for n in card['folds'])} rows" if card["folds"] else ""),
        ),
        ("targets", _targets(card["targets"])),
        ("repeats", _repeats(card)),
        ("source", " ".join(filter(None, (card["source"][k] for k in ("kind", "name", "version", "path"))))),
        ("sha256", card["source"]["sha256"]),
        ("licence", card["licence"]),
        ("citation", card["citation"]),
    ]
    if card["example"]:
        lines += [("asked", card["example"]["prompt"]), ("answered", card["example"]["answer"])]
    emit(card["id"])
    for name, value in lines:
        if value:
            emit(f"  {name:<11}{value}")
    emit(f"  {card['description']}")
    for line in card["notes"]:
        emit(f"  - {line}")
    if card["missing"]:
        note(card["missing"])


def _rows(card: dict[str, Any]) -> str | None:
    if card["rows"] is None:
        return None
    refused = card["rows_read"] - card["rows"]
    why = "; ".join(f"{reason} ({count})" for reason, count in (card["rejected"] or {}).items())
    return f"{card['rows']:,} of {card['rows_read']:,}" + (f"; {refused} refused: {why}" if refused else "")


def _targets(targets: dict[str, Any] | None) -> str | None:
    if not targets:
        return None
    return ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in targets.items())


def _repeats(card: dict[str, Any]) -> str | None:
    merged = card["merged"]
    if not merged or not merged["materials"]:
        return None
    spread = f", {merged['greatest_spread']:g} apart at most" if merged["greatest_spread"] is not None else ""
    return f"{merged['materials']:,} materials repeat, {merged['disagreeing']:,} of them disagree{spread}"


def _chosen(names: list[str] | None) -> list[Task]:
    from matdarwin.tasks import registry

    return [registry.load(name) for name in names or registry.names()]


def _print(rows: list[SourceRow], *, json: bool, bad: tuple[str, ...]) -> None:
    if json:
        emit_json([dataclasses.asdict(row) for row in rows])
    else:
        emit_table(
            ("task", "status", "bytes", "source", "file"),
            [[row.task, row.status, _cell(row.bytes), f"{row.kind} {row.name}", row.path] for row in rows],
            right=("bytes",),
        )
    for row in rows:
        if row.message:
            note(f"{row.task}: {row.message}")
    if any(row.status in bad for row in rows):
        raise typer.Exit(1)


@data_app.command("list")
def list_data(names: Names = None, json: Json = False) -> None:
    """Where the source of each task stands; files are not read."""
    from matdarwin.data.sources import list_sources

    _print(list_sources(_chosen(names)), json=json, bad=())


@data_app.command("fetch")
def fetch_data(names: Names = None, json: Json = False) -> None:
    """Bring sources to this machine, each checked against its pinned sha256. Exit code 1 if one fails."""
    with working():
        from matdarwin.data.sources import fetch_all

        rows = fetch_all(
            _chosen(names), progress=lambda task: note(f"{task.id}: {task.source.kind} {task.source.name}")
        )
    _print(rows, json=json, bad=("failed", "changed"))


@data_app.command("verify")
def verify_data(names: Names = None, json: Json = False) -> None:
    """Check the sha256 of every source that is on this machine. Exit code 1 if one differs."""
    from matdarwin.data.sources import verify

    _print(verify(_chosen(names)), json=json, bad=("failed", "changed"))
