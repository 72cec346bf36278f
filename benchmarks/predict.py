"""Rows per second of three ways to ask one model, in one run: what the exact distribution costs and saves.

(a) DARWIN's way: one row at a time, `generate` with sampling (temperature 0.8, top-p 0.75, top-k 40), up to 250 tokens.
(b) Plain batched `generate`, greedy.
(c) Ours: the whole distribution over the answers.

One checkpoint a prompt style, the rows of expt_gap's fold 0 test, the same number format for all; (b) and (c) each at
their best batch of 16, 64 or 256. Writes results/bench/predict.json.

    python benchmarks/predict.py            # trains what is missing (recipes/base-st.yaml, recipes/bench-alpaca.yaml), then measures
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from matdarwin.language.answers import parse_answer
from matdarwin.models.base import device_and_dtype
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.provenance import commit, machine
from matdarwin.training.recipe import Recipe
from matdarwin.training.recipe_files import load_recipe
from matdarwin.training.run import split_of, train

BATCHES = (16, 64, 256)
OUT = Path("results/bench/predict.json")


class Lines:
    """A report as plain lines."""

    def begin(self, text: str, total: int) -> None:
        """Say what begins."""
        print(f"{text} ({total})", flush=True)

    def step(self, done: int, text: str) -> None:
        """Say nothing: a line a step would be too many."""

    def say(self, text: str) -> None:
        """Say it."""
        print(text, flush=True)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work returns, and its seconds."""
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began


def error(task: Task, test: Sequence[Example], texts: Sequence[str]) -> tuple[float | None, int]:
    """Mean absolute error of generated texts over those that can be read, and the number of those that cannot."""
    readings = [parse_answer(task, text).value for text in texts]
    read = [
        abs(float(v) - float(e.target))
        for v, e in zip(readings, test, strict=True)
        if v is not None and e.target is not None
    ]
    return (sum(read) / len(read) if read else None), len(readings) - len(read)


@torch.inference_mode()
def generate(model: Any, tokenizer: Any, prompts: Sequence[str], size: int, **options: Any) -> list[str]:
    """Generate answers in batches of like length."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        batch = tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True).to(model.device)
        out = model.generate(**batch, pad_token_id=tokenizer.pad_token_id, **options)
        for i, row in zip(chosen, out[:, batch.input_ids.shape[1] :], strict=True):
            texts[i] = tokenizer.decode(row, skip_special_tokens=True)
    return texts


def measure(checkpoint: Checkpoint, recipe: Recipe, dtype: str, every: int) -> dict[str, Any]:
    """All three ways on one checkpoint."""
    task = registry.load("expt_gap")
    test = split_of(recipe, [task]).test[task.id]
    device, number_format = device_and_dtype(dtype, training=False)  # type: ignore[arg-type]
    model = checkpoint.model(number_format).to(device).eval()
    tokenizer = checkpoint.tokenizer()
    tokenizer.padding_side = "left"
    predictor = Predictor.of(checkpoint, dtype=dtype, views=1)  # type: ignore[arg-type]
    prompts = [predictor.prompt(task, example) for example in test]
    found: dict[str, Any] = {"checkpoint": checkpoint.name, "rows": len(test)}
    generate(model, tokenizer, prompts[:8], 8, do_sample=False, max_new_tokens=4)
    torch.manual_seed(0)
    some = list(range(0, len(test), every))
    texts, seconds = timed(
        lambda: generate(
            model,
            tokenizer,
            [prompts[i] for i in some],
            1,
            do_sample=True,
            temperature=0.8,
            top_p=0.75,
            top_k=40,
            max_new_tokens=250,
        )
    )
    mae, unread = error(task, [test[i] for i in some], texts)
    found["sampling"] = {"rows_per_second": len(some) / seconds, "rows": len(some), "mae": mae, "unread": unread}
    print(f"(a) {len(some) / seconds:.1f} rows/s", flush=True)
    greedy = {}
    for size in BATCHES:
        texts, seconds = timed(
            lambda size=size: generate(model, tokenizer, prompts, size, do_sample=False, max_new_tokens=250)
        )
        mae, unread = error(task, test, texts)
        greedy[size] = {"rows_per_second": len(test) / seconds, "mae": mae, "unread": unread}
        print(f"(b) batch {size}: {len(test) / seconds:.1f} rows/s", flush=True)
    ours = {}
    for size in BATCHES:
        predictor.batch_size = size
        answers, seconds = timed(lambda: predictor.distributions(task, test))
        errors = [
            abs(a.median() - float(e.target))
            for a, e in zip(answers, test, strict=True)
            if a is not None and e.target is not None
        ]
        ours[size] = {
            "rows_per_second": len(test) / seconds,
            "mae": sum(errors) / len(errors),
            "unread": len(test) - len(errors),
            "unexpanded": sum(a.unexpanded for a in answers if a) / len(test),
            "outside": sum(a.outside for a in answers if a) / len(test),
            "assumed_ends": sum(a.assumed_ends for a in answers if a) / len(test),
        }
        print(f"(c) batch {size}: {len(test) / seconds:.1f} rows/s", flush=True)
    found["greedy"], found["ours"] = greedy, ours
    return found


def best(found: dict[int, dict[str, Any]]) -> float:
    """Rows per second at the best batch."""
    return float(max(entry["rows_per_second"] for entry in found.values()))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"], help="number format of all three ways")
    parser.add_argument(
        "--every", type=int, default=4, help="measure (a) on every n-th row; its rate does not depend on their number"
    )
    given = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    styles = {}
    for name, file in (("compact", "recipes/base-st.yaml"), ("alpaca", "recipes/bench-alpaca.yaml")):
        recipe = load_recipe(file)
        styles[name] = measure(train(recipe, report=Lines()), recipe, given.dtype, given.every)
    rates = {
        name: {"sampling": s["sampling"]["rows_per_second"], "generate": best(s["greedy"]), "ours": best(s["ours"])}
        for name, s in styles.items()
    }
    summary = {
        "times_sampling": rates["compact"]["ours"] / rates["compact"]["sampling"],
        "times_sampling_alpaca": rates["alpaca"]["ours"] / rates["alpaca"]["sampling"],
        "times_generate_compact": rates["compact"]["ours"] / rates["compact"]["generate"],
        "times_generate_alpaca": rates["alpaca"]["ours"] / rates["alpaca"]["generate"],
        "rows_per_second": rates,
        "dtype": given.dtype,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        json.dumps(
            {"format": 1, "summary": summary, "styles": styles, "commit": commit(), "machine": machine()}, indent=1
        )
        + "\n"
    )
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
