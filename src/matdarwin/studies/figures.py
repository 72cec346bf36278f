"""Figures as inline SVG that follow the page's colours, light or dark."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from matdarwin.data import sources
from matdarwin.studies.outcome import Curve, DemoResult, Rival

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#010203"
"""A colour that no data has; it becomes the page's own text colour."""

_MODEL, _RIVAL, _BAND = "#3b82c4", "#d9822b", "#b59f3b"
_IDS = re.compile(r' id="[A-Za-z][A-Za-z0-9.]*_\d+"')
_CURVE_MASS = 0.001


def parity(result: DemoResult, rival: str) -> str:
    """Answers over measured values on the same held-out materials: the model's medians, and one rival's.

    Args:
        result: The demonstration.
        rival: Name of the rival to show beside.
    """
    read = [(t.target, t.median) for t in result.language.tested if t.median is not None]
    targets = [t.target for t in result.language.tested]
    answers = result.rivals.rivals[rival].answers
    top = 1.05 * max([*targets, *answers, *(value for _, value in read), 1e-9])
    low = min([0.0, *targets, *answers, *(value for _, value in read)])

    def draw(axes: Sequence[Axes]) -> None:
        panels = [
            ("language model, median", [t for t, _ in read], [a for _, a in read], _MODEL),
            (words(rival), targets, answers, _RIVAL),
        ]
        for ax, (title, x, y, colour) in zip(axes, panels, strict=True):
            ax.plot([low, top], [low, top], color=_INK, linewidth=0.8, alpha=0.6)
            ax.scatter(x, y, s=14, color=colour, alpha=0.65, linewidths=0)
            ax.set(title=title, xlabel=f"measured{_in(result.unit)}", xlim=(low, top), ylim=(low, top), aspect="equal")
        axes[0].set_ylabel(f"answer{_in(result.unit)}")

    return _svg(
        draw,
        (7.6, 3.9),
        panels=2,
        alt="Answers over measured values of the held-out materials, language model and best rival",
    )


def calibration(result: DemoResult) -> str:
    """Observed over nominal coverage of the intervals, with the range that chance alone allows."""
    covered = result.language.covered
    nominal = [100 * c.nominal for c in covered]

    def draw(axes: Sequence[Axes]) -> None:
        (ax,) = axes
        ax.plot([45, 100], [45, 100], color=_INK, linewidth=0.8, alpha=0.6)
        slack = [100 * chance(c.nominal, c.rows, result.rows["calibration"]) for c in covered]
        ax.fill_between(
            nominal, [n - s for n, s in zip(nominal, slack, strict=True)], [min(100.0, n + s) for n, s in zip(nominal, slack, strict=True)],
            color=_BAND, alpha=0.25, linewidth=0,
        )  # fmt: skip
        ax.plot(nominal, [100 * c.observed for c in covered], "o-", color=_MODEL, markersize=4, linewidth=1.2)
        ax.set(
            xlabel="nominal coverage, %",
            ylabel="observed coverage, %",
            xlim=(45, 100),
            ylim=(min([40.0, *(100 * c.observed for c in covered)]), 101),
        )

    return _svg(draw, (4.4, 3.6), alt="Observed coverage of the intervals over nominal coverage, 50 to 95 percent")


def curve(given: Curve, unit: str | None, coverage: float) -> str:
    """One predictive distribution: probability of each answer, the median, the interval, and the measured value if known."""

    def draw(axes: Sequence[Axes]) -> None:
        (ax,) = axes
        if given.lower is not None and given.upper is not None:
            ax.axvspan(
                given.lower, given.upper, color=_BAND, alpha=0.25, linewidth=0, label=f"{100 * coverage:g} % interval"
            )
        ax.vlines(given.values, 0, given.probabilities, color=_MODEL, linewidth=1.4)
        ax.axvline(given.median, color=_INK, linewidth=1.2, label="median")
        if given.measured is not None:
            ax.axvline(given.measured, color=_RIVAL, linewidth=1.2, linestyle="--", label="measured, held out")
        shown = [v for v, p in zip(given.values, given.probabilities, strict=True) if p > _CURVE_MASS]
        marks = [x for x in (given.lower, given.upper, given.median, given.measured) if x is not None]
        left, right = min([*shown, *marks]), max([*shown, *marks])
        room = 0.05 * (right - left) or 0.5
        ax.set(xlabel=f"answer{_in(unit)}", ylabel="probability", xlim=(left - room, right + room))
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False, fontsize=9, labelcolor=_INK)

    return _svg(draw, (7.6, 3.2), alt=f"Predictive distribution for {given.material}")


def chance(nominal: float, tested: int, calibrated: int) -> float:
    """Twice the standard error of an observed coverage: from the number of tested and of calibrating materials."""
    return float(2 * (nominal * (1 - nominal) * (1 / max(tested, 1) + 1 / max(calibrated, 1))) ** 0.5)


def words(name: str, *, classes: bool = False) -> str:
    """A rival's name as a reader has it: `extra_trees_median` is extra trees, median."""
    plain = name.replace("lightgbm", "LightGBM" if classes else "LightGBM (L1)").replace("_", " ")
    for way in ("median", "mean"):
        plain = plain.replace(f"trees {way}", f"trees, {way}")
    return plain.replace(" fractions", " (atomic fractions)")


def best(rivals: dict[str, Rival]) -> str:
    """Name of the rival of least MAE."""
    return min(rivals, key=lambda name: rivals[name].score.mae_pessimistic)


def _in(unit: str | None) -> str:
    return f", {unit}" if unit else ""


def _svg(draw: Callable[[Sequence[Axes]], None], size: tuple[float, float], *, alt: str, panels: int = 1) -> str:
    """Draw and give the SVG element alone, text as text, ink in the page's own colour."""
    # Its font cache, which it would otherwise put into the user's home.
    os.environ.setdefault("MPLCONFIGDIR", str(sources.cache() / "matplotlib"))
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {
            "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.edgecolor": _INK, "axes.labelcolor": _INK,
            "axes.spines.top": False, "axes.spines.right": False, "font.size": 10, "svg.fonttype": "none", "svg.hashsalt": alt,
            # A dollar sign in a text is a dollar sign.
            "text.parse_math": False,
        }
    ):  # fmt: skip
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for ax in axes:
            ax.set_facecolor("none")
        draw(list(axes))
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Numbered ids would stand several times in one page; nothing refers to them.
    text = _IDS.sub("", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(alt, quote=True)}"', 1).strip()
