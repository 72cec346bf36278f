"""The stream of several tasks: shares of the rule, every row before any twice, and the same rest from any position."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from matdarwin.data.mixture import Draw, Mixture
from matdarwin.data.sampling import Sampling, bits, counts, permutation, shares
from matdarwin.data.sources import DataError
from matdarwin.materials.material import Material
from matdarwin.tasks.schema import Example

Rows = dict[str, list[Example]]


def example(task: str, row: int, key: str | None = None) -> Example:
    name = key or f"{task}{row}"
    material = Material("composition", name, (name,), (name,), name, (name,), ())
    return Example(task=task, row=str(row), material=material, target=float(row))


def rows_of(*sizes: int) -> Rows:
    return {f"t{number}": [example(f"t{number}", row) for row in range(size)] for number, size in enumerate(sizes)}


def mixture(rows: Rows, sampling: Sampling | None = None, seed: int = 0, batch_size: int = 4, **more: Any) -> Mixture:
    wordings = more.pop("wordings", dict.fromkeys(rows, (0, 1, 2)))
    return Mixture(rows, sampling or Sampling(), seed=seed, batch_size=batch_size, wordings=wordings, **more)


def take(mixed: Mixture, count: int, start: int = 0) -> list[Draw]:
    return list(itertools.islice(mixed.draws(start), count))


def bare(draws: list[Draw]) -> list[tuple[str, str]]:
    return [(draw.task, draw.example.row) for draw in draws]


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """Mixtures of any rule, with weights, caps, batches and lengths."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    rows = rows_of(*sizes)
    rule = draw(st.sampled_from(("proportional", "equal", "temperature")))
    sampling = Sampling(
        rule=rule,
        temperature=draw(st.floats(1, 100)) if rule == "temperature" else None,
        # Not so unequal that a task has no place in an epoch.
        weights=draw(st.dictionaries(st.sampled_from(list(rows)), st.floats(0.5, 2))) if min(sizes) > 3 else {},
        caps=draw(st.dictionaries(st.sampled_from(list(rows)), st.integers(5, 30))),
        batches=draw(st.sampled_from(("mixed", "task"))),
    )
    length = (lambda row: int(row.row) % 7) if draw(st.booleans()) else None
    return mixture(rows, sampling, seed=draw(st.integers(0, 99)), batch_size=draw(st.integers(1, 9)), length=length)


@settings(max_examples=50, deadline=None)
@given(mixtures(), st.data())
def test_resumed_at_any_position_the_rest_is_the_same(mixed: Mixture, data: st.DataObject) -> None:
    whole = take(mixed, 3 * mixed.size)
    start = data.draw(st.integers(0, 2 * mixed.size))
    assert take(mixed, mixed.size, start) == whole[start : start + mixed.size]
    assert mixed.at(start) == whole[start]
    assert [draw.position for draw in whole] == list(range(3 * mixed.size))


@settings(max_examples=50, deadline=None)
@given(mixtures())
def test_every_row_comes_once_before_any_comes_twice(mixed: Mixture) -> None:
    sizes = Counter(draw.task for draw in take(mixed, 1))
    seen: dict[str, list[str]] = defaultdict(list)
    turns: dict[str, set[int]] = defaultdict(set)
    per_turn: dict[tuple[str, int], list[str]] = defaultdict(list)
    for draw in take(mixed, 4 * mixed.size):
        seen[draw.task].append(draw.example.row)
        turns[draw.task].add(draw.turn)
        per_turn[draw.task, draw.turn].append(draw.example.row)
    assert set(sizes) <= set(seen)
    for task, in_turn in turns.items():
        number = len(set(seen[task]))
        assert in_turn == set(range(max(in_turn) + 1))
        for turn in in_turn:
            assert len(set(per_turn[task, turn])) == len(per_turn[task, turn])
            if turn < max(in_turn):
                assert len(per_turn[task, turn]) == number


@settings(max_examples=50, deadline=None)
@given(mixtures())
def test_every_epoch_has_the_counts_and_the_batches_that_were_said(mixed: Mixture) -> None:
    batches = list(itertools.islice(mixed.batches(), 2 * mixed.steps))
    for part in (batches[: mixed.steps], batches[mixed.steps :]):
        draws = list(itertools.chain.from_iterable(part))
        assert Counter(draw.task for draw in draws) == mixed.counts
        assert len({draw.epoch for draw in draws}) == 1
    assert sum(map(len, batches)) == 2 * mixed.size
    for task, share in mixed.shares.items():
        assert abs(mixed.counts[task] - share * mixed.size) < 1


