"""The command `darwin`: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from matdarwin import __version__
from matdarwin.commands import audit, data, evaluate, explain, mcp, models, predict, screen, serve, sweep, tasks, train
from matdarwin.commands.common import CRASHED, INTERRUPTED, PIPE, WRONG, Json, emit, emit_json, note, quiet

_HELP = """Language models that know materials: a formula in, a property with an error bar out.

\b
Results go to standard output, everything else to standard error.
Exit codes:
  0    done; every row has a value
  1    some row (or data source) has none, or the audit found a leak; the full output was
       written all the same
  2    wrong usage, or a fault that left nothing to be done: an unknown task, model
       or file, data that cannot be had, a disk that is full
  70   a fault in the program; darwin --debug ... shows where
  130  stopped by Ctrl-C
  141  the reader of the output went away
"""

app = typer.Typer(
    name="darwin", help=_HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)  # fmt: skip
app.command()(predict.predict)
app.command()(explain.explain)
app.command()(screen.screen)
app.command()(serve.serve)
app.command()(mcp.mcp)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(sweep.sweep)
app.command()(audit.audit)
app.add_typer(tasks.tasks_app, name="tasks")
app.add_typer(data.data_app, name="data")
app.add_typer(models.models_app, name="models")
app.command()(train.demo)


_asked = {"debug": False}


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show where a fault arose.")] = False) -> None:
    _asked["debug"] = debug


@app.command()
def version(json: Json = False) -> None:
    """Print the versions of matdarwin and of what it stands on."""
    import platform
    from importlib.metadata import version as of

    if not json:
        emit(f"matdarwin {__version__}")
        return
    emit_json(
        {
            "matdarwin": __version__,
            "python": platform.python_version(),
            **{name: of(name) for name in ("torch", "transformers", "pymatgen", "rdkit")},
        }
    )


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        args: The arguments; None: those of the process.

    Returns:
        The exit code; every fault has been told on stderr, in one line.
    """
    quiet()
    _asked["debug"] = False
    command = typer.main.get_command(app)
    try:
        code = command.main(args=None if args is None else list(args), prog_name="darwin", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        # Of the command line itself: an unknown option, a missing argument.
        note(f"error: {error.format_message()}")
        hint = getattr(getattr(error, "ctx", None), "command_path", "darwin")
        note(f"see {hint} --help")
        return WRONG
    except (KeyboardInterrupt, typer.Abort):
        note("stopped")
        return INTERRUPTED
    except SystemExit as error:  # typer's own answer to a reader that went away
        return PIPE if error.code == 1 else int(error.code or 0)
    except Exception as error:
        return _told(error)


def _told(error: Exception) -> int:
    """Say in one line what went wrong, and give the exit code."""
    if _asked["debug"]:
        traceback.print_exc()
    message = " ".join(str(error).split())
    # Each fault that we foresee has a class of ours, and a message for users.
    if type(error).__module__.partition(".")[0] == "matdarwin":
        note(f"error: {message}")
        return WRONG
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            # What goes into caches and checkpoints has its own message, which names MATDARWIN_HOME; this is the rest.
            where = f"{error.filename}: " if error.filename is not None else ""
            message = f"{where}the disk is full; free some space, or work in a folder on another disk"
        elif error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        note(f"error: {message}")
        return WRONG
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        note("error: the memory does not suffice; use a smaller --batch-size, or, in a recipe, optimising.micro_batch")
        return WRONG
    note(
        f"error: a fault in the program: {type(error).__name__}: {message[:500]}; darwin --debug ... shows where, please report it"
    )
    return CRASHED


def main() -> None:
    """Entry point of the command."""
    code = run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = PIPE
    if code == PIPE:
        # What is left in the buffer has nowhere to go, and Python would complain of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
