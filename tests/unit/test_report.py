"""The demonstration's page says what its data say, is self-contained, and escapes every text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from matdarwin.evaluation.metrics import score_regression
from matdarwin.studies import figures
from matdarwin.studies.outcome import Asked, Covered, Curve, DemoResult, HeldOut, LanguagePart, Rival, RivalsPart
from matdarwin.studies.report import page, statements

TARGETS = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
HOSTILE = "<script>alert('x')</script>"
VOID = {"meta"}


def rival(answers: Sequence[float], features: str = "magpie") -> Rival:
    score = score_regression(TARGETS, list(answers), training_median=2.0)
    return Rival(score=score, features=features, seconds=1.0, answers=list(answers))


def demo(own: Sequence[float | None] | None = None, **changes: Any) -> DemoResult:
    """A made-up result: by default the model is off by 1.0 and the best rival by about 0.1 throughout."""
    answers = [t + 1.0 for t in TARGETS] if own is None else list(own)
    intervals = [(a - 0.5, a + 1.5) if a is not None else None for a in answers]
    language = LanguagePart(
        key="k",
        scores={
            way: score_regression(
                TARGETS, answers, training_median=2.0, intervals=intervals if way == "median" else None
            )
            for way in ("median", "mean", "mode")
        },
        covered=[Covered(nominal=n, observed=n - 0.05, width=2.0, rows=8) for n in (0.5, 0.9, 0.95)],
        tested=[
            HeldOut(material=f"M{i}", target=t, median=a) for i, (t, a) in enumerate(zip(TARGETS, answers, strict=True))
        ],
        asked=[
            Asked(
                prediction={
                    "input": "CdTe",
                    "value": 1.5,
                    "lower": 1.0,
                    "upper": 2.25,
                    "reason": None,
                    "notes": ["saw Te once"],
                },
                measured=1.57,
            ),
            Asked(
                prediction={
                    "input": "Si",
                    "value": None,
                    "lower": None,
                    "upper": None,
                    "reason": "no readable answer",
                    "notes": [],
                }
            ),
        ],
        curve=Curve(
            material="CdTe",
            values=[1.0, 1.5, 2.0],
            probabilities=[0.25, 0.5, 0.25],
            median=1.5,
            lower=1.0,
            upper=2.25,
            measured=1.57,
        ),
        seconds=12.0,
    )
    rivals = {
        "dummy": rival([2.0] * 8, "none"),
        "extra_trees_median": rival([t + (0.1 if i % 2 else 0.12) for i, t in enumerate(TARGETS)]),
        "lightgbm": rival([t + 0.3 for t in TARGETS]),
    }
    content: dict[str, Any] = {
        "task": "zhuo_gap", "title": "Measured band gap", "unit": "eV", "decimals": 2, "citation": "Somebody 2018", "licence": "MIT",
        "checkpoint": "demo-zhuo_gap-fold0-12345678", "base": "smollm2-135m", "recipe": {"name": "demo", "predicting": {"views": 2}},
        "recipe_hash": "abc", "data_sha256": "def", "rows": {"train": 300, "validation": 20, "calibration": 40, "test": 8, "held_out": 90},
        "training": {"steps": 30, "epochs": 3, "tokens": 12345, "dtype": "float32", "seconds_with_calibration": 250.0},
        "machine": {"cpu": "A processor", "gpu": None, "cores": 2, "threads": 2, "python": "3.11", "torch": "2"}, "coverage": 0.9,
        "language": language, "rivals": RivalsPart(key="r", rows=360, rivals=rivals, seconds=9.0), "seconds": 300.0, "reused": [],
    }  # fmt: skip
    return DemoResult.model_validate(content | changes)


class Balance(HTMLParser):
    """Fails where a tag is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes what is not open"


def words(html: str) -> str:
    """The page's own text, without figures."""
    plain = re.sub(r"<svg.*?</svg>|<style.*?</style>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", plain)).split())


def test_the_page_is_whole_and_holds_its_three_figures() -> None:
    html = page(demo())
    parser = Balance()
    parser.feed(html)
    assert parser.open == [] and parser.seen["svg"] == 3 and parser.seen["html"] == 1
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)


def test_the_page_fetches_nothing_and_its_ids_are_its_own() -> None:
    html = page(demo())
    # Names of XML namespaces are no addresses that a browser goes to.
    rest = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert (
        "http" not in rest
        and "<link" not in rest
        and "src=" not in rest
        and "@import" not in rest
        and "<script" not in rest
    )
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used and used <= set(ids)


