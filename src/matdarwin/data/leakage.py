"""Who may train on what: the split by key over all tasks of one quantity, and the proof that it holds.

The rule (docs: design, rule 4): in fold i a model loses every training, validation, calibration and auxiliary
row whose key is in the fold-i test set of any scored task of the same quantity in its list, its own task
included. Keys that a row of any of these tasks joins count as one. Test rows are never touched. What remains is
divided by key over the whole quantity.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from matdarwin.data import folds as folding
from matdarwin.data.drawing import draw as draw
from matdarwin.data.drawing import sample
from matdarwin.data.folds import Scheme, roots
from matdarwin.data.readers import read
from matdarwin.data.sources import DataError
from matdarwin.tasks.schema import Example, Task

BY_KEY = "key in"
"""How the reasons of removals by the rule begin, after the task."""

Rows = dict[str, list[Example]]
"""Examples by task id."""

Rule = Literal["key", "none"]
"""key: the rule above. none: every row outside the test fold is used as it is, to state what others have run."""


@dataclass(frozen=True)
class Split:
    """One division of the tasks' rows.

    Attributes:
        tasks: The tasks, in the order given.
        targets: Ids of those that are scored here and have test, validation and calibration rows.
        fold: The test fold, or None where everything may be used.
        scheme: How folds were assigned.
        seed: Seed of the draw of validation and calibration keys.
        train: Rows to train on, merged: one a key (and condition).
        validation: Rows to choose the best checkpoint by, merged.
        calibration: Rows to calibrate intervals on, merged.
        test: Rows to score, each as the file has it (but for `tied` keys), in the file's order.
        kept: Rows of each task that the rule left, before any was merged.
        removed: Rows taken away, by `task: reason`.
        rule: What was taken away.
    """

    tasks: tuple[Task, ...]
    targets: tuple[str, ...]
    fold: int | None
    scheme: Scheme
    seed: int
    train: Rows
    validation: Rows
    calibration: Rows
    test: Rows
    kept: dict[str, int]
    removed: dict[str, int]
    rule: Rule = "key"


@dataclass(frozen=True, slots=True)
class Leak:
    """Test rows of one task that stand in the training rows of another (or its own), in one fold.

    Attributes:
        task: The task whose test rows are looked for.
        train_task: The task in whose training rows they are looked for.
        fold: The fold.
        test_rows: Test rows of the fold.
        test_keys: Different materials among them.
        found: Test rows whose material the other trains on.
    """

    task: str
    train_task: str
    fold: int
    test_rows: int
    test_keys: int
    found: int

    @property
    def share(self) -> float:
        """Part of the test rows that is found, 0 to 1."""
        return self.found / self.test_rows if self.test_rows else 0.0


def targets(tasks: Sequence[Task]) -> list[Task]:
    """The tasks that are scored; in a list of auxiliary tasks alone, all of them."""
    return [task for task in tasks if task.scored] or list(tasks)


def assigned(tasks: Sequence[Task], scheme: Scheme = "official") -> Rows:
    """All examples of each task, those of the tasks that are scored here with their folds."""
    scored = {task.id for task in targets(tasks)}
    rows = {task.id: read(task).examples for task in tasks}
    for task in tasks:
        if task.id in scored:  # auxiliary rows have no test fold, and may be too few to make any
            leader = folding.leader(task, tasks) if scheme == "aligned" else None
            rows[task.id] = folding.assign(read(task), scheme=scheme, leader=leader)
    return rows


def split(
    tasks: Sequence[Task],
    fold: int | None,
    *,
    seed: int = 0,
    validation: float = 0.1,
    calibration: float = 0.1,
    minimum_calibration: int = 50,
    limit: int | None = None,
    unlimited: Collection[str] = (),
    folds: Scheme = "official",
    rule: Rule = "key",
) -> Split:
    """Divide the rows of several tasks so that no material crosses within a quantity.

    Validation and calibration keys are drawn each by a number that depends on key and seed alone, so a key
    falls into the same part whether its task is trained alone or with others (but for the few that fill up
    a task to its minimum). Calibration takes at least `minimum_calibration` keys of each scored regression
    task, at most a third of what it has; a task that could spare under 30 gives none. Auxiliary rows are drawn only along
    with a scored task's key.

    Args:
        tasks: The tasks of the recipe.
        fold: Test fold; None leaves no test and lets all rows be used.
        seed: Seed of the draw.
        validation: Share of the keys for validation, 0 for none.
        calibration: Share of the keys for calibration, 0 for none.
        minimum_calibration: Fewest calibration keys a task.
        limit: Most training rows a task (a seeded sample), for demonstrations.
        unlimited: Ids of tasks that the limit does not concern.
        folds: Scheme of the folds.
        rule: See `Rule`.

    Raises:
        DataError: No such fold, shares that leave nothing to train on, or a task with no training row left.
    """
    if len({task.id for task in tasks}) != len(tasks) or not tasks:
        raise DataError(f"a list of tasks needs one or more different tasks, got {[task.id for task in tasks]}")
    if not (0 <= validation < 1 and 0 <= calibration < 1 and validation + calibration < 1):
        raise DataError(
            f"validation ({validation}) and calibration ({calibration}) must be shares from 0 that leave something to train on"
        )
    if limit is not None and limit < 1:
        raise DataError(f"limit must be 1 or more, got {limit}")
    scored = targets(tasks)
    rows = {task.id: read(task).examples for task in tasks} if fold is None else assigned(tasks, folds)
    rows = {name: found for cluster in clusters(tasks) for name, found in tied(cluster, rows).items()}
    test = _test(scored, rows, fold)
    removed: Counter[str] = Counter()
    barred = test if rule == "key" else _test(scored, rows, None)
    pool = {task.id: _allowed(task, rows[task.id], scored, barred, fold, removed) for task in tasks}
    kept = {name: len(examples) for name, examples in pool.items()}
    merged = {task.id: merge(task, pool[task.id], removed) if rule == "key" else pool[task.id] for task in tasks}
    parts: dict[str, Rows] = {name: {task.id: [] for task in tasks} for name in ("train", "validation", "calibration")}
    for cluster in clusters(tasks):
        names = {task.id for task in cluster}
        examples = [example for task in cluster for example in merged[task.id]]
        shares = (validation, calibration, minimum_calibration)
        own = [task for task in scored if task.id in names]
        # Classes have no intervals, so nothing of them is held back for calibrating any.
        numbers = {task.id for task in own if task.kind == "regression"}
        drawn = draw(examples, [task.id for task in own], seed, *shares, calibrated=numbers)
        for example, part in zip(examples, drawn, strict=True):
            parts[part][example.task].append(example)
    for task in tasks:
        train = parts["train"][task.id]
        if not train:
            raise DataError(f"task {task.id}: no training row is left in fold {fold}; removed: {dict(removed)}")
        if limit is not None and len(train) > limit and task.id not in unlimited:
            removed[f"{task.id}: over the limit of {limit} training rows"] += len(train) - limit
            parts["train"][task.id] = sample(train, limit, seed)
    return Split(
        tasks=tuple(tasks),
        targets=tuple(task.id for task in scored),
        fold=fold,
        scheme=folds,
        seed=seed,
        test=test,
        kept=kept,
        removed=dict(sorted(removed.items())),
        rule=rule,
        **parts,
    )


def tied(tasks: Sequence[Task], rows: Rows) -> Rows:
    """The rows of some tasks, each material with every key that a row of any of them joins to one of its own.

    A row with two keys, such as a name and a composition, says that both are one material. That holds for the rows of
    all tasks, also for those that have the one key or the other alone. Afterwards two rows are of one material if, and
    only if, they have a key in common.

    Args:
        tasks: The tasks, which share a quantity.
        rows: Their rows, at least.
    """
    mine = {task.id: rows[task.id] for task in tasks}
    # Few tasks have materials with several keys; the others' rows are left as they are without being looked at.
    joining = [row.material for examples in mine.values() for row in examples if len(row.material.keys) > 1]
    if not joining:
        return mine
    root = roots(joining)
    together: dict[str, set[str]] = defaultdict(set)
    for material in joining:
        together[root(material.key)].update(material.keys)
    closed = {key: tuple(sorted(keys)) for keys in together.values() for key in keys}

    def whole(row: Example) -> Example:
        more = [key for key in closed.get(row.material.key, ()) if key not in row.material.keys]
        return replace(row, material=replace(row.material, keys=(*row.material.keys, *more))) if more else row

    return {name: [whole(row) for row in examples] for name, examples in mine.items()}


def _test(scored: Sequence[Task], rows: Rows, fold: int | None) -> Rows:
    if fold is None:
        return {task.id: [] for task in scored}
    test = {task.id: [example for example in rows[task.id] if example.fold == fold] for task in scored}
    for task in scored:
        if not test[task.id]:
            known = sorted({example.fold for example in rows[task.id] if example.fold is not None})
            raise DataError(f"task {task.id}: has no fold {fold}; choose from {', '.join(map(str, known))}")
    return test


def related(task: Task, other: Task) -> bool:
    """Whether test rows of one may not teach as rows of the other: they share a quantity, or both are computed."""
    # One calculation gives many values: what it says of one may hold the label of another.
    computed = task.origin == other.origin == "computed"
    return computed or not set(task.quantities).isdisjoint(other.quantities)


def _keys(examples: Iterable[Example]) -> set[str]:
    return {key for example in examples for key in example.material.keys}


def _allowed(
    task: Task, examples: Sequence[Example], scored: Sequence[Task], test: Rows, fold: int | None, removed: Counter[str]
) -> list[Example]:
    """The rows that may be learnt from: no test rows, and no row whose key is in a test set of its quantities."""
    is_scored = any(other.id == task.id for other in scored)
    forbidden = [("its own test fold", _keys(test[task.id]))] if is_scored else []
    forbidden += [
        (f"the test fold of {other.id}", _keys(test[other.id]))
        for other in scored
        if other.id != task.id and related(other, task)
    ]
    allowed = []
    for example in examples:
        if is_scored and fold is not None and example.fold == fold:
            continue
        reason = next((name for name, keys in forbidden if not keys.isdisjoint(example.material.keys)), None)
        if reason is None:
            allowed.append(example)
        else:
            removed[f"{task.id}: {BY_KEY} {reason}"] += 1
    return allowed


def merge(task: Task, examples: Sequence[Example], removed: Counter[str] | None = None) -> list[Example]:
    """One example a key and condition: the median of numbers, the majority of classes (ties are dropped).

    Args:
        task: Whose examples.
        examples: The rows.
        removed: Counter to which the merged and dropped rows are added, by `task: reason`.

    Returns:
        Merged examples in the order of the first row of each, `spread` set (regression: greatest minus least).
    """
    counts = removed if removed is not None else Counter()
    together: dict[tuple[str, tuple[tuple[str, str | float], ...]], list[Example]] = defaultdict(list)
    for example in examples:
        together[example.material.key, tuple(sorted(example.conditions.items()))].append(example)
    result = []
    for rows in together.values():
        first = rows[0]
        if len(rows) == 1:
            result.append(first)
            continue
        keys = tuple(dict.fromkeys(key for row in rows for key in row.material.keys))  # a row may have one more
        first = replace(first, material=replace(first.material, keys=keys))
        if task.kind == "regression":
            values = [float(row.target) for row in rows if row.target is not None]
            result.append(replace(first, target=statistics.median(values), spread=max(values) - min(values)))
        else:
            ranked = Counter(str(row.target) for row in rows).most_common()
            if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
                counts[f"{task.id}: classes of one key tie"] += len(rows)
                continue
            result.append(replace(first, target=ranked[0][0]))
        counts[f"{task.id}: merged into another row of its key"] += len(rows) - 1
    return result


def clusters(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks that share a quantity, directly or through others, put together; in the order given."""
    found: list[list[Task]] = []
    for task in tasks:
        near = [cluster for cluster in found if any(related(task, other) for other in cluster)]
        found = [cluster for cluster in found if cluster not in near]
        found.append([*itertools.chain.from_iterable(near), task])
    place = {task.id: number for number, task in enumerate(tasks)}
    return sorted(
        (sorted(cluster, key=lambda task: place[task.id]) for cluster in found),
        key=lambda cluster: place[cluster[0].id],
    )


