"""Small things that behave like the real ones: a random LLaMA, tasks of a hundred rows, a checkpoint made in seconds."""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matdarwin.language.answers import ANSWER_FORMAT
from matdarwin.language.prompts import STYLES, wordings_hash
from matdarwin.models.checkpoint import Card, Checkpoint, TaskCard
from matdarwin.tasks.schema import Example, Task
from matdarwin.training.recipe import Recipe

_WORDS = (
    "band",
    "gap",
    "Ġof",
    "Ġband",
    "Ġgap",
    "Ġmetal",
    "Ġnot",
    "metal",
    "Ġ-",
    "Ġthe",
    "Ġis",
    "Ġa",
    "Ġtask",
    "Ġmaterial",
)

ELEMENTS = ("Ga", "In", "Al", "Zn", "Cd", "Mg", "Cu", "Ag", "Fe", "Ni")
ANIONS = ("N", "P", "As", "O", "S", "Se")


def tiny_tokenizer(*, digits_single: bool = True) -> Any:
    """A byte-level BPE with GPT-2's manners.

    With `digits_single` each digit is a token of its own and the space before a number too, as in SmolLM2; without,
    pairs of digits and a space before a digit are tokens, as in GPT-2. In both the sign of ` -1.20` swallows the space.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        for end in range(1, len(word)):
            pair = (word[:end], word[end])
            if pair not in merges:
                merges.append(pair)
    if not digits_single:
        merges += [(one, other) for one in "0123456789" for other in "0123456789"]
        merges += [("Ġ", digit) for digit in "0123456789"]
    vocabulary = dict.fromkeys([*alphabet, *(a + b for a, b in merges), "<eos>", "<pad>"])
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges))
    parts = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    if digits_single:
        parts.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def tiny_model(vocabulary: int, *, seed: int = 0, scale: float = 0.2) -> Any:
    """A random LLaMA of two layers, width 32, two heads that share their keys, in fp32.

    Args:
        vocabulary: Number of tokens.
        seed: Seed of the weights.
        scale: Standard deviation of the weights; larger than usual, so that answers differ in probability.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=scale,
        bos_token_id=None, eos_token_id=None, pad_token_id=None, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(seed)
    return LlamaForCausalLM(config).float().eval()


def tiny_base(folder: Path, *, seed: int = 0, digits_single: bool = True, scale: float = 0.2) -> Path:
    """Save a tiny random model and its tokenizer into `folder`, in transformers' format; returns the folder."""
    tokenizer = tiny_tokenizer(digits_single=digits_single)
    folder.mkdir(parents=True, exist_ok=True)
    tiny_model(len(tokenizer), seed=seed, scale=scale).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_rows(count: int = 150, *, kind: str = "regression", seed: int = 0) -> list[tuple[str, str]]:
    """Formulas with a target that the anion decides: gap 3 with N, O or S, 0 otherwise (or not metal and metal).

    At most 540 different ones.
    """
    formulas = [
        f"{a}{m if m > 1 else ''} {x}{n if n > 1 else ''}"
        for a, x, (m, n) in itertools.product(
            ELEMENTS, ANIONS, [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (1, 3), (3, 1), (3, 4), (4, 3)]
        )
    ]
    random.Random(seed).shuffle(formulas)
    rows = []
    for formula in formulas[:count]:
        wide = formula.split()[1].rstrip("0123456789") in ("N", "O", "S")
        target = ("3.0" if wide else "0.0") if kind == "regression" else ("not metal" if wide else "metal")
        rows.append((formula, target))
    return rows


