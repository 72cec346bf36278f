"""The `Prediction`: a value with its error bar, its distribution and everything a reader must know about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdarwin.models.distribution import AnswerDistribution

STATUSES = ("ok", "uncalibrated", "unread", "invalid")
"""What a prediction's status may be; the last two have no value."""

_WIDTH, _HEIGHT, _BARS = 160, 36, 40
_SHOWN = 80
_NOISE = 1e-9
FIELDS = (
    "input",
    "material",
    "task",
    "value",
    "unit",
    "lower",
    "upper",
    "coverage",
    "status",
    "reason",
    "notes",
    "model",
)
"""What a prediction says beside its distribution."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the model says about one material and one task.

    Attributes:
        input: The material as the user gave it.
        material: Its canonical text; None where the input is no material.
        task: Id of the task.
        value: A number in `unit` or a label; None where there is none, with the reason in `reason`.
        unit: Unit of value, lower and upper; None for classes and pure numbers.
        lower: Lower end of the interval; None without one.
        upper: Upper end of the interval; None without one.
        coverage: Share of targets that such intervals hold; None without an interval.
        status: "ok"; "uncalibrated" (a value without a calibrated interval); "unread" (the model gave no readable
            answer); "invalid" (the input is no material).
        reason: Why there is no value, or no interval.
        notes: What a reader must know, such as elements that the model has never seen.
        model: Name of the checkpoint.
        distribution: The answer as a distribution; None where there is none.
    """

    input: str
    material: str | None
    task: str
    value: float | str | None
    unit: str | None
    lower: float | None
    upper: float | None
    coverage: float | None
    status: str
    reason: str | None
    notes: tuple[str, ...]
    model: str
    distribution: AnswerDistribution | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        if (self.value is None) != (self.status in ("unread", "invalid")):
            raise ValueError(f"a prediction of status {self.status} cannot have the value {self.value!r}")
        if self.value is None and not self.reason:
            raise ValueError("a prediction without a value needs its reason")
        for name in ("value", "lower", "upper", "coverage"):
            number = getattr(self, name)
            if number is not None and not isinstance(number, str) and not math.isfinite(number):
                raise ValueError(f"{name} of a prediction is {number}; what is unknown is None")
        if len({self.lower is None, self.upper is None, self.coverage is None}) > 1:
            raise ValueError("lower, upper and coverage come together or not at all")
        if self.lower is not None and self.upper is not None and not (
            isinstance(self.value, int | float) and self.lower - _NOISE <= self.value <= self.upper + _NOISE
        ):  # fmt: skip
            raise ValueError(f"the interval [{self.lower}, {self.upper}] does not hold the value {self.value!r}")

    def to_dict(self) -> dict[str, Any]:
        """The prediction as plain JSON types; no NaN, no infinity.

        Returns:
            The fields of the same names, then where there is a distribution: for numbers `mean`, `mode`, `outside`
            (mass outside the format), `unexpanded` (mass of pruned branches) and `assumed_ends` (mass of answers
            whose end was not scored); for classes `probabilities` by label
            and `outside`.
        """
        plain: dict[str, Any] = {name: _plain(getattr(self, name)) for name in FIELDS}
        plain["notes"] = list(self.notes)
        given = self.distribution
        if given is not None and given.labels:
            plain["probabilities"] = {
                label: float(p) for label, p in zip(given.labels, given.probabilities, strict=True)
            }
            plain["outside"] = float(given.outside)
        elif given is not None:
            plain |= {"mean": float(given.mean()), "mode": float(given.mode())}
            plain |= {"outside": float(given.outside), "unexpanded": float(given.unexpanded)}
            plain["assumed_ends"] = float(given.assumed_ends)
        return plain

    def _repr_html_(self) -> str:
        return Predictions([self])._repr_html_()


