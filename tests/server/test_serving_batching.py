"""Batching: requests share batches, answers do not depend on it, and nobody's fault or absence is another's."""

# Fixtures are imported, since the fault tests use them too.
# ruff: noqa: F811

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.helpers import Slow, darwin, served_home, slow  # noqa: F401 - fixtures

from matdarwin.api import Darwin
from matdarwin.prediction.prediction import Prediction
from matdarwin.serving.batching import Batcher, FullError, Question, StoppedError, Ticket, Watched

_MATERIALS = ["GaN", "CdTe", "Fe2O3", "Xx", "", "Ga0.5In0.5As", "CuInSe2", "Ag2 Ge S3", "MgO", "Pu"]


def _held(predictor: Slow, **options: object) -> Batcher:
    """A batcher whose first batch has begun and waits, so that what comes after it queues up."""
    batcher = Batcher(lambda: predictor, **{"queue_rows": 100, "wait": 0.0, **options})  # type: ignore[arg-type]
    batcher.start()
    batcher.submit(Ticket(30), [Question("t", ["first"])])
    assert predictor.begun.acquire(timeout=10)
    return batcher


def _same(one: Prediction, other: Prediction) -> None:
    """Equal in all that is told, and in probabilities as far as fp32 sums are."""
    a, b = one.to_dict(), other.to_dict()
    for name, value in a.items():
        if name in ("mean", "outside", "unexpanded", "assumed_ends") or name == "probabilities":
            assert b[name] == pytest.approx(value, abs=1e-4)
        else:
            assert b[name] == value, name


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.sampled_from(_MATERIALS), max_size=7),
            st.sampled_from(["tiny_gap", "tiny_metal"]),
            st.sampled_from([0.8, 0.9]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_answers_do_not_depend_on_who_else_is_in_the_batch(darwin: Darwin, requests: list[tuple[list[str], str, float]]) -> None:  # fmt: skip
    batches: list[int] = []
    batcher = Batcher(
        lambda: darwin.predictor, queue_rows=1000, wait=0.005, on_batch=lambda task, rows: batches.append(rows)
    )
    futures = []
    for materials, task, coverage in requests:
        (future,) = batcher.submit(Ticket(60), [Question(task, materials, coverage)])
        futures.append(future)
    batcher.start()
    try:
        shared = [future.result(60) for future in futures]
    finally:
        batcher.close()
    # After it, since the model is for one thread at a time.
    for (materials, task, coverage), answers in zip(requests, shared, strict=True):
        alone = [darwin.predict(m, task, coverage=coverage)[0] for m in materials]
        assert len(answers) == len(alone)
        for one, other in zip(answers, alone, strict=True):
            _same(one, other)
    assert sum(batches) == sum(len(materials) for materials, _, _ in requests)
    kinds = {(task, coverage) for materials, task, coverage in requests if materials}
    assert len(batches) >= len(kinds) or not batches
    # Without sharing there would be a batch for each request.
    assert len(batches) <= len(kinds) + sum(batches) // 16


def test_alike_requests_share_a_batch_and_others_do_not() -> None:
    predictor = Slow(batch_size=8)
    batcher = _held(predictor)
    ticket = Ticket(30)
    futures = [batcher.submit(ticket, [Question("t", [name])])[0] for name in "abc"]
    other = batcher.submit(ticket, [Question("t", ["d"], coverage=0.5)])[0]
    hot = batcher.submit(ticket, [Question("t", ["e"], conditions={"temperature": 300.0})])[0]
    predictor.go.set()
    assert [future.result(10)[0].input for future in (*futures, other, hot)] == list("abcde")
    assert predictor.batches == [["first"], ["a", "b", "c"], ["d"], ["e"]]
    batcher.close()


def test_a_row_waits_for_those_who_were_there_before_and_no_longer_than_the_bound() -> None:
    predictor = Slow()
    predictor.go.set()
    batcher = Batcher(lambda: predictor, queue_rows=10, wait=0.2)
    batcher.start()

    def seconds(*materials: str) -> float:
        began = time.monotonic()
        batcher.submit(Ticket(30), [Question("t", materials)])[0].result(10)
        return time.monotonic() - began

    seconds("warm")
    # Who was alone stays so, and a full batch is full.
    assert min(seconds("a") for _ in range(5)) < 0.15
    assert min(seconds("a", "b") for _ in range(5)) < 0.15
    # The other one does not come back.
    assert 0.19 < seconds("a") < 5.0
    assert min(seconds("a") for _ in range(5)) < 0.15
    batcher.close()


def test_clients_who_ask_again_and_again_come_to_share_their_batches() -> None:
    predictor = Slow()
    predictor.batch_size = 100
    predictor.go.set()
    told = predictor.predict

    def slowly(materials: Sequence[object], task: str, **options: Any) -> list[Prediction]:
        time.sleep(0.05)
        return told(materials, task, **options)

    predictor.predict = slowly  # type: ignore[method-assign]
    batcher = Batcher(lambda: predictor, queue_rows=1000, wait=0.3)
    batcher.start()

    def client(number: int) -> None:
        # They come one by one, so that at first each batch leaves others behind.
        time.sleep(0.02 * number)
        for _ in range(12):
            batcher.submit(Ticket(30), [Question("t", [f"{number}"])])[0].result(10)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sizes = [len(batch) for batch in predictor.batches]
    # On a busy machine one may come late now and then; two halves in turn would be four each.
    assert sum(sizes) == 96 and max(sizes) == 8 and statistics.median(sizes) > 5
    batcher.close()


def test_a_short_request_does_not_wait_for_all_of_a_long_one() -> None:
    predictor = Slow(batch_size=2)
    batcher = _held(predictor)
    long = batcher.submit(Ticket(30), [Question("t", [f"l{i}" for i in range(20)])])[0]
    short = batcher.submit(Ticket(30), [Question("t", ["s"])])[0]
    predictor.go.set()
    assert [p.input for p in long.result(10)] == [f"l{i}" for i in range(20)]
    assert short.result(10)[0].input == "s"
    assert next(i for i, batch in enumerate(predictor.batches) if "s" in batch) == 2
    batcher.close()


def test_a_full_queue_refuses_at_once_and_all_of_a_request_or_none() -> None:
    predictor = Slow()
    batcher = _held(predictor, queue_rows=4)
    batcher.submit(Ticket(30), [Question("t", ["a", "b", "c"])])
    with pytest.raises(FullError, match="3 rows wait already"):
        batcher.submit(Ticket(30), [Question("t", ["d"]), Question("u", ["d"])])
    assert batcher.queued == 3
    batcher.submit(Ticket(30), [Question("t", ["d"] * 2)], admitted=True)
    assert batcher.queued == 5
    predictor.go.set()
    batcher.close()


def test_work_stops_between_slices_when_its_time_is_up_or_its_client_has_left() -> None:
    predictor = Slow(batch_size=2)
    dropped: list[int] = []
    batcher = Batcher(lambda: predictor, queue_rows=100, wait=0.0, on_drop=dropped.append)
    batcher.start()
    left = Ticket(30)
    future = batcher.submit(left, [Question("t", [str(i) for i in range(10)])])[0]
    assert predictor.begun.acquire(timeout=10)
    late = batcher.submit(Ticket(0.05), [Question("t", ["late"])])[0]
    kept = batcher.submit(Ticket(30), [Question("t", ["kept"])])[0]
    left.stop()
    time.sleep(0.1)
    predictor.go.set()
    assert kept.result(10)[0].input == "kept"
    for stopped in (future, late):
        with pytest.raises(StoppedError):
            stopped.result(10)
    assert [m for batch in predictor.batches for m in batch] == ["0", "1", "kept"]
    assert sum(dropped) == 9 and batcher.queued == 0
    batcher.close()


def test_the_fault_of_one_request_is_not_anothers() -> None:
    predictor = Slow(batch_size=8)
    batcher = _held(predictor)
    good = batcher.submit(Ticket(30), [Question("t", ["good"])])[0]
    bad = batcher.submit(Ticket(30), [Question("t", ["fault"])])[0]
    predictor.go.set()
    assert good.result(10)[0].input == "good"
    with pytest.raises(RuntimeError):
        bad.result(10)
    after = batcher.submit(Ticket(30), [Question("t", ["after"])])[0]
    assert after.result(10)[0].input == "after"
    batcher.close()


def test_closing_settles_what_waits() -> None:
    predictor = Slow()
    batcher = _held(predictor)
    future = batcher.submit(Ticket(30), [Question("t", ["a"])])[0]
    predictor.go.set()
    batcher.close()
    if not future.cancelled() and future.exception(10) is None:
        assert future.result()[0].input == "a"
    with pytest.raises(StoppedError):
        batcher.submit(Ticket(30), [Question("t", ["b"])])


def test_a_stop_waits_for_the_present_batch_alone() -> None:
    predictor = Slow()
    batcher = Batcher(lambda: predictor, queue_rows=100, wait=0.0)  # type: ignore[arg-type]
    batcher.start()

    def work(watched: Watched) -> None:
        while True:
            watched.predict(["m"], "t")

    running = batcher.run(Ticket(1000), work)
    assert predictor.begun.acquire(timeout=30)
    (waiting,) = batcher.submit(Ticket(1000), [Question("t", ["later"])])
    batcher.stop()
    # At once, though the model is still at work.
    assert isinstance(waiting.exception(timeout=0), StoppedError) and not running.done()
    predictor.go.set()
    assert isinstance(running.exception(timeout=30), StoppedError)
    batcher.close()
    assert predictor.batches == [["m"]]


def test_other_work_on_the_model_stops_between_its_batches(darwin: Darwin) -> None:
    batcher = Batcher(lambda: darwin.predictor, queue_rows=10)
    batcher.start()
    ticket = Ticket(30)
    done: list[int] = []

    def work(predictor: Watched) -> None:
        def told(had: int, total: int) -> None:
            done.append(had)
            ticket.stop()

        predictor.predict(_MATERIALS * 40, "tiny_gap", progress=told)

    with pytest.raises(StoppedError):
        batcher.run(ticket, work).result(60)
    assert len(done) == 1
    rows = random.Random(0).sample(_MATERIALS, 5)
    got = batcher.run(Ticket(30), lambda predictor: predictor.predict(rows, "tiny_gap")).result(60)
    assert [p.to_dict() for p in got] == [p.to_dict() for p in darwin.predictor.predict(rows, "tiny_gap")]
    batcher.close()
