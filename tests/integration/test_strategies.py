"""Units of the strategy comparison on tiny tasks: run, skipped, gone on with; and the recipes of the strategies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tiny import tiny_base, tiny_task, tiny_tokenizer

from matdarwin.evaluation.protocol import score_task
from matdarwin.language.prompts import style
from matdarwin.models.base import Base
from matdarwin.studies import strategies, strategies_units
from matdarwin.studies.strategies_plan import Pace, costs, measure, plan, side_by_side, units_of
from matdarwin.studies.strategies_summary import read_summary
from matdarwin.studies.strategies_units import REDUCED, Size, Unit, UnitResult, finished, recipe_of, rows_of, run_unit
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training import plan as plans
from matdarwin.training.errors import TrainingError
from matdarwin.training.plan import PlannedStage
from matdarwin.training.recipe import split_of
from matdarwin.training.recipe_files import load_for_tasks, load_recipe
from matdarwin.training.report import Silent
from matdarwin.training.stages import Run, stage_feed

RECIPES = Path(__file__).parents[2] / "recipes"
STRATEGIES = [f"{first}-{second}" for first in ("base", "qa", "random", "know") for second in ("st", "mt")]


@pytest.fixture
def size(home: Path, monkeypatch: pytest.MonkeyPatch) -> Size:
    """Two tiny tasks, and a third that teaches before them, as if they were of the library; recipes of all strategies."""
    monkeypatch.chdir(home)
    monkeypatch.setattr(plans, "_MEASURED", 0.05)
    known: dict[str, Task] = {
        "tiny_gap": tiny_task(home),
        "tiny_metal": tiny_task(home, kind="classification"),
        "tiny_energy": tiny_task(home, id="tiny_energy", origin="computed", scored=False, quantities=["tiny energy"]),
    }
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda name: known[name] if name in known else load(name))
    common: dict[str, Any] = {
        "base": str(tiny_base(home / "base")), "dtype": "fp32", "optimising": {"learning_rate": 1e-2},
        "predicting": {"batch_size": 32},
    }  # fmt: skip
    for strategy in STRATEGIES:
        recipe = {"name": strategy, "tasks": ["tiny_gap"], **common}
        if strategy.endswith("mt"):
            recipe["tasks"] = ["tiny_gap", "tiny_metal"]
        if strategy.startswith("know"):
            recipe["before"] = [{"name": "knowledge", "tasks": ["tiny_energy"], "optimising": {"epochs": 1}}]
        (home / "recipes").mkdir(exist_ok=True)
        (home / "recipes" / f"{strategy}.yaml").write_text(yaml.safe_dump(recipe))
    return Size(
        "tiny", rows=64, test_rows=20, examples=80, batch_size=16, folder=home / "out", recipes=home / "recipes"
    )


def test_a_finished_unit_is_skipped_and_a_killed_one_is_run_again(size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = Unit("base-st", "tiny_gap")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(strategies_units, "score_task", killed)
    with pytest.raises(KeyboardInterrupt):
        strategies.run(size, only=[unit.id])
    assert not unit.path(size).exists() and not finished(unit, size)
    monkeypatch.setattr(strategies_units, "score_task", score_task)
    assert strategies.run(size, only=[unit.id]) == []
    assert finished(unit, size)
    before = unit.path(size).read_bytes()
    result = UnitResult.model_validate_json(before)
    assert result.tasks["tiny_gap"].rows == {"train": 64, "test": 20}
    scored = result.tasks["tiny_gap"].models["base_st"]
    assert scored.value == scored.score.mae_pessimistic and len(scored.answers) == 20  # type: ignore[union-attr]
    assert result.training["steps"] == 80 // 16

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished unit was run again")

    monkeypatch.setattr(strategies, "run_unit", never)
    assert strategies.run(size, only=[unit.id]) == [] and unit.path(size).read_bytes() == before
    summary = read_summary(size.folder)
    assert summary is not None and summary.missing["base_st"] == ["tiny_metal"] and not summary.complete
    assert (size.folder / "figure2.png").is_file()


def test_a_changed_recipe_makes_its_units_anew(size: Size) -> None:
    unit = Unit("random-st", "tiny_metal")
    run_unit(unit, size, Silent())
    assert finished(unit, size)
    file = size.recipes / "random-st.yaml"
    file.write_text(file.read_text() + "seed: 5\n")
    strategies_units._recipe_of_all.cache_clear()
    assert not finished(unit, size)
    assert "of older recipes or data, and left out: random-st.tiny_metal" in strategies.summary(size)
    found = read_summary(size.folder)
    assert found is not None and found.tasks == {} and "tiny_metal" in found.missing["random_st"]


def test_models_of_one_task_are_not_kept_those_of_all_are(size: Size, home: Path) -> None:
    run_unit(Unit("base-st", "tiny_metal"), size, Silent())
    run_unit(Unit("random-st", "tiny_metal"), size, Silent(), keep=True)
    done = run_unit(Unit("base-mt"), size, Silent())
    kept = {
        folder.name.split("-tiny_")[0] for folder in (home / "checkpoints").iterdir() if not folder.name.startswith(".")
    }
    assert kept == {"tiny-random-st", "tiny-base-mt"}
    # As many examples of each task as a single-task model sees, on average.
    assert done.training["steps"] == 2 * 80 // 16 and set(done.tasks) == {"tiny_gap", "tiny_metal"}


def test_a_model_of_another_division_is_not_scored(size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = Unit("base-mt")
    run_unit(unit, size, Silent())
    real = strategies_units.rows_of

    def other(*given: Any) -> Any:
        split = real(*given)
        train, test = (dict(getattr(split, part)) for part in ("train", "test"))
        train["tiny_gap"], test["tiny_gap"] = test["tiny_gap"], train["tiny_gap"][: len(test["tiny_gap"])]
        return replace(split, train=train, test=test)

    monkeypatch.setattr(strategies_units, "rows_of", other)
    with pytest.raises(TrainingError, match="taught by another division of the rows of tiny_gap"):
        run_unit(unit, size, Silent())


def test_one_failing_unit_does_not_stop_the_others(size: Size, monkeypatch: pytest.MonkeyPatch) -> None:

    def failing(unit: Unit, *args: Any, **options: Any) -> UnitResult:
        if unit.task == "tiny_gap":
            raise TrainingError("the loss is nan")
        return run_unit(unit, *args, **options)

    monkeypatch.setattr(strategies, "run_unit", failing)
    assert strategies.run(size, only=["random_st"]) == ["random-st.tiny_gap: the loss is nan"]
    assert finished(Unit("random-st", "tiny_metal"), size) and not finished(Unit("random-st", "tiny_gap"), size)


def test_units_side_by_side_are_all_done_whatever_one_of_them_meets(
    size: Size, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a thread, since the tiny tasks are known in this process alone."""
    made: list[int] = []

    def pool(jobs: int, **_: object) -> ThreadPoolExecutor:
        made.append(jobs)
        return ThreadPoolExecutor(1)

    def failing(unit: Unit, *args: Any, **options: Any) -> UnitResult:
        if unit.id == "random-st.tiny_gap":
            raise RuntimeError("an accelerator's own error")
        return run_unit(unit, *args, **options)

    monkeypatch.setattr(strategies, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(strategies, "run_unit", failing)
    faults = strategies.run(size, only=["base-st", "random-st"], jobs=3)
    assert made == [3] and faults == ['random-st.tiny_gap: RuntimeError("an accelerator\'s own error")']
    done = [Unit(strategy, task) for strategy in ("base-st", "random-st") for task in ("tiny_gap", "tiny_metal")]
    assert [finished(unit, size) for unit in done] == [True, True, False, True]
    assert "3 of 4" in (said := capsys.readouterr().out) and "scores are missing yet" in said
    with pytest.raises(ValueError, match="--minutes: only with one job"):
        strategies.run(size, jobs=2, minutes=5)


def test_units_side_by_side_come_in_an_order_in_which_none_waits_long(size: Size) -> None:
    by_task = costs(size)
    order = [unit.id for unit in side_by_side(units_of(by_task), by_task)]
    assert set(order[:2]) == {"qa-mt", "know-mt"}, "they train the earlier stages"
    assert set(order[2:4]) == {"base-mt", "random-mt"}, "they take the longest"
    assert {name.partition(".")[0] for name in order[-2:]} == {"qa-st"}, "they wait for an earlier stage"
    assert len(order) == len(units_of(by_task))


def test_no_unit_begins_that_would_end_too_late(size: Size) -> None:
    assert strategies.run(size, only=["base-mt"], minutes=0) == []
    assert not Unit("base-mt").path(size).exists()
    with pytest.raises(ValueError, match="of the strategies rivals, base-st"):
        strategies.run(size, only=["base-sst"])


def test_an_earlier_stage_is_time_of_the_first_unit_that_needs_it(
    size: Size, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_task = costs(size)
    pace = measure(size, {"know-mt", "base-st"})
    (stage,) = pace.stages["know"]
    assert pace.tokens_per_second > 0 and not stage.stands and stage.seconds > 0 and set(pace.stages) == {"know"}
    know, base = Unit("know-mt"), Unit("base-mt")
    waited = pace.seconds(know, by_task) - pace.seconds(base, by_task)
    assert waited == pytest.approx(stage.seconds)
    pace.began(know)
    assert pace.seconds(know, by_task) == pace.seconds(base, by_task)
    hour = PlannedStage("qa", "qa-1", 100, 10, 1_000, 3600.0, stands=False)
    monkeypatch.setattr(strategies, "measure", lambda *_: Pace(1e6, {"qa": (hour,)}))
    assert strategies.run(size, only=["qa-st"], minutes=30) == []
    assert capsys.readouterr().out.count("left for another time: about 60 minutes") == 2


def test_a_stage_that_stands_takes_no_time(size: Size) -> None:
    run_unit(Unit("know-mt"), size, Silent())
    pace = measure(size, {"know-mt"})
    assert [stage.stands for stage in pace.stages["know"]] == [True]
    assert pace.seconds(Unit("know-mt"), costs(size)) == Pace(pace.tokens_per_second).seconds(
        Unit("know-mt"), costs(size)
    )
    assert "which stands" in plan(size, pace)


def test_rivals_see_the_rows_that_the_models_see(size: Size) -> None:
    done = run_unit(Unit("rivals", "tiny_metal"), size, Silent())
    task = done.tasks["tiny_metal"]
    assert task.rows == {"train": 64, "test": 20} and {"dummy", "random_forest", "lightgbm"} <= task.models.keys()
    assert task.models["dummy"].value == task.models["dummy"].score.macro_f1  # type: ignore[union-attr]


def test_all_strategies_have_the_same_rows_and_a_stage_has_all_of_its_own(size: Size) -> None:
    tasks = {name: registry.load(name) for name in ("tiny_gap", "tiny_metal")}

    def rows(unit: Unit) -> Any:
        recipe = recipe_of(unit, size)
        return rows_of(recipe, [tasks[name] for name in recipe.tasks], size)

    single, several, knowing = rows(Unit("base-st", "tiny_gap")), rows(Unit("base-mt")), rows(Unit("know-mt"))
    for split in (several, knowing):
        assert split.train["tiny_gap"] == single.train["tiny_gap"] and split.test["tiny_gap"] == single.test["tiny_gap"]
    assert set(single.train) == {"tiny_gap"} and single.targets == ("tiny_gap",)
    assert len(single.train["tiny_gap"]) == 64 < len(knowing.train["tiny_energy"])
    alone = rows(Unit("know-st", "tiny_metal"))
    assert alone.train["tiny_energy"] == knowing.train["tiny_energy"], "one stage serves every model"
    done = run_unit(Unit("know-mt"), size, Silent())
    assert done.knowledge == ["tiny_energy"] and done.training["earlier"][0].startswith("knowledge-")


def test_plan_and_order(size: Size) -> None:
    units = units_of(costs(size))
    assert len(units) == len(set(units)) == 2 + 3 * 2 + 4
    assert [unit.strategy for unit in units[:5]] == ["rivals", "rivals", "base-st", "random-st", "qa-st"]
    text = plan(size, measure(size, {unit.strategy for unit in units}), [units[0]])
    assert "rivals: 2 units (1 to do)" in text and "stage knowledge: " in text
    assert text.splitlines()[-1].startswith("all: ") and text.endswith(" to do")
    # A stage that only finished units would need is not to do.
    pace = Pace(100.0, {"know": (PlannedStage("knowledge", "knowledge-1", 100, 10, 36_000, 360.0, stands=False),)})
    nothing, all_but_know = (
        plan(size, pace, units),
        plan(size, pace, [unit for unit in units if unit.strategy != "know-mt"]),
    )
    assert "0.10 hours, not to do" in nothing and nothing.endswith("; 0.0 to do")
    assert "0.10 hours, once" in all_but_know and not all_but_know.endswith("; 0.0 to do")
    # Trees are fitted at no rate of tokens.
    assert measure(size, {"rivals"}).seconds(units[0], costs(size)) < 60


def test_recipes_of_the_strategies_share_their_stages() -> None:
    recipes = {name: load_recipe(RECIPES / f"{name}.yaml") for name in STRATEGIES}
    assert len(recipes["base-mt"].tasks) == 22
    for first in ("base", "qa", "random", "know"):
        single, several = recipes[f"{first}-st"], recipes[f"{first}-mt"]
        assert several.before == single.before and several.tasks == recipes["base-mt"].tasks
        # A stage is found by what it begins with, too.
        assert (several.weights, several.dtype, several.prompting, several.seed) == (
            single.weights, single.dtype, single.prompting, single.seed,
        )  # fmt: skip
        assert several.split.folds == "aligned" and several.sampling == recipes["base-mt"].sampling
    assert [stage.name for stage in recipes["qa-mt"].before] == ["qa"] and not recipes["random-mt"].before
    # As docs/training.md has it for sharded weights.
    whole = load_recipe(RECIPES / "qa-mt.yaml", ["before.qa.optimising.embeddings=trained"])
    assert whole.before[0].optimising.embeddings == "trained"
    assert recipes["random-st"].weights == recipes["random-mt"].weights == "random"
    knowledge = recipes["know-st"].before[0]
    assert all(registry.load(name).origin == "computed" and not registry.load(name).scored for name in knowledge.tasks)


@pytest.mark.parametrize("strategy", ["base-st", "qa-st", "random-st", "base-mt", "qa-mt", "random-mt", "know-mt"])
def test_all_strategies_obey_the_same_limits(strategy: str) -> None:
    unit = Unit(strategy, "steels_yield" if strategy.endswith("st") else None)
    recipe = recipe_of(unit, Size(**{**REDUCED.__dict__, "recipes": RECIPES}))
    assert recipe.name == f"reduced-{strategy}" and recipe.fold == 0 and recipe.split.folds == "aligned"
    assert (recipe.optimising.examples, recipe.optimising.batch_size) == (REDUCED.examples, REDUCED.batch_size)
    assert (recipe.split.limit, recipe.split.test_limit) == (REDUCED.rows, REDUCED.test_rows)
    assert recipe.sampling.rule == "equal" and recipe.optimising.learning_rate == 1.5e-4
    assert recipe.optimising.epochs == 5, "what base-st grants one task alone is not for the comparison"


@pytest.mark.mirror
def test_two_tasks_share_one_knowledge_stage(mirror: Path, tmp_path: Path) -> None:
    def stage_of(task: str, fold: int) -> str:
        (recipe,) = load_for_tasks(RECIPES / "know-st.yaml", [task], [f"fold={fold}"])
        tasks = [registry.load(task)]
        run = Run(
            recipe=recipe, tasks=tasks, split=split_of(recipe, tasks), base=Base("tiny", tmp_path, "0"),
            style=style("compact"), model=None, tokenizer=tiny_tokenizer(), name="x", report=Silent(), compute=None,
            folder=tmp_path, save_every=1.0,
        )  # fmt: skip
        feed = stage_feed(run, recipe.before[0])
        assert feed.size == 40_000
        return feed.digest()

    assert stage_of("expt_gap", 0) == stage_of("esol", 3)
