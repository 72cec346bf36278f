"""The leak audit of a recipe: its own division of the rows, fold by fold, without training anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from matdarwin.data import texts
from matdarwin.data.audit import TUNE, Audit, Hit, Pair, Told, audit
from matdarwin.data.evidence import Evidence, presence
from matdarwin.data.folds import FOLDS
from matdarwin.data.leakage import Rows, Split, targets
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
    tests: dict[int, Rows] = {}

    def splits() -> Iterator[Split]:
        for fold in chosen:
            split = split_of(recipe.model_copy(update={"fold": fold}), known)
            tests[fold] = split.test
            yield split

    found = audit(
        splits(),
        {stage.name: ids_of(stage) for stage in recipe.before if stage.tasks} | {TUNE: [task.id for task in known]},
    )
    taught = [(stage.name, name) for stage in recipe.before for name in stage.texts]
    told = tuple(_told(stage, name, known) for stage, name in taught)
    crossing = [pair for stage, name in taught for pair in _text_pairs(stage, name, known, tests)]
    found = replace(found, texts=told, pairs=(*found.pairs, *crossing))
    if not recipe.evidence:
        return found
    evidence = Evidence.load(recipe.evidence)
    measured = [task for task in targets(known) if task.origin == "measured"]
    return replace(
        found,
        evidence=tuple((task.id, one) for task in measured for one in presence(task, read(task).examples, evidence)),
    )


def _text_pairs(stage: str, name: str, tasks: Sequence[Task], tests: Mapping[int, Rows]) -> Iterator[Pair]:
    """What a text tells of the test rows of each scored task, fold by fold."""
    text = texts.load(name, tasks)
    for task in targets(tasks):
        told = texts.crossing(text, task, [row for rows in tests.values() for row in rows[task.id]])
        for fold, rows in tests.items():
            test = rows[task.id]
            hits = [(row, told[row.material.key]) for row in test if row.material.key in told]
            yield Pair(
                task=task.id, train_task=name, fold=fold, test_rows=len(test),
                test_keys=len({row.material.key for row in test}), found=len(hits), stage=stage, train_rows=len(text.rows),
                # A sentence has no label that could be compared.
                labels_compared=0, labels_agree=0,
                examples=tuple(
                    Hit(row.row, row.material.given, row.target, removal.pair.row, removal.spelling, None, None)
                    for row, removal in hits[:_EXAMPLES]
                ),
            )  # fmt: skip


def _told(stage: str, name: str, tasks: Sequence[Task]) -> Told:
    text = texts.load(name, tasks)
    removed = Counter(one.task for one in text.removed)
    return Told(
        stage, name, text.read, text.held_out, dict(removed), tuple(one.reason for one in text.removed[:_EXAMPLES])
    )
