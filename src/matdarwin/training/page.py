"""The page of a training: where it stands, as one HTML file that fetches nothing and runs nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Any, Literal

from matdarwin.training.chart import Line, Point, chart, smooth, thin

State = Literal["running", "finished", "stopped"]

_REFRESH = 20
"""Seconds after which the page of a run that goes on loads itself anew."""
_RAW, _SMOOTHED = 1000, 400
"""Points that are drawn of a line, at most."""
_LESS_IS_BETTER = ("mae", "rmse")

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5d666f; --paper: #ffffff; --line: #d5dae0; --raw: #b9c9dc; --mark: #1b62b5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa4ae; --paper: #15181b; --line: #343b42; --raw: #3b5470; --mark: #7db4f0; }
}
body { margin: 0 auto; max-width: 66rem; padding: 1.2rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { margin: .3rem 0; } .soft, figcaption, dt { color: var(--soft); }
.bar { height: .6rem; border-radius: .3rem; background: var(--line); overflow: hidden; margin: .7rem 0; }
.bar div { height: 100%; background: var(--mark); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem 1rem; margin: 1rem 0; }
dt { font-size: .85rem; } dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; } dl .long { grid-column: 1 / -1; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.small { grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { font-size: .9rem; overflow-wrap: anywhere; } svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; } .x { text-anchor: middle; } .y { text-anchor: end; }
.grid { stroke: var(--line); stroke-width: .7; } .axis { stroke: var(--soft); }
polyline { fill: none; stroke-linejoin: round; } polyline.raw { stroke: var(--raw); stroke-width: 1; } polyline.mark { stroke: var(--mark); stroke-width: 2; }
circle.raw { fill: var(--raw); } circle.mark { fill: var(--mark); }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line); border-radius: .3rem; font-size: .85rem; } details { margin-top: 1.5rem; } summary { cursor: pointer; }
""".strip()


@dataclass(frozen=True)
class Facts:
    """What a page says of a run beside its metrics.

    Attributes:
        name: Name of the run, as its checkpoint's.
        stage: Which part of the whole is trained, in words.
        state: running, finished or stopped.
        done: Steps that were made.
        total: Steps of the whole run.
        seconds: Time that training took so far, over every start of the run, in seconds.
        tokens: Tokens seen in that time.
        written: When these facts were taken.
        recipe: The recipe as YAML.
        machine: What the machine is, as a checkpoint's card has it.
        memory_gib: Greatest memory used so far, in GiB; None where it is not known.
        units: Unit of a task's validation score, by task; tasks without one are left out.
        remark: A sentence more, such as why the run was stopped.
    """

    name: str
    stage: str
    state: State
    done: int
    total: int
    seconds: float
    tokens: int
    written: datetime
    recipe: str
    machine: Mapping[str, Any]
    memory_gib: float | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""


def render(lines: Sequence[Mapping[str, Any]], facts: Facts) -> str:
    """The page as HTML.

    Args:
        lines: The lines of metrics.jsonl, in their order: of steps (step, loss, learning_rate) and of epochs (epoch, and
            validation where there was one). What else they hold is left aside, and so are values that are no numbers.
        facts: What is said beside them; every text is escaped.
    """
    losses, rates, scores = _read(lines)
    share = min(1.0, facts.done / max(facts.total, 1))
    refresh = f'<meta http-equiv="refresh" content="{_REFRESH}">\n' if facts.state == "running" else ""
    body = [
        f"<h1>{_t(facts.name)}</h1>",
        f'<p>{_t(facts.state)}: {_t(facts.stage)}, step {facts.done:,} of {facts.total:,} <span class="soft">({100 * share:.0f} %)</span></p>',
        f"<p>{_t(facts.remark)}</p>" if facts.remark else "",
        f'<div class="bar"><div style="width:{100 * share:.1f}%"></div></div>',
        _numbers(losses, facts),
        _curves(losses, rates, facts.total),
        _validation(scores, facts),
        f"<details><summary>Recipe</summary><pre>{_t(facts.recipe)}</pre></details>",
    ]
    # The policy is a second lock: were a text not escaped after all, it could still run and fetch nothing.
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{refresh}'
        f"<title>{_t(_state(facts, share))}: {_t(facts.name)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _read(
    lines: Sequence[Mapping[str, Any]],
) -> tuple[list[Point], list[Point], dict[str, list[tuple[int, int, str, float]]]]:
    """Loss and learning rate by step; and by task the epoch, step, metric and value of each validation."""
    losses: list[Point] = []
    rates: list[Point] = []
    scores: dict[str, list[tuple[int, int, str, float]]] = {}
    step = 0
    for line in lines:
        if "step" in line:
            step = line["step"]
            for points, key in ((losses, "loss"), (rates, "learning_rate")):
                if math.isfinite(line[key]):
                    points.append((step, line[key]))
        for task, (metric, value) in line.get("validation", {}).items():
            if math.isfinite(value):
                scores.setdefault(task, []).append((line["epoch"], step, metric, value))
    return losses, rates, scores


