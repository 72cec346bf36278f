"""A checkpoint on disk: a folder of safetensors, JSON and tokenizer files, sealed by a manifest of hashes.

It is written under a temporary name, synced, sealed and renamed, so that a reader sees a whole one or none.
Nothing in it is ever run or unpickled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from matdarwin.data import disk, sources
from matdarwin.language.answers import ANSWER_FORMAT
from matdarwin.language.prompts import STYLES, wordings_hash
from matdarwin.models import sealing
from matdarwin.models.sealing import FORMAT
from matdarwin.models.sealing import MANIFEST as MANIFEST
from matdarwin.tasks.schema import Task

CARD = "card.json"
README = "README.md"
CALIBRATION = "calibration.json"
WEIGHTS = "weights"
TOKENIZER = "tokenizer"
LEAKY = "LEAKY: it learned from materials that it would be scored on, so no score of it counts."
"""What a checkpoint that was trained in spite of its audit says of itself."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be found, is not sealed, is damaged, or was taught otherwise than we ask."""


class TaskCard(BaseModel):
    """What a checkpoint knows of one of its tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task
    wordings: str
    """Hash of the wordings it was taught."""
    counts: dict[str, int]
    """Rows that taught, chose, calibrated, were tested and removed."""
    elements: dict[str, int]
    """Training materials by element symbol; empty for names."""
    shares: dict[str, float]
    """Training share of each label; empty for numbers."""
    data_sha256: str
    spreads: dict[str, float]
    """By key, greatest minus least of the measurements that were merged into a training material, in the task's unit."""
    parts: dict[str, str]
    """Hash of the materials that taught, chose, calibrated and are held out."""


class Card(BaseModel):
    """What a checkpoint says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    name: str
    role: Literal["product", "benchmark", "stage"]
    created: str
    code: str
    """Version of matdarwin that wrote it."""
    recipe: dict[str, Any]
    recipe_hash: str
    base: dict[str, str]
    """Name and weights' sha256 of the base model."""
    method: Literal["full", "lora"]
    style: str
    """Id of the prompt style."""
    answers: str
    """Id of the answer format."""
    fold: int | None
    tasks: dict[str, TaskCard]
    training: dict[str, Any]
    """Steps, seconds, tokens, the best epoch and its validation scores."""
    machine: dict[str, Any]

    @property
    def leaky(self) -> bool:
        """Whether it was trained in spite of its audit, or, which older ones do not say of themselves, with nothing divided; see `LEAKY`."""
        return bool(self.training.get("leaky")) or self.recipe.get("split", {}).get("rule") == "none"

    @property
    def base_title(self) -> str:
        """The base model's name as others may read it: of a folder not where it lies on this machine."""
        name = self.base["name"]
        return Path(name).name if Path(name).is_absolute() else name


class Checkpoint:
    """A sealed checkpoint, opened for reading.

    Attributes:
        folder: Where it lies.
        card: What it says of itself.
    """

    def __init__(self, folder: Path, card: Card) -> None:
        self.folder = folder
        self.card = card

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.name

    @property
    def digest(self) -> str:
        """SHA-256 of its manifest, which holds the hash of every file: two checkpoints with one digest are the same."""
        return sealing.sha256(self.folder / MANIFEST)

    @property
    def weights_sha256(self) -> dict[str, str]:
        """The SHA-256 of each file of weights, as the seal has it."""
        files = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {
            name: entry["sha256"]
            for name, entry in files.items()
            if name.startswith(f"{WEIGHTS}/") and name.endswith(".safetensors")
        }

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> Checkpoint:
        """Open a checkpoint, checking its seal and that it was taught to be asked as we ask.

        Args:
            folder: The checkpoint's folder.
            verify: Also hash every file; otherwise only names and sizes are compared.

        Raises:
            CheckpointError: It is not there, not sealed, damaged, of another format, or taught another prompt.
        """
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is no folder, so there is no checkpoint")
        if fault := sealing.fault(folder, verify=verify):
            raise CheckpointError(fault)
        try:
            card = Card.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{folder} has a card or manifest that cannot be read: {error}") from error
        _same_language(folder, card)
        return cls(folder, card)

    def calibration(self) -> dict[str, Any]:
        """The stored calibrations by task, as JSON."""
        path = self.folder / CALIBRATION
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def tokenizer(self) -> Any:
        """Load the tokenizer."""
        from matdarwin.models.base import load_tokenizer

        return load_tokenizer(self.folder / TOKENIZER)

    def model(self, dtype: Any) -> Any:
        """Load the model in a torch dtype; low-rank updates are merged into their base. int8: see `matdarwin.models.int8`.

        Raises:
            BaseModelError: The weights, or the base of a low-rank checkpoint, cannot be loaded, or not in this dtype.
            CheckpointError: The base of a low-rank checkpoint has other weights than it was trained on, or its update
                cannot be loaded.
        """
        import torch

        from matdarwin.models.base import find_base, load_model

        if dtype == torch.int8:
            from matdarwin.models.int8 import quantise

            return quantise(self.model(torch.float32))
        if self.card.method == "full":
            return load_model(self.folder / WEIGHTS, dtype=dtype)
        from peft import PeftModel
        from safetensors import SafetensorError

        weights = self.folder / WEIGHTS
        # Without it peft would look for a pickle, and on the hub.
        if not (weights / "adapter_model.safetensors").is_file():
            raise CheckpointError(
                f"{self.folder} holds no {WEIGHTS}/adapter_model.safetensors, so there is no update to load"
            )
        base = find_base(self.card.base["name"])
        if base.sha256 != self.card.base["sha256"]:
            raise CheckpointError(
                f"{self.folder} is an update of {self.card.base['name']} with sha256 {self.card.base['sha256'][:12]}…, "
                f"but the base here has {base.sha256[:12]}…"
            )
        # Merged in fp32, then cast: merging in bf16 would round the update away.
        model = load_model(base.folder, dtype=torch.float32)
        try:
            model = PeftModel.from_pretrained(model, str(weights))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"the update in {weights} cannot be loaded: {error}") from error
        return model.merge_and_unload().to(dtype)


