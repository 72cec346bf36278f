"""`darwin mcp`."""

from __future__ import annotations

from typing import Annotated

import typer

from matdarwin.commands.common import note


def mcp(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Checkpoint by name or folder. Default: the newest product.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Prompts a batch. Default: as the checkpoint's recipe has it.")
    ] = None,
) -> None:
    """Give assistants the predictor as tools, by the Model Context Protocol over standard input and output.

    The tools are predict, explain and list_tasks. The assistant's program starts this command itself; standard output
    carries the protocol alone. It ends when standard input does.
    """
    # Not within `working`: the server takes standard output for itself, and sends all else to stderr.
    from matdarwin.api import Darwin
    from matdarwin.serving.mcp import create_server

    darwin = Darwin.load(model, batch_size=batch_size)
    note(f"using checkpoint {darwin.name}, task {', '.join(darwin.tasks)}; weights are read at the first question")
    create_server(darwin).run("stdio")
