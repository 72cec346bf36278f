"""The page: a question typed, linked or dropped, its answers as a table, and each answer looked into."""

# Fixtures are imported, since they stand with the server's own tests.
# ruff: noqa: F811

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from tests.browser.browsing import (  # noqa: F401
    Minded,
    answered,
    ask,
    browser,
    cells,
    minded,
    opened,
    origin,
    served_home,
    until,
    visit,
)
from tests.server.helpers import Slow, Stood, darwin  # noqa: F401

from matdarwin.api import Darwin

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
KEY = "0123456789abcdef0123"


def _number(text: str) -> float:
    return float(text.removesuffix(" eV"))


def _numbers(page: Any) -> list[tuple[str, float, float, float]]:
    """Material, value, lower and upper of each row."""
    found = []
    for material, _, value, interval, status, _ in cells(page):
        assert status.endswith("ok")
        lower, upper = interval.split(" to ")
        found.append((material, _number(value), float(lower), _number(upper)))
    return found


def _predicted(darwin: Darwin, materials: list[str], **options: Any) -> list[tuple[str, Any, Any, Any]]:
    return [
        (p.input, p.value, p.lower, p.upper) for p in darwin.predict(materials, "tiny_gap", **options)
    ]  # fmt: skip


def _contrast(page: Any, selector: str) -> float:
    """WCAG's contrast of an element's text against the page's or its own ground."""
    colours = page.evaluate(
        """selector => {
          const element = document.querySelector(selector);
          let ground = element;
          const of = e => getComputedStyle(e).backgroundColor;
          while (ground.parentElement && /rgba\\(.*, 0\\)|transparent/.test(of(ground))) ground = ground.parentElement;
          return [getComputedStyle(element).color, of(ground)];
        }""",
        selector,
    )

    def luminance(colour: str) -> float:
        parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted(map(luminance, colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# -- asking ------------------------------------------------------------------------------------------------


def test_typed_materials_get_the_numbers_of_the_library(visit: Visit, darwin: Darwin) -> None:
    page = visit()
    materials = ["GaN", "CdSe", "Fe2O3"]
    page.fill("#materials", "\n".join(materials))
    page.uncheck('.choice input[value="tiny_metal"]')
    page.click("#predict")
    answered(page)
    assert _numbers(page) == _predicted(darwin, materials)
    page.select_option("#coverage", "0.5")
    page.click("#predict")
    answered(page)
    assert _numbers(page) == _predicted(darwin, materials, coverage=0.5)


def test_many_lines_come_in_batches_and_in_order(visit: Visit, darwin: Darwin) -> None:
    page = visit()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    materials = [f"Ga{i}N{j}" for i in range(1, 21) for j in range(1, 11)]
    ask(page, *materials)
    assert sum(url.endswith("/v1/predict") for url in requests) == 4
    assert _numbers(page) == _predicted(darwin, materials)


def test_a_link_asks_at_once_and_a_reload_asks_again(visit: Visit, darwin: Darwin) -> None:
    page = visit("/?m=CdS&m=GaN&task=tiny_gap&task=tiny_metal&coverage=0.8")
    expected = [(p.input, p.value) for p in darwin.predict(["CdS", "GaN"], ["tiny_gap", "tiny_metal"])]
    assert [row[0] for row in cells(page)] == [name for name, _ in expected]
    assert [row[2].removesuffix(" eV") for row in cells(page)] == [str(value) for _, value in expected]
    assert page.input_value("#coverage") == "0.8"
    before = cells(page)
    page.reload()
    answered(page)
    assert cells(page) == before
    # What is typed and asked is in the address too.
    ask(page, "ZnO")
    address = page.evaluate("location.search")
    assert "m=ZnO" in address and "task=tiny_gap" in address and "tiny_metal" not in address
    page.reload()
    answered(page)
    assert [row[0] for row in cells(page)] == ["ZnO"] and page.input_value("#materials") == "ZnO"


def test_a_long_list_survives_a_reload_without_a_long_address(visit: Visit) -> None:
    page = visit()
    materials = [f"Ga{i}N{i + 1}" for i in range(1, 301)]
    ask(page, *materials)
    assert len(page.url) < 200
    before = cells(page)
    page.reload()
    answered(page)
    assert page.input_value("#materials").split("\n") == materials and cells(page) == before
    assert len(before) == 300


def test_properties_are_suggested_until_the_user_chooses(visit: Visit) -> None:
    page = visit()
    page.fill("#materials", "Cu2ZnSnS4")
    page.wait_for_selector(".badge:not([hidden])")
    assert "formulas" in page.inner_text("#suggestion")
    assert page.locator(".choice input:checked").count() == 2
    page.uncheck('.choice input[value="tiny_metal"]')
    page.fill("#materials", "c1ccccc1O")
    until(page, "/SMILES/.test(document.getElementById('suggestion').textContent)")
    checked = '[...document.querySelectorAll(".choice input:checked")].map(box => box.value)'
    assert page.evaluate(checked) == ["tiny_gap"]
    assert page.locator(".badge:not([hidden])").count() == 1
    page.click("#take-suggested")
    assert page.evaluate(checked) == ["tiny_sol"]


def test_lines_of_two_kinds_are_each_asked_what_suits_them(visit: Visit) -> None:
    page = visit()
    ask(page, "GaN", "CCO", "CdSe", tasks=("tiny_gap", "tiny_sol"))
    assert [(row[0], row[1]) for row in cells(page)] == [
        ("GaN", "tiny regression"), ("CCO", "tiny solubility"), ("CdSe", "tiny regression")
    ]  # fmt: skip


def test_a_condition_is_asked_for_and_kept_in_the_address(visit: Visit, minded: Minded, darwin: Darwin) -> None:
    minded.statuses = (422,)
    page = visit()
    ask(page, "GaN", tasks=("tiny_heat", "tiny_gap"))
    assert "temperature" in page.inner_text("#error")
    page.get_by_label("Temperature (K)").fill("300")
    page.click("#predict")
    answered(page)
    expected = darwin.predict("GaN", ["tiny_gap", "tiny_heat"], conditions={"temperature": 300})
    assert [row[2] for row in cells(page)] == [f"{p.value} eV" for p in expected]
    opened(page, 1)
    page.wait_for_selector("#prompt")
    assert "300" in page.inner_text("#prompt")
    page.reload()
    answered(page)
    assert len(cells(page)) == 2 and page.get_by_label("Temperature (K)").input_value() == "300"


def test_a_list_that_was_kept_elsewhere_is_not_silently_missing(visit: Visit) -> None:
    page = visit("/?list=kept&task=tiny_gap")
    page.wait_for_selector("#error:has-text('paste it again')")
    assert page.is_hidden("#results")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("GaN", "composition"), ("Cu2ZnSnS4", "composition"), ("Ba(Fe0.5Co0.5)2As2", "composition"), ("CO2", "composition"),
        ("CH3NH3PbI3", "composition"), ("Fe₂O₃", "composition"), ("CCO", "molecule"), ("c1ccccc1", "molecule"),
        ("CC(=O)Oc1ccccc1C(=O)O", "molecule"), ("[Na+].[Cl-]", "molecule"), ("HKUST-1", "name"), ("MOF-5", "name"),
        ("methylammonium lead iodide", "name"), ("cocoon", "name"), (SCRIPT, "name"),
    ],
)  # fmt: skip
def test_the_kind_of_a_line_is_guessed(shared: Any, line: str, kind: str) -> None:
    assert shared.evaluate("line => import('/static/guess.js').then(m => m.guessKind(line))", line) == kind


