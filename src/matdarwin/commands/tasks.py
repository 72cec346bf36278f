"""`darwin tasks`: list them, show one with examples or rejected rows, draft one from a table, check one."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from matdarwin.commands.common import (
    PARTLY,
    Json,
    UsageError,
    emit,
    emit_json,
    emit_table,
    note,
    number,
    short,
    working,
)

if TYPE_CHECKING:
    from matdarwin.data.cards import Listed
    from matdarwin.data.readers import Table
    from matdarwin.tasks.schema import Task


class _Tasks(TyperGroup):
    """A group whose first word is a command, or else a task to show."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not {"--help", "-h"}.intersection(args[:1]) and (not args or args[0] not in self.commands):
            args = ["show", *args]
        return super().parse_args(ctx, args)


tasks_app = typer.Typer(
    cls=_Tasks,
    rich_markup_mode=None,
    subcommand_metavar="[NAME] | COMMAND [ARGS]...",
    help="""List the tasks, show one, draft one from a table, check one.

    \b
    darwin tasks                       the list
    darwin tasks NAME                  its card: rows, units, source, licence, folds, an example
    darwin tasks NAME --examples 3     real prompts and answers
    darwin tasks NAME --rejects        the rows that are left out, each with its reason
    darwin tasks new FILE.csv          a task file drafted from a table
    darwin tasks validate FILE.yaml    a task file against the schema and its data

    All options of the first four: darwin tasks show --help.
    """,
)


@tasks_app.command("show")
def show(
    name: Annotated[
        str | None, typer.Argument(help="A task, by id or file; none: list all.", show_default=False)
    ] = None,
    examples: Annotated[
        int | None, typer.Option(help="Print so many of its rows as prompt and answer; always the same ones.", min=1)
    ] = None,
    style: Annotated[Literal["compact", "alpaca"], typer.Option(help="Layout of the prompts.")] = "compact",
    rejects: Annotated[bool, typer.Option("--rejects", help="Print its rejected rows with their reasons.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of task files.")] = False,
    json: Json = False,
) -> None:
    """List the tasks, or print the card of one; `show` may be left out: darwin tasks NAME.

    Nothing is fetched: counts of rows are empty where the data are not on this machine.
    """
    if sum([schema, rejects, examples is not None]) > 1:
        raise UsageError("--examples, --rejects and --schema exclude each other")
    if schema:
        if name is not None:
            raise UsageError("--schema is of all task files; leave the name out")
        from matdarwin.tasks.registry import schema as task_schema

        emit_json(task_schema())
        return
    if name is None:
        if rejects or examples is not None:
            raise UsageError("--examples and --rejects need a task: darwin tasks NAME --examples 3")
        _list(json)
        return
    with working():
        from matdarwin.tasks.registry import load

        task = load(name)
    if examples is not None:
        _print_examples(_examples(task, examples, style), json)
    elif rejects:
        _print_rejects(task, json)
    else:
        _print_card(task, json)


def _list(json: bool) -> None:
    with working():
        from rich.console import Console

        from matdarwin.data.cards import listed
        from matdarwin.tasks import registry

        found: list[Listed] = []
        # Seen on a terminal alone; most of the time it is over before it is read.
        with Console(stderr=True).status("reading tables") as status:
            for name in registry.names():
                status.update(f"reading {name}")
                found.append(listed(registry.load(name)))
    if json:
        emit_json(found)
        return
    rows = [
        [
            one["id"], one["kind"], _cell(one["scored"]), one["unit"] and short(one["unit"], 18), _kept(one), _cell(one["materials"]),
            one["fold_kind"] if one["folds"] is None else f"{one['folds']} {one['fold_kind']}", short(one["licence"].split(" (")[0], 17),
            short(re.split(" @ |: ", one["source"])[0], 27),
        ]
        for one in found
    ]  # fmt: skip
    heads = ("id", "kind", "scored", "unit", "rows kept of read", "materials", "folds", "licence", "source")
    emit_table(heads, rows, right=("rows kept of read", "materials"))
    reasons: dict[str, list[str]] = {}
    for one in found:
        if one["missing"] is not None:
            reasons.setdefault(one["missing"], []).append(one["id"])
    for reason, tasks in reasons.items():
        note(f"{', '.join(tasks)}: {reason}")


def _kept(one: Listed) -> str | None:
    return None if one["rows"] is None else f"{one['rows']:,} of {one['rows_read']:,}"


def _table(task: Task) -> Table:
    """The table of a task whose data are on this machine."""
    from matdarwin.data.cards import away
    from matdarwin.data.readers import read
    from matdarwin.data.sources import DataError

    if reason := away(task):
        raise DataError(f"task {task.id}: {reason}")
    return read(task)


def _examples(task: Task, count: int, style_name: str) -> list[dict[str, str]]:
    """Rows of a task as they are asked and answered, drawn by its id alone."""
    with working():
        from matdarwin.language.answers import format_answer
        from matdarwin.language.prompts import conditions_text, style

        known = [example for example in _table(task).examples if example.target is not None]
        places = list(range(len(known)))
        random.Random(task.id).shuffle(places)
        asked = style(style_name)
        return [
            {
                "row": one.row,
                "prompt": asked.render(
                    task,
                    one.material.text,
                    wording=asked.wording_of(task),
                    conditions=conditions_text(task, one.conditions),
                    evidence=" ".join(one.evidence),
                ),
                "answer": format_answer(task, one.target or 0.0),
            }
            for one in (known[place] for place in places[:count])
        ]


