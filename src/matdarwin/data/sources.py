"""Bring the bytes of a source to this machine: pinned by sha256, atomic, from the mirror where there is one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, Protocol

from matdarwin.data import disk
from matdarwin.tasks.schema import Source

if TYPE_CHECKING:
    from matdarwin.data.download import Progress

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


def fetch(source: Source, progress: Progress | None = None) -> Path:
    """The file of a source, its sha256 checked; brought here first where need be.

    With a mirror that is to hold the file nothing goes to the network. A file is checked once a process
    (again if its size or time changed). Safe to call from several processes at once. A download that breaks off goes
    on where it stood when it is tried again.

    Args:
        source: The source.
        progress: Told the bytes that are here and those of the whole file, None where that is not known.

    Returns:
        Path of the file, in the mirror or in the cache; not to be written to.

    Raises:
        DataError: The file cannot be had, or its checksum differs.
    """
    found = locate(source)
    if found is not None:
        verify_file(found, source.sha256, _remedy(source, found))
        return found
    if source.kind == "file" or (source.mirror is not None and mirror() is not None):
        raise DataError(absent(source))
    if source.kind == "mirror":
        raise DataError(
            f"{source.name}: set MATDARWIN_MIRROR to a folder that holds it; it has no address of its own"
            + (f" (made from {source.made_from})" if source.made_from else "")
        )
    target = _cached(source)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock

        from matdarwin.data.bringers import bring  # which stands on this module

        with FileLock(f"{target}.lock"):
            if not target.is_file():  # else another process brought it while we waited
                bring(source, target, progress)
    verify_file(target, source.sha256, _remedy(source, target))
    return target


def locate(source: Source) -> Path | None:
    """Where the file of a source stands on this machine, unchecked; None where it does not."""
    if source.kind == "file":
        path = Path(source.name).expanduser()
        return path if path.is_file() else None
    folder = mirror()
    path = folder / source.mirror if folder is not None and source.mirror is not None else _cached(source)
    return path if path.is_file() else _installed(source)


def _installed(source: Source) -> Path | None:
    """The file inside a package that is installed here in just the version that is pinned."""
    if source.kind != "wheel" or source.path is None:
        return None
    try:
        package = metadata.distribution(source.name)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(package.locate_file(source.path)))
    return path if package.version == source.version and path.is_file() else None


def absent(source: Source) -> str:
    """Why the file of a source that `locate` does not find is not here, and how it can be had."""
    if source.kind == "file":
        return f"{source.name}: there is no such file; correct the path"
    if source.mirror is not None and (folder := mirror()) is not None:
        otherwise = "" if source.kind == "mirror" else ", or unset MATDARWIN_MIRROR to fetch it"
        return f"{folder / source.mirror}: missing from the mirror; complete the mirror{otherwise}"
    way = "it cannot be fetched:" if source.kind == "mirror" else "darwin data fetch brings it, or"
    return f"the source is not on this machine; {way} set MATDARWIN_MIRROR to a folder that holds it"


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
    if path == _installed(source):
        return (
            f"the file belongs to an installed package and was changed there: reinstall {source.name}=={source.version}"
        )
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


Status = Literal["ok", "absent", "changed", "fetched", "failed"]


class Holder(Protocol):
    """What has sources: a task, a text, or a database of computed values."""

    @property
    def id(self) -> str:
        """Its name."""

    def sources(self) -> tuple[Source, ...]:
        """All its files."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """What is known of one source; a row of `darwin data`.

    Attributes:
        task: Id of the task, text or database that has it.
        kind: Kind of the source.
        name: Its name, with version and path inside where it has them.
        sha256: The pinned checksum.
        status: `ok`, `absent` (not on this machine), `changed` (wrong checksum), `fetched` or `failed`.
        path: Where the file stands, or None.
        bytes: Its size, or None.
        message: What is missing or wrong and what to do, or None.
    """

    task: str
    kind: str
    name: str
    sha256: str
    status: Status
    path: str | None
    bytes: int | None
    message: str | None = None


def list_sources(holders: Sequence[Holder]) -> list[SourceRow]:
    """Where the sources stand, without reading the files (status `ok` means: it is there)."""
    return [_row(holder, source, _look) for holder in holders for source in holder.sources()]


def verify(holders: Sequence[Holder], begin: Callable[[Holder, Source], None] | None = None) -> list[SourceRow]:
    """Check the sha256 of every source that stands on this machine.

    Args:
        holders: Whose sources.
        begin: Called with each holder and source before it is read.
    """
    return [_row(holder, source, _check, begin) for holder in holders for source in holder.sources()]


def fetch_all(
    holders: Sequence[Holder], begin: Callable[[Holder, Source], None] | None = None, progress: Progress | None = None
) -> list[SourceRow]:
    """Fetch every source; one that fails does not stop the others.

    Args:
        holders: Whose sources.
        begin: Called with each holder and source before it is fetched.
        progress: Told the bytes of the present source that are here, and of the whole.
    """

    def get(source: Source) -> tuple[Status, Path | None]:
        return _get(source, progress)

    return [_row(holder, source, get, begin) for holder in holders for source in holder.sources()]


def _look(source: Source) -> tuple[Status, Path | None]:
    path = locate(source)
    return ("absent" if path is None else "ok"), path


def _check(source: Source) -> tuple[Status, Path | None]:
    path = locate(source)
    return ("absent", None) if path is None else ("ok", fetch(source))


def _get(source: Source, progress: Progress | None) -> tuple[Status, Path | None]:
    there = locate(source) is not None
    path = fetch(source, progress)
    return ("ok" if there else "fetched"), path


def _row(
    holder: Holder,
    source: Source,
    look: Callable[[Source], tuple[Status, Path | None]],
    begin: Callable[[Holder, Source], None] | None = None,
) -> SourceRow:
    if begin is not None:
        begin(holder, source)
    message = None
    path: Path | None = None
    status: Status
    try:
        status, path = look(source)
        if status == "absent":
            message = absent(source)
    except DataError as error:
        message = str(error)
        status = "changed" if "wrong checksum" in message else "failed"
    pieces = [f"{source.name} {source.version}" if source.version else source.name, source.path or ""]
    return SourceRow(
        task=holder.id,
        kind=source.kind,
        name=" ".join(filter(None, pieces)),
        sha256=source.sha256,
        status=status,
        path=None if path is None else str(path),
        bytes=None if path is None else path.stat().st_size,
        message=message,
    )
