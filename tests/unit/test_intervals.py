"""Intervals cover what they promise, hold their value, stay in bounds, and say when they cannot."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.intervals import FLOOR, MINIMUM, Calibration, calibrate, report
from matdarwin.tasks.schema import Task

SHARED = {
    "version": 1,
    "title": "t",
    "property": "p",
    "quantities": ["q"],
    "representation": "composition",
    "wordings": ["{material}"],
    "source": {"kind": "file", "name": "x.csv", "sha256": "0" * 64},
    "reader": {"material": "m", "target": "t"},
    "licence": "MIT",
    "citation": "ours",
    "description": "d",
}
GAP = Task.model_validate(
    {**SHARED, "id": "gap", "kind": "regression", "unit": "eV", "bounds": [0, 12], "decimals": 2, "metric": "mae"}
)
METAL = Task.model_validate(
    {**SHARED, "id": "metal", "kind": "classification", "labels": ["yes", "no"], "metric": "accuracy"}
)


@dataclass(frozen=True)
class Answer:
    """A distribution by its two numbers."""

    centre: float
    sigma: float

    def median(self) -> float:
        return self.centre

    def spread(self) -> float:
        return self.sigma


def tenths(n: int, beta: float = 1.0) -> Calibration:
    """A calibration whose scores are 0.1, 0.2, ... n/10 (spread 0, beta 1)."""
    return calibrate(GAP, [Answer(1.0, 0.0)] * n, [1.0 + i / 10 for i in range(1, n + 1)], beta=beta)


def test_rank_by_hand() -> None:
    made = tenths(39)
    # 39 scores: rank ceil(40 x 0.9) = 36, ceil(40 x 0.5) = 20, ceil(40 x 0.51) = 21.
    for coverage, score in ((0.9, 3.6), (0.5, 2.0), (0.51, 2.1), (0.975, 3.9)):
        assert made.quantile(coverage) == pytest.approx(score)
    assert made.interval(Answer(6.0, 0.5), 0.5) == pytest.approx((3.0, 9.0))


@pytest.mark.parametrize("n", [30, 39, 49, 99, 199, 999])
@pytest.mark.parametrize("coverage", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_rank_is_that_of_the_theory_whatever_the_rounding_of_floats(n: int, coverage: float) -> None:
    scores = tuple(float(i) for i in range(1, n + 1))
    made = Calibration(task="gap", status="calibrated", n=n, beta=1.0, bounds=(0, 12), decimals=2, scores=scores)
    rank = math.ceil(round((n + 1) * coverage, 9))
    assert made.quantile(coverage) == (rank if rank <= n else math.inf)


def test_more_coverage_than_scores_allow_gives_the_bounds() -> None:
    made = tenths(39)
    assert made.interval(Answer(6.0, 0.5), 0.98) == (0.0, 12.0)
    assert made.quantile(0.98) == math.inf


def test_too_few_scores_give_no_interval() -> None:
    assert tenths(MINIMUM).status == "calibrated"
    few = tenths(MINIMUM - 1)
    assert few.status == "uncalibrated"
    assert few.interval(Answer(1.0, 0.1), 0.5) is None
    assert calibrate(GAP, [], []).interval(Answer(1.0, 0.1), 0.9) is None
    with pytest.raises(ValueError, match="coverage"):
        few.interval(Answer(1.0, 0.1), 1.5)


def test_ends_are_rounded_outward_and_cut_at_the_bounds() -> None:
    # The interval reaches 20 scores of 0.1, beta 1: the spread 0 gives 2.0 to either side.
    made = tenths(39)
    assert made.interval(Answer(5.0, 0.0), 0.5) == (3.0, 7.0)
    # Answers have two decimals, ends three.
    assert made.interval(Answer(5.0004, 0.0), 0.5) == (3.0, 7.001)
    assert made.interval(Answer(0.3, 0.0), 0.5) == (0.0, 2.3)
    assert made.interval(Answer(12.0, 0.0), 0.5) == (10.0, 12.0)


def test_shown_value_far_from_the_median_widens_the_interval() -> None:
    made = tenths(39)
    assert made.interval(Answer(5.0, 0.0), 0.5, value=8.123) == (3.0, 8.123)
    assert made.interval(Answer(5.0, 0.0), 0.5, value=4.0) == (3.0, 7.0)


def test_default_floor_is_a_share_of_the_mean_spread_and_at_least_one_step() -> None:
    assert calibrate(GAP, [Answer(1.0, 0.2), Answer(1.0, 0.6)], [1.0, 1.0]).beta == pytest.approx(FLOOR * 0.4)
    assert calibrate(GAP, [Answer(1.0, 0.0)] * 40, [1.0] * 40).beta == pytest.approx(0.01)


def test_one_score_a_key_and_unread_rows_counted() -> None:
    answers: list[Answer | None] = [Answer(1.0, 0.0), Answer(1.0, 0.0), Answer(1.0, 0.0), None]
    made = calibrate(GAP, answers, [1.0, 2.0, 4.0, 5.0], keys=["x", "x", "y", "z"], beta=1.0)
    assert (made.n, made.repeats, made.unread) == (2, 1, 1)
    assert made.scores[1] == 3.0
    assert made.scores[0] in (0.0, 1.0)
    again = calibrate(GAP, answers, [1.0, 2.0, 4.0, 5.0], keys=["x", "x", "y", "z"], beta=1.0)
    assert again == made
    drawn = {
        calibrate(GAP, answers, [1.0, 2.0, 4.0, 5.0], keys=["x", "x", "y", "z"], beta=1.0, seed=s).scores[0]
        for s in range(20)
    }
    assert drawn == {0.0, 1.0}, "which row of a key gives the score must depend on the draw alone"


def test_json_round_trip() -> None:
    made = tenths(40)
    again = Calibration.model_validate_json(made.model_dump_json())
    assert again == made
    assert again.interval(Answer(2.0, 0.3), 0.8) == made.interval(Answer(2.0, 0.3), 0.8)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 3},
        {"scores": [2.0, 1.0] * 20},
        {"scores": [-1.0] * 40},
        {"scores": [math.nan] * 40},
        {"status": "uncalibrated"},
        {"method": "another"},
        {"beta": 0.0},
        {"bounds": [1.0, 1.0]},
        {"surplus": 1},
    ],
)
def test_a_damaged_calibration_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate({**tenths(40).model_dump(), **change})


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 1.1, math.nan, True, "0.9"])
def test_coverage_out_of_range_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1"):
        tenths(40).interval(Answer(1.0, 0.1), coverage)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="classification"):
        calibrate(METAL, [], [])
    with pytest.raises(ValueError, match="1 distributions, 2 targets"):
        calibrate(GAP, [Answer(1.0, 0.0)], [1.0, 2.0])
    with pytest.raises(ValueError, match="0 keys"):
        calibrate(GAP, [Answer(1.0, 0.0)], [1.0], keys=[])
    with pytest.raises(ValueError, match="target of row 0 is nan"):
        calibrate(GAP, [Answer(1.0, 0.0)], [math.nan])
    with pytest.raises(ValueError, match="beta"):
        calibrate(GAP, [], [], beta=0.0)
    with pytest.raises(ValueError, match="spread of at least 0"):
        calibrate(GAP, [Answer(1.0, -1.0)], [1.0])
    with pytest.raises(ValueError, match="the median 13"):
        tenths(40).interval(Answer(13.0, 0.1), 0.9)
    with pytest.raises(ValueError, match="the value -1"):
        tenths(40).interval(Answer(1.0, 0.1), 0.9, value=-1.0)


scores = st.lists(st.floats(0, 50), min_size=MINIMUM, max_size=60)
coverages = st.floats(0.01, 0.99)


@settings(deadline=None)
@given(
    scores=scores,
    centre=st.floats(0, 12),
    sigma=st.floats(0, 5),
    beta=st.floats(1e-3, 1),
    pair=st.tuples(coverages, coverages),
)
def test_holds_the_value_stays_in_bounds_and_grows_with_coverage(
    scores: list[float], centre: float, sigma: float, beta: float, pair: tuple[float, float]
) -> None:
    made = Calibration(
        task="gap",
        status="calibrated",
        n=len(scores),
        beta=beta,
        bounds=(0, 12),
        decimals=2,
        scores=tuple(sorted(scores)),
    )
    ends = [ends for coverage in sorted(pair) if (ends := made.interval(Answer(centre, sigma), coverage)) is not None]
    assert len(ends) == 2
    for lower, upper in ends:
        assert 0 <= lower <= centre <= upper <= 12
        for end in (lower, upper):
            assert end == centre or end == pytest.approx(round(end, 2), abs=1e-12)
    assert ends[1][0] <= ends[0][0] and ends[0][1] <= ends[1][1]


def zero_inflated(rng: np.random.Generator, n: int) -> tuple[list[AnswerDistribution], list[float]]:
    """Answers of a model that is too sure of zero and too narrow elsewhere, and what was true."""
    values = np.arange(0, 12.005, 0.05)
    answers, targets = [], []
    for _ in range(n):
        zero, centre, width = rng.beta(0.4, 0.4), rng.gamma(2.0, 1.2), 0.05 + 0.3 * rng.gamma(1.5)
        p = np.exp(-np.abs(values - centre) / width)
        p *= (1 - zero) / p.sum()
        p[0] += zero
        answers.append(AnswerDistribution(values, (), p / p.sum(), 0.0, 0.0))
        true_zero = rng.random() < 0.12 + 0.76 * zero
        targets.append(0.0 if true_zero else round(float(np.clip(centre + rng.laplace() * width * 1.6, 0, 12)), 2))
    return answers, targets


def smooth(rng: np.random.Generator, n: int) -> tuple[list[Answer], list[float]]:
    """Answers whose spread tells the error rightly, far from the bounds."""
    sigma = rng.uniform(0.05, 0.6, n)
    return [Answer(6.0, s) for s in sigma], list(6.0 + rng.normal(size=n) * sigma)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
@pytest.mark.parametrize("world", [zero_inflated, smooth])
def test_coverage_on_exchangeable_rows(world: object, coverage: float) -> None:
    # Averaged over the draw of the calibration rows: a single calibration of 100 may miss by chance.
    rng = np.random.default_rng(5)
    rounds, tested = 60, 100
    targets, intervals = [], []
    for _ in range(rounds):
        answers, truth = world(rng, 99 + tested)  # type: ignore[operator]
        made = calibrate(GAP, answers[:99], truth[:99])
        targets += truth[99:]
        intervals += [made.interval(answer, coverage) for answer in answers[99:]]
    found = report(targets, intervals)
    # Spread of the rounds' coverage (beta law of 99 scores) and of the rows within a round, together.
    error = math.sqrt(coverage * (1 - coverage) * (1 / 101 + 1 / tested) / rounds)
    assert found.coverage is not None and found.width is not None
    assert coverage - 3 * error <= found.coverage <= coverage + 0.01 + 3 * error
    assert found.width < 6, "half of the bounds would be no knowledge"


def test_spread_makes_narrow_intervals_where_the_model_is_sure() -> None:
    answers, truth = smooth(np.random.default_rng(0), 200)
    made = calibrate(GAP, answers, truth)
    sure, unsure = made.interval(Answer(6.0, 0.05), 0.9), made.interval(Answer(6.0, 0.6), 0.9)
    assert sure is not None and unsure is not None
    assert (unsure[1] - unsure[0]) > 2 * (sure[1] - sure[0])


def test_report() -> None:
    found = report([0.0, 0.0, 1.0, 2.0], [(0.0, 0.2), (0.1, 0.3), (0.5, 1.5), None])
    assert found.coverage == pytest.approx(2 / 3)
    assert found.width == pytest.approx(1.4 / 3)
    assert (found.without_interval, found.rows) == (1, 4)
    nothing = report([1.0], [None])
    assert (nothing.coverage, nothing.width, nothing.without_interval) == (None, None, 1)
    with pytest.raises(ValueError, match="ends must be finite and rise"):
        report([1.0], [(2.0, 1.0)])
    with pytest.raises(ValueError, match="1 targets, 2 intervals"):
        report([1.0], [None, None])
    with pytest.raises(ValueError, match="no rows"):
        report([], [])


def test_import_is_light() -> None:
    code = "import sys, matdarwin.prediction.intervals; print([m for m in ('crepes', 'sklearn', 'pandas', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
