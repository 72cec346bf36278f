"""What a screen looks for: `--where` and `--by`, a small language over predictions, read by hand and never evaluated as code.

    condition := condition "or" condition | condition "and" condition | "not" condition | "(" condition ")" | chain
    chain     := operand (("<" | "<=" | ">" | ">=" | "==" | "!=") operand)+
    operand   := number | "label" | term
    term      := [TASK "."] ("value" | "lower" | "upper" | "P(" low "," high ")" | "P(" "label" ")" | "EI(" best ")")

`P` is the probability that the model's own distribution gives to a window, ends included, or to a label. `EI` is the
expected improvement over `best`: the mean of max(0, value - best) over the distribution, or of max(0, best - value) where
little is wanted (Jones, Schonlau and Welch 1998, doi:10.1023/A:1008306431147, there for a normal distribution).
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matdarwin.prediction.prediction import Prediction
from matdarwin.tasks.registry import nearest
from matdarwin.tasks.schema import Task

Row = Mapping[str, Prediction]
"""The predictions of one material, by task."""

Scalar = float | str | None
Term = Callable[[Row], Scalar]

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<word>[A-Za-z_][\w-]*)|(?P<text>"[^"]*"|'[^']*')"""
    r"""|(?P<sign><=|>=|==|!=|<|>|\(|\)|,|\.))"""
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_NAMES = ("value", "lower", "upper", "P", "EI")
_FORMS = 'value, lower, upper, P(low, high), P("label") or EI(best)'
_DEEPEST = 50


