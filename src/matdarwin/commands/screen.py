"""`darwin screen`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from matdarwin.commands.common import (
    BatchSize,
    Column,
    ConditionTexts,
    Coverage,
    Json,
    Model,
    NumberFormat,
    Tasks,
    UsageError,
    conditions_of,
    duration,
    emit,
    emit_json,
    note,
    working,
)

if TYPE_CHECKING:
    from matdarwin.prediction.candidates import Generated
    from matdarwin.prediction.files import Ask, Table
    from matdarwin.prediction.prediction import Prediction
    from matdarwin.prediction.screening import Input
    from matdarwin.tasks.schema import Task


def screen(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[IN] OUT",
            help="IN: candidates, as CSV (UTF-8; .gz too) or .parquet; none where they are generated. OUT: the rows kept, as "
            "CSV (.gz too) or .parquet.",
        ),
    ],
    task: Tasks = None,
    where: Annotated[
        str | None,
        typer.Option(help='Keep what fulfils this, such as "value > 1.1 and value < 1.7" or "P(1.1, 1.7) > 0.5".'),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help='What to rank by: value, lower, upper, "P(1.1, 1.7)" (probability of a window) or "EI(2.5)" (expected '
            "improvement over 2.5)."
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Keep this many of the best, best first. Needs --by.")] = None,
    lowest: Annotated[bool, typer.Option("--lowest", help="Little is better.")] = False,
    elements: Annotated[
        str | None, typer.Option(help="Generate all compositions of these elements, such as Cd,Zn,Cu,Sn,S,Se.")
    ] = None,
    max_elements: Annotated[int | None, typer.Option(min=1, help="Most elements of one, 3 by default.")] = None,
    max_atoms: Annotated[int | None, typer.Option(min=1, help="Most atoms of one, 8 by default.")] = None,
    substitute: Annotated[
        str | None,
        typer.Option(
            help="Generate from known formulas (CdTe,GaN or a table) by replacing elements by others of the same group with an "
            "oxidation state in common."
        ),
    ] = None,
    max_replaced: Annotated[
        int | None, typer.Option(min=1, help="Most elements replaced at once, 1 by default.")
    ] = None,
    charge_neutral: Annotated[
        bool, typer.Option("--charge-neutral", help="Generate only what can be neutral (oxidation states from smact).")
    ] = False,
    engine: Annotated[
        Literal["local", "ray", "vllm"],
        typer.Option(
            help="Where the model runs: here, on the Ray cluster of RAY_ADDRESS (one on this machine without), or in the "
            "vLLM server of --url."
        ),
    ] = "local",
    url: Annotated[
        str | None,
        typer.Option(
            help="Server of --engine vllm, such as http://127.0.0.1:8000; its API key is taken from MATDARWIN_VLLM_KEY."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Actors of --engine ray, 1 by default.")] = None,
    column: Column = None,
    model: Model = None,
    coverage: Coverage = 0.9,
    condition: ConditionTexts = None,
    batch_size: BatchSize = None,
    dtype: NumberFormat = "auto",
    json: Json = False,
) -> None:
    """Predict a table of candidates of any length and keep those that are wanted.

    The same command goes on after any stop: no row twice, none lost, and the same file as without one. With several tasks a term
    begins with its task: expt_gap.value > 1. Rows without a value fulfil no condition; they are counted, and the exit
    code is then 1. P and EI are of the model's own distribution.

    With --elements or --substitute the candidates are generated, none twice, and only OUT is given.
    """
    if workers is not None and engine != "ray":
        raise UsageError("--workers belongs to --engine ray")
    if (url is not None) != (engine == "vllm"):
        raise UsageError("--engine vllm and --url belong together: the address of a vLLM server that holds the model")
    if dtype != "auto" and engine == "vllm":
        raise UsageError(f"--dtype {dtype}: the vLLM server has the weights and asks in its own format")
    wish = _Generator(elements, max_elements, max_atoms, substitute, max_replaced, charge_neutral)
    wish.check()
    input, output = _paths(paths, generated=wish.asked)
    if top is not None and by is None:
        raise UsageError("--top needs --by: the best by what?")
    if lowest and by is None:
        raise UsageError("--lowest belongs to --by")
    if str(output) == "-":
        raise UsageError("OUT is a file, beside which screening keeps what it has done; give its name")
    read = input if input is not None or substitute is None else Path(substitute)
    if read is not None and read.resolve() == output.resolve():
        raise UsageError(f"{output} would be written over while it is read; choose another name for the output")
    began = time.monotonic()
    with working():
        from matdarwin.api import Darwin, check_coverage
        from matdarwin.commands.progress import Bar
        from matdarwin.prediction import files, screening, wishes

        check_coverage(coverage)
        conditions = conditions_of(condition or [])
        darwin = Darwin.load(model, tasks=list(dict.fromkeys(task or [])), batch_size=batch_size, dtype=dtype)
        names = darwin.resolve(task or None)
        asked = darwin.conditions(names, conditions)
        tasks = [darwin.tasks[name] for name in names]
        # Faults in what is wanted come before a file is looked through.
        if where is not None:
            wishes.condition(where, tasks)
        if by is not None:
            wishes.rank(by, tasks, lowest=lowest)
        note(f"using checkpoint {darwin.name} (base {darwin.card.base['name']}), task {', '.join(names)}")
        if engine != "vllm" and darwin.caveat:
            note(f"of every row: {darwin.caveat}")
        with _candidates(input, wish, column, tasks) as (table, source), Bar() as bar, ExitStack() as stack:
            # A generated table has its materials in its first column.
            chosen = files.choose_column(table, column if input is not None else table.columns[0], files.kind_of(tasks))

            def here(materials: Sequence[str], name: str) -> list[Prediction]:
                return darwin.predict(materials, name, coverage=coverage, conditions=conditions or None)

            ask: Ask = here
            size = files.CHUNK
            if engine == "ray" and table.count:
                from matdarwin.prediction.engines import PARTS, RayAsk

                ask = RayAsk(darwin, coverage=coverage, conditions=conditions or None, workers=workers or 1)
                stack.callback(ask.close)
                size *= PARTS
            elif engine == "vllm" and url is not None and table.count:
                from matdarwin.prediction.remote import VllmAsk

                ask = VllmAsk(darwin.checkpoint, url, coverage=coverage, conditions=asked, batch_size=batch_size)
                stack.callback(ask.close)
                note(f"asking the vLLM server at {url}")

            def told(rows: int) -> None:
                bar.step(rows, f"{(rows - before) / max(time.monotonic() - started, 1e-9):,.1f} rows/s")

            if table.count and engine == "local":
                note("reading the model's weights")
                darwin.predictor  # noqa: B018 - now, so that the bar times predictions alone
            before = 0
            started = time.monotonic()
            bar.begin("screening", table.count)
            identity = {
                **({"input": _identity(table)} if source is None else {}),
                "model": darwin.name, "weights": darwin.checkpoint.digest,
                "coverage": coverage, "conditions": asked, "batch size": batch_size,
                **({"dtype": dtype} if dtype != "auto" else {}),
                # A server's last digits are its own.
                **({"engine": engine} if engine == "vllm" else {}),
            }  # fmt: skip
            done = screening.screen(
                table, chosen, output, tasks, ask, screening.Wanted(where, by, top, lowest),
                model=darwin.name, identity=identity, source=source, size=size, progress=told,
            )  # fmt: skip
        screened = time.monotonic() - started
    seconds = time.monotonic() - began
    rows = done.summary.rows
    if done.found:
        note(f"{done.found:,} rows were done by an earlier run")
    if json:
        emit_json(
            {
                "rows": rows, "without_value": done.summary.without_value, "statuses": dict(done.summary.statuses),
                "matched": done.matched, "unranked": done.unranked, "kept": done.kept, "resumed_at": done.found,
                "seconds": round(seconds, 3), "screening_seconds": round(screened, 3), "tasks": names, "model": darwin.name, "output": str(output),
            }
        )  # fmt: skip
    else:
        emit(f"{done.kept:,} of {rows:,} rows are kept in {output} ({duration(seconds)})")
    if done.unranked:
        note(f"{done.unranked:,} rows fulfil the condition but have no {by}, so they are not ranked")
    if done.summary.without_value:
        note(f"{done.summary.without_value:,} of {rows:,} rows have no value")
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Generator:
    """What candidates are generated from, as it was asked; None or False where it was not."""

    elements: str | None
    max_elements: int | None
    max_atoms: int | None
    substitute: str | None
    max_replaced: int | None
    charge_neutral: bool

    @property
    def asked(self) -> bool:
        """Whether anything is to be generated."""
        return self.elements is not None or self.substitute is not None

    def check(self) -> None:
        """Make sure that the options go together.

        Raises:
            UsageError: They do not.
        """
        if self.elements is not None and self.substitute is not None:
            raise UsageError("--elements and --substitute generate different candidates; choose one")
        for name, given, owner in (
            ("--max-elements", self.max_elements, self.elements),
            ("--max-atoms", self.max_atoms, self.elements),
            ("--max-replaced", self.max_replaced, self.substitute),
        ):
            if given is not None and owner is None:
                raise UsageError(f"{name} belongs to {'--substitute' if name == '--max-replaced' else '--elements'}")
        if self.charge_neutral and not self.asked:
            raise UsageError("--charge-neutral belongs to --elements or --substitute")

    def make(self, column: str | None) -> Generated:
        """The candidates; `column` is that of a table of known formulas."""
        from matdarwin.prediction import candidates, files

        if self.elements is not None:
            return candidates.of_elements(
                self.elements.split(","), max_elements=self.max_elements or 3, max_atoms=self.max_atoms or 8,
                charge_neutral=self.charge_neutral,
            )  # fmt: skip
        assert self.substitute is not None
        # A file where there is one or the name can be nothing else; a formula has neither a slash nor such an end.
        if Path(self.substitute).is_file() or self.substitute.lower().endswith((".csv", ".gz", ".parquet", ".pq")):
            with files.open_table(self.substitute) as table:
                known, bad = candidates.known_of(table, files.choose_column(table, column, "composition"))
            if bad:
                note(f"{bad:,} rows of {self.substitute} are no compositions, so nothing is generated from them")
        else:
            known = self.substitute.split(",")
        return candidates.by_substitution(
            known, max_replaced=self.max_replaced or 1, charge_neutral=self.charge_neutral
        )


def _paths(paths: Sequence[Path], *, generated: bool) -> tuple[Path | None, Path]:
    """Input and output; no input where candidates are generated."""
    if generated and len(paths) != 1:
        raise UsageError("the candidates are generated, so give only the file to write, OUT")
    if not generated and len(paths) != 2:
        raise UsageError("give two files, IN and OUT, or have the candidates generated (--elements, --substitute)")
    return (None if generated else paths[0]), paths[-1]


@contextmanager
def _candidates(
    input: Path | None, wish: _Generator, column: str | None, tasks: Sequence[Task]
) -> Iterator[tuple[Table, Input | None]]:
    """The table to screen, and the file that it is read from; None where the candidates are generated."""
    from matdarwin.prediction import files
    from matdarwin.prediction.screening import Input

    if input is not None:
        # Before it is looked through, so that what is written to it from then on is noticed. What is no table at all is
        # told by who opens it.
        source = Input(input) if input.exists() and not input.is_dir() else None
        with files.open_table(input) as table:
            yield table, source or Input(input)
        return
    if other := next((task for task in tasks if task.representation != "composition"), None):
        raise UsageError(f"compositions are generated, but {other.id} is asked with a {other.representation}")
    made = wish.make(column)
    note(f"{made.count:,} candidates are generated")
    yield made, None


def _identity(table: Table) -> dict[str, Any]:
    """What a generated table hangs on."""
    from matdarwin.prediction.candidates import Generated

    assert isinstance(table, Generated)
    return table.identity
