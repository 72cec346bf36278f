"""A checkpoint as plain files for other programs: merged weights, tokenizer, how to ask; on request a GGUF file."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matdarwin import __version__, materials
from matdarwin.data import disk
from matdarwin.language.answers import ANSWER_FORMAT
from matdarwin.language.prompts import STYLES, Style
from matdarwin.language.writing import Writing
from matdarwin.models.base import DEFAULT_BASE
from matdarwin.models.checkpoint import Checkpoint, checkpoints_folder
from matdarwin.tasks.schema import Task

NOTE = "matdarwin.json"
GGUF = "gguf/model.gguf"
"""In a folder of its own: transformers, reading a GGUF file, would mix in settings of another format beside it."""

_LICENCES = {DEFAULT_BASE: "Apache-2.0"}
"""Licences of the weights of bases that we know; those of others are said to be unknown."""

_MATERIALS = {
    "composition": (
        "element symbols with their amounts directly behind them (1 is left out), parted by single spaces",
        "CdCu2SnS4",
    ),
    "molecule": ("canonical SMILES", "OCC"),
    "name": ("the name as it is written", None),
}
"""By representation: how a material is written in a prompt, and one as a user might give it."""

_PERCENT = (
    "element symbols with their share of all atoms in per cent directly behind them, rounded to two decimals (a share "
    "below 0.01 to its first digit), zeros at the end left out, parted by single spaces"
)
"""How a composition is written where the recipe's amounts are `percent`."""

_ORDERS = {
    "canonical": "the elements in the order of electronegativity",
    "source": "the elements in the order in which the data give them",
    "permuted": "the elements in any order; the mean over several is better than one",
}


