"""The command line itself: help that costs nothing, exit codes, faults in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from conftest import Darwin
from matdarwin import __version__, cli

HEAVY = (
    "torch",
    "transformers",
    "pymatgen",
    "pandas",
    "rdkit",
    "sklearn",
    "matplotlib",
    "peft",
    "pyarrow",
    "numpy",
    "rich",
    "pydantic",
)


def commands() -> list[list[str]]:
    """Every command and group, as words."""
    found: list[list[str]] = [[]]
    for place in found:
        group = typer.main.get_command(cli.app)
        for word in place:
            group = group.commands[word]  # type: ignore[attr-defined]
        found += [[*place, name] for name in getattr(group, "commands", {})]
    return found


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys; from matdarwin import cli; code = cli.run(['--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    times = []
    for _ in range(2):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - began)
        assert (done.returncode, done.stderr.strip()) == (0, "[]")
        assert "predict" in done.stdout
    # Half a second on a quiet machine; the tests share theirs with others.
    assert min(times) < 3


def test_importing_the_package_is_light() -> None:
    code = f"import sys, matdarwin; dir(matdarwin); print([name for name in {HEAVY} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_option_has_help(darwin: Darwin, words: list[str]) -> None:
    done = darwin(*words, "--help")
    assert done.code == 0 and "Usage: darwin" in done.out
    command = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    assert command.help
    # A server's output is not a result: one logs JSON lines, the other speaks a protocol.
    if not hasattr(command, "commands") and words not in (["serve"], ["mcp"]):
        assert "--json" in done.out
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name


def test_help_documents_exit_codes(darwin: Darwin) -> None:
    text = darwin("--help").out
    for code in ("0 ", "1 ", "2 ", "70", "130"):
        assert f"  {code} " in text


def test_all_commands_are_there() -> None:
    assert {" ".join(words) for words in commands()} >= {
        "predict", "train", "evaluate", "tasks", "data list", "data fetch", "data verify", "models list", "models show", "models pull",
        "demo", "version", "audit", "data cards", "tasks new", "tasks validate",
    }  # fmt: skip


@pytest.mark.parametrize(
    "args",
    [
        ["predict", "GaN", "--taks", "x"],
        ["frobnicate"],
        ["predict", "GaN", "--batch-size", "0"],
        ["predict", "GaN", "--dtype", "fp8"],
    ],
)
def test_wrong_usage_is_code_2(darwin: Darwin, args: list[str]) -> None:
    done = darwin(*args)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ") and "--help" in done.err


def test_version(darwin: Darwin) -> None:
    assert darwin("version").out == f"matdarwin {__version__}\n"
    assert json.loads(darwin("version", "--json").out)["matdarwin"] == __version__


def test_unexpected_fault_is_one_line(darwin: Darwin, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("something\nodd")

    monkeypatch.setattr("matdarwin.models.store.list_checkpoints", broken)
    done = darwin("models", "list", "--json")
    assert (done.code, done.out) == (70, "")
    assert done.err.count("\n") == 1 and "AssertionError: something odd" in done.err and "--debug" in done.err


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("odd")

    monkeypatch.setattr("matdarwin.models.store.list_checkpoints", broken)
    assert cli.run(["--debug", "models", "list"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (
            OSError(28, "No space left on device"),
            2,
            "the disk is full; free some space, or work in a folder on another disk",
        ),
        (PermissionError(13, "Permission denied", "x/y"), 2, "x/y: Permission denied"),
        (MemoryError(), 2, "batch-size"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_faults_of_the_machine(
    darwin: Darwin, monkeypatch: pytest.MonkeyPatch, home: Path, fault: BaseException, code: int, says: str
) -> None:
    def broken(*_: object) -> None:
        raise fault

    monkeypatch.setattr("matdarwin.models.store.list_checkpoints", broken)
    done = darwin("models", "list")
    assert done.code == code
    # Ctrl-C is turned into an exit code by the library that parses.
    assert says in done.err or code == 130


def test_reader_that_goes_away() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m matdarwin tasks --schema | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 141) and done.stderr == ""


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "matdarwin", "version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"matdarwin {__version__}\n"