def tiny_task(
    folder: Path,
    *,
    kind: str = "regression",
    id: str | None = None,
    rows: Sequence[tuple[str, str]] | None = None,
    **changes: Any,
) -> Task:
    """A task of kind `file` whose CSV is written into `folder`.

    Args:
        folder: Where the CSV goes.
        kind: regression (`tiny_gap`, eV, 0 to 5, one decimal) or classification (`tiny_metal`: metal, not metal).
        id: Its id, where another is wanted.
        rows: (composition, target) pairs; by default those of `tiny_rows`.
        changes: Other keys of the task.
    """
    name = id or ("tiny_gap" if kind == "regression" else "tiny_metal")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["composition", "target"])
        writer.writerows(tiny_rows(kind=kind) if rows is None else rows)
    shape: dict[str, Any] = (
        {"unit": "eV", "bounds": [0, 5], "decimals": 1, "metric": "mae", "quantities": ["tiny gap"]}
        if kind == "regression"
        else {
            "labels": ["metal", "not metal"],
            "positive": "metal",
            "metric": "balanced_accuracy",
            "quantities": ["tiny metal"],
        }
    )
    content: dict[str, Any] = {
        "id": name, "version": 1, "kind": kind, "title": f"tiny {kind}", "property": "band gap", "representation": "composition",
        "wordings": ["band gap of {material}", "What is the band gap of {material}?"] if kind == "regression"
        else ["the metal is a {material}", "Is {material} a metal?"],
        "source": {"kind": "file", "name": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "reader": {"material": "composition", "target": "target"},
        "licence": "none", "citation": "none", "description": "made for a test",
    }  # fmt: skip
    return Task.model_validate(content | shape | changes)


def tiny_recipe(base: Path, tasks: Sequence[Task | str] = ("tiny_gap",), **changes: Any) -> Recipe:
    """A recipe of two quick epochs on a tiny base; nested keys are given as mappings, such as `optimising={"epochs": 1}`."""
    content: dict[str, Any] = {
        "name": "tiny",
        "tasks": [task if isinstance(task, str) else task.id for task in tasks],
        "base": str(base),
        "dtype": "fp32",
        "optimising": {"epochs": 2, "learning_rate": 1e-2, "batch_size": 16},
        "prompting": {"order": "permuted"},
        # A model that knows little has little mass inside the format, all of which might be pruned.
        "predicting": {"batch_size": 32, "prune": 0.0},
    }
    for key, value in changes.items():
        content[key] = (
            {**content[key], **value} if isinstance(value, dict) and isinstance(content.get(key), dict) else value
        )
    return Recipe.model_validate(content)


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """MATDARWIN_HOME set to a folder for a while; for fixtures that live longer than one test."""
    before = os.environ.get("MATDARWIN_HOME")
    os.environ["MATDARWIN_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MATDARWIN_HOME"]
        else:
            os.environ["MATDARWIN_HOME"] = before


def tiny_checkpoint(
    home: Path, *, tasks: Sequence[Task] | None = None, base: Path | None = None, **changes: Any
) -> Checkpoint:
    """Train a tiny checkpoint through `training.run.train` into `home`/checkpoints: a few seconds.

    Args:
        home: What MATDARWIN_HOME is to be (set while it trains).
        tasks: Its tasks; by default a `tiny_gap` whose table is written into `home`.
        base: Its base; by default a new one in `home`/base.
        changes: Keys of the recipe, as in `tiny_recipe`.
    """
    from matdarwin.training.run import train

    with at_home(home):
        folder = base or tiny_base(home / "base")
        known = list(tasks) if tasks is not None else [tiny_task(home)]
        return train(tiny_recipe(folder, known, **changes), tasks=known)


def tiny_card(name: str, *tasks: Task, created: str = "2026-01-01T00:00:00+00:00", **changes: Any) -> Card:
    """A checkpoint's card of a product that knows the tasks."""
    cards = {
        task.id: TaskCard(
            task=task,
            wordings=wordings_hash(task),
            counts={},
            elements={},
            shares={},
            data_sha256="0" * 64,
            spreads={},
            parts={},
        )
        for task in tasks
    }
    content: dict[str, Any] = {
        "name": name, "role": "product", "created": created, "code": "0", "recipe": {}, "recipe_hash": "0", "base": {"name": "b", "sha256": "0"},
        "method": "full", "style": STYLES["compact"].id, "answers": ANSWER_FORMAT, "fold": None, "tasks": cards, "training": {}, "machine": {},
    }  # fmt: skip
    return Card.model_validate(content | changes)


def fill(folder: Path) -> None:
    """Write what a training would into a checkpoint's folder: files of the right names, not of the right content."""
    for name in ("weights/model.safetensors", "weights/config.json", "tokenizer/tokenizer.json", "metrics.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"this is {name}")


@contextmanager
def in_place_of_files(rows: Mapping[str, list[Example]]) -> Iterator[None]:
    """These rows, by task, in place of the files; a context, since hypothesis runs many examples in one test."""
    import pytest

    from matdarwin.data import folds, leakage
    from matdarwin.data.readers import Table

    def read(task: Task) -> Table:
        return Table(task, rows[task.id], [], len(rows[task.id]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "read", read)
        patch.setattr(folds, "read", read)
        yield