@settings(max_examples=50, deadline=None)
@given(mixtures(), st.data())
def test_inside_a_batch_its_rest_comes_first(mixed: Mixture, data: st.DataObject) -> None:
    batches = list(itertools.islice(mixed.batches(), mixed.steps + 1))
    start = data.draw(st.integers(0, mixed.size - 1))
    ends = list(itertools.accumulate(map(len, batches)))
    within = next(number for number, end in enumerate(ends) if end > start)
    resumed = mixed.batches(start)
    assert next(resumed) == batches[within][start - ends[within] :]
    assert next(resumed) == (batches[within + 1] if within + 1 < len(batches) else None)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.integers(0, 50), st.integers(1, 9), st.booleans())
def test_one_task_a_batch(sizes: list[int], seed: int, size: int, by_length: bool) -> None:
    length = (lambda row: int(row.row) % 5) if by_length else None
    mixed = mixture(rows_of(*sizes), Sampling(batches="task"), seed=seed, batch_size=size, length=length)
    batches = list(itertools.islice(mixed.batches(), mixed.steps))
    assert all(len({draw.task for draw in batch}) == 1 for batch in batches)
    assert all(len(batch) <= size for batch in batches)
    short = Counter(batch[0].task for batch in batches if len(batch) < size)
    assert max(short.values(), default=0) <= 1
    assert mixed.steps == sum(-(-count // size) for count in mixed.counts.values())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(20, 200), min_size=2, max_size=4),
    st.integers(0, 50),
    st.sampled_from(("equal", "proportional")),
)
def test_tasks_are_in_their_share_in_any_stretch(sizes: list[int], seed: int, rule: Any) -> None:
    mixed = mixture(rows_of(*sizes), Sampling(rule=rule), seed=seed)
    found: Counter[str] = Counter()
    for draw in take(mixed, 2 * mixed.size):
        found[draw.task] += 1
        for task, share in mixed.shares.items():
            # One for the stratum, one for each task's own, and one for the rounding of an epoch.
            assert abs(found[task] - share * (draw.position + 1)) <= 2 + len(sizes)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(5, 40), min_size=1, max_size=4), st.integers(0, 50), st.integers(0, 1000))
def test_no_key_comes_out_that_training_does_not_have(sizes: list[int], seed: int, test_seed: int) -> None:
    everything = rows_of(*sizes)
    # Keys that two tasks share, and a test part by key over all tasks, as the split makes it.
    everything = {
        task: [example(task, number, f"k{(number * 7 + place) % 30}") for number in range(len(rows))]
        for place, (task, rows) in enumerate(everything.items())
    }
    held = {f"k{number}" for number in range(30) if bits(f"{test_seed}|{number}", 1)[0] % 3 == 0}
    train = {task: [row for row in rows if row.material.key not in held] for task, rows in everything.items()}
    train = {task: rows for task, rows in train.items() if rows}
    if not train:
        return
    mixed = mixture(train, Sampling(rule="equal"), seed=seed)
    drawn = take(mixed, 2 * mixed.size)
    assert {draw.key for draw in drawn}.isdisjoint(held)
    for draw in drawn:
        assert draw.example in train[draw.task] and draw.key == draw.example.material.key


def test_one_seed_is_one_order_and_another_is_another() -> None:
    rows = rows_of(50, 9)
    first = take(mixture(rows, seed=3), 200)
    assert first == take(mixture(rows, seed=3), 200)
    other = take(mixture(rows, seed=4), 200)
    assert bare(first) != bare(other)
    assert [draw.wording for draw in first] != [draw.wording for draw in other]
    turns = [[draw.example.row for draw in first if (draw.task, draw.turn) == ("t0", turn)] for turn in (0, 1)]
    assert turns[0] != turns[1] and sorted(turns[0]) == sorted(turns[1]), "another turn is another order"
    assert [draw.task for draw in first[:59]] != [draw.task for draw in first[59:118]]


