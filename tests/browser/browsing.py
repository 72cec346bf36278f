"""The page in headless Chromium: one server and one browser for all tests, and a page that minds what it says and fetches."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.server.helpers import listening
from tests.tiny import tiny_base, tiny_checkpoint, tiny_task

from matdarwin.api import Darwin
from matdarwin.serving.app import create_app
from matdarwin.serving.settings import Settings
from matdarwin.tasks.schema import Task

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "install Chromium (apt install chromium) and playwright (pip install playwright)"


def missing(why: str) -> None:
    """Skip where there is no browser; in CI fail, since there the page must be tested."""
    words = f"{why}; {INSTALL}"
    if os.environ.get("CI") == "true":
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium. Not for the session: as long as it runs, no other test could run asyncio."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        missing(f"none of {', '.join(NAMES)} is on the path")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def served_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one product: tiny_gap, tiny_metal, tiny_heat (at a temperature) and tiny_sol (of molecules)."""
    home = tmp_path_factory.mktemp("browsed")
    base = tiny_base(home / "base")
    alkanes = [("C" * i + end, f"{-0.2 * i:.1f}") for i in range(1, 31) for end in ("O", "N", "Cl", "=O")]
    heat = tiny_task(
        home, id="tiny_heat", title="tiny heat at a temperature", property="heat", quantities=["heat"],
        conditions=[{"name": "temperature", "unit": "K"}], wordings=["heat {conditions} of {material}"],
    )  # fmt: skip
    path = home / "tiny_heat.csv"
    # Its table needs a column for the condition.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(["composition,target,temperature", *(f"{x},300" for x in lines[1:])]), encoding="utf-8")
    content = heat.model_dump()
    content["source"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    content["reader"]["conditions"] = {"temperature": "temperature"}
    tasks = [
        tiny_task(home),
        tiny_task(home, kind="classification", property="metallic character"),
        Task.model_validate(content),
        tiny_task(
            home, id="tiny_sol", title="tiny solubility", rows=alkanes, representation="molecule", property="solubility",
            bounds=[-9, 1], quantities=["solubility"], unit=None,
        ),
    ]  # fmt: skip
    quick = {"optimising": {"epochs": 1, "minimum_steps": 60, "learning_rate": 1e-2, "batch_size": 16}}
    tiny_checkpoint(home, tasks=tasks, base=base, name="one", **quick)
    return home


@pytest.fixture(scope="module")
def origin(darwin: Darwin) -> Iterator[str]:
    """Where the model is served."""
    with listening(create_app(darwin, Settings(rate=0))) as port:
        yield f"http://127.0.0.1:{port}"


@dataclass
class Minded:
    """Makes pages of one test, and keeps what they must not do.

    Attributes:
        browser: The browser.
        statuses: Statuses of failed answers that the test means to cause; the browser logs each as an error.
        faults: What went wrong.
    """

    browser: Any
    statuses: tuple[int, ...] = ()
    faults: list[str] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)

    def open(self, url: str, *, width: int = 1280, height: int = 900, scheme: str = "light", **options: Any) -> Any:
        """A page that has loaded `url`."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True, **options
        )
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        own = url.split("/")[2]
        # Fires for what the policy forbids, whether or not it reaches the console.
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.error('policy', e.violatedDirective))"
        )
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self._fetched(request.url, own))
        page.goto(url)
        page.wait_for_selector(".choice, dialog[open]")
        return page

    @contextlib.contextmanager
    def server(self, darwin: Darwin, **settings: Any) -> Iterator[str]:
        """A server of one test; yields its origin. Pages are closed before it stops, or they would miss it."""
        with listening(create_app(darwin, Settings(**{"rate": 0, **settings}))) as port:
            yield f"http://127.0.0.1:{port}"
            self.close()

    def close(self) -> None:
        """Close all pages."""
        while self.contexts:
            self.contexts.pop().close()

    def _said(self, message: Any) -> None:
        text = message.text
        meant = "Failed to load resource" in text and any(f"status of {status}" in text for status in self.statuses)
        if message.type in ("error", "warning") and not meant:
            self.faults.append(f"console {message.type}: {text} ({message.location['url']})")

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _fetched(self, url: str, own: str) -> None:
        if not url.startswith(("blob:", "data:")) and url.split("/")[2] != own:
            self.faults.append(f"request to another origin: {url}")


@pytest.fixture
def minded(browser: Any) -> Iterator[Minded]:
    """Opens pages; the test fails where one of them logged an error, broke the policy, or fetched from elsewhere."""
    made = Minded(browser)
    yield made
    made.close()
    # Not an assert: pytest explains those of test modules alone.
    if made.faults:
        pytest.fail("\n".join(made.faults))


@pytest.fixture
def visit(minded: Minded, origin: str) -> Callable[..., Any]:
    """Opens a path of the server, and waits for the answers where its question is one to be asked at once."""

    def opened(path: str = "/", **options: Any) -> Any:
        page = minded.open(origin + path, **options)
        if "m=" in path:
            answered(page)
        return page

    return opened


def until(page: Any, holds: str, seconds: float = 15.0) -> None:
    """Wait until a JavaScript expression holds. Playwright's own way evaluates texts, which the policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(holds):
        assert time.monotonic() < end, f"did not come to hold: {holds}; {page.inner_text('main')[:2000]}"
        page.wait_for_timeout(15)


def answered(page: Any) -> None:
    """Wait until the page has all answers, or says why not."""
    until(
        page,
        "!document.getElementById('predict').disabled"
        " && (/ in [0-9.]+ s/.test(document.getElementById('status').textContent)"
        " || document.getElementById('error').textContent !== '')",
    )


def ask(page: Any, *materials: str, tasks: tuple[str, ...] = ("tiny_gap",)) -> None:
    """Type materials, choose tasks, press the button, and wait for the answers."""
    # All at once, as a paste does it; typing a thousand lines takes the browser seconds.
    page.evaluate(
        """text => {
          const field = document.getElementById("materials");
          field.value = text;
          field.dispatchEvent(new Event("input", {bubbles: true}));
        }""",
        "\n".join(materials),
    )
    page.click("#take-none")
    for task in tasks:
        page.check(f'.choice input[value="{task}"]')
    page.click("#predict")
    answered(page)


def cells(page: Any) -> list[list[str]]:
    """Texts of the table's rows that are shown: material, property, value, interval, status, remarks."""
    return list(
        page.evaluate(
            "[...document.querySelectorAll('#table tbody tr')].filter(r => !r.hidden)"
            ".map(r => [...r.cells].map(c => c.textContent.trim()))"
        )
    )


def opened(page: Any, row: int = 0) -> None:
    """Open a row's detail and wait for it."""
    page.locator("#table tbody tr:not([hidden]) button.open").nth(row).click()
    page.wait_for_selector("#detail .headline")
