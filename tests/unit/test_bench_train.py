"""The arithmetic of the training benchmark: what counts as work, and the summary."""

from __future__ import annotations

import pytest
from benchmarks.train import Run, padding, reordered, run_of, shared, summarise, useful_flop

MODEL = {"matrices": 1000, "vocabulary": 50, "width": 4, "used": 10}
ROWS = [{"prompt": [1, 2, 3, 4], "answer": [7, 8]}, {"prompt": [1, 2, 5], "answer": [9, 8]}]


def run(
    who: str,
    style: str,
    form: str,
    rate: float,
    loss: float = 1.0,
    peak: float = 2.0,
    flop: float = 1e9,
    order: str = "feed",
) -> Run:
    return Run(who, style, form, order, rate, (9.0, loss), peak, flop)


def test_the_last_token_of_a_prompt_is_never_shared() -> None:
    assert shared([[1, 2, 3], [1, 2, 4]]) == 2
    assert shared([[1, 2], [1, 2]]) == 1
    assert shared([[1, 2], [1, 2, 3]]) == 1
    assert shared([[5], [6]]) == 0


def test_padding_is_no_work_and_a_common_beginning_is_done_once_by_us_alone() -> None:
    output = 4 * 50 * 4 * 4
    # 4 + 2 - 1 and 3 + 2 - 1 tokens; two of them shared.
    assert useful_flop(ROWS, "trl", MODEL) == 6 * 1000 * 9 + output + 2 * 50 * 4 * 4
    assert useful_flop(ROWS, "ours", MODEL) == 6 * 1000 * 7 + output + 2 * 10 * 4 * 4
    assert padding([ROWS]) == pytest.approx(1 / 12)


def test_only_the_steps_after_the_warm_up_are_timed() -> None:
    job = {"who": "ours", "style": "compact", "format": "fp32", "order": "feed", "warm": 1}
    told = {"ends": [100.0, 101.0, 103.0], "losses": [3.0, 2.0, 1.0], "peak_gib": 1.5}
    found = run_of(job, told, [ROWS, ROWS, ROWS], MODEL)
    assert found.rate == 4 / 3
    assert found.flop == pytest.approx(2 * useful_flop(ROWS, "ours", MODEL) / 3)
    with pytest.raises(SystemExit, match="3 steps of 2"):
        run_of(job, told, [ROWS, ROWS], MODEL)


def test_strictly_by_length_the_warm_up_stays_and_the_timed_rows_are_the_same() -> None:
    rows = [{"prompt": [0] * n, "answer": [1]} for n in (9, 1, 5, 1, 5, 1)]
    found = reordered([rows[0:2], rows[2:4], rows[4:6]], 1, "length")
    assert found == [rows[0:2], [rows[3], rows[5]], [rows[2], rows[4]]]
    assert padding(found[1:]) == 0
    assert reordered([rows[0:2], rows[2:4], rows[4:6]], 1, "feed") == [rows[0:2], rows[2:4], rows[4:6]]
    mixed = reordered([rows[0:2], rows[2:4], rows[4:6]], 1, "random")
    assert sorted(len(row["prompt"]) for batch in mixed[1:] for row in batch) == [1, 1, 5, 5]


def test_everybody_is_compared_at_the_setting_that_is_the_best_for_it() -> None:
    runs = [
        *(run("ours", style, "fp32", rate, peak=3.0) for style in ("compact", "alpaca") for rate in (20, 40, 30)),
        run("ours", "compact", "bf16", 10, loss=1.1),
        run("ours", "alpaca", "bf16", 60, peak=3.5),
        *(run("trl", style, "fp32", 5, loss=1.2) for style in ("compact", "alpaca")),
        *(run("trl", style, "bf16", 5.5) for style in ("compact", "alpaca")),
        *(run("trl", style, "bf16", 6, loss=7.0, order="length") for style in ("compact", "alpaca")),
        *(run("trainer", style, form, 3) for style in ("compact", "alpaca") for form in ("fp32", "bf16")),
        *(run("trl", style, "bf16", 2, order="random") for style in ("compact", "alpaca")),
    ]
    lora = {
        style: {"whole": {"peak_gib": peak}, "parts": {"peak_gib": peak / 2}}
        for style, peak in (("compact", 1.0), ("alpaca", 1.25))
    }
    found = summarise(runs, {"fp32": 10.0, "bf16": 20.0}, lora, last=1)
    assert found["compact_times_trl_tuned"] == 30 / 6 and found["compact_times_trainer"] == 10
    assert found["alpaca_times_trl_tuned"] == 60 / 6 and found["alpaca_times_trl"] == 30
    assert found["best"]["compact"] == {
        "ours": ("fp32", "feed"),
        "trl": ("bf16", "length"),
        "trainer": ("fp32", "feed"),
    }
    assert found["best"]["alpaca"]["ours"] == ("bf16", "feed")
    assert found["matmul_share"] == pytest.approx(0.1) and found["matmul_shares"]["alpaca"]["ours"] == pytest.approx(
        0.05
    )
    assert found["full_peak_gib"] == 3.5 and found["lora_peak_gib"] == 0.625
    assert found["peak_gib"]["compact"] == {"ours": 3.0, "trl": 2.0, "trainer": 2.0, "lora": 1.0, "lora_in_parts": 0.5}
    assert found["final_loss"]["compact"] == {
        "fp32": {"ours": 1.0, "trl": 1.2, "trainer": 1.0},
        "bf16": {"ours": 1.1, "trl": 1.0, "trainer": 1.0},
    }
    assert found["rows_per_second_by_setting"]["compact"] == {
        "ours": {"fp32, feed": 30, "bf16, feed": 10},
        "trl": {"fp32, feed": 5, "bf16, feed": 5.5, "bf16, length": 6, "bf16, random": 2},
        "trainer": {"fp32, feed": 3, "bf16, feed": 3},
    }
