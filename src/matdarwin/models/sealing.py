"""A folder's seal: a manifest with the hash of every file, written last, without which the folder does not count."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from matdarwin.data import disk

MANIFEST = "manifest.json"
FORMAT = 1
_RUNNABLE = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib", ".py", ".pyc", ".so"}


def seal(folder: Path) -> None:
    """Write the manifest of a folder, all that is in it on the disk itself before."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": sha256(path)}
        # Folders too, or a file's name may be lost though its bytes are not.
        disk.sync(path)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"format": FORMAT, "files": files}, indent=1), encoding="utf-8")
    disk.sync(manifest)
    disk.sync(folder)


def fault(folder: Path, *, verify: bool = True) -> str | None:
    """What is wrong with a sealed folder, in words that name it; None where it is whole.

    Args:
        folder: The folder.
        verify: Also hash every file; otherwise only names and sizes are compared.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return f"{folder} is not sealed: it has no {MANIFEST}; the run that wrote it did not finish, run it again"
    try:
        files = dict(json.loads(manifest.read_text(encoding="utf-8"))["files"])
        for name, entry in files.items():
            if found := _fault(folder, name, entry, verify=verify):
                return found
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        return f"{folder} has a card or manifest that cannot be read: {error}"
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    if extra := sorted(present - set(files)):
        return f"{folder}: {extra[0]} is not in the manifest; remove it or train again"
    return None


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fault(folder: Path, name: str, entry: dict[str, Any], *, verify: bool) -> str | None:
    path = folder / name
    if path.suffix.lower() in _RUNNABLE:
        return (
            f"{folder}: {name} may hold code or pickled objects, which no checkpoint does; do not use this checkpoint"
        )
    if not path.resolve().is_relative_to(folder.resolve()):
        return f"{folder}: the manifest names {name!r}, which lies outside; do not use this checkpoint"
    if not path.is_file():
        return f"{folder} is damaged: {name} is missing"
    if path.stat().st_size != entry["size"]:
        return f"{folder} is damaged: {name} has {path.stat().st_size} bytes instead of {entry['size']}"
    if verify and sha256(path) != entry["sha256"]:
        return f"{folder} is damaged: {name} does not have the hash that it was sealed with"
    return None
