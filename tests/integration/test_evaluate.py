"""Scores on folds: what is written, reused, refused, and that a board never loses a fold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny import tiny_base, tiny_recipe, tiny_rows, tiny_task

from matdarwin.evaluation import protocol, results
from matdarwin.evaluation.protocol import EvaluationError, evaluate, evaluate_checkpoint
from matdarwin.evaluation.results import BoardResult, FoldResult
from matdarwin.models.store import find_checkpoint
from matdarwin.tasks.schema import Task
from matdarwin.training.recipe import Recipe
from matdarwin.training.run import train


@pytest.fixture
def work(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def setting(folder: Path, kind: str = "regression") -> tuple[Recipe, Task]:
    # Band gaps: metals and non-metals are scored apart.
    task = tiny_task(folder, kind=kind, quantities=["band gap"])
    return tiny_recipe(tiny_base(folder / "base"), [task], optimising={"epochs": 3}), task


def folds(task: Task) -> dict[int, FoldResult]:
    files = sorted((results.RESULTS / "board" / "folds").glob(f"{task.id}.tiny.fold*.json"))
    read = [FoldResult.model_validate_json(path.read_text()) for path in files]
    return {result.fold: result for result in read}


def test_a_board_keeps_every_finished_fold_and_runs_none_twice(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, task = setting(work)
    (first,) = evaluate(recipe, tasks=[task], folds=[0], baselines=False)
    assert not first.complete and [f["fold"] for f in first.folds] == [0]
    (second,) = evaluate(recipe, tasks=[task], folds=[2], baselines=False)
    assert [f["fold"] for f in second.folds] == [0, 2], "asking for one fold must not lose the other"
    standing = BoardResult.model_validate_json(second.path.read_text())
    assert standing.summary["mae"].keys() == {"median", "mean", "mode"} and standing.baselines == {}
    assert standing.metals is not None and standing.non_metals is not None
    assert standing.metals["rows"] + standing.non_metals["rows"] == standing.summary["rows"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished fold was run again")

    monkeypatch.setattr(protocol, "train", never)
    (third,) = evaluate(recipe, tasks=[task], folds=[0, 2], baselines=False)
    assert third.summary == second.summary


def test_a_fold_without_rivals_gets_them_when_they_are_asked_for_and_its_model_is_left_alone(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, task = setting(work, "classification")
    evaluate(recipe, tasks=[task], folds=[1], baselines=False)
    alone = folds(task)[1]
    assert not alone.baselines

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model that was scored was trained again")

    monkeypatch.setattr(protocol, "train", never)
    (board,) = evaluate(recipe, tasks=[task], folds=[1])
    both = folds(task)[1]
    assert both.baselines and both.baseline_seconds.keys() == both.baselines.keys()
    assert both == alone.model_copy(update={"baselines": both.baselines, "baseline_seconds": both.baseline_seconds})
    assert {"dummy", "random_forest", "extra_trees_median", "lightgbm"} <= board.baselines.keys()
    assert {"balanced_accuracy", "macro_f1", "roc_auc", "by_answer"} <= board.summary.keys()
    rows = [answer.row for answer in folds(task)[1].answers]
    assert len(rows) == len(set(rows)) == board.summary["rows"]


def test_rivals_are_not_put_beside_answers_to_other_rows(work: Path) -> None:
    recipe, task = setting(work)
    evaluate(recipe, tasks=[task], folds=[1], baselines=False)
    (path,) = (work / "results" / "board" / "folds").glob("*.fold1-*.json")
    older = json.loads(path.read_text())
    older["answers"].pop()
    path.write_text(json.dumps(older))
    with pytest.raises(EvaluationError, match=r"fold1-.*\.json has answers to other rows of tiny_gap"):
        evaluate(recipe, tasks=[task], folds=[1])


def test_a_changed_recipe_does_not_write_over_the_board_of_its_name(work: Path) -> None:
    recipe, task = setting(work)
    (board,) = evaluate(recipe, tasks=[task], folds=[0], baselines=False)
    before = board.path.read_bytes()
    changed = recipe.model_copy(update={"seed": 1})
    with pytest.raises(EvaluationError, match=r"it differs in seed.*--set name="):
        evaluate(changed, tasks=[task], folds=[0], baselines=False)
    assert board.path.read_bytes() == before


def test_a_board_from_before_a_key_of_recipes_was_there_is_gone_on_with(work: Path) -> None:
    recipe, task = setting(work)
    (board,) = evaluate(recipe, tasks=[task], folds=[0], baselines=False)
    older = json.loads(board.path.read_text())
    assert older["recipe"]["lora"].pop("rate") == recipe.lora.rate
    board.path.write_text(json.dumps(older))
    (second,) = evaluate(recipe, tasks=[task], folds=[1], baselines=False)
    assert [f["fold"] for f in second.folds] == [0, 1]


def test_fold_models_never_become_what_predict_takes(work: Path) -> None:
    recipe, task = setting(work)
    assert recipe.role == "product"
    evaluate(recipe, tasks=[task], folds=[0], baselines=False)
    with pytest.raises(Exception, match="no sealed product checkpoint"):
        find_checkpoint(None, [])


def test_a_checkpoint_of_another_division_is_not_scored(work: Path) -> None:
    recipe, task = setting(work)
    checkpoint = train(recipe.model_copy(update={"fold": 0}), tasks=[task])
    (whole,) = evaluate_checkpoint(checkpoint, baselines=False)
    assert whole.counts["test"] == len(whole.answers)
    card = checkpoint.card.tasks[task.id]
    other = card.model_copy(update={"parts": card.parts | {"train": "0" * 64}})
    checkpoint.card = checkpoint.card.model_copy(update={"tasks": {task.id: other}})
    with pytest.raises(EvaluationError, match="trained on another division"):
        evaluate_checkpoint(checkpoint, baselines=False)


def test_a_wording_that_was_kept_from_training_can_be_scored(work: Path) -> None:
    words = ("gap of {material}:", "Tell the gap of {material}.", "How wide is the gap of {material}?")
    task = tiny_task(work, quantities=["band gap"], wordings=list(words), held_out_wording=2)
    recipe = tiny_recipe(tiny_base(work / "base"), [task], optimising={"epochs": 3}, fold=0)
    checkpoint = train(recipe, tasks=[task])

    def answers(wording: int | str | None) -> FoldResult:
        (result,) = evaluate_checkpoint(checkpoint, baselines=False, wording=wording)
        return result

    usual, first, kept = answers(None), answers(0), answers("held-out")
    assert "wording" not in usual.predicting and usual.answers == first.answers
    assert kept.predicting["wording"] == 2 and kept.answers != usual.answers
    assert answers(2).answers == kept.answers
    with pytest.raises(EvaluationError, match="has no wording 3; it has 0 to 2"):
        answers(3)
    other, own = setting(work / "other")
    with pytest.raises(EvaluationError, match="keeps no wording from training"):
        evaluate_checkpoint(
            train(other.model_copy(update={"fold": 0}), tasks=[own]), baselines=False, wording="held-out"
        )


def test_a_task_that_only_taught_has_nothing_to_be_scored_on(work: Path) -> None:
    gap, more = tiny_task(work), tiny_task(work, id="tiny_more", rows=tiny_rows(200), scored=False)
    recipe = tiny_recipe(tiny_base(work / "base"), [gap, more], fold=0, split={"calibration": 0.0, "folds": "seeded"})
    checkpoint = train(recipe, tasks=[gap, more])
    with pytest.raises(EvaluationError, match=r"tiny_more only taught .* it held out those of tiny_gap"):
        evaluate_checkpoint(checkpoint, task="tiny_more", baselines=False)


def test_rows_that_were_not_read_are_shown(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rivals answer every row, so the score beside theirs is that over all rows."""
    from matdarwin.commands.evaluate import _show

    recipe, task = setting(work)
    (fold,) = folds_of(recipe, task)
    score = fold.scores["median"].model_copy(update={"unread": 7, "mae": 0.25, "mae_pessimistic": 0.75})
    read = fold.model_copy(update={"scores": {**fold.scores, "median": score}})
    board = results.summarise([read], title=task.title, metric="mae", unit=task.unit, board=[])
    first = board.table()[0][1]
    assert first["mae"] == 0.75 and first["unread"] == 7
    for result in (board, read):
        _show(result)
        assert "unread" in capsys.readouterr().out


def folds_of(recipe: Recipe, task: Task) -> list[FoldResult]:
    evaluate(recipe, tasks=[task], folds=[0], baselines=False)
    return list(folds(task).values())


def test_a_model_trained_on_all_rows_has_nothing_to_be_scored_on(work: Path) -> None:
    recipe, task = setting(work)
    checkpoint = train(recipe, tasks=[task])
    with pytest.raises(EvaluationError, match="nothing is held out"):
        evaluate_checkpoint(checkpoint, baselines=False)
