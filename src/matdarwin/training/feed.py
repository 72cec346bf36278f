"""What a stage is fed: the mixture of its rows as batches of token ids, from any position on."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from matdarwin.data.mixture import Mixture
from matdarwin.data.sampling import Sampling
from matdarwin.language.answers import format_answer, grid
from matdarwin.language.prompts import Asked, Encoded, Encoder, Style, conditions_text, question
from matdarwin.language.soft import Softener
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.options import Prompting
from matdarwin.training.scales import deviation

_COMPANY = "Ag"
"""What stands before a piece of a material, to see how the piece is tokenised when it is not the first."""


class Feed:
    """The batches of a stage.

    Args:
        rows: Training rows by the id of their task, or by the name of a text.
        tasks: The tasks among them.
        encoder: Text to tokens.
        style: Layout of the questions.
        prompting: Wordings, and how materials are written.
        sampling: By what rule the tasks share the stream.
        batch_size: Rows a batch.
        smoothing: Width of what is taught in a number's place, a share of its task's mean absolute deviation.
        seed: Seed of all that is drawn.

    Attributes:
        size: Examples in an epoch.
        steps: Batches in an epoch.
        sources: Tasks and texts that share the stream.
    """

    def __init__(
        self,
        rows: Mapping[str, Sequence[Example]],
        tasks: Sequence[Task],
        *,
        encoder: Encoder,
        style: Style,
        prompting: Prompting,
        sampling: Sampling,
        batch_size: int,
        smoothing: float = 0.0,
        seed: int,
    ) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._rows = rows
        self._encoder, self._style = encoder, style
        self._writing = prompting.writing()
        # Free text has no wordings; every number would do.
        self._wordings = {
            name: (prompting.wordings or (style.wording_of(self._tasks[name]),)) if name in self._tasks else (0,)
            for name in rows
        }
        self._mixture = Mixture(
            rows, sampling, seed=seed, batch_size=batch_size, wordings=self._wordings, length=self._length
        )
        self.sources = len(rows)
        self.size, self.steps = self._mixture.size, self._mixture.steps
        self._softeners = self._soften(smoothing) if smoothing else {}

    def batches(self, position: int = 0) -> Iterator[list[Encoded]]:
        """Encoded batches from a position of the stream on, without end."""
        for draws in self._mixture.batches(position):
            asked = [Asked(self._tasks.get(d.task), d.example, d.wording, d.seed) for d in draws]
            encoded = self._encoder.examples(asked, style=self._style, writing=self._writing)
            yield [self._with_target(row, draw.example) for row, draw in zip(encoded, draws, strict=True)]

    def told(self, position: int, count: int) -> str:
        """What stands in a stretch of the stream, for people: tasks with rows of their files."""
        draws = itertools.islice(self._mixture.draws(position), count)
        rows: dict[str, list[str]] = {}
        for draw in draws:
            rows.setdefault(draw.task, []).append(str(draw.example.row))
        return "; ".join(f"{task} rows {', '.join(found)}" for task, found in rows.items())

    def state(self, position: int) -> dict[str, int | str]:
        """What is to be stored in order to go on at a position; see `Mixture.state`."""
        return self._mixture.state(position)

    def position(self, state: Mapping[str, object]) -> int:
        """The position that a state was taken at; see `Mixture.position`."""
        return self._mixture.position(state)

    def _with_target(self, row: Encoded, example: Example) -> Encoded:
        """A row with what its number is taught as, where it is one."""
        if not isinstance(example.target, float) or example.answer is not None:
            return row
        softener = self._softeners.get(example.task)
        return replace(row, number=True, soft=softener.soft(example.target) if softener else ())

    def _soften(self, smoothing: float) -> dict[str, Softener]:
        made = {}
        for task in self._tasks.values():
            if task.kind == "classification":
                continue
            width = smoothing * deviation(self._rows[task.id])
            if width > 0:
                made[task.id] = Softener(self._encoder, task, width)
        return made

    def digest(self, **context: Any) -> str:
        """Hash of the stream, its style and how materials are written, and what the caller adds."""
        state = self._mixture.state(0)
        # What stands at its default is left out, so that runs from before there was a choice go on.
        amounts = [] if self._writing.amounts == "formula" else [self._writing.amounts]
        content = [state, self._style.id, self._writing.order, *amounts, context]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def vocabulary(self) -> set[int]:
        """Tokens that training can meet: every piece of every material in every wording, and every answer of the format."""
        used: set[int] = {self._encoder.terminator}
        for name, rows in self._rows.items():
            task = self._tasks.get(name)
            texts = {text for row in rows for text in self._questions(task, row)}
            answers = {f" {row.answer}" for row in rows if row.answer is not None}
            if task is not None:
                answers |= {format_answer(task, answer) for answer in (task.labels or grid(task))}
            for ids in itertools.chain(self._encoder.prompts(sorted(texts)), self._encoder.answers(sorted(answers))):
                used.update(ids)
        return used

    def _questions(self, task: Task | None, row: Example) -> set[str]:
        """Questions in which every token of a row's question occurs, whatever the order of its elements."""
        if task is None or row.question is not None:
            return {question(Asked(task, row, 0, 0), self._style, self._writing)}
        conditions = conditions_text(task, row.conditions, complete=row.answer is None)
        # A piece reads otherwise at the beginning of a material than inside it.
        pieces = self._writing.pieces(row.material)
        shown = [*pieces, *(f"{_COMPANY} {piece}" for piece in pieces)] if len(pieces) > 1 else pieces
        return {
            self._style.render(task, piece, wording=wording, conditions=conditions, evidence=" ".join(row.evidence))
            for piece in shown
            for wording in self._wordings[task.id]
        }

    def _length(self, row: Example) -> int:
        """Characters of a question, but for what all questions of its task share: near enough to its tokens."""
        if row.question is not None:
            return len(row.question) + len(row.answer or "")
        return len(row.material.text) + sum(map(len, row.evidence))
