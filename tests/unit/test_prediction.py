"""Predictions as JSON, table and HTML: nothing that JSON lacks, nothing unescaped, nothing contradictory."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.caveats import caveat
from matdarwin.prediction.prediction import Prediction, Predictions
from tiny import tiny_card, tiny_task

BASE = [
    "input",
    "material",
    "task",
    "value",
    "unit",
    "lower",
    "upper",
    "coverage",
    "status",
    "reason",
    "notes",
    "model",
]
NUMBERS = AnswerDistribution(np.array([0.0, 1.0, 2.0]), (), np.array([0.2, 0.5, 0.3]), 0.01, 0.002)
CLASSES = AnswerDistribution(np.empty(0), ("metal", "not <metal>"), np.array([0.7, 0.3]), 0.05, 0.0)


def made(**changes: Any) -> Prediction:
    given: dict[str, Any] = {
        "input": "GaN",
        "material": "Ga N",
        "task": "gap",
        "value": 1.0,
        "unit": "eV",
        "lower": 0.5,
        "upper": 2.0,
        "coverage": 0.9,
        "status": "ok",
        "reason": None,
        "notes": (),
        "model": "demo",
        "distribution": NUMBERS,
    }
    return Prediction(**{**given, **changes})


def blank(**changes: Any) -> Prediction:
    nothing = {"value": None, "lower": None, "upper": None, "coverage": None, "distribution": None, "material": None}
    return made(**{**nothing, "status": "invalid", "reason": "no element Xx", **changes})


def label(**changes: Any) -> Prediction:
    return made(
        **{
            "value": "metal",
            "unit": None,
            "lower": None,
            "upper": None,
            "coverage": None,
            "distribution": CLASSES,
            **changes,
        }
    )


def test_number_as_json() -> None:
    plain = made(value=np.float64(1.0), notes=("never saw Pu",)).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain)[:12] == BASE
    assert plain["notes"] == ["never saw Pu"]
    assert type(plain["value"]) is float
    assert (plain["mean"], plain["mode"], plain["outside"], plain["unexpanded"]) == (
        pytest.approx(1.1),
        1.0,
        0.01,
        0.002,
    )
    assert "probabilities" not in plain


def test_class_as_json() -> None:
    plain = label().to_dict()
    assert plain["probabilities"] == {"metal": 0.7, "not <metal>": 0.3}
    assert plain["outside"] == 0.05
    assert "mean" not in plain
    json.dumps(plain, allow_nan=False)


def test_no_answer_as_json() -> None:
    plain = blank().to_dict()
    assert list(plain) == BASE
    assert (plain["value"], plain["reason"]) == (None, "no element Xx")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"status": "fine"}, "status 'fine'"),
        ({"status": "unread"}, "cannot have the value 1.0"),
        ({"value": None}, "cannot have the value None"),
        ({"value": math.nan}, "value of a prediction is nan"),
        ({"upper": math.inf}, "upper of a prediction is inf"),
        ({"lower": None}, "come together"),
        ({"coverage": None}, "come together"),
        ({"lower": 1.5}, "does not hold the value"),
        ({"value": "metal"}, "does not hold the value"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        made(**changes)


def test_missing_value_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        blank(reason=None)


def test_frame_keeps_rows_and_order() -> None:
    frame = Predictions([made(), blank(), made(input="AlN", notes=("a", "b"))]).to_frame()
    assert list(frame.columns) == [*BASE, "mean", "mode", "outside", "unexpanded", "assumed_ends"]
    assert frame["input"].tolist() == ["GaN", "GaN", "AlN"]
    assert frame["status"].tolist() == ["ok", "invalid", "ok"]
    assert frame["notes"].tolist() == ["", "", "a; b"]
    assert frame["value"].isna().tolist() == [False, True, False]
    assert list(Predictions([label()]).to_frame().columns) == [*BASE, "outside", "P(metal)", "P(not <metal>)"]
    assert list(Predictions().to_frame().columns) == BASE


def parsed(predictions: Predictions) -> ElementTree.Element:
    """The HTML as a tree: fails where a tag is left open or a text unescaped."""
    return ElementTree.fromstring(predictions._repr_html_().replace("<br>", "<br/>"))


def test_html_is_well_formed_and_escaped() -> None:
    evil = "<script>alert('x')</script>"
    table = Predictions([blank(input=evil, reason=evil), label(notes=(evil, "two")), made(material=evil)])
    text = table._repr_html_()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    rows = parsed(table).findall("./tbody/tr")
    assert len(rows) == 3
    assert all(len(row.findall("td")) == 7 for row in rows)


def test_html_shows_value_interval_and_plot() -> None:
    table = parsed(Predictions([made(), blank(), label()]))
    first, second, third = table.findall("./tbody/tr")
    cells = ["".join(cell.itertext()) for cell in first]
    assert cells[3] == "1.0 eV"
    assert cells[4] == "0.5 to 2.0 eV (90 %)"
    svg = "{http://www.w3.org/2000/svg}"
    assert len(first.findall(f".//{svg}rect")) == 4, "the interval and three bars"
    assert len(first.findall(f".//{svg}line")) == 1
    assert second.find(f".//{svg}svg") is None
    assert len(third.findall(f".//{svg}rect")) == 2


def test_plot_of_a_distribution_on_one_value() -> None:
    sure = AnswerDistribution(np.array([1.0]), (), np.array([1.0]), 0.0, 0.0)
    row = parsed(Predictions([made(distribution=sure, lower=None, upper=None, coverage=None, status="uncalibrated")]))
    assert "uncalibrated" in "".join(row.itertext())
    assert "nan" not in ElementTree.tostring(row, encoding="unicode").lower().replace("uncalibrated", "")


def test_long_input_is_shortened_in_html_only() -> None:
    long = "Ag" * 5000
    assert len(made(input=long)._repr_html_()) < 5000
    assert made(input=long).to_dict()["input"] == long


def test_intervals_of_another_format_are_told_where_that_format_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where no model is asked in int8: one that was calibrated so can still be asked in another."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    card = tiny_card("x", tiny_task(tmp_path), recipe={"predicting": {"dtype": "int8", "views": 1}})
    assert "bfloat16 instead of int8" in str(caveat(card, dtype="bf16"))
    assert caveat(card, dtype="int8") is None
    plain = tiny_card("x", tiny_task(tmp_path), recipe={"predicting": {"dtype": "auto", "views": 1}})
    assert caveat(plain, dtype="fp32") is None and "2 views instead of 1" in str(caveat(plain, views=2))
