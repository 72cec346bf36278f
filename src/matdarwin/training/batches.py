"""Rows of token ids to the tensors of a step: padded on the right, their common prefix taken off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from matdarwin.language.prompts import Encoded


@dataclass(frozen=True)
class Batch:
    """Rows of like length.

    Attributes:
        prefix: Token ids that all rows begin with [p]; they are run once a batch.
        ids: The rest of the rows, padded on the right [rows, length].
        targets: What each position has to say next [rows, length]; -100 has no loss.
        tokens: Number of real tokens, the prefix counted for every row.
        judged: Number of positions with a loss.
        soft: Where something softer than one token is taught: place among the judged positions, row after row [n];
            token [n]; probability [n].
        digits: Which of the judged positions are digits of numbers [judged].
    """

    prefix: Any
    ids: Any
    targets: Any
    tokens: int
    judged: int
    soft: tuple[Any, Any, Any] | None
    digits: Any


def collate(rows: Sequence[Encoded], device: Any, *, share: bool = True) -> Batch:
    """Pad rows on the right, the prefix that they share taken off. Attention is causal: no token sees the padding.

    Args:
        rows: What to run, with answers.
        device: torch device of the tensors.
        share: Whether the common prefix is taken off.
    """
    shared = shared_prefix([row.prompt for row in rows]) if share else 0
    # The terminator is only ever a target: nothing follows it, so it is not run.
    length = max(len(row.prompt) + len(row.answer) for row in rows) - 1 - shared
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    targets = torch.full((len(rows), length), -100, dtype=torch.long)
    tokens, judged = 0, 0
    soft: list[tuple[int, int, float]] = []
    digits: list[bool] = []
    for r, row in enumerate(rows):
        whole = torch.tensor([*row.prompt[shared:], *row.answer[:-1]])
        ids[r, : len(whole)] = whole
        # The token at p is judged by what it says of p + 1.
        start = len(row.prompt) - 1 - shared
        targets[r, start : start + len(row.answer)] = torch.tensor(row.answer)
        tokens += shared + len(whole)
        for place, choices in enumerate(row.soft):
            soft.extend((judged + place, token, share) for token, share in choices)
        digits.extend([row.number] * len(row.answer))
        judged += len(row.answer)
    prefix = torch.tensor(rows[0].prompt[:shared], dtype=torch.long)
    columns = [torch.tensor(column, device=device) for column in zip(*soft, strict=True)]
    return Batch(
        prefix.to(device), ids.to(device), targets.to(device), tokens, judged,
        (columns[0], columns[1], columns[2]) if columns else None, torch.tensor(digits, device=device),
    )  # fmt: skip


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Number of tokens that all prompts begin with; the last token of a prompt is never shared, since it is judged."""
    first, last = min(prompts), max(prompts)
    longest = min(len(p) for p in prompts) - 1
    same = 0
    while same < longest and first[same] == last[same]:
        same += 1
    return same
