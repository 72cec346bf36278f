"""Eight-bit products: near to the exact ones, each token's its own, and refused where they would be wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_checkpoint, tiny_model, tiny_rows
from torch import nn

from matdarwin.models.base import BaseModelError, as_dtype, device_and_dtype
from matdarwin.models.int8 import Int8Linear, quantise
from matdarwin.prediction.predictor import Predictor


@pytest.mark.parametrize(("rows", "inside", "outside"), [(1, 1, 1), (3, 7, 5), (1, 576, 1536), (130, 1536, 49)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_near_to_the_layer_s(rows: int, inside: int, outside: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(inside, outside, bias=bias)
    # Scales differ from token to token and from output to output by far more than eight bits span.
    layer.weight.data *= torch.logspace(-4, 4, outside)[:, None]
    x = torch.randn(2, rows, inside) * torch.logspace(-4, 4, rows)[None, :, None]
    exact = nn.functional.linear(x, layer.weight)
    found = Int8Linear(layer)(x)
    if layer.bias is not None:
        found = found - layer.bias
    # Half a step on each side of each product, added up as errors that know nothing of each other are.
    size = x.abs().amax(-1, keepdim=True) * layer.weight.abs().amax(1)
    far = torch.ones(1) if layer.bias is None else layer.bias.abs()
    assert ((found - exact).abs() <= size / 127 * 3 * inside**0.5 + 1e-6 * far).all()


def test_a_token_s_output_does_not_depend_on_its_company() -> None:
    torch.manual_seed(1)
    layer = Int8Linear(nn.Linear(64, 48))
    x = torch.randn(20, 64)
    x[3] *= 1e6
    together = layer(x)
    for k in range(20):
        assert torch.equal(layer(x[k : k + 1])[0], together[k])


def test_zeros_and_sixteen_bits() -> None:
    layer = nn.Linear(8, 4)
    layer.weight.data[1] = 0
    small = Int8Linear(layer)
    assert torch.equal(small(torch.zeros(2, 8)), layer.bias.detach().expand(2, 4))
    assert small(torch.randn(2, 8))[:, 1] == pytest.approx(layer.bias.detach()[1].expand(2))
    assert small(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_all_linear_layers_and_no_other_weights() -> None:
    model = tiny_model(300)
    before = copy.deepcopy(model)
    other = as_dtype(model, torch.int8)
    assert not [m for m in other.modules() if isinstance(m, nn.Linear)] and isinstance(other.lm_head, Int8Linear)
    assert torch.equal(other.model.embed_tokens.weight, before.model.embed_tokens.weight)
    for one, two in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, two), "the model in training stays as it is"
    ids = torch.arange(30)[None]
    with torch.inference_mode():
        exact, found = before(input_ids=ids).logits, other(input_ids=ids).logits
    assert 0 < (found - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
def test_low_rank_updates_are_merged_first_as_in_a_stored_checkpoint(dtype: torch.dtype) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(tiny_model(300), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    other = as_dtype(adapted, dtype)
    assert not [name for name, _ in other.named_modules() if "lora" in name]
    assert [name for name, _ in adapted.named_modules() if "lora" in name], "the model in training stays as it is"
    ids = torch.arange(30)[None]
    with torch.inference_mode():
        exact, found = adapted(input_ids=ids).logits, other(input_ids=ids).logits
    assert 0 < (found - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseModelError, match="no linear layers"):
        quantise(nn.Sequential(nn.Embedding(3, 2)))
    with pytest.raises(BaseModelError, match="asked in it, not trained"):
        device_and_dtype("int8", training=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(BaseModelError, match="bf16 on a GPU"):
        device_and_dtype("int8", training=False)
    monkeypatch.setattr(torch, "_int_mm", lambda one, other: (one.int() @ other.int()).clamp(max=(1 << 15) - 1))
    with pytest.raises(BaseModelError, match="not exact"):
        quantise(tiny_model(300))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_checkpoint_is_asked_in_it_and_says_how_it_was_calibrated(tmp_path: Path, method: str) -> None:
    formulas = [formula for formula, _ in tiny_rows(40)]
    made = tiny_checkpoint(tmp_path, method=method)
    exact = Predictor.of(made).predict(formulas, "tiny_gap")
    found = Predictor.of(made, dtype="int8").predict(formulas, "tiny_gap")
    gaps = [abs(one.distribution.mean() - two.distribution.mean()) for one, two in zip(exact, found, strict=True)]
    assert 0 < max(gaps) < 0.5
    assert not [one for one in exact if any("calibrated otherwise" in note for note in one.notes)]
    assert all(any("int8 instead of float32" in note for note in one.notes) for one in found)


def test_intervals_are_calibrated_in_the_format_of_the_recipe(tmp_path: Path) -> None:
    made = tiny_checkpoint(tmp_path, predicting={"dtype": "int8"})
    as_taught = Predictor.of(made)
    assert isinstance(as_taught._model.lm_head, Int8Linear)
    (found,) = as_taught.predict(["GaN"], "tiny_gap")
    assert found.lower is not None and not any("calibrated otherwise" in note for note in found.notes)
    (other,) = Predictor.of(made, dtype="fp32").predict(["GaN"], "tiny_gap")
    assert any("float32 instead of int8" in note for note in other.notes)
