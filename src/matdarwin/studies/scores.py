"""Results files as typed data for tables: scores over folds, and the speed of prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matdarwin.evaluation.results import way_of

LESS_IS_BETTER = frozenset({"mae", "rmse"})
"""Metrics that are errors."""


class ResultsError(RuntimeError):
    """A results file that cannot be read as one."""


class _Read(BaseModel):
    """A results file as far as tables need it; what else it holds is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Published(_Read):
    """One line of the published board."""

    algorithm: str
    metric: str
    mean: float
    leaked: bool = False
    note: str | None = None


class Score(_Read):
    """`results/board/TASK.STRATEGY.json`."""

    task: str
    strategy: str
    title: str = ""
    unit: str | None = None
    metric: str
    summary: dict[str, Any]
    folds: list[dict[str, Any]]
    baselines: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    board: list[Published] = Field(default_factory=list)
    metals: dict[str, Any] | None = None
    non_metals: dict[str, Any] | None = None
    seeds: list[int] = Field(default_factory=list)
    leaky: bool = False
    knowledge: list[str] = Field(default_factory=list)
    machine: dict[str, Any] = Field(default_factory=dict)

    @property
    def model(self) -> str:
        """What its model is called, with what sets it apart from one of the task's rows alone."""
        named = f"{self.strategy}, with knowledge" if self.knowledge else self.strategy
        return f"{named} (LEAKY)" if self.leaky else named

    @property
    def tested(self) -> list[int]:
        """The test folds that are in it."""
        return sorted({int(fold["fold"]) for fold in self.folds})

    @property
    def classes(self) -> bool:
        """Whether answers are classes."""
        return self.metric not in LESS_IS_BETTER

    def own(self) -> float | None:
        """The model's own score: for numbers that of the answer which the metric asks for, over all rows.

        Rivals answer every row, so a row that was not read counts in the MAE as if the training median had been answered.
        """
        found = self.summary.get(self.metric)
        if self.metric == "mae":
            found = self.summary.get("mae_pessimistic", found)
        if isinstance(found, dict) and (way := way_of(self.metric)) in found:
            found = found[way]
        return single(found)

    def rival(self) -> tuple[str, float] | None:
        """The best classical model of the same run."""
        scores = [
            (name, value) for name, found in self.baselines.items() if (value := found.get(self.metric)) is not None
        ]
        return min(scores, key=lambda item: self.worse(item[1]), default=None)

    def published(self) -> Published | None:
        """The best published score that does not rest on a leak."""
        clean = [row for row in self.board if row.metric == self.metric and not row.leaked]
        return min(clean, key=lambda row: self.worse(row.mean), default=None)

    def worse(self, value: float) -> float:
        """A number that is larger the worse a score is."""
        return value if self.metric in LESS_IS_BETTER else -value


def single(value: Any) -> float | None:
    """One number of a score that may be given by way of answering (`median`, else the first)."""
    if isinstance(value, dict):
        value = value.get("median", next(iter(value.values()), None))
    return None if value is None else float(value)


def read_scores(results: Path) -> list[Score]:
    """All results over folds, by task and strategy.

    Raises:
        ResultsError: A file is no such result; it is named.
    """
    found = []
    for file in sorted((results / "board").glob("*.json")):
        task, _, strategy = file.stem.partition(".")
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            summary = data["summary"]
            metric = "mae" if "mae" in summary else "balanced_accuracy"
            found.append(Score.model_validate({"task": task, "strategy": strategy, "metric": metric} | data))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValidationError) as error:
            raise ResultsError(
                f"{file} is no result over folds: {' '.join(str(error).split())}; make it again with darwin evaluate"
            ) from error
    return found


def read_bench(results: Path) -> dict[str, Any] | None:
    """Summary of the speed of prediction, or None where it was not measured.

    Raises:
        ResultsError: The file is no such result.
    """
    file = results / "bench" / "predict.json"
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return dict(data["summary"]) | {"machine": data.get("machine") or {}}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{file} is no benchmark result: {error}; make it again with make bench") from error
