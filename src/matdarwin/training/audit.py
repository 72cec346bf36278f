"""The leak audit of a recipe: its own division of the rows, fold by fold, without training anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from matdarwin.data import texts
from matdarwin.data.audit import TUNE, Audit, Hit, Pair, Told, audit
from matdarwin.data.evidence import Evidence, presence
from matdarwin.data.folds import FOLDS
from matdarwin.data.leakage import Rows, Split, keys_hash, related, targets
from matdarwin.data.readers import read
from matdarwin.models.checkpoint import CARD, Card
from matdarwin.models.export import NOTE
from matdarwin.tasks import registry
from matdarwin.tasks.registry import TaskFileError, UnknownTaskError
from matdarwin.tasks.schema import Task
from matdarwin.training.recipe import Recipe, ids_of, split_of

_EXAMPLES = 3


def audit_recipe(
    recipe: Recipe,
    *,
    tasks: Sequence[Task] | None = None,
    folds: Sequence[int] | None = None,
    divided: Mapping[int, Split] | None = None,
) -> Audit:
    """What training by a recipe would learn of its test materials, and what its base has learnt of them before.

    Args:
        recipe: The recipe; its own `fold` is overruled by `folds`.
        tasks: Its tasks, where they are no registered ones.
        folds: Test folds; None: all five.
        divided: Divisions of the rows that are at hand, by fold; the others are made.

    Raises:
        DataError: The data cannot be had, or leave nothing to train on.
        RecipeError: Evidence for tasks that may have none.
    """
    known = list(tasks) if tasks is not None else [registry.load(name) for name in recipe.tasks]
    chosen = range(FOLDS) if folds is None else sorted(set(folds))
    tests: dict[int, Rows] = {}
    taught: list[str] = []

    def splits() -> Iterator[Split]:
        for fold in chosen:
            ready = (divided or {}).get(fold)
            split = split_of(recipe.model_copy(update={"fold": fold}), known) if ready is None else ready
            tests[fold] = split.test
            taught.extend(base_faults(recipe, split))
            yield split

    found = audit(
        splits(),
        {stage.name: ids_of(stage) for stage in recipe.before if stage.tasks} | {TUNE: [task.id for task in known]},
    )
    read_texts = [(stage.name, name) for stage in recipe.before for name in stage.texts]
    told = tuple(_told(stage, name, known) for stage, name in read_texts)
    crossing = [pair for stage, name in read_texts for pair in _text_pairs(stage, name, known, tests)]
    found = replace(found, texts=told, pairs=(*found.pairs, *crossing), base=tuple(dict.fromkeys(taught)))
    if not recipe.evidence:
        return found
    evidence = Evidence.load(recipe.evidence)
    measured = [task for task in targets(known) if task.origin == "measured"]
    return replace(
        found,
        evidence=tuple((task.id, one) for task in measured for one in presence(task, read(task).examples, evidence)),
    )


def _text_pairs(stage: str, name: str, tasks: Sequence[Task], tests: Mapping[int, Rows]) -> Iterator[Pair]:
    """What a text tells of the test rows of each scored task, fold by fold.

    It is asked with the filter that it has gone through: none is found unless it went by that, and then it is a leak.
    """
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


def base_faults(recipe: Recipe, split: Split) -> list[str]:
    """What a base that matdarwin taught (a checkpoint's weights, or their export) may know of the test rows of a division.

    A base may have been taught a task's quantity only if it was taught the task itself, with these very test materials held
    out, by the rule. An export says its fold, but not its test materials.

    Args:
        recipe: The recipe, which names the base.
        split: The division.
    """
    faults: list[str] = []
    if recipe.weights == "random":
        return faults  # of the base its shape is taken alone
    folder = Path(recipe.base)
    while (told := _card_of(folder)) is not None:
        taught, card = told
        name = f"the base {folder}"
        if taught is None:
            return [
                *faults,
                f"{name} was taught by matdarwin, but its card cannot be read; take the base that it was made from",
            ]
        for task in (task for task in split.tasks if task.id in split.targets):
            near = [other if isinstance(other, str) else other.id for other in taught if _may_tell(task, other)]
            if near and not _holds_out(card, task, split):
                faults.append(
                    f"{name} was taught {', '.join(near)}, and it is not known to have held out the test materials of "
                    f"{task.id} in fold {split.fold}; take the base that it was made from, or the weights of a checkpoint that did"
                )
        if card is not None and card.recipe.get("weights") == "random":
            break  # of its base it has the shape alone
        # What it was made of may have been taught too.
        above = Path(str(card.base["name"])) if card is not None else folder
        if above == folder:
            break
        if above.is_absolute() and not above.is_dir():
            return [
                *faults,
                f"{name} was made from {above}, which is gone, so what that was taught is not known; put it back there",
            ]
        folder = above
    return faults


def _card_of(folder: Path) -> tuple[list[Task | str] | None, Card | None] | None:
    """Tasks that a folder's weights were taught, and its card where it is a checkpoint's; None where neither says so.

    A task that is known by its name alone is its name. The tasks are None where what says so cannot be read.
    """
    if not folder.is_dir():  # one of the embedded bases, or of the hub
        return None
    note, path = folder / NOTE, folder.resolve().parent / CARD
    try:
        if note.is_file():
            return [_named(name) for name in json.loads(note.read_text(encoding="utf-8"))["tasks"]], None
        if not path.is_file():
            return None
        card = Card.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None, None
    # An earlier stage's own card has its stage where another has all those before it.
    stages: list[dict[str, Any]] = [
        *card.recipe.get("before", ()),
        *([card.recipe["stage"]] if "stage" in card.recipe else ()),
    ]
    earlier = (name for stage in stages for name in stage.get("tasks", ()))
    return [*(entry.task for entry in card.tasks.values()), *map(_named, earlier)], card


def _named(name: str) -> Task | str:
    try:
        return registry.load(name)
    except (UnknownTaskError, TaskFileError):
        return name


def _may_tell(task: Task, other: Task | str) -> bool:
    """Whether rows of the other may hold labels of the task; of a task that is known by its name alone nobody can say."""
    return isinstance(other, str) or other.id == task.id or related(task, other)


def _holds_out(card: Card | None, task: Task, split: Split) -> bool:
    """Whether a checkpoint held out the test materials of a task, in all that it was taught."""
    if card is None or task.id not in card.tasks or card.leaky:
        return False
    options = card.recipe.get("split", {})
    return (
        card.fold == split.fold
        and options.get("folds", "official") == split.scheme
        and options.get("rule", "key") == "key"
        and card.tasks[task.id].parts.get("test") == keys_hash(split.test[task.id])
    )
