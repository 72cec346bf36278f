"""No pickle and no code from data: what a checkpoint or a base brings along is refused or ignored, and never runs."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import at_home, tiny_base, tiny_checkpoint

from matdarwin.models import checkpoint as checkpoints
from matdarwin.models import sealing
from matdarwin.models.base import BaseModelError, find_base, load_model, load_tokenizer
from matdarwin.models.checkpoint import Checkpoint, CheckpointError
from matdarwin.models.store import find_checkpoint


class Bomb:
    """Writes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.canary, "dead"))


@pytest.fixture
def canary(tmp_path: Path) -> Any:
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code from data has run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("trained")
    base = tiny_base(home / "base")
    options: dict[str, Any] = {"optimising": {"epochs": 1}, "split": {"calibration": 0.0, "limit": 16}}
    return {method: tiny_checkpoint(home, base=base, method=method, **options).folder for method in ("full", "lora")}


@pytest.fixture(params=["full", "lora"])
def folder(request: pytest.FixtureRequest, trained: dict[str, Path], home: Path) -> Path:
    """A copy of a real checkpoint, to be spoilt."""
    copy = home / "checkpoints" / request.param
    shutil.copytree(trained[request.param], copy)
    return copy


def reseal(folder: Path) -> None:
    (folder / checkpoints.MANIFEST).unlink()
    sealing.seal(folder)


CODE = """
from pathlib import Path
Path({canary!r}).write_text("dead")
from transformers import LlamaConfig as Config, LlamaForCausalLM as Model, PreTrainedTokenizerFast as Tok
"""


def plant(folder: Path, canary: Path, *, unknown: bool) -> None:
    """Point config and tokenizer of a folder at code that lies beside them."""
    (folder / "evil.py").write_text(CODE.format(canary=str(canary)))
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        content = json.loads(path.read_text())
        content["auto_map"] = {
            "AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tok", "evil.Tok"],
        }  # fmt: skip
        if unknown:
            content["model_type"] = "never_heard_of"
            content["tokenizer_class"] = "Tok"
        path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["weights/pytorch_model.bin", "weights/adapter_model.bin", "optimizer.pt", "x.pkl"])
def test_a_pickle_in_a_checkpoint_is_refused(folder: Path, canary: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(CheckpointError, match=f"{name} is not in the manifest"):
        find_checkpoint(folder.name)
    reseal(folder)
    with pytest.raises(CheckpointError, match=f"{name} may hold code or pickled objects"):
        find_checkpoint(folder.name)


def test_weights_that_are_pickles_by_another_name_do_not_load(folder: Path, canary: Path) -> None:
    (path,) = folder.glob("weights/*.safetensors")
    path.write_bytes(pickle.dumps(Bomb(canary)))
    reseal(folder)
    with pytest.raises((BaseModelError, CheckpointError), match="cannot be loaded"):
        find_checkpoint(folder.name).model(torch.float32)


def test_a_low_rank_checkpoint_without_its_weights_does_not_load(trained: dict[str, Path], home: Path) -> None:
    folder = home / "checkpoints" / "bare"
    shutil.copytree(trained["lora"], folder)
    (folder / "weights" / "adapter_model.safetensors").unlink()
    reseal(folder)
    with pytest.raises(CheckpointError, match=r"bare.*adapter_model\.safetensors"):
        Checkpoint.open(folder).model(torch.float32)


@pytest.mark.parametrize("unknown", [False, True])
def test_auto_map_in_a_checkpoint_runs_nothing(
    trained: dict[str, Path], home: Path, canary: Path, unknown: bool
) -> None:
    folder = home / "checkpoints" / "mapped"
    shutil.copytree(trained["full"], folder)
    for part in ("weights", "tokenizer"):
        plant(folder / part, canary, unknown=unknown)
        (folder / part / "evil.py").rename(folder / part / "evil.txt")  # else the seal refuses it already
    reseal(folder)
    opened = find_checkpoint("mapped")
    for load in (lambda: opened.model(torch.float32), opened.tokenizer):
        try:
            load()
        except BaseModelError as error:
            assert unknown and "cannot be loaded" in str(error)


@pytest.mark.parametrize("unknown", [False, True])
def test_auto_map_in_a_base_runs_nothing(home: Path, tmp_path: Path, canary: Path, unknown: bool) -> None:
    folder = tiny_base(tmp_path / "base")
    plant(folder, canary, unknown=unknown)
    base = find_base(str(folder))
    for load in (lambda: load_model(base.folder, dtype=torch.float32), lambda: load_tokenizer(base.folder)):
        try:
            load()
        except BaseModelError as error:
            assert unknown and "cannot be loaded" in str(error)


def test_a_pickled_base_is_refused(home: Path, tmp_path: Path, canary: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(BaseModelError, match="pickled weights are not loaded"):
        find_base(str(folder))
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_model(folder, dtype=torch.float32)


def test_an_adapter_cannot_name_a_module_to_import(
    trained: dict[str, Path], home: Path, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """peft imports what `megatron_core` in an adapter's configuration names."""
    (tmp_path / "evil_core.py").write_text(CODE.format(canary=str(canary)))
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = home / "checkpoints" / "core"
    shutil.copytree(trained["lora"], folder)
    path = folder / "weights" / "adapter_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"megatron_config": {"x": 1}, "megatron_core": "evil_core"})
    )
    reseal(folder)
    with pytest.raises(CheckpointError, match="megatron"):
        Checkpoint.open(folder).model(torch.float32)


def test_the_canary_can_die(tmp_path: Path) -> None:
    """The tests above could not fail if the bombs were duds."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "a")))
    assert (tmp_path / "a").exists()
    exec(CODE.format(canary=str(tmp_path / "b")))
    assert (tmp_path / "b").exists()


def test_trained_ones_do_load(trained: dict[str, Path]) -> None:
    for folder in trained.values():
        with at_home(folder.parents[1]):
            assert Checkpoint.open(folder).model(torch.float32).dtype == torch.float32