@pytest.fixture(scope="module")
def shared(browser: Any, origin: str) -> Any:
    """A page whose modules alone are tested."""
    page = browser.new_page()
    page.goto(origin)
    return page


def test_nothing_to_ask_is_said(visit: Visit) -> None:
    page = visit()
    page.click("#predict")
    assert "Type a material" in page.inner_text("[role=alert].alert, #error .alert")
    page.fill("#materials", "GaN")
    page.click("#take-none")
    page.click("#predict")
    assert "Choose a property" in page.inner_text("#error")


# -- one answer --------------------------------------------------------------------------------------------


def test_an_answer_shows_its_distribution_elements_neighbours_and_prompt(visit: Visit, origin: str) -> None:
    page = visit("/?m=GaN&m=SnO2&task=tiny_gap")
    opened(page)
    explained = httpx.post(f"{origin}/v1/explain", json={"material": "GaN", "task": "tiny_gap"}).json()
    prediction = explained["prediction"]
    assert page.inner_text("#prompt") == explained["prompt"]
    assert page.inner_text("#detail .headline") == f"{prediction['value']:.1f} eV"
    words = page.inner_text("#interval")
    assert f"between {prediction['lower']} and {prediction['upper']} eV" in words and "90 %" in words
    path = page.get_attribute("#detail svg path.mass", "d")
    assert path.startswith("M") and path.endswith("Z") and len(set(re.findall(r"V([\d.]+)", path))) > 1
    # The interval's ends stand where the axis has them.
    assert page.locator("#detail svg rect.band").count() == 1 and page.locator("#detail svg line.value").count() == 1
    rows = page.locator("#detail section:has-text('Nearest in the data') tbody tr")
    assert rows.count() == len(explained["neighbours"]) > 0
    first = explained["neighbours"][0]
    for text in (first["material"], f"{first['target']:.1f} eV", f"{first['distance']:.3f}", first["source"]):
        assert text in rows.first.inner_text()
    assert sorted(page.locator(".element.ours").all_inner_texts()) == ["Ga", "N"]
    counts = {t["id"]: t["elements"] for t in httpx.get(f"{origin}/v1/tasks").json()["tasks"]}["tiny_gap"]
    for symbol in ("Ga", "N"):
        assert f"{symbol}: {counts[symbol]} training materials" in page.inner_text("figure.periodic figcaption")
    assert page.locator(".element").count() == 118
    opened(page, 1)
    until(page, "/Sn: never seen/.test(document.querySelector('figure.periodic figcaption')?.textContent)")


