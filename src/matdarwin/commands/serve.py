"""`darwin serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from matdarwin.commands.common import BatchSize, Model, NumberFormat, UsageError, note, working


def serve(
    model: Model = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Any that other machines can reach needs an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the API key that clients must send. The variable MATDARWIN_API_KEY may hold it instead.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchSize = None,
    dtype: NumberFormat = "auto",
    body_limit: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 1 << 20,
    rows: Annotated[int, typer.Option(min=1, help="Answers of one JSON request.")] = 1000,
    queue_rows: Annotated[int, typer.Option(min=1, help="Answers that wait at a time.")] = 4096,
    rate: Annotated[float, typer.Option(min=0, help="Requests a second of one client; 0: no limit.")] = 100.0,
    seconds: Annotated[float, typer.Option(min=0.001, help="Seconds in which a request is answered.")] = 60.0,
    drain_seconds: Annotated[
        float,
        typer.Option(
            min=0.001,
            help="Seconds that accepted work has to finish once the server is told to stop; a CSV may need 1800.",
        ),
    ] = 60.0,
) -> None:
    """Serve one model over HTTP: a page, JSON, CSV, and the chat form that clients of language models speak.

    Logs go to standard error as JSON lines. SIGTERM or Ctrl-C: accepted work is finished, then the server stops; what is
    not done and read after --drain-seconds is broken off. A second one breaks it off at once.
    """
    with working():
        from matdarwin.serving.settings import Settings

        settings = Settings(
            host=host, port=port, api_key=_key(api_key_file), body_limit=body_limit, drain_limit=max(64 << 20, body_limit),
            rows=rows, queue_rows=queue_rows, rate=rate, burst=max(1, int(2 * rate)), seconds=seconds,
            drain_seconds=drain_seconds,
        )  # fmt: skip
        from matdarwin.api import Darwin

        darwin = Darwin.load(model, batch_size=batch_size, dtype=dtype)
        from matdarwin.serving.app import run

        shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
        note(f"serving checkpoint {darwin.name} at http://{shown}:{port}; Ctrl-C stops it")
        if not run(darwin, settings):
            raise UsageError(f"the server could not start or read its model; the lines above say why (port {port})")


def _key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("MATDARWIN_API_KEY") or None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-key-file {file}: cannot be read: {error}") from error
    if not key:
        raise UsageError(f"--api-key-file {file}: is empty; write the key into it")
    return key