def test_the_order_is_the_same_in_another_process() -> None:
    code = (
        "from tests.unit.test_mixture import *\n"
        "print(json.dumps([[d.task, d.example.row, d.wording, d.seed] for d in take(mixture(rows_of(9, 4)), 30)]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [[d.task, d.example.row, d.wording, d.seed] for d in take(mixture(rows_of(9, 4)), 30)]
    assert json.loads(result.stdout) == here


def test_the_random_numbers_are_those_that_every_machine_has() -> None:
    # Typed in: another numpy, platform or Python that gave others would silently change every training.
    assert [int(number) for number in bits("matdarwin", 3)] == [
        5070779140288850212,
        5842505037725792692,
        15070221521862281579,
    ]
    assert permutation("matdarwin", 6).tolist() == [3, 0, 4, 1, 2, 5]
    assert sorted(permutation("x", 100).tolist()) == list(range(100))


def test_proportional_is_one_pass_of_all_rows_an_epoch() -> None:
    mixed = mixture(rows_of(30, 7, 1))
    assert mixed.counts == {"t0": 30, "t1": 7, "t2": 1} and mixed.size == 38
    assert sorted(bare(take(mixed, 38))) == sorted(
        (task, row.row) for task, rows in rows_of(30, 7, 1).items() for row in rows
    )


def test_the_shares_are_those_of_the_rule() -> None:
    sizes = {"a": 900, "b": 100}
    assert shares(sizes, Sampling()) == {"a": 0.9, "b": 0.1}
    assert shares(sizes, Sampling(rule="equal")) == {"a": 0.5, "b": 0.5}
    # The square roots are 30 and 10.
    assert shares(sizes, Sampling(rule="temperature", temperature=2)) == pytest.approx({"a": 0.75, "b": 0.25})
    assert shares(sizes, Sampling(rule="temperature", temperature=1)) == pytest.approx({"a": 0.9, "b": 0.1})
    assert shares(sizes, Sampling(rule="temperature", temperature=1e9)) == pytest.approx({"a": 0.5, "b": 0.5})
    assert shares(sizes, Sampling(weights={"b": 9})) == pytest.approx({"a": 0.5, "b": 0.5})
    assert shares(sizes, Sampling(rule="equal", weights={"b": 3})) == {"a": 0.25, "b": 0.75}


def test_a_cap_holds_whatever_the_rule_and_the_weights() -> None:
    sizes = {"a": 900, "b": 100, "c": 50}
    assert shares(sizes, Sampling(caps={"a": 300})) == pytest.approx({"a": 300 / 450, "b": 100 / 450, "c": 50 / 450})
    # An epoch has 1,050 examples; equal would give each 350, the cap gives the others what it takes.
    equal = shares(sizes, Sampling(rule="equal", caps={"c": 100}))
    assert equal == pytest.approx({"a": 475 / 1050, "b": 475 / 1050, "c": 100 / 1050})
    # What one cap frees may bring another task to its own.
    both = shares(sizes, Sampling(rule="equal", caps={"c": 100, "b": 400}))
    assert both == pytest.approx({"a": 550 / 1050, "b": 400 / 1050, "c": 100 / 1050})
    every = Sampling(weights={"a": 50}, caps={"a": 300, "b": 20, "c": 50})
    assert counts(shares(sizes, every), 370) == {"a": 300, "b": 20, "c": 50}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=5),
    st.sampled_from(("proportional", "equal")),
    st.data(),
)
def test_caps_hold_and_shares_add_up(sizes: list[int], rule: Any, data: st.DataObject) -> None:
    named = {f"t{number}": size for number, size in enumerate(sizes)}
    caps = data.draw(st.dictionaries(st.sampled_from(list(named)), st.integers(1, 600)))
    weights = data.draw(st.dictionaries(st.sampled_from(list(named)), st.floats(0.01, 100)))
    found = shares(named, Sampling(rule=rule, caps=caps, weights=weights))
    total = sum(min(size, caps.get(task, size)) for task, size in named.items())
    assert sum(found.values()) == pytest.approx(1)
    assert all(found[task] * total <= cap * (1 + 1e-6) for task, cap in caps.items())
    try:
        whole = counts(found, total)
    except DataError:
        return  # a weight so small that the task has no place
    assert sum(whole.values()) == total
    assert all(whole[task] <= cap for task, cap in caps.items())