class Predictions(list[Prediction]):
    """A list of predictions that a notebook shows as a table."""

    def to_frame(self) -> Any:
        """The predictions as a pandas DataFrame, one row each, in order.

        Columns are the keys of `Prediction.to_dict`, with notes joined by "; " and one column `P(label)` a class.
        """
        import pandas as pd

        rows = []
        for prediction in self:
            row = prediction.to_dict()
            row["notes"] = "; ".join(prediction.notes)
            row |= {f"P({label})": p for label, p in row.pop("probabilities", {}).items()}
            rows.append(row)
        extra = [name for row in rows for name in row if name not in FIELDS]
        return pd.DataFrame(rows, columns=[*FIELDS, *dict.fromkeys(extra)])

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{name}</th>" for name in ("input", "material", "task", "value", "interval", "distribution", "remarks")
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, self))}</tbody></table>"


def _plain(value: Any) -> Any:
    """A numpy number as a Python one; texts, None and the rest as they are."""
    return value.item() if isinstance(value, np.generic) else value


def _text(value: object) -> str:
    """Text for HTML, shortened and escaped."""
    text = str(value)
    return escape(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…", quote=True)


def _row(prediction: Prediction) -> str:
    """One row of the HTML table."""
    unit = f" {prediction.unit}" if prediction.unit else ""
    value = "-" if prediction.value is None else f"{prediction.value}{unit}"
    interval = "-"
    if prediction.lower is not None and prediction.upper is not None and prediction.coverage is not None:
        interval = f"{prediction.lower} to {prediction.upper}{unit} ({100 * prediction.coverage:g} %)"
    remarks = [
        *([] if prediction.status == "ok" else [prediction.status]),
        *filter(None, [prediction.reason]),
        *prediction.notes,
    ]
    texts = [prediction.input, prediction.material or "-", prediction.task, value, interval]
    cells = "".join(f"<td>{_text(text)}</td>" for text in texts)
    return f"<tr>{cells}<td>{_plot(prediction)}</td><td>{'<br>'.join(map(_text, remarks))}</td></tr>"


def _plot(prediction: Prediction) -> str:
    """A small SVG of the distribution; empty where there is none."""
    given = prediction.distribution
    if given is None:
        return ""
    bars = _classes(given) if given.labels else _numbers(given, prediction)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{bars}</svg>'
    )


def _classes(given: AnswerDistribution) -> str:
    """One bar a class, its label and probability as a tooltip."""
    height = _HEIGHT / len(given.labels)
    return "".join(
        f'<rect x="0" y="{i * height:.1f}" width="{max(1.0, p * _WIDTH):.1f}" height="{0.8 * height:.1f}" fill="#4477aa">'
        f"<title>{_text(label)}: {p:.3f}</title></rect>"
        for i, (label, p) in enumerate(zip(given.labels, given.probabilities, strict=True))
    )


def _numbers(given: AnswerDistribution, prediction: Prediction) -> str:
    """A histogram of the middle 99 % with the interval shaded and the value as a line."""
    ends = [given.quantile(0.005), given.quantile(0.995)]
    ends += [float(x) for x in (prediction.lower, prediction.upper, prediction.value) if isinstance(x, int | float)]
    low, high = min(ends), max(ends)
    if not high > low:
        # All the mass on one value: a window of any width will show it.
        low, high = low - 1.0, high + 1.0
    counts: NDArray[np.float64] = np.histogram(
        given.values, bins=_BARS, range=(low, high), weights=given.probabilities
    )[0]
    top, step = max(float(counts.max()), 1e-12), _WIDTH / _BARS

    def place(value: float) -> float:
        return (value - low) / (high - low) * _WIDTH

    parts = []
    if prediction.lower is not None and prediction.upper is not None:
        left, right = place(prediction.lower), place(prediction.upper)
        parts.append(
            f'<rect x="{left:.1f}" y="0" width="{max(1.0, right - left):.1f}" height="{_HEIGHT}" fill="#ddcc77" fill-opacity="0.4"/>'
        )
    for i, count in enumerate(counts):
        tall = float(count) / top * (_HEIGHT - 2)
        if tall >= 0.05:
            parts.append(
                f'<rect x="{i * step:.1f}" y="{_HEIGHT - tall:.1f}" width="{0.9 * step:.1f}" height="{tall:.1f}" fill="#4477aa"/>'
            )
    if isinstance(prediction.value, int | float):
        x = place(float(prediction.value))
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}" stroke="#cc3311" stroke-width="1.5"/>')
    parts.append(f"<title>{_text(f'{low:g} to {high:g}')}</title>")
    return "".join(parts)
