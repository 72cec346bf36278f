"""What the demonstration found, as typed JSON: the data behind `demo/report.html`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from matdarwin.evaluation.metrics import RegressionScore

FORMAT = 1
"""Raised when the fields below or what is computed for them change; older parts are then made anew."""


class _Typed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Covered(_Typed):
    """How the intervals of one nominal coverage fared on the test materials."""

    nominal: float = Field(description="What was asked for, 0 to 1.")
    observed: float = Field(description="Share of the test materials whose measured value the interval holds.")
    width: float = Field(description="Mean width of the intervals, in the task's unit.")
    rows: int = Field(description="Test materials with an interval.")


class HeldOut(_Typed):
    """The model's answer for one held-out material; values in the task's unit, None where unread."""

    material: str
    target: float = Field(description="Measured value, the median where there are several.")
    median: float | None = None
    mean: float | None = None
    mode: float | None = None
    lower: float | None = None
    upper: float | None = None


class Asked(_Typed):
    """A formula that was in no part that the model learnt from."""

    prediction: dict[str, Any] = Field(description="As `darwin predict --json` prints it.")
    measured: float | None = Field(default=None, description="Its value in the held-out rows, where it has one.")


class Curve(_Typed):
    """A predictive distribution over the answer grid."""

    material: str
    values: list[float] = Field(description="Answers, rising, in the task's unit.")
    probabilities: list[float]
    median: float
    lower: float | None = None
    upper: float | None = None
    measured: float | None = None


class LanguagePart(_Typed):
    """Everything that the language model answered."""

    key: str = Field(description="Hash of all that these answers depend on; the part is reused while it stays.")
    scores: dict[str, RegressionScore] = Field(description="By way of answering: median, mean, mode.")
    covered: list[Covered]
    tested: list[HeldOut]
    asked: list[Asked]
    curve: Curve | None
    seconds: float = Field(description="Time to answer the test materials.")


class Rival(_Typed):
    """One classical model on the same test materials."""

    score: RegressionScore
    features: str
    seconds: float
    answers: list[float] = Field(description="One a test material, in their order, in the task's unit.")


class RivalsPart(_Typed):
    """The classical models, fitted on every row that the language model could use in any way."""

    key: str = Field(description="Hash of all that these answers depend on; the part is reused while it stays.")
    rows: int = Field(description="Rows they were fitted on.")
    rivals: dict[str, Rival]
    seconds: float = Field(description="Features and all fits together.")


class DemoResult(_Typed):
    """The whole demonstration."""

    format: int = FORMAT
    task: str
    title: str
    unit: str | None
    decimals: int
    citation: str
    licence: str
    checkpoint: str
    base: str
    recipe: dict[str, Any]
    recipe_hash: str
    data_sha256: str
    rows: dict[str, int] = Field(description="Materials in each part, and test rows before sampling.")
    training: dict[str, Any] = Field(
        description="Steps, tokens, seconds and validation scores, from the checkpoint's card."
    )
    machine: dict[str, Any]
    coverage: float = Field(description="Nominal coverage of the intervals shown.")
    language: LanguagePart
    rivals: RivalsPart
    seconds: float = Field(description="Wall time of the run that wrote this file; little where all was reused.")
    reused: list[str] = Field(description="Parts that were there already.")
