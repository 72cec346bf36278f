"""Base models: found by name or folder, loaded without running anything that lies beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_base

from matdarwin.models import base as bases
from matdarwin.models.base import (
    Base,
    BaseModelError,
    device_and_dtype,
    find_base,
    load_model,
    load_tokenizer,
    refuse_unless_causal,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


def test_a_folder_is_found_and_its_hash_follows_the_weights(home: Path, saved: Path, tmp_path: Path) -> None:
    base = find_base(str(saved))
    assert base.folder == saved and base.name == str(saved) and len(base.sha256) == 64
    assert find_base(str(saved)) == base, "remembered"
    copy = tiny_base(tmp_path / "same")
    assert find_base(str(copy)).sha256 == base.sha256
    other = tiny_base(tmp_path / "other", seed=1)
    assert find_base(str(other)).sha256 != base.sha256


def test_a_folder_is_remembered_by_its_whole_path(home: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a slash in it could else be taken for one of the hub, once it is asked for in another folder."""
    monkeypatch.chdir(saved.parent.parent)
    near = f"{saved.parent.name}/{saved.name}"
    assert find_base(near).name == str(saved.resolve()) and find_base(near).sha256 == find_base(str(saved)).sha256


def test_the_remembered_hash_is_not_used_for_other_bytes(home: Path, tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "b")
    before = find_base(str(folder)).sha256
    weights = folder / "model.safetensors"
    whole = bytearray(weights.read_bytes())
    whole[-1] ^= 1
    weights.write_bytes(whole)
    assert find_base(str(folder)).sha256 != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-135", r"'smollm2-135' is no base model; did you mean smollm2-135m\? Give"),
        ("zzz", r"'zzz' is no base model\. Give smollm2-135m, a folder"),
        ("./nothing", r"is no base model\. Give"),
        ("/nothing/here", r"is no base model\. Give"),
    ],
)
def test_an_unknown_name_says_what_may_be_given(home: Path, name: str, message: str) -> None:
    with pytest.raises(BaseModelError, match=message):
        find_base(name)


def test_a_hub_name_without_network_is_an_error_of_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read on import only
    with pytest.raises(BaseModelError, match="nobody/nothing could not be had from the hub"):
        find_base("nobody/nothing")


def test_a_folder_without_config_or_weights_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"is a folder without config\.json"):
        find_base(str(tmp_path))
    folder = tiny_base(tmp_path / "b")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"holds no \*\.safetensors; pickled weights are not loaded"):
        find_base(str(folder))


def test_pickled_weights_are_not_loaded_even_when_asked_for_directly(saved: Path, tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "b")
    torch.save(load_model(saved, dtype=torch.float32).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_model(folder, dtype=torch.float32)


@pytest.mark.parametrize("kind", ["BertModel", "T5ForConditionalGeneration", "BertForMaskedLM"])
def test_a_model_that_is_not_causal_is_refused(tmp_path: Path, kind: str) -> None:
    import transformers

    part: Any = getattr(transformers, "T5Config" if kind.startswith("T5") else "BertConfig")
    part(architectures=[kind]).save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=rf"holds a {kind}, which is no causal language model"):
        load_model(tmp_path, dtype=torch.float32)


def test_a_model_that_sees_what_comes_later_is_refused(tmp_path: Path, saved: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    shape = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    for name, decoder in (("sees", False), ("causal", True)):
        model = BertLMHeadModel(BertConfig(**shape, is_decoder=decoder, architectures=["BertLMHeadModel"]))
        model.save_pretrained(tmp_path / name)
    base = Base("sees", tmp_path / "sees", "")
    with pytest.raises(BaseModelError, match="sees is no causal language model: what comes later changes"):
        refuse_unless_causal(load_model(tmp_path / "sees", dtype=torch.float32), base)
    refuse_unless_causal(load_model(tmp_path / "causal", dtype=torch.float32), base)
    refuse_unless_causal(load_model(saved, dtype=torch.float32), base)


def test_a_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_base(tmp_path / "b")
    weights = load_file(folder / "model.safetensors")
    left = {name: tensor for name, tensor in weights.items() if ".layers.1." not in name}
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"lack model\.layers\.1\..* and \d+ more; fetch the whole model"):
        load_model(folder, dtype=torch.float32)


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "nothing_known"}'])
def test_a_broken_config_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    folder = tiny_base(tmp_path / "b")
    (folder / "config.json").write_text(text)
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_model(folder, dtype=torch.float32)


def test_broken_weights_are_an_error_of_ours(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "b")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_model(folder, dtype=torch.float32)


def test_a_tokenizer_without_end_is_refused_and_one_that_is_missing_too(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "b")
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content.pop("eos_token")
    path.write_text(json.dumps(content))
    with pytest.raises(BaseModelError, match="no end-of-text token"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_tokenizer(folder)


def test_weights_are_those_of_the_folder_or_drawn_from_the_seed(saved: Path) -> None:
    def weights(**options: Any) -> Any:
        return load_model(saved, dtype=torch.float32, **options).model.layers[0].mlp.up_proj.weight

    assert torch.equal(weights(), weights())
    assert torch.equal(weights(random_seed=1), weights(random_seed=1))
    assert not torch.equal(weights(random_seed=1), weights(random_seed=2))
    assert not torch.equal(weights(random_seed=5), weights())
    assert load_model(saved, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cpu = torch.device("cpu")
    for fast in (True, False):
        monkeypatch.setattr(bases, "_cpu_prefers_bf16", lambda fast=fast: fast)
        assert device_and_dtype("auto", training=False) == (cpu, torch.float32), "values must not depend on the batch"
        assert device_and_dtype("auto", training=True) == (cpu, torch.bfloat16 if fast else torch.float32)
        assert device_and_dtype("fp32", training=True) == (cpu, torch.float32)
        assert device_and_dtype("bf16", training=False) == (cpu, torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_and_dtype("auto", training=True) == (torch.device("cuda"), torch.bfloat16)
    assert device_and_dtype("auto", training=False) == (torch.device("cuda"), torch.float32)
