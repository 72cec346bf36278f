"""`darwin audit`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matdarwin.commands.common import Json, UsageError, emit, emit_json, emit_table, note, short, working
from matdarwin.commands.recipes import Settings

if TYPE_CHECKING:
    from matdarwin.data.audit import Audit, Hit, Pair
    from matdarwin.data.near import Near
    from matdarwin.training.recipe import Recipe

_FAULTS = 5
_EXAMPLES = 3


def audit(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file (YAML).", show_default=False)] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="In place of a recipe: a task by id or file; repeat it for several at once."),
    ] = None,
    fold: Annotated[
        list[int] | None, typer.Option("--fold", min=0, max=4, help="Test fold; may be repeated. Default: all five.")
    ] = None,
    setting: Settings = None,
    json: Json = False,
) -> None:
    """Look for every test material in all that a recipe would learn from. Nothing is trained.

    The verdict is CLEAN, or LEAKY where a test material teaches something of its quantity: then the exit code is 1.
    Tasks without a recipe are divided by our rule; --set split.rule=none shows what would cross without it.
    """
    if (recipe is None) == (not task):
        raise UsageError("give a recipe file or --task NAME" + ("" if recipe is None else ", not both"))
    with working():
        from matdarwin.training.audit import audit_recipe
        from matdarwin.training.recipe_files import build_recipe, load_recipe

        if recipe is not None:
            chosen = load_recipe(recipe, setting or [])
        else:
            chosen = build_recipe({"name": "tasks", "tasks": task}, setting or [], where="--task")
        if not fold:
            note(_all_folds(chosen) if recipe is not None else "all five folds are audited; --fold takes one")
        found = audit_recipe(chosen, folds=fold or None)
    if json:
        emit_json({"recipe": chosen.name, "recipe_fold": chosen.fold, **found.to_json()})
    else:
        _show(chosen.name, found)
    if found.verdict == "LEAKY":
        raise typer.Exit(1)


def _all_folds(recipe: Recipe) -> str:
    if recipe.fold is None:
        return "all five folds are audited, each as if it were held out (the recipe has fold: null); --fold takes one"
    return f"all five folds are audited, not only the recipe's own (fold: {recipe.fold}); --fold takes one"


def _show(name: str, found: Audit) -> None:
    folds = ", ".join(map(str, found.folds))
    emit(f"{found.verdict}: {name} ({', '.join(found.tasks)})")
    emit(f"fold{'s' if len(found.folds) > 1 else ''} {folds} ({found.scheme}), split.rule {found.rule}")
    emit(
        "\nTest rows whose material is learnt from, in tasks of the same quantity and in texts that name its property:"
    )
    _pairs(found.pairs, found.folds)
    if any(pair.found for pair in found.pairs):
        emit("For example:")
        _examples(found.pairs)
    if found.twins:
        emit(
            "Labels that agree under another quantity's name, so they are the same data; give both tasks one quantity:"
        )
        _pairs(found.twins, found.folds)
    if found.faults and found.rule == "key":  # without a rule they say no more than the table above
        emit("Materials that stand in two parts of a split:")
        for line in found.faults[:_FAULTS]:
            emit(f"  {line}")
        if len(found.faults) > _FAULTS:
            emit(f"  and {len(found.faults) - _FAULTS} more such lines")
        emit("")
    if found.base:
        emit("What the base model may know already:")
        for line in found.base:
            emit(f"  {line}")
        emit("")
    if found.rule == "key":
        emit("What the rule cost, in training rows over these folds:")
        _cost(found)
    twins = {(pair.task, pair.train_task, pair.stage) for pair in found.twins}
    if knowledge := [pair for pair in found.knowledge if (pair.task, pair.train_task, pair.stage) not in twins]:
        emit("Computed values that teach, which is knowledge used and no leak:")
        _pairs([pair for pair in knowledge if pair.found] or knowledge[:1], found.folds)
    if found.evidence:
        emit("Materials of which the questions state computed values, which is knowledge used and no leak:")
        _evidence(found)
    if found.texts:
        emit("Texts of earlier stages, without the pairs that name a material of a scored task and its property:")
        _texts(found)
        emit(
            "That none of their pairs is found above says that all have gone through this filter, not that it knows every "
            "word: read a text of your own.\n"
        )
    unsure = {(pair.task, pair.train_task, pair.stage) for pair in found.uncompared} - twins
    for title, some in (
        (
            "The same materials under another quantity, with labels that agree no better than those of other data, which is no leak:",
            False,
        ),
        (
            "The same materials under another quantity, with too few labels that can be compared. It is a leak if they "
            "say the same in other words, so look at both files:",
            True,
        ),
    ):
        names = ((pair.task, pair.train_task, pair.stage) for pair in found.elsewhere)
        shown = [
            pair
            for pair, name in zip(found.elsewhere, names, strict=True)
            if name not in twins and (name in unsure) == some
        ]
        if shown:
            emit(title)
            _pairs(shown, found.folds)
    if found.near:
        emit(
            "A softer figure: test rows with a composition in training within 1 % in every fraction, but not the same, or "
            "with a name there that is only spelt otherwise:"
        )
        _near(found.near, found.folds)


def _pairs(pairs: Sequence[Pair], folds: Sequence[int]) -> None:
    """Found rows by fold, one line a pair of tasks and stage."""
    from matdarwin.data.audit import totals

    by_fold = {(pair.task, pair.train_task, pair.stage, pair.fold): pair.found for pair in pairs}
    rows: list[list[object]] = []
    for total in totals(pairs):
        name = (total["task"], total["train_task"], total["stage"])
        agree = f"{total['labels_agree']:,} of {total['labels_compared']:,}" if total["labels_compared"] else None
        counts = [f"{by_fold[*name, fold]:,}" if (*name, fold) in by_fold else None for fold in folds]
        rows.append([*name, *counts, f"{total['found']:,}", f"{total['test_rows']:,}"])
        rows[-1] += [_share(total["found"], total["test_rows"]), agree]
    heads = [f"fold {fold}" for fold in folds]
    columns = ["test rows of", "learnt from", "stage", *heads, "found", "of", "share", "labels agree"]
    emit_table(columns, rows, right=(*heads, "found", "of", "share", "labels agree"))


def _examples(pairs: Iterable[Pair]) -> None:
    together: dict[tuple[str, str], list[Hit]] = defaultdict(list)
    for pair in pairs:
        together[pair.task, pair.train_task].extend(pair.examples)
    rows = []
    for (task, other), hits in together.items():
        for hit in sorted(hits, key=lambda hit: hit.agree is not False)[:_EXAMPLES]:
            agree = {True: "yes", False: "no", None: None}[hit.agree]
            there = [other, hit.train_row, short(hit.train_material), hit.train_target]
            rows.append([task, hit.row, short(hit.material), hit.target, *there, agree])
    columns = (
        "test row of",
        "row",
        "material",
        "label",
        "learnt from",
        "its row",
        "its material",
        "its label",
        "agree",
    )
    emit_table(columns, rows)


def _cost(found: Audit) -> None:
    rows: list[list[object]] = []
    for name in (*found.tasks, None):
        costs = [cost for cost in found.cost if name in (cost.task, None)]
        removed, before = sum(cost.removed for cost in costs), sum(cost.training_rows for cost in costs)
        reasons: Counter[str] = Counter()
        for cost in costs if name else ():
            reasons.update(cost.reasons)
        because = "; ".join(f"{reason} {count:,}" for reason, count in reasons.items())
        rows.append([name or "all", f"{before:,}", f"{removed:,}", _share(removed, before), because])
    columns = ("task", "training rows", "removed", "share", "taken away or merged because")
    emit_table(columns, rows, right=("training rows", "removed", "share"))


def _evidence(found: Audit) -> None:
    names = list(found.evidence[0][1]["found"])
    rows: list[list[object]] = []
    for task, one in found.evidence:
        counts = [f"{one['found'][name]:,}" for name in names]
        rows.append([task, one["group"], f"{one['materials']:,}", *counts, f"{one['any']:,}"])
        rows[-1].append(_share(one["any"], one["materials"]))
    heads = ("materials", *names, "any", "share")
    emit_table(["task", "group", *heads], rows, right=heads)


def _texts(found: Audit) -> None:
    rows: list[list[object]] = []
    for one in found.texts:
        removed = sum(one.removed.values())
        by_task = ", ".join(f"{task} {count:,}" for task, count in one.removed.items())
        kept = one.pairs - one.held_out - removed
        rows.append([one.stage, one.text, f"{one.pairs:,}", f"{one.held_out:,}", f"{removed:,}", f"{kept:,}", by_task])
    heads = ("pairs", "held out", "removed", "left")
    emit_table(["stage", "text", *heads, "removed for"], rows, right=heads)


def _near(near: Sequence[Near], folds: Sequence[int]) -> None:
    rows: list[list[object]] = []
    for name in dict.fromkeys((one.task, one.stage) for one in near):
        mine = {one.fold: one for one in near if (one.task, one.stage) == name}
        found, of = sum(one.found for one in mine.values()), sum(one.test_rows for one in mine.values())
        counts = [f"{mine[fold].found:,}" if fold in mine else None for fold in folds]
        rows.append([*name, *counts, f"{found:,}", f"{of:,}", _share(found, of)])
    heads = [f"fold {fold}" for fold in folds]
    emit_table(["test rows of", "stage", *heads, "found", "of", "share"], rows, right=(*heads, "found", "of", "share"))


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
