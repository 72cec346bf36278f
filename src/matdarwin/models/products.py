"""Matrix products in fp32 on a CPU, by the library that is quick at them there.

PyTorch multiplies fp32 matrices on x86 by MKL, which takes its AVX-512 code on Intel's processors alone. On AMD's it
computes in vectors of 256 bits, at half of what those with AVX-512 can do; oneDNN, which PyTorch brings as well, does not
ask who made them. PyTorch hands fp32 products to oneDNN only where it may round their factors to bf16. oneDNN makes use of
that leave on processors with AMX alone, which AMD has not built: elsewhere it computes in plain fp32, which is tried out first.
It adds up in another order, with errors two to three times MKL's, some 1e-6 of the largest element.

Each product costs oneDNN some microseconds beforehand. That is nothing for a layer, but attention by blocks is thousands of
small products; attention as PyTorch writes it out has two large ones instead.
"""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

_EXACT = 1e-5
"""Error of a product, relative to its largest element: fp32 makes some 1e-6 here, factors of bf16 make 1e-3."""


@functools.cache
def choose_library() -> bool:
    """Have this process's fp32 products computed by oneDNN, where that is quicker and fp32 all the same.

    Which library computes shapes the last digits, so the choice depends on the processor alone and not on a measurement:
    a training that is gone on with must come to the same numbers. A precision that was set by the caller of this package
    stays, as does everything where there is a GPU.

    Returns:
        Whether oneDNN computes them because of this call.
    """
    import torch

    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    slow = _maker() == "AuthenticAMD" and torch.backends.cpu.get_cpu_capability() == "AVX512"
    if not (both and slow) or torch.cuda.is_available() or torch.get_float32_matmul_precision() != "highest":
        return False
    # Read at the first product. Its code and memory are kept for each shape, a megabyte for each of 1,024 by default, and
    # hardly two batches have the same: some gigabytes after some hundred steps. All layers of a model need fewer than 32.
    for kept in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(kept, "32")
    # Sets CUDA's precision, too, of which there is none. oneDNN's alone would make the getter above fail in other packages.
    torch.set_float32_matmul_precision("medium")
    if not _exact():
        torch.set_float32_matmul_precision("highest")
        return False
    # By blocks ("flash"): on a CPU, too, in spite of its name.
    torch.backends.cuda.enable_flash_sdp(False)
    return True


def _maker() -> str:
    """The processor's maker in its own words, empty where the system does not tell."""
    file = Path("/proc/cpuinfo")
    if file.is_file():
        lines = (line.partition(":") for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
        return next((value.strip() for key, _, value in lines if key.strip() == "vendor_id"), "")
    # Windows: "AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD".
    return platform.processor().rpartition(", ")[2]


def _exact() -> bool:
    """Whether the factors of a product keep the digits of fp32."""
    import torch

    draw = torch.Generator().manual_seed(0)
    left, right = torch.randn(64, 576, generator=draw), torch.randn(1536, 576, generator=draw)
    exact = left.double() @ right.double().T
    return bool(((left @ right.T) - exact).abs().max() < _EXACT * exact.abs().max())
