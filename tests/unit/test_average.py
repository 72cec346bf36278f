"""The mean of the last weights."""

from __future__ import annotations

import pytest
import torch

from matdarwin.training.average import EVERY, WeightAverage


def test_mean_of_the_steps_that_count_and_of_no_other():
    weight = torch.nn.Parameter(torch.zeros(3))
    average = WeightAverage([weight], first=5, total=4 + 3 * EVERY)
    taken = []
    for step in range(1, 5 + 3 * EVERY):
        with torch.no_grad():
            weight.fill_(float(step))
        average.take(step)
        if step >= 5 and (step - 5) % EVERY == 0:
            taken.append(step)
    assert average.count == len(taken) == 3
    last = float(weight[0])
    with average.applied():
        assert torch.allclose(weight, torch.full((3,), sum(taken) / 3))
    assert float(weight[0]) == last
    with average.applied():
        assert torch.allclose(weight, torch.full((3,), sum(taken) / 3))


def test_nothing_is_put_in_place_before_a_weight_was_taken():
    weight = torch.nn.Parameter(torch.ones(2))
    average = WeightAverage([weight], first=10, total=20)
    with torch.no_grad():
        weight.fill_(2.0)
    average.take(9)
    with average.applied():
        assert weight.tolist() == [2.0, 2.0]


def test_of_few_steps_each_counts():
    weight = torch.nn.Parameter(torch.zeros(1))
    average = WeightAverage([weight], first=17, total=20)
    for step in range(1, 21):
        with torch.no_grad():
            weight.fill_(float(step))
        average.take(step)
    with average.applied():
        assert weight.item() == pytest.approx(18.5)
