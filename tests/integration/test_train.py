"""From a recipe to a sealed checkpoint, on a tiny model: it learns, it is reproducible, it is never trained twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import at_home, tiny_base, tiny_checkpoint, tiny_recipe, tiny_rows, tiny_task

from matdarwin.data import leakage
from matdarwin.models import store
from matdarwin.models.base import BaseModelError
from matdarwin.models.checkpoint import Checkpoint, CheckpointError
from matdarwin.prediction.intervals import Calibration
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks.schema import Task
from matdarwin.training import judging, loop, stages, teach
from matdarwin.training import run as runs
from matdarwin.training.errors import TrainingError
from matdarwin.training.report import Silent
from matdarwin.training.run import checkpoint_name, recipe_hash, train

QUICK: dict[str, Any] = {"optimising": {"epochs": 1}, "split": {"calibration": 0.0, "limit": 32}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trained")
    tiny_base(home / "base", scale=0.05)
    return home


@pytest.fixture(scope="module")
def learnt(place: Path) -> Checkpoint:
    """A checkpoint that was trained long enough to know what there is to know."""
    rows = tiny_rows(400)
    task = tiny_task(place, rows=rows)
    return tiny_checkpoint(
        place,
        tasks=[task],
        base=place / "base",
        optimising={"epochs": 14, "learning_rate": 2e-2},
        prompting={"order": "canonical"},
    )


@pytest.fixture
def base(home: Path, place: Path) -> Path:
    return place / "base"


def lines(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (checkpoint.folder / "metrics.jsonl").read_text().splitlines()]


# -- what it makes -------------------------------------------------------------------------------------


def test_it_learns(learnt: Checkpoint, place: Path) -> None:
    losses = [line["loss"] for line in lines(learnt) if "loss" in line]
    assert np.mean(losses[:5]) > 2 * np.mean(losses[-5:])
    name, error = learnt.card.training["validation"]["tiny_gap"]
    # The median of all would be off by 1.5 on average.
    assert name == "mae" and error < 0.4
    with at_home(place):
        predictor = Predictor.of(learnt)
    seen = {f for f, _ in tiny_rows(400)}
    fresh = [(f, t) for f, t in tiny_rows(540) if f not in seen]
    assert len(fresh) == 140
    made = predictor.predict([f for f, _ in fresh], "tiny_gap")
    assert np.mean([abs(p.value - float(t)) for p, (_, t) in zip(made, fresh, strict=True)]) < 0.4  # type: ignore[operator]
    inside = [p.lower <= float(t) <= p.upper for p, (_, t) in zip(made, fresh, strict=True)]  # type: ignore[operator]
    assert np.mean(inside) > 0.8


def test_its_card_tells_what_was_done(learnt: Checkpoint, place: Path) -> None:
    card = learnt.card
    entry = card.tasks["tiny_gap"]
    assert (card.role, card.method, card.fold, card.style, card.answers) == (
        "product",
        "full",
        None,
        "compact-1",
        "answers-1",
    )
    assert entry.counts["train"] + entry.counts["validation"] + entry.counts["calibration"] == 400
    assert entry.counts["calibration"] >= 50 and entry.counts["validation"] >= 10
    assert (
        entry.elements["N"] > 0
        and "U" not in entry.elements
        and sum(entry.elements.values()) == 2 * entry.counts["train"]
    )
    assert (
        entry.shares == {}
        and entry.spreads == {}
        and set(entry.parts) == {"train", "validation", "calibration", "test"}
    )
    assert card.training["dtype"] == "float32" and card.training["best_epoch"] in range(7, 15)
    assert card.training["steps"] == sum("loss" in line for line in lines(learnt))
    with at_home(place):
        assert card.base["name"] == str(place / "base") and len(card.base["sha256"]) == 64
    assert learnt.folder.name == card.name and card.recipe_hash.startswith(card.name.rsplit("-", 1)[1])


def test_the_best_of_the_later_epochs_is_kept(learnt: Checkpoint) -> None:
    scores = {line["epoch"]: line["validation"]["tiny_gap"][1] for line in lines(learnt) if "epoch" in line}
    assert sorted(scores) == list(range(8, 15)), "with a rate that falls to zero, the first half is never the best"
    best = learnt.card.training["best_epoch"]
    assert scores[best] == min(scores.values())
    assert best == max(e for e, s in scores.items() if s == scores[best]), "of equals the latest"


def test_a_calibration_is_stored_for_numbers(learnt: Checkpoint) -> None:
    (task, stored) = next(iter(learnt.calibration().items()))
    calibration = Calibration.model_validate(stored)
    assert task == calibration.task == "tiny_gap" and calibration.status == "calibrated"
    assert calibration.n == learnt.card.tasks["tiny_gap"].counts["calibration"]


def test_metrics_are_inside_and_nothing_is_left_beside(learnt: Checkpoint) -> None:
    steps = [line for line in lines(learnt) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert all(set(line) == {"step", "loss", "learning_rate", "gradient_norm", "tokens"} for line in steps)
    assert [line["tokens"] for line in steps] == sorted(line["tokens"] for line in steps)
    left = {p.name for p in learnt.folder.parent.iterdir() if learnt.name in p.name}
    assert left <= {learnt.name, f".{learnt.name}.lock"}
    kinds = {p.suffix for p in learnt.folder.rglob("*") if p.is_file()}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".jinja", ".txt", ".html", ".md"}


def test_the_weights_that_are_saved_are_those_of_the_best_epoch(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are made up so that the middle one of three is best; the weights must be those that stood then."""
    standing: list[Any] = []

    def judged(run: Any) -> dict[str, tuple[str, float]]:
        standing.append({n: p.detach().clone() for n, p in run.model.named_parameters()})
        return {"tiny_gap": ("mae", [3.0, 1.0, 2.0][len(standing) - 1])}

    monkeypatch.setattr(judging, "validate", judged)
    task = tiny_task(tmp_path)
    made = train(tiny_recipe(base, [task], **{**QUICK, "optimising": {"epochs": 5}}), tasks=[task])
    assert made.card.training["best_epoch"] == 4 and len(standing) == 3
    for name, weight in made.model(torch.float32).named_parameters():
        assert torch.equal(weight, standing[1][name]), name


