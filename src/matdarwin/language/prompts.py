"""Examples to prompts: the only place where an example becomes text.

Training, evaluation, command line, Python and HTTP all come here, so that a model is asked in use just as it
was taught. A style lays the question out; a wording (declared by the task) puts it into words.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from matdarwin.language.answers import format_answer
from matdarwin.language.writing import Writing
from matdarwin.tasks.schema import Example, Task

_GIVEN = {"composition": "the given composition", "molecule": "the given molecule", "name": "the given material"}
_PREAMBLE = (
    "You are given a task about a property of a material, and after it the material that the task is about. "
    "Write an answer that holds the value of the property and nothing else."
)


@dataclass(frozen=True)
class Style:
    """A layout of the question.

    Attributes:
        id: Name and version; stored in checkpoints and compared on load.
        wording: Index of the wording that is used where none is asked for.
    """

    id: str
    wording: int
    _separate: bool

    def wording_of(self, task: Task) -> int:
        """Index of the wording that this style asks a task in; a task with few wordings has its last."""
        return min(self.wording, len(task.wordings) - 1)

    def ask(self, question: str) -> str:
        """Lay a question of free text out; the answer follows it directly, with its own leading space."""
        return f"{_PREAMBLE}\n\n### Instruction:\n{question}\n\n### Response:" if self._separate else question

    def render(self, task: Task, material: str, *, wording: int, conditions: str = "", evidence: str = "") -> str:
        """Lay one question out as text; the answer follows it directly, with its own leading space."""
        if not 0 <= wording < len(task.wordings):
            raise ValueError(f"{task.id} has no wording {wording}; it has {len(task.wordings)}, numbered from 0")
        phrase = task.wordings[wording]
        phrase = phrase if "{conditions}" in phrase or not conditions else f"{{conditions}} {phrase}"
        known = f" {evidence}" if evidence else ""
        if not self._separate:
            return " ".join(phrase.format(material=material, conditions=conditions).split()) + known + ":"
        asked = " ".join(phrase.format(material=_GIVEN[task.representation], conditions=conditions).split())
        return f"{_PREAMBLE}\n\n### Instruction:\n{asked}\n\n### Input:\n{material}{known}\n\n### Response:"


STYLES = {
    "compact": Style(id="compact-1", wording=0, _separate=False),
    "alpaca": Style(id="alpaca-1", wording=1, _separate=True),
}
"""`compact`: few tokens, the material last. `alpaca`: the paper's layout with instruction, input and response."""


def style(name: str) -> Style:
    """The style of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in STYLES:
        raise ValueError(f"{name!r} is no prompt style; choose from {', '.join(STYLES)}")
    return STYLES[name]


def wordings_hash(task: Task) -> str:
    """Hash of a task's wordings and labels: what a checkpoint was taught to hear and say."""
    text = json.dumps([task.wordings, task.labels, task.decimals, [c.name for c in task.conditions]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def conditions_text(task: Task, conditions: dict[str, str | float], *, complete: bool = True) -> str:
    """The conditions in the task's order, as `at 300 K`.

    Args:
        task: The task.
        conditions: Values by name.
        complete: Whether required ones must be there; where one is missing on purpose they need not.

    Raises:
        ValueError: A required condition is missing, one is given that the task does not know, or a number is not finite.
    """
    known = [condition.name for condition in task.conditions]
    for name in conditions:
        if name not in known:
            raise ValueError(f"{task.id} has no condition {name!r}; it has {', '.join(known) or 'none'}")
    words = []
    for condition in task.conditions:
        value = conditions.get(condition.name)
        if value is None:
            if condition.required and complete:
                raise ValueError(f"{task.id} needs the condition {condition.name!r}{_in(condition.unit)}")
            continue
        if condition.unit and isinstance(value, str):
            # What has a unit is a number, however it came: "300.0" must be worded as 300 is.
            try:
                value = float(value)
            except ValueError:
                raise ValueError(
                    f"the condition {condition.name!r} is a number in {condition.unit}, got {value!r}"
                ) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"the condition {condition.name!r} must be a finite number, got {value}")
        # Not through %g, which would turn small numbers into exponents; float() since numpy's floats have another repr.
        # Plus nothing, which makes -0 the 0 that was taught.
        shown = f"{Decimal(repr(float(value) + 0.0)).normalize():f}" if isinstance(value, float) else str(value)
        words.append(f"at {shown} {condition.unit}" if condition.unit else f"({condition.name} {shown})")
    return " ".join(words)


def _in(unit: str | None) -> str:
    return f" (in {unit})" if unit else ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One example as it is to be put: its task (None for free text), wording, and seed of its element order."""

    task: Task | None
    example: Example
    wording: int
    seed: int


def question(asked: Asked, style: Style, writing: Writing) -> str:
    """The prompt of an example.

    Raises:
        ValueError: It has neither a task nor a question, or as from `conditions_text`.
    """
    example = asked.example
    if example.question is not None:
        return style.ask(example.question)
    if asked.task is None:
        raise ValueError(f"row {example.row} of {example.task} has no question and no task to make one from")
    return style.render(
        asked.task,
        writing.text(example.material, random.Random(asked.seed)),
        wording=asked.wording,
        # A question with a sentence for an answer may lack a condition on purpose: that is what its answer says.
        conditions=conditions_text(asked.task, example.conditions, complete=example.answer is None),
        evidence=" ".join(example.evidence),
    )


def answer(asked: Asked) -> str:
    """The answer text of an example, with its leading space.

    Raises:
        ValueError: It has none, or as from `format_answer`.
    """
    example = asked.example
    if example.answer is not None:
        return f" {example.answer}"
    if asked.task is None or example.target is None:
        raise ValueError(f"row {example.row} of {example.task} has no answer, so it cannot teach")
    return format_answer(asked.task, example.target)


Soft = tuple[tuple[tuple[int, float], ...], ...]
"""For each token of an answer, the tokens that are taught to come there, with their shares."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One question as token ids.

    Attributes:
        prompt: Tokens of the question [p].
        answer: Tokens of the answer with its terminator [a]; empty where unknown.
        soft: What is taught in the answer's place [a]; empty: the answer itself.
        number: Whether the answer is a number of a task.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    soft: Soft = ()
    number: bool = False


class Encoder:
    """Text to tokens for one tokenizer. Prompt and answer are tokenised apart, so that no token spans both."""

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end-of-text token, so an answer could not be ended")
        self._tokenizer = tokenizer
        self.terminator: int = tokenizer.eos_token_id

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, with the tokenizer's own beginning token where it has one."""
        return [list(ids) for ids in self._tokenizer(list(texts)).input_ids] if texts else []

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of answers, each closed by the terminator."""
        ids = self._tokenizer(list(texts), add_special_tokens=False).input_ids if texts else []
        return [[*row, self.terminator] for row in ids]

    def digits(self) -> list[int] | None:
        """Token ids of 0 to 9 inside a number; None where the tokenizer has tokens of several digits."""
        ids = self._tokenizer(".0123456789", add_special_tokens=False).input_ids[-10:]
        words = [self._tokenizer.decode([token]) for token in ids]
        return list(ids) if words == list("0123456789") else None

    def examples(self, asked: Sequence[Asked], *, style: Style, writing: Writing) -> list[Encoded]:
        """Encode examples for training.

        Raises:
            ValueError: One of them has no answer, or no question that can be put.
        """
        prompts = self.prompts([question(one, style, writing) for one in asked])
        answers = self.answers([answer(one) for one in asked])
        return [Encoded(tuple(p), tuple(a)) for p, a in zip(prompts, answers, strict=True)]
