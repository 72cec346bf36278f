"""Rows per second of three ways to train one model, in one run: this package, TRL's SFTTrainer, and the plain transformers Trainer.

The same base model, the same rows of expt_gap's fold 0 training set, the same optimiser and rates; each run in a process of
its own, taking turns. What was made fair for the trainers: only the answer has a loss, nothing is cut off, nothing is
recomputed to save memory, batches hold rows of like length, nothing is logged, evaluated or stored.

In the first round everybody trains on the very same batches, in fp32 and in bf16: there losses are compared. The later
rounds have us and TRL alone, each in the format that was the faster for it, and TRL with the timed rows put into batches
strictly by length, as its own grouping would, which leaves it less padding than our batches do. Rates are those of the steps
after the first ones, medians over the rounds. `times_trl` is against TRL as it comes (bf16, every layer recomputed on the way
back, rows in a random order), only that the prompt has no loss and nothing is cut off; it is measured once. `times_trl_tuned`
and `times_trainer` are against the setting that is the best for each of them, which is what somebody who measures would use.

Low-rank training is measured for its memory: with a batch at once, and with its rows in parts whose gradients are added.

The trainers run in an environment of their own (.cache/bench-trl, made here), which shares this one's torch and transformers.
Writes results/bench/train.json.

    python benchmarks/train.py            # half an hour on two cores with nothing else to do
    python benchmarks/train.py --lora     # low-rank training alone, two minutes; the other runs stay as they are
    python benchmarks/train.py --quick    # two steps of everything, to see that it works; writes nothing to results
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

OUT = Path("results/bench/train.json")
HERE = Path(__file__).resolve().parent
PINS = ("trl==1.16.0", "datasets==5.2.0", "dill==0.4.1", "multiprocess==0.70.19", "xxhash==4.1.0")
"""What the trainers need beyond this package's own environment."""
TASK = "expt_gap"
STYLES = ("compact", "alpaca")
FORMATS = ("fp32", "bf16")
OURS, TRL, PLAIN = "ours", "trl", "trainer"
ORDERS = ("feed", "length", "random")
PARTS = 4
"""Rows of which low-rank training adds the gradients, where it is to need little memory."""
WHOLE = {"micro_tokens": 1_000_000}
"""Keys of a recipe by which a batch is run at once, however long."""
SHAPE = (512, 576, 1536)
"""Rows, inputs and outputs of the matrix product that the machine is judged by: the base's widest, at 512 tokens."""


@dataclass(frozen=True)
class Size:
    """How much is run: rows a batch, steps that only warm up, steps that are timed by style, and rounds."""

    batch: int
    warm: int
    steps: Mapping[str, int]
    rounds: int


FULL = Size(batch=32, warm=2, steps={"compact": 8, "alpaca": 4}, rounds=3)
QUICK = Size(batch=2, warm=1, steps={"compact": 1, "alpaca": 1}, rounds=1)


@dataclass(frozen=True)
class Run:
    """One training, as measured.

    Attributes:
        who: ours, trl or trainer.
        style: Layout of the questions.
        format: Number format that was computed in.
        order: feed: in our feed's batches; length: in batches strictly by length; random: in a random order, and all else
            at TRL's defaults.
        rate: Rows a second.
        losses: Loss of each step.
        peak_gib: Greatest resident memory of the process.
        flop: Useful operations a second.
    """

    who: str
    style: str
    format: str
    order: str
    rate: float
    losses: tuple[float, ...]
    peak_gib: float
    flop: float


# --- Ours --------------------------------------------------------------------------------------------------------------


def feed_of(style_name: str, batch: int) -> Any:
    """The package's feed of the benchmark's rows, and its options."""
    from matdarwin.language.prompts import Encoder, style
    from matdarwin.models.base import DEFAULT_BASE, find_base, load_tokenizer
    from matdarwin.tasks import registry
    from matdarwin.training.feed import Feed
    from matdarwin.training.recipe import split_of
    from matdarwin.training.recipe_files import load_recipe

    recipe = load_recipe("recipes/base-st.yaml", [f"tasks=[{TASK}]", f"prompting.style={style_name}"])
    task = registry.load(TASK)
    encoder = Encoder(load_tokenizer(find_base(DEFAULT_BASE).folder))
    return Feed(
        {task.id: split_of(recipe, [task]).train[task.id]}, [task], encoder=encoder, style=style(style_name),
        prompting=recipe.prompting, sampling=recipe.sampling, batch_size=batch, seed=0,
    )  # fmt: skip


