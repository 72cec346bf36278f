"""A run that is stopped at any moment goes on bit for bit where it stood."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_base, tiny_recipe, tiny_rows, tiny_task

from matdarwin.models import sealing
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.tasks.schema import Task
from matdarwin.training.errors import TrainingError
from matdarwin.training.recipe import Recipe
from matdarwin.training.report import Silent
from matdarwin.training.run import train

OPTIONS: dict[str, Any] = {
    "optimising": {"epochs": 4, "batch_size": 16, "average": 0.5, "learning_rate": 1e-2},
    "split": {"calibration": 0.0, "validation": 0.2, "limit": 64},
    "prompting": {"order": "permuted", "wordings": [0, 1]},
}


class Killed(BaseException):
    """The process is gone: nothing of ours runs any more."""


class Killer(Silent):
    """Ends the run at one line of its metrics, after the line was written and before anything else is."""

    def __init__(self, line: int) -> None:
        self.left = line

    def metrics(self, run: str, line: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base") / "base", scale=0.05)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return tiny_task(tmp_path)


def elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, task: Task, **options: Any) -> Checkpoint:
    """The checkpoint of a run that nothing disturbs."""
    with monkeypatch.context() as patch:
        patch.setenv("MATDARWIN_HOME", str(home))
        return train(recipe, tasks=[task], **options)


def killed_at(line: int, recipe: Recipe, task: Task) -> None:
    """A run that saves its state after each step and ends at a line of its metrics."""
    with pytest.raises(Killed):
        train(recipe, tasks=[task], report=Killer(line), save_every=0)


def contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {
        p.relative_to(checkpoint.folder).as_posix(): p.read_bytes()
        for p in checkpoint.folder.rglob("*")
        if p.is_file() and p.name in ("metrics.jsonl", "model.safetensors", "adapter_model.safetensors")
    }


def folder(home: Path) -> Path:
    (found,) = (home / "checkpoints").glob(".*.run")
    return found


@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_again_and_again_it_ends_with_the_same_metrics_and_weights(
    base: Path, task: Task, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    recipe = tiny_recipe(base, [task], method=method, lora={"dropout": 0.1}, **OPTIONS)
    expected = contents(elsewhere(tmp_path / "whole", monkeypatch, recipe, task))
    lines = len(expected["metrics.jsonl"].splitlines())
    kills = 0
    # A state after each step: a run goes on at the line at which the one before it ended.
    for after in (1, 2, 4, 3, 2, 4, 3, 50):
        try:
            made = train(recipe, tasks=[task], report=Killer(after), save_every=0)
            break
        except Killed:
            kills += 1
            # As if the last line had been torn by the kill.
            log = folder(home) / "metrics.jsonl"
            log.write_bytes(log.read_bytes()[:-3])
    assert kills == 7 and lines > 15
    assert contents(made) == expected
    training = made.card.training
    assert training["seconds"] >= training["seconds_training"] > 0
    assert training["resumed"] >= 5 and not list((home / "checkpoints").glob(".*.run"))


def test_the_best_epoch_is_kept_through_all_kills(
    base: Path, task: Task, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matdarwin.training import judging

    def judged(run: Any) -> dict[str, tuple[str, float]]:
        # The third of four epochs is the best.
        return {task.id: ("mae", {8: 3.0, 12: 1.0, 16: 2.0}[sum("loss" in line for line in run.lines())])}

    monkeypatch.setattr(judging, "validate", judged)
    recipe = tiny_recipe(base, [task], **{**OPTIONS, "optimising": {**OPTIONS["optimising"], "epochs": 4}})
    whole = elsewhere(tmp_path / "whole", monkeypatch, recipe, task)
    assert whole.card.training["steps"] == 16 and whole.card.training["best_epoch"] == 3
    killed_at(15, recipe, task)
    snapshots = folder(home) / "snapshots"
    assert {p.name for p in snapshots.iterdir()} == {"best-000003", "step-000000012", "step-000000013"}
    made = train(recipe, tasks=[task], save_every=0)
    assert contents(made) == contents(whole) and made.card.training["best_epoch"] == 3


def test_weights_that_are_better_take_the_place_of_those_no_state_knows_of(
    base: Path, task: Task, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matdarwin.training import judging

    # Every epoch is better than the one before, and none is far enough from the last for a state of its own.
    monkeypatch.setattr(judging, "validate", lambda run: {task.id: ("mae", 1 / len(run.lines()))})
    options = {**OPTIONS, "optimising": {**OPTIONS["optimising"], "epochs": 8}}
    with pytest.raises(Killed):
        train(tiny_recipe(base, [task], **options), tasks=[task], report=Killer(7 * 4 + 4), save_every=3600)
    assert [p.name for p in (folder(home) / "snapshots").iterdir()] == ["best-000007"]


def test_too_little_memory_to_save_is_told(base: Path, task: Task, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from matdarwin.training.snapshots import Snapshots

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Snapshots, "save", full)
    with pytest.raises(TrainingError, match="memory does not suffice at saving the state of step 1; close other"):
        train(tiny_recipe(base, [task], **OPTIONS), tasks=[task], save_every=0)
    page = (folder(home) / "training.html").read_text(encoding="utf-8")
    assert "the memory does not suffice at saving the state" in page


def test_a_damaged_state_is_passed_over_for_the_one_before(
    base: Path, task: Task, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(base, [task], **OPTIONS)
    expected = contents(elsewhere(tmp_path / "whole", monkeypatch, recipe, task))
    killed_at(7, recipe, task)
    newest = sorted((folder(home) / "snapshots").glob("step-*"))[-1] / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x00")
    assert contents(train(recipe, tasks=[task])) == expected


def test_a_full_disk_stops_the_run_and_leaves_the_last_good_state(
    base: Path, task: Task, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(base, [task], **OPTIONS)
    expected = contents(elsewhere(tmp_path / "whole", monkeypatch, recipe, task))
    sealed, real = [], sealing.seal

    def full(folder: Path) -> None:
        if len(sealed) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sealed.append(folder)
        real(folder)

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "seal", full)
        with pytest.raises(TrainingError, match=r"disk is full.*MATDARWIN_HOME.*last good state is .*step-000000003"):
            train(recipe, tasks=[task], save_every=0)
    assert sorted(p.name for p in (folder(home) / "snapshots").iterdir()) == ["step-000000002", "step-000000003"]
    made = train(recipe, tasks=[task])
    assert contents(made) == expected and made.card.training["resumed"] == 1


def test_the_best_weights_are_never_others_than_those_that_were_scored(
    base: Path, task: Task, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matdarwin.training import judging

    monkeypatch.setattr(judging, "validate", lambda run: {task.id: ("mae", float(len(run.lines())))})
    recipe = tiny_recipe(base, [task], **OPTIONS)
    killed_at(15, recipe, task)
    (best,) = (folder(home) / "snapshots").glob("best-*")
    (best / "state.safetensors").unlink()
    with pytest.raises(
        TrainingError, match=r"best-000003 is damaged: .* weights of epoch 3, the best by validation.*Remove"
    ):
        train(recipe, tasks=[task], save_every=0)


def test_damaged_states_do_not_push_good_ones_out(base: Path, task: Task, home: Path) -> None:
    recipe = tiny_recipe(base, [task], **OPTIONS)
    killed_at(8, recipe, task)
    snapshots = folder(home) / "snapshots"
    for number in (20, 21):
        (snapshots / f"step-{number:09d}").mkdir()
    (snapshots / ".step-000000009").mkdir()
    killed_at(3, recipe, task)
    left = sorted(p.name for p in snapshots.iterdir() if not p.name.startswith("best"))
    assert len(left) == 2 and max(left) < "step-000000011"


def test_metrics_that_a_power_cut_shortened_take_an_earlier_state(
    base: Path, task: Task, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(base, [task], **OPTIONS)
    expected = contents(elsewhere(tmp_path / "whole", monkeypatch, recipe, task))
    killed_at(7, recipe, task)
    log = folder(home) / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-2]) + lines[-2][:5])
    said: list[str] = []

    class Listening(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    assert contents(train(recipe, tasks=[task], report=Listening())) == expected
    assert any("is shorter than at step" in text for text in said) and any("goes on at step" in text for text in said)


def own_file(home: Path) -> Path:
    """An auxiliary task of other materials, as a file."""
    other = tiny_task(home, id="tiny_more", rows=tiny_rows(300)[150:], scored=False)
    (home / "tiny_more.yaml").write_text(other.model_dump_json(exclude_none=True), encoding="utf-8")
    return home / "tiny_more.yaml"


def test_a_number_format_that_was_measured_is_kept(
    base: Path, task: Task, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from matdarwin.training import run as runs

    stage = {"name": "first", "tasks": [str(own_file(home))], "optimising": {"epochs": 1}}
    recipe = tiny_recipe(base, [task], **{**OPTIONS, "dtype": "auto", "before": [stage]})
    # Killed in the earlier stage, in the tasks' own, and then left alone.
    for measured, report in ((torch.bfloat16, Killer(3)), (torch.float32, Killer(10)), (torch.float32, Silent())):
        with monkeypatch.context() as patch:
            patch.setattr(runs, "device_and_dtype", lambda *_, measured=measured, **__: (torch.device("cpu"), measured))
            try:
                made = train(recipe, tasks=[task], report=report, save_every=0)
            except Killed:
                continue
    assert made.card.training["resumed"] == 1 and made.card.training["dtype"] == "bfloat16"
    (earlier,) = made.card.training["earlier"]
    told = Checkpoint.open(made.folder.parent / earlier).card.training
    assert told["resumed"] == 1 and told["dtype"] == "bfloat16"


def test_a_number_format_that_an_older_state_holds_is_kept(
    base: Path, task: Task, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formats were once part of the states, and no file of the run's own."""
    import torch

    from matdarwin.training import run as runs

    recipe = tiny_recipe(base, [task], **{**OPTIONS, "dtype": "auto"})
    monkeypatch.setattr(runs, "device_and_dtype", lambda *_, **__: (torch.device("cpu"), torch.bfloat16))
    with pytest.raises(Killed):
        train(recipe, tasks=[task], report=Killer(7), save_every=0)
    (folder(home) / "dtype").unlink()
    for state in folder(home).glob("snapshots/step-*"):
        file = state / "state.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "compute": "bfloat16"}))
        (state / sealing.MANIFEST).unlink()
        sealing.seal(state)
    monkeypatch.setattr(runs, "device_and_dtype", lambda *_, **__: (torch.device("cpu"), torch.float32))
    made = train(recipe, tasks=[task], save_every=0)
    assert made.card.training["resumed"] == 1 and made.card.training["dtype"] == "bfloat16"


