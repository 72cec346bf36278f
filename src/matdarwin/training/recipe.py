"""What to train, on what, and how: a recipe. Each key is documented where it is declared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from matdarwin.data import leakage
from matdarwin.data.evidence import Evidence, attach, choose
from matdarwin.data.leakage import Split
from matdarwin.data.sampling import Sampling
from matdarwin.data.sources import DataError
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training.options import Lora, Optimising, Part, Predicting, Prompting, Splitting, Stage

DEFAULTS = 2
"""Version of the defaults, here and in training/options.py. Hashes leave defaults out, so this is raised whenever one of them changes."""


class RecipeError(ValueError):
    """A recipe that cannot be used, with the key at fault."""


class Recipe(Part):
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
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Seed of row order, wordings, element orders and random weights."
    )

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

    def tuning(self) -> Optimising:
        """How the weights are moved in the tasks' own stage: the rate is that of the method."""
        if self.method == "full":
            return self.optimising
        return self.optimising.model_copy(update={"learning_rate": self.optimising.learning_rate * self.lora.rate})

    def knowledge(self) -> list[str]:
        """What its models know beyond their tasks' own rows: databases in their questions, texts and tasks of earlier stages."""
        earlier = (name for stage in self.before for name in (*stage.texts, *stage.tasks) if name not in self.tasks)
        return list(dict.fromkeys((*self.evidence, *earlier)))

    def digest(self, **context: Any) -> str:
        """Hash of all that shapes the result: the recipe without its words, and what the caller adds (data, base)."""
        # What stands at its default is left out, so that a key added later does not make old results look new.
        # What spares memory is left out too: a run that lacked it is to go on with less.
        stages = (stage.model_copy(update={"optimising": stage.optimising.shaping()}) for stage in self.before)
        data = self.model_copy(update={"optimising": self.optimising.shaping(), "before": tuple(stages)}).model_dump(
            mode="json",
            exclude={"description": True, "overrides": True, "split": {"test_limit"}, "predicting": {"batch_size"}},
            exclude_defaults=True,
        )
        return hashlib.sha256(json.dumps([data, context], sort_keys=True).encode()).hexdigest()


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
    earlier = earlier_tasks(recipe, tasks)
    if earlier:
        # What is scored must not depend on what else teaches: auxiliary tasks alone are scored themselves.
        scored = leakage.targets(tasks)
        tasks = [*(task.model_copy(update={"scored": task in scored}) for task in tasks), *earlier]
    split = leakage.split(
        tasks, recipe.fold, seed=options.seed, validation=options.validation, calibration=options.calibration,
        minimum_calibration=options.minimum_calibration, limit=options.limit,
        unlimited=[task.id for task in earlier], folds=options.folds, rule=options.rule,
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
