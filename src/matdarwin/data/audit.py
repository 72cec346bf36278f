"""The leak audit: which test materials stand among what a model learns from, counted pair by pair of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from matdarwin.data import agreement
from matdarwin.data.evidence import Presence
from matdarwin.data.folds import Scheme
from matdarwin.data.leakage import BY_KEY, Leak, Rows, Rule, Split, by_key, check, matches, related
from matdarwin.data.near import Near, near_duplicates
from matdarwin.tasks.schema import Example, Task

Verdict = Literal["CLEAN", "LEAKY"]

TUNE = "tune"
"""The stage in which a model is taught its own tasks, the last."""

_EXAMPLES = 3
_TWIN = 0.5
"""Cohen's kappa from which on tasks of differing quantities have the same data."""
_TWIN_COMPUTED = 0.9
"""The same where one is computed. What is computed well agrees with what is measured: most metals have a computed gap of 0."""


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
        labels_by_chance: Those that would agree if the labels that were met were dealt out at random.
    """

    stage: str
    train_rows: int
    labels_compared: int
    labels_agree: int
    examples: tuple[Hit, ...]
    labels_by_chance: float = 0.0

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance, at most 1; None where labels could not be compared, or where all that were met are one."""
        return agreement.kappa(self.labels_agree, self.labels_compared, self.labels_by_chance)

    def is_twin(self, least: float) -> bool:
        """Whether the labels agree so well, beyond chance, that both tasks have the same data; from which kappa on."""
        return agreement.are_one(self.labels_agree, self.labels_compared, self.labels_by_chance, least)


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
        held_out: Those that are kept from training; no score of ours uses them.
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
        base: What the base model was taught before that may have been test materials of these folds.
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
    base: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """LEAKY where a test material stands in training of its quantity, in two parts of a split, or among `twins`.

        And where the base may have learnt it.
        """
        leaky = self.faults or self.base or self.twins or any(pair.found for pair in self.pairs)
        return "LEAKY" if leaky else "CLEAN"

    @property
    def twins(self) -> tuple[Pair, ...]:
        """Pairs of differing quantities whose labels agree beyond chance: the same data under another name.

        What is computed is knowledge and no leak, unless nearly all of it agrees. Quantities that are the same need no
        labels: what is found of them is a leak.
        """
        same = {(pair.task, pair.train_task) for pair in self.pairs}
        knowledge = (pair for pair in self.knowledge if (pair.task, pair.train_task) not in same)
        return (
            *(pair for pair in self.elsewhere if pair.is_twin(_TWIN)),
            *(pair for pair in knowledge if pair.is_twin(_TWIN_COMPUTED)),
        )

    @property
    def uncompared(self) -> tuple[Pair, ...]:
        """Pairs of differing quantities with materials in common of whose labels nothing can be said.

        Too few can be compared in every fold, or those that can are all one (see `Pair.kappa`).
        """
        enough = (pair for pair in self.elsewhere if pair.labels_compared >= agreement.FEWEST)
        compared = {_of(pair) for pair in enough if pair.kappa is not None}
        return tuple(pair for pair in self.elsewhere if _of(pair) not in compared)

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
            "uncompared": [_json(pair) for pair in self.uncompared],
            "elsewhere": [_json(pair) for pair in self.elsewhere],
            "knowledge": [_json(pair) for pair in self.knowledge],
            "near_duplicates": [_json(one) for one in self.near],
            "cost": [_json(one) for one in self.cost],
            "faults": list(self.faults),
            "base": list(self.base),
            "texts": [asdict(one) for one in self.texts],
            "evidence": [{"task": task, **presence} for task, presence in self.evidence],
        }


def _of(pair: Pair) -> tuple[str, str, str]:
    return pair.task, pair.train_task, pair.stage


def _json(one: Pair | Near | Cost) -> dict[str, Any]:
    return {**asdict(one), "share": one.share} | ({"kappa": one.kappa} if isinstance(one, Pair) else {})


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
    met = {_of(pair) for pair in elsewhere if pair.found}
    elsewhere = [pair for pair in elsewhere if _of(pair) in met]
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
        for stage, rows_of in stages.items():
            for other in (other for other in split.tasks if other.id in rows_of):
                there = matches(test, indices[stage, other.id])
                alike = [[one for one in rows if one.conditions == row.conditions] for row, rows in there]
                said = agreement.compare(
                    task,
                    other,
                    [(row.target, [one.target for one in rows]) for (row, _), rows in zip(there, alike, strict=True)],
                )
                found = [
                    _hit(row, (same or rows)[0], agree)
                    for (row, rows), same, agree in zip(there, alike, said.agree, strict=True)
                ]
                pair = Pair(
                    task=task.id, train_task=other.id, stage=stage, fold=fold, test_rows=len(test), test_keys=keys,
                    train_rows=len(rows_of[other.id]), found=len(found),
                    labels_compared=sum(agree is not None for agree in said.agree),
                    labels_agree=sum(agree is True for agree in said.agree), labels_by_chance=said.by_chance,
                    examples=tuple(sorted(found, key=lambda hit: hit.agree is not False)[:_EXAMPLES]),
                )  # fmt: skip
                yield pair, task, other


def _hit(row: Example, there: Example, agree: bool | None) -> Hit:
    """One finding: a test row, and the first of the training rows that were measured under the same conditions."""
    return Hit(
        row=row.row, material=row.material.given, target=row.target,
        train_row=there.row, train_material=there.material.given, train_target=there.target, agree=agree,
    )  # fmt: skip


def _cost(split: Split, task: str, fold: int) -> Cost:
    prefix = f"{task}: "
    reasons = {text.removeprefix(prefix): n for text, n in split.removed.items() if text.startswith(prefix)}
    removed = sum(count for reason, count in reasons.items() if reason.startswith(BY_KEY))
    return Cost(task=task, fold=fold, training_rows=split.kept[task] + removed, removed=removed, reasons=reasons)
