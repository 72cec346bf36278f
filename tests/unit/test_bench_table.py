"""The benchmarks as sections."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.formats import summarise

from matdarwin.studies import bench_table
from matdarwin.studies.scores import ResultsError

TRAINERS = ("ours", "trl", "trainer")


def put(root: Path, text: str, name: str = "train") -> None:
    (root / "bench").mkdir(parents=True, exist_ok=True)
    (root / "bench" / f"{name}.json").write_text(text)


def result() -> dict[str, object]:
    """Numbers of our own, all different."""
    styles = ("compact", "alpaca")
    summary = {
        "rows_per_second": {style: {who: 10.0 * n + k for k, who in enumerate(TRAINERS)} for n, style in enumerate(styles, 2)},
        "best": {style: {"ours": ["fp32", "feed"], "trl": ["fp32", "length"], "trainer": ["bf16", "feed"]} for style in styles},
        "final_loss": {style: {form: dict.fromkeys(TRAINERS, 0.5) for form in ("fp32", "bf16")} for style in styles},
        "peak_gib": {style: dict.fromkeys(TRAINERS, 3.3) for style in styles},
        "rows_per_second_by_setting": {style: {"ours": {"bf16, feed": 13.0}, "trl": {"bf16, random": 3.25}} for style in styles},
        "matmul_share": 0.53, "matmul_gflops": {"fp32": 330.0, "bf16": 180.0},
    }  # fmt: skip
    for style, times in (("compact", 2.4), ("alpaca", 8.5)):
        summary |= {f"{style}_times_trl": 6.5, f"{style}_times_trl_tuned": times, f"{style}_times_trainer": 1.9}
    low = {"whole": {"peak_gib": 2.3, "rows_per_second": 17.2}, "parts": {"peak_gib": 1.7, "rows_per_second": 12.9}}
    lora = {"batch": 32, "part": 4, "found": dict.fromkeys(styles, low), "machine": {"cpu": "another", "threads": 1}}
    rows = {style: {"batch": 32, "longest": 40} for style in styles}
    keys = ("who", "style", "format", "order")
    runs = [
        dict(zip(keys, (who, style, form, order), strict=True))
        for style in styles
        for who, form, order in (("ours", "fp32", "feed"), ("ours", "fp32", "feed"), ("trl", "fp32", "length"))
    ]
    runs += [dict(zip(keys, ("trl", "compact", "bf16", "random"), strict=True))]
    return {"summary": summary, "machine": {"cpu": "a CPU", "threads": 2}, "rows": rows, "runs": runs, "lora": lora}


def test_every_trainer_has_its_line(tmp_path: Path) -> None:
    put(tmp_path, json.dumps(result()))
    (text,) = bench_table.sections(tmp_path)
    assert "| compact | TRL's SFTTrainer | fp32, strictly by length | 21.0 | 1 | 0.500 | 3.3 |" in text
    assert "| alpaca | matdarwin | fp32, our batches | 30.0 | 2 | 0.500 | 3.3 |" in text
    assert "| compact | TRL's SFTTrainer at its own defaults | bf16, random order | 3.2 | 1 |" in text
    assert (
        "compact prompts 6.5 times TRL at its defaults (4.0 where ours is in bf16 as well), 2.4 times TRL well set"
        in text
    )
    told = "2.3 GiB and 17 rows a second with a batch at once, 1.7 GiB and 13 in parts of 4 rows"
    assert f"batches of 32 (another, 1 threads): compact prompts {told}; alpaca prompts {told}." in text
    assert "53 % with compact prompts, in fp32" in text and "medians of the runs that are stated" in text


def test_what_is_not_there_has_no_section_and_what_is_broken_is_named(tmp_path: Path) -> None:
    assert bench_table.sections(tmp_path) == []
    for name in ("data", "train", "options", "screen", "serve"):
        put(tmp_path, "{}", name)
        with pytest.raises(ResultsError, match=rf"{name}\.json is no benchmark result"):
            bench_table.sections(tmp_path)
        (tmp_path / "bench" / f"{name}.json").unlink()


def test_options_and_data(tmp_path: Path) -> None:
    machine = {"cpu": "a CPU", "threads": 2}
    rates = {"as it is": 20.0, "padded rows": 18.0}
    settings = {
        style: {name: {"rows_per_second": rate - n} for name, rate in rates.items()}
        for n, style in enumerate(("compact", "alpaca"))
    }
    shares = {style: {"as it is": 1.0, "padded rows": 0.9} for style in settings}
    put(tmp_path, json.dumps({"summary": shares, "settings": settings, "batch": 32, "steps": 3, "rounds": 2, "machine": machine}), "options")  # fmt: skip
    summary = {"first_s": 31.25, "load_s": 1.5, "prompts_s": 2.75}
    audit = {"seconds": 41.5, "peak_gib": 0.75, "pairs": 1234, "verdict": "CLEAN"}
    run = {"peak_gib": 1.25, "told": {"tasks": 22, "rows": 12345}}
    put(tmp_path, json.dumps({"summary": summary, "first": run, "second": run, "audit": audit, "recipe": "r.yaml", "machine": machine}), "data")  # fmt: skip
    data, options = bench_table.sections(tmp_path)
    assert "| padded rows | 18.0 | 0.90 | 17.0 | 0.90 |" in options and "medians of 6 steps" in options
    assert "All 22 scored tasks, 12,345 rows" in data and "| of which loading | 1.5 | |" in data
    assert "`darwin audit r.yaml`, 1,234 pairs of tasks and folds, CLEAN | 41.5 | 0.75 |" in data


def test_what_a_number_format_costs_is_taken_row_by_row(tmp_path: Path) -> None:
    targets = np.array([0.0, 1.0, 2.0, 3.0])
    medians = {"fp32": targets + 0.5, "int8": targets + np.array([0.5, 0.5, 0.5, 0.9])}
    summary = summarise({"fp32": [4.0, 2.0], "int8": [1.0, 3.0]}, medians, targets)
    assert summary["rows_per_second"] == {"fp32": 2.0, "int8": 4.0} and summary["times_fp32"]["int8"] == 2.0
    assert summary["mae"]["int8"] == pytest.approx(0.6) and summary["moved"]["int8"] == pytest.approx(0.1)
    assert summary["mae_cost"]["int8"] == {"mean": pytest.approx(0.1), "standard_error": pytest.approx(0.1)}
    run = {"summary": summary, "rows": 4, "task": "a_task", "fold": 2, "batch": 64, "checkpoint": "one", "machine": {"cpu": "a CPU", "threads": 2}}  # fmt: skip
    put(tmp_path, json.dumps({**run, "seconds": {"fp32": [4.0, 2.0]}}), "formats")
    (text,) = bench_table.sections(tmp_path)
    assert "| fp32 | 2.0 | 1.00 | 0.500 | | |" in text
    assert "| int8 | 4.0 | 2.00 | 0.600 | +0.100 ± 0.100 | 0.100 |" in text


def test_a_screen_and_a_server(tmp_path: Path) -> None:
    machine = {"cpu": "a CPU", "threads": 2}
    runs = [{"rows": n, "peak_mib": 500.0 + n, "seconds_a_row": 0.0125} for n in (10, 1000)]
    screened = {"rss_ratio": 1.03, "cost_ratio": 0.97, "kills": 10, "identical": False}
    put(tmp_path, json.dumps({"summary": screened, "runs": runs, "model": "a model", "machine": machine}), "screen")
    served = {
        "summary": {
            "throughput_share": 0.815, "p99_over_p50": 1.25, "reject_p99_ms": 45.6, "rss_growth": -0.012, "accepted": 1234, "lost": 5,
        },
        "library_rows_per_s": [12.0, 14.0], "served_rows_per_s": [10.0, 11.5], "p50_ms": 321.0, "ready_s": [11.0, 12.5],
        "overload": {"minutes": 10.0, "clients": 64, "rows_a_request": 8, "refused": 4321},
        "model": {"base": "a base", "task": "a_task"}, "machine": machine,
    }  # fmt: skip
    put(tmp_path, json.dumps(served), "serve")
    screen, serve = bench_table.sections(tmp_path)
    assert "| 1,000 | 1 | 1,500 | 12.50 |" in screen and "DIFFERS FROM" in screen and "1.03 times the memory" in screen
    for part in (
        "| 82 % |",
        "| 321 ms, 1.25 |",
        "| 46 ms |",
        "| -1.2 % |",
        "| 1,234; 5 |",
        "| 11.0 and 12.5 |",
        "10.0 of 12.0",
    ):
        assert part in serve
