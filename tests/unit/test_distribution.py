"""What a distribution says of itself, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matdarwin.models.distribution import AnswerDistribution, average


def numbers(
    values: list[float], probabilities: list[float], outside: float = 0.0, unexpanded: float = 0.0, assumed: float = 0.0
) -> AnswerDistribution:
    return AnswerDistribution(np.array(values), (), np.array(probabilities), outside, unexpanded, assumed)


def classes(labels: tuple[str, ...], probabilities: list[float]) -> AnswerDistribution:
    return AnswerDistribution(np.empty(0), labels, np.array(probabilities), 0.0, 0.0)


GIVEN = numbers([0.0, 1.0, 2.0, 10.0], [0.4, 0.2, 0.3, 0.1])


def test_centre_and_spread_by_hand() -> None:
    assert GIVEN.mean() == pytest.approx(0.2 + 0.6 + 1.0)
    assert GIVEN.median() == 1.0
    assert GIVEN.mode() == 0.0
    assert GIVEN.spread() == pytest.approx(0.4 * 1 + 0 + 0.3 * 1 + 0.1 * 9)


@pytest.mark.parametrize(
    ("q", "value"),
    [(0.0, 0.0), (0.39, 0.0), (0.4, 0.0), (0.41, 1.0), (0.6, 1.0), (0.61, 2.0), (0.9, 2.0), (0.91, 10.0), (1.0, 10.0)],
)
def test_quantiles_by_hand(q: float, value: float) -> None:
    assert GIVEN.quantile(q) == value


@pytest.mark.parametrize("q", [-0.01, 1.01, float("nan")])
def test_a_quantile_outside_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        GIVEN.quantile(q)


def test_a_median_on_the_edge_is_the_lesser_value_despite_rounding() -> None:
    tenths = numbers([float(i) for i in range(10)], [0.1] * 10)
    assert tenths.median() == 4.0
    assert numbers([0.0, 1.0], [0.5 - 1e-12, 0.5 + 1e-12]).median() == 0.0
    assert numbers([0.0, 1.0], [0.5 - 1e-6, 0.5 + 1e-6]).median() == 1.0


def test_mode_is_the_least_of_equals_and_probability_holds_its_ends() -> None:
    assert numbers([1.0, 2.0, 3.0], [0.2, 0.4, 0.4]).mode() == 2.0
    assert GIVEN.probability(1.0, 2.0) == pytest.approx(0.5)
    assert GIVEN.probability(3.0, 9.0) == 0.0
    assert GIVEN.probability(-1.0, 99.0) == pytest.approx(1.0)


def test_labels_by_probability_and_in_proportion_to_shares() -> None:
    given = classes(("metal", "not metal"), [0.7, 0.3])
    assert given.label() == "metal"
    # 0.7 / 0.9 is less than 0.3 / 0.1.
    assert given.label(np.array([0.9, 0.1])) == "not metal"
    assert given.label(np.array([0.5, 0.5])) == "metal"


@pytest.mark.parametrize(("values", "probabilities"), [([1.0], [0.5, 0.5]), ([], []), ([1.0, 2.0], [1.0])])
def test_a_distribution_has_one_probability_an_answer(values: list[float], probabilities: list[float]) -> None:
    with pytest.raises(ValueError, match="one probability for each"):
        numbers(values, probabilities)


def test_averaging_numbers_joins_their_values() -> None:
    mixed = average([numbers([0.0, 1.0], [0.5, 0.5], 0.1, 0.01, 0.2), numbers([1.0, 3.0], [0.25, 0.75], 0.3, 0.0, 0.0)])
    assert mixed.values.tolist() == [0.0, 1.0, 3.0]
    assert mixed.probabilities == pytest.approx([0.25, 0.375, 0.375])
    assert (mixed.outside, mixed.unexpanded, mixed.assumed_ends) == pytest.approx((0.2, 0.005, 0.1))


def test_averaging_classes_keeps_their_order() -> None:
    mixed = average([classes(("b", "a"), [0.9, 0.1]), classes(("b", "a"), [0.5, 0.5])])
    assert mixed.labels == ("b", "a") and mixed.probabilities == pytest.approx([0.7, 0.3])


def test_the_average_of_one_is_itself() -> None:
    assert average([GIVEN]) is GIVEN


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=2, max_size=5), st.floats(0, 1))
def test_a_mixture_is_a_distribution_and_means_average(weights: list[list[float]], q: float) -> None:
    parts = [numbers([0.0, float(k + 1), 9.0], [x / sum(w) for x in w]) for k, w in enumerate(weights)]
    mixed = average(parts)
    assert mixed.probabilities.sum() == pytest.approx(1.0)
    assert (np.diff(mixed.values) > 0).all()
    assert mixed.mean() == pytest.approx(np.mean([p.mean() for p in parts]))
    assert min(p.quantile(q) for p in parts) <= mixed.quantile(q) <= max(p.quantile(q) for p in parts)
