"""What to train, on what, and how: a recipe, loaded from YAML. Each key is documented where it is declared."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from matdarwin.data import leakage
from matdarwin.data.evidence import Evidence, attach, choose
from matdarwin.data.leakage import Split
from matdarwin.data.sampling import Sampling
from matdarwin.data.sources import DataError
from matdarwin.data.texts import check
from matdarwin.tasks import registry
from matdarwin.tasks.registry import nearest
from matdarwin.tasks.schema import Task

DEFAULTS = 2
"""Version of the defaults below. Hashes leave defaults out, so this is raised whenever one of them changes."""


class RecipeError(ValueError):
    """A recipe that cannot be used, with the key at fault."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Part):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = Field(default=16, ge=1, description="Rank of the update of each matrix.")
    alpha: float = Field(default=32.0, gt=0, description="Scale of the update; its effect is alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the update.")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(default="all-linear", description="Matrices to adapt.")


class Prompting(_Part):
    """How questions are put while training."""

    style: Literal["compact", "alpaca"] = Field(default="compact", description="Layout of the question.")
    wordings: tuple[int, ...] = Field(
        default=(), description="Wordings to draw from, by index; empty: the style's own."
    )
    order: Literal["canonical", "source", "permuted"] = Field(
        default="canonical", description="Order of the elements; permuted: drawn anew for each row and epoch."
    )


class Splitting(_Part):
    """Which rows teach, choose, calibrate and test."""

    rule: Literal["key", "none"] = Field(
        default="key",
        # Not written where it is the default, see `before`.
        exclude_if=lambda rule: rule == "key",
        description="key: a material in a test set teaches nothing of its quantity; none: nothing is removed or merged. "
        "none is for stating other people's runs, which can then be audited; it is never trained.",
    )
    folds: Literal["official", "aligned", "seeded"] = Field(default="official", description="Whose test folds.")
    validation: float = Field(
        default=0.1, ge=0, lt=0.5, description="Share of the training keys that choose the best epoch."
    )
    calibration: float = Field(
        default=0.1, ge=0, lt=0.5, description="Share of the training keys that calibrate intervals."
    )
    minimum_calibration: int = Field(
        default=50, ge=0, description="Fewest calibration keys a task, where it has enough rows."
    )
    seed: int = Field(default=0, description="Seed of the drawing.")
    limit: int | None = Field(default=None, ge=1, description="Most training rows a task; null: all.")
    test_limit: int | None = Field(
        default=None, ge=1, description="Most test rows to score in a demonstration; null: all."
    )


class Optimising(_Part):
    """How weights are moved: AdamW (arXiv 1711.05101), linear warm-up, cosine to zero."""

    learning_rate: float = Field(default=1.5e-4, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")
    betas: tuple[float, float] = Field(default=(0.9, 0.99), description="AdamW's decay rates.")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps with a rising rate.")
    clip: float = Field(default=1.0, gt=0, description="Greatest norm of the gradient.")
    batch_size: int = Field(default=32, ge=1, description="Rows a step.")
    epochs: int = Field(default=6, ge=1, description="Passes over the training rows.")
    embeddings: Literal["used", "trained", "frozen"] = Field(
        default="used",
        description="Which token embeddings move in full fine-tuning: those of tokens that occur, all, or none. All cost "
        "a quarter of a step more on a CPU.",
    )
    minimum_steps: int = Field(
        default=0, ge=0, description="Fewest steps; small sets are passed over more often to reach them."
    )
    # What stands at its default below is not written, so that results from before there were these keys compare equal
    # to new ones.
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        exclude_if=lambda share: share == 0,
        description="Share of the steps, the last ones, whose weights are averaged; 0: the last weights stand.",
    )


