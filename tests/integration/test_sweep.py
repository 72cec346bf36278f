"""Sweeps: scored on validation rows alone, gone on with where they stood, and tidy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from matdarwin import cli
from matdarwin.models.checkpoint import Checkpoint, checkpoints_folder
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks.schema import Example, Task
from matdarwin.training import sweep as module
from matdarwin.training.errors import TrainingError
from matdarwin.training.recipe import Recipe, split_of
from matdarwin.training.recipe_files import RecipeError, load_recipe
from matdarwin.training.sweep import Outcome, overall, sweep
from matdarwin.training.vary import SweepError, parse
from tiny import tiny_base, tiny_recipe, tiny_task

RATE, EPOCHS = "optimising.learning_rate=log:1e-3:1e-2", "optimising.epochs=int:1:3"


@pytest.fixture
def recipe(home: Path, tmp_path: Path) -> Path:
    """A recipe file with a test fold and a validation part."""
    file = tmp_path / "tiny_gap.yaml"
    file.write_text(tiny_task(tmp_path).model_dump_json(exclude_none=True))
    made = tiny_recipe(tiny_base(tmp_path / "base"), [str(file)], fold=1, split={"folds": "seeded", "validation": 0.2})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(made.model_dump(mode="json")))
    return tmp_path / "recipe.yaml"


class Trained:
    """In place of training: a folder, and a validation score that the settings decide; best at a rate of 0.004."""

    def __init__(self) -> None:
        self.recipes: list[Recipe] = []
        self.fails: Callable[[int], Exception | None] = lambda number: None

    def __call__(self, recipe: Recipe, *, tasks: Sequence[Task], report: Any) -> Any:
        self.recipes.append(recipe)
        name = module.checkpoint_name(recipe, module.recipe_hash(recipe, tasks, module.find_base(recipe.base)))
        if (error := self.fails(len(self.recipes))) is not None:
            (checkpoints_folder() / f".{name}.run").mkdir(parents=True)
            raise error
        (checkpoints_folder() / name).mkdir(parents=True, exist_ok=True)
        score = 0.1 + abs(recipe.optimising.learning_rate - 0.004) * 100
        return SimpleNamespace(card=SimpleNamespace(training={"validation": {"tiny_gap": ("mae", score)}}))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    made = Trained()
    monkeypatch.setattr(module, "train", made)
    return made


def standing(home: Path) -> set[str]:
    return {path.name for path in (home / "checkpoints").iterdir() if path.is_dir()}


def run(recipe: Path, *vary: str, **options: Any) -> Outcome:
    return sweep(recipe, [parse(text) for text in vary or (RATE,)], **options)


def test_a_real_sweep_asks_for_validation_rows_alone(
    recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: set[str] = set()
    distributions = Predictor.distributions

    def listen(
        self: Predictor, task: Task, examples: Sequence[Example], **options: Any
    ) -> list[AnswerDistribution | None]:
        asked.update(example.material.key for example in examples)
        return distributions(self, task, examples, **options)

    monkeypatch.setattr(Predictor, "distributions", listen)
    code = cli.run(["sweep", str(recipe), "--vary", RATE, "--vary", EPOCHS, "--trials", "2", "--json"])
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert [trial["number"] for trial in found["trials"]] == [1, 2] and len(found["set"]) == 2
    from matdarwin.tasks import registry

    chosen = load_recipe(recipe)
    split = split_of(chosen, [registry.load(chosen.tasks[0])])
    keys = {
        part: {e.material.key for e in getattr(split, part)["tiny_gap"]}
        for part in ("validation", "calibration", "test")
    }
    assert keys["test"] and keys["validation"] <= asked <= keys["validation"] | keys["calibration"]
    # The best one's checkpoint is whole, and is what training with the printed settings would find.
    best = Checkpoint.open(home / "checkpoints" / found["best"]["checkpoint"])
    assert standing(home) == {best.name}
    assert best.card.training["validation"]["tiny_gap"] == found["best"]["validation"]["tiny_gap"]
    again = load_recipe(recipe, found["set"])
    assert best.card.recipe == again.model_dump(mode="json")


def test_a_sweep_that_was_broken_off_goes_on_as_it_would_have(
    recipe: Path, home: Path, trained: Trained, tmp_path: Path
) -> None:
    whole = run(recipe, trials=5)
    (home / "sweeps").rename(tmp_path / "first")
    for name in standing(home):
        (home / "checkpoints" / name).rmdir()

    stop = len(trained.recipes) + 4

    def broken(number: int) -> Exception | None:
        return MemoryError("stopped") if number == stop else None

    trained.fails = broken
    with pytest.raises(MemoryError):
        run(recipe, trials=5)
    # As a process that is killed while it writes leaves it.
    (file,) = (home / "sweeps").glob("*/trials.jsonl")
    file.write_text(file.read_text() + '{"number": 4, "sett')
    done = len(trained.recipes)
    again = run(recipe, trials=5)
    assert len(trained.recipes) == done + 2
    assert [trial.settings for trial in again.trials] == [trial.settings for trial in whole.trials]
    assert again.best.settings == whole.best.settings and again.best.score == whole.best.score
    assert standing(home) - {f".{trial.checkpoint}.run" for trial in again.trials} == {again.best.checkpoint}
    # More of the same sweep later, and nothing twice.
    assert len(run(recipe, trials=6).trials) == 6 and len(trained.recipes) == done + 3


def test_only_the_best_is_kept_unless_all_are_and_what_stood_before_stays(
    recipe: Path, home: Path, trained: Trained
) -> None:
    first = run(recipe, trials=3)
    others = [trial for trial in first.trials if trial.number != first.best.number]
    assert standing(home) == {first.best.checkpoint}
    # Someone trained with the settings of a worse trial before another sweep tries them.
    (home / "checkpoints" / others[0].checkpoint).mkdir()
    for folder in (home / "sweeps").iterdir():
        (folder / "trials.jsonl").unlink()
        (folder / "begun.json").unlink()
    assert run(recipe, trials=3).best.settings == first.best.settings
    assert standing(home) == {first.best.checkpoint, others[0].checkpoint}
    kept = run(recipe, trials=3, seed=1, keep=True)
    assert standing(home) == {first.best.checkpoint, others[0].checkpoint} | {trial.checkpoint for trial in kept.trials}


def test_the_same_settings_are_trained_once(recipe: Path, trained: Trained) -> None:
    found = run(recipe, "optimising.epochs=int:1:2", trials=6)
    assert len(found.trials) == 6 and len(trained.recipes) == 2
    repeats = [trial for trial in found.trials if trial.repeats is not None]
    assert len(repeats) == 4
    for trial in repeats:
        original = found.trials[(trial.repeats or 0) - 1]
        assert (trial.settings, trial.score, original.repeats) == (original.settings, original.score, None)


def test_a_trial_that_fails_is_told_and_passed_over(recipe: Path, home: Path, trained: Trained) -> None:
    trained.fails = lambda number: TrainingError("the loss is nan at step 3") if number == 1 else None
    found = run(recipe, trials=3)
    assert found.trials[0].reason == "the loss is nan at step 3" and found.trials[0].score is None
    assert found.best.number != 1 and standing(home) == {found.best.checkpoint}


def test_settings_that_exclude_one_another_are_a_trial_that_failed(recipe: Path, trained: Trained) -> None:
    """Each of them may be set, so that only the trial that draws both tells."""
    method, weights = "method=choice:full,lora", "weights=choice:pretrained,random"
    found = run(recipe, method, weights, trials=8)
    failed = [trial for trial in found.trials if trial.reason is not None]
    assert failed and all(set(trial.settings) == {"method=lora", "weights=random"} for trial in failed)
    assert "low-rank updates of random weights learn nothing" in str(failed[0].reason) and failed[0].checkpoint == ""
    assert len(found.trials) == 8 and found.best.reason is None


def test_a_full_disk_is_no_fault_of_the_settings(recipe: Path, home: Path, trained: Trained) -> None:
    def full(number: int) -> Exception:
        error = TrainingError("the disk is full")
        error.__cause__ = OSError(28, "No space left on device")
        return error

    trained.fails = full
    with pytest.raises(TrainingError, match="the disk is full"):
        run(recipe, trials=3)
    assert not list((home / "sweeps").glob("*/trials.jsonl"))


def test_where_no_trial_can_be_trained_the_reason_is_told(recipe: Path, trained: Trained) -> None:
    trained.fails = lambda number: TrainingError("the loss is nan")
    with pytest.raises(SweepError, match="none of 2 trials could be trained; the last one: the loss is nan"):
        run(recipe, trials=2)


def test_no_trial_is_begun_when_the_time_is_up(recipe: Path, trained: Trained) -> None:
    assert len(run(recipe, trials=4, minutes=0).trials) == 1
    assert len(run(recipe, trials=4, minutes=0).trials) == 2


def test_what_could_not_work_is_refused_before_anything_is_trained(recipe: Path, trained: Trained, home: Path) -> None:
    with pytest.raises(SweepError, match=r"split\.validation 0.*--set split\.validation=0\.1"):
        run(recipe, trials=1, settings=["split.validation=0"])
    with pytest.raises(RecipeError, match="did you mean learning_rate"):
        run(recipe, "optimising.learning_rat=log:1e-3:1e-2", trials=1)
    with pytest.raises(RecipeError, match="epochs"):
        run(recipe, "optimising.epochs=int:0:3", trials=1)
    assert trained.recipes == [] and not (home / "sweeps").exists()


def test_a_second_process_is_refused(recipe: Path, home: Path, trained: Trained) -> None:
    from filelock import FileLock

    run(recipe, trials=1)
    (folder,) = (home / "sweeps").iterdir()
    with FileLock(folder / "lock"), pytest.raises(SweepError, match="another process is at this sweep"):
        run(recipe, trials=2)


def test_tasks_of_different_scales_are_weighed_alike() -> None:
    assert overall({"gap": ("mae", 0.5)}, {"gap": 2.0}) == 0.25
    assert overall({"gap": ("mae", 0.5), "metal": ("accuracy", 0.9)}, {"gap": 2.0}) == pytest.approx((0.25 + 0.1) / 2)


def test_the_command_prints_a_table_and_arguments(
    recipe: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["sweep", str(recipe), "--vary", RATE, "--trials", "3"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].startswith("--set optimising.learning_rate=0.00")
    assert "best" in told.out and "tiny_gap mae" in told.out
    assert f"darwin evaluate {recipe} --set optimising.learning_rate=0.00" in told.err
    assert cli.run(["sweep", str(recipe), "--vary", "epochs"]) == 2
    assert "error: --vary epochs: write KEY=log:LOW:HIGH" in capsys.readouterr().err
