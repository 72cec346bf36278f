"""The leak audit: a planted leak is always found, a clean split never flagged, and every figure is what it says."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import in_place_of_files

from matdarwin.data import agreement, leakage
from matdarwin.data import audit as auditing
from matdarwin.data.audit import Pair, audit, totals
from matdarwin.data.leakage import Split, split
from matdarwin.data.near import near, respelt
from matdarwin.materials import parse
from matdarwin.materials.material import Material
from matdarwin.tasks.registry import load
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.audit import audit_recipe
from matdarwin.training.recipe_files import build_recipe

GAP, METAL, GLASS, STEEL, AUX = (
    load(name) for name in ("expt_gap", "expt_is_metal", "glass", "steels_yield", "zhuo_gap")
)
# Whatever the library says of its decimals.
GAP, AUX = (task.model_copy(update={"decimals": 2}) for task in (GAP, AUX))
COMPUTED = AUX.model_copy(update={"id": "pbe_gap", "origin": "computed", "quantities": ("computed band gap",)})
Rows = dict[str, list[Example]]


def example(task: Task, row: int, key: str, target: Any, *others: str, fold: int | None = None, **more: Any) -> Example:
    material = Material("composition", f"as given {key}", (key,), (key,), key, (key, *others), ())
    return Example(task=task.id, row=str(row), material=material, target=target, fold=fold, **more)


def world(seed: int, size: int = 60) -> Rows:
    """Tasks that share keys, some with a second key; so few rows that repeats are many."""
    rng = random.Random(seed)

    def rows(task: Task, prefix: str) -> list[Example]:
        found = []
        for row in range(size):
            others = (f"{prefix}{rng.randrange(3 * size)}",) if rng.random() < 0.1 else ()
            target: Any = rng.choice(task.labels) if task.labels else round(rng.uniform(0, 10), 2)
            key = f"{prefix}{rng.randrange(3 * size)}"
            found.append(example(task, row, key, target, *others, fold=row % 5 if task.scored else None))
        return found

    return {task.id: rows(task, prefix) for task, prefix in zip((GAP, METAL, AUX, GLASS, STEEL), "gggas", strict=True)}


seeds = st.integers(0, 10_000)
lists = st.lists(st.sampled_from([GAP, METAL, AUX, GLASS, STEEL]), min_size=1, unique_by=lambda task: task.id)


@settings(deadline=None, max_examples=30)
@given(seed=seeds, tasks=lists, fold=st.integers(0, 4), scheme=st.sampled_from(["official", "aligned", "seeded"]))
def test_a_clean_split_is_never_flagged(seed: int, tasks: list[Task], fold: int, scheme: Any) -> None:
    with in_place_of_files(world(seed)):
        found = audit([split(tasks, fold, seed=seed, folds=scheme)])
    assert found.verdict == "CLEAN" and found.faults == ()
    assert all(pair.found == 0 for pair in found.pairs)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, tasks=lists, fold=st.integers(0, 4), part=st.sampled_from(["train", "validation", "calibration"]))
def test_a_planted_leak_is_always_found(seed: int, tasks: list[Task], fold: int, part: str) -> None:
    rng = random.Random(seed)
    with in_place_of_files(world(seed)):
        done = split(tasks, fold, seed=seed)
    victim = rng.choice([task for task in tasks if task.id in done.targets])
    other = rng.choice([task for task in tasks if leakage.related(victim, task)])
    row = rng.choice(done.test[victim.id])
    # One key of several is enough.
    planted = replace(example(other, 999, rng.choice(row.material.keys), 1.0, "another"), task=other.id)
    rows = getattr(done, part)
    found = audit([replace(done, **{part: {**rows, other.id: [*rows[other.id], planted]}})])
    assert found.verdict == "LEAKY"
    hit = next(pair for pair in found.pairs if (pair.task, pair.train_task) == (victim.id, other.id))
    assert hit.found >= 1 and hit.examples[0].train_row == "999"


@settings(deadline=None, max_examples=30)
@given(seed=seeds, tasks=lists, fold=st.integers(0, 4))
def test_without_a_rule_the_counts_are_those_of_a_count_by_hand(seed: int, tasks: list[Task], fold: int) -> None:
    rows = world(seed)
    with in_place_of_files(rows):
        done = split(tasks, fold, seed=seed, rule="none")
        found = audit([done])
    counted = {}
    # Rows of any task of a quantity tie the keys that they have (proved in test_leakage).
    for cluster in leakage.clusters(tasks):
        rows = {**rows, **leakage.tied(cluster, rows)}
    for one in (task for task in tasks if task.id in done.targets):
        for other in tasks:
            # Auxiliary tasks alone are scored and have seeded folds, so what is tested is asked of the split.
            out = {row.row for row in done.test.get(other.id, [])}
            learnt = [row for row in rows[other.id] if row.row not in out]
            if set(one.quantities) & set(other.quantities):
                counted[one.id, other.id] = sum(
                    any(set(row.material.keys) & set(there.material.keys) for there in learnt)
                    for row in done.test[one.id]
                )
    assert {(pair.task, pair.train_task): pair.found for pair in found.pairs} == counted
    assert found.verdict == ("LEAKY" if any(counted.values()) else "CLEAN")
    assert done.removed == {} and all(cost.removed == 0 for cost in found.cost)


SMALL: Rows = {
    GAP.id: [
        example(GAP, 0, "a", 0.0, fold=0),
        example(GAP, 1, "a", 1.5, fold=0),
        example(GAP, 2, "b", 2.0, fold=0),
        example(GAP, 3, "c", 1.0, fold=0),
        example(GAP, 4, "d", 1.0, fold=1),
    ],
    METAL.id: [
        example(METAL, 0, "a", "metal", fold=1),
        example(METAL, 1, "b", "not metal", fold=1),
        example(METAL, 2, "d", "not metal", fold=0),
    ],
    AUX.id: [example(AUX, 0, "b", 2.001), example(AUX, 1, "c", 1.006), example(AUX, 2, "e", 1.0)],
    COMPUTED.id: [example(COMPUTED, 0, "a", 0.5), example(COMPUTED, 1, "b", 0.5)],
    GLASS.id: [example(GLASS, 0, "c", "yes", fold=1), example(GLASS, 1, "z", "no", fold=0)],
}


def small(tasks: list[Task], rule: Any = "none", rows: Rows = SMALL) -> auditing.Audit:
    with in_place_of_files(rows):
        return audit([split(tasks, 0, validation=0, calibration=0, rule=rule)])


def test_the_figures_of_a_pair() -> None:
    found = small([GAP, METAL, AUX])
    pairs = {(pair.task, pair.train_task): pair for pair in found.pairs}
    gap = pairs[GAP.id, METAL.id]
    # Rows, not materials: `a` is tested twice.
    assert (gap.test_rows, gap.test_keys, gap.found, gap.share, gap.train_rows) == (4, 3, 3, 0.75, 2)
    assert (gap.labels_compared, gap.labels_agree, gap.stage, gap.fold) == (3, 2, "tune", 0)
    first = gap.examples[0]
    assert (first.row, first.target, first.train_row, first.train_target, first.agree) == (
        "1",
        1.5,
        "0",
        "metal",
        False,
    )
    assert first.material == "as given a"
    metal = pairs[METAL.id, GAP.id]
    assert (metal.found, metal.labels_agree) == (1, 1)
    # To the task's decimals 2.001 is 2.00, and 1.006 is not 1.00.
    aux = pairs[GAP.id, AUX.id]
    assert (aux.found, aux.labels_compared, aux.labels_agree) == (2, 2, 1)
    assert AUX.id not in {pair.task for pair in found.pairs}


def test_computed_values_are_knowledge_and_other_quantities_no_leak() -> None:
    found = small([GAP, GLASS, COMPUTED])
    assert [(pair.task, pair.train_task, pair.found) for pair in found.knowledge] == [
        (GAP.id, COMPUTED.id, 3),
        (GLASS.id, COMPUTED.id, 0),
    ]
    assert [(pair.task, pair.train_task, pair.found) for pair in found.elsewhere] == [(GAP.id, GLASS.id, 1)]
    assert found.verdict == "CLEAN"


def test_the_rule_bars_computed_values_of_the_same_quantity() -> None:
    same = COMPUTED.model_copy(update={"quantities": GAP.quantities})
    assert small([GAP, same]).verdict == "LEAKY"
    rows = {**SMALL, same.id: [*SMALL[same.id], example(same, 2, "free", 0.5)]}
    clean = small([GAP, same], "key", rows)
    assert clean.verdict == "CLEAN" and [pair.found for pair in clean.knowledge] == [0]


def test_the_cost_is_told_by_task_and_reason() -> None:
    rows = {**SMALL, METAL.id: [*SMALL[METAL.id], example(METAL, 3, "y", "metal", fold=2), example(METAL, 4, "y", "metal", fold=3)]}  # fmt: skip
    rows[GAP.id] = [*SMALL[GAP.id], example(GAP, 5, "free", 1.0, fold=1)]
    costs = {cost.task: cost for cost in small([GAP, METAL], "key", rows).cost}
    assert (costs[METAL.id].training_rows, costs[METAL.id].removed, costs[METAL.id].share) == (4, 2, 0.5)
    assert costs[METAL.id].reasons == {"key in the test fold of expt_gap": 2, "merged into another row of its key": 1}
    assert costs[GAP.id].reasons == {"key in the test fold of expt_is_metal": 1}


def renamed(task: Task, **changes: Any) -> Task:
    return task.model_copy(update={"id": "other", **changes})


@pytest.mark.parametrize(
    ("task", "other", "test", "train", "agree"),
    [
        (GAP, METAL, 0.0, "metal", True),
        (GAP, METAL, 0.01, "metal", False),
        (GAP, METAL, 0.01, "not metal", True),
        (METAL, GAP, "metal", 0.0, True),
        (METAL, GAP, "not metal", 0.0, False),
        (METAL, METAL, "metal", "metal", True),
        (METAL, METAL, "metal", "not metal", False),
        (GAP, renamed(GAP), 1.004, 1.0, True),
        (GAP, renamed(GAP), 1.01, 1.0, False),
        (GAP, renamed(GAP, property="band gap of the absorber"), 1.0, 1.0, True),
        (STEEL, renamed(STEEL, unit="N mm-2"), 1.0, 1.0, None),
        (GAP, renamed(GAP, unit="(eV)", property="width"), 1.0, 1.0, True),
        # What says something else, or in another unit or other words, cannot be compared by one row.
        (GAP, renamed(GAP, unit="meV"), 1.0, 1.0, None),
        (GAP, renamed(METAL, quantities=("metallic character",)), 0.0, "metal", True),
        (METAL, renamed(GAP, quantities=("width",)), "metal", 0.0, True),
        (METAL, renamed(METAL, labels=("m", "n")), "metal", "m", None),
        (STEEL, renamed(STEEL, property="hardness"), 1.0, 1.0, True),
        (METAL, renamed(METAL, property="kind of gap"), "metal", "metal", True),
        (GAP, renamed(GLASS, quantities=GAP.quantities), 1.0, "yes", None),
        (STEEL, renamed(METAL, quantities=STEEL.quantities), 1.0, "metal", None),
    ],
)
def test_when_labels_agree(task: Task, other: Task, test: Any, train: Any, agree: bool | None) -> None:
    assert agreement.compare(task, other, [(test, [train])]).agree == (agree,)


@pytest.mark.parametrize(
    ("other", "of"),
    [
        (renamed(GAP, unit="meV", quantities=("width",)), lambda gap: 1000 * gap),
        (renamed(GAP, unit=None, quantities=("width",), property="width"), lambda gap: 1000 * gap),
        (renamed(METAL, quantities=("m",)), lambda gap: "not metal" if gap else "metal"),
        (renamed(METAL, labels=("y", "n")), lambda gap: "n" if gap else "y"),
        (renamed(METAL, labels=("y", "n", "?")), lambda gap: "n" if gap else "y"),
    ],
)
def test_other_words_and_units_for_the_same_are_seen_through(other: Task, of: Any) -> None:
    gaps = [0.0, 1.25, 0.0, 2.5, 0.5, 3.0, 0.0, 0.75, 4.0, 0.0, 1.0, 0.0]
    said = agreement.compare(GAP, other, [(gap, [of(gap)]) for gap in gaps])
    assert said.agree == (True,) * 12
    assert agreement.are_one(12, 12, said.by_chance, 0.5)
    # Fewer than five have no factor and no partners.
    if other.labels != METAL.labels:
        assert agreement.compare(GAP, other, [(gap, [of(gap)]) for gap in gaps[:4]]).agree == (None,) * 4
    classes = agreement.compare(METAL, other, [("not metal" if gap else "metal", [of(gap)]) for gap in gaps])
    assert classes.agree == (True,) * 12


def test_agreement_is_counted_beyond_chance() -> None:
    rng = random.Random(0)
    tests, others = ([rng.choices(["yes", "no"], [share, 1 - share])[0] for _ in range(1000)] for share in (0.71, 0.8))
    said = agreement.compare(GLASS, renamed(GLASS), [(one, [two]) for one, two in zip(tests, others, strict=True)])
    agree = sum(map(bool, said.agree))
    # Most labels agree, since most are yes.
    assert agree > 600 and abs(agree - said.by_chance) < 40
    assert abs(agreement.kappa(agree, 1000, said.by_chance) or 0) < 0.1
    assert not agreement.are_one(agree, 1000, said.by_chance, 0.5)
    # All that is met is one label: by chance it would agree as well.
    one = agreement.compare(GLASS, renamed(GLASS), [("yes", ["yes"])] * 20)
    assert one.by_chance == 20 and agreement.kappa(20, 20, 20.0) is None and not agreement.are_one(20, 20, 20.0, 0.5)
    # Of a few rows with two labels, chance makes all agree often enough.
    assert not agreement.are_one(6, 6, 3.0, 0.5) and agreement.are_one(12, 12, 6.0, 0.5)
    assert not agreement.are_one(4, 4, 0.1, 0.5) and agreement.are_one(5, 5, 0.1, 0.5)


def copies(other: Task, of: Any) -> auditing.Audit:
    """An audit of gaps beside rows of the same materials, under another name."""
    rng = random.Random(1)
    gaps = [rng.choice([0.0, 0.0, 1.1, 2.2, 3.3, 4.4]) for _ in range(300)]
    rows: Rows = {
        GAP.id: [example(GAP, row, f"k{row}", gap, fold=row % 5) for row, gap in enumerate(gaps)],
        other.id: [
            example(other, row, f"k{row}", label) for row, gap in enumerate(gaps) if (label := of(rng, gap)) is not None
        ],
    }
    return small([GAP, other], "key", rows)


ELSE: dict[str, Any] = {"quantities": ("something else",), "scored": False}


@pytest.mark.parametrize(
    ("other", "of", "verdict"),
    [
        (renamed(GAP, **ELSE), lambda rng, gap: gap, "LEAKY"),
        (renamed(GAP, **ELSE), lambda rng, gap: rng.choice([0.0, 1.1, 2.2]), "CLEAN"),
        (renamed(GAP, **ELSE, unit="meV"), lambda rng, gap: 1000 * gap, "LEAKY"),
        (renamed(METAL, **ELSE), lambda rng, gap: "not metal" if gap else "metal", "LEAKY"),
        (renamed(METAL, **ELSE), lambda rng, gap: rng.choice(METAL.labels), "CLEAN"),
        # What is computed may be right, but not to the last decimal everywhere.
        (renamed(GAP, **ELSE, origin="computed"), lambda rng, gap: gap, "LEAKY"),
        (renamed(GAP, **ELSE, origin="computed"), lambda rng, gap: gap and gap - rng.choice([0, 0, 0.4]), "CLEAN"),
    ],
)
def test_a_copy_under_another_name_is_a_leak_and_what_agrees_by_chance_is_none(
    other: Task, of: Any, verdict: str
) -> None:
    found = copies(other, of)
    assert found.verdict == verdict
    assert [pair.train_task for pair in found.twins] == ["other"] * (verdict == "LEAKY")
    assert not found.uncompared and found.to_json()["uncompared"] == []


def test_what_cannot_be_compared_is_said_to_be_so() -> None:
    found = copies(renamed(METAL, **ELSE), lambda rng, gap: None if gap else "metal")
    assert found.verdict == "CLEAN" and [pair.train_task for pair in found.uncompared] == ["other"]
    steel = copies(renamed(STEEL, **ELSE), lambda rng, gap: 0.0)
    # No factor takes 0 to anything.
    assert [pair.train_task for pair in steel.uncompared] == ["other"]
    (told,) = found.to_json()["uncompared"]
    assert (told["train_task"], told["kappa"], told["labels_agree"]) == ("other", None, told["found"])


def test_labels_are_compared_under_the_same_conditions() -> None:
    other = renamed(GAP, scored=False)
    rows = {
        GAP.id: [
            example(GAP, 0, "a", 1.0, fold=0, conditions={"T": 300.0}),
            example(GAP, 1, "b", 1.0, fold=0, conditions={"T": 300.0}),
            example(GAP, 2, "free", 1.0, fold=1),
        ],
        "other": [
            example(other, 0, "a", 5.0, conditions={"T": 400.0}),
            example(other, 1, "a", 1.0, conditions={"T": 300.0}),
            example(other, 2, "b", 1.0, conditions={"T": 400.0}),
        ],
    }
    pair = next(pair for pair in small([GAP, other], rows=rows).pairs if pair.train_task == "other")
    # At another temperature the material leaks as well, but its value is another.
    assert (pair.found, pair.labels_compared, pair.labels_agree) == (2, 1, 1)


def test_a_material_in_two_parts_of_training_is_a_fault() -> None:
    with in_place_of_files(world(3, 300)):
        done = split([GAP, METAL], 0)
    moved = done.calibration[GAP.id][0]
    found = audit([replace(done, train={**done.train, METAL.id: [*done.train[METAL.id], moved]})])
    assert found.verdict == "LEAKY" and all(pair.found == 0 for pair in found.pairs)
    assert len(found.faults) == 1 and found.faults[0].startswith("fold 0: band gap: 1 materials stand in train and in")


def test_totals_sum_over_folds() -> None:
    def pair(fold: int, train_task: str, found: int, rows: int) -> Pair:
        return Pair("a", train_task, fold, rows, rows, found, "tune", 9, found, found - 1, ())

    assert totals([pair(0, "b", 3, 10), pair(0, "c", 1, 10), pair(1, "b", 2, 15)]) == [
        {"task": "a", "train_task": "b", "stage": "tune", "found": 5, "test_rows": 25, "labels_compared": 5, "labels_agree": 3, "share": 0.2},
        {"task": "a", "train_task": "c", "stage": "tune", "found": 1, "test_rows": 10, "labels_compared": 1, "labels_agree": 0, "share": 0.1},
    ]  # fmt: skip


def test_the_report_is_json() -> None:
    found = json.loads(json.dumps(small([GAP, METAL, AUX]).to_json(), allow_nan=False))
    assert found["verdict"] == "LEAKY" and found["folds"] == [0] and found["rule"] == "none"
    keys = {"task", "train_task", "stage", "fold", "test_keys", "found", "share", "labels_agree", "examples"}
    assert all(keys <= pair.keys() for pair in found["pairs"])
    assert found["totals"][1]["train_task"] == METAL.id and found["totals"][1]["share"] == 0.75


def test_what_holds_nothing_out_cannot_be_audited() -> None:
    with in_place_of_files(world(1)):
        with pytest.raises(ValueError, match="holds nothing out"):
            audit([split([GAP], None)])
        with pytest.raises(ValueError, match="needs a split"):
            audit([])


# Near-duplicates


def key(formula: str) -> str:
    return parse(formula, "composition").key


@pytest.mark.parametrize(
    ("one", "other", "are"),
    [
        ("Fe 0.80 Ni 0.20", "Fe 0.8099 Ni 0.1901", True),
        ("Fe 0.80 Ni 0.20", "Fe 0.81 Ni 0.19", False),  # 1 % is not under 1 %
        ("Fe 0.80 Ni 0.20", "Fe 0.79 Ni 0.20 C 0.01", False),
        ("Fe 0.80 Ni 0.20", "Fe 0.796 Ni 0.199 C 0.005", True),  # an element more, but a trace
        ("Fe 0.80 Ni 0.20", "Fe4Ni", False),  # the same key: no near-duplicate but a leak
        ("Fe 0.80 Ni 0.20", "Fe 0.80 Co 0.20", False),
    ],
)
def test_what_is_near(one: str, other: str, are: bool) -> None:
    assert near({key(one)}, {key(other), key("Na Cl")}) == ({key(one): key(other)} if are else {})


@settings(deadline=None, max_examples=40)
@given(seed=seeds)
def test_near_duplicates_are_those_of_a_count_by_hand(seed: int) -> None:
    rng = random.Random(seed)

    def alloy() -> str:
        parts = {symbol: rng.randrange(1, 60) for symbol in rng.sample(["Fe", "Ni", "Cr", "C"], rng.randrange(1, 5))}
        return key(" ".join(f"{symbol}{n}" for symbol, n in parts.items()))

    def steps(text: str) -> dict[str, int]:
        parts = text.removeprefix("composition:").split()
        return {p.rstrip("0123456789."): round(float(p.lstrip("FeNiCr")) * 10_000) for p in parts}

    asked, known = {alloy() for _ in range(20)}, {alloy() for _ in range(60)}
    found = near(asked, known)

    def distance(a: str, b: str) -> int:
        one, two = steps(a), steps(b)
        return max(abs(one.get(symbol, 0) - two.get(symbol, 0)) for symbol in one.keys() | two.keys())

    for one in asked:
        distances = {two: distance(one, two) for two in known if two != one}
        least = min(distances.values())
        assert (one in found) == (least < 100)
        if one in found:
            assert distances[found[one]] == least


def test_near_duplicates_are_counted_by_rows_and_are_no_part_of_the_verdict() -> None:
    one, two, far = key("Fe 0.80 Ni 0.20"), key("Fe 0.805 Ni 0.195"), key("Fe 0.5 Ni 0.5")
    rows = {
        STEEL.id: [
            example(STEEL, 0, one, 1.0, fold=0),
            example(STEEL, 1, one, 2.0, fold=0),
            example(STEEL, 2, far, 1.0, fold=0),
            example(STEEL, 3, two, 1.0, fold=1),
        ]
    }
    found = small([STEEL], "key", rows)
    assert found.verdict == "CLEAN"
    (only,) = found.near
    assert (only.task, only.fold, only.test_rows, only.found, only.examples) == (STEEL.id, 0, 3, 2, ((one, two),))
    assert only.share == 2 / 3


def test_keys_of_other_kinds_have_no_near_duplicates() -> None:
    assert small([GAP, METAL]).near == ()


@pytest.mark.parametrize(
    ("one", "other", "are"),
    [
        ("\u03b1-FAPbI3", "FAPbI3", True),
        ("MAPbI3 (sc)", "MAPbI3", True),
        ("PM6:Y6", "Y6 : PM6", True),
        ("P3HT/PCBM", "PCBM+P3HT", True),
        ("4-(aminomethyl)pyridinium lead iodide", "4-aminomethylpyridinium lead iodide", True),
        ("3-aminomethylpyridinium lead iodide", "4-aminomethylpyridinium lead iodide", False),
        ("FA(1-x)MA(x)PbI3", "FA(x)MA(1-x)PbI3", False),
        ("TY4", "TY6", False),
    ],
)
def test_names_that_are_only_spelt_otherwise_are_near(one: str, other: str, are: bool) -> None:
    a, b = parse(one, "name").key, parse(other, "name").key
    known = {a, b, "composition:Fe1.0000", "name:something"}
    assert respelt([a], known) == ({a: b} if are else {})
    assert respelt([a], {a}) == respelt(["composition:Fe1.0000"], known) == {}
    rows = {STEEL.id: [example(STEEL, 0, a, 1.0, fold=0), example(STEEL, 1, b, 2.0, fold=1)]}
    (only,) = small([STEEL], "key", rows).near
    assert (only.test_rows, only.found) == (1, int(are))


# Recipes


def test_a_recipe_is_audited_over_its_own_split() -> None:
    recipe = build_recipe({"name": "x", "tasks": [GAP.id, METAL.id], "fold": 3, "split": {"rule": "none"}})
    with in_place_of_files(world(5)):
        found = audit_recipe(recipe)
        one = audit_recipe(recipe, folds=[2, 2])
    assert found.folds == (0, 1, 2, 3, 4) and one.folds == (2,)
    assert [pair for pair in found.pairs if pair.fold == 2] == list(one.pairs)
    assert (found.rule, found.scheme, found.tasks) == ("none", "official", (GAP.id, METAL.id))


def test_the_rule_is_no_part_of_a_recipe_that_keeps_it() -> None:
    plain, said, none = (
        build_recipe({"name": "x", "tasks": ["expt_gap"], "split": split})
        for split in ({}, {"rule": "key"}, {"rule": "none"})
    )
    assert plain.digest() == said.digest() != none.digest()
    assert "rule" not in said.model_dump(mode="json")["split"]
    assert none.model_dump(mode="json")["split"]["rule"] == "none"


def test_without_a_rule_nothing_is_removed_or_merged() -> None:
    rows = {GAP.id: [example(GAP, row, "k", 1.0, fold=row % 5) for row in range(10)]}
    with in_place_of_files(rows):
        done: Split = split([GAP], 0, rule="none", validation=0, calibration=0)
    assert (done.rule, done.removed, len(done.train[GAP.id])) == ("none", {}, 8)
    assert leakage.check(done) != []