class Stage(_Part):
    """What a model is taught before its tasks; all weights move. It is trained once and found again by its content."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Name of the stage; its checkpoint begins with it.")
    texts: tuple[str, ...] = Field(
        default=(),
        description="Question-answer pairs: sciqag, elements, or the path of a file of pairs. What they tell of materials "
        "of any scored task is left out.",
    )
    tasks: tuple[str, ...] = Field(default=(), description="Tasks that teach here, such as auxiliary ones.")
    sampling: Sampling = Field(default=Sampling(), description="By what rule tasks and texts share the stream.")
    optimising: Optimising = Field(default=Optimising(), description="How the weights are moved.")

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        together = [*self.texts, *self.tasks]
        if not together or len(set(together)) != len(together):
            raise ValueError(f"stage {self.name} needs texts or tasks, each once, got {', '.join(together) or 'none'}")
        for text in self.texts:
            try:
                check(text)
            except DataError as error:
                raise ValueError(str(error)) from error
        return self


class Predicting(_Part):
    """How the finished model is asked; stored in its checkpoint."""

    views: int = Field(default=1, ge=1, le=16, description="Element orders to average the answer over.")
    batch_size: int = Field(default=64, ge=1, description="Prompts a batch.")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Number format when scoring; auto: fp32."
    )
    prune: float = Field(default=0.01, ge=0, le=0.01, description="Greatest mass that may stay unexpanded.")


class Recipe(_Part):
    """A whole recipe."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Name of the recipe; checkpoints begin with it.")
    description: str = Field(default="", description="One line for people.")
    role: Literal["product", "benchmark"] = Field(
        default="product", description="product: for prediction; benchmark: a fold model, for scores only."
    )
    tasks: tuple[str, ...] = Field(min_length=1, description="Ids of tasks, or paths of task files.")
    fold: int | None = Field(
        default=None, ge=0, le=4, description="Test fold that is held out; null: nothing is held out."
    )
    base: str = Field(default="smollm2-135m", description="Embedded base model, folder, or hub name.")
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random: fresh weights of the same shape."
    )
    method: Literal["full", "lora"] = Field(
        default="full", description="full: all weights move; lora: low-rank updates."
    )
    lora: Lora = Lora()
    prompting: Prompting = Prompting()
    # What stands at its default below is not written, so that results from before there were these keys compare equal
    # to new ones.
    before: tuple[Stage, ...] = Field(
        default=(),
        exclude_if=lambda stages: not stages,
        description="Stages before the tasks' own, each going on from the one before it.",
    )
    sampling: Sampling = Field(
        default=Sampling(),
        exclude_if=lambda sampling: sampling == Sampling(),
        description="By what rule several tasks share the stream.",
    )
    negatives: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        exclude_if=lambda share: share == 0,
        description="Share of the training rows that have no value for an answer: words that are no material, and "
        "questions that lack a condition.",
    )
    evidence: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda names: not names,
        description="Databases whose computed values stand in the questions of measured tasks (gap_mp, gap_oqmd, "
        "gap_aflow, energy_mp); a user's materials are looked up too. Scores say that they had it.",
    )
    split: Splitting = Splitting()
    optimising: Optimising = Optimising()
    predicting: Predicting = Predicting()
    overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Task id -> keys that differ where that task alone is trained."
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Number format while training; weights stay fp32."
    )
    seed: int = Field(default=0, description="Seed of row order, wordings, element orders and random weights.")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.evidence:
            try:
                choose(self.evidence)
            except DataError as error:
                raise ValueError(str(error)) from error
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks: {', '.join(self.tasks)} names one task twice")
        if self.predicting.views > 1 and self.prompting.order != "permuted":
            raise ValueError(
                f"predicting.views {self.predicting.views}: a model that was taught one order (prompting.order "
                f"{self.prompting.order}) has no use for others; set views to 1, or the order to permuted"
            )
        if len({stage.name for stage in self.before} | {"tune"}) <= len(self.before):
            raise ValueError("before: two stages have one name, or one is named tune, as the tasks' own stage is")
        if self.method == "lora" and self.before:
            raise ValueError("method lora: earlier stages move all weights, so the last must too; choose method: full")
        if self.method == "lora" and self.weights == "random":
            raise ValueError("method lora: low-rank updates of random weights learn nothing; choose method: full")
        return self

    def knowledge(self) -> list[str]:
        """What its models know beyond their tasks' own rows: databases in their questions, texts and tasks of earlier stages."""
        earlier = (name for stage in self.before for name in (*stage.texts, *stage.tasks) if name not in self.tasks)
        return list(dict.fromkeys((*self.evidence, *earlier)))

    def digest(self, **context: Any) -> str:
        """Hash of all that shapes the result: the recipe without its words, and what the caller adds (data, base)."""
        # What stands at its default is left out, so that a key added later does not make old results look new.
        data = self.model_dump(
            mode="json",
            exclude={"description": True, "overrides": True, "split": {"test_limit"}, "predicting": {"batch_size"}},
            exclude_defaults=True,
        )
        return hashlib.sha256(json.dumps([data, context], sort_keys=True).encode()).hexdigest()


