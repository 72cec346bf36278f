"""The real data: counts, official folds, the known leak, and what the removal rule costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from matdarwin.data.cards import card
from matdarwin.data.folds import assign
from matdarwin.data.leakage import check, split
from matdarwin.data.readers import read
from matdarwin.data.sources import DataError, fetch, verify
from matdarwin.tasks.registry import load

BOARD = ["expt_gap", "expt_is_metal", "glass", "steels_yield"]


@pytest.fixture(autouse=True)
def _real(mirror: Path) -> None:
    """Every test of this file needs the mirror."""


pytestmark = pytest.mark.mirror


@pytest.mark.parametrize(
    ("name", "rows", "materials", "folds"),
    [
        ("expt_gap", 4604, 4601, [921, 921, 921, 921, 920]),
        ("expt_is_metal", 4921, 4917, [985, 984, 984, 984, 984]),
        ("glass", 5680, 5680, [1136] * 5),
        ("steels_yield", 312, 312, [63, 63, 62, 62, 62]),
        ("esol", 1128, 1117, [226, 226, 226, 225, 225]),
    ],
)
def test_every_row_is_read_and_stands_in_a_fold(name: str, rows: int, materials: int, folds: list[int]) -> None:
    found = card(load(name))
    assert (found["rows"], found["rows_read"], found["rejected"]) == (rows, rows, {})
    assert (found["materials"], found["folds"], found["missing"]) == (materials, folds, None)


def test_classes_have_the_published_counts() -> None:
    assert card(load("expt_is_metal"))["targets"] == {"metal": 2451, "not metal": 2470}
    assert card(load("glass"))["targets"] == {"yes": 4035, "no": 1645}


def test_rows_carry_their_matbench_id() -> None:
    first = read(load("expt_gap")).examples[0]
    assert (first.row, first.material.given, first.target, first.fold) == ("mb-expt-gap-0001", "Ag(AuS)2", 0.0, 2)


def test_all_sources_of_the_mirror_have_their_checksums(mirror: Path) -> None:
    rows = verify([load(name) for name in [*BOARD, "esol"]])
    assert [row.status for row in rows] == ["ok"] * 5
    assert all(row.path is not None and Path(row.path).is_relative_to(mirror) for row in rows)


def test_a_pinned_checksum_that_differs_is_an_error() -> None:
    source = load("glass").source.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DataError, match=r"wrong checksum"):
        fetch(source)


def test_the_rule_costs_what_it_should_and_leaves_no_leak() -> None:
    kept = []
    for fold in range(5):
        done = split([load("expt_gap"), load("expt_is_metal")], fold)
        assert check(done) == []
        assert len(done.test["expt_gap"]) + len(done.test["expt_is_metal"]) in (1906, 1905, 1904)
        kept.append((done.kept["expt_gap"], done.kept["expt_is_metal"]))
    assert kept == [(2915, 3181), (2941, 3193), (2942, 3181), (2934, 3175), (2919, 3188)]


def test_with_aligned_folds_nearly_nothing_is_removed_and_single_equals_multi() -> None:
    tasks = [load("expt_gap"), load("expt_is_metal")]
    for fold in range(5):
        both, alone = split(tasks, fold, folds="aligned"), split(tasks[:1], fold)
        assert check(both) == []
        for part in ("train", "validation", "calibration", "test"):
            assert getattr(both, part)["expt_gap"] == getattr(alone, part)["expt_gap"]
        lost = sum(count for reason, count in both.removed.items() if "test fold" in reason)
        assert lost <= 3  # compositions that the official folds hold twice


def test_small_tasks_keep_fifty_for_calibration() -> None:
    for fold in range(5):
        done = split([load("steels_yield")], fold)
        assert len(done.calibration["steels_yield"]) == 50
        assert 10 <= len(done.validation["steels_yield"]) <= 35


def test_stereo_variants_and_repeats_of_one_molecule_share_a_fold() -> None:
    folds: dict[str, set[int | None]] = {}
    for one in assign(read(load("esol"))):
        for key in one.material.keys:
            folds.setdefault(key, set()).add(one.fold)
    assert all(len(found) == 1 for found in folds.values())


@pytest.mark.slow
def test_zhuos_sets_come_from_the_package_index_and_obey_the_board(network: None, home: Path) -> None:
    names = ["zhuo_gap", "zhuo_is_metal"]
    cards = [card(load(name)) for name in names]
    assert [found["rows"] for found in cards] == [None, None]
    assert len(read(load("zhuo_gap")).examples) == 3896 and len(read(load("zhuo_is_metal")).examples) == 4916
    done = split([load(name) for name in ["expt_gap", *names]], 0)
    assert check(done) == []
    assert done.removed["zhuo_gap: key in the test fold of expt_gap"] > 400
