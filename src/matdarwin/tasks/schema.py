"""What a task is: the pydantic model behind each YAML file, and the `Example` it yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from string import Formatter
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from matdarwin.materials.material import Kind, Material

MAX_GRID = 1_000_000
"""Most values that a numeric answer may take; more would not fit the decoder's tree."""


PLACEHOLDERS = ("material", "conditions")
"""What a wording may ask to be filled in."""


class Model(BaseModel):
    """Strict base: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Model):
    """Where the bytes come from, pinned by sha256."""

    kind: Literal["wheel", "github", "url", "file", "mirror"] = Field(
        description="wheel: a file inside a Python wheel; github: a file at a commit; url: any address; "
        "file: a path on this machine; mirror: a file that only the mirror holds."
    )
    name: str = Field(description="Wheel name, owner/name of the repository, address, or path.")
    version: str | None = Field(default=None, description="Version of the wheel or commit of the repository.")
    path: str | None = Field(default=None, description="Path inside the wheel or repository.")
    mirror: str | None = Field(
        default=None, description="Path in the local mirror (MATDARWIN_MIRROR), where it holds this file."
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file itself, after unpacking the wheel.")
    archive_sha256: str | None = Field(default=None, description="SHA-256 of the wheel that holds the file.")
    made_from: str | None = Field(default=None, description="What a file that stands only in the mirror was made from.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind in ("wheel", "github") and not (self.version and self.path):
            raise ValueError(f"a {self.kind} source needs version and path")
        if self.kind == "mirror" and not self.mirror:
            raise ValueError("a mirror source needs the path in the mirror")
        return self


class Reader(Model):
    """How rows of the file become examples."""

    name: str = Field(default="table", description="Name of a reader in matdarwin.data.readers.")
    material: str = Field(description="Column that holds the material.")
    target: str = Field(description="Column that holds the answer.")
    row_id: str | None = Field(default=None, description="Column with a row's own id; else its number counts.")
    fold: str | None = Field(default=None, description="Column with the official test fold.")
    labels: dict[str, str] = Field(
        default_factory=dict, description="Spelling of a class in the file -> label of the task."
    )
    conditions: dict[str, str] = Field(default_factory=dict, description="Name of a condition -> its column.")


class Condition(Model):
    """A circumstance that belongs to the question, such as the temperature."""

    name: str
    unit: str | None = None
    required: bool = True


class Task(Model):
    """One property task. Each key is documented where it is declared."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the task, used everywhere.")
    version: int = Field(ge=1, description="Raised when rows, wording or cleaning change.")
    kind: Literal["regression", "classification"]
    scored: bool = Field(default=True, description="False: an auxiliary task, which teaches and is not scored.")
    title: str = Field(description="One line for people.")
    property: str = Field(description="The property in words, as the prompt has it.")
    quantities: tuple[str, ...] = Field(
        min_length=1, description="What is measured; tasks that share one share leak checks."
    )
    leads: tuple[str, ...] = Field(
        default=(), description="Quantities whose other tasks take this one's folds when folds are aligned."
    )
    origin: Literal["measured", "computed"] = "measured"
    unit: str | None = Field(default=None, description="Unit of the target; null for classes and pure numbers.")
    bounds: tuple[float, float] | None = Field(
        default=None, description="Least and greatest value an answer may take (regression)."
    )
    decimals: int | None = Field(
        default=None, ge=0, le=6, description="Digits after the point, always written (regression)."
    )
    labels: tuple[str, ...] = Field(default=(), description="The classes, as the answer has them (classification).")
    positive: str | None = Field(
        default=None, description="The label that counts as positive for ROC-AUC (two classes)."
    )
    representation: Kind = Field(description="What the material is given as.")
    conditions: tuple[Condition, ...] = ()
    wordings: tuple[str, ...] = Field(
        min_length=1, description="Ways to ask, with {material} and {conditions} to fill in; the first is the default."
    )
    metric: Literal["mae", "rmse", "macro_f1", "balanced_accuracy", "accuracy"]
    folds: Literal["official", "seeded"] = "seeded"
    board: str | None = Field(default=None, description="Name of the task on the matbench board.")
    source: Source
    reader: Reader
    licence: str
    citation: str
    description: str
    notes: tuple[str, ...] = Field(default=(), description="Known defects of the data, and each cleaning rule.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "regression":
            if self.bounds is None or self.decimals is None:
                raise ValueError(f"task {self.id}: a regression task needs bounds and decimals")
            low, high = self.bounds
            if not low < high:
                raise ValueError(f"task {self.id}: bounds must rise, got [{low}, {high}]")
            if any(abs(bound * 10**self.decimals - round(bound * 10**self.decimals)) > 1e-6 for bound in self.bounds):
                raise ValueError(
                    f"task {self.id}: bounds [{low}, {high}] need more than its {self.decimals} decimals; answers could not reach them"
                )
            if (high - low) * 10**self.decimals > MAX_GRID:
                raise ValueError(
                    f"task {self.id}: bounds [{low}, {high}] with {self.decimals} decimals give over {MAX_GRID:,} values; narrow them"
                )
            if self.labels:
                raise ValueError(f"task {self.id}: labels belong to classification")
            if self.metric not in ("mae", "rmse"):
                raise ValueError(f"task {self.id}: metric {self.metric} is for classification")
        else:
            if len(set(self.labels)) < 2 or len(set(self.labels)) != len(self.labels):
                raise ValueError(f"task {self.id}: a classification task needs two or more different labels")
            if self.positive is not None and self.positive not in self.labels:
                raise ValueError(f"task {self.id}: positive label {self.positive!r} is not among {list(self.labels)}")
            if self.metric in ("mae", "rmse"):
                raise ValueError(f"task {self.id}: metric {self.metric} is for regression")
        if self.folds == "official" and self.reader.fold is None:
            raise ValueError(f"task {self.id}: official folds need reader.fold, the column that holds them")
        if stray := set(self.leads) - set(self.quantities):
            raise ValueError(
                f"task {self.id}: leads {sorted(stray)} are not among its quantities {list(self.quantities)}"
            )
        for wording in self.wordings:
            _check_wording(self.id, wording)
        return self


def _check_wording(task: str, wording: str) -> None:
    """Refuse a wording that could not be filled in: no {material}, another placeholder, or a brace that stands alone."""
    try:
        pieces = list(Formatter().parse(wording))
    except ValueError as error:
        raise ValueError(
            f"task {task}: wording {wording!r} has a brace that is no placeholder ({error}); write {{{{ or }}}} for one"
        ) from error
    fields = [(name, spec, conversion) for _, name, spec, conversion in pieces if name is not None]
    for name, spec, conversion in fields:
        if name not in PLACEHOLDERS or spec or conversion:
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(
                f"task {task}: wording {wording!r} has the placeholder {{{shown}}}; there are {{material}} and {{conditions}} alone"
            )
    if not any(name == "material" for name, _, _ in fields):
        raise ValueError(f"task {task}: wording {wording!r} lacks {{material}}")


@dataclass(frozen=True, slots=True)
class Example:
    """One question with, where known, its answer.

    Attributes:
        task: Id of the task.
        row: The row's own id in its source (matbench id or row number).
        material: What is asked about.
        conditions: Value of each condition, by name.
        evidence: Sentences to be written into the prompt.
        target: The answer: a float in the task's unit, a label, or None where unknown.
        fold: The test fold that holds the row, or None where the task has none yet.
        spread: Greatest minus least of the measurements merged into this one; 0 for a single one.
    """

    task: str
    row: str
    material: Material
    conditions: dict[str, str | float] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    target: float | str | None = None
    fold: int | None = None
    spread: float = 0.0
