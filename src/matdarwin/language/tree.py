"""The tree of all answers of a task, token by token: what the decoder walks, and what scores exactly.

Every answer that the format allows is tokenised once; answers that begin alike share a branch. It holds for any
tokenizer, digits of one token or of several, signs that swallow the space, and for class labels alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matdarwin.language.answers import format_answer, grid
from matdarwin.language.prompts import Encoder
from matdarwin.tasks.schema import Task


class AnswerTree:
    """A prefix tree over token sequences, each closed by the terminator.

    Attributes:
        tokens: Token of each node [n]; the root is node 0 and has none (-1).
        parents: Parent of each node [n]; -1 for the root.
        children: Nodes below each node.
        child_tokens: Their tokens, in the same order.
        answer: Index of the answer that ends at a node [n], or -1.
        ends: Whether a node's only continuation is the terminator [n].
        alphabet: Token ids that any answer is made of, rising.
        forced: Nodes below the root that every answer passes, in order (such as the leading space).
        size: Number of answers.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        tokens, parents, answer = [-1], [-1], [-1]
        children: list[dict[int, int]] = [{}]
        for index, sequence in enumerate(sequences):
            node = 0
            for token in sequence:
                following = children[node].get(token)
                if following is None:
                    following = len(tokens)
                    children[node][token] = following
                    tokens.append(token)
                    parents.append(node)
                    answer.append(-1)
                    children.append({})
                node = following
            if answer[node] >= 0:
                raise ValueError("two answers have the same tokens, so they could not be told apart")
            answer[node] = index
        self.size = len(sequences)
        self.tokens: NDArray[np.int64] = np.array(tokens, dtype=np.int64)
        self.alphabet: NDArray[np.int64] = np.unique(self.tokens[1:])
        self.parents: NDArray[np.int64] = np.array(parents, dtype=np.int64)
        self.answer: NDArray[np.int64] = np.array(answer, dtype=np.int64)
        self.children: list[NDArray[np.int64]] = [np.fromiter(c.values(), np.int64, len(c)) for c in children]
        self.child_tokens: list[NDArray[np.int64]] = [np.fromiter(c.keys(), np.int64, len(c)) for c in children]
        self.ends: NDArray[np.bool_] = np.array(
            [
                len(c) == 1 and answer[next(iter(c.values()))] >= 0 and not children[next(iter(c.values()))]
                for c in children
            ]
        )
        self.forced: list[int] = []
        node = 0
        while len(children[node]) == 1 and not self.ends[node]:
            node = next(iter(children[node].values()))
            self.forced.append(node)

    @classmethod
    def of_task(cls, task: Task, encoder: Encoder) -> AnswerTree:
        """The tree of a task's answers: its labels in their order, or its grid of numbers, rising."""
        answers: Sequence[float | str] = task.labels if task.kind == "classification" else grid(task)
        return cls(encoder.answers([format_answer(task, answer) for answer in answers]))
