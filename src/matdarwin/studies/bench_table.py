"""The benchmarks of data, training, number formats, screening and serving as sections of docs/results.md."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from matdarwin.studies.scores import ResultsError

_TRAINERS = {"ours": "matdarwin", "trl": "TRL's SFTTrainer", "trainer": "transformers' Trainer"}


def sections(results: Path) -> list[str]:
    """The benchmarks under a results folder, those that were run.

    Raises:
        ResultsError: A file is no such result.
    """
    made: dict[str, Callable[[dict[str, Any]], str]] = {
        "data": _data, "train": _train, "options": _options, "formats": _formats, "screen": _screen, "serve": _serve,
    }  # fmt: skip
    found = [_section(results / "bench" / f"{name}.json", make) for name, make in made.items()]
    return [section for section in found if section is not None]


def _section(file: Path, make: Callable[[dict[str, Any]], str]) -> str | None:
    if not file.is_file():
        return None
    try:
        return make(json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{file} is no benchmark result: {error!r}; make it again with make bench") from error


def _train(data: dict[str, Any]) -> str:
    summary, machine = data["summary"], data["machine"]
    settings = summary["rows_per_second_by_setting"]
    rows = []
    runs = Counter((run["style"], run["who"], run["format"], run["order"]) for run in data["runs"])
    for style, rates in summary["rows_per_second"].items():
        for who, rate in rates.items():
            form, order = summary["best"][style][who]
            loss = summary["final_loss"][style][form][who]
            rows.append(
                f"| {style} | {_TRAINERS[who]} | {form}, {_order(order)} | {rate:.1f} | {runs[style, who, form, order]} | {loss:.3f} "
                f"| {summary['peak_gib'][style][who]:.1f} |"
            )
        defaults = settings[style]["trl"]["bf16, random"]
        rows.append(
            f"| {style} | TRL's SFTTrainer at its own defaults | bf16, random order | {defaults:.1f} | {runs[style, 'trl', 'bf16', 'random']} | | |"
        )
    batch = next(iter(data["rows"].values()))["batch"]
    longest = ", ".join(f"{style} {rows_of['longest']}" for style, rows_of in data["rows"].items())
    times = "; ".join(
        f"{style} prompts {summary[f'{style}_times_trl']:.1f} times TRL at its defaults "
        f"({settings[style]['ours']['bf16, feed'] / settings[style]['trl']['bf16, random']:.1f} where ours is in bf16 as well), "
        f"{summary[f'{style}_times_trl_tuned']:.1f} times TRL well set, "
        f"{summary[f'{style}_times_trainer']:.1f} times the Trainer"
        for style in summary["rows_per_second"]
    )
    gflops = ", ".join(f"{rate:,.0f} in {form}" for form, rate in summary["matmul_gflops"].items())
    lora = data["lora"]
    low = "; ".join(
        f"{style} prompts {one['whole']['peak_gib']:.1f} GiB and {one['whole']['rows_per_second']:.0f} rows a second with a batch "
        f"at once, {one['parts']['peak_gib']:.1f} GiB and {one['parts']['rows_per_second']:.0f} in parts of {lora['part']} rows"
        for style, one in lora["found"].items()
    )
    return "\n\n".join(
        [
            "## Speed of training",
            f"Full fine-tuning on the same rows of expt_gap in batches of {batch} (longest row in tokens: {longest}); "
            f"{_where(machine)}; medians of the runs that are stated. Each in its faster number format; the loss is that after the same few steps on the same batches.",
            "\n".join(
                [
                    "| prompts | trainer | as set | rows a second | runs | loss | peak GiB |",
                    "| --- | --- | --- | --- | --- | --- | --- |",
                    *rows,
                ]
            ),
            f"Ours: {times}. Matrix products run at {gflops} GFLOP/s here, of which training reaches "
            f"{100 * summary['matmul_share']:.0f} % with compact prompts, in {summary['best']['compact']['ours'][0]}. Peaks are those of the "
            f"training loop with its default options. Low-rank training of batches of {lora['batch']} "
            f"({_where(lora['machine'])}): {low}.",
        ]
    )


def _options(data: dict[str, Any]) -> str:
    settings, shares = data["settings"], data["summary"]
    rows = "\n".join(
        f"| {name} | "
        + " | ".join(
            f"{settings[style][name]['rows_per_second']:.1f} | {shares[style][name]:.2f}" for style in settings
        )
        + " |"
        for name in next(iter(settings.values()))
    )
    heads = " | ".join(f"{style} prompts, rows a second | share" for style in settings)
    return "\n\n".join(
        [
            "### What each option is worth",
            f"Our loop in batches of {data['batch']} in fp32, as it is and with one thing changed at a time; "
            f"{_where(data['machine'])}; medians of {data['rounds'] * data['steps']} steps, all settings in turn.",
            f"| setting | {heads} |\n| --- |{' --- | --- |' * len(settings)}\n{rows}",
        ]
    )


def _formats(data: dict[str, Any]) -> str:
    summary = data["summary"]
    rows = "\n".join(
        f"| {name} | {rate:.1f} | {summary['times_fp32'][name]:.2f} | {summary['mae'][name]:.3f} | "
        + (
            "| |"
            if name == "fp32"
            else f"{cost['mean']:+.3f} ± {cost['standard_error']:.3f} | {summary['moved'][name]:.3f} |"
        )
        for name, rate in summary["rows_per_second"].items()
        for cost in [summary["mae_cost"][name]]
    )
    return "\n\n".join(
        [
            "## Number formats to ask in",
            f"`darwin predict --dtype`, the {data['rows']:,} test rows of {data['task']}'s fold {data['fold']} in batches of "
            f"{data['batch']} with {data['checkpoint']}; {_where(data['machine'])}; each format's fastest of "
            f"{len(data['seconds']['fp32'])} rounds in turn. The cost in MAE is that of the medians, row by row, with its standard error.",
            "| format | rows a second | times fp32 | MAE | cost in MAE | mean move of a median |\n"
            f"| --- | --- | --- | --- | --- | --- |\n{rows}",
        ]
    )


def _data(data: dict[str, Any]) -> str:
    summary, told, audit = data["summary"], data["first"]["told"], data["audit"]
    return "\n\n".join(
        [
            "## Speed of the data layer",
            f"All {told['tasks']} scored tasks, {told['rows']:,} rows, one process of one thread; {data['machine'].get('cpu')}.",
            "\n".join(
                [
                    "| what | seconds | peak GiB |",
                    "| --- | --- | --- |",
                    f"| every file parsed, and every row a prompt with its answer | {summary['first_s']:.1f} | {data['first']['peak_gib']:.2f} |",
                    f"| the same from the kept tables | {summary['prompts_s']:.1f} | {data['second']['peak_gib']:.2f} |",
                    f"| of which loading | {summary['load_s']:.1f} | |",
                    f"| `darwin audit {data['recipe']}`, {audit['pairs']:,} pairs of tasks and folds, {audit['verdict']} | {audit['seconds']:.1f} | {audit['peak_gib']:.2f} |",
                ]
            ),
        ]
    )


def _screen(data: dict[str, Any]) -> str:
    summary, sizes = data["summary"], defaultdict(list)
    for run in data["runs"]:
        sizes[run["rows"]].append(run)
    rows = "\n".join(
        f"| {count:,} | {len(runs)} | {mean(run['peak_mib'] for run in runs):,.0f} "
        f"| {1000 * mean(run['seconds_a_row'] for run in runs):.2f} |"
        for count, runs in sizes.items()
    )
    same = "equals" if summary["identical"] else "DIFFERS FROM"
    return "\n\n".join(
        [
            "## Screening",
            f"What `darwin screen` adds to a model, so with {data['model']}; {data['machine'].get('cpu')}, one thread a run, the "
            "smaller ones beside the largest. Means.",
            f"| rows | runs | peak MiB | ms a row |\n| --- | --- | --- | --- |\n{rows}",
            f"The largest run takes {summary['rss_ratio']:.2f} times the memory of the smallest, and a row of it "
            f"{summary['cost_ratio']:.2f} times the processor time of one in the middle runs. Killed {summary['kills']} times at "
            f"random, its output {same} that of an undisturbed run byte for byte.",
        ]
    )


def _serve(data: dict[str, Any]) -> str:
    summary, crowd = data["summary"], data["overload"]
    ready = " and ".join(f"{seconds:.1f}" for seconds in data["ready_s"])
    rates = ", ".join(
        f"{served:.1f} of {own:.1f}"
        for served, own in zip(data["served_rows_per_s"], data["library_rows_per_s"], strict=True)
    )
    return "\n\n".join(
        [
            "## Serving",
            f"`darwin serve` with {data['model']['base']} and task {data['model']['task']} on {_where(data['machine'])}, which the "
            f"clients share.",
            "\n".join(
                [
                    "| what | measured |",
                    "| --- | --- |",
                    f"| rows a second to 32 clients of one material a request, share of the library's own | {100 * summary['throughput_share']:.0f} % |",
                    f"| one client: median, and 99th percentile over it | {data['p50_ms']:,.0f} ms, {summary['p99_over_p50']:.2f} |",
                    f"| refusals under overload, 99th percentile | {summary['reject_p99_ms']:.0f} ms |",
                    f"| memory after {crowd['minutes']:g} minutes of overload | {100 * summary['rss_growth']:+.1f} % |",
                    f"| requests accepted then; lost, late or wrong among all that were not refused | {summary['accepted']:,}; {summary['lost']:,} |",
                    f"| seconds until ready, of two starts | {ready} |",
                ]
            ),
            f"Rows a second, served and by the library in turn: {rates}. The overload: {crowd['clients']} clients of "
            f"{crowd['rows_a_request']} materials a request; {crowd['refused']:,} requests were refused.",
        ]
    )


def _where(machine: dict[str, Any]) -> str:
    return f"{machine.get('gpu') or machine.get('cpu')}, {machine.get('threads')} threads"


def _order(order: str) -> str:
    return {"feed": "our batches", "length": "strictly by length", "random": "random order"}[order]
