"""Checkpoints of random weights that were never trained: enough for what looks at files, and made in an instant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import tiny_card, tiny_model, tiny_tokenizer

from matdarwin.models.base import find_base
from matdarwin.models.checkpoint import Checkpoint, write_checkpoint
from matdarwin.tasks.schema import Task

RECIPE = {
    "name": "tiny",
    "prompting": {"style": "compact", "wordings": [], "order": "permuted"},
    "optimising": {"epochs": 2, "learning_rate": 1e-2},
}


def untrained(
    name: str, *tasks: Task, base: Path, seed: int = 0, calibration: dict[str, Any] | None = None, **changes: Any
) -> Checkpoint:
    """Write and seal a checkpoint into MATDARWIN_HOME.

    Args:
        name: Its name.
        tasks: The tasks that it knows.
        base: Its base, a folder as from `tiny_base`.
        seed: Seed of the weights; with the method `lora`, of the update.
        calibration: Calibrations by task.
        changes: Keys of the card, such as `method`.
    """

    def fill(folder: Path) -> None:
        import torch
        from peft import LoraConfig, get_peft_model

        from matdarwin.models.base import load_model

        tokenizer = tiny_tokenizer()
        if changes.get("method") == "lora":
            model = load_model(base, dtype=torch.float32)
            torch.manual_seed(seed)
            # Not peft's own first values, under which an update is nil.
            config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
            get_peft_model(model, config).save_pretrained(folder / "weights")
            (folder / "weights" / "README.md").unlink(missing_ok=True)
        else:
            tiny_model(len(tokenizer), seed=seed).save_pretrained(folder / "weights")
        tokenizer.save_pretrained(folder / "tokenizer")

    found = find_base(str(base))
    content: dict[str, Any] = {"base": {"name": found.name, "sha256": found.sha256}, "recipe": RECIPE} | changes
    return write_checkpoint(name, tiny_card(name, *tasks, **content), fill, calibration=calibration)
