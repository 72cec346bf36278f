"""Weights and activations of eight bits for asking on a CPU: about half the time of fp32 for a matrix product.

torchao has the same scheme (dynamic activations), but without compiling it took longer than fp32 on the processors that
we measured; see docs/decisions.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from matdarwin.models.base import BaseModelError

_MOST = 127


class Int8Linear(nn.Module):
    """A linear layer whose products are of whole numbers.

    Each output's weights have one scale, and so has each token's input, taken anew (W8A8 of Dettmers et al. 2022,
    arXiv 2208.07339, without outliers apart). Whole numbers add up exactly and a token's scale is its own, so what comes
    out for a token does not depend on what else is in the batch.

    Args:
        layer: The layer to stand for.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weights, scale = _rounded(layer.weight.detach().float())
        # Transposed as the product wants it, but without moving it: that order in memory is the quicker one.
        self.register_buffer("weight", weights.t(), persistent=False)
        self.register_buffer("scale", scale[:, 0], persistent=False)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [..., in] to outputs [..., out], in the inputs' format."""
        rows, scale = _rounded(x.reshape(-1, x.shape[-1]).float())
        out = torch._int_mm(rows, self.weight).float().mul_(scale).mul_(self.scale)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1).to(x.dtype)


def quantise(model: Any) -> Any:
    """Put an `Int8Linear` in the place of each linear layer, the head too; embeddings and norms stay.

    Args:
        model: A causal language model in fp32 on the CPU; it is changed.

    Raises:
        BaseModelError: The model has no linear layers, or this processor's products of small whole numbers are not exact.
    """
    if not _exact():
        raise BaseModelError(
            "int8: this processor's products of eight-bit numbers are not exact; ask in fp32 or bf16 here"
        )
    found = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear)
    ]
    if not found:
        raise BaseModelError(f"int8: {type(model).__name__} has no linear layers to quantise; ask in fp32 or bf16")
    for parent, name, layer in found:
        setattr(parent, name, Int8Linear(layer))
    return model


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers [rows, n] of -127 to 127, and what one of them is worth in each row [rows, 1]."""
    # A row of zeros keeps them, whatever its scale.
    scale = rows.abs().amax(1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny * _MOST).div_(_MOST)
    return (rows / scale).round_().to(torch.int8), scale


def _exact() -> bool:
    """Whether products add up without saturating; some processors add pairs of them in sixteen bits."""
    left = torch.full((32, 256), _MOST, dtype=torch.int8)
    return bool((torch._int_mm(left, left.t()) == _MOST * _MOST * 256).all())