def test_classes_have_bars(visit: Visit, origin: str) -> None:
    page = visit("/?m=GaN&task=tiny_metal")
    opened(page)
    explained = httpx.post(f"{origin}/v1/explain", json={"material": "GaN", "task": "tiny_metal"}).json()
    shown = page.locator("#detail svg text").all_text_contents()
    for label, share in zip(
        explained["distribution"]["labels"], explained["distribution"]["probabilities"], strict=True
    ):
        assert label in shown and f"{round(100 * share, 1):g} %" in shown


@pytest.mark.parametrize(("part", "key"), [("without", "without_element"), ("swaps", "swapped_element"), ("wordings", "wordings")])  # fmt: skip
def test_what_if(visit: Visit, origin: str, part: str, key: str) -> None:
    page = visit("/?m=GaN&task=tiny_gap")
    opened(page)
    page.click(f"[data-part={part}]")
    page.wait_for_selector("#what-if table")
    asked = {"material": "GaN", "task": "tiny_gap", "parts": [part]}
    expected = httpx.post(f"{origin}/v1/explain", json=asked).json()[key]
    rows = page.locator("#what-if tbody tr").all_inner_texts()
    assert len(rows) == len(expected) > 0
    for row, one in zip(rows, expected, strict=True):
        assert (one["wording"] if part == "wordings" else one["material"]) in row
        assert f"{one['value']:.1f} eV" in row


def test_the_table_sorts_filters_and_downloads(visit: Visit) -> None:
    page = visit("/?m=GaN&m=CdSe&m=Fe2O3&m=Xx%2CO&m=InP&task=tiny_gap")
    before = cells(page)
    value = page.locator("#table thead th").nth(2)
    value.locator("button").click()
    assert value.get_attribute("aria-sort") == "ascending"
    rising = [row[2] for row in cells(page)]
    assert rising[-1] == "none" and rising[:-1] == sorted(rising[:-1], key=_number)
    value.locator("button").click()
    assert value.get_attribute("aria-sort") == "descending"
    falling = [row[2] for row in cells(page)]
    assert falling[-1] == "none" and falling[:-1] == sorted(falling[:-1], key=_number, reverse=True)
    assert falling[0] != falling[-2], "a sort of equal values shows nothing"
    value.locator("button").click()
    assert value.get_attribute("aria-sort") == "none" and cells(page) == before
    page.fill("#filter", "xx")
    assert [row[0] for row in cells(page)] == ["Xx,O"] and "1 of 5" in page.inner_text("#count")
    page.fill("#filter", "")
    with page.expect_download() as had:
        page.click("#download")
    rows = list(csv.DictReader(io.StringIO(Path(had.value.path()).read_text(encoding="utf-8"))))
    assert [(row["input"], row["status"]) for row in rows] == [(row[0], row[4].split()[-1]) for row in before]
    assert [row["value"] for row in rows] == [row[2].removesuffix(" eV").replace("none", "") for row in before]


