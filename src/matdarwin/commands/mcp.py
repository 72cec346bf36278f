"""`darwin mcp`."""

from __future__ import annotations

from matdarwin.commands.common import BatchSize, Model, NumberFormat, note


def mcp(
    model: Model = None,
    batch_size: BatchSize = None,
    dtype: NumberFormat = "auto",
) -> None:
    """Give assistants the predictor as tools, by the Model Context Protocol over standard input and output.

    The tools are predict, explain and list_tasks. The assistant's program starts this command itself; standard output
    carries the protocol alone. It ends when standard input does.
    """
    # Not within `working`: the server takes standard output for itself, and sends all else to stderr.
    from matdarwin.api import Darwin
    from matdarwin.serving.mcp import create_server

    darwin = Darwin.load(model, batch_size=batch_size, dtype=dtype)
    note(f"using checkpoint {darwin.name}, task {', '.join(darwin.tasks)}; weights are read at the first question")
    create_server(darwin).run("stdio")