def options_of(**bounds: int | None) -> Any:
    """How weights are moved: the package's defaults, with a batch in other parts where that is asked."""
    from matdarwin.training.options import Optimising

    return Optimising(**bounds)


def ours(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train with the package's own loop: all that this benchmark asks of it stands here.

    Args:
        job: What to do; `method` is full or lora, `bounds` are keys of the recipe.
    """
    import torch

    from matdarwin.models.base import load_model
    from matdarwin.training.loop import Loop
    from matdarwin.training.options import Lora
    from matdarwin.training.words import UsedWords

    feed, options = feed_of(job["style"], job["batch"]), options_of(**job["bounds"])
    model = load_model(Path(job["base"]), dtype=torch.float32)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    told: dict[str, Any] = {
        "matrices": sum(m.weight.numel() for m in linear),
        "vocabulary": head.weight.shape[0],
        "width": head.weight.shape[1],
    }
    words = None
    if job["method"] == "lora":
        from peft import LoraConfig, get_peft_model

        lora = Lora()
        model = get_peft_model(
            model,
            LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM"),
        )
    else:
        used = feed.vocabulary()
        words, told["used"] = UsedWords(model, used), len(used)
    loop = Loop(
        model, options, len(job["rates"]), autocast=torch.bfloat16 if job["format"] == "bf16" else None, words=words
    )
    ends, losses = [], []
    for rows in itertools.islice(feed.batches(), len(job["rates"])):
        losses.append(loop.step(rows).loss)
        ends.append(time.perf_counter())
    return told | {"ends": ends, "losses": losses}


# --- What is counted -----------------------------------------------------------------------------------------------------


def useful_flop(batch: Sequence[Mapping[str, Sequence[int]]], who: str, model: Mapping[str, int]) -> float:
    """Operations of a step that training cannot do without, and that are really done: no padding, no products of attention.

    Six for each weight of the matrices and each token: two on the way forward, four on the way back. Tokens that all rows
    begin with count once for us, who run them once. The output layer counts at the answers' positions only; its own gradient
    counts for the rows that move, which for us are those of `used` words.

    Args:
        batch: Rows with `prompt` and `answer` as token ids.
        who: Who trains.
        model: `matrices`, `vocabulary`, `width`, `used`.
    """
    tokens = sum(len(row["prompt"]) + len(row["answer"]) - 1 for row in batch)
    if who == OURS:
        tokens -= (len(batch) - 1) * shared([row["prompt"] for row in batch])
    judged = sum(len(row["answer"]) for row in batch)
    moved = model["used"] if who == OURS else model["vocabulary"]
    return 6.0 * model["matrices"] * tokens + judged * model["width"] * (4.0 * model["vocabulary"] + 2.0 * moved)


def shared(prompts: Sequence[Sequence[int]]) -> int:
    """Number of tokens that all prompts begin with, their last ones aside."""
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return min(sum(1 for _ in columns), min(map(len, prompts)) - 1)


def padding(batches: Sequence[Sequence[Mapping[str, Sequence[int]]]]) -> float:
    """Share of a trainer's positions that hold no token."""
    lengths = [[len(row["prompt"]) + len(row["answer"]) for row in rows] for rows in batches]
    return 1 - sum(map(sum, lengths)) / sum(len(rows) * max(rows) for rows in lengths)


def reordered(batches: Sequence[Any], warm: int, order: str) -> list[Any]:
    """The batches, with the rows of those after the warm-up put together anew: by `length`, at `random`, or as they were."""
    rows = list(itertools.chain.from_iterable(batches[warm:]))
    if order == "length":
        rows.sort(key=lambda row: len(row["prompt"]) + len(row["answer"]))
    elif order == "random":
        random.Random(0).shuffle(rows)
    size = len(batches[0])
    return [*batches[:warm], *(rows[start : start + size] for start in range(0, len(rows), size))]


def run_of(
    job: Mapping[str, Any],
    told: Mapping[str, Any],
    batches: Sequence[Sequence[Mapping[str, Sequence[int]]]],
    model: Mapping[str, int],
) -> Run:
    """A measurement from what a process tells: the steps after the warm-up, over the time from the warm-up's end to theirs."""
    warm, ends = job["warm"], told["ends"]
    if len(ends) != len(batches):
        raise SystemExit(f"{job['who']} made {len(ends)} steps of {len(batches)}")
    seconds = ends[-1] - ends[warm - 1]
    timed = batches[warm:]
    return Run(
        job["who"], job["style"], job["format"], job["order"], sum(map(len, timed)) / seconds, tuple(told["losses"]),
        told["peak_gib"], sum(useful_flop(rows, job["who"], model) for rows in timed) / seconds,
    )  # fmt: skip


Setting = tuple[str, str, str, str]
"""Who, style, format, order."""


def medians(runs: Sequence[Run], what: str) -> dict[Setting, float]:
    """The median of an attribute over the rounds, by setting."""
    found: dict[Setting, list[float]] = {}
    for run in runs:
        found.setdefault((run.who, run.style, run.format, run.order), []).append(getattr(run, what))
    return {setting: statistics.median(values) for setting, values in found.items()}


def fastest(runs: Sequence[Run], who: str, style: str) -> Setting:
    """The setting in which somebody trains the fastest."""
    rates = medians([run for run in runs if (run.who, run.style) == (who, style)], "rate")
    return max(rates, key=lambda setting: rates[setting])


def first_settings(who: str) -> list[tuple[str, str]]:
    """Formats and orders of somebody's first round."""
    return [*((form, "feed") for form in FORMATS), *([("bf16", "random")] if who == TRL else [])]


def later_settings(runs: Sequence[Run], who: str, style: str) -> list[tuple[str, str]]:
    """Formats and orders of somebody's later rounds."""
    return [(fastest(runs, who, style)[2], "length" if who == TRL else "feed")]


def summarise(
    runs: Sequence[Run], gflops: Mapping[str, float], lora: Mapping[str, Mapping[str, Mapping[str, float]]], last: int
) -> dict[str, Any]:
    """The benchmark's summary.

    Args:
        runs: All full trainings.
        gflops: Measured rate of matrix products by number format, 10^9 operations a second.
        lora: Peak memory (`peak_gib`) of training with LoRA by style, and there for a batch at once (`whole`) or in `parts`.
        last: Steps at the end that a final loss is the mean of.
    """
    rates, flop, peaks = medians(runs, "rate"), medians(runs, "flop"), medians(runs, "peak_gib")
    styles = list(dict.fromkeys(run.style for run in runs))
    everybody = list(dict.fromkeys(run.who for run in runs))
    best = {style: {who: fastest(runs, who, style) for who in everybody} for style in styles}

    def table(values: Mapping[Setting, float]) -> dict[str, dict[str, float]]:
        return {style: {who: values[best[style][who]] for who in everybody} for style in styles}

    speed, peak = table(rates), table(peaks)
    shares = table({setting: value / (gflops[setting[2]] * 1e9) for setting, value in flop.items()})
    losses: dict[str, dict[str, dict[str, float]]] = {style: {} for style in styles}
    for run in runs:
        # The same batches in the same order; only there is one step's loss comparable with another's.
        if run.order == "feed":
            losses[run.style].setdefault(run.format, {})[run.who] = statistics.mean(run.losses[-last:])
    summary: dict[str, Any] = {}
    for style in styles:
        summary[f"{style}_times_trl"] = speed[style][OURS] / rates[TRL, style, "bf16", "random"]
        summary[f"{style}_times_trl_tuned"] = speed[style][OURS] / speed[style][TRL]
        summary[f"{style}_times_trainer"] = speed[style][OURS] / speed[style][PLAIN]
    return summary | {
        "matmul_share": shares["compact"][OURS],
        "full_peak_gib": max(peak[style][OURS] for style in styles),
        "lora_peak_gib": max(one["parts"]["peak_gib"] for one in lora.values()),
        "final_loss": losses,
        "rows_per_second": speed,
        "best": {style: {who: best[style][who][2:] for who in everybody} for style in styles},
        "rows_per_second_by_setting": {
            style: {
                who: {
                    f"{form}, {order}": rates[w, s, form, order]
                    for w, s, form, order in rates
                    if (w, s) == (who, style)
                }
                for who in everybody
            }
            for style in styles
        },
        "peak_gib": {
            style: peak[style]
            | {"lora": lora[style]["whole"]["peak_gib"], "lora_in_parts": lora[style]["parts"]["peak_gib"]}
            for style in styles
        },
        "matmul_shares": shares,
        "matmul_gflops": dict(gflops),
    }


# --- Processes -----------------------------------------------------------------------------------------------------------


def environment() -> Path:
    """The trainers' environment, made where it is not there yet; returns its interpreter."""
    from matdarwin.data import sources

    folder = sources.cache() / "bench-trl"
    python = folder / "bin" / "python"
    stamp = folder / "pins"
    own = sysconfig.get_paths()["purelib"]
    wanted = "\n".join([*PINS, own])
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"making {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    inside = next(folder.glob("lib/python*/site-packages"))
    # A plain path: torch and transformers are found there, but this package, whose own .pth is not followed, is not.
    (inside / "shared.pth").write_text(own + "\n")
    subprocess.run([python, "-m", "pip", "install", "-qq", "--no-deps", *PINS], check=True)
    stamp.write_text(wanted)
    return python


def product_rates() -> dict[str, float]:
    """Measured rate of matrix products by number format, 10^9 operations a second: the best of many."""
    import torch

    rows, inputs, outputs = SHAPE
    found = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = torch.randn(rows, inputs).to(kind), torch.randn(outputs, inputs).to(kind)
        seconds = []
        for _ in range(100):
            began = time.perf_counter()
            torch.nn.functional.linear(left, right)
            seconds.append(time.perf_counter() - began)
        found[name] = 2 * rows * inputs * outputs / min(seconds) / 1e9
    return found


def child(file: Path) -> None:
    """Do one job in this process and write what it tells."""
    from matdarwin.models.base import device_and_dtype

    sys.path.insert(0, str(HERE))
    job = json.loads(file.read_text())
    if job["who"] == "rate":
        told: dict[str, Any] = {"gflops": product_rates(), "auto": str(device_and_dtype("auto", training=True)[1])}
    else:
        told = ours(job)
    lines = Path("/proc/self/status").read_text().splitlines()
    told["peak_gib"] = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20
    file.with_suffix(".out").write_text(json.dumps(told))


def start(job: Mapping[str, Any], python: Path, work: Path) -> dict[str, Any]:
    """Run a job in a process of its own and return what it tells."""
    file = work / "job.json"
    file.write_text(json.dumps(job))
    own = job["who"] in (OURS, "rate")
    command = (
        [sys.executable, str(HERE / "train.py"), "--job", str(file)]
        if own
        else [str(python), str(HERE / "peers.py"), str(file)]
    )
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{job} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    told: dict[str, Any] = json.loads(file.with_suffix(".out").read_text())
    return told | {"seconds": time.perf_counter() - began}


def job_of(style: str, size: Size) -> dict[str, Any]:
    """What everybody is asked to do."""
    from matdarwin.models.base import DEFAULT_BASE, find_base
    from matdarwin.training.schedule import learning_rate

    options, total = options_of(), size.warm + size.steps[style]
    return {
        "style": style, "base": str(find_base(DEFAULT_BASE).folder), "batch": size.batch, "warm": size.warm,
        "method": "full", "bounds": {}, "rates": [learning_rate(step, total, options) for step in range(total)],
        "betas": options.betas, "weight_decay": options.weight_decay, "clip": options.clip,
    }  # fmt: skip


def measure_lora(size: Size, work: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Peak memory in GiB and rows a second of low-rank training in fp32, by style and for a batch at once or in parts."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for style in STYLES:
        job = job_of(style, size) | {"who": OURS, "format": "fp32", "method": "lora"}
        for name, bounds in (("whole", WHOLE), ("parts", {"micro_batch": PARTS})):
            told = start(job | {"bounds": bounds}, Path(sys.executable), work)
            ends, warm = told["ends"], size.warm
            rate = size.batch * (len(ends) - warm) / (ends[-1] - ends[warm - 1])
            found.setdefault(style, {})[name] = {"peak_gib": told["peak_gib"], "rows_per_second": rate}
            print(f"{style} low-rank, {name}: {rate:.1f} rows/s, {told['peak_gib']:.2f} GiB", flush=True)
    return found


def measure(size: Size, python: Path, work: Path) -> dict[str, Any]:
    """All but low-rank training, in turns."""
    batches, jobs = {}, {}
    for style in STYLES:
        jobs[style] = job_of(style, size)
        encoded = itertools.islice(feed_of(style, size.batch).batches(), len(jobs[style]["rates"]))
        rows = [[{"prompt": list(r.prompt), "answer": list(r.answer)} for r in rows] for rows in encoded]
        for order in ORDERS:
            batches[style, order] = reordered(rows, size.warm, order)
            (work / f"{style}-{order}.json").write_text(json.dumps(batches[style, order]))
    rated: list[dict[str, Any]] = []
    runs: list[Run] = []
    versions: dict[str, str] = {}
    model: dict[str, int] = {}
    for turn in range(size.rounds):
        rated.append(start({"who": "rate"}, python, work))
        for style, who in itertools.product(STYLES, (OURS, TRL, PLAIN) if turn == 0 else (OURS, TRL)):
            for form, order in later_settings(runs, who, style) if turn else first_settings(who):
                file = work / f"{style}-{order}.json"
                job = jobs[style] | {"who": who, "format": form, "order": order, "batches": str(file)}
                told = start(job, python, work)
                if who == OURS:
                    model = {key: told[key] for key in ("matrices", "vocabulary", "width", "used")}
                versions |= told.get("versions", {})
                runs.append(run_of(job, told, batches[style, order], model))
                print(
                    f"{style} {who} {form} {order}: {runs[-1].rate:.1f} rows/s, loss {runs[-1].losses[-1]:.3f}, "
                    f"{runs[-1].peak_gib:.1f} GiB ({told['seconds']:.0f} s in all)",
                    flush=True,
                )
    return {
        "runs": [vars(run) for run in runs],
        "summary": {"matmul_gflops": {form: max(one["gflops"][form] for one in rated) for form in FORMATS}},
        "auto": rated[0]["auto"].removeprefix("torch."),
        "rows": {
            style: {
                "batch": size.batch,
                "warm_steps": size.warm,
                "timed_steps": size.steps[style],
                "longest": max(
                    len(row["prompt"]) + len(row["answer"]) for rows in batches[style, "feed"] for row in rows
                ),
                "padding": {order: padding(batches[style, order][size.warm :]) for order in ORDERS},
            }
            for style in STYLES
        },
        "rounds": size.rounds,
        "versions": versions | {"matdarwin": version("matdarwin"), "peft": version("peft")},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two steps of everything; prints, and writes no result")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lora", action="store_true", help="measure low-rank training alone, beside the runs on file")
    given = parser.parse_args()
    if given.job:
        child(given.job)
        return
    from matdarwin.training.provenance import commit, machine

    size, began = QUICK if given.quick else FULL, time.perf_counter()
    code = {"commit": commit(), "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if given.lora:
            found = json.loads(OUT.read_text(encoding="utf-8"))
        else:
            found = measure(size, environment(), work) | code | {"seconds": round(time.perf_counter() - began)}
        found["lora"] = {"batch": size.batch, "part": PARTS, "found": measure_lora(size, work)} | code
    runs, last = [Run(**run) for run in found["runs"]], max(1, min(size.steps.values()) // 2)
    summary = summarise(runs, found["summary"]["matmul_gflops"], found["lora"]["found"], last)
    print(json.dumps(summary, indent=1))
    if given.quick:
        return
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found | {"format": 2, "summary": summary}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
