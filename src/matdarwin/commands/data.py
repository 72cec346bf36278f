"""`darwin data`: where sources stand, fetch and verify them, the cards of all tasks, and rows as CSV."""

from __future__ import annotations

import contextlib
import dataclasses
import json as json_module
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from matdarwin.commands.common import Json, UsageError, emit, emit_json, emit_table, note, working

if TYPE_CHECKING:
    from matdarwin.data.sources import Holder, SourceRow
    from matdarwin.tasks.schema import Source, Task

data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Data sources: where they stand, fetch, verify."
)

_CARDS = Path("results/data/cards.json")

Names = Annotated[
    list[str] | None, typer.Argument(help="Tasks, texts and databases; default: all.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="All of them, which is also what no name means.")]
Mirror = Annotated[
    Path | None,
    typer.Option("--mirror", help="Folder that holds the data, in place of MATDARWIN_MIRROR.", show_default=False),
]


@data_app.command("list")
def list_data(names: Names = None, mirror: Mirror = None, json: Json = False) -> None:
    """Where the sources of tasks, texts and databases stand; files are not read."""
    from matdarwin.data.sources import list_sources

    with _mirrored(mirror):
        _print(list_sources(_chosen(names)), json=json, bad=())


@data_app.command("fetch")
def fetch_data(names: Names = None, all: All = False, mirror: Mirror = None, json: Json = False) -> None:
    """Bring sources to this machine, each checked against its pinned sha256. Exit code 1 if one cannot be had.

    With a mirror, what it is to hold is read from there, and nothing goes to the network for it. A download that was
    broken off goes on where it stood.
    """
    holders = _chosen(names, all=all)
    with _mirrored(mirror), working():
        from matdarwin.data.sources import fetch_all

        with _Bar(holders) as bar:
            rows = fetch_all(holders, bar.begin, bar.arrive)
    _print(rows, json=json, bad=("failed", "changed"))


@data_app.command("verify")
def verify_data(names: Names = None, all: All = False, mirror: Mirror = None, json: Json = False) -> None:
    """Check the sha256 of every source. Exit code 1 if one is missing or differs."""
    holders = _chosen(names, all=all)
    with _mirrored(mirror), working():
        from matdarwin.data.sources import verify

        with _Bar(holders) as bar:
            rows = verify(holders, bar.check)
    _print(rows, json=json, bad=("failed", "changed", "absent"))


@data_app.command("cards")
def cards_data(
    names: Names = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write; needed with names. Default: results/data/cards.json, of which make results makes docs/tasks.md.",
            show_default=False,
        ),
    ] = None,
    mirror: Mirror = None,
    json: Json = False,
) -> None:
    """Write the cards of all tasks as JSON: rows, materials, histogram, folds, licence, source, defects, rejects by cause.

    Needs the data of all of them. With names, the file has the cards of these tasks alone, so it must be named by --out.
    """
    if names and out is None:
        raise UsageError(
            f"{_CARDS} holds the cards of all tasks, and would keep those of {', '.join(names)} alone: give --out FILE, or no name"
        )
    out = out or _CARDS
    with _mirrored(mirror), working():
        from matdarwin.commands.progress import Bar
        from matdarwin.data import cards
        from matdarwin.tasks import registry

        tasks, found = [registry.load(name) for name in names or registry.names()], []
        with Bar() as bar:
            bar.begin("cards", len(tasks))
            for place, task in enumerate(tasks, start=1):
                found.append(cards.card(task))
                bar.step(place, task.id)
        content: dict[str, Any] = cards.public(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json_module.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    if json:
        emit_json({"file": str(out), "tasks": [one["id"] for one in found]})
    else:
        emit(f"{out}: cards of {len(found)} task{'' if len(found) == 1 else 's'}")


One = Annotated[str, typer.Argument(help="A task, by id or file.", show_default=False)]


@data_app.command("hard")
def hard_data(
    task: One,
    by: Annotated[
        str,
        typer.Option(
            help="element:Fe tests on all that contain it; system:0 and scaffold:0 on the first of five folds in which "
            "chemical systems, or Murcko scaffolds, stand together; highest:0.2 on the highest fifth of the answers.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for train.csv and test.csv.")],
    json: Json = False,
) -> None:
    """Split a task so that training never saw an element, a system, a scaffold or a range; write both sides as CSV."""
    with working():
        from matdarwin.data import export
        from matdarwin.tasks import registry

        known = registry.load(task)
        paths = [output / "train.csv", output / "test.csv"]
        export.refuse_standing(paths)
        removed: Counter[str] = Counter()
        sides = export.hard_split(known, by, removed)
        output.mkdir(parents=True, exist_ok=True)
        for path, rows in zip(paths, sides, strict=True):
            export.write(path, known, rows)
    _written(known, dict(zip(paths, map(len, sides), strict=True)), json=json, removed=removed)


@data_app.command("synthetic")
def synthetic_data(
    task: One,
    kind: Annotated[
        int,
        typer.Option(
            min=1,
            max=3,
            show_default=False,
            help="1: real materials, random values; 2: random materials and values; 3: random materials, real values.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write.")],
    fold: Annotated[
        int | None,
        typer.Option(
            min=0, max=4, help="Leave out what this test fold holds. Default: of all rows.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 0,
    json: Json = False,
) -> None:
    """Write a task's rows with their meaning taken out as CSV, to see whether data help by what they say."""
    with working():
        from matdarwin.data import export
        from matdarwin.tasks import registry

        known = registry.load(task)
        rows = export.synthetic(known, export.CONTROLS[kind - 1], seed=seed, fold=fold)
        output.parent.mkdir(parents=True, exist_ok=True)
        export.write(output, known, rows)
    _written(known, {output: len(rows)}, json=json)


def _written(task: Task, files: dict[Path, int], *, json: bool, removed: Mapping[str, int] | None = None) -> None:
    """Tell of files of rows, and how to train on the first."""
    from matdarwin.data import export

    material = export.MATERIAL[task.representation]
    reasons = {reason.removeprefix(f"{task.id}: "): count for reason, count in (removed or {}).items()}
    if json:
        rows = [{"file": str(path), "rows": count} for path, count in files.items()]
        told = {"task": task.id, "material": material, "target": export.TARGET, "unit": task.unit, "files": rows}
        emit_json(told if removed is None else {**told, "removed": reasons})
        return
    for path, count in files.items():
        emit(f"{path}: {count:,} rows")
    for reason, count in reasons.items():
        note(f"{count:,} training rows left out: {reason}")
    if task.conditions:
        names = ", ".join(condition.name for condition in task.conditions)
        note(f"{names}: columns that darwin train --data does not ask by; a task file does (darwin tasks new)")
    options = {"--data": str(next(iter(files))), "--input-column": material, "--target-column": export.TARGET}
    options |= {"--property": task.property, "--kind": task.kind, "--representation": task.representation}
    options |= {"--unit": task.unit} if task.unit else {}
    note("train on it: darwin train " + " ".join(f"{name} {shlex.quote(value)}" for name, value in options.items()))


def _chosen(names: list[str] | None, *, all: bool = False) -> list[Holder]:
    """Tasks, texts that are fetched, and databases of computed values, by name."""
    from matdarwin.data.evidence import DATABASES
    from matdarwin.data.texts import PUBLISHED
    from matdarwin.tasks import registry

    if names and all:
        raise UsageError("--all means every source; leave the names out, or leave --all out")
    others: dict[str, Holder] = {holder.id: holder for holder in (*PUBLISHED, *DATABASES)}
    known = [*registry.names(), *others]
    for name in names or ():
        if name not in known and not name.endswith((".yaml", ".yml")):
            close = registry.nearest(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
            raise UsageError(f"{name!r} is no task, text or database; {hint}")
    return [others.get(name) or registry.load(name) for name in names or known]


@contextlib.contextmanager
def _mirrored(folder: Path | None) -> Iterator[None]:
    """The mirror that the option names, in place of that of the environment."""
    if folder is None:
        yield
        return
    if not folder.is_dir():
        raise UsageError(f"--mirror {folder}: there is no such folder")
    before = os.environ.get("MATDARWIN_MIRROR")
    os.environ["MATDARWIN_MIRROR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MATDARWIN_MIRROR"]
        else:
            os.environ["MATDARWIN_MIRROR"] = before


def _print(rows: list[SourceRow], *, json: bool, bad: tuple[str, ...]) -> None:
    if json:
        emit_json([dataclasses.asdict(row) for row in rows])
        for row in rows:
            if row.message:
                note(f"{row.task}: {row.message}")
    else:
        emit_table(
            ("of", "status", "bytes", "source", "file"),
            [
                [
                    row.task,
                    row.status,
                    None if row.bytes is None else f"{row.bytes:,}",
                    f"{row.kind} {row.name}",
                    row.path,
                ]
                for row in rows
            ],
            right=("bytes",),
        )
        if wanting := [row for row in rows if row.message]:
            emit("Missing, and why:")
            emit_table(("of", "status", "why"), [[row.task, row.status, row.message] for row in wanting])
    count = sum(row.status in bad for row in rows)
    if count:
        note(f"{count} of {len(rows)} sources cannot be used")
        raise typer.Exit(1)


class _Bar:
    """Which source is at work, and how many of its bytes are here: a bar on a terminal, else a line for each to fetch."""

    def __init__(self, holders: list[Holder]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        console = Console(stderr=True, highlight=False)
        self._shown = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            console=console, transient=True, redirect_stdout=False, redirect_stderr=False, disable=not self._shown,
        )  # fmt: skip
        self._bar = self._progress.add_task("", total=None)
        self._count, self._place = sum(len(holder.sources()) for holder in holders), 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def check(self, holder: Holder, source: Source) -> None:
        """The next source is being read, which is over soon."""
        self._place += 1
        self._progress.reset(self._bar, description=f"{self._place} of {self._count}: {holder.id}", total=None)

    def begin(self, holder: Holder, source: Source) -> None:
        """The next source is being fetched."""
        self.check(holder, source)
        if not self._shown:
            note(f"{self._place} of {self._count}: {holder.id}: {source.kind} {source.name}")

    def arrive(self, here: int, whole: int | None) -> None:
        """So many bytes of it are here."""
        self._progress.update(self._bar, completed=here, total=whole)