class WishError(ValueError):
    """A condition or a rank that cannot be read; names the word and its position."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int


class _Operand:
    """A side of a comparison: whether it is a number or a label, and how it is had from a row."""

    def __init__(self, get: Term, *, number: bool, task: Task | None = None) -> None:
        self.get, self.number, self.task = get, number, task


def condition(text: str, tasks: Sequence[Task]) -> Callable[[Row], bool]:
    """Read a condition such as `value > 1.1 and value < 1.7`.

    Args:
        text: The condition.
        tasks: The tasks asked; where there are several, a term begins with its task: `expt_gap.value`.

    Returns:
        Whether a row's predictions fulfil it. A comparison with what is not known (no value, no interval, no
        distribution) is false, and so is its `not`: nothing is known of such a row.

    Raises:
        WishError: It cannot be read, or compares what cannot be compared; the place is named.
    """
    parser = _Parser(text, tasks)
    found = parser.condition(0)
    parser.end()
    return lambda row: found(row) is True


def rank(text: str, tasks: Sequence[Task], *, lowest: bool = False) -> Callable[[Row], float | None]:
    """Read what to rank by: one term, such as `value`, `P(1.1, 1.7)` or `EI(2.5)`.

    Args:
        text: The term.
        tasks: The tasks asked.
        lowest: Little is wanted: the expected improvement is that below `best`.

    Returns:
        The term's number for a row; None where it is not known.

    Raises:
        WishError: It cannot be read, or is no number.
    """
    parser = _Parser(text, tasks, lowest=lowest)
    start = parser.peek()
    found = parser.operand()
    parser.end()
    if not found.number or start.kind == "number":
        raise parser.fault(start, f"rank by a number that differs by row: {_FORMS}")

    def score(row: Row) -> float | None:
        value = found.get(row)
        return None if value is None or isinstance(value, str) else float(value)

    return score


class _Parser:
    """Reads tokens from the left, one function a rule."""

    def __init__(self, text: str, tasks: Sequence[Task], *, lowest: bool = False) -> None:
        self._text = text
        self._tasks = {task.id: task for task in tasks}
        self._lowest = lowest
        self._tokens = self._split(text)
        self._at = 0

    def fault(self, token: _Token, says: str) -> WishError:
        """An error at a token."""
        what = f"`{token.text}` at position {token.place}" if token.kind != "end" else "the end"
        return WishError(f"{json.dumps(self._text, ensure_ascii=False)}: {what}: {says}")

    def peek(self) -> _Token:
        """The next token."""
        return self._tokens[self._at]

    def end(self) -> None:
        """Make sure that nothing is left."""
        if self.peek().kind != "end":
            raise self.fault(self.peek(), 'here a comparison, "and", "or" or the end is wanted')

    # A condition is True, False, or None where what it compares is not known.
    def condition(self, depth: int) -> Callable[[Row], bool | None]:
        """`or` binds least."""
        parts = [self._both(depth)]
        while self._took("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else lambda row: _any([part(row) for part in parts])

    def _both(self, depth: int) -> Callable[[Row], bool | None]:
        parts = [self._one(depth)]
        while self._took("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else lambda row: _all([part(row) for part in parts])

    def _one(self, depth: int) -> Callable[[Row], bool | None]:
        if depth > _DEEPEST:
            raise self.fault(self.peek(), f"more than {_DEEPEST} parentheses or nots inside each other")
        if self._took("not"):
            inner = self._one(depth + 1)
            return lambda row: None if (found := inner(row)) is None else not found
        if self.peek().text == "(":
            self._at += 1
            inner = self.condition(depth + 1)
            self._want(")")
            return inner
        return self._chain()

    def _chain(self) -> Callable[[Row], bool | None]:
        sides, signs = [self.operand()], []
        while (sign := self.peek()).text in _COMPARE:
            self._at += 1
            left, right = sides[-1], self.operand()
            if left.number != right.number:
                raise self.fault(sign, "a number and a label cannot be compared")
            if not left.number and sign.text not in ("==", "!="):
                raise self.fault(sign, "labels have no order; use == or !=")
            self._check_labels(sign, left, right)
            sides.append(right)
            signs.append(_COMPARE[sign.text])
        if not signs:
            raise self.fault(self.peek(), f"a comparison is wanted: one of {' '.join(_COMPARE)}")

        def holds(row: Row) -> bool | None:
            values = [side.get(row) for side in sides]
            return _all(
                [
                    None if a is None or b is None else sign(a, b)
                    for sign, a, b in zip(signs, values, values[1:], strict=False)
                ]
            )

        return holds

    def operand(self) -> _Operand:
        """A number, a label or a term."""
        token = self.peek()
        self._at += 1
        if token.kind == "number":
            number = float(token.text)
            return _Operand(lambda row: number, number=True)
        if token.kind == "text":
            label = token.text[1:-1]
            return _Operand(lambda row: label, number=False)
        if token.kind != "word":
            raise self.fault(token, f"a number, a label in quotes, or {_FORMS} is wanted")
        if self.peek().text == ".":
            self._at += 1
            name, word = token.text, self.peek()
            self._at += 1
            if name not in self._tasks:
                near = nearest(name, list(self._tasks))
                hint = f"did you mean {near[0]}?" if near else f"asked are {', '.join(self._tasks)}"
                raise self.fault(token, f"no task that is asked; {hint}")
            task = self._tasks[name]
        else:
            word = token
            task = next(iter(self._tasks.values()))
            if word.text in _NAMES and len(self._tasks) > 1:
                raise self.fault(word, f"several tasks are asked, so say which, such as {task.id}.{word.text}")
        return self._term(word, task)

    def _term(self, word: _Token, task: Task) -> _Operand:
        if word.text not in _NAMES:
            near = nearest(word.text, list(_NAMES))
            raise self.fault(word, f"did you mean {near[0]}?" if near else f"known are {_FORMS}")
        classes = task.kind == "classification"
        if word.text == "value":
            return _Operand(lambda row: row[task.id].value, number=not classes, task=task)
        if word.text == "P":
            return self._probability(task)
        if classes:
            raise self.fault(word, f'{task.id} has classes; use value or P("label")')
        if word.text == "lower":
            return _Operand(lambda row: row[task.id].lower, number=True)
        if word.text == "upper":
            return _Operand(lambda row: row[task.id].upper, number=True)
        self._want("(")
        best = self._number()
        self._want(")")
        lowest = self._lowest
        return _Operand(lambda row: expected_improvement(row[task.id], best, lowest=lowest), number=True)

    def _probability(self, task: Task) -> _Operand:
        self._want("(")
        if task.kind == "classification":
            token = self.peek()
            self._at += 1
            if token.kind != "text":
                raise self.fault(token, f'{task.id} has classes; write P("{task.labels[0]}")')
            self._label(token, token.text[1:-1], task)
            place = task.labels.index(token.text[1:-1])
            self._want(")")
            return _Operand(
                lambda row: None if (d := row[task.id].distribution) is None else float(d.probabilities[place]),
                number=True,
            )
        first = self.peek()
        low = self._number()
        self._want(",")
        high = self._number()
        self._want(")")
        if low > high:
            raise self.fault(first, f"a window begins with its lower end: P({high:g}, {low:g})")
        return _Operand(
            lambda row: None if (d := row[task.id].distribution) is None else d.probability(low, high), number=True
        )

    def _check_labels(self, at: _Token, left: _Operand, right: _Operand) -> None:
        """Make sure that a label is one of the task's: a misspelt one would match nothing in silence."""
        for one, other in ((left, right), (right, left)):
            if one.task is not None and other.task is None and not one.number:
                label = other.get({})
                assert isinstance(label, str)
                self._label(at, label, one.task)

    def _label(self, at: _Token, label: str, task: Task) -> None:
        if label not in task.labels:
            raise self.fault(at, f"{label!r} is no label of {task.id}; it has {', '.join(map(repr, task.labels))}")

    def _number(self) -> float:
        token = self.peek()
        if token.kind != "number":
            raise self.fault(token, "a number is wanted")
        self._at += 1
        return float(token.text)

    def _want(self, text: str) -> None:
        if self.peek().text != text:
            raise self.fault(self.peek(), f"here `{text}` is wanted")
        self._at += 1

    def _took(self, word: str) -> bool:
        if self.peek().kind == "word" and self.peek().text.lower() == word:
            self._at += 1
            return True
        return False

    def _split(self, text: str) -> list[_Token]:
        tokens, at = [], 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                place = at + len(text[at:]) - len(text[at:].lstrip())
                raise self.fault(_Token("sign", text[place], place), "this character means nothing here")
            kind = str(found.lastgroup)
            tokens.append(_Token(kind, found[kind], found.start(kind)))
            at = found.end()
        return [*tokens, _Token("end", "", len(text))]


def expected_improvement(prediction: Prediction, best: float, *, lowest: bool = False) -> float | None:
    """Mean of max(0, value - best) over a prediction's distribution, in its unit; None without one.

    Args:
        prediction: Of a number.
        best: The best value known, in the task's unit.
        lowest: Small values are wanted: mean of max(0, best - value).
    """
    given = prediction.distribution
    if given is None:
        return None
    gain = best - given.values if lowest else given.values - best
    return float(np.maximum(gain, 0.0) @ given.probabilities)


def _all(found: Sequence[bool | None]) -> bool | None:
    return False if False in found else None if None in found else True


def _any(found: Sequence[bool | None]) -> bool | None:
    return True if True in found else None if None in found else False
