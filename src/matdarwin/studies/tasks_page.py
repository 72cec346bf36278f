"""docs/tasks.md: what every task holds, from results/data/cards.json. Run by `make results`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matdarwin.data.cards import origin
from matdarwin.studies.scores import ResultsError

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24


def read_cards(results: Path) -> list[dict[str, Any]] | None:
    """The cards in `results`/data/cards.json; None where there are none yet.

    Raises:
        ResultsError: The file holds no cards.
    """
    path = results / "data" / "cards.json"
    if not path.is_file():
        return None
    try:
        cards = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        if not all(isinstance(one["id"], str) for one in cards):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: holds no cards of tasks; write it anew: darwin data cards") from error
    return list(cards)


def page(cards: Sequence[Mapping[str, Any]]) -> str:
    """The page: a table of all tasks, then a section each."""
    scored = [one for one in cards if one["scored"]]
    auxiliary = [one for one in cards if not one["scored"]]
    parts = [
        "# Tasks",
        "Made by `make results` from `results/data/cards.json`, which `darwin data cards` writes; do not edit by hand.",
        f"{len(scored)} tasks are scored; {len(auxiliary)} more are auxiliary: they teach, and are not scored. Rows "
        "of one material stand in one fold. Rows that a rule leaves out or that cannot be read are counted by their cause; "
        "`darwin tasks NAME --rejects` shows each.",
    ]
    for title, some in (("Scored", scored), ("Auxiliary", auxiliary)):
        if some:
            parts += [f"## {title}", _overview(some)]
    for one in [*scored, *auxiliary]:
        parts.append(section(one))
    return "\n\n".join(parts) + "\n"


def section(card: Mapping[str, Any], *, level: int = 2) -> str:
    """One task as Markdown.

    Args:
        card: Its card, with data.
        level: Level of its heading.
    """
    refused = card["rows_read"] - card["rows"]
    lines = [
        ("question", f"{card['property']} ({card['origin']}), {_answer(card)}"),
        ("given as", card["representation"] + "".join(_condition(one) for one in card["conditions"])),
        ("rows", f"{card['rows']:,} of {card['rows_read']:,}" + (f", {refused:,} left out" if refused else "")),
        ("materials", f"{card['materials']:,}"),
        ("repeats", _repeats(card)),
        ("folds", f"{card['fold_kind']}: " + (_numbers(card["folds"]) if card["folds"] else "too few materials")),
        ("metric", card["metric"] + (f"; on the matbench board as {card['board']}" if card["board"] else "")),
        ("quantities", ", ".join(card["quantities"])),
        ("source", "; ".join(_source(one) for one in (card["source"], *card["extra_sources"]))),
        ("licence", card["licence"]),
        ("citation", card["citation"]),
    ]
    parts = [f"{'#' * level} {card['id']}", f"{_text(card['title'])}. {_text(card['description'])}"]
    parts.append("\n".join(f"- **{name}**: {_text(told)}" for name, told in lines if told))
    parts.append(_targets(card))
    if card["rejected"]:
        rows = [[_text(cause), f"{count:,}"] for cause, count in card["rejected"].items()]
        parts.append(_table(["left out because", "rows"], rows))
    if card["notes"]:
        parts.append("Known defects and rules:\n\n" + "\n".join(f"- {_text(note)}" for note in card["notes"]))
    parts.append("Wordings:\n\n" + "\n".join(f"- `{_text(wording)}`" for wording in card["wordings"]))
    return "\n\n".join(part for part in parts if part)


def _overview(cards: Sequence[Mapping[str, Any]]) -> str:
    head = ["task", "kind", "unit", "rows kept", "rows read", "materials", "folds", "licence"]
    rows = [
        [
            f"[{one['id']}](#{one['id']})", one["kind"], _text(one["unit"] or "-"), f"{one['rows']:,}", f"{one['rows_read']:,}",
            f"{one['materials']:,}", one["fold_kind"], _text(one["licence"].split(" (")[0]),
        ]
        for one in cards
    ]  # fmt: skip
    return _table(head, rows)


def _answer(card: Mapping[str, Any]) -> str:
    if card["labels"]:
        return "one of " + ", ".join(card["labels"])
    low, high = card["bounds"]
    unit = f" {card['unit']}" if card["unit"] else ""
    return f"{low:g} to {high:g}{unit} with {card['decimals']} decimal{'' if card['decimals'] == 1 else 's'}"


def _condition(condition: Mapping[str, Any]) -> str:
    unit = f" ({condition['unit']})" if condition["unit"] else ""
    return f", {condition['name']}{unit}" + ("" if condition["required"] else " where known")


def _repeats(card: Mapping[str, Any]) -> str:
    merged = card["merged"]
    if not merged or not merged["materials"]:
        return ""
    spread = (
        f", by {merged['median_spread']:.3g} in the median and {merged['greatest_spread']:.3g} at most"
        if merged["greatest_spread"] is not None
        else ""
    )
    return (
        f"{merged['materials']:,} materials stand in several rows; {merged['disagreeing']:,} of them disagree{spread}"
    )


def _source(source: Mapping[str, Any]) -> str:
    made = f", made from: {source['made_from']}" if source["made_from"] else ""
    return f"{origin(source)}{made} (sha256 {source['sha256'][:12]}…)"


def _targets(card: Mapping[str, Any]) -> str:
    """Classes with their rows, or numbers with their histogram."""
    targets = card["targets"]
    if not targets:
        return ""
    if card["kind"] == "classification":
        most = max(targets.values()) or 1
        rows = [[_text(label), f"{count:,}", "█" * round(_WIDTH * count / most)] for label, count in targets.items()]
        return _table(["label", "rows", ""], rows)
    shown = {name: value for name, value in targets.items() if name != "zeros" or value}
    told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in shown.items())
    found = card["histogram"]
    if not found:
        return f"Targets: {told}."
    edges, most = found["edges"], max(found["counts"])
    # An empty bin must be told from one with a single row.
    bars = "".join(_BARS[-(-(len(_BARS) - 1) * count // most)] if count else " " for count in found["counts"])
    unit = f" {card['unit']}" if card["unit"] else ""
    return f"Targets: {told}.\n\n    {edges[0]:g} |{bars}| {edges[-1]:g}{unit}"


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(f"{value:,}" for value in values) + " rows"


def _text(text: str) -> str:
    """Text that cannot break a page."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])