# -- files -------------------------------------------------------------------------------------------------


def _choose(page: Any, text: str, name: str = "mine.csv") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": text.encode()})
    page.wait_for_selector("#file-name:has-text('mine')")


def test_a_csv_comes_back_as_the_server_answers_it(visit: Visit, origin: str) -> None:
    table = 'id,formula,"a, note"\n1,GaN,"said ""x"""\n2,Xx2O,\n3,CdSe,"two\nlines"\n'
    page = visit("/?task=tiny_gap&task=tiny_metal")
    _choose(page, table)
    page.click("#predict")
    answered(page)
    with page.expect_download() as had:
        page.click("#download-file")
    assert had.value.suggested_filename == "mine.predicted.csv"
    got = Path(had.value.path()).read_bytes()
    query = "task=tiny_gap&task=tiny_metal&coverage=0.9"
    answer = httpx.post(f"{origin}/v1/predict/csv?{query}", content=table, headers={"content-type": "text/csv"})
    assert answer.status_code == 200 and got == answer.content
    expected = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row[0] for row in cells(page)] == ["GaN", "GaN", "Xx2O", "Xx2O", "CdSe", "CdSe"]
    assert [row[2].removesuffix(" eV") for row in cells(page)][:2] == [
        expected[0]["value_tiny_gap"],
        expected[0]["value_tiny_metal"],
    ]
    opened(page)
    page.wait_for_selector("#prompt")
    before = cells(page)
    page.reload()
    page.wait_for_selector("#table tbody tr")
    assert cells(page) == before
    with page.expect_download() as again:
        page.click("#download-file")
    assert Path(again.value.path()).read_bytes() == got


