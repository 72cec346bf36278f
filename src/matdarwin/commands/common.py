"""What all commands share: where text goes, what stays quiet, and how faults are told."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, which stands alone on standard output.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", "-t", help="Task; may be repeated. Default: the only one that the checkpoint knows."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Checkpoint by name or folder. Default: the newest product that knows the tasks."
    ),
]
Coverage = Annotated[float, typer.Option(help="Share of true values that the intervals hold, between 0 and 1.")]
ConditionTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--condition", help="Condition of the question as NAME=VALUE, such as temperature=300; may be repeated."
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Prompts a batch. Default: as the checkpoint's recipe has it.")
]
NumberFormat = Annotated[
    Literal["auto", "fp32", "bf16", "int8"],
    typer.Option(
        "--dtype", help="Number format; auto: as the recipe has it, else fp32. bf16 and int8 (on a CPU) are for speed."
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        help="Column with the materials. Default: the only one, or composition, formula, smiles, molecule, name or material."
    ),
]

OK, PARTLY, WRONG, CRASHED, INTERRUPTED, PIPE = 0, 1, 2, 70, 130, 141
"""Exit codes: done; some row without a value; wrong usage or nothing done; a fault of ours; Ctrl-C; reader gone."""

_WIDE = 160


class UsageError(ValueError):
    """Options that do not go together, or an argument that cannot be."""


def quiet() -> None:
    """Keep libraries from talking; called before any of them is imported."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    if hasattr(sys.stdout, "reconfigure"):
        # A character that the terminal does not have must not stop a table.
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def working() -> Iterator[Any]:
    """While libraries work: whatever they print goes to stderr. Yields the standard output that is for results."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield out


def note(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr)


def emit(text: str) -> None:
    """Print a result."""
    print(text, flush=True)


def emit_json(data: object) -> None:
    """Print a result as JSON; NaN is none."""
    emit(json.dumps(data, indent=2, allow_nan=False))


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print rows as a table for people; texts are shown as they are, never as markup.

    Args:
        columns: Heads of the columns.
        rows: Cells; None is shown as a dash.
        right: Columns that are set flush right.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=_WIDE)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else _printable(str(cell))) for cell in row))
    console.print(table)


def number(value: object, digits: int = 4) -> str | None:
    """A number for people: four significant digits, or None."""
    return None if value is None else f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def answer_text(value: float | str | None, decimals: int) -> str | None:
    """An answer for people: a number with all its decimals, none rounded away, a label as it is, or None.

    An interval's ends have one decimal more than an answer, and are not to be rounded inward.
    """
    from matdarwin.language.answers import format_number

    return value if value is None or isinstance(value, str) else format_number(value, decimals)


def duration(seconds: float) -> str:
    """A time for people: 42 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def short(text: str, length: int = 48) -> str:
    """A text cut to a length that a table holds."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _printable(text: str) -> str:
    """Without control characters, which would move the cursor about."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def conditions_of(texts: Sequence[str]) -> dict[str, str | float]:
    """Names and values of `NAME=VALUE` each.

    Raises:
        UsageError: One is not of the form NAME=VALUE, or two have one name.
    """
    found: dict[str, str | float] = {}
    for name, value in map(_condition_of, texts):
        if name in found:
            raise UsageError(f"--condition {name} is given as {found[name]} and as {value}; give it once")
        found[name] = value
    return found


def _condition_of(text: str) -> tuple[str, str | float]:
    """Name and value of `NAME=VALUE`.

    Raises:
        UsageError: It is not of that form.
    """
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value.strip():
        raise UsageError(f"--condition {text}: write NAME=VALUE, such as temperature=300")
    return name.strip(), value.strip()
