"""Scores against values worked out by hand, and unread rows that are neither dropped nor 0."""

from __future__ import annotations

import math
from typing import Any

import pytest

from matdarwin.evaluation import metrics

AB = ("a", "b")


def test_regression_by_hand() -> None:
    score = metrics.score_regression([0.0, 1.0, 2.0, 3.0], [0.0, 2.0, 2.0, 0.0], training_median=9.0, fold=2)
    assert score.mae == pytest.approx(1.0)
    assert score.rmse == pytest.approx(math.sqrt(10 / 4))
    assert score.mae_pessimistic == pytest.approx(1.0)
    assert (score.fold, score.rows, score.unread, score.coverage, score.without_interval) == (2, 4, 0, None, None)


def test_unread_numbers_are_counted_and_answered_by_the_median_once_more() -> None:
    score = metrics.score_regression([1.0, 5.0, 3.0], [1.5, None, 3.0], training_median=2.0)
    assert score.unread == 1
    assert score.mae == pytest.approx(0.25)
    assert score.mae_pessimistic == pytest.approx((0.5 + 3.0 + 0.0) / 3)


def test_fold_without_any_answer_has_no_mae_but_a_pessimistic_one() -> None:
    score = metrics.score_regression([1.0, 5.0], [None, None], training_median=2.0, intervals=[None, None])
    assert (score.mae, score.rmse, score.unread) == (None, None, 2)
    assert score.mae_pessimistic == pytest.approx(2.0)
    assert (score.coverage, score.width, score.without_interval) == (None, None, 2)
    with pytest.raises(ValueError, match="none of the 2 answers could be read"):
        metrics.mae([1.0, 5.0], [None, None])


def test_coverage_and_width_leave_out_rows_without_an_interval_and_count_them() -> None:
    targets, intervals = [0.0, 1.0, 2.0, 3.0], [(0.0, 1.0), (1.5, 2.0), (0.0, 2.0), None]
    assert metrics.coverage(targets, intervals) == pytest.approx(2 / 3)
    assert metrics.width(targets, intervals) == pytest.approx((1 + 0.5 + 2) / 3)
    assert (
        metrics.score_regression(
            targets, [*targets[:3], None], training_median=0.0, intervals=intervals
        ).without_interval
        == 1
    )
    with pytest.raises(ValueError, match="no row has an interval"):
        metrics.coverage([1.0], [None])


def test_classes_by_hand() -> None:
    targets, answers = ["a", "a", "a", "b"], ["a", "a", "b", "b"]
    score = metrics.score_classification(targets, answers, AB)
    assert score.accuracy == pytest.approx(0.75)
    assert score.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert score.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert (score.unread, score.roc_auc, score.without_probability) == (0, None, None)


def test_unread_class_is_wrong() -> None:
    targets, answers = ["a", "a", "b", "b"], ["a", None, "b", "b"]
    score = metrics.score_classification(targets, answers, AB)
    assert score.unread == 1
    assert score.accuracy == pytest.approx(0.75)
    assert score.balanced_accuracy == pytest.approx((0.5 + 1) / 2)
    # a: precision 1, recall 1/2; the unread row is a miss of its class and nobody's false alarm.
    assert score.macro_f1 == pytest.approx((2 / 3 + 1) / 2)


def test_nothing_read_scores_zero() -> None:
    score = metrics.score_classification(["a", "b"], [None, None], AB, probabilities=[None, None])
    assert (score.accuracy, score.balanced_accuracy, score.macro_f1, score.roc_auc) == (0.0, 0.0, 0.0, None)
    assert score.without_probability == 2


def test_macro_f1_leaves_out_a_class_that_neither_occurs_nor_is_answered() -> None:
    assert metrics.macro_f1(["a", "b"], ["a", "b"], ("a", "b", "c")) == pytest.approx(1.0)
    # Answered wrongly, it counts with an F1 of 0; a has recall 1, precision 1; b was missed.
    assert metrics.macro_f1(["a", "b"], ["a", "c"], ("a", "b", "c")) == pytest.approx(1 / 3)


