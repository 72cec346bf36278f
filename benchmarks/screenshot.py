"""The picture of the page: serves a model on a free port, asks in headless Chromium, and saves what is seen.

Writes docs/images/page.png.

    python benchmarks/screenshot.py --model NAME
"""

from __future__ import annotations

import argparse
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import uvicorn
from playwright.sync_api import sync_playwright

from matdarwin.api import Darwin
from matdarwin.serving.app import create_app
from matdarwin.serving.settings import Settings

Scheme = Literal["light", "dark"]
OUT = Path("docs/images/page.png")
MATERIALS = ("CdCu2SnS4", "GaN", "CdTe", "ZnO", "Cu2ZnSnSe4", "MoS2")
TASKS = 3
"""Most tasks that are asked where none is named, of compositions and without a condition."""


def serve(darwin: Darwin) -> tuple[uvicorn.Server, threading.Thread, int]:
    """The model behind a free port of this machine: server, its thread, port."""
    app = create_app(darwin, Settings(rate=0, seconds=600))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 120
    while not (server.started and app.state.serving.batcher.ready):
        if not thread.is_alive() or time.monotonic() > end:
            raise SystemExit("the model could not be served; `darwin serve` says why")
        time.sleep(0.05)
    return server, thread, server.servers[0].sockets[0].getsockname()[1]


def shoot(url: str, out: Path, *, width: int, height: int, scheme: Scheme, row: int) -> None:
    """Save the picture of an address once its answers are there and the detail of a row is open."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("there is no Chromium; install it (apt install chromium)")
    out.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(600_000)
        page.goto(url)
        page.wait_for_selector("#ask[aria-busy=false]")
        if page.locator("#error .alert").count():
            raise SystemExit(f"the page says: {page.inner_text('#error')}")
        page.locator("#table button.open").nth(row).click()
        page.wait_for_selector("#prompt")
        # The cursor would light a row up.
        page.mouse.move(0, 0)
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=out)
        browser.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve, ask, and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint; by default as `darwin serve` chooses")
    parser.add_argument("--material", action="append", help="a material; may be repeated")
    parser.add_argument("--task", action="append", help="a task; may be repeated")
    parser.add_argument("--condition", action="append", default=[], help="NAME=VALUE; may be repeated")
    parser.add_argument("--row", type=int, default=0, help="row whose detail is opened, from 0")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=960)
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    darwin = Darwin.load(args.model)
    simple = [
        task.id
        for task in darwin.tasks.values()
        if task.representation == "composition" and not any(condition.required for condition in task.conditions)
    ]
    tasks = args.task or simple[:TASKS]
    if not tasks:
        raise SystemExit(f"{darwin.name} has no task that can be asked of a formula alone; name one with --task")
    query = [("m", text) for text in args.material or MATERIALS]
    query += [("task", task) for task in tasks] + [("condition", text) for text in args.condition]
    server, thread, port = serve(darwin)
    try:
        shoot(
            f"http://127.0.0.1:{port}/?{urlencode(query)}", args.out,
            width=args.width, height=args.height, scheme=args.scheme, row=args.row,
        )  # fmt: skip
    finally:
        server.should_exit = True
        thread.join(20)
    print(args.out)


if __name__ == "__main__":
    main()
