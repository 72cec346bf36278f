"""Two processes that train together come to what one comes to; started alone, this file is what they run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tests.tiny import at_home, tiny_base, tiny_model, tiny_recipe, tiny_task
from tests.unit.test_loop import rows_of, rows_of_tasks

from matdarwin.language.prompts import Encoded
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task
from matdarwin.training.errors import TrainingError
from matdarwin.training.loop import Loop
from matdarwin.training.options import Optimising
from matdarwin.training.ranks import Ranks, current
from matdarwin.training.recipe import Recipe
from matdarwin.training.report import Silent
from matdarwin.training.run import train
from matdarwin.training.words import UsedWords

ROOT = Path(__file__).parents[2]
STEPS, HALF = 20, 10
SAME = 1e-5
# By name: rows a batch, and options. A batch of 7 gives the processes unequal shares; of 1, one of them nothing.
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (8, {"average": 0.4}),
    "parts": (7, {"micro_batch": 3}),
    "one": (1, {}),
    "checkpointing": (6, {"checkpointing": True}),
    "clipped": (4, {"clip": 0.01}),
    "low rank": (5, {}),
    "tasks": (12, {}),
    # Parts of one row or two, not always equally many in both processes.
    "tokens": (12, {"micro_tokens": 26}),
}
LAUNCHERS = {
    "ddp": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "fsdp": [
        "accelerate.commands.accelerate_cli", "launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
    ],
}  # fmt: skip


# -- what is trained, by one process and by two ----------------------------------------------------------


def loop_of(name: str, ranks: Ranks, *, used: bool = False, compile: bool = False) -> Loop:
    torch.manual_seed(0)
    model = tiny_model(64)
    if name == "low rank":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    words = UsedWords(model, range(1, 64, 2)) if used else None
    options = Optimising(learning_rate=3e-3, warmup=0.1, compile=compile, **CASES[name][1])
    return Loop(model, options, STEPS, words=words, ranks=ranks, seed=3)


def batch(name: str, step: int) -> list[Encoded]:
    # Of several tasks, those of each have a prefix of their own.
    return rows_of_tasks(step) if name in ("tasks", "tokens") else rows_of(CASES[name][0], seed=step)


def steps_of(loop: Loop, name: str, begin: int, end: int) -> list[tuple[float, float]]:
    """Loss and norm of the gradient of each step."""
    made = [loop.step(batch(name, step)) for step in range(begin, end)]
    return [(step.loss, step.gradient_norm) for step in made]


def recipe_of(folder: Path, kind: str) -> tuple[Recipe, Task]:
    """An earlier stage on a text, then twelve steps with a validation at the end, averaged weights and intervals."""
    task = Task.model_validate_json((folder / "task.json").read_text())
    embeddings = "used" if kind == "ddp" else "trained"
    quick = {"batch_size": 15, "learning_rate": 1e-3, "embeddings": embeddings}
    made = tiny_recipe(
        folder / "base", [task],
        before=[{"name": "reading", "texts": [str(folder / "pairs.json")], "optimising": {**quick, "epochs": 1}}],
        optimising={**quick, "epochs": 3, "average": 0.5},
        split={"calibration": 0.1, "minimum_calibration": 5, "validation": 0.2, "limit": 60},
    )  # fmt: skip
    return made, task


@contextmanager
def at(home: Path, task: Task) -> Iterator[None]:
    """In a home of its own, with a library of one task: texts lose what they tell of the materials of every task."""
    with at_home(home), pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "names", lambda: [task.id])
        real = registry.load
        patch.setattr(registry, "load", lambda name: task if name == task.id else real(name))
        yield


class Killer(Silent):
    """Ends the process at one line of the metrics of the tasks' own stage."""

    def __init__(self, line: int) -> None:
        self.left = line

    def metrics(self, run: str, line: dict[str, Any]) -> None:
        self.left -= run.startswith("tiny")
        if self.left == 0:
            self.end()

    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Gone(BaseException):
    """The process is gone."""


class Raiser(Killer):
    def end(self) -> None:
        raise Gone


