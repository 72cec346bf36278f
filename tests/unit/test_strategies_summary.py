"""The arithmetic of the strategy comparison on made-up units, its figure and its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matdarwin.evaluation import results
from matdarwin.evaluation.metrics import ClassificationScore, RegressionScore
from matdarwin.studies import strategies_table
from matdarwin.studies.scores import ResultsError
from matdarwin.studies.strategies_figure import draw
from matdarwin.studies.strategies_summary import Summary, read_summary, read_units, summarise, write_summary
from matdarwin.studies.strategies_units import (
    REDUCED,
    RIVALS,
    Scored,
    Size,
    TaskResult,
    Unit,
    UnitResult,
    limits,
)

KINDS = {"metal": "classification", "phase": "classification", "gap": "regression", "energy": "regression"}
TASKS = list(KINDS)


def scored(task: str, value: float, unread: int = 0) -> Scored:
    score: Any
    if KINDS[task] == "classification":
        score = ClassificationScore(rows=50, unread=unread, accuracy=0.5, balanced_accuracy=0.5, macro_f1=value)
    else:
        score = RegressionScore(rows=50, unread=unread, mae=value, rmse=value, mae_pessimistic=value)
    return Scored(value=value, score=score, seconds=1.0)


def unit(
    strategy: str, values: dict[str, float], *, size: Size = REDUCED, train: int = 300, unread: int = 0
) -> UnitResult:
    """A finished unit; of the rivals the values are those of the dummy, and the trees are a tenth better."""
    tasks = {}
    for task, value in values.items():
        models = {strategy.replace("-", "_"): scored(task, value, unread)}
        if strategy == RIVALS:
            better = 1.1 if KINDS[task] == "classification" else 0.9
            models = {"dummy": scored(task, value), "extra_trees_median": scored(task, value * better)}
        metric = "macro_f1" if KINDS[task] == "classification" else "mae"
        tasks[task] = TaskResult(kind=KINDS[task], metric=metric, rows={"train": train, "test": 50}, models=models)
    return UnitResult(
        strategy=strategy, size=limits(size), hash="0", tasks=tasks, machine={"cpu": "abacus", "cores": 2},
        finished="2026-01-01T00:00:00+00:00", seconds=60.0, commit="abc",
        training={} if strategy == RIVALS else {"seconds_training": 1000.0},
    )  # fmt: skip


BASE = {"metal": 0.8, "phase": 0.5, "gap": 0.4, "energy": 2.0}


def both(strategy: str, values: dict[str, float]) -> list[UnitResult]:
    return [unit(strategy, {task: value}) for task, value in values.items()]


@pytest.fixture
def whole() -> list[UnitResult]:
    return [
        *both(RIVALS, {"metal": 0.4, "phase": 0.5, "gap": 0.5, "energy": 1.5}),
        *both("base-st", BASE),
        unit("qa-mt", {"metal": 0.88, "phase": 0.5, "gap": 0.3, "energy": 2.2}),
        *both("random-st", {"metal": 0.4, "phase": 0.45, "gap": 0.8, "energy": 2.4}),
    ]


def test_averages_are_means_of_the_changes_of_tasks(whole: list[UnitResult]) -> None:
    found = summarise(whole, KINDS)
    # +10 % and 0 %; -25 % and +10 %.
    assert found.classification_percent["qa_mt"] == pytest.approx(5.0)
    assert found.regression_percent["qa_mt"] == pytest.approx(-7.5)
    assert found.classification_percent["random_st"] == pytest.approx((-50 - 10) / 2)
    assert found.regression_percent["random_st"] == pytest.approx((100 + 20) / 2)
    assert found.tasks["gap"].change_percent["qa_mt"] == pytest.approx(-25.0)
    average = found.averages["qa_mt"]["regression"]
    assert (average.better, average.tasks, average.of) == (1, 2, 2)
    # Half of the distance of two numbers is the standard error of their mean.
    assert average.standard_error == pytest.approx(17.5)
    # Two tasks a kind, of which one is as good as before: nothing is settled.
    assert set(found.signs.values()) == {None}


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ([-12.0, -11.0, -13.0], True),
        ([12.0, 11.0, 13.0], False),
        ([-12.0, -11.0], None),  # one task is not in
        ([-90.0, 5.0, 6.0], None),  # the mean is one task's
        ([-9.0, -1.0, 4.0], None),  # within two standard errors
    ],
)
def test_a_sign_is_settled_by_all_tasks_and_not_by_one(changes: list[float], seen: bool | None) -> None:
    names = ["gap", "energy", "third"]
    kinds = {"third": "regression"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.KINDS", KINDS | kinds)
        units = both("base-st", dict.fromkeys(names, 1.0))
        units.append(unit("qa-mt", {n: 1 + change / 100 for n, change in zip(names, changes, strict=False)}))
        found = summarise(units, dict.fromkeys(names, "regression"))
    assert found.signs["qa_mt_better_at_regression"] is seen
    assert found.signs["qa_mt_better_at_classification"] is None


def test_tasks_of_which_nothing_is_in_count_among_all() -> None:
    """A comparison that has run on half of the tasks has settled nothing, however sure that half is."""
    some = {"metal": 1.0, "phase": 1.0, "gap": 1.0, "energy": 1.0}
    units = [*both("base-st", some), *both("random-st", {"metal": 0.8, "phase": 0.81, "gap": 1.4, "energy": 1.41})]
    assert summarise(units, KINDS).signs["pretrained_far_above_random"] is True
    found = summarise(units, {**KINDS, "fourth": "regression"})
    assert found.signs["pretrained_far_above_random"] is None
    assert (found.averages["random_st"]["regression"].tasks, found.averages["random_st"]["regression"].of) == (2, 3)
    assert found.missing["base_st"] == ["fourth"]


def test_random_weights_are_far_below_only_beyond_the_bound() -> None:
    def far(metal: float, phase: float, gap: float, energy: float) -> bool | None:
        values = {"metal": metal, "phase": phase, "gap": gap, "energy": energy}
        return summarise([*both("base-st", dict.fromkeys(TASKS, 1.0)), *both("random-st", values)], KINDS).signs[
            "pretrained_far_above_random"
        ]

    assert far(0.8, 0.81, 1.4, 1.41) is True
    assert far(0.98, 0.97, 1.4, 1.41) is False, "classes are not worse enough"
    assert far(0.8, 0.81, 1.0, 6.0) is None, "one task carries the mean"


def test_what_is_not_in_is_missing_and_not_zero(whole: list[UnitResult]) -> None:
    found = summarise([one for one in whole if one.strategy != "base-st" or "gap" not in one.tasks], KINDS)
    assert found.missing["base_st"] == ["gap"] and found.missing["base_mt"] == TASKS and not found.complete
    assert found.classification_percent["base_mt"] is None and found.averages["base_mt"]["regression"].tasks == 0
    # The average is over the tasks that both have.
    assert found.regression_percent["qa_mt"] == pytest.approx(10.0)
    assert found.signs["qa_mt_better_at_regression"] is None
    assert "qa_mt" not in found.tasks["gap"].change_percent and found.tasks["gap"].scores["qa_mt"] == 0.3
    nothing = summarise([], KINDS)
    assert nothing.tasks == {} and set(nothing.signs.values()) == {None}
    assert nothing.missing.keys() >= {"base_st", "know_mt", RIVALS}


def test_no_better_than_the_dummy_means_as_good_or_worse(whole: list[UnitResult]) -> None:
    found = summarise(whole, KINDS).no_better_than_dummy
    assert found["base_st"] == ["phase", "energy"], "0.5 is as good as the dummy; an error of 2.0 is worse than 1.5"
    assert found["qa_mt"] == ["phase", "energy"] and found["random_st"] == ["metal", "phase", "gap", "energy"]
    assert found["base_mt"] == [], "what is not in is not said to be bad"


def test_a_base_of_nothing_has_no_change() -> None:
    found = summarise([unit("base-st", {"metal": 0.0}), unit("qa-st", {"metal": 0.3})], {"metal": "classification"})
    assert found.tasks["metal"].change_percent == {} and found.classification_percent["qa_st"] is None


def test_unread_rows_are_told() -> None:
    found = summarise([unit("base-st", {"gap": 0.3}, unread=7)], {"gap": "regression"})
    assert found.tasks["gap"].unread == {"base_st": 7}


def test_what_cannot_be_compared_is_refused() -> None:
    other = Size("other", rows=5, test_rows=5, examples=5, batch_size=5, folder=Path("x"))
    with pytest.raises(ResultsError, match="different limits"):
        summarise([unit("base-st", {"gap": 0.3}), unit("qa-st", {"gap": 0.3}, size=other)], {"gap": "regression"})
    with pytest.raises(ResultsError, match="gap: qa-st was taught and tested on other rows"):
        summarise([unit("base-st", {"gap": 0.3}), unit("qa-st", {"gap": 0.3}, train=9)], {"gap": "regression"})


def test_summary_goes_to_a_file_and_back(whole: list[UnitResult], tmp_path: Path) -> None:
    for one in whole:
        name = Unit(one.strategy, None if len(one.tasks) > 1 else next(iter(one.tasks)))
        results.write(one, tmp_path / "units" / f"{name.id}.json")
    made = summarise(read_units(tmp_path), KINDS)
    write_summary(made, tmp_path)
    assert read_summary(tmp_path) == made
    assert '"know_mt": null' in (tmp_path / "summary.json").read_text(), "what is not known is null, not absent"
    assert read_summary(tmp_path / "elsewhere") is None
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"strategies summary"):
        read_summary(tmp_path)
    (tmp_path / "units" / "base-st.gap.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"base-st\.gap\.json is no unit"):
        read_units(tmp_path)


def drawn(summary: Summary, path: Path) -> bytes:
    return draw(summary, path).read_bytes()


def test_figure_from_whatever_is_in(whole: list[UnitResult], tmp_path: Path, home: Path) -> None:
    for number, units in enumerate(([], whole[:5], whole)):
        picture = drawn(summarise(units, KINDS), tmp_path / f"{number}.png")
        assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    assert drawn(summarise(whole, KINDS), tmp_path / "again.png") == picture


def test_table_says_what_the_summary_says(whole: list[UnitResult], tmp_path: Path) -> None:
    write_summary(summarise(whole, KINDS), tmp_path / "strategies")
    text = strategies_table.sections(tmp_path)
    assert text is not None and text.startswith("## Strategies, reduced size")
    line = next(line for line in text.splitlines() if line.startswith("| QA-MT |"))
    assert (
        "| +5.00 ± 5.00 % | +5.00 % | 1 | 2 of 2 | +3.38 % |" in line
        and "-7.50 ± 17.50 %" in line
        and "+3.38 %" in line
        and "-11.79 %" in line
    )
    gap = next(line for line in text.splitlines() if line.startswith("| gap |"))
    cells = [cell.strip() for cell in gap.strip("|").split("|")]
    assert cells[4:8] == ["0.500", "0.450", "0.400", "-"], "dummy, best rival, Base-ST, and Base-MT that is not in"
    assert "scores are not in yet" in text and text.count("**not settled**") == 3
    assert "Base-ST: phase, energy; " in text and "(../results/strategies/figure2.png)" in text
    assert strategies_table.sections(tmp_path / "elsewhere") is None


def test_time_is_that_of_all_starts_and_none_of_an_earlier_stage(whole: list[UnitResult]) -> None:
    # Of a unit its 1,000 s of training and 1 s for each task that is scored, whatever its last start took; rivals as fitted.
    assert summarise(whole, KINDS).seconds == {
        "base-st": 4 * 1001.0, "qa-mt": 1004.0, "random-st": 4 * 1001.0, RIVALS: 4 * 60.0,
    }  # fmt: skip