def test_what_a_kill_after_the_seal_has_left_is_cleared(base: Path, task: Task, home: Path) -> None:
    made = train(tiny_recipe(base, [task], **OPTIONS), tasks=[task])
    left = made.folder.with_name(f".{made.name}.run") / "snapshots"
    left.mkdir(parents=True)
    assert train(tiny_recipe(base, [task], **OPTIONS), tasks=[task]).name == made.name and not left.parent.exists()


def test_the_page_of_a_run_that_failed_says_why(base: Path, task: Task, home: Path) -> None:
    optimising = {"epochs": 3, "learning_rate": 1e30, "clip": 1e30}
    with pytest.raises(TrainingError):
        train(tiny_recipe(base, [task], **{**OPTIONS, "optimising": optimising}), tasks=[task])
    page = (folder(home) / "training.html").read_text(encoding="utf-8")
    assert "stopped: " in page and "lower optimising.learning_rate" in page and 'http-equiv="refresh"' not in page


SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from matdarwin.tasks.schema import Task
from matdarwin.training.recipe import Recipe
from matdarwin.training.report import Silent
from matdarwin.training.run import train

class Signals(Silent):
    def step(self, done, text):
        if done == int(sys.argv[4]):
            os.kill(os.getpid(), getattr(signal, sys.argv[3]))

recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
task = Task.model_validate_json(Path(sys.argv[2]).read_text())
try:
    train(recipe, tasks=[task], report=Signals(), save_every=float(sys.argv[5]))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "save_every", "code"), [("SIGKILL", "0", -9), ("SIGTERM", "1000", 130), ("SIGINT", "1000", 130)]
)
def test_a_process_that_is_ended_goes_on(
    base: Path,
    task: Task,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: str,
    save_every: str,
    code: int,
) -> None:
    """For real: kill -9 between two states; a request to end, or Ctrl-C, that is answered with a state of its own."""
    recipe = tiny_recipe(base, [task], **OPTIONS)
    expected = contents(elsewhere(tmp_path / "whole", monkeypatch, recipe, task))
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json(exclude_defaults=True))
    (tmp_path / "task.json").write_text(task.model_dump_json())
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        str(tmp_path / "recipe.json"),
        str(tmp_path / "task.json"),
        sent,
        "6",
        save_every,
    ]
    done = subprocess.run(
        command, env={**os.environ, "MATDARWIN_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == (code if code > 0 else -signal.SIGKILL), done.stderr
    standing = sorted((folder(home) / "snapshots").glob("step-*"))[-1]
    assert json.loads((standing / "state.json").read_text())["loop"]["done"] == (5 if sent == "SIGKILL" else 6)
    made = train(recipe, tasks=[task])
    assert contents(made) == expected and made.card.training["resumed"] == 1
