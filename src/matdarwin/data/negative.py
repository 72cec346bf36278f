"""Questions that have no value for an answer: a word that is no material, a required condition that is not given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from matdarwin.data.sampling import permutation
from matdarwin.data.sources import DataError
from matdarwin.materials import parse
from matdarwin.materials.material import Kind, Material, MaterialError
from matdarwin.tasks.schema import Example, Task

NOT_A_MATERIAL = "not a material"
"""The answer to a word."""

_LIST = """
airport angel apple apron autumn basket bicycle birthday blanket bottle breakfast bridge brother butterfly button
calendar camera candle captain carpet castle ceiling chair cherry church circus clock cloud cousin curtain daughter
dentist dinner doctor dragon drawer dream drum elephant elbow engine envelope evening farmer feather festival finger
flower forest fountain friend garden giraffe guitar hammer harbour holiday honey horse island jacket journey juggler
kettle kitchen ladder language lemon letter library market meadow melody mirror mountain museum needle neighbour
newspaper orchard painter parrot pencil piano picture pillow pocket queen question rabbit rainbow river saddle sailor
sandwich school shadow sister spider spring story summer table teacher theatre thunder ticket tomato tower tractor
traveller umbrella uncle valley village violin wallet weather wedding whisper window winter yesterday
"""
WORDS = tuple(_LIST.split())
"""Everyday English nouns of our own choosing. None is a formula or a SMILES, in small letters or with a capital."""

Reason = Literal["word", "condition"]
"""Why a question cannot be answered with a value."""


def reasons(task: Task) -> tuple[Reason, ...]:
    """What can be wrong with a question of the task, soundly.

    A task whose materials are names has no words for it, since any word could be the name of a material; and
    only a condition that the task requires can be missing.
    """
    found: tuple[Reason, ...] = ("word",) if _words(task.representation) else ()
    return (*found, "condition") if any(condition.required for condition in task.conditions) else found


def negatives(task: Task, examples: Sequence[Example], share: float, *, seed: int) -> list[Example]:
    """Negative examples of a task, to be added to its training rows.

    Conditions, and materials where a condition is missing, are those of the given rows, so no key comes from elsewhere.
    The reasons that the task allows come in equal numbers.

    Args:
        task: The task.
        examples: Its training rows.
        share: Part of rows and negatives together that the negatives are, from 0 (none) to under 1.
        seed: Seed of the draw.

    Returns:
        share / (1 - share) times as many as there are rows, each with an `answer` and no target. A word has the key
        `word:...`, which no material has.

    Raises:
        DataError: The share is none, there are no rows, or the task allows no negative example (see `reasons`).
    """
    if not 0 <= share < 1:
        raise DataError(f"the share of negative examples is from 0 to under 1, got {share}")
    if share == 0:
        return []
    if not examples:
        raise DataError(f"task {task.id}: no training row to make negative examples of")
    able = reasons(task)
    if not able:
        raise DataError(
            f"task {task.id}: no negative example is sound: any word could be a name, and no condition is required; "
            "leave it out"
        )
    words = _words(task.representation)
    needed = [condition.name for condition in task.conditions if condition.required]
    salt = f"negative|{seed}|{task.id}"
    rows, turns = permutation(f"{salt}|rows", len(examples)), permutation(f"{salt}|words", len(words))
    made = []
    for number in range(round(len(examples) * share / (1 - share))):
        like = examples[rows[number % len(rows)]]
        place = number // len(able)
        if able[number % len(able)] == "word":
            word = words[turns[place % len(turns)]]
            made.append(_negative(f"word-{number}", like, NOT_A_MATERIAL, material=_material(word, like.material.kind)))
        else:
            missing = needed[place % len(needed)]
            rest = {name: value for name, value in like.conditions.items() if name != missing}
            answer = f"unable to answer: no {missing.replace('_', ' ')} given"
            made.append(
                _negative(f"condition-{number}", replace(like, conditions=rest), answer, material=like.material)
            )
    return made


def _negative(row: str, like: Example, answer: str, *, material: Material) -> Example:
    return Example(task=like.task, row=row, material=material, conditions=like.conditions, answer=answer)


def _words(kind: Kind) -> list[str]:
    """The words that are refused as a material of that kind."""
    return [word for word in WORDS if _refused(word, kind)]


def _refused(word: str, kind: Kind) -> bool:
    try:
        parse(word, kind)
    except MaterialError:
        return True
    return False


def _material(word: str, kind: Kind) -> Material:
    """A word in a material's clothes, so that it is asked about as a material is."""
    key = f"word:{word}"
    return Material(kind, word, (word,), (word,), key, (key,), ())
