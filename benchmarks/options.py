"""What each way to save work is worth in training: the loop as it is, and with one thing taken away or added at a time.

The default base model on the rows of expt_gap's fold 0 training set, full fine-tuning in batches of 32, in one process. All
settings take turns, round by round, each with the model as it begins and the same batches; the first steps of a turn only
warm up. Rates are medians over all timed steps. On a GPU everything but "fp32" is in bf16, as training is there, and the
greatest memory of each setting is told too.
Writes results/bench/options.json, or options-cuda.json on a GPU.

    python benchmarks/options.py            # a quarter of an hour on two cores with nothing else to do, some minutes on a GPU
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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from train import WHOLE, feed_of, options_of
from writing import write

from matdarwin.models.base import DEFAULT_BASE, find_base, load_model
from matdarwin.training import batches
from matdarwin.training.loop import Loop
from matdarwin.training.words import UsedWords

STYLES = ("compact", "alpaca")
BATCH = 32
CUDA = torch.device("cuda")

Rows = Sequence[Any]


@dataclass(frozen=True)
class Size:
    """How much is run: rows a batch, steps that only warm up, steps that are timed, rounds."""

    batch: int
    warm: int
    steps: int
    rounds: int


SIZES = {"cpu": Size(BATCH, 1, 3, 3), "cuda": Size(BATCH, 5, 20, 2)}
QUICK = Size(2, 1, 1, 1)


@contextmanager
def as_it_is() -> Iterator[None]:
    """Nothing is changed."""
    yield


def padded() -> Any:
    """Rows are padded to the longest; the prefix is run once, in a pass of its own."""
    return patch("matdarwin.training.objective.can_pack", lambda config: False)


def unshared() -> Any:
    """Every row brings its own prefix."""
    return patch("matdarwin.training.objective.AnswerLoss.shares", "none")


@contextmanager
def plain() -> Iterator[None]:
    """Padded rows, each with its own prefix, as other trainers run them."""
    with padded(), unshared():
        yield


def everywhere() -> Any:
    """The output layer is run at every position. The loss is another then, the work is that of a loss that masks it."""

    def collate(*given: Any, **options: Any) -> Any:
        batch = batches.collate(*given, **options)
        places = torch.arange(len(batch.ids), device=batch.ids.device)
        return replace(batch, judged=places, targets=batch.ids, digits=torch.zeros_like(places, dtype=torch.bool))

    return patch("matdarwin.training.loop.collate", collate)


@contextmanager
def undirected() -> Iterator[None]:
    """fp32 products by the library that PyTorch itself would take."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def by_blocks() -> Iterator[None]:
    """Attention as PyTorch computes it by itself, with its own library for products."""
    with undirected(), patch("matdarwin.training.attention._SCORES", 0):
        yield


def unrecorded() -> Any:
    """No step is recorded as a CUDA graph."""
    return patch("matdarwin.training.graphs.Graphs.take", staticmethod(lambda rows: False))


def unfused() -> Any:
    """AdamW one operation at a time over lists of weights."""
    adam = torch.optim.AdamW
    return patch("torch.optim.AdamW", lambda *given, **options: adam(*given, **{**options, "fused": False}))


SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "padded rows": {"around": padded},
    # Not in the parts that so many tokens would be run in: one thing at a time.
    "no shared prefix": {"around": unshared, "options": WHOLE},
    "padded rows, no shared prefix": {"around": plain, "options": WHOLE},
    "products by PyTorch's choice": {"around": undirected},
    "products and attention by PyTorch's choice": {"around": by_blocks},
    "rows in a random order": {"shuffled": True},
    "output layer at every position": {"around": everywhere},
    "all embeddings trained": {"embeddings": "trained"},
    "no embeddings trained": {"embeddings": "frozen"},
    "AdamW not fused": {"around": unfused},
    "bf16 autocast": {"autocast": torch.bfloat16},
    "bf16 autocast, attention by PyTorch's choice": {"autocast": torch.bfloat16, "around": by_blocks},
    "activations computed anew": {"options": {"checkpointing": True}},
    "layers compiled": {"options": {"compile": True}},
    "batch at once": {"options": WHOLE},
    "batch in four parts": {"options": {"micro_batch": 8}},
}


