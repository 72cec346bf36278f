"""A batch in parts, where all of it at once would take too much memory: by number of rows, or by their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matdarwin.language.prompts import Encoded
from matdarwin.training.batches import Sharing, shared_prefixes


def by_rows(rows: Sequence[Encoded], most: int) -> list[Sequence[Encoded]]:
    """Rows in parts of at most so many, in their order."""
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def by_tokens(rows: Sequence[Encoded], most: int, *, share: Sharing) -> list[Sequence[Encoded]]:
    """Rows in parts that run about equally many tokens, `most` at most; a row that is longer is alone.

    Rows with a prefix in common are neighbours then; rows that are padded, which those are that do not share by groups, go by
    length. Where all rows fit in one part, they keep their order.

    Args:
        rows: Rows of a batch, maybe none.
        most: Tokens that a part may run, padding included, and each prefix counted once. A prefix that the cut has made
            not worth its while is then run by each row.
        share: Which prefixes are run once.
    """
    if not rows:
        return []
    found = shared_prefixes([row.prompt for row in rows], share)
    cut = _packed(rows, found) if share == "groups" else _padded(rows, found[0][1])
    parts = cut(most)
    if len(parts) < 2:
        return [rows]
    # The least room that needs no more parts makes them even.
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(cut(middle)) <= len(parts) else (middle + 1, high)
    return [*cut(high)]


_Cut = Callable[[int], list[list[Encoded]]]


def _packed(rows: Sequence[Encoded], groups: Sequence[tuple[list[int], int]]) -> _Cut:
    def cut(room: int) -> list[list[Encoded]]:
        parts: list[list[Encoded]] = []
        used = 0
        for members, shared in groups:
            for place, r in enumerate(members):
                own = _tokens(rows[r]) - shared
                more = own + (shared if place == 0 else 0)
                if not parts or used + more > room:
                    parts.append([])
                    used, more = 0, own + shared
                parts[-1].append(rows[r])
                used += more
        return parts

    return cut


def _padded(rows: Sequence[Encoded], shared: int) -> _Cut:
    ordered = sorted(rows, key=_tokens)

    def cut(room: int) -> list[list[Encoded]]:
        parts: list[list[Encoded]] = []
        for row in ordered:
            # By length the next row is the longest so far.
            if not parts or (len(parts[-1]) + 1) * (_tokens(row) - shared) + shared > room:
                parts.append([])
            parts[-1].append(row)
        return parts

    return cut


def _tokens(row: Encoded) -> int:
    # The last token of an answer is only ever a target.
    return len(row.prompt) + len(row.answer) - 1
