"""Results files to tables: docs/results.md, docs/tasks.md, and the README's block of results. Run by `make results`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matdarwin.studies import bench_table, strategies_table, tasks_page
from matdarwin.studies.figures import words
from matdarwin.studies.scores import LESS_IS_BETTER, ResultsError, Score, read_bench, read_scores, single

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_FOLDS = 5
_WAYS = {
    "mae": "MAE",
    "rmse": "RMSE",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "roc_auc": "ROC-AUC",
}


class TablesError(RuntimeError):
    """A README that tables cannot be put into."""


def page(scores: Sequence[Score], bench: dict[str, Any] | None, more: Sequence[str] = ()) -> str:
    """docs/results.md; `more` are sections that come ready."""
    parts = [
        "# Results",
        "Made by `make results` from the files under `results/`; do not edit by hand.",
        summary(scores, bench, link=False),
    ]
    for score in scores:
        parts += [f"## {score.task}, {score.strategy}", f"{score.title}. {_state(score)}".lstrip(". "), _rivals(score)]
        if score.metals or score.non_metals:
            parts += ["### Metals and non-metals apart", _groups(score)]
        if score.board:
            parts += ["### The published board beside it", _board(score)]
        if score.folds:
            parts += ["### By fold", _by_fold(score)]
    if bench is not None:
        parts += ["## Speed of prediction", _bench(bench)]
    parts += more
    return "\n\n".join(parts) + "\n"


def more(results: Path) -> list[str]:
    """The sections of studies with tables of their own, of those whose results are there.

    Raises:
        ResultsError: A results file is not as it should be.
    """
    strategies = strategies_table.sections(results)
    return [*bench_table.sections(results), *([] if strategies is None else [strategies])]


def summary(scores: Sequence[Score], bench: dict[str, Any] | None, *, link: bool = True) -> str:
    """The short table: each task's model beside its best classical rival and the best clean published score.

    Args:
        scores: Results over folds.
        bench: Summary of the speed of prediction, or None.
        link: Whether to point to docs/results.md.
    """
    lines = []
    if scores:
        rows = []
        for score in scores:
            rival, best = score.rival(), score.published()
            rows.append(
                [
                    score.task, score.model, _WAYS.get(score.metric, score.metric) + (f", {score.unit}" if score.unit else ""),
                    _number(score.own()),
                    "-" if rival is None else f"{_number(rival[1])} ({words(rival[0], classes=score.classes)})",
                    "-" if best is None else f"{_number(best.mean)} ({_cell(best.algorithm)})",
                    _percent(score.summary.get("coverage")),
                    _stand(score),
                ]
            )  # fmt: skip
        head = [
            "task",
            "model",
            "metric",
            "ours",
            "best classical rival",
            "best published, no known leak",
            "90 % intervals hold",
            "where we stand",
        ]
        lines.append(_table(head, rows))
        if link:
            lines.append("Seeds, folds, all rivals and the whole board: [docs/results.md](docs/results.md).")
    else:
        lines.append("No results are in yet.")
    if bench is not None:
        lines.append(_bench_line(bench))
    return "\n\n".join(lines)


def put(readme: str, block: str) -> str:
    """The README with its block of results replaced.

    Raises:
        TablesError: It does not have one pair of markers, in order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise TablesError(f"the README needs {BEGIN} and after it {END}, once each")
    return readme[: readme.index(BEGIN) + len(BEGIN)] + f"\n{block}\n" + readme[readme.index(END) :]


