"""What a sweep varies: ranges and choices of a recipe's keys, and what is tried next (Optuna, extra `sweep`)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Drawn = dict[str, float | int | str]

_FORMS = "KEY=log:LOW:HIGH, KEY=float:LOW:HIGH, KEY=int:LOW:HIGH or KEY=choice:A,B,..."
_Range = Literal["log", "float", "int"]
_RANGES: tuple[_Range, ...] = ("log", "float", "int")
_SAME_ROWS = "would change the rows that trials are scored on, so their scores could not be compared"
_FIXED = {
    "tasks": _SAME_ROWS, "fold": _SAME_ROWS, "split": _SAME_ROWS, "seed": "is chance, and no setting to choose; it also draws "
    "the rows that trials are scored on", "predicting": "is how a finished model is asked, which validation does not follow",
    "name": "is a name", "description": "is for people", "role": "is what a model is for",
    "overrides": "holds keys of single tasks; vary the key itself",
}  # fmt: skip
"""Keys that may not vary, and why."""


class SweepError(ValueError):
    """A sweep that cannot be made or did not find anything."""


@dataclass(frozen=True)
class Vary:
    """One key of a recipe and what it may be.

    Attributes:
        key: The key, dotted.
        kind: log and float: a number between the ends, drawn evenly by its logarithm or itself; int: a whole one; choice.
        low: Least value.
        high: Greatest value.
        choices: What there is to choose from, as text.
    """

    key: str
    kind: _Range | Literal["choice"]
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    def setting(self, value: float | int | str) -> str:
        """A value as KEY=VALUE; numbers have three digits, so that they can be written down and are tried as written."""
        if isinstance(value, float):
            value = f"{min(max(float(f'{value:.3g}'), self.low), self.high):g}"
        return f"{self.key}={value}"

    def ends(self) -> list[str]:
        """The ends of the range, or every choice, as KEY=VALUE."""
        if self.kind == "choice":
            return [self.setting(choice) for choice in self.choices]
        kind = int if self.kind == "int" else float
        return [self.setting(kind(end)) for end in (self.low, self.high)]

    def text(self) -> str:
        """As it is written on the command line."""
        return f"{self.key}={self.kind}:" + (",".join(self.choices) if self.choices else f"{self.low:g}:{self.high:g}")


def parse(text: str) -> Vary:
    """What is varied, from `optimising.learning_rate=log:5e-5:5e-4`, `optimising.epochs=int:3:8` or `method=choice:full,lora`.

    Raises:
        SweepError: It is written otherwise, the ends do not rise, or the key may not vary.
    """
    key, _, rest = text.partition("=")
    word, _, values = rest.partition(":")
    if (why := _FIXED.get(key.split(".")[0])) is not None:
        raise SweepError(f"--vary {text}: {key} {why}")
    if key and word == "choice":
        choices = tuple(choice.strip() for choice in values.split(","))
        if len(set(choices)) != len(choices) or len(choices) < 2 or "" in choices:
            raise SweepError(f"--vary {text}: give two or more different choices, with commas between them")
        return Vary(key, "choice", choices=choices)
    kind = next((known for known in _RANGES if known == word), None)
    try:
        low, high = (int(end) if kind == "int" else float(end) for end in values.split(":"))
    except ValueError:
        low, high = math.nan, math.nan
    if not key or kind is None or not math.isfinite(low) or not math.isfinite(high):
        raise SweepError(f"--vary {text}: write {_FORMS}, such as optimising.learning_rate=log:5e-5:5e-4")
    if not low < high or (kind == "log" and low <= 0):
        raise SweepError(f"--vary {text}: the ends must rise" + (" and be above 0" if kind == "log" else ""))
    return Vary(key, kind, low, high)


def propose(vary: Sequence[Vary], past: Sequence[tuple[Mapping[str, Any], float | None]], *, seed: int) -> Drawn:
    """What to try next: at random at first, then by Optuna's TPE (Bergstra et al. 2011, Adv. Neural Inf. Process. Syst. 24).

    It depends on nothing but the arguments, so that a sweep that was broken off goes on as it would have.

    Args:
        vary: What is varied; keys differ.
        past: By trial in order, what was drawn and the score (less is better), None where it failed.
        seed: Seed of the sweep.

    Raises:
        SweepError: Optuna is not installed, or a key is varied twice.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise SweepError(
            f"sweeping needs a package that is not installed ({error.name}): pip install -e '.[sweep]' in the repository"
        ) from error
    if len({one.key for one in vary}) != len(vary) or not vary:
        raise SweepError("--vary: name at least one key, and each once")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {one.key: _distribution(optuna.distributions, one) for one in vary}
    drawn_from = hashlib.sha256(f"{seed}/{len(past)}".encode()).digest()
    sampler = optuna.samplers.TPESampler(seed=int.from_bytes(drawn_from[:4]))
    study = optuna.create_study(sampler=sampler, direction="minimize")
    for drawn, score in past:
        state = optuna.trial.TrialState.FAIL if score is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(state=state, value=score, params=dict(drawn), distributions=space))
    return dict(study.ask(space).params)


def _distribution(kinds: Any, one: Vary) -> Any:
    if one.kind == "choice":
        return kinds.CategoricalDistribution(one.choices)
    if one.kind == "int":
        return kinds.IntDistribution(int(one.low), int(one.high))
    return kinds.FloatDistribution(one.low, one.high, log=one.kind == "log")
