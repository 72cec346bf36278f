"""The leak audit of a recipe: its own division of the rows, fold by fold, without training anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from matdarwin.data import texts
from matdarwin.data.audit import TUNE, Audit, Told, audit
from matdarwin.data.evidence import Evidence, presence
from matdarwin.data.folds import FOLDS
from matdarwin.data.leakage import targets
from matdarwin.data.readers import read
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training.recipe import Recipe, ids_of, split_of

_EXAMPLES = 3


def audit_recipe(recipe: Recipe, *, tasks: Sequence[Task] | None = None, folds: Sequence[int] | None = None) -> Audit:
    """What training by a recipe would learn of its test materials.

    Args:
        recipe: The recipe; its own `fold` is overruled by `folds`.
        tasks: Its tasks, where they are no registered ones.
        folds: Test folds; None: all five.

    Raises:
        DataError: The data cannot be had, or leave nothing to train on.
        RecipeError: Evidence for tasks that may have none.
    """
    known = list(tasks) if tasks is not None else [registry.load(name) for name in recipe.tasks]
    chosen = range(FOLDS) if folds is None else sorted(set(folds))
    found = audit(
        (split_of(recipe.model_copy(update={"fold": fold}), known) for fold in chosen),
        {stage.name: ids_of(stage) for stage in recipe.before if stage.tasks} | {TUNE: [task.id for task in known]},
    )
    told = tuple(_told(stage.name, name, known) for stage in recipe.before for name in stage.texts)
    found = replace(found, texts=told)
    if not recipe.evidence:
        return found
    evidence = Evidence.load(recipe.evidence)
    measured = [task for task in targets(known) if task.origin == "measured"]
    return replace(
        found,
        evidence=tuple((task.id, one) for task in measured for one in presence(task, read(task).examples, evidence)),
    )


def _told(stage: str, name: str, tasks: Sequence[Task]) -> Told:
    text = texts.load(name, tasks)
    removed = Counter(one.task for one in text.removed)
    return Told(
        stage, name, text.read, text.held_out, dict(removed), tuple(one.reason for one in text.removed[:_EXAMPLES])
    )
