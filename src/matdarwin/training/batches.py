"""Rows of token ids to the tensors of a step: prefixes that rows share once, then the rest of each row, without padding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from matdarwin.language.prompts import Encoded

Sharing = Literal["none", "all", "groups"]
"""Which prefixes are run once: none; the one that all rows begin with; one for each group of rows."""

_WORTH = 4
"""Tokens that a further prefix must spare: about what another attention of small matrices in each layer costs."""


@dataclass(frozen=True)
class Groups:
    """Where rows stand of which not all share one prefix.

    Attributes:
        heads: Where each prefix's tokens stand in a batch's `ids`; 0 where it is shorter than the longest [prefixes, longest].
        back: Where each token of a prefix, in order, stands in `heads` as one sequence [tokens of prefixes].
        starts: Length of the prefix of each row; 0 where it shares none [rows].
        whole: Where all tokens of a row stand, its prefix's and its own; 0 where it is shorter than the longest [rows, longest].
    """

    heads: Any
    back: Any
    starts: Any
    whole: Any


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
        groups: How rows of several prefixes stand; None where all rows share the one there is.
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
    groups: Groups | None = None
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
    if share == "groups":
        groups = prefix_groups(prompts)
    else:
        groups = [(list(range(len(rows))), shared_prefix(prompts) if share == "all" else 0)]
    ids: list[int] = []
    heads: list[range] = []
    before: list[range] = [range(0)] * len(rows)
    for members, shared in groups:
        head = range(len(ids), len(ids) + shared)
        ids += prompts[members[0]][:shared]
        if head:
            heads.append(head)
        for r in members:
            before[r] = head
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
        soft += [(len(judged) + p, token, share) for p, found in enumerate(row.soft) for token, share in found]
        digits += [row.number] * len(row.answer)
        judged += range(last, last + len(row.answer))
        targets += row.answer
        ids += tokens
    columns = [torch.tensor(column, device=device) for column in zip(*soft, strict=True)]
    places, back = _beside(stands)
    return Batch(
        ids=torch.tensor(ids, device=device), prefix=prefix, places=places.to(device), back=back.to(device),
        judged=torch.tensor(judged, device=device), targets=torch.tensor(targets, device=device),
        tokens=sum(map(len, own)) + sum(map(len, before)), soft=(columns[0], columns[1], columns[2]) if columns else None,
        digits=torch.tensor(digits, device=device), groups=_groups(heads, before, stands, device) if len(groups) > 1 and heads else None,
    )  # fmt: skip


def _groups(heads: Sequence[range], before: Sequence[range], own: Sequence[range], device: Any) -> Groups:
    """How rows behind several prefixes stand, from where these and the rows' own tokens do."""
    places, back = _beside(heads)
    whole, _ = _beside([[*head, *tokens] for head, tokens in zip(before, own, strict=True)])
    starts = torch.tensor([len(head) for head in before])
    return Groups(*(found.to(device) for found in (places, back, starts, whole)))


def _beside(places: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Sequences of places beside one another [sequences, longest], 0 behind their ends; and where each place, in order, is there."""
    longest = max(map(len, places))
    rows = torch.zeros((len(places), longest), dtype=torch.long)
    for row, found in zip(rows, places, strict=True):
        row[: len(found)] = torch.as_tensor(list(found))
    return rows, torch.tensor([r * longest + at for r, found in enumerate(places) for at in range(len(found))])


def prefix_groups(prompts: Sequence[tuple[int, ...]]) -> list[tuple[list[int], int]]:
    """Which prompts best share which prefix: indices and length, such that the fewest tokens are run.

    The last token of a prompt is never shared, since it is judged. In the order of the alphabet those of a group are
    neighbours, so the best partition of the first n prompts is found from those of fewer.
    """
    order = sorted(range(len(prompts)), key=lambda r: prompts[r])
    same = [shared_prefix([prompts[a], prompts[b]]) for a, b in itertools.pairwise(order)]
    spared, starts = [0], [0]
    for end in range(1, len(order) + 1):
        # Alone, or with neighbours as long as they have anything in common.
        best, start, shared = spared[-1], end - 1, len(prompts[order[end - 1]])
        for first in range(end - 2, -1, -1):
            shared = min(shared, same[first])
            if not shared:
                break
            found = spared[first] + shared * (end - 1 - first) - _WORTH
            if found > best:
                best, start = found, first
        spared.append(best)
        starts.append(start)
    groups = []
    end = len(order)
    while end:
        members = order[starts[end] : end]
        groups.append((sorted(members), shared_prefix([prompts[r] for r in members]) if len(members) > 1 else 0))
        end = starts[end]
    return groups[::-1]


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Number of tokens that all prompts begin with; the last token of a prompt is never shared, since it is judged."""
    first, last = min(prompts), max(prompts)
    longest = min(len(p) for p in prompts) - 1
    same = 0
    while same < longest and first[same] == last[same]:
        same += 1
    return same
