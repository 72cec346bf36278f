"""Tables say what the results files say, and nothing where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from matdarwin.studies import tables
from matdarwin.studies.scores import ResultsError
from matdarwin.studies.tables import BEGIN, END, TablesError

README = f"# A\n\nbefore\n\n{BEGIN}\nstale\n{END}\n\nafter\n"


def gap(folds: int = 5, own: float = 0.40, **changes: Any) -> dict[str, Any]:
    return {
        "task": "expt_gap", "title": "Measured band gap", "unit": "eV", "metric": "mae", "strategy": "base-st",
        "summary": {
            "mae": {"median": own, "mean": 0.45, "mode": 0.42}, "rmse": {"median": 0.9, "mean": 0.85, "mode": 0.95},
            "coverage": 0.9012, "width": 1.5, "unread": 3, "seconds": {"training": 4000.0, "predicting": 100.0},
        },
        "folds": [{"fold": i, "scores": {"median": {"mae": own + i / 100, "rmse": 0.9}, "mean": {"mae": 9.0}}} for i in range(folds)],
        "baselines": {"dummy": {"mae": 1.2}, "extra_trees_median": {"mae": 0.33}, "lightgbm": {"mae": 0.42}},
        "board": [
            {"algorithm": "Leaky", "metric": "mae", "mean": 0.278, "leaked": True, "note": "trained | on test"},
            {"algorithm": "Clean", "metric": "mae", "mean": 0.331, "leaked": False},
        ],
        "metals": {"rows": 24, "mae": {"median": 0.1, "mean": 0.2, "mode": 0.05}, "coverage": 0.95},
        "non_metals": {"rows": 21, "mae": {"median": 0.7, "mean": 0.71, "mode": 0.8}, "coverage": 0.85},
        "seeds": [0],
    } | changes  # fmt: skip


def metal() -> dict[str, Any]:
    return {
        "summary": {"balanced_accuracy": 0.93, "macro_f1": 0.92, "roc_auc": 0.97, "unread": 0, "seconds": 10},
        "folds": [{"fold": i, "balanced_accuracy": 0.93} for i in range(5)],
        "baselines": {"dummy": {"balanced_accuracy": 0.5}, "lightgbm": {"balanced_accuracy": 0.92, "macro_f1": 0.91}},
        "board": [{"algorithm": "RF", "metric": "balanced_accuracy", "mean": 0.917, "leaked": False}],
        "seeds": [0],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    return tmp_path


def put(root: Path, name: str, content: object) -> None:
    path = root / "results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def row(text: str, begins: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {begins}"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_without_results_it_says_so(root: Path) -> None:
    tables.write(root)
    assert (root / "README.md").read_text() == f"# A\n\nbefore\n\n{BEGIN}\nNo results are in yet.\n{END}\n\nafter\n"
    assert "No results are in yet." in (root / "docs" / "results.md").read_text()


def test_the_short_table_sets_ours_beside_the_best_rival_and_the_best_clean_score(root: Path) -> None:
    put(root, "board/expt_gap.base-st.json", gap())
    put(root, "board/expt_is_metal.base-st.json", metal())
    tables.write(root)
    text = (root / "README.md").read_text()
    assert row(text, "expt_gap") == [
        "expt_gap", "base-st", "MAE, eV", "0.400", "0.330 (extra trees, median)", "0.331 (Clean)", "90.1 %", "behind the rival by 0.070",
    ]  # fmt: skip
    assert row(text, "expt_is_metal") == [
        "expt_is_metal", "base-st", "balanced accuracy", "0.930", "0.920 (LightGBM)", "0.917 (RF)", "-", "ahead of the rival by 0.010",
    ]  # fmt: skip
    assert text.startswith("# A\n\nbefore\n") and text.endswith("\nafter\n") and "stale" not in text


def test_the_long_page_has_all_ways_all_rivals_groups_board_and_folds(root: Path) -> None:
    put(root, "board/expt_gap.base-st.json", gap())
    tables.write(root)
    text = (root / "docs" / "results.md").read_text()
    assert row(text, "**base-st, median**") == ["**base-st, median**", "0.400", "0.900", "90.1 %", "1.500", "3"]
    assert row(text, "**base-st, mode**")[1] == "0.420"
    assert text.index("| extra trees, median") < text.index("| LightGBM (L1)") < text.index("| dummy")
    assert row(text, "non-metals")[1:5] == ["21", "0.700", "0.710", "0.800"]
    assert "| Leaky | 0.278 | **leaked** | trained \\| on test |" in text
    assert text.index("| Leaky") < text.index("| Clean") < text.index("| **base-st (ours)**")
    assert row(text, "4 ") == ["4", "0.440", "0.900"]
    assert "Seconds: training 4,000, predicting 100." in text and "](docs/results.md)" not in text


def test_unfinished_folds_are_never_set_beside_five(root: Path) -> None:
    put(root, "board/expt_gap.base-st.json", gap(folds=2))
    tables.write(root)
    text = (root / "docs" / "results.md").read_text()
    assert "**2 of 5 folds: not comparable with five-fold means.**" in text and "(ours)" not in text
    assert "(2 of 5 folds)" in (root / "README.md").read_text()


def test_a_leaky_result_is_called_so(root: Path) -> None:
    put(root, "board/expt_gap.base-st.json", gap(leaky=True, own=0.1))
    tables.write(root)
    text = (root / "docs" / "results.md").read_text()
    assert "**LEAKY" in text and row(text, "**base-st (ours)**")[2] == "**leaked**"
    first = row((root / "README.md").read_text(), "expt_gap")
    assert first[1] == "base-st (LEAKY)" and first[-1] == "LEAKY: not a score"


def test_rows_that_were_not_read_count_against_rivals_that_answer_all(root: Path) -> None:
    found = gap(own=0.30)
    found["summary"]["mae_pessimistic"] = {"median": 0.36, "mean": 0.5, "mode": 0.5}
    put(root, "board/expt_gap.base-st.json", found)
    tables.write(root)
    assert row((root / "README.md").read_text(), "expt_gap")[3::4] == ["0.360", "behind the rival by 0.030"]


def test_a_task_is_told_by_its_own_metric(root: Path) -> None:
    put(root, "board/expt_gap.base-st.json", gap(metric="rmse"))
    classes = metal() | {"metric": "accuracy", "folds": [{"fold": i, "accuracy": 0.95} for i in range(5)]}
    classes["summary"] |= {"accuracy": 0.95}
    put(root, "board/own.base-st.json", classes)
    tables.write(root)
    text = (root / "README.md").read_text()
    # The mean answers where squares count.
    assert row(text, "expt_gap")[2:4] == ["RMSE, eV", "0.850"]
    assert row(text, "own")[2:4] == ["accuracy", "0.950"]


def test_what_was_known_beyond_the_task_and_the_machine_are_said(root: Path) -> None:
    put(root, "board/expt_gap.base-st.json", gap(machine={"cpu": "A processor", "gpu": None}))
    knowing = gap(strategy="know-st", knowledge=["pbe_gap_mp", "sciqag"], machine={"cpu": "One", "gpu": "A fast one"})
    put(root, "board/expt_gap.know-st.json", knowing)
    tables.write(root)
    text = (root / "docs" / "results.md").read_text()
    assert "Knowledge beyond the task's rows: pbe_gap_mp, sciqag. Machine: A fast one." in text
    assert text.count("Knowledge beyond") == 1 and "Machine: A processor." in text
    assert "| know-st, with knowledge |" in (root / "README.md").read_text()


def test_results_without_rivals_or_board(root: Path) -> None:
    put(root, "board/expt_gap.base-st.json", gap(baselines={}, board=[], metals=None, non_metals=None))
    tables.write(root)
    assert row((root / "README.md").read_text(), "expt_gap")[4:] == ["-", "-", "90.1 %", "-"]


def test_speed(root: Path) -> None:
    rates = {"compact": {"sampling": 7.4, "generate": 71.0, "ours": 80.0}}
    put(
        root,
        "bench/predict.json",
        {"summary": {"times_sampling": 10.8, "times_generate_compact": 1.13, "rows_per_second": rates}},
    )
    tables.write(root)
    assert (
        "10.8 times as fast as sampling one by one with compact prompts, 1.1 times as fast as plain batched"
        in (root / "README.md").read_text()
    )
    assert row((root / "docs" / "results.md").read_text(), "compact") == ["compact", "7.400", "71.0", "80.0"]


def test_a_second_time_nothing_changes(root: Path) -> None:
    put(root, "board/expt_gap.base-st.json", gap())
    assert len(tables.write(root)) == 2
    assert tables.write(root) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"summary": {}}', '{"summary": {"mae": 1}, "folds": 3}'])
def test_a_broken_file_is_named_and_nothing_is_written(root: Path, content: str) -> None:
    put(root, "board/glass.base-st.json", content)
    with pytest.raises(ResultsError, match=r"glass\.base-st\.json"):
        tables.write(root)
    assert (root / "README.md").read_text() == README and not (root / "docs").exists()


def test_a_broken_benchmark_is_named(root: Path) -> None:
    put(root, "bench/predict.json", "{}")
    with pytest.raises(ResultsError, match=r"predict\.json"):
        tables.write(root)


@pytest.mark.parametrize("readme", ["nothing", f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_its_markers_is_refused(readme: str) -> None:
    with pytest.raises(TablesError, match="the README needs"):
        tables.put(readme, "x")
