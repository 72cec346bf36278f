"""The page of a training: what it shows, what it escapes, how it thins."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.timing import least_seconds

from matdarwin.training.chart import Line, chart, smooth, thin
from matdarwin.training.page import Facts, render

FACTS = Facts(
    name="try-tiny_gap-00000000", stage="the tasks' own stage", state="running", done=40, total=100, seconds=300.0, tokens=6000,
    written=datetime(2026, 11, 24, 12, tzinfo=UTC), recipe="name: try\nseed: 0\n", machine={"cpu": "a fine one", "gpu": None}, memory_gib=1.25,
    units={"gap": "eV"},
)  # fmt: skip


def steps(count: int, loss: float = 2.0) -> list[dict[str, Any]]:
    return [
        {"step": n, "loss": loss * 0.9**n, "learning_rate": 1e-4, "gradient_norm": 1.0, "tokens": 150 * n}
        for n in range(1, count + 1)
    ]


def texts(page: str) -> str:
    """The page without its tags."""
    return re.sub(r"<[^>]*>", " ", page)


def test_a_page_says_where_a_run_stands() -> None:
    lines = [*steps(20), {"epoch": 1, "validation": {"gap": ["mae", 0.5], "metal": ["accuracy", 0.8]}}]
    lines += [{"epoch": 2, "validation": {"gap": ["mae", 0.75], "metal": ["accuracy", 0.9]}}, {"epoch": 3}]
    said = texts(render(lines, FACTS))
    assert "step 40 of 100" in said and "40 %" in said
    # 6,000 tokens in 300 s; 60 of 100 steps are left, at 7.5 s each.
    for name, value in (("tokens a second", "20"), ("left, about", "8 min"), ("memory", "1.2 GiB")):
        assert re.search(rf"{name}\s+{re.escape(value)}\s", said), name
    assert "a fine one" in said and "gpu" not in said
    assert "gap: mae 0.75 eV after epoch 2; best 0.5 after epoch 1" in said
    assert "metal: accuracy 0.9 after epoch 2; best 0.9 after epoch 2" in said
    assert "name: try" in said


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_only_a_page_of_a_run_that_goes_on_loads_itself_anew(state: Any) -> None:
    assert '<meta http-equiv="refresh"' in render(steps(3), FACTS)
    done = render(steps(3), replace(FACTS, state=state, remark="the disk is full"))
    assert "refresh" not in done and "left, about" not in done
    assert state in done and "the disk is full" in done


def test_every_text_is_escaped() -> None:
    bad = "<script>alert('x')</script>\" onload=\"y"
    facts = replace(
        FACTS, name=bad, stage=bad, recipe=bad, remark=bad, machine={bad: bad}, units={bad: bad}, state="stopped"
    )
    page = render([*steps(3), {"epoch": 1, "validation": {bad: [bad, 1.0]}}], facts)
    assert "<script" not in page and 'onload="' not in page
    assert "&lt;script&gt;" in page


def test_a_page_fetches_and_runs_nothing() -> None:
    page = render(steps(30), FACTS)
    assert not re.search(r"\bsrc=|\bhref=|url\(|@import|<script", page)
    assert "default-src 'none'" in page


def test_a_page_can_be_made_before_the_first_step_and_without_numbers() -> None:
    assert "No step was made yet." in render([], replace(FACTS, done=0, seconds=0.0, tokens=0, memory_gib=None))
    nothing = {"step": 1, "loss": math.nan, "learning_rate": 1e-4, "gradient_norm": math.inf, "tokens": 1}
    page = render([nothing, {"epoch": 1, "validation": {"gap": ["mae", math.inf]}}], FACTS)
    assert "nan" not in page and "inf" not in texts(page)


def test_drawings_are_well_formed_and_stay_inside() -> None:
    for svg in re.findall(
        r"<svg.*?</svg>", render([*steps(500), {"epoch": 1, "validation": {"a&b": ["mae", 1]}}], FACTS)
    ):
        root = ElementTree.fromstring(svg)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for line in root.iter("polyline"):
            for point in line.attrib["points"].split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= width and 0 <= y <= height


def test_heights_are_logarithmic_only_where_it_pays() -> None:
    def ticks(low: float, high: float) -> list[float]:
        svg = chart([Line([(1, low), (2, high)], "mark")], title="t", end=2, logarithmic=True)
        return [float(text) for text in re.findall(r'class="y"[^>]*>([^<]*)<', svg)]

    assert {0.1, 1.0} <= set(ticks(0.05, 5.0)) and 0 not in ticks(0.05, 5.0)
    even = ticks(1.0, 2.0)
    assert len({round(b - a, 6) for a, b in itertools.pairwise(even)}) == 1
    assert 0 in ticks(0.0, 5.0) and min(ticks(-3.0, 5.0)) < 0
    assert ticks(1.0, 1.0)


def test_a_hundred_thousand_steps_are_drawn_soon_and_small() -> None:
    lines = [{"step": n, "loss": 1 + n % 7, "learning_rate": 1e-4} for n in range(1, 100_001)]
    assert len(render(lines, replace(FACTS, total=100_000))) < 100_000
    assert least_seconds(lambda: render(lines, replace(FACTS, total=100_000)), 3, enough=10) < 10


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(2, 60))
def test_thinning_keeps_ends_and_extremes(heights: list[float], most: int) -> None:
    points = [(float(n), y) for n, y in enumerate(heights)]
    kept = thin(points, most)
    assert len(kept) <= most + 2 and set(kept) <= set(points)
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})
    for end in (min, max):
        assert end(y for _, y in kept) == end(heights)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_smoothing_stays_within_what_it_smooths_and_begins_with_it(heights: list[float]) -> None:
    found = smooth([(float(n), y) for n, y in enumerate(heights)])
    slack = 1e-9 * max(map(abs, heights))
    assert found[0][1] == pytest.approx(heights[0])
    assert all(min(heights) - slack <= y <= max(heights) + slack for _, y in found)
