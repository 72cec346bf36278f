"""By what rule several tasks share a stream, and random numbers that are the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from matdarwin.data.sources import DataError
from matdarwin.tasks.schema import Model

Ints = NDArray[np.int64]


class Sampling(Model):
    """By what rule the tasks share the stream.

    A task of n rows has a pull of weight x n (proportional), weight (equal) or weight x n^(1/T) (temperature), n being
    at most the task's cap, as in T5 (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2) and Arivazhagan et al. 2019
    (arXiv 1907.05019). Its share is its pull over the sum of all.
    """

    rule: Literal["proportional", "equal", "temperature"] = Field(
        default="proportional", description="What a task's share goes by: its rows, nothing, or a root of its rows."
    )
    temperature: float | None = Field(
        default=None,
        ge=1,
        allow_inf_nan=False,
        description="T of the rule temperature; 1 is proportional, the greater the nearer to equal.",
    )
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict, description="Task id -> factor of its pull; 1 where not said."
    )
    caps: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="Task id -> most examples of it in an epoch, which also is the most rows that count for its pull. "
        "Over the epochs all of its rows have their turn.",
    )
    batches: Literal["mixed", "task"] = Field(
        default="mixed", description="mixed: a batch holds any tasks; task: one task, so that its prompts begin alike."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.rule == "temperature") != (self.temperature is not None):
            raise ValueError(
                f"temperature belongs to the rule temperature, which needs one; got rule {self.rule} and "
                f"temperature {self.temperature}"
            )
        return self


def shares(sizes: Mapping[str, int], sampling: Sampling) -> dict[str, float]:
    """Each task's part of the stream; they add up to 1.

    Args:
        sizes: Number of training rows by task id.
        sampling: The rule. What a cap takes from a task goes to the others in proportion to their pulls.
    """
    counted = {task: min(size, sampling.caps.get(task, size)) for task, size in sizes.items()}
    exponent = {"proportional": 1.0, "equal": 0.0, "temperature": 1 / (sampling.temperature or 1)}[sampling.rule]
    pulls = {task: sampling.weights.get(task, 1.0) * count**exponent for task, count in counted.items()}
    total = sum(counted.values())
    limits = {task: cap / total for task, cap in sampling.caps.items()}
    found: dict[str, float] = {}
    while True:
        free = {task: pull for task, pull in pulls.items() if task not in found}
        scale = (1 - sum(found.values())) / sum(free.values())
        # The margin keeps a share that is its limit but for rounding among the free, of which one is always left.
        over = {task for task in free if scale * free[task] > limits.get(task, 1.0) * (1 + 1e-9)}
        if not over:
            return {task: found.get(task, scale * pulls[task]) for task in sizes}
        found |= {task: limits[task] for task in over}


def counts(shares: Mapping[str, float], size: int) -> dict[str, int]:
    """Whole numbers of examples an epoch by the largest remainder, so that they add up to `size`.

    Raises:
        DataError: A share comes to no example.
    """
    exact = {task: share * size for task, share in shares.items()}
    found = {task: int(value) for task, value in exact.items()}
    remainder = sorted(exact, key=lambda task: found[task] - exact[task])
    for task in remainder[: size - sum(found.values())]:
        found[task] += 1
    for task, count in found.items():
        if count == 0:
            raise DataError(
                f"task {task}: a share of {shares[task]:.2g} comes to no example in an epoch of {size}; raise its weight"
            )
    return found


def bits(salt: str, count: int) -> NDArray[np.uint64]:
    """Random numbers from 0 below 2^64 [count], the same for the same salt on every machine.

    They are the raw output of PCG64, which numpy keeps stable, where it does not promise so for its shuffles (NEP 19).
    """
    seed = int.from_bytes(hashlib.sha256(salt.encode()).digest(), "big")
    return np.random.PCG64(seed).random_raw(count)


def permutation(salt: str, count: int) -> Ints:
    """A random order of the numbers from 0 below `count` [count], the same for the same salt on every machine."""
    return np.argsort(bits(salt, count), kind="stable")
