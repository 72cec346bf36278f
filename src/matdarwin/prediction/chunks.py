"""Rows of a table that are in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matdarwin.data.sources import DataError

Cells = list[list[str]]


@dataclass(frozen=True)
class Chunk:
    """Some rows.

    Attributes:
        materials: The material of each row.
        rows: The rows as they were read: cells of text, as many as there are columns, or an Arrow record batch.
        refused: By place, why a row is not asked about.
        notes: By place, what must be said of a row.
    """

    materials: list[str]
    rows: Any
    refused: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)

    def pick(self, places: Sequence[int]) -> Chunk:
        """The rows at these places, in this order, without what was said of them."""
        rows = [self.rows[i] for i in places] if isinstance(self.rows, list) else self.rows.take(places)
        return Chunk([self.materials[i] for i in places], rows)


def check_count(name: str, counted: int, had: int) -> None:
    """Make sure that as many rows came as were counted when a table was looked through.

    Raises:
        DataError: They did not.
    """
    if had != counted:
        raise DataError(
            f"{name}: {counted:,} rows were counted and {had:,} came afterwards; the file was changed meanwhile, so try again"
        )
