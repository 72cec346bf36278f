"""Which library multiplies fp32 matrices on a CPU: a matter of the processor's make, never of rounded factors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from matdarwin.models import products

choose = products.choose_library.__wrapped__  # without the memory of an earlier choice


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    before, blocks = torch.get_float32_matmul_precision(), torch.backends.cuda.flash_sdp_enabled()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.enable_flash_sdp(True)
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cuda.enable_flash_sdp(blocks)


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch) -> None:
    for kept in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        monkeypatch.setenv(kept, "7")
    monkeypatch.setattr(products, "_maker", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_what_is_chosen_here_is_exact() -> None:
    choose()
    assert products._exact()


def test_rounded_factors_are_told_from_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = torch.Tensor.__matmul__

    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype != torch.float32:
            return exact(left, right)
        return exact(left.bfloat16().float(), right.bfloat16().float())

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not products._exact()


def test_amd_with_avx512_takes_onednn(amd: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_exact", lambda: True)
    assert choose()
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    assert torch.get_float32_matmul_precision() == "medium", "both of PyTorch's ways to ask give an answer"
    assert not torch.backends.cuda.flash_sdp_enabled()


def test_rounding_is_not_taken_into_the_bargain(amd: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_exact", lambda: False)
    assert not choose()
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (products, "_maker", "GenuineIntel"),
        (products, "_maker", ""),
        (torch.backends.cpu, "get_cpu_capability", "AVX2"),
        (torch.backends.mkl, "is_available", False),
        (torch.backends.mkldnn, "is_available", False),
        (torch.cuda, "is_available", True),
    ],
)
def test_other_machines_stay_as_they_are(
    amd: None, monkeypatch: pytest.MonkeyPatch, where: object, name: str, value: object
) -> None:
    monkeypatch.setattr(where, name, lambda: value)
    assert not choose()
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_precision_that_was_asked_for_stays(amd: None) -> None:
    torch.set_float32_matmul_precision("high")
    assert not choose()
    assert torch.get_float32_matmul_precision() == "high"


def test_the_processors_maker_is_read_from_what_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n"
    monkeypatch.setattr(products.Path, "is_file", lambda self: True)
    monkeypatch.setattr(products.Path, "read_text", lambda self, **_: told)
    assert products._maker() == "AuthenticAMD"
    monkeypatch.setattr(products.Path, "read_text", lambda self, **_: "CPU implementer\t: 0x41\n")
    assert products._maker() == ""
    monkeypatch.setattr(products.Path, "is_file", lambda self: False)
    monkeypatch.setattr(products.platform, "processor", lambda: "AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD")
    assert products._maker() == "AuthenticAMD"
    monkeypatch.setattr(products.platform, "processor", lambda: "arm")
    assert products._maker() != "AuthenticAMD"


_MANY_SHAPES = """
import resource, sys, torch
from matdarwin.models import products
products._maker = lambda: "AuthenticAMD"
torch.set_num_threads(1)
if not products.choose_library():
    sys.exit()
kib = []
for tokens in range(100, 400):
    torch.ones(tokens, 576) @ torch.ones(576, 1536)
    kib.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(kib[-1] - kib[49])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tells memory as Linux does")
def test_memory_does_not_grow_with_the_shapes_that_were_met() -> None:
    done = subprocess.run([sys.executable, "-c", _MANY_SHAPES], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("oneDNN is not chosen on such a processor")
    assert int(done.stdout) < 100 * 1024, "250 more shapes"
