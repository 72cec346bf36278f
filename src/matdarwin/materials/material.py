"""The `Material`: what every room passes on once a user's text has been validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["composition", "molecule", "name"]


class MaterialError(ValueError):
    """A text that is no material, with the part of it that is at fault.

    Attributes:
        given: The text as it came.
        token: The offending part of it, at most 40 characters long.
        position: Index of the token's first character in `given`, or None where there is no one place.
    """

    def __init__(self, message: str, *, given: str, token: str = "", position: int | None = None) -> None:
        super().__init__(message)
        self.given = given
        self.token = token[:40]
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive the default pickling, and errors cross process borders.
        return _rebuilt, (str(self), self.given, self.token, self.position)


def _rebuilt(message: str, given: str, token: str, position: int | None) -> MaterialError:
    return MaterialError(message, given=given, token=token, position=position)


@dataclass(frozen=True, slots=True)
class Material:
    """One validated material.

    Attributes:
        kind: What the text was read as.
        given: The text as it came.
        parts: The pieces of the canonical wording, in canonical order. A composition has one piece
            an element ("Ag2", "Ge", "S3"), which may be permuted as augmentation; a molecule or a
            name has one piece.
        source_parts: The same pieces in the order of the source text.
        key: Identity: equal keys are the same material. Folds and leak checks go by it.
        keys: Every key the text allows, `key` first (a molecule has also its stereo-free key).
        elements: Symbols of the elements, in the order of `parts`; empty for a name.
    """

    kind: Kind
    given: str
    parts: tuple[str, ...]
    source_parts: tuple[str, ...]
    key: str
    keys: tuple[str, ...]
    elements: tuple[str, ...]

    @property
    def text(self) -> str:
        """The canonical wording, as the prompt has it."""
        return " ".join(self.parts)