def load_recipe(path: Path | str, settings: list[str] | None = None) -> Recipe:
    """Load a recipe and apply `key=value` settings, dotted for nested keys.

    A recipe that names a single task takes that task's `overrides`.

    Raises:
        RecipeError: No such file, broken YAML, an unknown key (the nearest known one is named), a wrong value.
    """
    file = Path(path)
    if not file.is_file():
        raise RecipeError(f"{file} is no recipe file")
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is not readable as YAML: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{file} holds no keys")
    return build_recipe(data, settings, where=str(file))


def build_recipe(data: dict[str, Any], settings: list[str] | None = None, *, where: str = "recipe") -> Recipe:
    """Validate a recipe from a mapping; see `load_recipe`."""
    data = copy.deepcopy(data)
    changes = [_setting(text) for text in settings or []]
    for keys, value in changes:
        _put(data, keys, value)
    recipe = _validated(data, where)
    if len(recipe.tasks) == 1 and recipe.tasks[0] in recipe.overrides:
        _merge(data, recipe.overrides[recipe.tasks[0]])
        # What was asked for on the command line stands above what the file says of a task.
        for keys, value in changes:
            _put(data, keys, value)
        recipe = _validated(data, f"{where}, overrides of {recipe.tasks[0]}")
    return recipe


def ids_of(stage: Stage) -> list[str]:
    """Ids of a stage's tasks, which may be named by their files."""
    return [registry.load(name).id for name in stage.tasks]


def earlier_tasks(recipe: Recipe, tasks: Sequence[Task]) -> list[Task]:
    """Tasks of earlier stages that are none of the recipe's own: they teach, and lose every test material of its own."""
    own = {task.id: task for task in tasks}
    found = {task.id: task for stage in recipe.before for task in map(registry.load, stage.tasks)}
    for name, task in found.items():
        if own.get(name, task) != task:
            raise RecipeError(f"before: a task {name} that is another than the recipe's own of that name; rename one")
    return [task.model_copy(update={"scored": False}) for name, task in found.items() if name not in own]


def split_of(recipe: Recipe, tasks: Sequence[Task]) -> Split:
    """The division of the tasks' rows that a recipe trains on, with the evidence that it asks for.

    Raises:
        DataError: The data cannot be had, or leave nothing to train on.
        RecipeError: Evidence for tasks that may have none, or two tasks of one name.
    """
    options = recipe.split
    if earlier := earlier_tasks(recipe, tasks):
        # What is scored must not depend on what else teaches: auxiliary tasks alone are scored themselves.
        scored = leakage.targets(tasks)
        tasks = [*(task.model_copy(update={"scored": task in scored}) for task in tasks), *earlier]
    split = leakage.split(
        tasks, recipe.fold, seed=options.seed, validation=options.validation, calibration=options.calibration,
        minimum_calibration=options.minimum_calibration, limit=options.limit, folds=options.folds, rule=options.rule,
    )  # fmt: skip
    if not recipe.evidence:
        return split
    told = {task.id: task for task in tasks if task.origin == "measured"}
    if not told:
        raise RecipeError(
            f"recipe {recipe.name}: the labels of {', '.join(recipe.tasks)} are computed, and computed evidence may hold "
            "the very answer; leave evidence out"
        )
    evidence = Evidence.load(recipe.evidence)
    parts = {}
    for part in ("train", "validation", "calibration", "test"):
        rows = getattr(split, part)
        parts[part] = rows | {name: attach(told[name], rows[name], evidence) for name in rows if name in told}
    return replace(split, **parts)


def _validated(data: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "; ".join(_line(problem) for problem in error.errors())) from error


def _line(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = nearest(str(problem["loc"][-1]), _known(problem["loc"][:-1]))
        return f"{path} is no key of a recipe" + (f"; did you mean {near[0]}?" if near else "")
    if problem["type"] == "missing":
        return f"{path} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}, got {problem['input']!r}" if path else message


def _known(parents: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for part in parents:
        field = model.model_fields.get(str(part)) if hasattr(model, "model_fields") else None
        model = field.annotation if field else None
    return list(model.model_fields) if hasattr(model, "model_fields") else []


def _setting(text: str) -> tuple[list[str], Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise RecipeError(f"--set {text}: write key=value, such as optimising.epochs=3")
    try:
        return key.split("."), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {text}: {value!r} is not readable as YAML") from error


def _put(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {'.'.join(keys)}: {key} is a single value and has no keys below it")
        data = inner
    data[keys[-1]] = value


def _merge(data: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            _merge(data[key], value)
        else:
            data[key] = value
