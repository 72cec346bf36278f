"""The leak audit: which test materials stand among what a model learns from, counted pair by pair of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from matdarwin.data.evidence import Presence
from matdarwin.data.folds import Scheme
from matdarwin.data.leakage import BY_KEY, Leak, Rows, Rule, Split, by_key, check, matches, related
from matdarwin.data.near import Near, near_duplicates
from matdarwin.tasks.schema import Example, Task

Verdict = Literal["CLEAN", "LEAKY"]

TUNE = "tune"
"""The stage in which a model is taught its own tasks, the last."""

_EXAMPLES = 3
_TWIN = 5  # fewer labels that agree may be chance

_ZERO = {"band gap": ("metal", "not metal")}
"""Quantity -> the class that a value of exactly 0 means, and the one that every greater value means."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One test row that was found in training, with the first of the training rows that its label was compared with.

    Attributes:
        row: The test row's id in its source.
        material: The test material as its file has it.
        target: Its label or number, in its task's unit.
        train_row: The training row's id.
        train_material: The same material as the training file has it.
        train_target: Its label or number there, in that task's unit.
        agree: Whether all such training rows agree with the test row; None where they cannot be compared.
    """

    row: str
    material: str
    target: float | str | None
    train_row: str
    train_material: str
    train_target: float | str | None
    agree: bool | None


@dataclass(frozen=True, slots=True)
class Pair(Leak):
    """What of one task's test rows was found in what a model learns from another (or its own), in one fold and stage.

    Attributes:
        stage: When the rows are learnt from.
        train_rows: Rows of the other task that the model learns from, chooses its epoch by or calibrates on.
        labels_compared: Found rows whose labels could be compared.
        labels_agree: Those among them whose labels agree: the training row gives the answer away.
        examples: A few that were found, those that disagree first.
    """

    stage: str
    train_rows: int
    labels_compared: int
    labels_agree: int
    examples: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Rows that a task lost in one fold.

    Attributes:
        task: The task.
        fold: The fold.
        training_rows: Rows that are no test rows of the fold.
        removed: Those that the rule took away.
        reasons: All rows that were taken away or merged, by reason.
    """

    task: str
    fold: int
    training_rows: int
    removed: int
    reasons: dict[str, int]

    @property
    def share(self) -> float:
        """Part of the training rows that the rule took away, 0 to 1."""
        return self.removed / self.training_rows if self.training_rows else 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """A text in an earlier stage.

    Attributes:
        stage: The stage.
        text: Name of the text.
        pairs: Question-answer pairs that it has.
        held_out: Those that are kept from training to test with.
        removed: Those left out because they name a material of a scored task and its property, by task.
        examples: Why a few were left out.
    """

    stage: str
    text: str
    pairs: int
    held_out: int
    removed: dict[str, int]
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """The report.

    Attributes:
        tasks: Ids of the tasks.
        rule: The rule by which the rows were divided.
        scheme: How folds were assigned.
        folds: The folds that were looked at.
        pairs: All pairs of tasks that share a quantity (each task with itself too), and of tasks and texts, by fold and
            stage. The verdict.
        elsewhere: Pairs of different quantities that have materials in common: the same material, but another question.
        knowledge: Auxiliary tasks whose values are computed, with what they hold of the test materials: knowledge used.
        near: Near-duplicates; no part of the verdict.
        cost: What the rule took away.
        texts: The texts that teach in earlier stages, and what was left out of them.
        evidence: How many materials of each task the databases know whose values stand in its questions: knowledge used.
        faults: Materials that stand in two parts of a split, as `leakage.check` tells them, by fold.
    """

    tasks: tuple[str, ...]
    rule: Rule
    scheme: Scheme
    folds: tuple[int, ...]
    pairs: tuple[Pair, ...]
    elsewhere: tuple[Pair, ...]
    knowledge: tuple[Pair, ...]
    near: tuple[Near, ...]
    cost: tuple[Cost, ...]
    faults: tuple[str, ...]
    evidence: tuple[tuple[str, Presence], ...] = ()
    texts: tuple[Told, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """LEAKY where a test material stands in training of its quantity, in two parts of a split, or among `twins`."""
        return "LEAKY" if self.faults or self.twins or any(pair.found for pair in self.pairs) else "CLEAN"

    @property
    def twins(self) -> tuple[Pair, ...]:
        """Pairs of differing quantities whose labels mostly agree: the same data under another name."""
        return tuple(p for p in self.elsewhere if p.labels_compared >= _TWIN and 2 * p.labels_agree > p.labels_compared)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {
            "verdict": self.verdict,
            "tasks": list(self.tasks),
            "rule": self.rule,
            "folds_scheme": self.scheme,
            "folds": list(self.folds),
            "pairs": [_json(pair) for pair in self.pairs],
            "totals": totals(self.pairs),
            "twins": [_json(pair) for pair in self.twins],
            "elsewhere": [_json(pair) for pair in self.elsewhere],
            "knowledge": [_json(pair) for pair in self.knowledge],
            "near_duplicates": [_json(one) for one in self.near],
            "cost": [_json(one) for one in self.cost],
            "faults": list(self.faults),
            "texts": [asdict(one) for one in self.texts],
            "evidence": [{"task": task, **presence} for task, presence in self.evidence],
        }


def _json(one: Pair | Near | Cost) -> dict[str, Any]:
    return {**asdict(one), "share": one.share}


def totals(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Sums over folds: `found`, `test_rows`, `share`, `labels_compared` and `labels_agree` by pair of tasks and stage."""
    sums: dict[tuple[str, str, str], dict[str, Any]] = {}
    for pair in pairs:
        name = {"task": pair.task, "train_task": pair.train_task, "stage": pair.stage}
        total = sums.setdefault((pair.task, pair.train_task, pair.stage), name)
        for key in ("found", "test_rows", "labels_compared", "labels_agree"):
            total[key] = total.get(key, 0) + getattr(pair, key)
    for total in sums.values():
        total["share"] = total["found"] / total["test_rows"] if total["test_rows"] else 0.0
    return list(sums.values())


def audit(splits: Iterable[Split], stages: Mapping[str, Sequence[str]] | None = None) -> Audit:
    """Look for every test row of every split among all that a model would learn from under that split.

    Args:
        splits: Divisions of the same tasks, one a fold, each with a test fold. One is held at a time.
        stages: Stage -> ids of the tasks that teach in it; None: all tasks in the last.

    Raises:
        ValueError: No split, or one that holds nothing out.
    """
    pairs: list[Pair] = []
    elsewhere: list[Pair] = []
    knowledge: list[Pair] = []
    nears: list[Near] = []
    costs: list[Cost] = []
    faults: list[str] = []
    folds: list[int] = []
    last = None
    for last in splits:
        if last.fold is None:
            raise ValueError("a split without a test fold holds nothing out that could be looked for")
        folds.append(last.fold)
        rows_of = _stages(last, stages or {TUNE: [task.id for task in last.tasks]})
        for pair, task, other in _pairs(last, last.fold, rows_of):
            computed = other.origin == "computed" and other.id not in last.targets
            if related(task, other):
                pairs.append(pair)
            elif not computed:
                elsewhere.append(pair)
            if computed:
                knowledge.append(pair)
        for stage, rows in rows_of.items():
            nears += near_duplicates(last, last.fold, rows, stage)
        costs += [_cost(last, task.id, last.fold) for task in last.tasks]
        faults += [f"fold {last.fold}: {fault}" for fault in check(last)]
    if last is None:
        raise ValueError("an audit needs a split")
    met = {(pair.task, pair.train_task, pair.stage) for pair in elsewhere if pair.found}
    elsewhere = [pair for pair in elsewhere if (pair.task, pair.train_task, pair.stage) in met]
    return Audit(
        tasks=tuple(task.id for task in last.tasks), rule=last.rule, scheme=last.scheme, folds=tuple(folds),
        pairs=tuple(pairs), elsewhere=tuple(elsewhere), knowledge=tuple(knowledge), near=tuple(nears), cost=tuple(costs),
        faults=tuple(faults),
    )  # fmt: skip


def _stages(split: Split, stages: Mapping[str, Sequence[str]]) -> dict[str, Rows]:
    """All rows that shape a model, by the stage in which they do: in the last, those that choose or calibrate too."""
    found: dict[str, Rows] = {}
    for stage, names in stages.items():
        parts = (split.train, split.validation, split.calibration) if stage == TUNE else (split.train,)
        found[stage] = {name: [row for part in parts for row in part[name]] for name in names}
    return found


def _pairs(split: Split, fold: int, stages: Mapping[str, Rows]) -> Iterable[tuple[Pair, Task, Task]]:
    """Every scored task against every task of every stage, related or not."""
    indices = {(stage, name): by_key(rows[name]) for stage, rows in stages.items() for name in rows}
    for task in (task for task in split.tasks if task.id in split.targets):
        test = split.test[task.id]
        keys = len({row.material.key for row in test})
        for stage, rows in stages.items():
            for other in (other for other in split.tasks if other.id in rows):
                same = _comparison(task, other)
                found = [_hit(row, there, same) for row, there in matches(test, indices[stage, other.id])]
                compared = [hit for hit in found if hit.agree is not None]
                pair = Pair(
                    task=task.id, train_task=other.id, stage=stage, fold=fold, test_rows=len(test), test_keys=keys,
                    train_rows=len(rows[other.id]), found=len(found), labels_compared=len(compared),
                    labels_agree=sum(hit.agree is True for hit in compared),
                    examples=tuple(sorted(found, key=lambda hit: hit.agree is not False)[:_EXAMPLES]),
                )  # fmt: skip
                yield pair, task, other


def _hit(row: Example, there: Sequence[Example], same: Callable[[Any, Any], bool] | None) -> Hit:
    """One finding; labels are compared with those training rows that were measured under the same conditions."""
    alike = [other for other in there if other.conditions == row.conditions] if same is not None else []
    shown = (alike or there)[0]
    return Hit(
        row=row.row, material=row.material.given, target=row.target,
        train_row=shown.row, train_material=shown.material.given, train_target=shown.target,
        agree=all(same(row.target, other.target) for other in alike) if same is not None and alike else None,
    )  # fmt: skip


def _comparison(task: Task, other: Task) -> Callable[[Any, Any], bool] | None:
    """How a test label of one task is compared with a training label of the other; None where they say different things."""
    # Such a quantity is one number, whatever words a task has for it; others (thermoelectric) are whole families.
    quantities = set(task.quantities) & set(other.quantities) & set(_ZERO)
    if task.kind == other.kind == "regression":
        # Whatever they are called, numbers in one unit that agree are suspicious (see `Audit.twins`).
        if task.unit != other.unit or (task.unit is None and task.property != other.property and not quantities):
            return None
        digits = task.decimals
        return lambda test, train: bool(round(float(test), digits) == round(float(train), digits))
    if task.kind == other.kind:
        return (lambda test, train: bool(test == train)) if set(task.labels) == set(other.labels) else None
    for quantity in quantities:
        zero, above = _ZERO[quantity]
        if {zero, above} == set(task.labels):
            return lambda test, train: bool(test == (zero if train == 0 else above))
        if {zero, above} == set(other.labels):
            return lambda test, train: bool(train == (zero if test == 0 else above))
    return None


def _cost(split: Split, task: str, fold: int) -> Cost:
    prefix = f"{task}: "
    reasons = {text.removeprefix(prefix): n for text, n in split.removed.items() if text.startswith(prefix)}
    removed = sum(count for reason, count in reasons.items() if reason.startswith(BY_KEY))
    return Cost(task=task, fold=fold, training_rows=split.kept[task] + removed, removed=removed, reasons=reasons)
