"""Rows of token ids to the tensors of a step: the prefix that they share once, then the rest of each, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from matdarwin.language.prompts import Encoded


@dataclass(frozen=True)
class Batch:
    """Rows as one sequence of tokens.

    Attributes:
        ids: The prefix that all rows begin with, then the rest of each row [tokens].
        prefix: Length of the prefix; 0 where they share none.
        places: Where each row's own tokens stand in `ids`; 0 where a row is shorter than the longest [rows, longest].
        back: Where each own token, in order, stands in `places` as one sequence [own tokens].
        judged: Where in `ids` a token stands that is judged by what it says of the next [judged].
        targets: What comes next there [judged].
        tokens: Number of tokens, the prefix counted for every row.
        soft: Where something softer than one token is taught: place among the judged positions [n]; token [n];
            probability [n].
        digits: Which of the judged positions are those of numbers [judged].
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


def collate(rows: Sequence[Encoded], device: Any, *, share: bool = True) -> Batch:
    """Put rows together.

    Args:
        rows: What to run, with answers.
        device: torch device of the tensors.
        share: Whether the common prefix is run once; otherwise each row has its own.
    """
    shared = shared_prefix([row.prompt for row in rows]) if share else 0
    # The terminator is only ever a target: nothing follows it, so it is not run.
    own = [(*row.prompt[shared:], *row.answer[:-1]) for row in rows]
    length = max(map(len, own))
    ids = list(rows[0].prompt[:shared])
    back: list[int] = []
    judged: list[int] = []
    targets: list[int] = []
    places = torch.zeros((len(rows), length), dtype=torch.long)
    soft: list[tuple[int, int, float]] = []
    digits: list[bool] = []
    for r, (row, tokens) in enumerate(zip(rows, own, strict=True)):
        at = len(ids)
        places[r, : len(tokens)] = torch.arange(at, at + len(tokens))
        back += range(r * length, r * length + len(tokens))
        # The token at p is judged by what it says of p + 1.
        start = at + len(row.prompt) - 1 - shared
        soft += [(len(judged) + p, token, share) for p, found in enumerate(row.soft) for token, share in found]
        digits += [row.number] * len(row.answer)
        judged += range(start, start + len(row.answer))
        targets += row.answer
        ids += tokens
    columns = [torch.tensor(column, device=device) for column in zip(*soft, strict=True)]
    return Batch(
        ids=torch.tensor(ids, device=device), prefix=shared, places=places.to(device), back=torch.tensor(back, device=device),
        judged=torch.tensor(judged, device=device), targets=torch.tensor(targets, device=device),
        tokens=sum(map(len, own)) + shared * len(rows), soft=(columns[0], columns[1], columns[2]) if columns else None,
        digits=torch.tensor(digits, device=device),
    )  # fmt: skip


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Number of tokens that all prompts begin with; the last token of a prompt is never shared, since it is judged."""
    first, last = min(prompts), max(prompts)
    longest = min(len(p) for p in prompts) - 1
    same = 0
    while same < longest and first[same] == last[same]:
        same += 1
    return same
