"""kill -9 at any moment of a run of two stages; started alone, this file is the run."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from tests.tiny import tiny_base, tiny_recipe, tiny_rows, tiny_task

from matdarwin.models.checkpoint import Checkpoint
from matdarwin.tasks.schema import Task
from matdarwin.training.recipe import Recipe
from matdarwin.training.run import train

ROOT = Path(__file__).parents[2]
KILLS = 12
"""Changes of the disk that a process is killed before, spread over all that a whole run makes."""
TORN = (2, 5, 9)
"""States that a process is killed in the middle of."""
TIMERS = 3
CHANGES = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"})


# -- the run -------------------------------------------------------------------------------------------


def work(folder: Path, home: Path) -> None:
    """Train, or go on with what was begun; a state is saved after each step."""
    os.environ["MATDARWIN_HOME"] = str(home)
    recipe = Recipe.model_validate_json((folder / "recipe.json").read_text())
    task = Task.model_validate_json((folder / "task.json").read_text())
    train(recipe, tasks=[task], save_every=0)


def changes_below(home: Path, event: str, args: tuple[Any, ...]) -> bool:
    """Whether an event of the interpreter is about to change something below a folder."""
    if not args or not str(args[0]).startswith(str(home)):
        return False
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR))
    return event in CHANGES


def torn(number: int) -> Any:
    """What saves tensors, but for the n-th time: half of the file stands when the process is gone."""
    counter, save = itertools.count(1), safetensors.torch.save_file

    def save_file(tensors: Any, path: Path, *given: Any, **options: Any) -> None:
        save(tensors, path, *given, **options)
        if next(counter) == number:
            os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    return save_file


def child(folder: Path, home: Path, *, kill_at: int = 0, tear: int = 0, after: float = 0.0) -> tuple[int, int]:
    """The run in a process of its own, which ends itself before its n-th change of the disk, within its n-th state, or after some seconds.

    Returns:
        The signal that ended it, or 0; and the changes it made of what is below its home.
    """
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(reading)
        counter = itertools.count(1)

        def watch(event: str, args: tuple[Any, ...]) -> None:
            if changes_below(home, event, args) and next(counter) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        safetensors.torch.save_file = torn(tear)
        # Its default action ends the process there and then, whatever it is at, as SIGKILL does.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, after)
        try:
            work(folder, home)
            os.write(writing, str(next(counter) - 1).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as stream:
        made = stream.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status), 0
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"the run in {home} failed")
    return 0, int(made)


def left(home: Path) -> dict[str, str]:
    """What runs left: metrics, hashes of weights, and folders that are no checkpoints."""
    found = {}
    for path in sorted((home / "checkpoints").rglob("*")):
        name = path.relative_to(home).as_posix()
        if path.name == "metrics.jsonl":
            found[name] = path.read_text()
        elif path.name == "model.safetensors":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name.startswith(".") and path.is_dir():
            found[name] = "left over"
    return found


def main(folder: Path) -> None:
    began = time.perf_counter()
    _, changes = child(folder, folder / "whole")
    seconds = time.perf_counter() - began
    rng = random.Random(0)
    rounds: list[dict[str, Any]] = [
        {"kill_at": at} for at in sorted({1 + n * (changes - 1) // KILLS for n in range(KILLS)})
    ]
    rounds += [{"tear": number} for number in TORN]
    rounds += [{"after": rng.uniform(0.1, 0.9) * seconds} for _ in range(TIMERS)]
    told = []
    for number, how in enumerate(rounds):
        home = folder / f"killed-{number}"
        ended, _ = child(folder, home, **how)
        # What goes on is killed too, somewhere else.
        again, _ = child(folder, home, kill_at=1 + 7 * number % changes)
        child(folder, home)
        told.append({"how": how, "ended": ended, "again": again, "left": left(home)})
    (folder / "told.json").write_text(json.dumps({"changes": changes, "whole": left(folder / "whole"), "rounds": told}))


# -- what it has to come to ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", scale=0.05)
    task = tiny_task(tmp_path)
    other = tiny_task(tmp_path, id="tiny_more", rows=tiny_rows(300)[150:], scored=False)
    (tmp_path / "tiny_more.yaml").write_text(other.model_dump_json(exclude_none=True), encoding="utf-8")
    quick = {"batch_size": 16, "learning_rate": 1e-2}
    recipe = tiny_recipe(
        base, [task],
        before=[{"name": "first", "tasks": [str(tmp_path / "tiny_more.yaml")], "optimising": {**quick, "steps": 4}}],
        optimising={**quick, "epochs": 2, "average": 0.5},
        split={"calibration": 0.1, "minimum_calibration": 5, "validation": 0.2, "limit": 64},
    )  # fmt: skip
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json(exclude_defaults=True))
    (tmp_path / "task.json").write_text(task.model_dump_json())
    quiet = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), str(tmp_path)], env={**os.environ, **quiet}, capture_output=True, text=True,
        check=False, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    told = json.loads((tmp_path / "told.json").read_text())
    whole, rounds = told["whole"], told["rounds"]
    # Two checkpoints, each with metrics and weights, and nothing beside them.
    assert len(whole) == 4 and "left over" not in whole.values() and told["changes"] > 100
    for one in rounds:
        assert one["left"] == whole, one["how"]
    assert sum(one["ended"] == signal.SIGKILL for one in rounds) == sum("after" not in one["how"] for one in rounds)
    assert sum(one["ended"] == signal.SIGALRM for one in rounds) >= TIMERS // 2
    assert sum(one["again"] == signal.SIGKILL for one in rounds) >= len(rounds) // 2
    (made,) = (Checkpoint.open(path) for path in (tmp_path / "killed-9" / "checkpoints").glob("tiny-*"))
    assert made.calibration()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
