"""No material crosses between the parts of a split, over all tasks of one quantity."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import in_place_of_files

from matdarwin.data.leakage import Split, check, clusters, merge, split, tied
from matdarwin.data.sources import DataError
from matdarwin.materials.material import Material
from matdarwin.tasks.registry import load
from matdarwin.tasks.schema import Example, Task

GAP, METAL, GLASS, STEEL, AUX = (
    load(name) for name in ("expt_gap", "expt_is_metal", "glass", "steels_yield", "zhuo_gap")
)
Rows = dict[str, list[Example]]


def example(task: Task, row: int, key: str, target: Any, *others: str, fold: int | None = None, **more: Any) -> Example:
    material = Material("composition", key, (key,), (key,), key, (key, *others), ())
    return Example(task=task.id, row=str(row), material=material, target=target, fold=fold, **more)


def world(seed: int, size: int = 200) -> Rows:
    """Tasks that share most keys, with repeats, alternative keys and folds of their own."""
    rng = random.Random(seed)

    def rows(task: Task, prefix: str) -> list[Example]:
        found = []
        for row in range(size):
            key = f"{prefix}{rng.randrange(size)}"
            others = (f"{prefix}{rng.randrange(size)}",) if rng.random() < 0.05 else ()
            target: Any = rng.choice(task.labels) if task.labels else round(rng.uniform(0, 10), 2)
            found.append(example(task, row, key, target, *others, fold=rng.randrange(5) if task.scored else None))
        return found

    return {
        GAP.id: rows(GAP, "g"),
        METAL.id: rows(METAL, "g"),
        AUX.id: rows(AUX, "g"),
        GLASS.id: rows(GLASS, "a"),
        STEEL.id: rows(STEEL, "s"),
    }


def keys(examples: list[Example]) -> set[str]:
    return {key for one in examples for key in one.material.keys}


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    chosen=st.lists(st.sampled_from([GAP, METAL, AUX, GLASS, STEEL]), min_size=1, unique_by=lambda task: task.id),
    fold=st.one_of(st.none(), st.integers(0, 4)),
    scheme=st.sampled_from(["official", "aligned", "seeded"]),
)
def test_no_key_crosses(seed: int, chosen: list[Task], fold: int | None, scheme: Any) -> None:
    with in_place_of_files(world(seed)):
        done = split(chosen, fold, seed=seed, folds=scheme)
    assert check(done) == []
    # Said again without the code under test: all that share a quantity, part against part.
    for one in chosen:
        for other in chosen:
            if not set(one.quantities) & set(other.quantities):
                continue
            for a, b in (
                ("train", "validation"),
                ("train", "calibration"),
                ("train", "test"),
                ("validation", "calibration"),
                ("validation", "test"),
                ("calibration", "test"),
            ):
                assert keys(getattr(done, a)[one.id]).isdisjoint(keys(getattr(done, b).get(other.id, [])))


def materials(rows: Rows, tasks: list[Task]) -> list[set[str]]:
    """Keys that some row joins, directly or through others; by hand: sets that meet become one until none do."""
    found: list[set[str]] = []
    for task in tasks:
        for one in rows[task.id]:
            new = set(one.material.keys)
            for old in [old for old in found if old & new]:
                found.remove(old)
                new |= old
            found.append(new)
    return found


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    chosen=st.lists(st.sampled_from([GAP, METAL, AUX]), min_size=1, unique_by=lambda task: task.id),
    fold=st.integers(0, 4),
    scheme=st.sampled_from(["official", "aligned", "seeded"]),
)
def test_no_material_crosses_even_through_rows_that_were_taken_away(
    seed: int, chosen: list[Task], fold: int, scheme: Any
) -> None:
    rows = world(seed, 60)
    with in_place_of_files(rows):
        done = split(chosen, fold, seed=seed, folds=scheme)
    parts = [
        {key for task in chosen for one in part.get(task.id, []) for key in one.material.keys}
        for part in (done.train, done.validation, done.calibration, done.test)
    ]
    for material in materials(rows, chosen):
        assert sum(not part.isdisjoint(material) for part in parts) <= 1


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_keys_are_tied_as_rows_join_them_and_nothing_else_changes(seed: int) -> None:
    rows, tasks = world(seed, 60), [GAP, METAL, AUX]
    done = tied(tasks, rows)
    assert list(done) == [task.id for task in tasks]
    whole = {key: material for material in materials(rows, tasks) for key in material}
    for task in tasks:
        for one, before in zip(done[task.id], rows[task.id], strict=True):
            assert set(one.material.keys) == whole[before.material.key]
            assert replace(one, material=before.material) == before
    assert tied(tasks, done) == done
    plain = {task.id: [replace(one, material=replace(one.material, keys=(one.material.key,))) for one in rows[task.id]] for task in tasks}  # fmt: skip
    assert tied(tasks, plain) == plain


def test_a_row_that_joins_two_keys_ties_them_in_other_tasks() -> None:
    named = METAL.model_copy(update={"id": "named"})
    rows = {
        GAP.id: [example(GAP, 0, "formula", 1.0, fold=0), example(GAP, 1, "free", 1.0, fold=1)],
        # The row that joins the name to the formula goes, and so must the one that has the name alone.
        named.id: [example(named, 0, "name", "metal", "formula", fold=1), example(named, 1, "other", "metal", fold=0)],
        AUX.id: [example(AUX, 0, "name", 1.0), example(AUX, 1, "new", 1.0)],
        GLASS.id: [example(GLASS, 0, "name", "yes", fold=1), example(GLASS, 1, "g", "no", fold=0)],
    }
    rows[named.id].append(example(named, 2, "more", "metal", fold=1))
    with in_place_of_files(rows):
        done = split([GAP, named, AUX, GLASS], 0, validation=0, calibration=0)
    assert [one.material.key for one in done.train[AUX.id]] == ["new"]
    assert done.removed["zhuo_gap: key in the test fold of expt_gap"] == 1
    assert done.train[GLASS.id][0].material.keys == ("name",), "another quantity ties nothing"


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), fold=st.integers(0, 4))
def test_the_same_seed_gives_the_same_split_and_every_row_is_accounted_for(seed: int, fold: int) -> None:
    tasks = [GAP, METAL, AUX]
    rows = world(seed)
    with in_place_of_files(rows):
        one, two = split(tasks, fold, seed=seed), split(tasks, fold, seed=seed)
        read = {task.id: len(rows[task.id]) for task in tasks}
    assert one == two
    for task in tasks:
        parts = sum(len(rows.get(task.id, [])) for rows in (one.train, one.validation, one.calibration, one.test))
        gone = sum(count for reason, count in one.removed.items() if reason.startswith(f"{task.id}: "))
        assert parts + gone == read[task.id]


def test_test_rows_are_the_folds_rows_untouched_and_in_order() -> None:
    rows = world(1)
    with in_place_of_files(rows):
        done = split([GAP, METAL, AUX], 3)
    # Keys may be more, where rows join them; nothing else may differ.
    bare = [replace(one, material=replace(one.material, keys=())) for one in done.test[GAP.id]]
    assert bare == [replace(one, material=replace(one.material, keys=())) for one in rows[GAP.id] if one.fold == 3]
    for one, before in zip(done.test[GAP.id], (row for row in rows[GAP.id] if row.fold == 3), strict=True):
        assert one.material.keys[: len(before.material.keys)] == before.material.keys
    assert AUX.id not in done.test and done.targets == (GAP.id, METAL.id)


def test_a_row_is_removed_for_its_own_tasks_test_and_for_others_of_its_quantity() -> None:
    rows = {
        GAP.id: [
            example(GAP, 0, "t", 1.0, fold=0),
            example(GAP, 1, "t", 2.0, fold=1),
            example(GAP, 2, "m", 0.0, fold=1),
        ],
        METAL.id: [
            example(METAL, 0, "m", "metal", fold=0),
            example(METAL, 1, "t", "metal", fold=2),
            example(METAL, 2, "z", "metal", fold=2),
        ],
        AUX.id: [example(AUX, 0, "v", 1.0, "t"), example(AUX, 1, "w", 1.0), example(AUX, 2, "m", 1.0)],
    }
    rows[GAP.id].append(example(GAP, 3, "free", 1.0, fold=1))
    rows[STEEL.id] = [example(STEEL, 0, "t", 1.0, fold=1), example(STEEL, 1, "s", 1.0, fold=0)]
    with in_place_of_files(rows):
        done = split([GAP, METAL, AUX, STEEL], 0, validation=0, calibration=0)
    assert {task: [one.material.key for one in left] for task, left in done.train.items()} == {
        GAP.id: ["free"],
        METAL.id: ["z"],
        AUX.id: ["w"],
        STEEL.id: ["t"],  # another quantity: the same key is no leak
    }
    assert done.removed == {
        "expt_gap: key in its own test fold": 1,
        "expt_gap: key in the test fold of expt_is_metal": 1,
        "expt_is_metal: key in the test fold of expt_gap": 1,
        "zhuo_gap: key in the test fold of expt_gap": 1,
        "zhuo_gap: key in the test fold of expt_is_metal": 1,
    }


def test_a_key_falls_into_the_same_part_alone_and_with_other_tasks() -> None:
    rng = random.Random(0)
    rows = {GAP.id: [example(GAP, row, f"k{row}", 1.0, fold=row % 5) for row in range(1000)]}
    rows[METAL.id] = [
        example(METAL, row, f"k{row}", rng.choice(METAL.labels), fold=(row + 1) % 5) for row in range(1200)
    ]
    with in_place_of_files(rows):
        alone, both = split([GAP], 0, folds="aligned"), split([GAP, METAL], 0, folds="aligned")
    for part in ("train", "validation", "calibration", "test"):
        assert getattr(alone, part)[GAP.id] == getattr(both, part)[GAP.id]


@pytest.mark.parametrize(("size", "calibrated"), [(80, 0), (120, 32), (300, 50), (5000, 400)])
def test_calibration_takes_a_tenth_but_fifty_but_at_most_a_third_and_nothing_under_thirty(
    size: int, calibrated: int
) -> None:
    with in_place_of_files({STEEL.id: [example(STEEL, row, f"k{row}", 1.0, fold=row % 5) for row in range(size)]}):
        done = split([STEEL], 0)
    found = len(done.calibration[STEEL.id])
    if size == 5000:
        assert 340 < found < 460
    else:
        assert found == calibrated
    left = len(done.train[STEEL.id]) + len(done.validation[STEEL.id])
    assert done.validation[STEEL.id] and found <= (found + left) / 3


def test_rows_of_classes_are_held_back_for_calibration_only_where_numbers_of_their_material_are() -> None:
    with in_place_of_files({GLASS.id: [example(GLASS, row, f"k{row}", "yes", fold=row % 5) for row in range(300)]}):
        alone = split([GLASS], 0)
    assert not alone.calibration[GLASS.id] and len(alone.train[GLASS.id]) + len(alone.validation[GLASS.id]) == 240
    with in_place_of_files(world(5, 400)):
        both = split([GAP, METAL], 0)
    numbers = keys(both.calibration[GAP.id])
    assert numbers and all(not numbers.isdisjoint(row.material.keys) for row in both.calibration[METAL.id])
    assert numbers.isdisjoint(keys(both.train[METAL.id]))


def test_a_fold_of_none_uses_all_and_tests_nothing() -> None:
    with in_place_of_files(world(2)):
        done = split([GAP], None)
    assert done.test == {GAP.id: []} and done.kept[GAP.id] == 200


def test_auxiliary_tasks_alone_are_what_is_scored() -> None:
    with in_place_of_files(world(3)):
        done = split([AUX], 1)
    assert done.targets == (AUX.id,) and done.test[AUX.id] and done.calibration[AUX.id]


def test_auxiliary_rows_of_keys_that_no_scored_task_has_all_train() -> None:
    rows = world(4)
    rows[AUX.id] = [example(AUX, row, f"new{row}", 1.0) for row in range(300)]
    with in_place_of_files(rows):
        done = split([GAP, AUX], 0)
    assert len(done.train[AUX.id]) == 300


def test_limit_takes_a_seeded_sample_and_larger_ones_hold_smaller_ones() -> None:
    with in_place_of_files(world(5)):
        whole, ten, twenty = (split([GAP], 0, limit=limit) for limit in (None, 10, 20))
    rows = [{one.row for one in done.train[GAP.id]} for done in (ten, twenty, whole)]
    assert [len(part) for part in rows[:2]] == [10, 20] and rows[0] < rows[1] < rows[2]
    assert ten.test == whole.test and ten.calibration == whole.calibration
    assert ten.removed[f"{GAP.id}: over the limit of 10 training rows"] == len(rows[2]) - 10


def test_another_seed_draws_other_keys_but_the_same_test() -> None:
    with in_place_of_files(world(6, 400)):
        one, two = split([GAP], 0, seed=0), split([GAP], 0, seed=1)
    assert one.test == two.test and one.validation != two.validation and one.calibration != two.calibration


# Merging


def test_numbers_merge_by_their_median_with_the_spread_kept() -> None:
    rows = [example(GAP, row, "k", gap) for row, gap in enumerate((1.0, 5.0, 2.0))] + [example(GAP, 3, "other", 7.0)]
    merged = merge(GAP, rows)
    assert [(one.row, one.target, one.spread) for one in merged] == [("0", 2.0, 4.0), ("3", 7.0, 0.0)]


def test_classes_merge_by_majority_and_ties_are_dropped_and_counted() -> None:
    rows = [
        example(METAL, row, key, target)
        for row, (key, target) in enumerate(
            [("a", "metal"), ("a", "metal"), ("a", "not metal"), ("b", "metal"), ("b", "not metal")]
        )
    ]
    removed: Counter[str] = Counter()
    assert [(one.material.key, one.target) for one in merge(METAL, rows, removed)] == [("a", "metal")]
    assert removed == {
        "expt_is_metal: merged into another row of its key": 2,
        "expt_is_metal: classes of one key tie": 2,
    }


def test_conditions_tell_rows_of_one_key_apart() -> None:
    rows = [example(GAP, 0, "k", 1.0, conditions={"T": 300.0}), example(GAP, 1, "k", 2.0, conditions={"T": 400.0})]
    assert merge(GAP, rows) == rows


# Proof and audit


def broken(done: Split, source: str, target: str) -> Split:
    moved = getattr(done, source)[GAP.id][0]
    changes: dict[str, Any] = {target: {**getattr(done, target), METAL.id: [*getattr(done, target)[METAL.id], moved]}}
    return replace(done, **changes)


@pytest.mark.parametrize(
    ("source", "target"),
    [("test", "train"), ("calibration", "train"), ("validation", "calibration"), ("train", "test")],
)
def test_the_proof_fails_when_a_material_stands_in_two_parts(source: str, target: str) -> None:
    with in_place_of_files(world(7, 400)):
        done = split([GAP, METAL], 0)
    faults = check(broken(done, source, target))
    assert (
        len(faults) == 1
        and faults[0].startswith("band gap: 1 materials stand in")
        and source in faults[0]
        and target in faults[0]
    )


def test_tasks_that_share_a_quantity_through_a_third_are_one_cluster() -> None:
    def of(name: str, *quantities: str) -> Task:
        return GAP.model_copy(update={"id": name, "quantities": quantities, "leads": ()})

    tasks = [of("a", "x"), of("b", "y"), of("c", "z"), of("d", "x", "y")]
    assert [[task.id for task in cluster] for cluster in clusters(tasks)] == [["a", "b", "d"], ["c"]]


# What is refused


def test_nonsense_is_refused() -> None:
    with in_place_of_files(world(8)):
        with pytest.raises(DataError, match=r"expt_gap: has no fold 9; choose from 0, 1, 2, 3, 4"):
            split([GAP], 9)
        with pytest.raises(DataError, match=r"one or more different tasks"):
            split([GAP, GAP], 0)
        with pytest.raises(DataError, match=r"one or more different tasks"):
            split([], 0)
        with pytest.raises(DataError, match=r"leave something to train on"):
            split([GAP], 0, validation=0.6, calibration=0.5)
        with pytest.raises(DataError, match=r"limit must be 1 or more"):
            split([GAP], 0, limit=0)


def test_a_task_with_nothing_left_to_train_on_is_refused() -> None:
    rows = {GAP.id: [example(GAP, row, "k", 1.0, fold=row % 5) for row in range(10)]}
    with (
        in_place_of_files(rows),
        pytest.raises(
            DataError, match=r"expt_gap: no training row is left in fold 0; removed: .*its own test fold': 8"
        ),
    ):
        split([GAP], 0)


def test_a_merged_row_keeps_every_key_of_its_rows() -> None:
    rows = [example(GAP, 0, "k", 1.0), example(GAP, 1, "k", 2.0, "also"), example(GAP, 2, "k", 3.0, "too")]
    assert [one.material.keys for one in merge(GAP, rows)] == [("k", "also", "too")]
