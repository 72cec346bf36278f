"""GGUF files: read back by transformers they compute and cut texts as the model did; what is not known is refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from tests.tiny import tiny_base, tiny_task, tiny_tokenizer
from tests.untrained import untrained
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from matdarwin.models.export import export
from matdarwin.models.gguf_file import GgufError, check, write_gguf

TEXTS = [
    "band gap of Ga2 O3:",
    " 1.20",
    " -1.20",
    "not metal",
    "Is Fe0.0625 Ni a metal?\n\n  twice\t12 345.67 <eos> don't",
    "\N{LATIN SMALL LETTER U WITH DIAERESIS}ber 5 \N{SUPERSCRIPT TWO}, a wide char: \N{GREEK CAPITAL LETTER OMEGA}",
]


def llama(tokenizer: Any, **changes: Any) -> Any:
    """A random LLaMA whose heads are as many as to tell a wrong order of their rows."""
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 6, "num_key_value_heads": 2, "initializer_range": 0.3, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}, "max_position_embeddings": 64,
    }  # fmt: skip
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**settings | changes)).float().eval()
    for name, tensor in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(tensor, 1.0, 0.3)  # by default all are alike, and a lost one would not be missed
    return model


def read(folder: Path) -> tuple[Any, Any]:
    where = {"pretrained_model_name_or_path": str(folder), "gguf_file": "m.gguf"}
    return AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32), AutoTokenizer.from_pretrained(**where)


def with_bos() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<eos>"
    template = processors.TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 6, "rms_norm_eps": 1e-3},
        {"head_dim": 16},
    ],
    ids=str,
)
def test_what_is_read_back_computes_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    tokenizer = tiny_tokenizer()
    model = llama(tokenizer, **changes)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, name="mine", licence=None, note={})
    again, words = read(tmp_path)
    assert again.config.tie_word_embeddings == model.config.tie_word_embeddings
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        assert words(text).input_ids == ids[0].tolist()
        with torch.no_grad():
            assert torch.allclose(again(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    assert words.eos_token == "<eos>" and words.pad_token == "<pad>"


@pytest.mark.parametrize(("single", "pre"), [(True, "smollm"), (False, "gpt-2")])
def test_how_texts_are_cut_is_named(tmp_path: Path, single: bool, pre: str) -> None:
    tokenizer = tiny_tokenizer(digits_single=single)
    write_gguf(tmp_path / "m.gguf", llama(tokenizer), tokenizer, name="mine", licence=None, note={})
    assert GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.pre"].contents() == pre
    words = read(tmp_path)[1]
    assert [words(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]


def test_rows_for_query_and_key_are_in_the_order_of_neighbouring_pairs(tmp_path: Path) -> None:
    """By the definition, not by another's reading: row j of a head's first half goes to 2j, of the second to 2j + 1."""
    tokenizer = tiny_tokenizer()
    model = llama(tokenizer)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, name="mine", licence=None, note={})
    written = {t.name: np.array(t.data) for t in GGUFReader(tmp_path / "m.gguf").tensors}
    layer = model.model.layers[1].self_attn
    for name, matrix, heads in (("attn_q", layer.q_proj, 6), ("attn_k", layer.k_proj, 2)):
        rows = matrix.weight.detach().numpy()
        for head in range(heads):
            for j in range(4):
                at = head * 8
                assert np.array_equal(written[f"blk.1.{name}.weight"][at + 2 * j], rows[at + j])
                assert np.array_equal(written[f"blk.1.{name}.weight"][at + 2 * j + 1], rows[at + 4 + j])
    assert np.array_equal(written["blk.1.attn_v.weight"], layer.v_proj.weight.detach().numpy())
    assert "output.weight" not in written


def test_its_head_says_what_llama_cpp_needs(tmp_path: Path) -> None:
    tokenizer = with_bos()
    tokenizer.add_tokens([AddedToken("GaAs", normalized=False)])
    tokenizer.chat_template = "{{ messages }}"
    model = llama(tokenizer, vocab_size=len(tokenizer) + 3)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, name="mine", licence="Apache-2.0", note={"format": 1})
    head = {name: field.contents() for name, field in GGUFReader(tmp_path / "m.gguf").fields.items()}
    expected = {
        "general.architecture": "llama", "general.name": "mine", "general.license": "apache-2.0", "general.file_type": 0,
        "llama.block_count": 2, "llama.embedding_length": 48, "llama.feed_forward_length": 40, "llama.context_length": 64,
        "llama.attention.head_count": 6, "llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 5000.0, "llama.vocab_size": len(tokenizer) + 3, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id, "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": tokenizer.eos_token_id, "tokenizer.ggml.add_eos_token": False,
    }  # fmt: skip
    assert {key: head.get(key) for key in expected} == expected
    assert json.loads(head["matdarwin.export"]) == {"format": 1} and "tokenizer.chat_template" not in head
    tokens, kinds = head["tokenizer.ggml.tokens"], head["tokenizer.ggml.token_type"]
    assert tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert len(set(tokens)) == len(tokens) == len(kinds) == len(tokenizer) + 3
    # 1 plain, 3 control, 4 given by a user, 5 unused
    assert [kinds[tokens.index(token)] for token in ("a", "<eos>", "GaAs")] == [1, 3, 4] and kinds[-3:] == [5, 5, 5]
    assert head["tokenizer.ggml.merges"][0] == "b a"


def test_an_export_with_it(home: Path, tmp_path: Path) -> None:
    base = tiny_base(home / "base", seed=7)
    checkpoint = untrained("mine", tiny_task(tmp_path), base=base, method="lora")
    done = export(checkpoint, tmp_path / "out", gguf=True)
    assert done.files["gguf/model.gguf"] == (done.folder / "gguf" / "model.gguf").stat().st_size
    (done.folder / "gguf" / "model.gguf").rename(tmp_path / "m.gguf")
    again, words = read(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(done.folder)
    for text in TEXTS:
        ids = words(text, return_tensors="pt").input_ids
        with torch.no_grad():
            assert torch.allclose(again(ids).logits, plain(ids).logits, atol=1e-5, rtol=1e-5)
    head = GGUFReader(tmp_path / "m.gguf").fields
    assert json.loads(head["matdarwin.export"].contents())["tasks"]["tiny_gap"]["prompt"] == "band gap of {material}:"


def refused(model: Any, tokenizer: Any) -> str:
    with pytest.raises(GgufError) as caught:
        check(model, tokenizer)
    return str(caught.value)


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2}
    qwen = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes))
    assert "Qwen2ForCausalLM" in refused(qwen, tokenizer) and "without --gguf" in refused(qwen, tokenizer)
    scaled = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    assert "positions are scaled (linear)" in refused(llama(tokenizer, rope_parameters=scaled), tokenizer)
    assert "have biases" in refused(llama(tokenizer, attention_bias=True), tokenizer)
    assert "activation is gelu" in refused(llama(tokenizer, hidden_act="gelu"), tokenizer)
    assert "has a token" in refused(llama(tokenizer, vocab_size=len(tokenizer) - 1), tokenizer)
    model = llama(tokenizer)
    for part, made, said in (
        ("pre_tokenizer", pre_tokenizers.Whitespace(), "not known (Whitespace)"),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True), "not known (ByteLevel)"),
        ("normalizer", normalizers.NFC(), "not plain byte-level BPE"),
        (
            "post_processor",
            processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]),
            "around every text",
        ),
    ):
        other = tiny_tokenizer()
        setattr(other.backend_tokenizer, part, made)
        assert said in refused(model, other)
    with pytest.raises(GgufError):
        write_gguf(tmp_path / "m.gguf", qwen, tokenizer, name="mine", licence=None, note={})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_such() -> None:
    tokenizer = tiny_tokenizer()
    # Large enough that the weights, not the head alone, meet the full disk.
    with pytest.raises(OSError) as caught:
        write_gguf(Path("/dev/full"), llama(tokenizer), tokenizer, name="mine", licence=None, note={})
    assert caught.value.errno == errno.ENOSPC
