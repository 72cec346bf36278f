"""The typed files of a score: one for each task and fold, and one that sums a task's folds up beside its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from matdarwin.data import disk
from matdarwin.evaluation.board import BoardRow
from matdarwin.evaluation.metrics import ClassificationScore, FoldScore, RegressionScore, over_folds

RESULTS = Path("results")
FORMAT = 1


class _Typed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(_Typed):
    """What the model answered for one test row; its target and material stay in the data set."""

    row: str = Field(description="The row's id in its source.")
    median: float | None = None
    mean: float | None = None
    mode: float | None = None
    lower: float | None = None
    upper: float | None = None
    probabilities: dict[str, float] | None = None
    outside: float | None = Field(default=None, description="Mass outside the answer format.")
    unexpanded: float | None = Field(default=None, description="Mass of pruned branches.")
    assumed_ends: float | None = Field(default=None, description="Mass of answers whose end was not scored.")
    reason: str | None = Field(default=None, description="Why nothing was read.")


class FoldResult(_Typed):
    """One task, one test fold, one seed."""

    format: int = FORMAT
    task: str
    strategy: str = Field(description="Name of the recipe.")
    fold: int
    seed: int
    folds: str = Field(description="Whose folds: official, aligned or seeded.")
    recipe: dict[str, Any]
    recipe_hash: str
    data_sha256: str
    commit: str | None = Field(
        default=None, description="Commit of the code that trained; with `-dirty` where its source differed."
    )
    scored_commit: str | None = Field(default=None, description="The same of the code that scored.")
    checkpoint: str
    counts: dict[str, int] = Field(description="Rows that taught, chose, calibrated, were tested and removed.")
    training: dict[str, Any]
    predicting: dict[str, Any] = Field(description="Views, number format, batch size, rows per second.")
    coverage: float = Field(description="Nominal coverage of the intervals.")
    scores: dict[str, FoldScore] = Field(description="By way of answering: median, mean, mode; or weighted, plain.")
    groups: dict[str, dict[str, FoldScore]] = Field(default_factory=dict, description="The same for parts of the rows.")
    baselines: dict[str, FoldScore]
    baseline_seconds: dict[str, float]
    answers: list[Answer]
    knowledge: list[str] = Field(default_factory=list, description="Knowledge beyond the task's rows that was used.")
    leaky: bool = Field(
        default=False,
        exclude_if=lambda leaky: not leaky,
        description="Whether test materials taught, by the audit; such a score is no score.",
    )
    machine: dict[str, Any]


class BoardResult(_Typed):
    """One task over its folds."""

    format: int = FORMAT
    task: str
    title: str
    metric: str
    unit: str | None = None
    strategy: str
    recipe: dict[str, Any]
    recipe_hashes: list[str]
    commit: list[str | None] = Field(description="Commits of the code that trained the folds.")
    seeds: list[int]
    folds_scheme: str
    summary: dict[str, Any]
    metals: dict[str, Any] | None = None
    non_metals: dict[str, Any] | None = None
    folds: list[dict[str, Any]]
    baselines: dict[str, dict[str, Any]]
    board: list[BoardRow]
    knowledge: list[str]
    leaky: bool = Field(
        default=False, exclude_if=lambda leaky: not leaky, description="Whether test materials taught in any fold."
    )
    machine: dict[str, Any]
    complete: bool = Field(description="Whether all five folds are in.")

    @property
    def path(self) -> Path:
        """Where the file stands."""
        return board_path(self.task, self.strategy)

    def table(self) -> list[tuple[str, dict[str, float | None]]]:
        """Rows for people: the model first, then the rivals of the same run.

        The MAE is over all rows: one that was not read counts as if the training median had been answered.
        """
        names: tuple[str, ...] = (
            ("mae", "rmse", "coverage", "width")
            if self.unit or "mae" in self.summary
            else ("balanced_accuracy", "macro_f1", "roc_auc")
        )
        if self.metric not in names:
            names = (self.metric, *names)
        way = way_of(self.metric)
        flat = {k: v.get(way) if isinstance(v, dict) else v for k, v in self.summary.items()}
        if "mae_pessimistic" in flat:
            # Rivals answer every row.
            flat["mae"] = flat["mae_pessimistic"]
        if flat.get("unread"):
            names = (*names, "unread")
        rows = [(f"{self.strategy} (LEAKY)" if self.leaky else self.strategy, {name: flat.get(name) for name in names})]
        rows += [(name, {key: scores.get(key) for key in names}) for name, scores in self.baselines.items()]
        return rows


def way_of(metric: str) -> Literal["mean", "median"]:
    """The way of answering with a number that is best by a metric."""
    return "mean" if metric == "rmse" else "median"


def fold_path(task: str, strategy: str, fold: int, recipe_hash: str) -> Path:
    """Where the result of one fold stands."""
    return RESULTS / "board" / "folds" / f"{task}.{strategy}.fold{fold}-{recipe_hash[:8]}.json"


def board_path(task: str, strategy: str) -> Path:
    """Where the result over all folds stands."""
    return RESULTS / "board" / f"{task}.{strategy}.json"


def write(result: BaseModel, path: Path) -> Path:
    """Write a result file in one step; a reader sees the old one or the new one."""
    disk.write_whole(path, result.model_dump_json(indent=1, exclude_none=True) + "\n")
    return path


def without_fold(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe as all of its folds have it."""
    return {key: value for key, value in recipe.items() if key not in ("fold", "overrides", "description")}


