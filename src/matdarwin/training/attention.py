"""Attention while a model is trained, by the way that is quick for the rows at hand."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv

_SCORES = 1 << 22
"""Scores of a layer up to which they are kept for the way back, 16 MiB: 16 rows of 170 tokens and 9 heads."""


def attend(query: Any, key: Any, value: Any, seen: Any | None, scaling: float | None) -> Any:
    """Scaled dot-product attention [rows, heads, asked, width].

    On a CPU PyTorch's own goes through short rows block by block, thousands of small matrix products a step. Written out
    they are two large ones, in which the heads that share keys stand below one another. What it is worth is in docs/log.md.

    Args:
        query: Queries [rows, heads, asked, width].
        key: Keys [rows, shared, known, width]; each is shared by heads / shared neighbouring heads.
        value: Values, shaped as the keys.
        seen: What is added to the scores, -inf where a query does not see a key: [asked, known], or of each row apart
            [rows, 1, asked, known]. None: each sees those up to its own place, of as many keys as queries.
        scaling: Factor of the scores; None: 1 / sqrt(width).
    """
    rows, heads, asked, _ = query.shape
    if query.device.type == "cpu":
        if rows * heads * asked * key.shape[2] <= _SCORES:
            return _written_out(query, key, value, seen, scaling)
        # By blocks, whose memory grows linearly with the rows' length but for the mask, though another way be set for the process.
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            return _of_pytorch(query, key, value, seen, scaling)
    return _of_pytorch(query, key, value, seen, scaling)


def _of_pytorch(query: Any, key: Any, value: Any, seen: Any | None, scaling: float | None) -> Any:
    key, value = (repeat_kv(states, query.shape[1] // key.shape[1]) for states in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None, scale=scaling)


def _written_out(query: Any, key: Any, value: Any, seen: Any | None, scaling: float | None) -> Any:
    rows, heads, asked, width = query.shape
    shared, known = key.shape[1:3]
    below = (query * (width**-0.5 if scaling is None else scaling)).reshape(rows, shared, -1, width)
    scores = (below @ key.transpose(-1, -2)).view(rows, heads, asked, known)
    if seen is None:
        seen = torch.full((asked, known), float("-inf"), dtype=scores.dtype, device=scores.device).triu(1)
    weights = (scores + seen).softmax(-1, dtype=torch.float32).to(value.dtype)
    return (weights.view(rows, shared, -1, known) @ value).view(rows, heads, asked, width)
