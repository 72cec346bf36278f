"""The figure of the strategy comparison, in the manner of the article's figure 2: changes a task as grouped bars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matdarwin.data import sources
from matdarwin.studies.strategies_summary import KINDS, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {
    "base_mt": ("Base-MT", "#0072b2", ""),
    "qa_st": ("QA-ST", "#e69f00", "///"),
    "qa_mt": ("QA-MT", "#009e73", ""),
    "know_mt": ("Know-MT", "#cc79a7", "..."),
    "random_st": ("Random-ST", "#56b4e9", "\\\\\\"),
    "random_mt": ("Random-MT", "#d55e00", ""),
}
"""Name, colour and hatch of each strategy; the colours are told apart by colour-blind eyes (Okabe and Ito 2008)."""

ROWS = (
    ("from pretrained weights", ("base_mt", "qa_st", "qa_mt", "know_mt"), 60.0),
    ("from random weights", ("random_st", "random_mt"), 200.0),
)
"""Title of a row of panels, its strategies, and the greatest change that its axis shows."""

_WHAT = {"classification": "macro F1", "regression": "MAE"}
_GOOD = {"classification": "up is better", "regression": "down is better"}
_INK, _GREY = "#222222", "#888888"
_WIDTH = 0.8


def draw(summary: Summary, path: Path) -> Path:
    """Draw the comparison and write it as a PNG.

    Each bar is one task's change against base_st; the shaded group is the average over the tasks that have both. Bars
    that are longer than the axis are cut, with their number beside; a cross stands for a score that is not in.

    Args:
        summary: The comparison.
        path: The file to write.
    """
    # Its font cache, which it would otherwise put into the user's home.
    os.environ.setdefault("MPLCONFIGDIR", str(sources.cache() / "matplotlib"))
    import matplotlib
    from matplotlib.figure import Figure

    names = {kind: [name for name, task in summary.tasks.items() if task.kind == kind] for kind in KINDS}
    ratios = [max(2, len(names[kind]) + 1) for kind in KINDS]
    look: Any = {
        "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.edgecolor": _GREY, "axes.labelcolor": _INK,
        "axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "hatch.linewidth": 0.6,
    }  # fmt: skip
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(15, 8.6), layout="constrained")
        axes = figure.subplots(len(ROWS), 2, width_ratios=ratios, squeeze=False)
        for row, (title, models, greatest) in enumerate(ROWS):
            for column, kind in enumerate(KINDS):
                ax = axes[row][column]
                _panel(ax, summary, kind, names[kind], models, greatest)
                ax.set_title(f"{kind}, {title}", loc="left", fontsize=10, fontweight="bold")
        handles = _legend(any(_lacks(summary, names)))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        figure.suptitle(_headline(summary), x=0.01, ha="left", fontsize=10)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.png")
        figure.savefig(part, dpi=130, metadata={"Software": None})
        part.replace(path)
    return path


def _lacks(summary: Summary, names: dict[str, list[str]]) -> list[bool]:
    shown = [model for _, models, _ in ROWS for model in models]
    return [
        model not in summary.tasks[name].change_percent for kind in KINDS for name in names[kind] for model in shown
    ]


def _panel(ax: Axes, summary: Summary, kind: str, names: Sequence[str], models: Sequence[str], greatest: float) -> None:
    """One panel: the average first, then the tasks by their number of training rows, fewest first."""
    order = sorted(names, key=lambda name: (summary.tasks[name].rows["train"], name))
    groups = [{model: summary.averages[model][kind].percent for model in models}]
    groups += [{model: summary.tasks[name].change_percent.get(model) for model in models} for name in order]
    given = [abs(value) for group in groups for value in group.values() if value is not None]
    limit = min(greatest, 1.12 * max([*given, 5.0]))
    errors = {model: summary.averages[model][kind].standard_error for model in models}
    width = _WIDTH / len(models)
    ax.axvspan(-0.5, 0.5, color="#eeeeee", zorder=0)
    for place, group in enumerate(groups):
        for number, (model, value) in enumerate(group.items()):
            x = place + (number - (len(models) - 1) / 2) * width
            if value is None:
                ax.plot([x], [0], marker="x", color=_GREY, markersize=4, zorder=3, clip_on=False)
                continue
            _, colour, hatch = STYLES[model]
            height = max(-limit, min(limit, value))
            ax.bar(x, height, width * 0.92, color=colour, hatch=hatch, edgecolor="white", linewidth=0.3, zorder=2)
            error = errors[model] if place == 0 else None
            if error is not None and abs(value) < limit:
                ax.errorbar(x, value, yerr=error, color=_INK, linewidth=0.9, capsize=2, zorder=3)
            if abs(value) > limit:
                up = value > 0
                ax.text(
                    x, height + (0.02 if up else -0.02) * limit, f"{value:+.0f}", rotation=90, ha="center",
                    va="bottom" if up else "top", fontsize=7,
                )  # fmt: skip
    ax.axhline(0, color=_INK, linewidth=0.8, zorder=3)
    tasks = [f"{name.replace('_', ' ')} ({summary.tasks[name].rows['train']:,})" for name in order]
    ax.set_xticks(range(len(groups)), ["AVERAGE", *tasks], rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0)
    ax.set(xlim=(-0.5, len(groups) - 0.5), ylim=(-1.3 * limit, 1.3 * limit))
    ax.set_ylabel(f"change of {_WHAT[kind]} against Base-ST, %\n({_GOOD[kind]})")
    ax.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)


def _legend(lacking: bool) -> list[object]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[object] = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=name) for name, colour, hatch in STYLES.values()
    ]
    if lacking:
        handles.append(Line2D([], [], marker="x", color=_GREY, linestyle="", markersize=5, label="not in"))
    return handles


def _headline(summary: Summary) -> str:
    size = summary.size
    rows = (
        "all training rows" if size.get("training_rows") is None else f"at most {size['training_rows']:,} training rows"
    )
    text = f"Change against Base-ST, fold {size.get('fold', '-')}, one seed; {rows} a task (their number in brackets)"
    if "examples" in size:
        text += f", {size['examples']:,} examples of a task seen on average"
    text += ".\nLines on the averages: standard error over tasks. Cut bars have their number beside."
    lacking = sum(len(tasks) for tasks in summary.missing.values())
    return text + (f" {lacking} scores are not in yet." if lacking else "")