def test_roc_auc_is_from_probabilities_and_follows_the_positive_label() -> None:
    targets = ["a", "a", "b", "b"]
    positive = [0.1, 0.4, 0.35, 0.8]  # 3 of 4 pairs are in order
    rows = [{"a": 1 - p, "b": p} for p in positive]
    assert metrics.roc_auc(targets, rows, AB) == pytest.approx(0.75)
    assert metrics.roc_auc(targets, rows, AB, positive="a") == pytest.approx(0.75)
    assert metrics.score_classification(
        targets, targets, AB, positive="b", probabilities=rows
    ).roc_auc == pytest.approx(0.75)
    reversed_rows = [{"a": p, "b": 1 - p} for p in positive]
    assert metrics.roc_auc(targets, reversed_rows, AB) == pytest.approx(0.25)


def test_roc_auc_over_rows_with_probabilities() -> None:
    rows = [{"a": 0.9, "b": 0.1}, None, {"a": 0.2, "b": 0.8}]
    score = metrics.score_classification(["a", "a", "b"], ["a", None, "b"], AB, probabilities=rows)
    assert (score.roc_auc, score.without_probability, score.unread) == (1.0, 1, 1)


def test_roc_auc_of_three_classes_is_one_against_the_rest() -> None:
    labels = ("a", "b", "c")
    rows = [{"a": 0.8, "b": 0.1, "c": 0.1}, {"a": 0.1, "b": 0.4, "c": 0.5}, {"a": 0.2, "b": 0.5, "c": 0.3}]
    # a and its rest are parted; b: 0.4 over 0.1, under 0.5; c: 0.3 over 0.1, under 0.5.
    assert metrics.roc_auc(["a", "b", "c"], rows, labels) == pytest.approx((1.0 + 0.5 + 0.5) / 3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.mae([1.0], [1.0, 2.0]), "1 targets but 2 answers"),
        (lambda: metrics.mae([], []), "no rows"),
        (lambda: metrics.mae([1.0], [math.nan]), "the answer of row 0 is nan"),
        (lambda: metrics.mae([1.0, math.inf], [1.0, 1.0]), "the target of row 1 is inf"),
        (lambda: metrics.rmse([1.0, None], [1.0, 1.0]), "the target of row 1 is None"),
        (lambda: metrics.mae([[1.0]], [1.0]), "not one number"),  # type: ignore[list-item]
        (lambda: metrics.mae_pessimistic([1.0], [None], math.nan), "training median"),
        (lambda: metrics.accuracy(["a", None], ["a", "a"], AB), "the target of row 1 is None"),
        (lambda: metrics.accuracy(["a"], ["x"], AB), "the answer of row 0 is 'x'"),
        (lambda: metrics.roc_auc(["a", "b"], [{"a": 1.0}, {"a": 0.0}], AB), "lacks the probability of 'b'"),
        (lambda: metrics.roc_auc(["a", "b"], [{"a": 1.0, "b": math.nan}] * 2, AB), "is nan"),
        (lambda: metrics.roc_auc(["a", "b"], [{"a": 1.0, "b": 0.0}], AB), "2 targets but 1 probabilities"),
        (lambda: metrics.roc_auc(["a", "a"], [{"a": 1.0, "b": 0.0}] * 2, AB), "none is b"),
        (lambda: metrics.roc_auc(["a", "b"], [{"a": 1.0, "b": 0.0}] * 2, AB, positive="c"), "positive label 'c'"),
        (lambda: metrics.over_folds([]), "no folds"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


def test_over_folds() -> None:
    folds = [
        metrics.score_regression([0.0], [1.0], training_median=0.0),
        metrics.score_regression([0.0], [3.0], training_median=0.0),
        metrics.score_regression([0.0], [None], training_median=4.0),
    ]
    means = metrics.over_folds(folds)
    assert (means["mae"].mean, means["mae"].std, means["mae"].folds) == (2.0, 1.0, 2)
    assert means["mae_pessimistic"].mean == pytest.approx(8 / 3)
    assert means["mae_pessimistic"].folds == 3
    assert set(means) == {"mae", "rmse", "mae_pessimistic"}
    with pytest.raises(ValueError, match="cannot be averaged together"):
        metrics.over_folds([folds[0], metrics.score_classification(["a"], ["a"], AB)])


def test_scores_survive_json() -> None:
    score = metrics.score_regression([0.0, 1.0], [1.0, None], training_median=0.0)
    assert metrics.RegressionScore.model_validate_json(score.model_dump_json()) == score
