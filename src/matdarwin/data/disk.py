"""What the disk says: full or broken, in words with a remedy, whichever library says it; syncing to it; and locks on it."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class HeldError(RuntimeError):
    """A lock is held by another process, which the message names."""


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# Libraries in Rust (safetensors, tokenizers) have errors of their own for what the disk says, which end in this.
_FROM_RUST = re.compile(r"\(os error (\d+)\)")


def said(error: BaseException) -> tuple[int | None, str] | None:
    """Number and words of what the operating system said, or None where the error is of another kind."""
    # Without a number it is not the system that speaks: transformers raises such for files that it cannot read.
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno, error.strerror or str(error)
    found = _FROM_RUST.search(str(error))
    return (int(found[1]), os.strerror(int(found[1]))) if found else None


def is_full(error: BaseException) -> bool:
    """Whether the disk, or what the user may use of it, is full."""
    found = said(error)
    return found is not None and found[0] in _FULL


def full(target: Path) -> str:
    """The message for a full disk, for what lies in the folder that MATDARWIN_HOME moves."""
    return f"{target}: the disk is full; free some space, or set MATDARWIN_HOME to a folder on another disk"


def sync(path: Path) -> None:
    """Have a file, or a folder's list of names, written to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, text: str) -> None:
    """Write a text file on the disk itself, whole or not at all; whoever reads it sees the old one or the new one.

    Args:
        path: The file; its folder is made.
        text: What it shall hold, as UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of other machines may write into the same folder, so a process's number is not enough.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_text(text, encoding="utf-8")
        sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sync_all(folder: Path) -> None:
    """Have a folder with all that is in it written to the disk itself."""
    for path in folder.rglob("*"):
        # Folders too, or a file's name may be lost though its bytes are not.
        sync(path)
    sync(folder)


@contextmanager
def held(
    lock: Path, holder: Path, *, remove: bool = False, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a lock against other processes; it goes with the process, however that ends.

    Args:
        lock: The file that is locked.
        holder: A file that names the process.
        remove: Leave no lock file behind.
        waiting: Wait for another process that holds it; called with its name first. None: do not wait.

    Raises:
        HeldError: Another process holds it, and there is no waiting for it.
        OSError: The folder cannot be written.
    """
    from filelock import FileLock, Timeout

    own = FileLock(str(lock))
    try:
        try:
            own.acquire(timeout=0)
        except Timeout:
            if waiting is None:
                raise
            waiting(_named(holder))
            own.acquire()
        if not lock.exists():
            # Its last holder finished, and took the file away, between our opening and our locking it.
            raise Timeout(str(lock))
        holder.write_text(f"process {os.getpid()}", encoding="utf-8")
    except Timeout:
        own.release()
        raise HeldError(_named(holder)) from None
    except OSError:
        own.release()
        raise
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        if remove:
            lock.unlink(missing_ok=True)
        own.release()


def _named(holder: Path) -> str:
    """The process that a lock's holder names; it may finish, and take its name away, at any moment."""
    try:
        return holder.read_text(encoding="utf-8") or "an unnamed process"
    except FileNotFoundError:
        return "an unnamed process"
