"""What an answer hangs on: the materials it may come from, and how it moves when the question is changed a little."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from matdarwin.data.sources import DataError
from matdarwin.materials import parse
from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.materials.material import Material, MaterialError
from matdarwin.models.checkpoint import TaskCard
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.neighbours import Neighbour, candidates, neighbour, taught
from matdarwin.prediction.prediction import Prediction
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks.schema import Task

PARTS = ("neighbours", "embedding", "without", "swaps", "wordings")
"""What may be asked of an explanation beside the prediction itself."""
CANDIDATES = 200
"""Materials nearest by composition (or fingerprint) among which the nearest by embedding are looked for."""

_BELOW_IN_F = 32
"""Elements from a lanthanide to the actinide below it."""


class ExplainError(ValueError):
    """An explanation that cannot be asked for: a part that is none."""


@dataclass(frozen=True, slots=True)
class Change:
    """How an answer moves with its material.

    Attributes:
        element: The element that was taken out.
        by: What was put in its place; None where nothing was.
        material: The changed material.
        value: Its value, a number in the task's unit or a label; None where it has none.
        delta: Its value minus that of the unchanged material, in the task's unit; of classes the change of the
            probability of the unchanged material's label. None where either has no value.
        seen: Training materials with the new element; None where nothing was put in.
    """

    element: str
    by: str | None
    material: str
    value: float | str | None
    delta: float | None
    seen: int | None


@dataclass(frozen=True, slots=True)
class Worded:
    """The answer to one wording of the question.

    Attributes:
        wording: The wording, as the task declares it.
        value: The value; None where none could be read.
        asked: Whether it is the one that predictions ask.
        taught: Whether the model was taught it; None where that is not known.
    """

    wording: str
    value: float | str | None
    asked: bool
    taught: bool | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an answer hangs on.

    Attributes:
        prediction: The prediction, as `Predictor.predict` gives it.
        prompt: The question as the model reads it, in canonical element order; None where the input is no material.
        elements: Training materials by element of the material.
        neighbours: Nearest materials of the task's data by composition or fingerprint, nearest first.
        neighbours_missing: Why there are none; None where there are, or they were not asked for.
        embedding_neighbours: Of the nearest 200 by composition, those nearest by the model's own last hidden state.
        without_element: The answer with each element left out.
        swapped_element: The answer with each element replaced by its neighbours in the periodic table.
        wordings: The answer in each wording of the task.
    """

    prediction: Prediction
    prompt: str | None
    elements: dict[str, int]
    neighbours: tuple[Neighbour, ...] = ()
    neighbours_missing: str | None = None
    embedding_neighbours: tuple[Neighbour, ...] = ()
    without_element: tuple[Change, ...] = ()
    swapped_element: tuple[Change, ...] = ()
    wordings: tuple[Worded, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The explanation as plain JSON types; no NaN, no infinity."""
        return {
            "prediction": self.prediction.to_dict(),
            "prompt": self.prompt,
            "distribution": distribution_dict(self.prediction.distribution),
            "elements": dict(self.elements),
            "neighbours": [_neighbour(one) for one in self.neighbours],
            "neighbours_missing": self.neighbours_missing,
            "embedding_neighbours": [_neighbour(one) for one in self.embedding_neighbours],
            "without_element": [
                {name: value for name, value in asdict(one).items() if name not in ("by", "seen")}
                for one in self.without_element
            ],
            "swapped_element": [asdict(one) for one in self.swapped_element],
            "wordings": [asdict(one) for one in self.wordings],
        }


def explain(
    predictor: Predictor,
    given: object,
    task: str,
    *,
    coverage: float = 0.9,
    conditions: Mapping[str, str | float] | None = None,
    neighbours: int = 5,
    parts: Collection[str] = PARTS,
) -> Explanation:
    """Explain the prediction of one material and task.

    An element is swapped for those above and below it in its group, and left and right of it in its block and period
    (a lanthanide is above the actinide 32 places on), but not for noble gases, elements without an electronegativity,
    or ones that the material has already.

    Args:
        predictor: What asks the model.
        given: The material, as `Predictor.predict` takes it.
        task: Id of a task that the model knows.
        coverage: As in `Predictor.predict`.
        conditions: Conditions of the question.
        neighbours: Most neighbours to list.
        parts: Which of `PARTS` to compute.

    Raises:
        KeyError: The model does not know the task.
        ValueError: As from `Predictor.predict`, or fewer than 1 neighbour.
        ExplainError: A part that is none of `PARTS`.
    """
    for part in parts:
        if part not in PARTS:
            raise ExplainError(f"{part!r} is no part of an explanation; choose from {', '.join(PARTS)}")
    if neighbours < 1:
        raise ExplainError(f"the number of neighbours is 1 or more, got {neighbours}")
    card = predictor.tasks[task]
    asked = dict(conditions or {})
    try:
        material = parse(given, card.task.representation)
    except MaterialError:
        material = None
    # By itself, so that it is to the last bit what `predict` says; all that is changed in one batch.
    first = predictor.predict([given], task, coverage=coverage, conditions=asked or None)[0]
    if material is None or first.status == "invalid":
        # No material, or a question that is too long: so it is in other words.
        return Explanation(prediction=first, prompt=None, elements={})
    without = _without(material) if "without" in parts else []
    swaps = _swaps(material) if "swaps" in parts else []
    changed = [text for _, _, text in (*without, *swaps)]
    others = predictor.predict(changed, task, coverage=coverage, conditions=asked or None) if changed else []
    changes = [
        _change(card, first, element, by, other)
        for (element, by, _), other in zip((*without, *swaps), others, strict=True)
    ]
    explained = Explanation(
        prediction=first,
        prompt=predictor.prompt(card.task, predictor.example(card.task, material, asked)),
        elements={symbol: card.elements.get(symbol, 0) for symbol in material.elements},
        without_element=tuple(changes[: len(without)]),
        swapped_element=tuple(changes[len(without) :]),
        wordings=tuple(_wordings(predictor, card, material, asked)) if "wordings" in parts else (),
    )
    if not {"neighbours", "embedding"} & set(parts):
        return explained
    try:
        near = candidates(card.task, material, max(CANDIDATES, neighbours), conditions=asked)
    except DataError as error:
        return replace(explained, neighbours_missing=str(error))
    if not near:
        nothing = (
            "names have no distance, so there are no nearest ones"
            if card.task.representation == "name"
            else "no material of the task's data has anything in common with it"
        )
        return replace(explained, neighbours_missing=nothing)
    keys = taught(predictor.tasks, predictor.recipe, task)
    found = [
        neighbour(card.task, example, distance, None if keys is None else example.material.key in keys)
        for example, distance in near
    ]
    return replace(
        explained,
        neighbours=tuple(found[:neighbours]) if "neighbours" in parts else (),
        embedding_neighbours=tuple(
            _by_embedding(predictor, card.task, material, asked, [e.material for e, _ in near], found)[:neighbours]
        )
        if "embedding" in parts
        else (),
    )


def swaps_of(symbol: str) -> list[str]:
    """The elements that one is swapped for, by the rule of `explain`: above, below, left, right, where there are any."""
    block, group, period, number = _places()[symbol]
    if block == "f":
        around = [number - _BELOW_IN_F, number + _BELOW_IN_F, number - 1, number + 1]
        places = {z: name for name, (kind, _, _, z) in _places().items() if kind == "f"}
        found = [places[z] for z in around if z in places]
    else:
        other = {(g, p): name for name, (kind, g, p, _) in _places().items() if kind != "f"}
        upright = [other[place] for place in ((group, period - 1), (group, period + 1)) if place in other]
        level = [other[place] for place in ((group - 1, period), (group + 1, period)) if place in other]
        found = [*upright, *(name for name in level if _places()[name][0] == block)]
    return [name for name in found if ELECTRONEGATIVITY[name] is not None and _places()[name][1] != _NOBLE]


_NOBLE = 18


@cache
def _places() -> dict[str, tuple[str, int, int, int]]:
    """Block, group, period and atomic number of each element."""
    from pymatgen.core.periodic_table import Element

    return {
        symbol: (Element(symbol).block, Element(symbol).group, Element(symbol).row, Element(symbol).Z)
        for symbol in ELECTRONEGATIVITY
    }


def _without(material: Material) -> list[tuple[str, str | None, str]]:
    """The material with each element left out, where something is left: element, nothing, text."""
    if material.kind != "composition" or len(material.parts) < 2:
        return []
    return [
        (symbol, None, " ".join(part for other, part in enumerate(material.parts) if other != place))
        for place, symbol in enumerate(material.elements)
    ]


def _swaps(material: Material) -> list[tuple[str, str | None, str]]:
    """The material with each element replaced: element, new element, text."""
    if material.kind != "composition":
        return []
    found: list[tuple[str, str | None, str]] = []
    for place, symbol in enumerate(material.elements):
        for by in swaps_of(symbol):
            if by not in material.elements:
                parts = list(material.parts)
                parts[place] = by + parts[place].removeprefix(symbol)
                found.append((symbol, by, " ".join(parts)))
    return found


def _change(card: TaskCard, first: Prediction, element: str, by: str | None, other: Prediction) -> Change:
    delta: float | None = None
    if isinstance(first.value, str):
        if first.distribution is not None and other.distribution is not None:
            place = card.task.labels.index(first.value)
            delta = float(other.distribution.probabilities[place] - first.distribution.probabilities[place])
    elif first.value is not None and other.value is not None:
        delta = float(other.value) - float(first.value)
    return Change(
        element=element, by=by, material=other.material or other.input, value=other.value,
        delta=None if delta is None else float(f"{delta:.9g}"), seen=None if by is None else card.elements.get(by, 0),
    )  # fmt: skip


def _wordings(
    predictor: Predictor, card: TaskCard, material: Material, conditions: dict[str, str | float]
) -> list[Worded]:
    """The answer in each wording of the task, those that were not taught included: a firm answer does not mind them."""
    asked = predictor.wording(card.task)
    known: set[int] | None = None
    if predictor.recipe is not None:
        known = set(predictor.recipe["prompting"]["wordings"]) or {asked}
    example = predictor.example(card.task, material, conditions)
    found = []
    for number, text in enumerate(card.task.wordings):
        answer = predictor.distributions(card.task, [example], wording=number)[0]
        value = None if answer is None else predictor.value(card, answer)
        found.append(Worded(text, value, number == asked, None if known is None else number in known))
    return found


def _by_embedding(
    predictor: Predictor,
    task: Task,
    material: Material,
    conditions: dict[str, str | float],
    materials: Sequence[Material],
    found: Sequence[Neighbour],
) -> list[Neighbour]:
    """The neighbours again, by the cosine distance of the model's states when it is asked the same of each."""
    asked = [predictor.example(task, one, conditions) for one in (material, *materials)]
    states = predictor.embeddings(task, asked).astype(np.float64)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    distances = np.clip(np.round(1.0 - states[1:] @ states[0], 6), 0.0, 2.0)
    ranked = sorted(range(len(found)), key=lambda i: (distances[i], found[i].key))
    return [replace(found[i], distance=float(distances[i])) for i in ranked]


def _neighbour(one: Neighbour) -> dict[str, Any]:
    plain = asdict(one)
    del plain["key"]
    return plain


def distribution_dict(answer: AnswerDistribution | None) -> dict[str, Any] | None:
    """A distribution as plain JSON types: values (or labels) and their probabilities; None for none."""
    if answer is None:
        return None
    if answer.labels:
        return {"labels": list(answer.labels), "probabilities": [float(p) for p in answer.probabilities]}
    return {
        "values": [float(value) for value in answer.values],
        "probabilities": [float(p) for p in answer.probabilities],
    }