def write(root: Path) -> list[Path]:
    """Write docs/results.md, docs/tasks.md and the README's block from `root`/results; returns the files that changed.

    Raises:
        ResultsError, TablesError: A results file or the README is not as it should be; nothing is written then.
    """
    scores, bench = read_scores(root / "results"), read_bench(root / "results")
    readme, results = root / "README.md", root / "docs" / "results.md"
    texts = {
        readme: put(readme.read_text(encoding="utf-8"), summary(scores, bench)),
        results: page(scores, bench, more(root / "results")),
    }
    cards = tasks_page.read_cards(root / "results")
    if cards is not None:
        texts[root / "docs" / "tasks.md"] = tasks_page.page(cards)
    changed = []
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def _state(score: Score) -> str:
    """What a reader must know before the numbers."""
    said = f"Test folds {', '.join(map(str, score.tested))}; seeds {', '.join(map(str, score.seeds)) or 'not stated'}."
    if len(score.tested) < _FOLDS:
        said += f" **{len(score.tested)} of {_FOLDS} folds: not comparable with five-fold means.**"
    if score.leaky:
        said += " **LEAKY: test materials were learnt from; not a score.**"
    if score.knowledge:
        said += f" Knowledge beyond the task's rows: {', '.join(score.knowledge)}."
    if machine := score.machine.get("gpu") or score.machine.get("cpu"):
        said += f" Machine: {machine}. That is the first fold's; each fold's own stands in its file."
    seconds = score.summary.get("seconds")
    if isinstance(seconds, dict):
        said += " Seconds: " + ", ".join(f"{name} {value:,.0f}" for name, value in seconds.items()) + "."
    elif seconds is not None:
        said += f" Seconds: {float(seconds):,.0f}."
    return said


def _stand(score: Score) -> str:
    rival, own = score.rival(), score.own()
    if score.leaky:
        return "LEAKY: not a score"
    if own is None or rival is None:
        return "-"
    gap = score.worse(own) - score.worse(rival[1])
    word = "behind" if gap > 0 else "ahead of" if gap < 0 else "level with"
    short = f"{word} the rival" + (f" by {_number(abs(gap))}" if gap else "")
    return short + ("" if len(score.tested) == _FOLDS else f" ({len(score.tested)} of {_FOLDS} folds)")


def _metrics(score: Score) -> list[str]:
    """Metrics that the model or any rival has, the task's own first."""
    named = [
        name
        for name in _WAYS
        # The share of right answers says little of classes of unlike size, and is shown where it is asked for.
        if (name != "accuracy" or score.metric == name)
        and (name in score.summary or any(name in found for found in score.baselines.values()))
    ]
    return sorted(named, key=lambda name: name != score.metric)


def _rivals(score: Score) -> str:
    metrics = _metrics(score)
    unit = f", {score.unit}" if score.unit else ""
    head = [
        "model",
        *(f"{_WAYS[name]}{unit if name in LESS_IS_BETTER else ''}" for name in metrics),
        "coverage",
        f"width{unit}",
        "unread",
    ]
    ways = [
        way
        for way in ("median", "mean", "mode")
        if isinstance(score.summary.get("mae"), dict) and way in score.summary["mae"]
    ]
    rest = [
        _percent(score.summary.get("coverage")),
        _number(score.summary.get("width")),
        str(score.summary.get("unread", "-")),
    ]
    rows = []
    for way in ways or [""]:
        values = [score.summary.get(name) for name in metrics]
        shown = [_number(value.get(way) if isinstance(value, dict) else value) for value in values]
        rows.append(
            [
                f"**{score.strategy}{', ' + way if way else ''}**",
                *shown,
                *(rest if way in ("", "median") else ["", "", ""]),
            ]
        )
    ordered = sorted(score.baselines.items(), key=lambda item: _order(score, item[1].get(score.metric)))
    rows += [
        [words(name, classes=score.classes), *(_number(found.get(metric)) for metric in metrics), "", "", ""]
        for name, found in ordered
        # Of classes there is no median: these are the same answers under a second name.
        if not (score.classes and "median" in name and found == score.baselines.get(name.replace("median", "mean")))
    ]
    return _table(head, rows)


def _order(score: Score, value: float | None) -> float:
    return float("inf") if value is None else score.worse(value)


