"""What is to be said of all answers of a checkpoint."""

from __future__ import annotations

from matdarwin.models.base import AskedIn
from matdarwin.models.checkpoint import LEAKY, Card

_FORMATS: dict[AskedIn, str] = {"auto": "float32", "fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
"""What a model is asked in, by the name of the number format."""


def caveat(card: Card, *, dtype: AskedIn = "auto", views: int | None = None) -> str | None:
    """What is to be said of every interval of a checkpoint that is asked in another way than it was calibrated in; None: nothing."""
    asked = card.recipe["predicting"]
    # By name: it may have been calibrated on a machine that asks in a format which this one does not.
    now, then = (_FORMATS[one] for one in (asked["dtype"] if dtype == "auto" else dtype, asked["dtype"]))
    otherwise = [f"{views} views instead of {asked['views']}"] if views not in (None, asked["views"]) else []
    if now != then:
        otherwise.append(f"{now} instead of {then}")
    return f"its interval was calibrated otherwise: asked with {', '.join(otherwise)}" if otherwise else None


def remark(card: Card) -> str | None:
    """What is to be said of every answer, in whichever way it is asked; None: nothing."""
    return LEAKY if card.leaky else None
