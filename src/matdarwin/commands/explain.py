"""`darwin explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from matdarwin.commands.common import (
    ConditionTexts,
    Coverage,
    Json,
    Model,
    answer_text,
    conditions_of,
    emit,
    emit_json,
    emit_table,
    note,
    number,
    short,
    working,
)

if TYPE_CHECKING:
    from matdarwin.prediction.explain import Change, Explanation
    from matdarwin.prediction.neighbours import Neighbour
    from matdarwin.tasks.schema import Task

_SHOWN = 8
"""Answers of a distribution that the table has; the JSON has all."""


def explain(
    material: Annotated[
        str, typer.Argument(help='One formula, SMILES or name; with spaces in quotes: "Ga 0.5 In 0.5 As".')
    ],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Task. Default: the only one that the checkpoint knows.")
    ] = None,
    model: Model = None,
    coverage: Coverage = 0.9,
    condition: ConditionTexts = None,
    neighbours: Annotated[int, typer.Option(min=1, max=100, help="Most nearest materials of each kind.")] = 5,
    json: Json = False,
) -> None:
    """Say what a prediction hangs on.

    The question asked, the distribution of the answer, the nearest measured materials, and how the answer moves when an
    element is left out, or swapped for its neighbours in the periodic table, or the question is worded otherwise.
    """
    with working():
        from matdarwin.api import Darwin, check_coverage
        from matdarwin.prediction.explain import explain as explained

        check_coverage(coverage)
        darwin = Darwin.load(model, tasks=[] if task is None else [task])
        name = darwin.resolve(task)[0]
        given = darwin.conditions([name], conditions_of(condition or []))[name]
        note(f"using checkpoint {darwin.name} (base {darwin.card.base['name']}), task {name}")
        found = explained(darwin.predictor, material, name, coverage=coverage, conditions=given, neighbours=neighbours)
    if json:
        emit_json(found.to_dict())
    else:
        _print(found, darwin.tasks[name])
    if found.prediction.value is None:
        raise typer.Exit(1)


def _print(found: Explanation, task: Task) -> None:
    first = found.prediction
    unit = f" {first.unit}" if first.unit else ""
    digits = task.decimals or 0
    interval = (
        ""
        if first.coverage is None
        else f" ({answer_text(first.lower, digits + 1)} to {answer_text(first.upper, digits + 1)} at {100 * first.coverage:g} %)"
    )
    emit(
        f"{first.material or first.input}: {answer_text(first.value, digits) or first.status}{unit if first.value is not None else ''}{interval}"
    )
    for remark in [*filter(None, [first.reason]), *first.notes]:
        emit(f"  {remark}")
    if found.prompt is None:
        return
    emit(f"\nasked:\n  {found.prompt}")
    if (answer := first.distribution) is not None:
        likely = sorted(range(len(answer.probabilities)), key=lambda i: -float(answer.probabilities[i]))[:_SHOWN]
        answers: list[object] = (
            list(answer.labels) if answer.labels else [answer_text(float(v), digits) for v in answer.values]
        )
        emit(f"\ndistribution: the likeliest {len(likely)} of {len(answers)} answers")
        emit_table(("answer", "probability"), [[answers[i], f"{answer.probabilities[i]:.4f}"] for i in likely], right=("answer", "probability"))  # fmt: skip
    if found.elements:
        emit("\nelements: training materials with each")
        emit_table(("element", "materials"), [[k, f"{v:,}"] for k, v in found.elements.items()], right=("materials",))
    if found.neighbours_missing is not None:
        emit(f"\nnearest materials: none; {found.neighbours_missing}")
    measure = "fingerprint" if task.representation == "molecule" else "composition"
    _neighbours(f"nearest materials of the task's data by {measure}", task.origin, found.neighbours)
    _neighbours(f"nearest by embedding, of the 200 nearest by {measure}", task.origin, found.embedding_neighbours)
    kind = "change" if task.kind == "regression" else f"change of P({first.value})"
    _changes("with an element left out", found.without_element, kind, digits, swapped=False)
    _changes(
        "with an element swapped for its neighbour in the periodic table",
        found.swapped_element,
        kind,
        digits,
        swapped=True,
    )
    if found.wordings:
        emit("\nin other words")
        emit_table(
            ("wording", "value", ""),
            [[w.wording, answer_text(w.value, digits), "asked" if w.asked else "not taught" if w.taught is False else ""] for w in found.wordings],
            right=("value",),
        )  # fmt: skip


def _neighbours(title: str, origin: str, found: tuple[Neighbour, ...]) -> None:
    if not found:
        return
    emit(f"\n{title}")
    taught = {True: "yes", False: "no", None: "not known"}
    rows = [
        [
            short(one.material), f"{one.distance:.4f}", number(one.target, 6), one.unit,
            ", ".join(f"{name}={value}" for name, value in one.conditions.items()), taught[one.training], one.source,
        ]
        for one in found
    ]  # fmt: skip
    heads: tuple[str, ...] = ("material", "distance", origin, "unit", "conditions", "taught", "source")
    if not any(one.conditions for one in found):
        heads = (*heads[:4], *heads[5:])
        rows = [[*row[:4], *row[5:]] for row in rows]
    emit_table(heads, rows, right=("distance", origin))


def _changes(title: str, found: tuple[Change, ...], kind: str, digits: int, *, swapped: bool) -> None:
    if not found:
        return
    emit(f"\n{title}")
    rows = [
        [one.element, *([one.by] if swapped else []), short(one.material), answer_text(one.value, digits), _signed(one.delta), *([f"{one.seen:,}"] if swapped else [])]
        for one in found
    ]  # fmt: skip
    heads = ("element", *(["by"] if swapped else []), "material", "value", kind, *(["seen"] if swapped else []))
    emit_table(heads, rows, right=("value", kind, "seen"))


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.3g}"
