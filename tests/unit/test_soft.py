"""What is taught in a number's place: a distribution over its neighbours, token by token, that adds up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.tiny import tiny_rows, tiny_task, tiny_tokenizer

from matdarwin.data.sampling import Sampling
from matdarwin.language.answers import format_answer
from matdarwin.language.prompts import Encoder, style
from matdarwin.language.soft import Softener
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.feed import Feed
from matdarwin.training.options import Prompting


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return tiny_task(tmp_path)


@pytest.fixture(params=[True, False])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder(tiny_tokenizer(digits_single=request.param))


def taught(encoder: Encoder, task: Task, width: float, target: float) -> dict[str, float]:
    """Probability of each answer by the product of what is taught along the target's own tokens, where it is told."""
    soft = Softener(encoder, task, width).soft(target)
    (own,) = encoder.answers([format_answer(task, target)])
    assert len(soft) == len(own)
    found: dict[str, float] = {}
    before = 1.0
    for place, choices in enumerate(soft):
        shares = dict(choices)
        assert sum(shares.values()) == pytest.approx(1) and own[place] in shares
        for token, share in shares.items():
            found[str([*own[:place], token])] = before * share
        before *= shares[own[place]]
    return found


@pytest.mark.parametrize("target", [0.0, 0.3, 0.7, 1.9, 3.0, 4.6, 5.0])
def test_the_share_of_each_beginning_is_that_of_all_numbers_that_begin_so(
    encoder: Encoder, task: Task, target: float
) -> None:
    width = 0.3
    weights = {
        k / 10: math.exp(-abs(k / 10 - target) / width) for k in range(51) if abs(k / 10 - target) <= 6 * width + 1e-9
    }
    total = sum(weights.values())
    encoded = {
        value: ids
        for value, ids in zip(weights, encoder.answers([format_answer(task, v) for v in weights]), strict=True)
    }
    for key, probability in taught(encoder, task, width, target).items():
        start = [int(token) for token in key.strip("[]").split(",")]
        expected = sum(w for v, w in weights.items() if encoded[v][: len(start)] == start) / total
        assert probability == pytest.approx(expected, rel=1e-6)


def test_the_narrower_the_surer(encoder: Encoder, task: Task) -> None:
    (own,) = encoder.answers([format_answer(task, 1.9)])
    sure = [taught(encoder, task, width, 1.9)[str(own)] for width in (1.0, 0.3, 0.1, 0.01)]
    assert sure == sorted(sure) and sure[-1] > 0.999


def rows_of(task: Task) -> list[Example]:
    from matdarwin.data.readers import read

    return read(task).examples


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_feed_teaches_numbers_softly_where_it_is_asked_to(task: Task, tmp_path: Path, smoothing: float) -> None:
    classes = tiny_task(tmp_path, kind="classification", rows=tiny_rows(150, kind="classification"))
    feed = Feed(
        {one.id: rows_of(one) for one in (task, classes)}, [task, classes], encoder=Encoder(tiny_tokenizer()),
        style=style("compact"), prompting=Prompting(), sampling=Sampling(), batch_size=300, smoothing=smoothing, seed=0,
    )  # fmt: skip
    rows = next(feed.batches())
    numbers = [row for row in rows if row.number]
    assert len(rows) == 300 and len(numbers) == 150
    assert all(bool(row.soft) == bool(smoothing) for row in numbers)
    assert all(not row.soft for row in rows if not row.number)
    assert feed.told(0, 2).count("row") == len({row.split()[0] for row in feed.told(0, 2).split("; ")})