def test_a_capped_task_has_its_other_rows_in_later_epochs() -> None:
    mixed = mixture(rows_of(20, 10), Sampling(caps={"t0": 5}))
    assert mixed.counts == {"t0": 5, "t1": 10}
    first = [draw.example.row for draw in take(mixed, 60) if draw.task == "t0"]
    assert sorted(map(int, first)) == list(range(20))


def test_wordings_are_drawn_from_those_given() -> None:
    mixed = mixture(rows_of(300, 300), wordings={"t0": (1, 4), "t1": (2,)})
    drawn = Counter((draw.task, draw.wording) for draw in take(mixed, 600))
    assert set(drawn) == {("t0", 1), ("t0", 4), ("t1", 2)}
    assert 100 < drawn["t0", 1] < 200
    assert len({draw.seed for draw in take(mixed, 600)}) == 600


def test_batches_of_like_length_hold_like_lengths_and_lose_no_row() -> None:
    rows = rows_of(400)
    loose, close = mixture(rows, batch_size=8), mixture(rows, batch_size=8, length=lambda row: int(row.row) % 40)

    def spread(mixed: Mixture) -> int:
        batches = itertools.islice(mixed.batches(), mixed.steps)
        lengths = [[int(draw.example.row) % 40 for draw in batch] for batch in batches]
        return sum(max(row) - min(row) for row in lengths)

    assert spread(close) < spread(loose) / 5
    assert sorted(bare(take(close, 400))) == sorted(bare(take(loose, 400)))
    first = [min(int(draw.example.row) % 40 for draw in batch) for batch in itertools.islice(close.batches(), 16)]
    assert first != sorted(first), "batches are shuffled, short and long ones"


def test_a_state_is_small_json_and_leads_back() -> None:
    mixed = mixture(rows_of(30, 7))
    state = json.loads(json.dumps(mixed.state(17)))
    assert len(json.dumps(state)) < 100
    assert mixture(rows_of(30, 7)).position(state) == 17


def test_a_state_of_another_mixture_is_refused() -> None:
    state = mixture(rows_of(30, 7)).state(17)
    changed = rows_of(30, 7)
    changed["t1"][3] = example("t1", 3, "other")
    for other in (
        mixture(rows_of(30, 8)),
        mixture(changed),
        mixture(rows_of(30, 7), seed=1),
        mixture(rows_of(30, 7), batch_size=5),
        mixture(rows_of(30, 7), Sampling(rule="equal")),
        mixture(rows_of(30, 7), wordings={"t0": (0,), "t1": (0,)}),
        mixture(rows_of(30, 7), length=lambda row: int(row.row)),
    ):
        with pytest.raises(DataError, match="another mixture"):
            other.position(state)
    for broken in ({}, {"position": -1, "mixture": "x"}, {"position": "3", "mixture": "x"}, {"position": 3}):
        with pytest.raises(DataError, match="no state of a mixture"):
            mixture(rows_of(3)).position(broken)


def test_what_makes_no_mixture_is_named() -> None:
    rows = rows_of(30, 7)
    for given_rows, sampling, more, message in (
        ({}, Sampling(), {}, "one or more tasks"),
        ({"t0": []}, Sampling(), {}, "t0: no training row"),
        ({"t0": rows["t1"]}, Sampling(), {}, "t0: a row of task t1"),
        (rows, Sampling(weights={"t9": 1}), {}, "weights: t9 is no task"),
        (rows, Sampling(caps={"t8": 1}), {}, "caps: t8 is no task"),
        (rows, Sampling(weights={"t1": 1e-6}), {}, "task t1: a share of .* raise its weight"),
        (rows, Sampling(), {"wordings": {"t0": (0,)}}, "t1: no wording"),
        (rows, Sampling(), {"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(DataError, match=message):
            mixture(given_rows, sampling, **more)
    for wrong in (
        {"rule": "temperature"},
        {"rule": "equal", "temperature": 2},
        {"rule": "temperature", "temperature": 0.5},
        {"weights": {"a": 0}},
        {"weights": {"a": float("inf")}},
        {"caps": {"a": 0}},
        {"rule": "fair"},
    ):
        with pytest.raises(ValidationError):
            Sampling.model_validate(wrong)
    for call in (mixture(rows).at, mixture(rows).draws, mixture(rows).batches, mixture(rows).state):
        with pytest.raises(ValueError, match="0 or more"):
            call(-1)