def settings(device: torch.device) -> dict[str, dict[str, Any]]:
    """The settings of a device: a GPU trains in bf16 and records its steps, so that there fp32 and none recorded are the changes.

    How packed batches are laid out says nothing there: a recorded step lays them out in its own way. Nor do the libraries of a CPU.
    """
    if device != CUDA:
        return SETTINGS
    unchanged = (padded, unshared, plain, everywhere, undirected, by_blocks)
    found = {
        name: one
        for name, one in SETTINGS.items()
        if name not in ("bf16 autocast", "batch at once") and one.get("around") not in unchanged
    }
    found["steps not recorded"] = {"around": unrecorded}
    return {name: {"autocast": torch.bfloat16, **one} for name, one in found.items()} | {"fp32": {}}


def turn(
    base: Path, rows: Sequence[Rows], vocabulary: Sequence[int], device: torch.device, warm: int, *,
    around: Callable[[], Any] = as_it_is, shuffled: bool = False, embeddings: str = "used", autocast: Any = None,
    options: dict[str, Any] | None = None,
) -> list[float]:  # fmt: skip
    """Train one model in one setting: seconds of each step after those that warm up."""
    given = shuffled_rows(rows) if shuffled else rows
    model = load_model(base, dtype=torch.float32).to(device)
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
            if device == CUDA:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    return seconds[warm:]


def shuffled_rows(rows: Sequence[Rows]) -> list[Rows]:
    """The same rows in batches that are put together at random."""
    size, all_rows = len(rows[0]), list(itertools.chain.from_iterable(rows))
    random.Random(0).shuffle(all_rows)
    return [all_rows[start : start + size] for start in range(0, len(all_rows), size)]


def measure(style: str, size: Size, device: torch.device) -> dict[str, dict[str, Any]]:
    """Rows a second of each setting, and on a GPU its greatest memory in GiB."""
    feed = feed_of(style, size.batch)
    rows = list(itertools.islice(feed.batches(), size.warm + size.steps))
    run = partial(turn, find_base(DEFAULT_BASE).folder, rows, feed.vocabulary(), device, size.warm)
    seconds: dict[str, list[float]] = {name: [] for name in settings(device)}
    peaks: dict[str, float] = {}
    for number in range(size.rounds):
        for name, setting in settings(device).items():
            if device == CUDA:
                torch.cuda.reset_peak_memory_stats()
            later = run(**setting)
            seconds[name] += later
            if device == CUDA:
                peaks[name] = torch.cuda.max_memory_allocated() / 2**30
            print(
                f"{style}, round {number + 1}: {name}: {size.batch / statistics.median(later):.1f} rows/s", flush=True
            )
    return {
        name: {"rows_per_second": round(size.batch / statistics.median(found), 2)}
        | ({"peak_gib": round(peaks[name], 2)} if name in peaks else {})
        for name, found in seconds.items()
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small step of everything; writes no result")
    given = parser.parse_args()
    device = CUDA if torch.cuda.is_available() else torch.device("cpu")
    size = QUICK if given.quick else SIZES[device.type]
    found = {style: measure(style, size, device) for style in STYLES}
    summary = {
        style: {
            name: round(one["rows_per_second"] / rates["as it is"]["rows_per_second"], 3) for name, one in rates.items()
        }
        for style, rates in found.items()
    }
    if given.quick:
        print(json.dumps(summary, indent=1))
        return
    out = Path("results/bench") / ("options-cuda.json" if device == CUDA else "options.json")
    write(out, {"summary": summary, "settings": found, "batch": size.batch, "steps": size.steps, "rounds": size.rounds})


if __name__ == "__main__":
    main()
