"""The strategy comparison as a section of docs/results.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matdarwin.studies.strategies_summary import ABOVE, COMPARED, KINDS, Average, Summary, TaskSummary, read_summary
from matdarwin.studies.strategies_units import FULL, METRICS, REDUCED

_SIGNS = {
    "qa_mt_better_at_classification": "QA-MT better than Base-ST at classification (article: +3.38 % macro F1)",
    "qa_mt_better_at_regression": "QA-MT better than Base-ST at regression (article: -11.79 % MAE)",
    "pretrained_far_above_random": "pretrained weights far above random ones, single task (article: 11 % and 34 %)",
}
_SHOWN = ("base_st", *COMPARED)


def sections(results: Path) -> str | None:
    """The comparisons under a results folder, of either size; None where there is none.

    Raises:
        ResultsError: A summary cannot be read.
    """
    found = []
    for title, size in (("reduced size", REDUCED), ("full size", FULL)):
        # The folder of a size begins with the name of the results folder, which may stand elsewhere here.
        summary = read_summary(results.joinpath(*size.folder.parts[1:]))
        if summary is not None:
            picture = Path("..", "results", *size.folder.parts[1:], "figure2.png").as_posix()
            found.append(section(summary, title, picture))
    return "\n\n".join(found) or None


def section(summary: Summary, title: str, picture: str) -> str:
    """One comparison: its averages, the article's signs, and every task's scores.

    Args:
        summary: The comparison.
        title: What to call its size.
        picture: Its figure, as seen from docs.
    """
    parts = [f"## Strategies, {title}", summary.about, _limits(summary)]
    if lacking := sum(len(tasks) for tasks in summary.missing.values()):
        parts.append(f"**{lacking} scores are not in yet, so averages are over the tasks that both have.**")
    head = ["strategy"]
    for kind in KINDS:
        metric = METRICS[kind].replace("_f1", " F1").replace("mae", "MAE")
        head += [f"{kind}, {metric}: mean ± standard error", "median", "better on", "tasks in", "article"]
    rows = [[_named(model), *(cell for kind in KINDS for cell in _cells(summary, model, kind))] for model in COMPARED]
    parts.append(_table(head, rows))
    said = {True: "seen", False: "not seen", None: "not settled"}
    parts.append(
        "A sign is settled once all tasks of the kind are in, the mean is two standard errors beyond the bound, and the median "
        f"lies on the same side. The bounds: 0, and {ABOVE['classification']:g} and {ABOVE['regression']:g} % for random weights."
    )
    parts.append("\n".join(f"- {text}: **{said[summary.signs[name]]}**." for name, text in _SIGNS.items()))
    parts.append(_dummies(summary))
    parts.append(f"![Change of each task against Base-ST]({picture})")
    parts.append(_tasks(summary))
    return "\n\n".join(parts)


def _limits(summary: Summary) -> str:
    size = summary.size
    if not size:
        return "Nothing is in yet."
    rows = "all" if size["training_rows"] is None else f"at most {size['training_rows']:,}"
    tests = "all" if size["test_rows"] is None else f"at most {size['test_rows']:,}"
    hours = sum(summary.seconds.values()) / 3600
    where = "; ".join(
        dict.fromkeys(str(machine.get("gpu") or f"{machine.get('cores')} cores of {machine.get('cpu')}") for machine in summary.machine)
    )  # fmt: skip
    return (
        f"Limits: {rows} training rows and {tests} test rows a task; {size['examples']:,} examples of a task seen on average in "
        f"every strategy, in batches of {size['batch_size']}; {size['folds']} folds. Its units took {hours:.1f} "
        f"hours added up, though some ran side by side, the earlier stages apart, on {where}."
    )


def _cells(summary: Summary, model: str, kind: str) -> list[str]:
    average: Average = summary.averages[model][kind]
    article = summary.article.get(model, {}).get(kind)
    if average.percent is None:
        shown = "-"
    else:
        error = "" if average.standard_error is None else f" ± {average.standard_error:.2f}"
        shown = f"{average.percent:+.2f}{error} %"
    return [
        shown, "-" if average.median is None else f"{average.median:+.2f} %", str(average.better),
        f"{average.tasks} of {average.of}", "-" if article is None else f"{article:+.2f} %",
    ]  # fmt: skip


def _dummies(summary: Summary) -> str:
    found = [f"{_named(model)}: {', '.join(names)}" for model, names in summary.no_better_than_dummy.items() if names]
    return "No better than the dummy (majority, or median, of the training rows): " + ("; ".join(found) or "none") + "."


def _tasks(summary: Summary) -> str:
    head = ["task", "metric", "training rows", "test rows", "dummy", "best rival", *map(_named, _SHOWN)]
    rows = []
    for name, task in sorted(summary.tasks.items(), key=lambda item: (item[1].kind, item[1].rows["train"], item[0])):
        metric = ("macro F1" if task.metric == "macro_f1" else "MAE") + (f", {task.unit}" if task.unit else "")
        cells = [_number(task.scores.get(model)) for model in _SHOWN]
        rows.append(
            [name, metric, f"{task.rows['train']:,}", f"{task.rows['test']:,}", _number(task.scores.get("dummy")), _rival(task), *cells]
        )  # fmt: skip
    return _table(head, rows)


def _rival(task: TaskSummary) -> str:
    """The best of the classical models."""
    scores = [value for model, value in task.scores.items() if model not in (*_SHOWN, "dummy")]
    if not scores:
        return "-"
    return _number(max(scores) if task.metric == "macro_f1" else min(scores))


def _named(model: str) -> str:
    """A strategy as the article writes it: `qa_mt` is QA-MT."""
    first, _, second = model.partition("_")
    return f"{'QA' if first == 'qa' else first.capitalize()}-{second.upper()}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])
