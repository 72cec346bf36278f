"""A model's answer: an exact probability distribution over what the format allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class AnswerDistribution:
    """The probability of each answer.

    Attributes:
        values: Numbers, rising, in the task's unit [n]; empty for classes.
        labels: Classes [n]; empty for numbers.
        probabilities: Their probabilities, renormalised to the sum 1 [n].
        outside: Mass that the model gave to texts outside the format, before renormalising.
        unexpanded: Mass of branches that were pruned unread, before renormalising.
        assumed_ends: Mass of answers whose end was not scored but taken from that row's likelier answers.
    """

    values: NDArray[np.float64]
    labels: tuple[str, ...]
    probabilities: NDArray[np.float64]
    outside: float
    unexpanded: float
    assumed_ends: float = 0.0

    def __post_init__(self) -> None:
        if len(self.probabilities) != len(self.labels or self.values) or not len(self.probabilities):
            raise ValueError("a distribution needs one probability for each of its answers, and at least one answer")

    def mean(self) -> float:
        """The expected value: the best answer under a squared error."""
        return float(self.values @ self.probabilities)

    def median(self) -> float:
        """The least value at which half of the probability is reached: the best answer under an absolute error."""
        return self.quantile(0.5)

    def mode(self) -> float:
        """The likeliest value; the least of several that are equally likely."""
        return float(self.values[int(np.argmax(self.probabilities))])

    def quantile(self, q: float) -> float:
        """The least value at which the cumulative probability reaches `q`, for 0 <= q <= 1."""
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile lies between 0 and 1, got {q}")
        # A hair of tolerance: rounding in the last bits of the sum must not move the answer by a step.
        index = int(np.searchsorted(np.cumsum(self.probabilities), q - 1e-9))
        return float(self.values[min(index, len(self.values) - 1)])

    def probability(self, low: float, high: float) -> float:
        """The probability that the value lies in [low, high]."""
        inside = (self.values >= low) & (self.values <= high)
        return float(self.probabilities[inside].sum())

    def spread(self) -> float:
        """Mean absolute deviation about the median, in the task's unit."""
        return float(np.abs(self.values - self.median()) @ self.probabilities)

    def label(self, shares: NDArray[np.float64] | None = None) -> str:
        """The likeliest class; with `shares`, the class whose probability is largest in proportion to its share.

        The latter is the right answer for balanced accuracy when `shares` are the training shares [n].
        """
        if shares is None:
            return self.labels[int(np.argmax(self.probabilities))]
        # A class that training never showed is no answer.
        weight = np.divide(self.probabilities, shares, out=np.full_like(self.probabilities, -1.0), where=shares > 0)
        return self.labels[int(np.argmax(weight))]


def average(distributions: list[AnswerDistribution]) -> AnswerDistribution:
    """The equal mixture of distributions over the same task, such as those of several views of one material."""
    if len(distributions) == 1:
        return distributions[0]
    outside = float(np.mean([d.outside for d in distributions]))
    unexpanded = float(np.mean([d.unexpanded for d in distributions]))
    assumed = float(np.mean([d.assumed_ends for d in distributions]))
    first = distributions[0]
    if first.labels:
        stacked = np.mean([d.probabilities for d in distributions], axis=0)
        return AnswerDistribution(first.values, first.labels, stacked, outside, unexpanded, assumed)
    values, inverse = np.unique(np.concatenate([d.values for d in distributions]), return_inverse=True)
    weights = np.concatenate([d.probabilities for d in distributions]) / len(distributions)
    return AnswerDistribution(
        values, (), np.bincount(inverse, weights).astype(np.float64), outside, unexpanded, assumed
    )
