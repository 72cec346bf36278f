"""The benchmark of training as a section."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matdarwin.studies import bench_table
from matdarwin.studies.scores import ResultsError

TRAINERS = ("ours", "trl", "trainer")


def put(root: Path, text: str) -> None:
    (root / "bench").mkdir(parents=True)
    (root / "bench" / "train.json").write_text(text)


def result() -> dict[str, object]:
    """Numbers of our own, all different."""
    styles = ("compact", "alpaca")
    summary = {
        "rows_per_second": {style: {who: 10.0 * n + k for k, who in enumerate(TRAINERS)} for n, style in enumerate(styles, 2)},
        "best": {style: {"ours": ["fp32", "feed"], "trl": ["fp32", "length"], "trainer": ["bf16", "feed"]} for style in styles},
        "final_loss": {style: {form: dict.fromkeys(TRAINERS, 0.5) for form in ("fp32", "bf16")} for style in styles},
        "peak_gib": {style: {**dict.fromkeys(TRAINERS, 3.3), "lora": 1.7} for style in styles},
        "rows_per_second_by_setting": {style: {"trl": {"bf16, random": 3.25}} for style in styles},
        "matmul_share": 0.53, "matmul_gflops": {"fp32": 330.0, "bf16": 180.0},
    }  # fmt: skip
    for style, times in (("compact", 2.4), ("alpaca", 8.5)):
        summary |= {f"{style}_times_trl": times, f"{style}_times_trl_defaults": 6.5, f"{style}_times_trainer": 1.9}
    rows = {style: {"batch": 32, "longest": 40} for style in styles}
    return {"summary": summary, "machine": {"cpu": "a CPU", "threads": 2}, "rows": rows, "rounds": 3}


def test_every_trainer_has_its_line(tmp_path: Path) -> None:
    put(tmp_path, json.dumps(result()))
    text = bench_table.section(tmp_path)
    assert text is not None
    assert "| compact | TRL's SFTTrainer | fp32, strictly by length | 21.0 | 0.500 | 3.3 |" in text
    assert "| alpaca | matdarwin | fp32, our batches | 30.0 | 0.500 | 3.3 |" in text
    assert text.count("at its own defaults | bf16, random order | 3.2 |") == 2
    assert "compact prompts 2.4 times TRL well set, 6.5 times TRL at its defaults" in text
    assert "53 %" in text and "1.7 GiB" in text and "medians of 3 rounds" in text


def test_what_is_not_there_has_no_section_and_what_is_broken_is_named(tmp_path: Path) -> None:
    assert bench_table.section(tmp_path) is None
    put(tmp_path, "{}")
    with pytest.raises(ResultsError, match=r"train\.json is no benchmark result"):
        bench_table.section(tmp_path)
