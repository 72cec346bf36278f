"""How a material is written in a question: the order of its elements, and what their amounts stand for."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from matdarwin.materials.composition import split_part
from matdarwin.materials.material import Material

Order = Literal["canonical", "source", "permuted"]
Amounts = Literal["formula", "percent"]

_DECIMALS = 2
"""Decimals of a per cent; an element of less has as many as its first digit needs, so that none becomes 0."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How a model is told a material; it is asked as it was taught.

    Attributes:
        order: Order of the elements: `canonical`, `source`, or `permuted`.
        amounts: `formula`: as the formula has them, 1 left out. `percent`: per cent of all atoms, to two decimals, which
            spares an alloy's long fractions their digits ("Fe62.01 Ni18.4" for "Fe0.620093 Ni0.184"). Molecules and
            names are written alike in both.
    """

    order: Order = "canonical"
    amounts: Amounts = "formula"

    @classmethod
    def taught(cls, prompting: Mapping[str, Any]) -> Writing:
        """That of a checkpoint's recipe.

        Args:
            prompting: Its key `prompting`, as it stands in the checkpoint's card.
        """
        return cls(prompting["order"], prompting.get("amounts", "formula"))

    def pieces(self, material: Material) -> tuple[str, ...]:
        """The pieces of a material in the order that a permutation begins from: the source's unless it is canonical."""
        return self._amounts(material, material.parts if self.order == "canonical" else material.source_parts)

    def text(self, material: Material, rng: random.Random | None = None) -> str:
        """A material in words.

        Args:
            material: The material.
            rng: Source of randomness for a permuted order.

        Raises:
            ValueError: The order is permuted, and there is no `rng`.
        """
        parts = list(self.pieces(material))
        if self.order == "permuted":
            if rng is None:
                raise ValueError("a permuted order needs a random generator")
            rng.shuffle(parts)
        return " ".join(parts)

    def views(self, material: Material, count: int) -> list[str]:
        """Up to `count` different element orders of one material, the canonical first; the same for the same material.

        A model that was taught one order, the canonical or the source's, is asked in it and in no other.

        Averaging a model's answers over them removes the chance of one order. A material with fewer orders
        (one element, a molecule) has fewer views.
        """
        if self.order != "permuted":
            return [self.text(material)]
        # From the canonical order, not the source's: one material has the same views however it was written.
        pieces = self._amounts(material, material.parts)
        texts = [" ".join(pieces)]
        # The seed is the wording itself, so that an answer does not depend on its place in a batch.
        rng = random.Random(material.text)
        for _ in range(8 * count):
            if len(texts) >= count:
                break
            parts = list(pieces)
            rng.shuffle(parts)
            text = " ".join(parts)
            if text not in texts:
                texts.append(text)
        return texts

    def _amounts(self, material: Material, parts: tuple[str, ...]) -> tuple[str, ...]:
        if self.amounts == "formula" or material.kind != "composition":
            return parts
        told = [split_part(part) for part in parts]
        total = sum((amount for _, amount in told), Decimal(0))
        return tuple(symbol + _percent(100 * amount / total) for symbol, amount in told)


def _percent(share: Decimal) -> str:
    step = Decimal(1).scaleb(min(-_DECIMALS, share.adjusted()))
    return f"{share.quantize(step).normalize():f}"
