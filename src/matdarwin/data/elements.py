"""The elements, as pymatgen and mendeleev tell of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from matdarwin.materials.elements import ELECTRONEGATIVITY


@cache
def mendeleev_table() -> dict[str, dict[str, Any]]:
    """mendeleev's table of elements by symbol, with the main oxidation states as `states`."""
    from mendeleev.fetch import fetch_table  # brings a database library along: a second

    states = fetch_table("oxidationstates")
    usual = states[states["category"] == "main"].groupby("atomic_number")["oxidation_state"].apply(list)
    rows = fetch_table("elements").to_dict("records")
    return {
        row["symbol"]: {str(column): value for column, value in row.items()}
        | {"states": usual.get(row["atomic_number"], [])}
        for row in rows
    }


@cache
def periodic_table() -> tuple[Any, ...]:
    """pymatgen's elements."""
    from pymatgen.core.periodic_table import Element

    return tuple(Element(symbol) for symbol in ELECTRONEGATIVITY)