def checkpoints_folder() -> Path:
    """Where checkpoints stand: `checkpoints` in the working folder, or in MATDARWIN_HOME."""
    return sources.home() / "checkpoints"


def write_checkpoint(
    name: str, card: Card, fill: Callable[[Path], None], *, calibration: dict[str, Any] | None = None
) -> Checkpoint:
    """Write and seal a checkpoint.

    Args:
        name: Name of its folder; one that stands there already is replaced once the new one is whole.
        card: What it says of itself.
        fill: Called with the temporary folder; saves weights and tokenizer into `weights` and `tokenizer`.
        calibration: Calibrations by task, as JSON.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    root = checkpoints_folder()
    work, final, old = root / f".{name}.partial", root / name, root / f".{name}.old"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _recover(final, old)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        fill(work)
        (work / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        if calibration is not None:
            (work / CALIBRATION).write_text(json.dumps(calibration), encoding="utf-8")
        sealing.seal(work)
        # A rename cannot replace a folder that holds files: the old one steps aside first, and is kept until
        # the new one stands.
        if final.exists():
            final.rename(old)
        try:
            work.rename(final)
        except OSError:
            _recover(final, old)
            raise
        disk.sync(root)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        said = disk.said(error)
        if said is None:
            raise
        remedy = "; free some space, or set MATDARWIN_HOME to a folder on another disk" if disk.is_full(error) else ""
        raise CheckpointError(
            f"the checkpoint {name} could not be written to {root}: {said[1]}; earlier ones are untouched{remedy}"
        ) from error
    return Checkpoint.open(final, verify=False)


def _recover(final: Path, old: Path) -> None:
    """Put back a checkpoint that had stepped aside when its writer was stopped; drop it where a newer one stands."""
    if not old.exists():
        return
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(final)


@contextmanager
def hold(name: str, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a checkpoint's name against other runs; the lock goes with the process, however it ends.

    Args:
        name: The checkpoint's name.
        waiting: Wait for another run that holds it; called with its process first. None: do not wait.

    Raises:
        CheckpointError: Another run holds it (its process is named), or the folder cannot be written.
    """
    root = checkpoints_folder()
    with ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(disk.held(root / f".{name}.lock", root / f".{name}.holder", waiting=waiting))
            _recover(root / name, root / f".{name}.old")
        except disk.HeldError as error:
            raise CheckpointError(f"{root / name} is held by another run ({error}); wait for it or stop it") from None
        except OSError as error:
            raise CheckpointError(
                f"{root} cannot be written: {error.strerror or error}; set MATDARWIN_HOME to another folder"
            ) from error
        yield


def _same_language(folder: Path, card: Card) -> None:
    if card.format != FORMAT:
        raise CheckpointError(f"{folder} has format {card.format}, this version reads {FORMAT}")
    if card.answers != ANSWER_FORMAT:
        raise CheckpointError(
            f"{folder} was taught the answer format {card.answers}, this version asks for {ANSWER_FORMAT}; train again"
        )
    if card.style not in {style.id for style in STYLES.values()}:
        raise CheckpointError(
            f"{folder} was taught the prompt style {card.style}, which this version does not have; train again"
        )
    for name, entry in card.tasks.items():
        # The task in the card is what is asked with (store.changed_since tells what the library has made of it since).
        if entry.wordings != wordings_hash(entry.task):
            raise CheckpointError(f"{folder}: the wordings of {name} are not those that it was taught; train again")
