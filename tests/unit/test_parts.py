"""A batch in parts: every row once, no part larger than it may be, and the same training."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.tiny import tiny_model
from tests.unit.test_loop import rows_of, rows_of_tasks

from matdarwin.language.prompts import Encoded
from matdarwin.training import loop as loops
from matdarwin.training.batches import _WORTH, Sharing, collate
from matdarwin.training.errors import TrainingError
from matdarwin.training.loop import Loop
from matdarwin.training.objective import AnswerLoss
from matdarwin.training.options import Optimising
from matdarwin.training.parts import by_rows, by_tokens

CPU = torch.device("cpu")
some_rows = st.lists(
    st.builds(
        Encoded,
        st.lists(st.integers(0, 1), min_size=1, max_size=14).map(tuple),
        st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple),
    ),
    max_size=7,
)


def run_by(part: Any, share: Sharing) -> int:
    """Tokens that are run, padding included."""
    batch = collate(part, CPU, share=share)
    return len(batch.ids) if share == "groups" else batch.prefix + batch.places.numel()


@settings(deadline=None)
@given(some_rows, st.integers(1, 60), st.sampled_from(["none", "all", "groups"]))
# Of the three rows that share a prefix, the cut leaves two: too few to be worth it.
@example(
    [Encoded((0, 0, 0, *(1,) * 11), (1,)), Encoded((0,) * 4, (1,)), Encoded((0, 0, 0, 1), (1,)), Encoded((1,), (1,))],
    6,
    "groups",
)
def test_parts_hold_every_row_once_and_keep_to_their_room(rows: list[Encoded], most: int, share: Sharing) -> None:
    parts = by_tokens(rows, most, share=share)
    assert sorted(id(row) for part in parts for row in part) == sorted(map(id, rows))
    assert all(part for part in parts)
    for part in parts:
        # Groups that spare a part too little are given up there, which costs what they would have spared.
        slack = 0.02 * sum(len(row.prompt) for row in part) + _WORTH * len(part) if share == "groups" else 0
        assert len(part) == 1 or run_by(part, share) <= most + slack


@settings(deadline=None)
@given(some_rows.filter(lambda rows: len(rows) > 0), st.integers(1, 60))
def test_no_cut_by_length_is_of_fewer_parts_or_more_even(rows: list[Encoded], most: int) -> None:
    parts = by_tokens(rows, most, share="none")
    lengths = sorted(len(row.prompt) + len(row.answer) - 1 for row in rows)

    def largest(count: int) -> int:
        """Tokens of the largest of so many parts, where they are the most even."""
        cuts = (
            itertools.pairwise((0, *cut, len(rows))) for cut in itertools.combinations(range(1, len(rows)), count - 1)
        )
        return min(max((b - a) * lengths[b - 1] for a, b in cut) for cut in cuts)

    assert max(run_by(part, "none") for part in parts) == largest(len(parts))
    # Where a row is longer than a part may be, fewer parts would break no other bound than is broken already.
    assert len(parts) == 1 or max(lengths) > most or largest(len(parts) - 1) > most


def test_rows_that_fit_stay_as_they_are() -> None:
    rows = rows_of_tasks()
    (part,) = by_tokens(rows, 10_000, share="groups")
    assert part is rows
    assert by_tokens([], 5, share="groups") == []


def test_rows_of_one_task_stay_together() -> None:
    rows = rows_of_tasks()
    whole = run_by(rows, "groups")
    parts = by_tokens(rows, -(-whole // 2) + 12, share="groups")
    assert len(parts) == 2
    # One group at most has its prefix in both.
    assert sum(run_by(part, "groups") for part in parts) <= whole + 8


def test_a_row_that_is_longer_is_alone() -> None:
    short, long = Encoded((1, 2), (3, 1)), Encoded((5,) * 50, (3, 1))
    assert [len(part) for part in by_tokens([short, long, short, short], 12, share="groups")] == [1, 1, 2]
    # Padded to the longest, two short ones are all that fits.
    assert [len(part) for part in by_tokens([short, long, short, short], 6, share="none")] == [2, 1, 1]


def test_parts_by_rows_keep_their_order() -> None:
    rows = rows_of(7)
    assert [list(part) for part in by_rows(rows, 3)] == [rows[:3], rows[3:6], rows[6:]]


def parts_of(monkeypatch: pytest.MonkeyPatch, room: int, **options: Any) -> tuple[list[tuple[float, float]], list[int]]:
    """Loss and gradient of each step, and the rows of each part, where a CPU has room for so many tokens."""
    monkeypatch.setattr(loops, "TOKENS_AT_ONCE", room)
    counts: list[int] = []
    forward = AnswerLoss.forward

    def counting(self: Any, batch: Any) -> Any:
        counts.append(len(batch.places))
        return forward(self, batch)

    monkeypatch.setattr(AnswerLoss, "forward", counting)
    loop = Loop(tiny_model(64), Optimising(learning_rate=1e-2, **options), 4)
    made = [loop.step(rows_of_tasks(seed)) for seed in range(4)]
    monkeypatch.undo()
    return [(step.loss, step.gradient_norm) for step in made], counts


def test_a_batch_that_a_cpu_has_no_room_for_is_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, once = parts_of(monkeypatch, 10_000)
    parted, counts = parts_of(monkeypatch, 60)
    assert once == [12] * 4 and sum(counts) == 4 * 12 and len(counts) > 4
    assert parted == [pytest.approx(step, rel=1e-4) for step in whole]


def test_bounds_of_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parts_of(monkeypatch, 60, micro_tokens=10_000)[1] == [12] * 4
    assert parts_of(monkeypatch, 60, micro_batch=12)[1] == parts_of(monkeypatch, 60)[1]
    assert max(parts_of(monkeypatch, 60, micro_batch=3)[1]) == 3
    assert parts_of(monkeypatch, 60, checkpointing=True)[1] == [12] * 4


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        (1, {}, "step 1 for one row of 9 tokens; set optimising.checkpointing to true"),
        (1, {"checkpointing": True}, "step 1 for one row of 9 tokens; set method to lora"),
        # Six tokens are shared, and each of two rows runs two more: ten.
        (2, {}, "step 1 for 2 rows of up to 9 tokens; set optimising.micro_tokens to 5 or less, which adds the gradients of parts "
         "of a batch, or optimising.checkpointing to true"),
        (2, {"checkpointing": True}, "step 1 for 2 rows of up to 9 tokens; set optimising.micro_batch to 1 or less, which adds the "
         "gradients of parts of a batch, or method to lora"),
    ],
)  # fmt: skip
def test_what_takes_less_where_the_memory_does_not_suffice(
    rows: int, options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(AnswerLoss, "forward", full)
    with pytest.raises(TrainingError) as told:
        Loop(tiny_model(64), Optimising(**options), 4).step([Encoded((1,) * 7, (3, 1))] * rows)
    assert str(told.value) == f"the memory does not suffice at {says}"