def work(folder: Path, kind: str) -> None:
    """What each of two processes does."""
    ranks = current()
    found: dict[str, Any] = {"world": ranks.world, "sharded": ranks.sharded, "losses": {}}
    for name in CASES:
        loop = loop_of(name, ranks)
        found["losses"][name] = steps_of(loop, name, 0, HALF)
        if name == "plain":
            tensors, _ = loop.state()
            assert bool(tensors) == ranks.is_first or set(tensors) == {"random/cpu"}
            if ranks.is_first:
                save_file(tensors, folder / f"{kind}.safetensors")
        found["losses"][name] += steps_of(loop, name, HALF, STEPS)
    on = loop_of("plain", ranks)
    on.restore(load_file(folder / "one.safetensors") if ranks.is_first else {}, {"done": HALF, "averaged": 0})
    found["losses"]["resumed"] = steps_of(on, "plain", HALF, STEPS)
    if kind == "ddp":
        found["losses"]["used"] = steps_of(loop_of("plain", ranks, used=True), "plain", 0, STEPS)
        with pytest.MonkeyPatch.context() as patch:
            # As in earnest, but for the compiler of C++, which takes a minute.
            patch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
            found["losses"]["compiled"] = steps_of(loop_of("plain", ranks, compile=True), "plain", 0, STEPS)
    ranks.reseed(3, 5)
    drawn = float(torch.rand(()))
    found["drawn"] = [ranks.mean(drawn), drawn]
    try:
        ranks.first(lambda: 1 // 0)
    except (TrainingError, ZeroDivisionError) as error:
        found["failed"] = f"{type(error).__name__}: {error}"
    (folder / f"{kind}-{ranks.rank}.json").write_text(json.dumps(found))
    recipe, task = recipe_of(folder, kind)
    if kind == "fsdp":
        refused = recipe.model_copy(update={"optimising": Optimising(), "before": ()})
        with at(folder / "refused", task), pytest.raises(TrainingError, match=r"sharded \(FSDP\); choose trained or"):
            train(refused, tasks=[task])
    with at(folder / kind / "begun by one", task):
        made = train(recipe, tasks=[task], save_every=0)
    (folder / f"{kind}-{ranks.rank}.name").write_text(made.name)
    with at(folder / kind / "begun by two", task):
        train(recipe, tasks=[task], report=Killer(8), save_every=0)


def work_briefly(folder: Path) -> None:
    """What is enough to see how processes have joined."""
    ranks = current()
    losses = steps_of(loop_of("tasks", ranks), "tasks", 0, 5)
    told = {"world": ranks.world, "sharded": ranks.sharded, "losses": losses}
    (folder / f"brief-{ranks.rank}.json").write_text(json.dumps(told))


# -- the same by one, and what two have left -------------------------------------------------------------


@dataclass
class Made:
    kind: str
    folder: Path
    losses: dict[str, list[tuple[float, float]]]
    told: list[dict[str, Any]]
    whole: Checkpoint

    def home(self, name: str) -> Path:
        return self.folder / self.kind / name


def losses_of(checkpoint: Checkpoint) -> list[float]:
    lines = [json.loads(line) for line in (checkpoint.folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    tiny_base(folder / "base", scale=0.05)
    (folder / "task.json").write_text(tiny_task(folder).model_dump_json())
    pairs = [{"Q": f"What is fact {n} of rivers?", "A": f"It is {n % 7} long."} for n in range(40)]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    losses = {}
    for name in CASES:
        loop = loop_of(name, Ranks())
        losses[name] = steps_of(loop, name, 0, HALF)
        if name == "plain":
            save_file({key: t.clone() for key, t in loop.state()[0].items()}, folder / "one.safetensors")
        losses[name] += steps_of(loop, name, HALF, STEPS)
    losses["resumed"] = losses["plain"][HALF:]
    losses["used"] = steps_of(loop_of("plain", Ranks(), used=True), "plain", 0, STEPS)
    losses["compiled"] = losses["plain"]
    recipe, task = recipe_of(folder, kind)
    with at(folder / kind / "whole", task):
        whole = train(recipe, tasks=[task])
    with at(folder / kind / "begun by one", task), pytest.raises(Gone):
        train(recipe, tasks=[task], report=Raiser(8), save_every=0)
    command = [sys.executable, "-m", *LAUNCHERS[kind], str(Path(__file__)), str(folder), kind]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    # The last thing they do is to be killed.
    assert done.returncode != 0 and (folder / f"{kind}-0.name").is_file(), done.stderr[-6000:]
    told = [json.loads((folder / f"{kind}-{rank}.json").read_text()) for rank in range(2)]
    yield Made(kind, folder, losses, told, whole)


@pytest.mark.slow
def test_two_processes_have_the_losses_and_gradients_of_one(made: Made) -> None:
    for told in made.told:
        assert told["world"] == 2 and told["sharded"] == (made.kind == "fsdp")
        for name, found in told["losses"].items():
            for one, two in zip(made.losses[name], found, strict=True):
                assert two == pytest.approx(one, abs=SAME, rel=SAME), name
    assert len(made.told[0]["losses"]) == len(CASES) + (3 if made.kind == "ddp" else 1)
    # What they draw differs, or dropout would be the same in both.
    assert made.told[0]["drawn"][1] != made.told[1]["drawn"][1]
    assert made.told[0]["drawn"][0] == made.told[1]["drawn"][0]


@pytest.mark.slow
def test_a_state_of_two_processes_is_that_of_one(made: Made) -> None:
    one, two = load_file(made.folder / "one.safetensors"), load_file(made.folder / f"{made.kind}.safetensors")
    assert {name: t.shape for name, t in one.items()} == {name: t.shape for name, t in two.items()}
    for name in one:
        if not name.startswith("random/"):
            assert torch.allclose(one[name], two[name], atol=SAME), name


@pytest.mark.slow
def test_what_fails_in_the_first_process_is_told_by_all(made: Made) -> None:
    assert made.told[0]["failed"].startswith("ZeroDivisionError")
    assert (
        made.told[1]["failed"].startswith("TrainingError: the first process has ended: ")
        and "zero" in made.told[1]["failed"]
    )


@pytest.mark.slow
def test_two_go_on_where_one_was_killed_and_what_they_leave_predicts(made: Made) -> None:
    (folder,) = (made.home("begun by one") / "checkpoints").glob("tiny-*")
    checkpoint = Checkpoint.open(folder)
    assert {(made.folder / f"{made.kind}-{rank}.name").read_text() for rank in range(2)} == {made.whole.name}
    assert checkpoint.name == made.whole.name and checkpoint.card.training["resumed"] == 1
    assert losses_of(checkpoint) == pytest.approx(losses_of(made.whole), abs=SAME)
    assert len(losses_of(checkpoint)) == 12
    ours, theirs = (Predictor.of(c).predict(["GaN", "FeSe2"], "tiny_gap") for c in (checkpoint, made.whole))
    assert [p.value for p in ours] == [p.value for p in theirs]
    assert checkpoint.calibration().keys() == made.whole.calibration().keys() == {"tiny_gap"}
    assert not list((made.home("begun by one") / "checkpoints").glob(".*.run"))


@pytest.mark.slow
def test_one_goes_on_where_two_were_killed(made: Made) -> None:
    recipe, task = recipe_of(made.folder, made.kind)
    with at(made.home("begun by two"), task):
        checkpoint = train(recipe, tasks=[task])
    assert checkpoint.card.training["resumed"] == 1
    assert losses_of(checkpoint) == pytest.approx(losses_of(made.whole), abs=SAME)


@pytest.mark.slow
def test_torchrun_shards_where_accelerates_variable_asks_for_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", *LAUNCHERS["ddp"], str(Path(__file__)), str(tmp_path), "brief"]
    asked = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_FSDP": "true"}
    subprocess.run(command, env={**os.environ, **asked}, capture_output=True, check=True, timeout=300)
    expected = steps_of(loop_of("tasks", Ranks()), "tasks", 0, 5)
    for rank in range(2):
        told = json.loads((tmp_path / f"brief-{rank}.json").read_text())
        assert told["world"] == 2 and told["sharded"]
        for one, two in zip(expected, told["losses"], strict=True):
            assert two == pytest.approx(one, abs=SAME, rel=SAME)


if __name__ == "__main__":
    work_briefly(Path(sys.argv[1])) if sys.argv[2] == "brief" else work(Path(sys.argv[1]), sys.argv[2])