def check(done: Split) -> list[str]:
    """Faults of a split: materials that stand in two parts of one quantity. An empty list is the proof that none does."""
    faults = []
    parts = {"train": done.train, "validation": done.validation, "calibration": done.calibration, "test": done.test}
    for quantity in sorted({quantity for task in done.tasks for quantity in task.quantities}):
        inside = [task.id for task in done.tasks if quantity in task.quantities]
        keys = {
            name: _keys(itertools.chain.from_iterable(rows.get(task, []) for task in inside))
            for name, rows in parts.items()
        }
        for one, other in itertools.combinations(parts, 2):
            if shared := sorted(keys[one] & keys[other]):
                faults.append(
                    f"{quantity}: {len(shared)} materials stand in {one} and in {other}, for example {shared[0]}"
                )
    return faults


def by_key(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Examples by each of their keys."""
    index: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        for key in dict.fromkeys(example.material.keys):
            index[key].append(example)
    return index


def matches(test: Iterable[Example], training: Mapping[str, list[Example]]) -> list[tuple[Example, list[Example]]]:
    """Test rows whose material stands in training rows (as `by_key` gives them), each with those; any common key counts."""
    found = []
    for example in test:
        # Rows that share two keys are one finding; examples have no hash, but each is one object.
        rows = {id(row): row for key in example.material.keys for row in training.get(key, ())}
        if rows:
            found.append((example, list(rows.values())))
    return found


def keys_hash(examples: Iterable[Example]) -> str:
    """Hash of a part's materials, whatever their order: two equal ones hold the same materials."""
    return hashlib.sha256("\n".join(sorted({e.material.key for e in examples})).encode()).hexdigest()
