"""The answer tree holds each answer's tokens, for any tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tiny import tiny_task, tiny_tokenizer

from matdarwin.language.answers import format_answer, grid
from matdarwin.language.prompts import Encoder
from matdarwin.language.tree import AnswerTree


def paths(tree: AnswerTree) -> dict[int, list[int]]:
    """The tokens that lead to each answer, read off the tree from its leaves."""
    found = {}
    for node in range(len(tree.tokens)):
        if tree.answer[node] < 0:
            continue
        tokens: list[int] = []
        at = node
        while at > 0:
            tokens.insert(0, int(tree.tokens[at]))
            at = int(tree.parents[at])
        found[int(tree.answer[node])] = tokens
    return found


@pytest.mark.parametrize("digits_single", [True, False])
@pytest.mark.parametrize(("bounds", "decimals"), [((0, 5), 1), ((-1.5, 2), 2), ((-12, 120), 0), ((0, 0.3), 3)])
def test_every_answers_path_is_its_tokenisation(
    tmp_path: Path, bounds: tuple[float, float], decimals: int, digits_single: bool
) -> None:
    task = tiny_task(tmp_path, bounds=bounds, decimals=decimals)
    encoder = Encoder(tiny_tokenizer(digits_single=digits_single))
    tree = AnswerTree.of_task(task, encoder)
    values = grid(task)
    assert tree.size == len(values)
    assert paths(tree) == dict(enumerate(encoder.answers([format_answer(task, value) for value in values])))


def test_children_and_parents_agree(tmp_path: Path) -> None:
    tree = AnswerTree.of_task(tiny_task(tmp_path), Encoder(tiny_tokenizer()))
    for node, (children, tokens) in enumerate(zip(tree.children, tree.child_tokens, strict=True)):
        assert np.array_equal(tree.tokens[children], tokens)
        assert (tree.parents[children] == node).all()
        assert len(set(tokens.tolist())) == len(tokens)


def test_the_alphabet_is_all_that_answers_are_made_of() -> None:
    encoder = Encoder(tiny_tokenizer())
    sequences = encoder.answers([" 1.2", " -1.0", " 22.2"])
    tree = AnswerTree(sequences)
    assert tree.alphabet.tolist() == sorted(set().union(*sequences))


def test_what_all_answers_begin_with_is_forced(tmp_path: Path) -> None:
    encoder = Encoder(tiny_tokenizer())
    # ' 1.20' begins with a space of its own; ' -1.20' with a token for both, so that nothing is shared.
    positive = AnswerTree.of_task(tiny_task(tmp_path), encoder)
    blank = encoder.answers([" "])[0][0]
    assert [int(positive.tokens[node]) for node in positive.forced] == [blank]
    assert AnswerTree.of_task(tiny_task(tmp_path, bounds=[-1, 1]), encoder).forced == []
    small = AnswerTree.of_task(tiny_task(tmp_path, bounds=[0, 0.9]), encoder)
    assert [int(small.tokens[node]) for node in small.forced] == encoder.answers([" 0."])[0][:-1]


def test_ends_are_where_only_the_terminator_follows() -> None:
    # 5 ends an answer and begins another; 9 is the terminator.
    tree = AnswerTree([[5, 9], [5, 6, 9], [7, 9]])
    ends = {int(tree.tokens[node]) for node in np.flatnonzero(tree.ends)}
    assert ends == {6, 7}
    assert tree.forced == []
    assert paths(tree) == {0: [5, 9], 1: [5, 6, 9], 2: [7, 9]}


def test_the_last_token_before_the_terminator_is_never_forced() -> None:
    tree = AnswerTree([[5, 6, 9]])
    assert [int(tree.tokens[node]) for node in tree.forced] == [5, 6]
    assert bool(tree.ends[tree.forced[-1]])


def test_labels_keep_their_order(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, kind="classification", labels=["not metal", "metal", "metal oxide"], positive=None)
    encoder = Encoder(tiny_tokenizer())
    tree = AnswerTree.of_task(task, encoder)
    assert paths(tree) == dict(enumerate(encoder.answers([" not metal", " metal", " metal oxide"])))


def test_answers_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="same tokens"):
        AnswerTree([[1, 2, 9], [3, 9], [1, 2, 9]])
