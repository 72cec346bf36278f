"""What a screen looks for: conditions and ranks over predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import tiny_task

from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.prediction import Prediction
from matdarwin.prediction.wishes import WishError, condition, expected_improvement, rank
from matdarwin.tasks.schema import Task


def number(value: float | None = 1.0, *, task: str = "tiny_gap", spread: bool = True) -> Prediction:
    """A prediction whose distribution has a quarter at 0.5 below and above the value."""
    common: dict[str, Any] = {"input": "x", "task": task, "unit": "eV", "model": "m", "notes": ()}
    if value is None:
        nothing = dict.fromkeys(("material", "value", "lower", "upper", "coverage"))
        return Prediction(**common, **nothing, status="invalid", reason="no element")
    answer = AnswerDistribution(np.array([value - 0.5, value, value + 0.5]), (), np.array([0.25, 0.5, 0.25]), 0.0, 0.0)
    return Prediction(
        **common, material="x", value=value, lower=value - 0.5, upper=value + 0.5, coverage=0.9, status="ok", reason=None,
        distribution=answer if spread else None,
    )  # fmt: skip


def label(value: str) -> Prediction:
    answer = AnswerDistribution(np.empty(0), ("metal", "not metal"), np.array([0.7, 0.3]), 0.0, 0.0)
    return Prediction(
        input="x", task="tiny_metal", unit=None, model="m", notes=(), material="x", value=value, lower=None, upper=None,
        coverage=None, status="ok", reason=None, distribution=answer,
    )  # fmt: skip


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny_task(tmp_path_factory.mktemp("gap"))


@pytest.fixture(scope="module")
def metal(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny_task(tmp_path_factory.mktemp("metal"), kind="classification")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("value > 0.9", True),
        ("value > 1", False),
        ("value >= 1 and value<=1", True),
        ("0.5 < value < 1.5", True),
        ("0.5 < value < 0.9", False),
        ("value > 5 or value < 2 and lower > 0", True),
        ("(value > 5 or value < 2) and lower > 1", False),
        ("not value > 5", True),
        ("NOT (value == 1.0)", False),
        ("upper != 1.5", False),
        ("P(1.0, 1.5) > 0.7", True),
        ("P(1.0, 1.5) > 0.8", False),
        ("EI(1.0) > .1", True),
        ("value > -1e3", True),
        ("tiny_gap.value == 1", True),
    ],
)
def test_conditions_on_a_number(gap: Task, text: str, holds: bool) -> None:
    assert condition(text, [gap])({"tiny_gap": number(1.0)}) is holds


@pytest.mark.parametrize("text", ["value > 0", "not value > 0", "value > 0 or P(0, 9) >= 0", "value < 0 and value > 0"])
def test_a_row_without_a_value_fulfils_nothing(gap: Task, text: str) -> None:
    assert condition(text, [gap])({"tiny_gap": number(None)}) is False


def test_what_is_known_decides_where_it_can(gap: Task) -> None:
    bare = {"tiny_gap": number(1.0, spread=False)}
    assert condition("value > 0 or P(0, 9) > 0.5", [gap])(bare) is True
    assert condition("value > 0 and P(0, 9) > 0.5", [gap])(bare) is False


def test_several_tasks_and_labels(gap: Task, metal: Task) -> None:
    row = {"tiny_gap": number(1.0), "tiny_metal": label("metal")}
    both = [gap, metal]
    assert condition('tiny_gap.value > 0 and tiny_metal.value == "metal"', both)(row)
    assert not condition("tiny_metal.value != 'metal'", both)(row)
    assert condition('tiny_metal.P("not metal") < 0.31', both)(row)
    assert rank('tiny_metal.P("metal")', both)(row) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the end"),
        ("value", "comparison is wanted"),
        ("value >", "the end"),
        ("value > 1 value", "`value` at position 10"),
        ("valeu > 1", "`valeu` at position 0: did you mean value?"),
        ("gap.value > 1", "`gap` at position 0: no task that is asked"),
        ("tiny_gab.value > 1", "did you mean tiny_gap?"),
        ("value > 1 & value < 2", "`&` at position 10"),
        ("(value > 1", "here `)` is wanted"),
        ("P(2, 1) > 0", "`2` at position 2: a window begins with its lower end"),
        ("P(1) > 0", "here `,` is wanted"),
        ('value == "wide"', "cannot be compared"),
        ("EI(x) > 0", "`x` at position 3: a number is wanted"),
        ("__import__('os')", "at position 0"),
        ("(" * 60 + "value > 1" + ")" * 60, "inside each other"),
    ],
)
def test_what_cannot_be_read_names_word_and_place(gap: Task, text: str, says: str) -> None:
    with pytest.raises(WishError, match=r".") as error:
        condition(text, [gap])
    assert says in str(error.value)


def test_several_tasks_must_be_told_apart(gap: Task, metal: Task) -> None:
    with pytest.raises(WishError, match=r"say which, such as tiny_gap\.value"):
        condition("value > 1", [gap, metal])
    with pytest.raises(WishError, match="no label of tiny_metal; it has 'metal', 'not metal'"):
        condition('tiny_metal.value == "metall"', [gap, metal])
    with pytest.raises(WishError, match="labels have no order"):
        condition('tiny_metal.value < "metal"', [metal])
    with pytest.raises(WishError, match="has classes"):
        condition("upper > 1", [metal])


@pytest.mark.parametrize("text", ["3", "value > 1", '"metal"'])
def test_a_rank_is_one_number(gap: Task, text: str) -> None:
    with pytest.raises(WishError):
        rank(text, [gap])


def test_ranks(gap: Task) -> None:
    row = {"tiny_gap": number(1.0)}
    assert rank("value", [gap])(row) == 1.0
    assert rank("P(1.5, 2)", [gap])(row) == pytest.approx(0.25)
    assert rank("EI(1.2)", [gap])(row) == pytest.approx(0.25 * 0.3)
    assert rank("EI(1.2)", [gap], lowest=True)(row) == pytest.approx(0.25 * 0.7 + 0.5 * 0.2)
    assert rank("value", [gap])({"tiny_gap": number(None)}) is None


def test_expected_improvement_of_a_fine_normal_distribution_is_the_closed_form() -> None:
    from scipy.stats import norm

    mean, sd, best = 2.0, 0.7, 2.4
    values = np.linspace(-4, 8, 24001)
    weights = norm.pdf(values, mean, sd)
    fine = AnswerDistribution(values, (), weights / weights.sum(), 0.0, 0.0)
    answer = Prediction(
        input="x", task="t", unit=None, model="m", notes=(), material="x", value=2.0, lower=None, upper=None, coverage=None,
        status="uncalibrated", reason="few", distribution=fine,
    )  # fmt: skip
    z = (mean - best) / sd
    assert expected_improvement(answer, best) == pytest.approx((mean - best) * norm.cdf(z) + sd * norm.pdf(z), rel=1e-4)


@given(st.text(alphabet="value lowerandortPEI()<>=!.,0123\"'", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    task = Task.model_construct(id="tiny_gap", kind="regression", labels=())
    try:
        found = condition(text, [task])
    except WishError:
        return
    assert found({"tiny_gap": number(1.0)}) in (True, False)
