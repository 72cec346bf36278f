"""Attention while a model is trained: every way to the same numbers, and memory that does not run away."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from matdarwin.training import attention
from matdarwin.training.attention import attend


def _states(rows: int, heads: int, shared: int, asked: int, known: int) -> list[Any]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(rows, heads, asked, 8), (rows, shared, known, 8), (rows, shared, known, 8)]
    return [torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes]


def _seen(asked: int, known: int, before: int, rows: int | None = None) -> Any:
    """What is added to the scores of queries behind `before` keys; of several rows each one key less."""
    shapes = [(asked, known, before)] if rows is None else [(asked, known, before - row) for row in range(rows)]
    found = [torch.full((a, k), float("-inf")).triu(b + 1) for a, k, b in shapes]
    return found[0] if rows is None else torch.stack(found)[:, None]


def _plain(query: Any, key: Any, value: Any, seen: Any | None, scaling: float | None) -> Any:
    """By its definition, head by head, in double precision."""
    query, key, value = query.double(), key.double(), value.double()
    each = query.shape[1] // key.shape[1]
    if seen is None:
        seen = _seen(query.shape[2], key.shape[2], 0)
    if seen.dim() == 4:
        seen = seen[:, 0]
    found = []
    for head in range(query.shape[1]):
        scores = query[:, head] @ key[:, head // each].mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        found.append((scores + seen).softmax(-1) @ value[:, head // each])
    return torch.stack(found, 1)


@pytest.mark.parametrize("most", [attention._SCORES, 0])
@pytest.mark.parametrize(("heads", "shared"), [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize("scaling", [None, 0.2])
@pytest.mark.parametrize(("before", "apart"), [(None, False), (0, False), (3, False), (3, True)])
def test_attention_is_what_its_definition_says(
    monkeypatch: pytest.MonkeyPatch, most: int, heads: int, shared: int, scaling: float | None, before: int | None, apart: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(attention, "_SCORES", most)
    known = 5 + (before or 0)
    states = _states(2, heads, shared, 5, known)
    seen = None if before is None else _seen(5, known, before, rows=2 if apart else None)
    found, expected = attend(*states, seen, scaling), _plain(*states, seen, scaling)
    torch.testing.assert_close(found, expected.float())
    slopes = (torch.autograd.grad(made.square().sum(), states) for made in (found, expected))
    torch.testing.assert_close(*slopes)


def test_under_autocast_probabilities_are_computed_in_fp32() -> None:
    states = _states(2, 6, 2, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(*(state.bfloat16() for state in states), None, None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), _plain(*states, None, None).float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("blocks", [True, False])
def test_scores_of_many_long_rows_are_not_kept(monkeypatch: pytest.MonkeyPatch, blocks: bool) -> None:
    ways = []

    def spied(*inputs: Any, **others: Any) -> Any:
        ways.append(torch.backends.cuda.flash_sdp_enabled())
        return scaled_dot_product_attention(*inputs, **others)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", spied)
    before = torch.backends.cuda.flash_sdp_enabled()
    torch.backends.cuda.enable_flash_sdp(blocks)
    try:
        monkeypatch.setattr(attention, "_SCORES", 2 * 3 * 5 * 5)
        attend(*_states(2, 3, 3, 5, 5), None, None)
        assert not ways, "written out"
        attend(*_states(2, 3, 3, 5, 6), _seen(5, 6, 1), None)
        assert ways == [True], "by blocks, whatever is set for the process"
        assert torch.backends.cuda.flash_sdp_enabled() == blocks
    finally:
        torch.backends.cuda.enable_flash_sdp(before)
