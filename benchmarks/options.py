"""What each way to save work is worth in training: the loop as it is, and with one thing taken away or added at a time.

The default base model on the rows of expt_gap's fold 0 training set, full fine-tuning in batches of 32, in one process. All
settings take turns, round by round, each with the model as it begins and the same batches; the first step of a turn only
warms up. Rates are medians over all timed steps.
Writes results/bench/options.json.

    python benchmarks/options.py            # a quarter of an hour on two cores with nothing else to do
    python benchmarks/options.py --quick    # one small step of everything; writes no result
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from train import feed_of, options_of
from writing import write

from matdarwin.models.base import DEFAULT_BASE, find_base, load_model
from matdarwin.training import batches
from matdarwin.training.loop import Loop
from matdarwin.training.words import UsedWords

OUT = Path("results/bench/options.json")
STYLES = ("compact", "alpaca")
BATCH, STEPS, ROUNDS = 32, 3, 3

Rows = Sequence[Any]


@contextmanager
def as_it_is() -> Iterator[None]:
    """Nothing is changed."""
    yield


def padded() -> Any:
    """Rows are padded to the longest; the prefix is run once, in a pass of its own."""
    return patch("matdarwin.training.objective.can_pack", lambda config: False)


def unshared() -> Any:
    """Every row brings its own prefix."""
    return patch("matdarwin.training.batches.shared_prefix", lambda prompts: 0)


@contextmanager
def plain() -> Iterator[None]:
    """Padded rows, each with its own prefix, as other trainers run them."""
    with padded(), unshared():
        yield


def everywhere() -> Any:
    """The output layer is run at every position. The loss is another then, the work is that of a loss that masks it."""

    def collate(*given: Any, **options: Any) -> Any:
        batch = batches.collate(*given, **options)
        places = torch.arange(len(batch.ids))
        return replace(batch, judged=places, targets=batch.ids, digits=torch.zeros_like(places, dtype=torch.bool))

    return patch("matdarwin.training.loop.collate", collate)


def unfused() -> Any:
    """AdamW one operation at a time over lists of weights."""
    adam = torch.optim.AdamW
    return patch("torch.optim.AdamW", lambda *given, **options: adam(*given, **{**options, "fused": False}))


SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "padded rows": {"around": padded},
    "no shared prefix": {"around": unshared},
    "padded rows, no shared prefix": {"around": plain},
    "rows in a random order": {"shuffled": True},
    "output layer at every position": {"around": everywhere},
    "all embeddings trained": {"embeddings": "trained"},
    "no embeddings trained": {"embeddings": "frozen"},
    "AdamW not fused": {"around": unfused},
    "bf16 autocast": {"autocast": torch.bfloat16},
    "activations computed anew": {"options": {"checkpointing": True}},
    "layers compiled": {"options": {"compile": True}},
    "batch in four parts": {"options": {"micro_batch": 8}},
}


def turn(
    base: Path, rows: Sequence[Rows], vocabulary: Sequence[int], *, around: Callable[[], Any] = as_it_is,
    shuffled: bool = False, embeddings: str = "used", autocast: Any = None, options: dict[str, Any] | None = None,
) -> list[float]:  # fmt: skip
    """Train one model in one setting: seconds of each step after the first."""
    given = shuffled_rows(rows) if shuffled else rows
    model = load_model(base, dtype=torch.float32)
    words = UsedWords(model, vocabulary) if embeddings == "used" else None
    if embeddings == "frozen":
        model.get_input_embeddings().requires_grad_(False)
    seconds = []
    with ExitStack() as stack:
        stack.enter_context(around())
        chosen = options_of().model_copy(update=options or {})
        loop = Loop(model, chosen, len(given), autocast=autocast, words=words)
        for batch in given:
            began = time.perf_counter()
            loop.step(batch)
            seconds.append(time.perf_counter() - began)
    return seconds[1:]


def shuffled_rows(rows: Sequence[Rows]) -> list[Rows]:
    """The same rows in batches that are put together at random."""
    size, all_rows = len(rows[0]), list(itertools.chain.from_iterable(rows))
    random.Random(0).shuffle(all_rows)
    return [all_rows[start : start + size] for start in range(0, len(all_rows), size)]


def measure(style: str, size: int, steps: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Rows a second of each setting."""
    feed = feed_of(style, size)
    rows = list(itertools.islice(feed.batches(), 1 + steps))
    run = partial(turn, find_base(DEFAULT_BASE).folder, rows, feed.vocabulary())
    seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for number in range(rounds):
        for name, setting in SETTINGS.items():
            later = run(**setting)
            seconds[name] += later
            print(f"{style}, round {number + 1}: {name}: {size / statistics.median(later):.1f} rows/s", flush=True)
    return {name: {"rows_per_second": round(size / statistics.median(found), 2)} for name, found in seconds.items()}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small step of everything; writes no result")
    given = parser.parse_args()
    size, steps, rounds = (2, 1, 1) if given.quick else (BATCH, STEPS, ROUNDS)
    found = {style: measure(style, size, steps, rounds) for style in STYLES}
    summary = {
        style: {
            name: round(one["rows_per_second"] / rates["as it is"]["rows_per_second"], 3) for name, one in rates.items()
        }
        for style, rates in found.items()
    }
    if given.quick:
        print(json.dumps(summary, indent=1))
        return
    write(OUT, {"summary": summary, "settings": found, "batch": size, "steps": steps, "rounds": rounds})


if __name__ == "__main__":
    main()
