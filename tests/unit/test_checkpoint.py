"""Checkpoints: sealed or unseen, found by name or task, refused by the name of what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import fill, tiny_card, tiny_task

from matdarwin.models import checkpoint as checkpoints
from matdarwin.models import sealing
from matdarwin.models.checkpoint import Checkpoint, CheckpointError, hold, write_checkpoint
from matdarwin.models.store import changed_since, find_checkpoint, list_checkpoints
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task


@pytest.fixture
def gap(tmp_path: Path) -> Task:
    return tiny_task(tmp_path)


@pytest.fixture
def made(home: Path, gap: Task) -> Checkpoint:
    return write_checkpoint("first", tiny_card("first", gap), fill, calibration={"tiny_gap": {"n": 1}})


FILES = [
    "calibration.json",
    "card.json",
    "metrics.jsonl",
    "tokenizer/tokenizer.json",
    "weights/config.json",
    "weights/model.safetensors",
]


def reseal(folder: Path) -> None:
    """Seal a folder anew, as one who means harm would."""
    (folder / checkpoints.MANIFEST).unlink(missing_ok=True)
    sealing.seal(folder)


# -- the seal ------------------------------------------------------------------------------------------


def test_what_is_written_is_read(made: Checkpoint, home: Path) -> None:
    again = Checkpoint.open(home / "checkpoints" / "first")
    assert again.card == made.card and again.name == "first"
    assert again.calibration() == {"tiny_gap": {"n": 1}}
    listed = json.loads((made.folder / "manifest.json").read_text())["files"]
    assert sorted(listed) == FILES
    assert [p.name for p in (home / "checkpoints").iterdir()] == ["first"], "nothing else is left"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", [True, False])
def test_a_file_that_is_gone_or_cut_is_named(made: Checkpoint, name: str, verify: bool) -> None:
    path = made.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=rf"damaged: {name} has {len(whole) - 1} bytes instead of {len(whole)}"):
        Checkpoint.open(made.folder, verify=verify)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"damaged: {name} has 0 bytes"):
        Checkpoint.open(made.folder, verify=verify)
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"damaged: {name} is missing"):
        Checkpoint.open(made.folder, verify=verify)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_which_one_bit_has_changed_is_named(made: Checkpoint, name: str) -> None:
    path = made.folder / name
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=rf"damaged: {name} does not have the hash"):
        Checkpoint.open(made.folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"files": 3}',
        '{"files": {"card.json": {}}}',
        '{"files": {"card.json": 1}}',
        '{"files": {}}',
        "\xff",
    ],
)
def test_a_broken_manifest_is_refused(made: Checkpoint, text: str) -> None:
    (made.folder / "manifest.json").write_bytes(text.encode("latin1"))
    with pytest.raises(CheckpointError, match=r"cannot be read|not in the manifest"):
        Checkpoint.open(made.folder)


def test_without_manifest_it_is_not_sealed_and_says_so(made: Checkpoint) -> None:
    (made.folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"is not sealed: it has no manifest\.json; .* run it again"):
        Checkpoint.open(made.folder)
    with pytest.raises(CheckpointError, match="is no folder"):
        Checkpoint.open(made.folder / "nothing")


@pytest.mark.parametrize("name", ["extra.pkl", "weights/pytorch_model.bin", "weights/deep/x.txt", "evil.py"])
def test_a_planted_file_is_refused(made: Checkpoint, name: str) -> None:
    (made.folder / name).parent.mkdir(exist_ok=True)
    (made.folder / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(CheckpointError, match=f"{name} is not in the manifest"):
        Checkpoint.open(made.folder)


@pytest.mark.parametrize("name", ["extra.pkl", "weights/adapter_model.bin", "weights/model.PT", "tokenizer/code.py"])
def test_a_planted_file_is_refused_sealed_too(made: Checkpoint, name: str) -> None:
    (made.folder / name).write_bytes(b"cos\nsystem\n")
    reseal(made.folder)
    with pytest.raises(CheckpointError, match=rf"{name} may hold code or pickled objects"):
        Checkpoint.open(made.folder)


@pytest.mark.parametrize("name", ["../outside.json", "weights/../../outside.json", "/etc/hostname"])
def test_a_manifest_cannot_lead_outside(made: Checkpoint, name: str) -> None:
    (made.folder.parent / "outside.json").write_text("{}")
    manifest = json.loads((made.folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": 2, "sha256": sealing.sha256(made.folder.parent / "outside.json")}
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="lies outside"):
        Checkpoint.open(made.folder)


def test_a_link_cannot_lead_outside(made: Checkpoint) -> None:
    target = made.folder.parent / "outside.json"
    path = made.folder / "metrics.jsonl"
    path.rename(target)
    path.symlink_to(target)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl.*lies outside"):
        Checkpoint.open(made.folder)


# -- the language --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": "answers-0"}, "was taught the answer format answers-0"),
        ({"style": "terse-1"}, "was taught the prompt style terse-1"),
        ({"format": 99}, "has format 99, this version reads 1"),
    ],
)
def test_another_language_is_refused(home: Path, gap: Task, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint("other", tiny_card("other", gap, **change), fill)


def test_other_wordings_than_were_taught_are_refused(made: Checkpoint) -> None:
    text = (made.folder / "card.json").read_text().replace("band gap of {material}", "gap of {material}")
    (made.folder / "card.json").write_text(text)
    reseal(made.folder)
    with pytest.raises(CheckpointError, match="wordings of tiny_gap are not those that it was taught"):
        Checkpoint.open(made.folder)


def test_an_unknown_key_of_the_card_is_refused(made: Checkpoint) -> None:
    content = json.loads((made.folder / "card.json").read_text()) | {"class_path": "os.system"}
    (made.folder / "card.json").write_text(json.dumps(content))
    reseal(made.folder)
    with pytest.raises(CheckpointError, match="class_path"):
        Checkpoint.open(made.folder)


# -- finding -------------------------------------------------------------------------------------------


def test_the_newest_product_that_knows_the_task_is_found(home: Path, tmp_path: Path, gap: Task) -> None:
    metal = tiny_task(tmp_path, kind="classification")
    write_checkpoint("old", tiny_card("old", gap, created="2026-01-01T00:00:00+00:00"), fill)
    write_checkpoint("new", tiny_card("new", gap, created="2026-02-01T00:00:00+00:00"), fill)
    write_checkpoint("other", tiny_card("other", metal, created="2026-03-01T00:00:00+00:00"), fill)
    write_checkpoint("fold", tiny_card("fold", gap, created="2026-04-01T00:00:00+00:00", role="benchmark"), fill)
    assert find_checkpoint(None, ["tiny_gap"]).name == "new"
    assert find_checkpoint(None, ["tiny_metal"]).name == "other"
    assert find_checkpoint().name == "other"
    assert find_checkpoint("fold").name == "fold", "by name, a benchmark too"
    assert find_checkpoint(str(home / "checkpoints" / "old")).name == "old"
    assert [name for name, _ in list_checkpoints()] == ["fold", "other", "new", "old"]
    with pytest.raises(CheckpointError, match="no single checkpoint knows all of tiny_gap, tiny_metal"):
        find_checkpoint(None, ["tiny_gap", "tiny_metal"])


def test_without_any_checkpoint_it_says_how_to_get_one(home: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no sealed product checkpoint in .*darwin train RECIPE.yaml.*make demo"):
        find_checkpoint(None, ["expt_gap"])
    with pytest.raises(CheckpointError, match=r"'some' is no checkpoint in .*there are: none yet"):
        find_checkpoint("some")
    assert list_checkpoints() == []


def test_a_task_that_nobody_knows_is_told_before_anything_else(home: Path, gap: Task) -> None:
    with pytest.raises(CheckpointError, match="'expt_gapp' is no task; did you mean expt_gap"):
        find_checkpoint(None, ["esol", "expt_gapp"])
    write_checkpoint("fold", tiny_card("fold", gap, role="benchmark"), fill)
    with pytest.raises(CheckpointError, match="'tiny_gapp' is no task; did you mean tiny_gap"):
        find_checkpoint(None, ["tiny_gapp"])
    with pytest.raises(
        CheckpointError, match=r"no sealed product checkpoint .*; fold knows tiny_gap, but .*: use --model fold"
    ):
        find_checkpoint(None, ["tiny_gap"])
    write_checkpoint("product", tiny_card("product", gap.model_copy(update={"id": "tiny_other"})), fill)
    with pytest.raises(CheckpointError, match=r"no product checkpoint knows the task tiny_gap; fold knows tiny_gap"):
        find_checkpoint(None, ["tiny_gap"])
    with pytest.raises(
        CheckpointError,
        match=r"product does not know the task tiny_othre; did you mean tiny_other\? \(it knows tiny_other\)",
    ):
        find_checkpoint("product", ["tiny_othre"])


def test_what_the_library_has_made_of_a_task_since_is_told_and_no_fault(home: Path) -> None:
    now = registry.load("expt_gap")
    old = now.model_copy(update={"version": now.version + 1, "wordings": ("gap of {material}",), "unit": "meV"})
    write_checkpoint("same", tiny_card("same", now), fill)
    card = tiny_card("old", old, now.model_copy(update={"id": "mine"}))
    entry = card.tasks["expt_gap"].model_copy(update={"data_sha256": now.source.sha256})
    write_checkpoint("old", card.model_copy(update={"tasks": {**card.tasks, "expt_gap": entry}}), fill)
    found = changed_since(find_checkpoint("old"))
    assert found == {
        "expt_gap": f"the library's version {now.version} has other wordings or labels, unit (taught: version {now.version + 1})"
    }
    assert changed_since(find_checkpoint("same")) == {
        "expt_gap": f"the library's version {now.version} has other data (taught: version {now.version})"
    }


def test_an_unknown_name_names_the_nearest(made: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"'frist' is no checkpoint .*did you mean first"):
        find_checkpoint("frist")
    with pytest.raises(CheckpointError, match="there are: first"):
        find_checkpoint("zzzz")


def test_a_task_that_none_knows_names_one_of_the_same_quantity(home: Path, tmp_path: Path) -> None:
    near = tiny_task(tmp_path, quantities=["band gap"])
    write_checkpoint("gaps", tiny_card("gaps", near), fill)
    with pytest.raises(
        CheckpointError,
        match="no checkpoint knows the task expt_gap; tiny_gap is of the same quantity: use --task tiny_gap",
    ):
        find_checkpoint(None, ["expt_gap"])
    with pytest.raises(CheckpointError, match="gaps does not know the task expt_gap; tiny_gap is of the same quantity"):
        find_checkpoint("gaps", ["expt_gap"])
    with pytest.raises(CheckpointError, match="no checkpoint knows the task esol; train one: darwin train"):
        find_checkpoint(None, ["esol"])
    with pytest.raises(CheckpointError, match="'tiny_gpa' is no task; did you mean tiny_gap"):
        find_checkpoint(None, ["tiny_gpa"])
    with pytest.raises(CheckpointError, match="is no task"):
        find_checkpoint(None, ["zzzzzz"])


def test_unsealed_and_damaged_ones_are_listed_with_their_reason_and_never_chosen(
    made: Checkpoint, gap: Task, home: Path
) -> None:
    bad = write_checkpoint("bad", tiny_card("bad", gap, created="2027-01-01T00:00:00+00:00"), fill)
    (bad.folder / "manifest.json").unlink()
    assert find_checkpoint(None, ["tiny_gap"]).name == "first"
    found = dict(list_checkpoints())
    assert isinstance(found["bad"], CheckpointError) and "not sealed" in str(found["bad"])
    with pytest.raises(CheckpointError, match="not sealed"):
        find_checkpoint("bad")


def test_what_is_chosen_is_hashed(made: Checkpoint) -> None:
    path = made.folder / "weights" / "model.safetensors"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(CheckpointError, match="does not have the hash"):
        find_checkpoint(None, ["tiny_gap"])


# -- holding -------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from matdarwin.models.checkpoint import hold
with hold("mine"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_run(home: Path) -> Any:
    run = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert run.stdout is not None and run.stdout.readline() == "held\n"
    yield run
    run.kill()
    run.wait()


def test_a_second_run_is_refused_and_told_who_holds_it_until_that_one_is_killed(other_run: Any) -> None:
    with (
        pytest.raises(
            CheckpointError, match=rf"mine is held by another run \(process {other_run.pid}\); wait for it or stop it"
        ),
        hold("mine"),
    ):
        pass
    with hold("another"):
        pass
    other_run.send_signal(signal.SIGKILL)
    other_run.wait()
    with hold("mine"):
        assert (checkpoints.checkpoints_folder() / ".mine.holder").read_text() == f"process {os.getpid()}"


def test_a_run_can_wait_for_the_other_and_says_for_which(other_run: Any) -> None:
    told: list[str] = []

    def end(process: str) -> None:
        told.append(process)
        other_run.kill()

    with hold("mine", waiting=end):
        assert (checkpoints.checkpoints_folder() / ".mine.holder").read_text() == f"process {os.getpid()}"
    assert told == [f"process {other_run.pid}"]
    with hold("another", waiting=end):
        assert len(told) == 1, "what is free is not waited for"


def test_a_name_is_free_again_after_an_error_and_holds_against_itself(home: Path) -> None:
    with pytest.raises(KeyError), hold("mine"):
        raise KeyError("x")
    with hold("mine"), pytest.raises(CheckpointError, match=f"process {os.getpid()}"), hold("mine"):
        pass
    with hold("mine"):
        pass
    assert list_checkpoints() == []


def test_a_folder_that_cannot_be_is_an_error_of_ours(home: Path) -> None:
    (home / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match=r"cannot be written.*MATDARWIN_HOME"), hold("mine"):
        pass


def test_a_checkpoint_that_had_stepped_aside_is_put_back(made: Checkpoint) -> None:
    """As after a kill between the two renames that replace one."""
    made.folder.rename(made.folder.with_name(".first.old"))
    with hold("first"):
        assert Checkpoint.open(made.folder).card == made.card


def test_replacing_drops_the_old_one_once_the_new_one_stands(made: Checkpoint, gap: Task) -> None:
    def other(folder: Path) -> None:
        fill(folder)
        (folder / "metrics.jsonl").write_text("new")

    write_checkpoint("first", tiny_card("first", gap), other)
    assert (made.folder / "metrics.jsonl").read_text() == "new"
    assert [p.name for p in made.folder.parent.iterdir()] == ["first"]
    Checkpoint.open(made.folder)


def test_an_error_of_the_writers_own_passes_and_leaves_nothing(made: Checkpoint, gap: Task) -> None:
    def broken(kind: type[BaseException]) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            fill(folder)
            raise kind("mine")

        return write

    for kind in (KeyError, KeyboardInterrupt):
        with pytest.raises(kind):
            write_checkpoint("first", tiny_card("first", gap), broken(kind))
        assert [p.name for p in made.folder.parent.iterdir()] == ["first"]
        Checkpoint.open(made.folder)


def test_a_base_folder_is_told_without_the_place_where_it_lies(gap: Task, tmp_path: Path) -> None:
    card = tiny_card("x", gap, base={"name": str(tmp_path / "own-model"), "sha256": "0"})
    assert card.base_title == "own-model"
    assert tiny_card("x", gap, base={"name": "owner/model", "sha256": "0"}).base_title == "owner/model"