def test_a_dropped_csv_and_its_column(visit: Visit, minded: Minded) -> None:
    minded.statuses = (422,)
    page = visit("/?task=tiny_gap")
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["left,right\\nGaN,CdSe\\n"], "mine.csv", {type: "text/csv"}));
          document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
        }"""
    )
    page.wait_for_selector("#file-name:has-text('mine')")
    page.click("#predict")
    answered(page)
    assert "which column holds the materials" in page.inner_text("#error")
    page.fill("#column", "right")
    page.click("#predict")
    answered(page)
    assert page.inner_text("#error") == "" and [row[0] for row in cells(page)] == ["CdSe"]
    page.click("#file-remove")
    assert page.is_enabled("#materials") and page.is_hidden("#file-chosen")


# -- what must not happen ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [SCRIPT, IMAGE])
def test_markup_is_text(visit: Visit, text: str) -> None:
    page = visit()
    ask(page, text, "GaN", tasks=("tiny_gap", "tiny_metal"))
    linked = visit(f"/?m={quote(text)}&m=GaN&task=tiny_gap&task=tiny_metal")
    tabled = visit("/?task=tiny_gap&task=tiny_metal")
    stream = io.StringIO()
    csv.writer(stream).writerows([["formula", text], [text, text], ["GaN", text]])
    _choose(tabled, stream.getvalue(), name="mine<b>.csv")
    tabled.click("#predict")
    answered(tabled)
    for one in (page, linked, tabled):
        rows = cells(one)
        assert rows[0][0] == text and rows[0][4].endswith("invalid") and rows[0][5]
        assert rows[2][0] == "GaN" and rows[2][4].endswith("ok")
        opened(one)
        one.wait_for_selector("#detail ul.remarks")
        assert one.inner_text("#detail-title") == text
        assert "invalid" in one.inner_text("#detail .headline")
        # The page has one script, and no picture, whatever was sent.
        assert one.evaluate("[document.scripts.length, document.images.length]") == [1, 0]


def test_a_refusal_is_shown_in_the_servers_words(minded: Minded, darwin: Darwin) -> None:
    minded.statuses = (422,)
    with minded.server(darwin, rows=3) as own:
        page = minded.open(f"{own}/")
        ask(page, "GaN", "CdSe", "ZnO", "InP")
        url = f"{own}/v1/predict"
        told = httpx.post(url, json={"materials": ["GaN"] * 4, "tasks": "tiny_gap"}).json()["detail"]
        assert page.inner_text("#error [class=alert]") == told and "more than 3 answers" in told
        assert page.get_attribute("#error", "role") == "alert" and page.is_hidden("#results")


def test_more_than_the_server_takes_is_left_to_it(visit: Visit, minded: Minded) -> None:
    minded.statuses = (422,)
    page = visit()
    ask(page, *(f"Ga{i}N" for i in range(1, 1002)))
    assert "1,001 materials of 1 tasks are more than 1,000 answers" in page.inner_text("#error")


def test_the_interface_is_listed_for_people(minded: Minded, darwin: Darwin) -> None:
    minded.statuses = (401,)
    with minded.server(darwin, api_key=KEY) as own:
        page = minded.open(f"{own}/docs")
        page.wait_for_selector("dialog[open]")
        page.fill("#key-text", KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("article")
        document = httpx.get(f"{own}/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()
        heads = [f"{method.upper()} {path}" for path, found in document["paths"].items() for method in found]
        assert page.locator("article h2").all_inner_texts() == heads and "POST /v1/predict/csv" in heads
        predict = page.locator("article", has=page.get_by_text("POST /v1/predict", exact=True)).inner_text()
        for part in ("materials (needed)", "text or list", "coverage", "0.9 by default", "422"):
            assert part.replace("text", "string") in predict, predict
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_key_is_asked_for_and_kept_in_memory_alone(minded: Minded, darwin: Darwin) -> None:
    minded.statuses = (401,)
    with minded.server(darwin, api_key=KEY) as own:
        page = minded.open(f"{own}/?m=GaN&task=tiny_gap")
        page.wait_for_selector("dialog[open]")
        assert page.get_attribute("#key-text", "type") == "password"
        page.fill("#key-text", "wrong-key-wrong-key")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-why:has-text('refused')")
        page.fill("#key-text", KEY)
        page.keyboard.press("Enter")
        answered(page)
        assert [row[0] for row in cells(page)] == ["GaN"]
        opened(page)
        page.wait_for_selector("#prompt")
        kept = page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href])")
        assert KEY not in kept
        page.reload()
        page.wait_for_selector("dialog[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("#error .alert")


def test_a_refusal_for_now_is_told_and_asked_again(visit: Visit, minded: Minded) -> None:
    minded.statuses = (503,)
    page = visit()
    told = {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "the queue is full; come again",
    }
    seen: list[float] = []

    def refuse(route: Any) -> None:
        seen.append(time.monotonic())
        if len(seen) > 2:
            route.continue_()
        else:
            route.fulfill(status=503, body=json.dumps(told), headers={"Retry-After": "1", "Content-Type": "application/problem+json"})  # fmt: skip

    page.route("**/v1/predict", refuse)
    page.fill("#materials", "GaN")
    page.click("#predict")
    page.wait_for_selector("#status:has-text('the queue is full')")
    answered(page)
    assert len(cells(page)) == 2 and len(seen) == 3 and min(seen[1] - seen[0], seen[2] - seen[1]) >= 0.9
    page.unroute("**/v1/predict")
    page.route("**/v1/predict", lambda route: route.fulfill(status=503, json=told, headers={"Retry-After": "1"}))
    page.click("#predict")
    answered(page)
    assert page.inner_text("#error") == "the queue is full; come again"


def test_a_model_that_is_being_read_is_waited_for(minded: Minded, origin: str) -> None:
    minded.statuses = (503,)
    context = minded.browser.new_context()
    minded.contexts.append(context)
    count = 0

    def refuse(route: Any) -> None:
        nonlocal count
        count += 1
        if count > 1:
            route.continue_()
        else:
            route.fulfill(status=503, json={"detail": "the weights are being read"}, headers={"Retry-After": "1"})

    page = context.new_page()
    page.route("**/readyz", refuse)
    page.goto(f"{origin}/?m=GaN&task=tiny_gap")
    page.wait_for_selector("#status:has-text('the weights are being read')")
    answered(page)
    assert [row[0] for row in cells(page)] == ["GaN"]


def test_a_question_can_be_cancelled(minded: Minded, darwin: Darwin) -> None:
    predictor = Slow()
    with minded.server(Stood(darwin, predictor)) as own:
        page = minded.open(f"{own}/")
        page.fill("#materials", "GaN")
        page.click("#predict")
        assert predictor.begun.acquire(timeout=10)
        page.click("#cancel")
        page.wait_for_selector("#status:has-text('Cancelled')")
        assert page.is_enabled("#predict") and page.is_hidden("#cancel") and page.inner_text("#error") == ""
        predictor.go.set()


# -- for everybody -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_does_not_scroll_sideways_and_texts_can_be_read(visit: Visit, scheme: str) -> None:
    long = "C" * 200
    page = visit(
        f"/?m=Cu2ZnSnS4&m={long}&m=GaN&m=Xx&task=tiny_gap&task=tiny_metal", width=360, height=740, scheme=scheme
    )
    wide = "document.scrollingElement.scrollWidth <= innerWidth"
    assert page.evaluate(wide)
    opened(page)
    page.wait_for_selector("#prompt")
    assert page.evaluate(wide)
    page.click("[data-part=swaps]")
    page.wait_for_selector("#what-if table")
    assert page.evaluate(wide)
    for selector in (
        "body", ".quiet", ".hint", ".badge:not([hidden])", "#predict", "button.open", ".status.invalid", ".status.ok", "td.remarks",
        "#table thead button", ".headline", "figcaption", ".element.level-0:not(.ours)", ".element.level-1", ".element.level-2", "#prompt",
        "button.plain", ".small th",
    ):  # fmt: skip
        assert _contrast(page, selector) >= 4.5, f"{selector} in {scheme}"


def test_dark_is_dark(visit: Visit) -> None:
    grounds = [
        visit(scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor") for scheme in ("light", "dark")
    ]
    light, dark = (sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds)
    assert light > 600 and dark < 120


def test_all_goes_by_keyboard(visit: Visit) -> None:
    page = visit()

    def focused() -> Any:
        return page.evaluate("document.activeElement.id || document.activeElement.textContent")

    def tab_to(wanted: str) -> None:
        for _ in range(30):
            if focused() == wanted:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {wanted}")

    tab_to("materials")
    page.keyboard.type("GaN\nCdSe\nInP")
    page.keyboard.press("Control+Enter")
    answered(page)
    assert len(cells(page)) == 6
    for field in ("file", "take-suggested", "coverage", "predict", "filter", "download"):
        tab_to(field)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle !== 'none'") or field == "file"
    tab_to("GaN")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert focused() == "CdSe"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("End")
    assert focused() == "InP"
    page.keyboard.press("Enter")
    page.wait_for_selector("#prompt")
    assert focused() == "detail-title" and "In P" in page.inner_text("#prompt")
    tab_to("detail-close")
    page.keyboard.press("Escape")
    assert page.is_hidden("#detail") and focused() == "InP"


def test_every_field_has_a_label(visit: Visit) -> None:
    page = visit("/?m=GaN&task=tiny_gap")
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, textarea, select')].filter(f => !f.labels?.length && !f.ariaLabel).map(f => f.id)"
    )
    assert nameless == []
    assert page.get_attribute("#status", "aria-live") == "polite"


def test_the_files_come_with_the_policy_and_are_checked_for_news(origin: str) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/static/app.js", "text/javascript"),
        ("/static/favicon.svg", "image/svg+xml"),
    ):
        answer = httpx.get(origin + path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-cache" and answer.headers["etag"]
    assert httpx.get(f"{origin}/static/none.js").status_code == 404
    assert httpx.get(f"{origin}/static/../app.py").status_code == 404