def test_light_and_dark_are_both_provided_for() -> None:
    html = page(demo())
    assert "prefers-color-scheme: dark" in html and "currentColor" in html
    assert figures._INK not in html
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert "#000000" not in svg and "#ffffff" not in svg, "a colour that only one of the two themes can show"


@pytest.mark.parametrize("place", ["title", "citation", "checkpoint", "base", "unit"])
def test_texts_are_escaped(place: str) -> None:
    html = page(demo(**{place: HOSTILE}))
    assert "<script" not in html and "&lt;script&gt;" in html


def test_what_the_model_was_asked_is_escaped_too() -> None:
    result = demo()
    asked = Asked(
        prediction={"input": HOSTILE, "value": 1.0, "lower": 0.0, "upper": 2.0, "notes": [HOSTILE], "reason": HOSTILE}
    )
    curve = Curve(material=f'{HOSTILE}" onload="', values=[1.0], probabilities=[1.0], median=1.0)
    html = page(
        result.model_copy(update={"language": result.language.model_copy(update={"asked": [asked], "curve": curve})})
    )
    assert "<script" not in html and html.count("&lt;script&gt;") >= 4 and 'onload="' not in html


def test_a_loss_is_said_plainly() -> None:
    first, second, third, last = statements(demo())
    assert "off by 1.000 eV" in first and "extra trees, median, is off by 0.110 eV" in first
    assert "loses by 0.890" in first and "take the trees" in first
    assert second == "Of the rivals it beats none. Unread answers: 0 of 8."
    assert "hold 85.0 %" in third and "points" in third
    assert "360 materials" in last and "learnt from 300" in last


def test_a_win_is_a_win_and_a_near_tie_is_neither() -> None:
    assert "wins by 0.1" in statements(demo(own=TARGETS))[0]
    near = [t + (0.25 if i % 2 else -0.02) for i, t in enumerate(TARGETS)]
    said = statements(demo(own=near))[0]
    assert "within what chance does" in said and "loses" not in said and "wins" not in said


def test_unread_answers_are_counted_and_their_rows_left_out_of_the_comparison() -> None:
    own = [None, *(t + 1.0 for t in TARGETS[1:])]
    result = demo(own=own)
    first, second, *_ = statements(result)
    assert "off by 1.000 eV" in first and "Unread answers: 1 of 8." in second
    assert "1.000" in words(page(result))


def test_a_model_that_says_nothing_still_has_a_page() -> None:
    result = demo(own=[None] * 8)
    bare = result.language.model_copy(update={"covered": [], "curve": None, "asked": []})
    html = page(result.model_copy(update={"language": bare}))
    text = words(html)
    assert (
        "no readable answer" in text
        and "too few materials to calibrate" in text
        and "All of them were learnt from." in text
    )
    assert html.count("<svg") == 1


def test_tables_hold_the_numbers() -> None:
    text = words(page(demo()))
    assert "language model, median (its answer) text 1.000 1.000 262" in text
    assert "LightGBM (L1) magpie 0.300 0.300 1.0" in text
    assert "CdTe 1.50 1.000 to 2.250 1.57 saw Te once" in text and "Si - - - no readable answer" in text
    assert "90 % 85.0 % 2.00" in text and "8 of 90 held-out materials" in text
    for fact in (
        "A processor",
        "2 threads of 2 cores",
        "30 steps",
        "12,345 tokens",
        "demo-zhuo_gap-fold0-12345678",
        "hash abc",
        "Somebody 2018",
    ):
        assert fact in text


def test_rivals_stand_best_first() -> None:
    text = words(page(demo()))
    assert text.index("extra trees, median magpie") < text.index("LightGBM (L1) magpie") < text.index("dummy none")


def test_a_second_run_says_what_it_reused() -> None:
    assert "reused the checkpoint and the rivals' answers" in words(
        page(demo(reused=["the checkpoint", "the rivals' answers"]))
    )


def test_the_same_data_give_the_same_page() -> None:
    assert page(demo()) == page(demo())


def test_the_result_survives_json() -> None:
    result = demo()
    assert DemoResult.model_validate_json(result.model_dump_json(exclude_none=True)) == result


def test_chance_grows_with_fewer_materials_and_is_that_of_a_share() -> None:
    assert figures.chance(0.9, 200, 10**9) == pytest.approx(2 * (0.09 / 200) ** 0.5, rel=1e-3)
    assert figures.chance(0.9, 200, 100) > figures.chance(0.9, 200, 200) > figures.chance(0.9, 2000, 2000)


def test_rivals_have_readable_names() -> None:
    assert figures.words("extra_trees_median_fractions") == "extra trees, median (atomic fractions)"
    assert figures.words("random_forest") == "random forest"
