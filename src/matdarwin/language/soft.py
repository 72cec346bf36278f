"""What is taught in a number's place: a narrow distribution over the numbers near it, token by token.

Cross-entropy against one answer calls 1.3 as wrong as 9.3 where 1.2 was measured. Here the answer's weight is shared with
its neighbours on the task's grid, by a Laplace distribution around it, whose median is the measured number (the way of
histogram losses for regression: Imani and White 2018, arXiv 1806.04613). At each place of the true answer the tokens
that may come next are taught in the shares that this distribution gives them, given the tokens before.
"""

from __future__ import annotations

import math
from collections import defaultdict

from matdarwin.language.answers import format_answer, format_number
from matdarwin.language.prompts import Encoder, Soft
from matdarwin.tasks.schema import Task

_REACH = 6
"""Widths beyond which a neighbour has no weight; what is left there is a four-hundredth."""


class Softener:
    """Distributions for the answers of one task.

    Args:
        encoder: Text to tokens.
        task: A regression task.
        width: Scale of the Laplace distribution, in the task's unit; its mean absolute deviation is the same.
    """

    def __init__(self, encoder: Encoder, task: Task, width: float) -> None:
        assert task.decimals is not None and task.bounds is not None
        self._encoder, self._task, self._width = encoder, task, width
        self._made: dict[str, Soft] = {}

    def soft(self, target: float) -> Soft:
        """For each token of the target's answer, what may stand there, with shares that add up to 1."""
        answer = format_answer(self._task, target)
        if answer not in self._made:
            self._made[answer] = self._make(answer)
        return self._made[answer]

    def _make(self, answer: str) -> Soft:
        assert self._task.decimals is not None and self._task.bounds is not None
        low, high = self._task.bounds
        center, step = float(answer), 10.0**-self._task.decimals
        reach = math.ceil(_REACH * self._width / step)
        # In whole steps: a sum of floats may fall short of a bound that it is equal to.
        own_tick = round(center / step)
        first, last = max(own_tick - reach, round(low / step)), min(own_tick + reach, round(high / step))
        near = {
            f" {format_number(tick * step, self._task.decimals)}": math.exp(-abs(tick - own_tick) * step / self._width)
            for tick in range(first, last + 1)
        }
        encoded = dict(zip(near, self._encoder.answers(list(near)), strict=True))
        own = encoded[answer]
        made = []
        for place in range(len(own)):
            shares: dict[int, float] = defaultdict(float)
            for text, weight in near.items():
                if encoded[text][:place] == own[:place]:
                    shares[encoded[text][place]] += weight
            total = sum(shares.values())
            made.append(tuple((token, share / total) for token, share in sorted(shares.items())))
        return tuple(made)