def _print_examples(found: list[dict[str, str]], json: bool) -> None:
    if json:
        emit_json(found)
        return
    for one in found:
        emit(f"row {one['row']}")
        emit(f"  asked     {one['prompt'].replace(chr(10), chr(10) + '            ')}")
        emit(f"  answered {one['answer']}")


def _print_rejects(task: Task, json: bool) -> None:
    with working():
        from matdarwin.data.tables import COUNTED

        table = _table(task)
    # Rows of several files are numbered through, so they are named together.
    file = " + ".join(source.path or source.name for source in task.sources())
    rows = [{"file": file, **dataclasses.asdict(reject)} for reject in table.rejects]
    if json:
        emit_json([{key: row[key] for key in ("file", "row", "column", "text", "reason")} for row in rows])
        return
    if rows:
        emit(file)
        emit_table(
            ("row", "column", "text", "reason"),
            [
                [
                    row["row"],
                    row["column"] or None,
                    short(row["text"]),
                    row["reason"].removeprefix(f"column {row['column']}: "),
                ]
                for row in rows
            ],
            right=("row",),
        )
    # Other readers than that of tables number what they make of a file.
    counted = f"; {COUNTED}" if rows and task.reader.name == "table" else ""
    note(f"{len(rows):,} of {table.rows_read:,} rows are rejected{counted}")


def _print_card(task: Task, json: bool) -> None:
    with working():
        from matdarwin.api import example_of
        from matdarwin.data.cards import card

        found: dict[str, Any] = {**card(task)}
        # Where the card says why the data are missing, there is no example either.
        found["example"] = example_of(task) if found["missing"] is None else None
    if json:
        emit_json(found)
    else:
        _show(found)


@tasks_app.command("new")
def new(
    file: Annotated[Path, typer.Argument(help="The table: CSV (UTF-8) or Parquet.", show_default=False)],
    material_column: Annotated[
        str | None, typer.Option(help="Its column with the materials. Default: found out.")
    ] = None,
    target_column: Annotated[
        str | None, typer.Option(help="Its column with the numbers or classes. Default: found out.")
    ] = None,
    property: Annotated[
        str | None, typer.Option(help='The property in words: "band gap". Default: from the name of the column.')
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Unit of the numbers. Default: from the name of the column, as in gap (eV).")
    ] = None,
    kind: Annotated[
        Literal["regression", "classification"] | None,
        typer.Option(help="Whether the target is a number or a class. Default: found out."),
    ] = None,
    representation: Annotated[
        Literal["composition", "molecule", "name"] | None,
        typer.Option(help="What the materials are given as. Default: found out."),
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="Id of the task. Default: from the property.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the two files; nothing there is overwritten.")] = Path(),
    json: Json = False,
) -> None:
    """Draft a task file (ID.yaml) and its card (ID.md) from a table of your own; look them through.

    What can be found out is not asked. Rows that do not fit are counted in the card; darwin tasks ID.yaml --rejects
    shows each.
    """
    with working():
        from matdarwin.data.cards import card
        from matdarwin.data.draft import draft, text
        from matdarwin.studies.tasks_page import section

        drafted = draft(
            file, material_column=material_column, target_column=target_column, property=property, unit=unit,
            kind=kind, representation=representation, id=id,
        )  # fmt: skip
        task = drafted.task
        written = {out / f"{task.id}.yaml": text(drafted), out / f"{task.id}.md": section(card(task), level=1) + "\n"}
    if there := next((path for path in written if path.exists()), None):
        raise UsageError(f"{there} is there already; delete it, or give another --id or --out")
    out.mkdir(parents=True, exist_ok=True)
    for path, content in written.items():
        path.write_text(content, encoding="utf-8")
    if json:
        emit_json(
            {
                "files": [str(path) for path in written],
                "found": list(drafted.found),
                "task": task.model_dump(mode="json"),
            }
        )
        return
    for path in written:
        emit(str(path))
    for line in (*drafted.found, *task.notes):
        note(line)
    note(f"look them through, then: darwin tasks validate {next(iter(written))}")


@tasks_app.command("validate")
def validate(
    file: Annotated[str, typer.Argument(help="Task file (YAML), or id of a task of the library.", show_default=False)],
    json: Json = False,
) -> None:
    """Check a task file against the schema, and against its data: columns, checksum, every row.

    Exit code 0: every row is an example, or left out by a rule that the task declares. 1: it is valid, but other rows
    are rejected or something is to be said. 2: it does not fit the schema, or its data cannot be read as it says.
    """
    with working():
        from matdarwin.data.checking import check
        from matdarwin.tasks.registry import load

        found = check(load(file))
    if json:
        emit_json(dataclasses.asdict(found))
    else:
        emit(f"{found.task}: fits the schema")
        if found.rows is not None and found.rows_read is not None:
            emit(f"{found.rows:,} of {found.rows_read:,} rows are examples")
        for cause, count in found.declared.items():
            emit(f"  {count:,} left out as declared: {cause}")
        for cause, count in found.rejected.items():
            emit(f"  {count:,} rejected: {cause}")
        for remark in found.remarks:
            emit(f"  {remark}")
        if found.rejected:
            note(f"darwin tasks {file} --rejects shows each of them")
    if not found.clean:
        raise typer.Exit(PARTLY)


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
    return f"{merged['materials']:,} materials repeat{' at one condition' * bool(card['conditions'])}, {merged['disagreeing']:,} of them disagree{spread}"
