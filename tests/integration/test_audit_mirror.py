"""The leak audit on the real data: what crosses in the published run, and what the rule leaves of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from matdarwin.data.audit import Audit, totals
from matdarwin.training.audit import audit_recipe
from matdarwin.training.recipe_files import build_recipe, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
pytestmark = pytest.mark.mirror


@pytest.fixture(autouse=True)
def _real(mirror: Path) -> None:
    """Every test of this file needs the mirror."""


def audited(name: str) -> Audit:
    return audit_recipe(load_recipe(RECIPES / f"{name}.yaml"))


def test_the_published_run_is_leaky_by_the_known_shares() -> None:
    found = audited("darwin-matbench")
    assert found.verdict == "LEAKY" and found.folds == (0, 1, 2, 3, 4)
    sums = {(total["task"], total["train_task"]): total for total in totals(found.pairs)}
    counted = {pair: (t["found"], t["test_rows"], t["labels_compared"], t["labels_agree"]) for pair, t in sums.items()}
    assert counted == {
        ("expt_gap", "expt_gap"): (4, 4604, 4, 0),
        ("expt_gap", "expt_is_metal"): (3761, 4604, 3761, 3760),
        ("expt_is_metal", "expt_gap"): (3760, 4921, 3760, 3759),
        ("expt_is_metal", "expt_is_metal"): (8, 4921, 8, 6),
        ("glass", "glass"): (0, 5680, 0, 0),
        ("steels_yield", "steels_yield"): (0, 312, 0, 0),
    }
    assert round(sums["expt_gap", "expt_is_metal"]["share"], 3) == 0.817
    assert round(sums["expt_is_metal", "expt_gap"]["share"], 3) == 0.764
    # The one whose labels disagree: Cu9S5, spelt in two ways that the board gives two values.
    gap = [pair for pair in found.pairs if (pair.task, pair.train_task) == ("expt_gap", "expt_is_metal")]
    assert [hit.material for pair in gap for hit in pair.examples if hit.agree is False] == ["Cu9S5"]
    assert all(cost.removed == 0 for cost in found.cost)


def test_its_clean_twin_costs_a_fifth_of_two_tasks() -> None:
    found = audited("darwin-matbench-clean")
    assert found.verdict == "CLEAN" and found.faults == ()
    assert all(pair.found == 0 for pair in found.pairs)
    removed = {task: sum(cost.removed for cost in found.cost if cost.task == task) for task in found.tasks}
    assert removed == {"expt_gap": 3765, "expt_is_metal": 3766, "glass": 0, "steels_yield": 0}
    for cost in found.cost:
        if cost.removed:
            assert 0.18 < cost.share < 0.22
        kept = cost.training_rows - cost.removed
        if cost.task == "expt_gap":
            assert kept in range(2915, 2943)
        if cost.task == "expt_is_metal":
            assert kept in range(3175, 3194)


def test_computed_gaps_stay_knowledge() -> None:
    """They tell most metals from the rest, as what is computed well does, and are no copy of what is measured."""
    before = [{"name": "knowledge", "tasks": ["pbe_gap_mp", "pbe_gap_oqmd", "pbe_gap_aflow"]}]
    found = audit_recipe(
        build_recipe({"name": "x", "tasks": ["expt_gap", "expt_is_metal"], "before": before}), folds=[0]
    )
    agree = {(pair.task, pair.train_task): pair.kappa or 0.0 for pair in found.knowledge}
    assert 0.75 < agree["expt_is_metal", "pbe_gap_mp"] == max(agree.values()) < 0.85
    assert found.verdict == "CLEAN" and not found.twins


def test_most_steels_have_a_near_duplicate_in_training() -> None:
    found = audited("darwin-matbench-clean")
    sums = {task: sum(one.found for one in found.near if one.task == task) for task in found.tasks}
    assert sums == {"expt_gap": 103, "expt_is_metal": 132, "glass": 351, "steels_yield": 216}
