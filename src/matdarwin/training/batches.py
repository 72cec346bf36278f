"""Rows of token ids to the tensors of a step: prefixes that rows share once, then the rest of each row, without padding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from matdarwin.language.prompts import Encoded

Sharing = Literal["none", "all", "groups"]
"""Which prefixes are run once: none; the one that all rows begin with; one for each group of rows."""

_WORTH = 4
"""Tokens that each prefix must spare beside its own."""
_SHARE = 0.02
"""Share of the tokens that several prefixes must spare more than one of all rows: about what another attention in each layer costs."""
_DEEPEST = 64
"""Forks above one another up to which prompts are told apart."""


@dataclass(frozen=True)
class Heads:
    """The prefixes that rows share.

    Attributes:
        places: Where each one's tokens stand in a batch's `ids`; 0 where it is shorter than the longest [prefixes, longest].
        back: Where each of their tokens, in order, stands in `places` as one sequence [tokens of prefixes].
        of: Which one is whose; 0 for rows that share none [rows]. None: all rows share the one there is.
        starts: Its length; 0 for rows that share none [rows].
    """

    places: Any
    back: Any
    of: Any | None
    starts: Any


@dataclass(frozen=True)
class Batch:
    """Rows as one sequence of tokens.

    Attributes:
        ids: Shared prefixes, one after the other, then the rest of each row [tokens].
        prefix: Length of the prefixes together; 0 where none is shared.
        places: Where each row's own tokens stand in `ids`; 0 where a row is shorter than the longest [rows, longest].
        back: Where each own token, in order, stands in `places` as one sequence [own tokens].
        judged: Where in `ids` a token stands that is judged by what it says of the next [judged].
        targets: What comes next there [judged].
        tokens: Number of tokens, prefixes counted for every row.
        soft: Where something softer than one token is taught: place among the judged positions [n]; token [n];
            probability [n].
        digits: Which of the judged positions are those of numbers [judged].
        heads: Those prefixes; None where there is none.
        padded: Whether `ids` are whole rows of one length, one after the other, each with its prefix; then `places` says
            how many of what length, and judged positions that are none have the target IGNORED.
    """

    ids: Any
    prefix: int
    places: Any
    back: Any
    judged: Any
    targets: Any
    tokens: int
    soft: tuple[Any, Any, Any] | None
    digits: Any
    heads: Heads | None = None
    padded: bool = False


IGNORED = -100
"""A target that stands for none: what cross-entropy leaves out."""


def padded(rows: Sequence[Encoded], count: int) -> Batch:
    """Rows padded to one of few shapes, on the CPU; made for what is costly to prepare for a shape, and cheap to run.

    Args:
        rows: What to run, with answers of one token each place.
        count: Rows of the batch; those that are missing are padding.
    """
    own = [(*row.prompt, *row.answer[:-1]) for row in rows]
    length = _rung(max(map(len, own)), 16)
    judged = [
        place * length + len(row.prompt) - 1 + at for place, row in enumerate(rows) for at in range(len(row.answer))
    ]
    ids = torch.zeros((count, length), dtype=torch.long)
    for place, tokens in enumerate(own):
        ids[place, : len(tokens)] = torch.tensor(tokens)
    places = torch.zeros(_rung(len(judged), 128), dtype=torch.long)
    places[: len(judged)] = torch.tensor(judged)
    targets = torch.full_like(places, IGNORED)
    targets[: len(judged)] = torch.tensor([token for row in rows for token in row.answer])
    digits = torch.zeros_like(places, dtype=torch.bool)
    digits[: len(judged)] = torch.tensor([row.number for row in rows for _ in row.answer])
    everywhere = torch.arange(count * length)
    return Batch(
        ids=ids.flatten(), prefix=0, places=everywhere.view(count, length), back=everywhere, judged=places, targets=targets,
        tokens=sum(map(len, own)), soft=None, digits=digits, padded=True,
    )  # fmt: skip


def _rung(size: int, least: int) -> int:
    """The next size of a ladder whose steps grow: multiples of `least` up to its eightfold, then of an eighth of a power of two."""
    step = max(least, 1 << max(0, (size - 1).bit_length() - 3))
    return -(-size // step) * step


def collate(rows: Sequence[Encoded], device: Any, *, share: Sharing = "all") -> Batch:
    """Put rows together.

    Args:
        rows: What to run, with answers.
        device: torch device of the tensors.
        share: Which prefixes are run once.
    """
    prompts = [row.prompt for row in rows]
    groups = shared_prefixes(prompts, share)
    ids: list[int] = []
    heads: list[range] = []
    of, before = [0] * len(rows), [range(0)] * len(rows)
    for members, shared in groups:
        if not shared:
            continue
        for r in members:
            of[r], before[r] = len(heads), range(len(ids), len(ids) + shared)
        heads.append(before[members[0]])
        ids += prompts[members[0]][:shared]
    prefix = len(ids)
    # The terminator is only ever a target: nothing follows it, so it is not run.
    own = [(*row.prompt[len(head) :], *row.answer[:-1]) for row, head in zip(rows, before, strict=True)]
    stands: list[range] = []
    judged: list[int] = []
    targets: list[int] = []
    soft: list[tuple[int, int, float]] = []
    digits: list[bool] = []
    for row, tokens in zip(rows, own, strict=True):
        stands.append(range(len(ids), len(ids) + len(tokens)))
        # The token at p is judged by what it says of p + 1.
        last = len(ids) + len(tokens) - len(row.answer)
        soft += [(len(judged) + p, token, weight) for p, found in enumerate(row.soft) for token, weight in found]
        digits += [row.number] * len(row.answer)
        judged += range(last, last + len(row.answer))
        targets += row.answer
        ids += tokens
    columns = [torch.tensor(column, device=device) for column in zip(*soft, strict=True)]
    places, back = _beside(stands, device)
    return Batch(
        ids=torch.tensor(ids, device=device), prefix=prefix, places=places, back=back,
        judged=torch.tensor(judged, device=device), targets=torch.tensor(targets, device=device),
        tokens=sum(map(len, own)) + sum(map(len, before)), soft=(columns[0], columns[1], columns[2]) if columns else None,
        digits=torch.tensor(digits, device=device), heads=_heads(heads, of, before, device) if heads else None,
    )  # fmt: skip


def _heads(heads: Sequence[range], of: Sequence[int], before: Sequence[range], device: Any) -> Heads:
    places, back = _beside(heads, device)
    by_all = len(heads) == 1 and all(before)
    return Heads(
        places,
        back,
        None if by_all else torch.tensor(of, device=device),
        torch.tensor([*map(len, before)], device=device),
    )


def _beside(places: Sequence[range], device: Any) -> tuple[Any, Any]:
    """Stretches of places beside one another [stretches, longest], 0 behind their ends; and where each place, in order, is there."""
    longest = max(map(len, places))
    rows = torch.zeros((len(places), longest), dtype=torch.long)
    for row, found in zip(rows, places, strict=True):
        row[: len(found)] = torch.arange(found.start, found.stop)
    back = torch.tensor([r * longest + at for r, found in enumerate(places) for at in range(len(found))])
    return rows.to(device), back.to(device)


def shared_prefixes(prompts: Sequence[tuple[int, ...]], share: Sharing) -> list[tuple[list[int], int]]:
    """Which prompts share which prefix: indices and length, 0 for none."""
    if share == "groups":
        return prefix_groups(prompts)
    return [(list(range(len(prompts))), shared_prefix(prompts) if share == "all" else 0)]


def prefix_groups(prompts: Sequence[tuple[int, ...]]) -> list[tuple[list[int], int]]:
    """Which prompts share which prefix: indices and length, such that the fewest tokens are run.

    A prompt shares one prefix at most, and never its last token, since that is judged. Where it is not worth its while to
    tell groups apart, all share what all begin with.
    """
    everyone = (list(range(len(prompts))), shared_prefix(prompts))
    groups = _best_groups(prompts)
    further = _spared(groups) - _spared([everyone])
    return groups if further >= _SHARE * sum(map(len, prompts)) else [everyone]


def _spared(groups: Sequence[tuple[list[int], int]]) -> int:
    return sum(shared * (len(members) - 1) for members, shared in groups)


def _best_groups(prompts: Sequence[tuple[int, ...]]) -> list[tuple[list[int], int]]:
    """The groups that run the fewest tokens, where each prefix costs `_WORTH` beside.

    In the order of the alphabet the prompts of every beginning are neighbours, and beginnings lie inside one another: a tree.
    Each of its forks is opened as a prefix or not, and a prompt belongs to the deepest open one above it.
    """
    order = sorted(range(len(prompts)), key=lambda r: prompts[r])
    same = [shared_prefix([prompts[a], prompts[b]]) for a, b in itertools.pairwise(order)]

    @cache
    def best(first: int, end: int, above: int, level: int) -> tuple[int, list[tuple[int, int, int]]]:
        """Tokens spared by some neighbours below a prefix of `above` tokens, and the prefixes opened among them."""
        if end - first == 1 or level == _DEEPEST:
            return above * (end - first), []
        shared = min(same[first : end - 1])
        cuts = [first, *(at + 1 for at in range(first, end - 1) if same[at] == shared), end]
        parts = [best(*part, above, level + 1) for part in itertools.pairwise(cuts)]
        closed = sum(found for found, _ in parts), [one for _, opened in parts for one in opened]
        if shared <= above:
            return closed
        parts = [best(*part, shared, level + 1) for part in itertools.pairwise(cuts)]
        spared = sum(found for found, _ in parts) - shared - _WORTH
        if spared <= closed[0]:
            return closed
        # The outer one first: what lies inside it takes its prompts from it.
        return spared, [(first, end, shared), *(one for _, opened in parts for one in opened)]

    _, opened = best(0, len(order), 0, 0)
    owner: list[int | None] = [None] * len(order)
    for number, (first, end, _) in enumerate(opened):
        owner[first:end] = [number] * (end - first)
    members: list[list[int]] = [[] for _ in opened]
    alone: list[int] = []
    for r, place in zip(order, owner, strict=True):
        (alone if place is None else members[place]).append(r)
    groups = [(sorted(found), shared) for found, (_, _, shared) in zip(members, opened, strict=True)]
    return groups + [([r], 0) for r in sorted(alone)]


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Number of tokens that all prompts begin with; the last token of a prompt is never shared, since it is judged."""
    first, last = min(prompts), max(prompts)
    longest = min(len(p) for p in prompts) - 1
    same = 0
    while same < longest and first[same] == last[same]:
        same += 1
    return same
