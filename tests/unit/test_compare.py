"""What differs between two checkpoints: how they were made, and how far their weights lie apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_base, tiny_model, tiny_task, tiny_tokenizer
from tests.untrained import RECIPE, untrained

from matdarwin.models.base import find_base
from matdarwin.models.checkpoint import Checkpoint, CheckpointError
from matdarwin.models.compare import differences, distances
from matdarwin.tasks.schema import Task


@pytest.fixture
def base(home: Path) -> Path:
    return tiny_base(home / "base", seed=7)


@pytest.fixture
def gap(tmp_path: Path) -> Task:
    return tiny_task(tmp_path)


def changed(checkpoint: Checkpoint, change: Any) -> Checkpoint:
    """The checkpoint with other weights; nothing that is compared looks at its seal again."""
    model = checkpoint.model(torch.float32)
    with torch.no_grad():
        change(model.model)
    model.save_pretrained(checkpoint.folder / "weights")
    return checkpoint


def test_a_checkpoint_does_not_differ_from_itself(base: Path, gap: Task) -> None:
    one = untrained("one", gap, base=base, calibration={"tiny_gap": {"n": 50, "scores": [0.5, 1.0]}})
    found = differences(one, one)
    assert {key: found[key] for key in ("card", "base", "recipe", "training", "validation", "calibration")} == {
        key: {} for key in ("card", "base", "recipe", "training", "validation", "calibration")
    }
    assert found["tasks"] == {"only_a": [], "only_b": [], "changed": {}}
    weights = found["weights"]
    assert weights["equal"] and weights["distance"] == 0.0 and weights["reason"] is None
    assert [group["group"] for group in weights["groups"]] == ["embed_tokens", "layer 0", "layer 1", "norm"]


def test_how_they_were_made(base: Path, gap: Task, tmp_path: Path) -> None:
    metal = tiny_task(tmp_path, kind="classification")
    training = {"steps": 10, "commit": "aaa", "seconds": 1.0, "validation": {"tiny_gap": ["mae", 0.5]}}
    one = untrained("one", gap, base=base, training=training, calibration={"tiny_gap": {"n": 50, "scores": [0.5, 1.0]}})
    wider = tiny_task(tmp_path, bounds=[0, 9])
    longer = RECIPE | {"optimising": {"epochs": 3, "learning_rate": 1e-2}, "evidence": ["oqmd"]}
    other = untrained(
        "other", wider, metal, base=base, recipe=longer, code="9", fold=1,
        training=training | {"commit": "bbb", "seconds": 9.0, "validation": {"tiny_gap": ["mae", 0.25]}},
        calibration={"tiny_gap": {"n": 50, "scores": [0.5, 2.0]}},
    )  # fmt: skip
    card = other.card.tasks["tiny_gap"].model_copy(update={"counts": {"train": 5}, "data_sha256": "1" * 64})
    tasks = other.card.tasks | {"tiny_gap": card}
    found = differences(one, Checkpoint(other.folder, other.card.model_copy(update={"tasks": tasks})))
    assert found["card"] == {"code": ["0", "9"], "fold": [None, 1]}
    assert found["recipe"] == {"optimising.epochs": [2, 3], "evidence": [None, ["oqmd"]]}
    assert found["training"] == {"commit": ["aaa", "bbb"]}
    assert found["validation"] == {"tiny_gap": [["mae", 0.5], ["mae", 0.25]]}
    assert list(found["calibration"]) == ["tiny_gap.scores"], "long lists are told by their hash"
    assert (found["tasks"]["only_a"], found["tasks"]["only_b"]) == ([], ["tiny_metal"])
    assert found["tasks"]["changed"] == {
        "tiny_gap": {
            "task.bounds": [[0.0, 5.0], [0.0, 9.0]],
            "counts.train": [None, 5],
            "data_sha256": ["0" * 64, "1" * 64],
        }
    }
    assert found["weights"]["equal"] and json.dumps(found, allow_nan=False)


def test_distances_by_layer_and_part(base: Path, gap: Task) -> None:
    one, other = untrained("one", gap, base=base), untrained("other", gap, base=base)

    def change(model: Any) -> None:
        for matrix in model.layers[1].mlp.parameters():
            matrix *= 1.25
        model.norm.weight *= 0.5

    changed(one, change)
    found = distances(one, other)
    groups = {group["group"]: group for group in found["groups"]}
    assert groups["embed_tokens"] == {"group": "embed_tokens", "distance": 0.0, "parts": {}}
    assert groups["layer 0"]["distance"] == 0.0
    parts = groups["layer 1"]["parts"]
    assert parts == {
        "input_layernorm": 0.0,
        "mlp": pytest.approx(0.25, rel=1e-5),
        "post_attention_layernorm": 0.0,
        "self_attn": 0.0,
    }
    state = other.model(torch.float32).state_dict()
    square = {
        part: sum(float((v.double() ** 2).sum()) for k, v in state.items() if k.startswith(part) and "lm_head" not in k)
        for part in ("model.layers.1.mlp", "model.layers.1", "model.norm", "model")
    }
    apart = square["model.layers.1.mlp"] / 16
    assert groups["layer 1"]["distance"] == pytest.approx((apart / square["model.layers.1"]) ** 0.5, rel=1e-6)
    assert groups["norm"]["distance"] == pytest.approx(0.5)
    whole = ((apart + square["model.norm"] / 4) / square["model"]) ** 0.5
    assert found["distance"] == pytest.approx(whole, rel=1e-6) and not found["equal"]


def test_layers_stand_by_number(base: Path, gap: Task, home: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from matdarwin.models.base import Base

    config = LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=11, num_attention_heads=1,
        tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(home / "deep")
    deep = Base("deep", home / "deep", "0")
    one = untrained("one", gap, base=base)
    checkpoint = Checkpoint(one.folder, one.card)
    LlamaForCausalLM(config).save_pretrained(one.folder / "weights")
    found = distances(checkpoint, deep)
    names = [group["group"] for group in found["groups"]]
    assert names == ["embed_tokens", *(f"layer {n}" for n in range(11)), "lm_head", "norm"]


def test_a_norm_of_nothing_gives_no_distance(base: Path, gap: Task) -> None:
    one, other = untrained("one", gap, base=base), untrained("other", gap, base=base)
    changed(other, lambda model: model.norm.weight.zero_())
    found = distances(one, other)
    assert found["groups"][-1] == {"group": "norm", "distance": None, "parts": {}}
    assert json.dumps(found, allow_nan=False)


def test_models_of_other_shapes(base: Path, gap: Task) -> None:
    one = untrained("one", gap, base=base)
    other = untrained("other", gap, base=base)
    tiny_model(len(tiny_tokenizer()) + 2).save_pretrained(other.folder / "weights")
    found = distances(one, other)
    assert found["other_shape"] == ["model.embed_tokens.weight"] and not found["equal"]
    assert [group["group"] for group in found["groups"]] == ["layer 0", "layer 1", "norm"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_beside_its_base(base: Path, gap: Task, method: str) -> None:
    one = untrained("one", gap, base=base, method=method)
    found = differences(one, find_base(str(base)))
    assert set(found) == {"a", "b", "base", "weights"} and found["base"] == {}
    weights = found["weights"]
    assert (weights["only_a"], weights["only_b"]) == ([], [])
    moved = {group["group"]: group["distance"] for group in weights["groups"]}
    assert moved["layer 0"] > 0.1 and moved["layer 1"] > 0.1 and moved["norm"] == 0.0
    assert (moved["embed_tokens"] == 0) == (method == "lora"), "an update moves matrices of layers alone"
    other = tiny_base(base.parent / "other", seed=8)
    assert set(differences(one, find_base(str(other)))["base"]) == {"name", "sha256"}


def test_a_base_that_is_not_at_hand_costs_the_distances_alone(base: Path, gap: Task) -> None:
    one = untrained("one", gap, base=base, method="lora")
    other = untrained("other", gap, base=base, recipe=RECIPE | {"seed": 5})
    tiny_base(base, seed=9)
    found = differences(one, other)
    assert found["recipe"] == {"seed": [None, 5]}
    assert "but the base here has" in found["weights"]["reason"] and found["weights"]["distance"] is None
    with pytest.raises(CheckpointError, match="but the base here has"):
        differences(one, find_base(str(base)))
