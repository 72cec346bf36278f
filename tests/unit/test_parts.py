"""A batch in parts: every row once, no part larger than it may be, and the same training."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import tiny_model
from tests.unit.test_loop import rows_of, rows_of_tasks

from matdarwin.language.prompts import Encoded
from matdarwin.training import loop as loops
from matdarwin.training.batches import Sharing, collate
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
    return len(collate(part, CPU, share=share).ids)


@settings(deadline=None)
@given(some_rows, st.integers(1, 60), st.sampled_from(["none", "all", "groups"]))
def test_parts_hold_every_row_once_and_keep_to_their_room(rows: list[Encoded], most: int, share: Sharing) -> None:
    parts = by_tokens(rows, most, share=share)
    assert sorted(id(row) for part in parts for row in part) == sorted(map(id, rows))
    assert all(part for part in parts)
    for part in parts:
        # Groups that would spare a part too little are given up there, which costs what they would have spared.
        assert len(part) == 1 or run_by(part, share) <= most + (0.02 * 18 * 7 if share == "groups" else 0)


@settings(deadline=None)
@given(some_rows.filter(lambda rows: len(rows) > 0), st.integers(1, 60))
def test_no_cut_of_as_many_parts_is_more_even(rows: list[Encoded], most: int) -> None:
    parts = by_tokens(rows, most, share="none")
    lengths = [len(row.prompt) + len(row.answer) - 1 for row in rows]
    cuts = itertools.combinations(range(1, len(rows)), len(parts) - 1)
    even = min(
        max(sum(lengths[a:b]) for a, b in itertools.pairwise((0, *cut, len(rows))))
        for cut in cuts
    )  # fmt: skip
    assert max(run_by(part, "none") for part in parts) == even


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
    assert [len(part) for part in by_tokens([short, long, short, short], 12, share="none")] == [1, 1, 2]


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


def test_rows_that_are_asked_for_at_once_are_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parts_of(monkeypatch, 60, micro_batch=12)[1] == [12] * 4


def test_one_row_that_the_memory_does_not_suffice_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(AnswerLoss, "forward", full)
    monkeypatch.setattr(loops, "TOKENS_AT_ONCE", 1)
    with pytest.raises(TrainingError, match=r"step 1 for one row of 9 tokens; set optimising.checkpointing to true$"):
        Loop(tiny_model(64), Optimising(), 4).step([Encoded((1,) * 7, (3, 1))] * 2)