def _groups(score: Score) -> str:
    unit = f", {score.unit}" if score.unit else ""
    rows = []
    for name, found in (("metals", score.metals), ("non-metals", score.non_metals)):
        if found:
            errors = found.get("mae")
            by_way = errors if isinstance(errors, dict) else {"median": errors}
            shown = [_number(by_way.get(way)) for way in ("median", "mean", "mode")]
            rows.append(
                [
                    name,
                    str(found.get("rows", "-")),
                    *shown,
                    _percent(found.get("coverage")),
                    _number(found.get("width")),
                ]
            )
    return _table(
        ["rows of", "number", *(f"MAE{unit}, {way}" for way in ("median", "mean", "mode")), "coverage", f"width{unit}"],
        rows,
    )


def _board(score: Score) -> str:
    mine = score.own()
    rows = [
        (row.mean, [_cell(row.algorithm), _number(row.mean), "**leaked**" if row.leaked else "", _cell(row.note or "")])
        for row in score.board
        if row.metric == score.metric
    ]
    if mine is not None and len(score.tested) == _FOLDS:
        rows.append(
            (mine, [f"**{score.strategy} (ours)**", f"**{_number(mine)}**", "**leaked**" if score.leaky else "", ""])
        )
    rows.sort(key=lambda row: score.worse(row[0]))
    return _table(["model", _WAYS.get(score.metric, score.metric), "leak", "note"], [cells for _, cells in rows])


def _by_fold(score: Score) -> str:
    metrics = _metrics(score)
    rows = []
    for fold in sorted(score.folds, key=lambda fold: int(fold["fold"])):
        scores = fold.get("scores", fold)
        # Either the scores themselves, or those of each way of answering, the right one first.
        by_way = score.metric not in scores and bool(scores)
        main = next(iter(scores.values())) if by_way else scores
        rows.append([str(fold["fold"]), *(_number(single(main.get(name))) for name in metrics)])
    return _table(["fold", *(_WAYS[name] for name in metrics)], rows)


def _bench(bench: dict[str, Any]) -> str:
    rates = bench.get("rows_per_second") or {}
    rows = [
        [style, *(_number(found.get(way)) for way in ("sampling", "generate", "ours"))]
        for style, found in rates.items()
        if isinstance(found, dict)
    ]
    machine = bench["machine"]
    where = ", ".join(str(x) for x in (machine.get("gpu") or machine.get("cpu"), bench.get("dtype")) if x)
    table = (
        _table(["prompts", "sampling, one by one", "plain batched generate", "ours, whole distribution"], rows)
        if rows
        else ""
    )
    said = "Rows per second" + (f" ({where})" if where else "") + ", each way at its best batch."
    return "\n\n".join(part for part in (said, table, _bench_line(bench)) if part)


def _bench_line(bench: dict[str, Any]) -> str:
    named = {
        "times_sampling": "as fast as sampling one by one with compact prompts",
        "times_sampling_alpaca": "with alpaca prompts",
        "times_generate_compact": "as fast as plain batched generation with compact prompts",
        "times_generate_alpaca": "with alpaca prompts",
    }
    parts = [f"{float(bench[key]):.1f} times {text}" for key, text in named.items() if bench.get(key) is not None]
    return (
        f"The whole distribution is computed {', '.join(parts)}."
        if parts
        else "The speed of prediction was not measured."
    )


def _number(value: Any) -> str:
    number = single(value)
    if number is None:
        return "-"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.3f}"


def _percent(value: Any) -> str:
    return "-" if value is None else f"{100 * float(value):.1f} %"


def _cell(text: str) -> str:
    """Text that cannot break a Markdown table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Write all and say which changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder with README.md, docs and results")
    root = parser.parse_args().root
    try:
        changed = write(root)
    except (ResultsError, TablesError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print("\n".join(f"written: {path}" for path in changed) or "nothing changed")


if __name__ == "__main__":
    main()
