"""The model card for people: a checkpoint's README.md, made from its card and calibration alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matdarwin.data.texts import COMPUTED
from matdarwin.models.base import DEFAULT_BASE
from matdarwin.models.checkpoint import LEAKY, Card, TaskCard
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task

_BASES = {DEFAULT_BASE: "SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737), Apache-2.0"}
"""What the embedded bases are, and their licences."""
_KNOWLEDGE = {
    "sciqag": "questions and answers on scientific papers (SciQAG, arXiv 2405.09939): no licence stated",
    "elements": "sentences on the elements, made by matdarwin from pymatgen's and mendeleev's data (MIT)",
    "gap_mp": "computed band gaps of the Materials Project: CC BY 4.0",
    "gap_oqmd": "computed band gaps of OQMD: CC BY 4.0",
    "gap_aflow": "computed band gaps of AFLOW: no licence of the data stated",
    "energy_mp": "computed formation energies of the Materials Project: CC BY 4.0",
}
"""Texts and databases by name, with the licence that their source states."""
_NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial", re.IGNORECASE)
_GIVEN_AS = {"composition": "formula", "molecule": "SMILES", "name": "name"}


def card_markdown(card: Card, calibration: Mapping[str, Any]) -> str:
    """README.md of a checkpoint.

    Args:
        card: What the checkpoint says of itself.
        calibration: Its calibrations by task, as JSON.

    Returns:
        Markdown. Texts from tasks and recipes are escaped: none of them becomes markup.
    """
    parts = [f"# {_t(card.name)}", *([f"**{LEAKY}**"] if card.leaky else []), _purpose(card)]
    if card.tasks:
        parts += ["## How to ask it", _asking(card), "## What it answers", _answers(card)]
        parts += ["## How good it is", _scores(card), "## Its error bars", _intervals(card, calibration)]
    parts += ["## What it learned from, and under which licences", _licences(card)]
    if card.tasks:
        parts += ["## What it cannot do", _limits(card)]
    parts += ["## How it was made", _making(card)]
    return "\n\n".join(parts) + "\n"


def _purpose(card: Card) -> str:
    method = "all weights fine-tuned" if card.method == "full" else "fine-tuned by low-rank updates"
    first = "A language model for properties of materials, made by matdarwin" if card.tasks else "A language model"
    text = f"{first}: {_t(card.base_title)}, {method}."
    if card.role == "stage":
        return f"{text} It is an earlier stage of other trainings: it has no task, and is not asked anything itself."
    if card.role == "benchmark":
        fold = "" if card.fold is None else f" Test fold {card.fold} was held out from it, to be scored on."
        return f"{text} It was made for a comparison and not for use.{fold}"
    held = "" if card.fold is None else f" Fold {card.fold} was held out from it."
    return f"{text} It is meant for prediction.{held}"


def _asking(card: Card) -> str:
    task = next(iter(card.tasks.values())).task
    given = _GIVEN_AS[task.representation].upper()
    which = f" --task {task.id}" if len(card.tasks) > 1 else ""
    more = "".join(
        f" --condition {condition.name}={(condition.unit or 'value').upper()}"
        for condition in task.conditions
        if condition.required
    )
    name = _code(card.name)
    return (
        f"```bash\ndarwin predict '{given}' --model '{name}'{which}{more}\n"
        f"darwin predict --input table.csv --output answers.csv --model '{name}'{which}{more}\n```\n\n"
        "Each answer is a distribution over all values that the task allows; the value is its median (or the likeliest "
        "class), and nothing is sampled."
    )


def _answers(card: Card) -> str:
    rows = []
    for name, entry in card.tasks.items():
        task = entry.task
        if task.kind == "regression" and task.bounds is not None:
            answer = f"{task.bounds[0]:g} to {task.bounds[1]:g}, {task.decimals} decimals"
        else:
            answer = ", ".join(task.labels)
        counts = [f"{entry.counts.get(part, 0):,}" for part in ("train", "validation", "calibration", "test")]
        rows.append([name, task.property, task.unit or "-", _GIVEN_AS[task.representation], answer, *counts])
    head = ["task", "property", "unit", "given as", "answers", "training", "validation", "calibration", "held out"]
    removed = [
        f"- {_t(reason.removeprefix('removed: '))}: {count:,}"
        for entry in card.tasks.values()
        for reason, count in entry.counts.items()
        if reason.startswith("removed: ")
    ]
    text = (
        _table(head, rows, numbers=4)
        + "\n\nCounts are of materials, held out ones of rows; no material is in two parts."
    )
    return text + ("\n\nRows that were taken away or merged:\n\n" + "\n".join(removed) if removed else "")


def _scores(card: Card) -> str:
    validation = card.training.get("validation") or {}
    if not validation:
        return (
            "No rows were held out to choose the best epoch by, so there is no validation score. "
            "`darwin evaluate` scores a recipe on its test folds."
        )
    rows = []
    for name, (metric, value) in validation.items():
        unit = card.tasks[name].task.unit if metric in ("mae", "rmse") else None
        rows.append([name, metric, f"{value:.4g}" + (f" {unit}" if unit else "")])
    return (
        _table(["task", "score", "on validation materials"], rows, numbers=1)
        + "\n\nThese materials taught nothing, but they chose the best epoch, so the scores are somewhat too good. "
        "`darwin evaluate` scores on test folds, beside classical models."
    )


def _intervals(card: Card, calibration: Mapping[str, Any]) -> str:
    lines = []
    for name, entry in card.tasks.items():
        known = calibration.get(name)
        if known is not None:
            unread = f", {known['unread']} of them without a readable answer" if known.get("unread") else ""
            lines.append(f"- {_t(name)}: {_t(known['status'])} on {known['n']:,} materials{unread}.")
        elif entry.task.kind == "regression":
            lines.append(f"- {_t(name)}: not calibrated; its answers have no intervals.")
        else:
            lines.append(
                f"- {_t(name)}: classes have no intervals. Their probabilities are the model's own, uncalibrated."
            )
    if calibration:
        lines.append(
            "\nIntervals are conformal: for materials like the calibrating ones they hold the true value as often as asked "
            "(90 % by default). For materials that are unlike them nothing is promised."
        )
    return "\n".join(lines)


def _licences(card: Card) -> str:
    sources = [(name, entry.task) for name, entry in card.tasks.items()]
    lines = [f"- {_t(name)}: {_t(task.licence)}. {_t(task.citation)}" for name, task in sources]
    stated = [(name, task.licence) for name, task in sources]
    for name in _knowledge(card):
        licence = _KNOWLEDGE.get(name) or _licence_of(name)
        stated.append((name, licence))
        lines.append(f"- {_t(name)} (knowledge beyond the tasks' own rows): {_t(licence)}")
    base = card.base_title
    lines.append(f"- base model {_t(base)}: {_t(_BASES.get(base, 'see the licence that its makers state'))}")
    restricted = [name for name, licence in stated if _NON_COMMERCIAL.search(licence)]
    silent = [name for name, licence in stated if re.search(r"\b(none|no licence\b.*) stated", licence)]
    if restricted:
        lines.insert(
            0,
            f"**Not for commercial use**: the data of {_t(', '.join(restricted))} are under a non-commercial licence, which "
            "this model inherits.\n",
        )
    if silent:
        lines.append(
            f"\nWhere no licence is stated ({_t(', '.join(silent))}), use is for research, with a citation; ask the owners "
            "before any other."
        )
    return "\n".join(lines)


def _knowledge(card: Card) -> list[str]:
    """Databases in its questions, and texts and tasks of earlier stages (or of this one, where it is such a stage)."""
    recipe = card.recipe
    stages: Sequence[Mapping[str, Any]] = [recipe["stage"]] if "stage" in recipe else recipe.get("before", [])
    earlier = (name for stage in stages for name in (*stage.get("texts", ()), *stage.get("tasks", ())))
    return list(dict.fromkeys(name for name in (*recipe.get("evidence", ()), *earlier) if name not in card.tasks))


def _licence_of(name: str) -> str:
    """Licence of an earlier stage's task, told in sentences or not, or that a file of the user's has none that is known."""
    name = name.removeprefix(COMPUTED)
    if name not in registry.names() and Path(name).suffix not in (".yaml", ".yml"):
        return "a file of the user's own"
    task = registry.load(name)
    return f"{task.licence}. {task.citation}"


def _limits(card: Card) -> str:
    lines = []
    for name, entry in card.tasks.items():
        lines += [f"- {_t(name)}: {text}" for text in _limits_of(entry)]
    if any(entry.task.representation == "composition" for entry in card.tasks.values()):
        lines.append(
            "- A composition cannot tell polymorphs apart: diamond and graphite are one question, and have one answer."
        )
    lines.append(
        "- It knows materials by their text alone: no structure, no processing, no temperature but what a question names."
    )
    notes = [f"- {_t(name)}: {_t(note)}" for name, entry in card.tasks.items() for note in entry.task.notes]
    return "\n".join(lines) + ("\n\nKnown of the data:\n\n" + "\n".join(notes) if notes else "")


def _limits_of(entry: TaskCard) -> list[str]:
    task, texts = entry.task, []
    if entry.elements:
        texts.append(
            f"never for materials with other elements than the {len(entry.elements)} it saw: {_elements(entry)}."
        )
    elif task.representation == "name":
        texts.append("asked by name; a name that is unlike those it learned from gets an answer that means nothing.")
    if task.bounds is not None:
        texts.append(
            f"no answer lies outside {task.bounds[0]:g} to {task.bounds[1]:g}{_unit(task)}, whatever the truth."
        )
    if task.origin == "computed":
        texts.append(
            "what it learned are computed values; its answers are guesses at a computation, not at a measurement."
        )
    if entry.spreads:
        greatest = max(entry.spreads.values())
        texts.append(
            f"{len(entry.spreads):,} training materials had measurements that differ, by up to {greatest:.3g}{_unit(task)}; "
            "their median was taught."
        )
    return texts


def _elements(entry: TaskCard) -> str:
    rare = sorted(symbol for symbol, count in entry.elements.items() if count < 5)
    text = " ".join(sorted(entry.elements))
    return text + (f" (fewer than five times: {' '.join(rare)})" if rare else "")


def _making(card: Card) -> str:
    recipe = card.recipe
    told = {key: value for key, value in card.training.items() if isinstance(value, str | int | float)}
    facts = {
        "recipe": f"{recipe.get('name', recipe.get('stage', {}).get('name', '-'))}, hash {card.recipe_hash}; the whole of it is in card.json",
        "base weights": f"sha256 {card.base['sha256']}",
        "earlier stages": ", ".join(card.training.get("earlier", ())),
        "training": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items()),
        "prompts and answers": f"{card.style}, {card.answers}",
        "machine": ", ".join(f"{key} {value}" for key, value in card.machine.items() if value is not None),
        "made": f"{card.created} by matdarwin {card.code}",
    }
    return "\n".join(f"- {name}: {_t(text)}" for name, text in facts.items() if text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """A table whose last columns hold numbers."""
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    lines = [head, rule, *([_t(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _unit(task: Task) -> str:
    return f" {_t(task.unit)}" if task.unit else ""


def _t(text: object) -> str:
    """A text of others on one line, in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|#~$!&])", r"\\\1", " ".join(str(text).split()))


def _code(text: str) -> str:
    """A name inside a block of code."""
    return re.sub(r"[^\w.:/+-]", "?", text)
