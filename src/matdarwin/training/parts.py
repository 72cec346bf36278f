"""A batch in parts, where all of it at once would take too much memory: by number of rows, or by their tokens."""

from __future__ import annotations

from collections.abc import Sequence

from matdarwin.language.prompts import Encoded
from matdarwin.training.batches import Sharing, shared_prefixes


def by_rows(rows: Sequence[Encoded], most: int) -> list[Sequence[Encoded]]:
    """Rows in parts of at most so many, in their order."""
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def by_tokens(rows: Sequence[Encoded], most: int, *, share: Sharing) -> list[Sequence[Encoded]]:
    """Rows in parts that run about equally many tokens, `most` at most; a row that is longer is alone.

    Rows with a prefix in common are neighbours then. Where all rows fit in one part, they keep their order.

    Args:
        rows: Rows of a batch, maybe none.
        most: Tokens that a part may run, prefixes counted once.
        share: Which prefixes are run once.
    """
    if not rows:
        return []
    found = shared_prefixes([row.prompt for row in rows], share)
    groups = [([rows[r] for r in members], shared) for members, shared in found]

    def cut(room: int) -> list[list[Encoded]]:
        parts: list[list[Encoded]] = []
        used = 0
        for members, shared in groups:
            for place, row in enumerate(members):
                own = len(row.prompt) + len(row.answer) - 1 - shared
                more = own + (shared if place == 0 else 0)
                if not parts or used + more > room:
                    parts.append([])
                    used, more = 0, own + shared
                parts[-1].append(row)
                used += more
        return parts

    parts = cut(most)
    if len(parts) < 2:
        return [rows]
    # The least room that needs no more parts makes them even.
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(cut(middle)) <= len(parts) else (middle + 1, high)
    return [*cut(high)]