def _numbers(losses: Sequence[Point], facts: Facts) -> str:
    left = facts.seconds * (facts.total - facts.done) / facts.done if facts.done else None
    shown = {
        "loss": f"{smooth(losses)[-1][1]:.4g}" if losses else "-",
        "tokens a second": f"{facts.tokens / facts.seconds:,.0f}" if facts.seconds > 0 else "-",
        "tokens": f"{facts.tokens:,}",
        "trained for": _time(facts.seconds),
        **({"left, about": "-" if left is None else _time(left)} if facts.state == "running" else {}),
        "memory": "-" if facts.memory_gib is None else f"{facts.memory_gib:.1f} GiB",
        "as of": facts.written.isoformat(sep=" ", timespec="seconds"),
    }
    machine = ", ".join(f"{name} {value}" for name, value in facts.machine.items() if value is not None)
    cells = "".join(f"<div><dt>{_t(name)}</dt><dd>{_t(text)}</dd></div>" for name, text in shown.items())
    return f'<dl>{cells}<div class="long"><dt>machine</dt><dd>{_t(machine or "-")}</dd></div></dl>'


def _curves(losses: Sequence[Point], rates: Sequence[Point], total: int) -> str:
    if not losses:
        return '<p class="soft">No step was made yet.</p>'
    end = max(total, losses[-1][0])
    lines = [Line(thin(losses, _RAW), "raw"), Line(thin(smooth(losses), _SMOOTHED), "mark")]
    shown = [
        _figure(
            chart(lines, title="loss by step", end=end, logarithmic=True),
            "Loss: each step, and smoothed.",
        )
    ]
    if rates:
        shown.append(
            _figure(
                chart([Line(thin(rates, _SMOOTHED), "mark")], title="learning rate by step", end=end), "Learning rate."
            )
        )
    return f'<h2>Loss and learning rate</h2><div class="charts">{"".join(shown)}</div>'


def _validation(scores: Mapping[str, Sequence[tuple[int, int, str, float]]], facts: Facts) -> str:
    if not scores:
        return ""
    figures = []
    for task, found in scores.items():
        epoch, _, metric, last = found[-1]
        best = (min if metric in _LESS_IS_BETTER else max)(found, key=lambda one: one[3])
        unit = f" {facts.units[task]}" if task in facts.units else ""
        text = f"{task}: {metric} {last:.4g}{unit} after epoch {epoch}; best {best[3]:.4g} after epoch {best[0]}"
        line = Line([(step, value) for _, step, _, value in found], "mark")
        end = max(facts.total, found[-1][1])
        figures.append(_figure(chart([line], title=f"validation {metric} of {task} by step", end=end), text))
    return f'<h2>Validation</h2><div class="charts small">{"".join(figures)}</div>'


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{_t(caption)}</figcaption></figure>"


def _state(facts: Facts, share: float) -> str:
    return f"{100 * share:.0f} %" if facts.state == "running" else facts.state


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _t(text: object) -> str:
    return escape(str(text), quote=True)
