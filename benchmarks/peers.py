"""One training by TRL's SFTTrainer or by the plain transformers Trainer, for benchmarks/train.py; runs in their own environment.

Reads a job (JSON file, first argument) and writes what happened beside it. Knows nothing of matdarwin: rows come as token ids.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

_FAIR: dict[str, Any] = {
    # In the order in which the rows come, which the caller has chosen.
    "train_sampling_strategy": "sequential",
    "logging_strategy": "no",
    "save_strategy": "no",
    "eval_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_pin_memory": False,
}


def timed(kind: type[Trainer]) -> type[Trainer]:
    """A trainer that notes each step's loss, and when its work was done."""

    class Timed(kind):  # type: ignore[misc, valid-type]
        def training_step(self, *args: Any, **options: Any) -> Any:
            loss = super().training_step(*args, **options)
            self.losses.append(loss.item())
            return loss

    return Timed


def clocked(optimiser: Any) -> list[float]:
    """When each step of an optimiser ended: a list that fills."""
    ends: list[float] = []
    optimiser.register_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    return ends


def trainer_of(job: dict[str, Any], model: Any, tokenizer: Any, folder: str) -> tuple[Trainer, list[float]]:
    """The trainer of a job, and the list of its steps' ends."""
    batches = json.loads(Path(job["batches"]).read_text())
    data = Dataset.from_list(
        [
            {"input_ids": row["prompt"] + row["answer"], "labels": [-100] * len(row["prompt"]) + row["answer"]}
            for rows in batches
            for row in rows
        ]
    )
    options = {
        "output_dir": folder,
        "per_device_train_batch_size": len(batches[0]),
        "max_steps": len(batches),
        "bf16": job["format"] == "bf16",
        "max_grad_norm": job["clip"],
        "seed": 0,
        # TRL's default recomputes every layer, which is for GPUs that are short of memory.
        "gradient_checkpointing": job["order"] == "random",
        **_FAIR,
    }
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1.0, betas=tuple(job["betas"]), weight_decay=job["weight_decay"], fused=True
    )
    # Our own rates, step by step: the trainers' schedules begin at a rate of nothing.
    rates = [*job["rates"], 0.0]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rates[step])
    common = {"model": model, "train_dataset": data, "processing_class": tokenizer, "optimizers": (optimiser, schedule)}
    if job["who"] == "trl":
        from trl import SFTConfig, SFTTrainer

        # Ready token ids and labels are taken as they are; the prompt has no label, so it has no loss.
        made = timed(SFTTrainer)(args=SFTConfig(max_length=None, packing=False, **options), **common)
    else:
        made = timed(Trainer)(
            args=TrainingArguments(**options), data_collator=DataCollatorForSeq2Seq(tokenizer), **common
        )
    made.losses = []
    return made, clocked(optimiser)


def peak_gib() -> float:
    """Greatest resident memory of this process so far, in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def main() -> None:
    """Train and write."""
    file = Path(sys.argv[1])
    job = json.loads(file.read_text())
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    # Like ours: weights in fp32, and bf16 only to compute in.
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    with tempfile.TemporaryDirectory() as folder:
        trainer, ends = trainer_of(job, model, tokenizer, folder)
        trainer.train()
    names = ("torch", "transformers", "accelerate", "trl", "datasets")
    told = {"ends": ends, "losses": trainer.losses, "peak_gib": peak_gib(), "versions": {n: version(n) for n in names}}
    file.with_suffix(".out").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