def summarise(
    results: list[FoldResult], *, title: str, metric: str, unit: str | None, board: list[BoardRow]
) -> BoardResult:
    """Sum the folds of one task up.

    Means are over folds, as the board takes them; coverage and width are pooled over the rows of all folds.
    """
    first = results[0]
    return BoardResult(
        task=first.task,
        title=title,
        metric=metric,
        unit=unit,
        strategy=first.strategy,
        recipe=without_fold(first.recipe),
        recipe_hashes=[r.recipe_hash for r in results],
        commit=list(dict.fromkeys(r.commit for r in results)),
        seeds=sorted({r.seed for r in results}),
        folds_scheme=first.folds,
        summary=_means([r.scores for r in results]) | {"seconds": _seconds(results)},
        metals=_means([r.groups["metals"] for r in results]) if all("metals" in r.groups for r in results) else None,
        non_metals=_means([r.groups["non_metals"] for r in results])
        if all("non_metals" in r.groups for r in results)
        else None,
        folds=[r.model_dump(mode="json", exclude={"answers", "recipe", "machine"}, exclude_none=True) for r in results],
        baselines={
            name: _plain(over_folds([r.baselines[name] for r in results]))
            for name in first.baselines
            if all(name in r.baselines for r in results)
        },
        board=board,
        knowledge=first.knowledge,
        leaky=any(r.leaky for r in results),
        machine=first.machine,
        complete={r.fold for r in results} == set(range(5)),
    )


def _means(folds: list[dict[str, FoldScore]]) -> dict[str, Any]:
    ways = list(folds[0])
    by_way = {way: _plain(over_folds([fold[way] for fold in folds])) for way in ways}
    main = [fold[ways[0]] for fold in folds]
    found: dict[str, Any] = {"rows": sum(s.rows for s in main), "unread": sum(s.unread for s in main)}
    if isinstance(main[0], ClassificationScore):
        found |= by_way[ways[0]]
        found["answered_as"] = ways[0]
        found["by_answer"] = by_way
        return found
    for name in ("mae", "rmse", "mae_pessimistic"):
        found[name] = {way: by_way[way].get(name) for way in ways}
    found["mae_std"] = over_folds(main)["mae"].std if "mae" in by_way[ways[0]] else None
    held = [s for s in main if isinstance(s, RegressionScore) and s.coverage is not None and s.width is not None]
    if held:
        count = sum(s.rows - (s.without_interval or 0) for s in held)
        found["coverage"] = sum((s.coverage or 0) * (s.rows - (s.without_interval or 0)) for s in held) / count
        found["width"] = sum((s.width or 0) * (s.rows - (s.without_interval or 0)) for s in held) / count
    return found


def _plain(means: dict[str, Any]) -> dict[str, float]:
    return {name: mean.mean for name, mean in means.items()}


def _seconds(results: list[FoldResult]) -> dict[str, float]:
    return {
        "training": round(sum(float(r.training["seconds_with_calibration"]) for r in results), 1),
        "predicting": round(sum(float(r.predicting["seconds"]) for r in results), 1),
    }
