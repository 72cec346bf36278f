"""A LLaMA-architecture model as one GGUF file, the format of llama.cpp and its kin; all weights in fp32.

Sources: the GGUF specification (ggml-org/ggml, docs/gguf.md) and the `gguf` package, which has the names of all tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_SPLITTINGS = {"gpt-2": [_BYTE_LEVEL], "smollm": [_DIGITS, _BYTE_LEVEL]}
"""How llama.cpp calls the ways of cutting a text before pairs are merged, with the steps that mean the same here."""


class GgufError(RuntimeError):
    """A model or tokenizer that the GGUF writer does not know how to write rightly."""


def check(model: Any, tokenizer: Any) -> None:
    """Make sure that a model and its tokenizer can be written without changing what they compute.

    Raises:
        GgufError: They cannot; the message says what stands in the way.
    """
    config = model.config
    if type(model).__name__ != "LlamaForCausalLM":
        raise _refused(f"the model is a {type(model).__name__}")
    if (rope := config.rope_parameters["rope_type"]) != "default":
        raise _refused(f"its positions are scaled ({rope})")
    if config.hidden_act != "silu":
        raise _refused(f"its activation is {config.hidden_act}")
    if config.attention_bias or config.mlp_bias:
        # transformers drops them when it reads such a file, so that it could not be proved right.
        raise _refused("its layers have biases")
    if (highest := max(tokenizer.get_vocab().values())) >= config.vocab_size:
        raise _refused(f"its tokenizer has a token {highest}, and the model only {config.vocab_size}")
    _splitting(_declared(tokenizer))
    _begins_with_bos(tokenizer)


def write_gguf(path: Path, model: Any, tokenizer: Any, *, name: str, licence: str | None, note: dict[str, Any]) -> None:
    """Write a model and its tokenizer.

    Args:
        path: The file to write.
        model: A LlamaForCausalLM in fp32, on the CPU.
        tokenizer: Its tokenizer, byte-level BPE. Its chat template stays out: programs that find one talk to the
            model as to an assistant, and it was taught bare prompts.
        name: What the model is called.
        licence: Licence of the weights, where known.
        note: How the model is to be asked; stored as JSON under `matdarwin.export`.

    Raises:
        GgufError: As from `check`.
        OSError: The disk is full, or the file cannot be written.
    """
    import gguf

    check(model, tokenizer)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_name(name)
    if licence is not None:
        writer.add_license(licence.lower())
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_string("matdarwin.export", json.dumps(note))
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    try:
        _write(writer, list(_tensors(model)))
    finally:
        writer.close()


def _refused(why: str) -> GgufError:
    return GgufError(
        f"no GGUF can be written: {why}. Known are LlamaForCausalLM models with plain positions and a byte-level BPE "
        "tokenizer; export without --gguf, and convert the folder with a converter that knows this model"
    )


def _write(writer: Any, tensors: list[tuple[str, Any]]) -> None:
    """Write the file: head, names, then tensor after tensor."""
    for name, tensor in tensors:
        writer.add_tensor_info(name, tensor.shape, tensor.dtype, tensor.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    (file,) = writer.fout
    writer.write_padding(file, file.tell())
    for _, tensor in tensors:
        # Not through numpy's tofile, as the package has it: its error on a full disk does not say that the disk is full.
        file.write(tensor.data)
        writer.write_padding(file, tensor.nbytes)
    file.flush()


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Names in GGUF, and values as arrays; an output layer that is the embeddings' is left out, as llama.cpp expects."""
    import gguf
    import numpy as np

    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        found = names.get_name(name, try_suffixes=(".weight",))
        if found is None:
            raise _refused(f"llama.cpp has no name for its tensor {name}")
        array = tensor.detach().numpy()
        if (which := name.split(".")[-2]) in heads:
            # llama.cpp turns neighbouring pairs of a head's rows about each other, transformers the first half about
            # the second: row j of the first half and row j of the second go to 2j and 2j + 1.
            halves = array.reshape(heads[which], 2, config.head_dim // 2, *array.shape[1:])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        yield found, np.ascontiguousarray(array, dtype=np.float32)


def _add_tokenizer(writer: Any, tokenizer: Any, size: int) -> None:
    """Write vocabulary, kinds of tokens, merges and special tokens; `size` is the model's number of tokens."""
    from gguf import TokenType

    declared = _declared(tokenizer)
    added = {one["id"]: one["special"] for one in declared["added_tokens"]}
    known = {index: token for token, index in tokenizer.get_vocab().items()}
    tokens, kinds = [], []
    for index in range(size):
        # A model may have more rows than its tokenizer has tokens; the rest get names that no text contains.
        tokens.append(known.get(index, f"[PAD{index}]"))
        if index not in known:
            kinds.append(TokenType.UNUSED)
        elif index in added:
            kinds.append(TokenType.CONTROL if added[index] else TokenType.USER_DEFINED)
        else:
            kinds.append(TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitting(declared))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = declared["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    for kind in ("bos", "eos", "unk", "pad"):
        if (index := getattr(tokenizer, f"{kind}_token_id")) is not None:
            getattr(writer, f"add_{kind}_token_id")(index)
    writer.add_add_bos_token(_begins_with_bos(tokenizer))
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _declared(tokenizer: Any) -> dict[str, Any]:
    """What the tokenizer's library says that it does."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refused(f"its tokenizer, a {type(tokenizer).__name__}, does not say how it works")
    return dict(json.loads(backend.to_str()))


def _splitting(declared: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer cuts a text before it merges pairs."""
    model, before = declared["model"], declared["pre_tokenizer"] or {"type": "none"}
    odd = ("byte_fallback", "ignore_merges", "dropout", "continuing_subword_prefix", "end_of_word_suffix")
    if model["type"] != "BPE" or declared["normalizer"] is not None or any(model.get(key) for key in odd):
        raise _refused("its tokenizer is not plain byte-level BPE")
    steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    steps = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
    for name, known in _SPLITTINGS.items():
        if steps == known:
            return name
    raise _refused(f"its tokenizer cuts texts in a way that is not known ({', '.join(s['type'] for s in steps)})")


def _begins_with_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its beginning token, and nothing else, before a text."""
    around = tokenizer("").input_ids
    if around not in ([], [tokenizer.bos_token_id]):
        raise _refused(f"its tokenizer puts the tokens {around} around every text")
    return bool(around)
