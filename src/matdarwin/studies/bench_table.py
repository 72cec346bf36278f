"""The benchmark of training as a section of docs/results.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matdarwin.studies.scores import ResultsError

_TRAINERS = {"ours": "matdarwin", "trl": "TRL's SFTTrainer", "trainer": "transformers' Trainer"}


def section(results: Path) -> str | None:
    """The benchmark under a results folder; None where it was not run.

    Raises:
        ResultsError: The file is no such result.
    """
    file = results / "bench" / "train.json"
    if not file.is_file():
        return None
    try:
        return _section(json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{file} is no benchmark result: {error!r}; make it again with make bench") from error


def _section(data: dict[str, Any]) -> str:
    summary, machine = data["summary"], data["machine"]
    rows = []
    for style, rates in summary["rows_per_second"].items():
        for who, rate in rates.items():
            form, order = summary["best"][style][who]
            loss = summary["final_loss"][style][form][who]
            rows.append(
                f"| {style} | {_TRAINERS[who]} | {form}, {_order(order)} | {rate:.1f} | {loss:.3f} "
                f"| {summary['peak_gib'][style][who]:.1f} |"
            )
        defaults = summary["rows_per_second_by_setting"][style]["trl"]["bf16, random"]
        rows.append(f"| {style} | TRL's SFTTrainer at its own defaults | bf16, random order | {defaults:.1f} | | |")
    batch = next(iter(data["rows"].values()))["batch"]
    longest = ", ".join(f"{style} {rows_of['longest']}" for style, rows_of in data["rows"].items())
    times = "; ".join(
        f"{style} prompts {summary[f'{style}_times_trl']:.1f} times TRL well set, "
        f"{summary[f'{style}_times_trl_defaults']:.1f} times TRL at its defaults, "
        f"{summary[f'{style}_times_trainer']:.1f} times the Trainer"
        for style in summary["rows_per_second"]
    )
    gflops = ", ".join(f"{rate:,.0f} in {form}" for form, rate in summary["matmul_gflops"].items())
    lora = max(peaks["lora"] for peaks in summary["peak_gib"].values())
    return "\n\n".join(
        [
            "## Speed of training",
            f"Full fine-tuning on the same rows of expt_gap in batches of {batch} (longest row in tokens: {longest}); "
            f"{machine.get('gpu') or machine.get('cpu')}, {machine.get('threads')} threads; medians of {data['rounds']} rounds, "
            f"the plain Trainer's of one. Each in its faster number format; the loss is that after the same few steps on the same batches.",
            "\n".join(
                [
                    "| prompts | trainer | as set | rows a second | loss | peak GiB |",
                    "| --- | --- | --- | --- | --- | --- |",
                    *rows,
                ]
            ),
            f"Ours: {times}. Matrix products run at {gflops} GFLOP/s here, of which training reaches "
            f"{100 * summary['matmul_share']:.0f} % with compact prompts. Low-rank training peaks at {lora:.1f} GiB.",
        ]
    )


def _order(order: str) -> str:
    return {"feed": "our batches", "length": "strictly by length", "random": "random order"}[order]
