"""Attention over rows that stand one after the other, so that all else in a model sees real tokens alone, and each once.

A batch is one sequence: prefixes that its rows share, then the rest of each row (training/batches.py). Every layer but
attention treats tokens apart, so it needs no padding; attention puts the rows beside one another, each behind its prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from matdarwin.training.attention import attend
from matdarwin.training.batches import Batch, Heads

_NAME, _ROWS = "matdarwin_packed", "matdarwin_rows"
_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Models whose attention is plain, and hands on what it is given beside queries, keys and values."""

_Layout = tuple[Heads | None, Any, Any, Any]


def has_windows(config: Any) -> bool:
    """Whether a token sees only so many before it, in some layer."""
    return bool(getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))


def can_pack(config: Any) -> bool:
    """Whether models of this configuration can be run packed: attention without windows, and without dropout."""
    return config.model_type in _FAMILIES and not has_windows(config) and not getattr(config, "attention_dropout", 0)


def hidden_states(decoder: Any, batch: Batch, embeddings: Any | None) -> Any:
    """Hidden states of a packed batch [tokens, width].

    Args:
        decoder: The model without its output layer.
        batch: The rows.
        embeddings: Embeddings of its tokens [tokens, width]; None: the model's own.
    """
    heads, device = batch.heads, batch.ids.device
    own = torch.arange(batch.places.shape[1], device=device)
    if heads is None:
        positions, seen = own.expand(batch.places.shape).flatten()[batch.back], None
    else:
        first = heads.back % heads.places.shape[1]
        positions = torch.cat([first, (heads.starts[:, None] + own).flatten()[batch.back]])
        seen = _additive(_seen(heads, own), decoder)
    given = {"input_ids": batch.ids[None]} if embeddings is None else {"inputs_embeds": embeddings[None]}
    with _attending(decoder.config, _NAME):
        found = decoder(
            **given, position_ids=positions[None], use_cache=False,
            layout=(heads, batch.places, batch.back, seen),
        )  # fmt: skip
    return found.last_hidden_state[0]


def _seen(heads: Heads, own: Any) -> Any:
    """What rows see of the longest prefix and of their own tokens [own, prefix and own]; of each apart [rows, 1, own, prefix and own]."""
    length = heads.places.shape[1]
    if heads.of is None:
        return torch.ones((len(own), length + len(own)), dtype=torch.bool, device=own.device).tril(length)
    before = torch.arange(length, device=own.device) < heads.starts[:, None]
    shape = (len(before), 1, len(own))
    behind = own <= own[:, None]
    return torch.cat([before[:, None, None].expand(*shape, -1), behind.expand(*shape, -1)], -1)


def _additive(seen: Any, decoder: Any) -> Any:
    """As what is added to scores, in the number format that they are in: made once, where each layer would make its own."""
    kind = seen.device.type
    computed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else next(decoder.parameters()).dtype
    return torch.zeros(seen.shape, dtype=computed, device=seen.device).masked_fill(~seen, float("-inf"))


def hidden_states_of_rows(decoder: Any, ids: Any, embeddings: Any | None) -> Any:
    """Hidden states of rows that are padded on the right to one length [rows * length, width].

    Args:
        decoder: The model without its output layer.
        ids: Token ids [rows, length].
        embeddings: Their embeddings [rows, length, width]; None: the model's own.
    """
    given = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    with _attending(decoder.config, _ROWS):
        found = decoder(**given, position_ids=positions, use_cache=False)
    return found.last_hidden_state.flatten(0, 1)


@contextmanager
def _attending(config: Any, name: str) -> Iterator[None]:
    usual = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual


def _attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, layout: _Layout | None = None,
    **others: Any,
) -> tuple[Any, None]:  # fmt: skip
    """Attention of one layer; queries, keys and values are [1, heads, tokens, width]."""
    assert layout is not None
    heads, places, back, seen = layout

    def beside(states: Any, places: Any) -> Any:
        """Rows beside one another [rows, heads, longest, width]."""
        return states[0].index_select(1, places.flatten()).unflatten(1, places.shape).transpose(0, 1)

    def behind(found: Any, back: Any) -> Any:
        """And one behind the other again, without padding [tokens, heads, width]."""
        return found.transpose(1, 2).flatten(0, 1).index_select(0, back)

    queries, keys, values = (beside(states, places) for states in (query, key, value))
    if heads is None:
        return behind(attend(queries, keys, values, None, scaling), back)[None], None
    firsts, its_keys, its_values = (beside(states, heads.places) for states in (query, key, value))
    made = behind(attend(firsts, its_keys, its_values, None, scaling), heads.back)
    of = heads.of

    def after(its: Any, own: Any) -> Any:
        """Each row's own keys or values behind those of its prefix."""
        return torch.cat([its.expand(len(own), -1, -1, -1) if of is None else its.index_select(0, of), own], 2)

    found = attend(queries, after(its_keys, keys), after(its_values, values), seen, scaling)
    return torch.cat([made, behind(found, back)])[None], None


def _causal(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **others: Any
) -> tuple[Any, None]:
    """Attention of one layer over padded rows: no token sees the padding, which stands behind it."""
    return attend(query, key, value, None, scaling).transpose(1, 2), None


# No mask is registered under these names, so transformers makes none.
ALL_ATTENTION_FUNCTIONS.register(_NAME, _attention)
ALL_ATTENTION_FUNCTIONS.register(_ROWS, _causal)