class ExportError(RuntimeError):
    """An export that cannot be written where it was asked for."""


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        folder: The folder.
        files: Sizes of its files in bytes, by path inside it.
        note: What `matdarwin.json` says.
    """

    folder: Path
    files: dict[str, int]
    note: dict[str, Any]


def export(checkpoint: Checkpoint, to: Path, *, gguf: bool = False) -> Exported:
    """Write a checkpoint as a folder that transformers loads without this library; low-rank updates are merged.

    It holds fp32 weights, the tokenizer, and `matdarwin.json`, which says how the model is asked and what may be done
    with it. It is written beside its place and renamed, so that it is whole or not there.

    Args:
        checkpoint: A sealed checkpoint.
        to: The folder to make; one that is there must be empty.
        gguf: Also write `gguf/model.gguf`, for llama.cpp and its kin.

    Raises:
        ExportError: The folder is not empty, lies among the checkpoints, or cannot be written (a full disk).
        GgufError: The model is of a kind that cannot be written as GGUF; nothing is written then.
        BaseModelError, CheckpointError: The weights cannot be loaded.
    """
    final = to.resolve()
    _refuse(checkpoint, final)
    import torch

    model, tokenizer = checkpoint.model(torch.float32), checkpoint.tokenizer()
    # An answer ends with this token, whatever the base model's own settings say; and the likeliest answer is wanted.
    # Nothing of these stays: a temperature beside no sampling, for one, is refused when the model is written.
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, bos_token_id=model.generation_config.bos_token_id,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else model.generation_config.pad_token_id,
    )  # fmt: skip
    note = describe(checkpoint, tokenizer)
    if gguf:
        from matdarwin.models.gguf_file import check, write_gguf

        check(model, tokenizer)
    work = final.with_name(f".{final.name}.partial-{os.getpid()}")
    try:
        work.mkdir(parents=True)
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        if gguf:
            licence = note["base"]["licence"]
            (work / GGUF).parent.mkdir()
            write_gguf(work / GGUF, model, tokenizer, name=checkpoint.card.name, licence=licence, note=note)
        (work / NOTE).write_text(json.dumps(note, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        files = {
            path.relative_to(work).as_posix(): path.stat().st_size for path in sorted(work.rglob("*")) if path.is_file()
        }
        disk.sync_all(work)
        # An empty folder gives way to it; one that has been filled meanwhile does not.
        work.rename(final)
        disk.sync(final.parent)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        said = disk.said(error)
        if said is None:
            raise
        remedy = "; free some space, or give --to a folder on another disk" if disk.is_full(error) else ""
        raise ExportError(
            f"the export could not be written to {to}: {said[1]}; nothing is left there{remedy}"
        ) from error
    return Exported(final, files, note)


def describe(checkpoint: Checkpoint, tokenizer: Any) -> dict[str, Any]:
    """What another program must know to ask the model as it was taught, as JSON.

    Args:
        checkpoint: The checkpoint.
        tokenizer: Its tokenizer.
    """
    card = checkpoint.card
    style = next(style for style in STYLES.values() if style.id == card.style)
    taught = card.recipe["prompting"]
    writing = Writing.taught(taught)
    databases = list(card.recipe.get("evidence") or ())
    kinds = sorted({entry.task.representation for entry in card.tasks.values()})
    return {
        "format": 1,
        "name": card.name,
        "role": card.role,
        "created": card.created,
        "matdarwin": {"taught_by": card.code, "exported_by": __version__, "recipe_hash": card.recipe_hash},
        "held_out_fold": card.fold,
        "base": {"name": card.base_title, "sha256": card.base["sha256"], "licence": _LICENCES.get(card.base["name"])},
        "licence": "The weights are derived from the base model and from the data of the tasks below: the licences of both "
        "hold. A licence of null is not known here; see the base model's own page.",
        "prompting": {
            "style": card.style,
            "materials": {kind: _material(kind, writing) for kind in kinds},
            "order": _ORDERS[writing.order],
            "evidence": databases,
            "special_tokens": "those that the tokenizer adds by default, and no chat template",
            "how": "Fill {material}, and {conditions} and {evidence} where they stand, into a task's prompt; end with "
            "the colon and no space; generate greedily until the terminator.",
        },
        "answers": {
            "format": ANSWER_FORMAT,
            "terminator": tokenizer.eos_token,
            "terminator_id": tokenizer.eos_token_id,
            "how": "One space, the value alone, the terminator. A greedy answer is the model's likeliest one. matdarwin "
            "reads the probability of every answer instead, takes the median (of numbers scored by their absolute "
            "error) and gives calibrated intervals; these are not in the export.",
        },
        "tasks": {
            name: _task(entry.task, style, taught["wordings"], bool(databases)) | {"data_sha256": entry.data_sha256}
            for name, entry in card.tasks.items()
        },
    }


def _refuse(checkpoint: Checkpoint, final: Path) -> None:
    """Make sure that the folder may be made."""
    for taken in (checkpoints_folder().resolve(), checkpoint.folder.resolve()):
        if final.is_relative_to(taken):
            raise ExportError(f"{final} lies in {taken}, which holds sealed checkpoints only; give --to another folder")
    if final.is_dir():
        if any(final.iterdir()):
            raise ExportError(f"{final} is not empty; give --to a new folder, or empty it first")
    elif final.exists():
        raise ExportError(f"{final} is a file; give --to a folder")


def _material(kind: str, writing: Writing) -> dict[str, Any]:
    """How a material of a kind is written in a prompt, with an example."""
    text, given = _MATERIALS[kind]
    if kind == "composition" and writing.amounts == "percent":
        text = _PERCENT
    example = None
    if given is not None:
        example = {"given": given, "written": Writing(amounts=writing.amounts).text(materials.parse(given, kind))}  # type: ignore[arg-type]
    return {"text": text, "example": example}


def _task(task: Task, style: Style, wordings: list[int], evidence: bool) -> dict[str, Any]:
    """What is to be known of one task: what it answers, how it is asked, whose data taught it."""
    known = "{evidence}" if evidence and task.origin == "measured" else ""
    conditions = "{conditions}" if task.conditions else ""

    def prompt(wording: int) -> str:
        return style.render(task, "{material}", wording=wording, conditions=conditions, evidence=known)

    if task.kind == "regression":
        assert task.bounds is not None
        low, high = task.bounds
        decimals = (
            "no decimals" if task.decimals == 0 else f"exactly {task.decimals} decimal{'s' * (task.decimals != 1)}"
        )
        answer = f"a number from {low:g} to {high:g} with {decimals}" + (f", in {task.unit}" if task.unit else "")
    else:
        answer = f"one of {', '.join(repr(label) for label in task.labels)}"
    taught = wordings or [style.wording_of(task)]
    return {
        "kind": task.kind,
        "property": task.property,
        "unit": task.unit,
        "origin": task.origin,
        "material": task.representation,
        "conditions": [condition.model_dump(mode="json") for condition in task.conditions],
        "prompt": prompt(taught[0]),
        "taught_prompts": [prompt(wording) for wording in taught],
        "wordings": list(task.wordings),
        "answer": answer,
        "labels": list(task.labels),
        "bounds": task.bounds,
        "decimals": task.decimals,
        "licence": task.licence,
        "citation": task.citation,
    }