# -- doing it again ------------------------------------------------------------------------------------


def test_the_same_recipe_is_not_run_twice(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(tmp_path)
    recipe = tiny_recipe(base, [task], **QUICK)
    first = train(recipe, tasks=[task])
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first.folder.rglob("*") if p.is_file()}

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(runs, "_train", never)
    again = train(recipe.model_copy(update={"description": "other words"}), tasks=[task])
    assert again.folder == first.folder and again.card == first.card
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first.folder.rglob("*") if p.is_file()} == before
    with pytest.raises(AssertionError, match="trained again"):
        train(recipe.model_copy(update={"seed": 1}), tasks=[task])


def test_a_finished_but_damaged_one_is_refused_not_replaced(base: Path, tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    made = train(tiny_recipe(base, [task], **QUICK), tasks=[task])
    weights = made.folder / "weights" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        train(tiny_recipe(base, [task], **QUICK), tasks=[task])


def test_an_unsealed_one_is_trained_anew(base: Path, tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    made = train(tiny_recipe(base, [task], **QUICK), tasks=[task])
    (made.folder / "manifest.json").unlink()
    again = train(tiny_recipe(base, [task], **QUICK), tasks=[task])
    assert again.folder == made.folder and (made.folder / "manifest.json").is_file()


@pytest.mark.parametrize("options", [{}, {"prompting": {"order": "permuted", "wordings": [0, 1]}}, {"method": "lora"}])
def test_the_same_recipe_elsewhere_gives_the_same_losses_and_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    task = tiny_task(tmp_path)
    made = []
    for name in ("one", "two"):
        monkeypatch.setenv("MATDARWIN_HOME", str(tmp_path / name))
        torch.manual_seed(len(name) + hash(name) % 1000)
        made.append(train(tiny_recipe(base, [task], **QUICK, **options), tasks=[task]))
    one, two = made
    assert one.name == two.name and one.folder != two.folder
    assert (one.folder / "metrics.jsonl").read_bytes() == (two.folder / "metrics.jsonl").read_bytes()
    (file,) = (p.name for p in (one.folder / "weights").glob("*.safetensors"))
    assert (one.folder / "weights" / file).read_bytes() == (two.folder / "weights" / file).read_bytes()
    monkeypatch.setenv("MATDARWIN_HOME", str(tmp_path / "three"))
    other = train(tiny_recipe(base, [task], **QUICK, **options, seed=1), tasks=[task])
    assert [line["loss"] for line in lines(other) if "loss" in line] != [
        line["loss"] for line in lines(one) if "loss" in line
    ]


def test_the_name_follows_recipe_data_and_base(base: Path, tmp_path: Path) -> None:
    from matdarwin.models.base import find_base

    task, recipe, found = tiny_task(tmp_path), tiny_recipe(base), find_base(str(base))
    digest = recipe_hash(recipe, [task], found)
    assert checkpoint_name(recipe, digest) == f"tiny-tiny_gap-{digest[:8]}"
    assert checkpoint_name(recipe.model_copy(update={"fold": 3}), digest) == f"tiny-tiny_gap-fold3-{digest[:8]}"
    many = recipe.model_copy(update={"tasks": ("a", "some/where/b.yaml", "c", "d")})
    assert checkpoint_name(many, digest) == f"tiny-a-b-and-2-more-{digest[:8]}"
    moved = task.model_copy(
        update={"source": task.source.model_copy(update={"name": "/elsewhere.csv"}), "title": "t", "description": "d"}
    )
    assert recipe_hash(recipe, [moved], found) == digest, "where a file lies and words for people do not count"
    for change in (
        {"decimals": 2},
        {"wordings": ("x {material}",)},
        {"source": task.source.model_copy(update={"sha256": "1" * 64})},
    ):
        assert recipe_hash(recipe, [task.model_copy(update=change)], found) != digest
    assert recipe_hash(recipe, [task], replace(found, sha256="1" * 64)) != digest
    assert recipe_hash(recipe, [task], replace(found, name="other")) == digest


HOLDER = """
import sys, time
from matdarwin.models.checkpoint import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_second_run_of_one_recipe_is_refused_at_once(base: Path, tmp_path: Path) -> None:
    from matdarwin.models.base import find_base

    task = tiny_task(tmp_path)
    recipe = tiny_recipe(base, [task], **QUICK)
    name = checkpoint_name(recipe, recipe_hash(recipe, [task], find_base(str(base))))
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, name], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=rf"{name} is held by another run \(process {other.pid}\)"):
            train(recipe, tasks=[task])
    finally:
        other.kill()
        other.wait()
    assert train(recipe, tasks=[task]).name == name


# -- ways to train -------------------------------------------------------------------------------------


def test_low_rank_and_full_load_the_same_way(base: Path, tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    made = {m: train(tiny_recipe(base, [task], method=m, **QUICK), tasks=[task]) for m in ("full", "lora")}
    sizes = {}
    for method, checkpoint in made.items():
        opened = Checkpoint.open(checkpoint.folder)
        assert opened.card.method == method
        (answer,) = Predictor.of(opened).predict(["GaN"], "tiny_gap")
        assert answer.value is not None and answer.status == "uncalibrated"
        model = opened.model(torch.bfloat16)
        assert model.dtype == torch.bfloat16 and type(model).__name__ == "LlamaForCausalLM"
        sizes[method] = {p.name for p in (checkpoint.folder / "weights").iterdir()}
    assert "adapter_model.safetensors" in sizes["lora"] and "model.safetensors" not in sizes["lora"]


def test_what_low_rank_predicts_after_loading_is_what_it_predicted_in_training(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(tmp_path)
    kept: list[Any] = []
    monkeypatch.setattr(runs, "calibrations", lambda run: kept.append(run) or {})
    made = train(tiny_recipe(base, [task], method="lora", **QUICK), tasks=[task])
    examples = kept[0].split.validation[task.id][:5]
    live = kept[0].predictor(views=1, model=kept[0].model).distributions(task, examples)
    loaded = Predictor.of(made).distributions(task, examples)
    for one, other in zip(live, loaded, strict=True):
        assert one is not None and other is not None
        assert np.interp(np.arange(0, 5, 0.1), one.values, one.probabilities) == pytest.approx(
            np.interp(np.arange(0, 5, 0.1), other.values, other.probabilities), abs=1e-3
        )


def test_a_low_rank_checkpoint_knows_its_base_by_hash(base: Path, tmp_path: Path) -> None:
    own = tiny_base(tmp_path / "own")
    task = tiny_task(tmp_path)
    made = train(tiny_recipe(own, [task], method="lora", **QUICK), tasks=[task])
    made.model(torch.float32)
    tiny_base(own, seed=9)
    with pytest.raises(CheckpointError, match=r"is an update of .* with sha256 .* but the base here has"):
        made.model(torch.float32)
    for file in own.iterdir():
        file.unlink()
    with pytest.raises(BaseModelError, match="without config"):
        made.model(torch.float32)


def test_bf16_trains_and_its_checkpoint_is_fp32(base: Path, tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    made = train(tiny_recipe(base, [task], dtype="bf16", predicting={"dtype": "bf16"}, **QUICK), tasks=[task])
    assert made.card.training["dtype"] == "bfloat16"
    (answer,) = Predictor.of(made, dtype="bf16").predict(["GaN"], "tiny_gap")
    assert answer.value is not None
    from safetensors.torch import load_file

    weights = load_file(made.folder / "weights" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}


def test_frozen_embeddings_stay_and_random_weights_are_others(base: Path, tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    from matdarwin.models.base import load_model

    start = load_model(base, dtype=torch.float32)
    frozen = train(
        tiny_recipe(base, [task], **{**QUICK, "optimising": {"epochs": 1, "embeddings": "frozen"}}), tasks=[task]
    ).model(torch.float32)
    assert torch.equal(frozen.get_input_embeddings().weight, start.get_input_embeddings().weight)
    assert not torch.equal(frozen.model.layers[0].mlp.up_proj.weight, start.model.layers[0].mlp.up_proj.weight)
    random = train(tiny_recipe(base, [task], weights="random", seed=7, **QUICK), tasks=[task]).model(torch.float32)
    far = (random.model.layers[0].mlp.up_proj.weight - start.model.layers[0].mlp.up_proj.weight).abs().mean()
    near = (frozen.model.layers[0].mlp.up_proj.weight - start.model.layers[0].mlp.up_proj.weight).abs().mean()
    assert far > 2 * near


def test_by_default_the_embeddings_of_tokens_that_occur_are_trained(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matdarwin.models.base import load_model

    foreseen: set[int] = set()
    met: set[int] = set()
    real_words, real_collate = teach.UsedWords, loop.collate

    def words(model: Any, tokens: Any) -> Any:
        foreseen.update(tokens)
        return real_words(model, tokens)

    def collate(rows: Any, device: Any, **options: Any) -> Any:
        met.update(token for row in rows for token in (*row.prompt, *row.answer))
        return real_collate(rows, device, **options)

    monkeypatch.setattr(teach, "UsedWords", words)
    monkeypatch.setattr(loop, "collate", collate)
    task = tiny_task(tmp_path)
    options = {**QUICK, "optimising": {"epochs": 4}, "prompting": {"order": "permuted", "wordings": [0, 1]}}
    made = train(tiny_recipe(base, [task], **options), tasks=[task])
    assert met <= foreseen, "every token of every order and wording was foreseen"
    before = load_model(base, dtype=torch.float32).get_input_embeddings().weight
    after = made.model(torch.float32).get_input_embeddings().weight
    moved = set(torch.nonzero((before != after).any(dim=1)).flatten().tolist())
    assert met <= moved <= foreseen and len(foreseen) < len(before) / 2


def test_several_tasks_a_fold_and_classes(base: Path, tmp_path: Path) -> None:
    tasks = [tiny_task(tmp_path), tiny_task(tmp_path, kind="classification")]
    made = train(
        tiny_recipe(base, tasks, fold=2, role="benchmark", split={"calibration": 0.1}, optimising={"epochs": 1}),
        tasks=tasks,
    )
    assert made.card.fold == 2 and made.card.role == "benchmark" and set(made.card.tasks) == {"tiny_gap", "tiny_metal"}
    shares = made.card.tasks["tiny_metal"].shares
    assert set(shares) == {"metal", "not metal"} and sum(shares.values()) == pytest.approx(1)
    assert made.card.tasks["tiny_gap"].counts["test"] == 30
    assert set(made.calibration()) == {"tiny_gap"}
    assert set(made.card.training["validation"]) == {"tiny_gap", "tiny_metal"}
    (gap,) = Predictor.of(made).predict(["GaN"], "tiny_gap")
    (metal,) = Predictor.of(made).predict(["GaN"], "tiny_metal")
    assert isinstance(gap.value, float) and metal.value in ("metal", "not metal") and metal.status == "ok"


# -- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["test", "validation", "calibration"])
def test_a_split_that_leaks_is_refused_before_anything_is_trained(
    base: Path, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(tmp_path)
    fair = leakage.split([task], 0)
    rows = getattr(fair, part)[task.id]
    stolen = replace(fair, train={task.id: [*fair.train[task.id], rows[0]]})
    monkeypatch.setattr(runs, "load_model", lambda *a, **k: pytest.fail("it went on to load the model"))
    with pytest.raises(TrainingError, match=rf"LEAKY.*1 materials stand in train and in {part}, for example"):
        train(tiny_recipe(base, [task], fold=0), tasks=[task], split=stolen)
    assert store.list_checkpoints() == []


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_nothing_to_train_on_is_said(base: Path, tmp_path: Path, kind: str) -> None:
    task = tiny_task(tmp_path, kind=kind)
    empty = replace(leakage.split([task], None), train={task.id: []})
    with pytest.raises(TrainingError, match="no training row is left"):
        train(tiny_recipe(base, [task]), tasks=[task], split=empty)


def test_a_format_that_intervals_cannot_be_calibrated_in_is_refused_before_anything_is_trained(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where no model is asked in int8: the run would end in an error after its last step."""
    choose = runs.device_and_dtype

    def on_a_gpu(dtype: str, *, training: bool) -> Any:
        if dtype == "int8":
            raise BaseModelError("int8: for asking on a CPU alone")
        return choose(dtype, training=training)

    monkeypatch.setattr(runs, "device_and_dtype", on_a_gpu)
    monkeypatch.setattr(stages, "device_and_dtype", on_a_gpu)
    task = tiny_task(tmp_path)
    steps = Listening()
    with pytest.raises(BaseModelError, match="int8: for asking on a CPU alone"):
        train(tiny_recipe(base, [task], predicting={"dtype": "int8"}), tasks=[task], report=steps)
    assert not steps.heard
    # Where nothing is calibrated, nothing is asked here.
    made = train(
        tiny_recipe(base, [task], predicting={"dtype": "int8"}, split={"calibration": 0.0}), tasks=[task], report=steps
    )
    assert steps.heard and made.calibration() == {}


class Listening(Silent):
    def __init__(self) -> None:
        self.heard: list[int] = []

    def step(self, done: int, text: str) -> None:
        self.heard.append(done)


def test_too_little_memory_for_calibrating_is_told(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Predictor, "distributions", full)
    task = tiny_task(tmp_path)
    with pytest.raises(TrainingError, match=r"at calibrating tiny_gap; set predicting\.batch_size to \d+ or less"):
        train(tiny_recipe(base, [task], split={"validation": 0.0}), tasks=[task])


def test_a_loss_that_explodes_ends_the_run_without_a_checkpoint(base: Path, tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    with pytest.raises(
        TrainingError,
        match=r"is (nan|inf) at step \d+; lower optimising\.learning_rate.*The batch: tiny_gap rows \d+, ",
    ):
        train(
            tiny_recipe(base, [task], **{**QUICK, "optimising": {"epochs": 3, "learning_rate": 1e30, "clip": 1e30}}),
            tasks=[task],
        )
    assert store.list_checkpoints() == []


def test_ctrl_c_leaves_no_checkpoint_and_frees_the_name(base: Path, tmp_path: Path) -> None:
    class Impatient(Silent):
        def step(self, done: int, text: str) -> None:
            raise KeyboardInterrupt

    task = tiny_task(tmp_path)
    recipe = tiny_recipe(base, [task], **QUICK)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tasks=[task], report=Impatient())
    assert store.list_checkpoints() == []
    assert train(recipe, tasks=[task]).card.tasks.keys() == {"tiny_gap"}


@pytest.mark.parametrize("recipe_leaks", [True, False])
def test_a_leaky_recipe_is_trained_on_demand_alone_and_marked(
    base: Path, tmp_path: Path, recipe_leaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the original run: another task of the quantity, which has the test materials, mixed in fold by fold."""
    from matdarwin.evaluation.protocol import evaluate

    monkeypatch.chdir(tmp_path)
    # The second has a few materials more, so that its folds fall otherwise.
    tasks = [tiny_task(tmp_path, rows=tiny_rows(150)), tiny_task(tmp_path, id="tiny_again", rows=tiny_rows(160))]
    recipe = tiny_recipe(
        base,
        tasks,
        fold=0,
        optimising={"epochs": 1},
        split={"rule": "none" if recipe_leaks else "key", "calibration": 0.0},
    )
    if recipe_leaks:
        with pytest.raises(TrainingError, match=r"recipe tiny .* LEAKY.*--allow-leak"):
            train(recipe, tasks=tasks)
        assert store.list_checkpoints() == []
    made = train(recipe, tasks=tasks, allow_leak=True)
    assert made.card.training.get("leaky", False) == recipe_leaks
    for file in ("README.md", "training.html"):
        assert ("LEAKY: " in (made.folder / file).read_text(encoding="utf-8")) == recipe_leaks
    lines = [json.loads(line) for line in (made.folder / "metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "validation" in line]
    assert scored and all(line.get("leaky", False) == recipe_leaks for line in scored)
    for result in evaluate(recipe, tasks=tasks, folds=[0], baselines=False, allow_leak=True):
        assert result.leaky == recipe_leaks
        assert ("LEAKY" in result.table()[0][0]) == recipe_leaks
        assert ("leaky" in result.model_dump(mode="json")) == recipe_leaks


def test_a_tokenizer_without_single_digits_works_and_is_warned_of(home: Path, tmp_path: Path) -> None:
    said: list[str] = []

    class Ear(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    base, task = tiny_base(tmp_path / "several", digits_single=False), tiny_task(tmp_path)
    made = train(tiny_recipe(base, [task], optimising={"epochs": 1}), tasks=[task], report=Ear())
    assert made.card.tasks.keys() == {"tiny_gap"}
    assert any("tokens of several digits" in text and "expect larger errors" in text for text in said)
    with pytest.raises(
        TrainingError, match=r"optimising\.number_loss: the tokenizer of .*several has tokens of several digits"
    ):
        train(tiny_recipe(base, [task], optimising={"number_loss": "squared"}), tasks=[task])


def test_a_report_hears_the_parts_in_order(base: Path, tmp_path: Path) -> None:
    heard: list[str] = []

    class Ear(Silent):
        def begin(self, text: str, total: int) -> None:
            heard.append(f"{text} {total}")

        def step(self, done: int, text: str) -> None:
            heard.append(str(done))

    task: Task = tiny_task(tmp_path)
    train(tiny_recipe(base, [task], optimising={"epochs": 1}), tasks=[task], report=Ear())
    steps = int(heard[0].split()[1])
    assert heard[0].startswith("training ") and heard[1 : steps + 1] == [str(k + 1) for k in range(steps)]
    assert heard[steps + 1] == "calibrating tiny_gap 50" and heard[-1] == "50"
