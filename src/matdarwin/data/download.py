"""A file from an address to the disk: what broke off goes on where it stood."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from matdarwin.data.sources import DataError

Progress = Callable[[int, int | None], None]
"""Told the bytes that are here and those of the whole file, None where the server does not say."""

_CHUNK = 1 << 16
_TIMEOUT = 60
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


def download(address: str, part: Path, progress: Progress | None = None) -> None:
    """Bring what stands at an address into `part`, going on behind the bytes that are there already.

    A connection that is cut is taken up again as long as each try brings something. A server that cannot send the
    rest of a file sends the whole, which then replaces what was there. Whether the bytes are the right ones is for
    the caller to check.

    Args:
        address: http or https.
        part: The file; it stays where the download breaks off.
        progress: Told as bytes arrive.

    Raises:
        DataError: The server has no such file, or cannot be reached or kept; the message says what to do.
        OSError: The disk.
    """
    import requests
    from urllib3.exceptions import HTTPError

    while True:
        before = _size(part)
        try:
            if _take(address, part, progress):
                return
            fault = "the connection was cut"
        except (requests.RequestException, HTTPError) as error:
            fault = type(error).__name__
        here = _size(part)
        if here <= before:
            kept = f"; {here:,} bytes are here, and the next try goes on behind them" if here else ""
            raise DataError(
                f"{address}: cannot be fetched: {fault}; check the network, or set MATDARWIN_MIRROR to a folder that "
                f"holds it{kept}"
            )


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _take(address: str, part: Path, progress: Progress | None) -> bool:
    """Ask once for what is missing; returns whether the file is whole, as far as the server says."""
    import requests

    have = _size(part)
    # Compressed on the way, lengths and ranges would count other bytes than those of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        begin, total = _place(response.headers.get("Content-Range", ""))
        if response.status_code == requests.codes.requested_range_not_satisfiable and have:
            if total == have:
                return True
            part.unlink()  # longer than the file is now: of another version
            return _take(address, part, progress)
        if response.status_code >= 400:
            raise _refused(address, response.status_code, response.reason)
        goes_on = response.status_code == requests.codes.partial_content and begin == have
        if have and response.status_code == requests.codes.partial_content and not goes_on:
            part.unlink()  # another piece than the one that was asked for
            return _take(address, part, progress)
        if not goes_on:
            have = 0
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None
        with part.open("ab" if goes_on else "wb") as file:
            # Not iter_content, which drops what it holds of a chunk when the connection is cut.
            while chunk := response.raw.read1(_CHUNK, decode_content=True):
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total)
    return total is None or have >= total


def _refused(address: str, status: int, reason: str) -> DataError:
    elsewhere = "set MATDARWIN_MIRROR to a folder that holds it"
    if status in (401, 403, 404, 410):
        return DataError(
            f"{address}: the server has no such file for us ({status} {reason}); the address may have moved: look for "
            f"the file there, or {elsewhere}"
        )
    return DataError(
        f"{address}: cannot be fetched: the server answers {status} {reason}; try again later, or {elsewhere}"
    )


def _place(header: str) -> tuple[int | None, int | None]:
    """First byte and length of the whole file, from a Content-Range header."""
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        return None, None
    return (
        None if found[1] is None else int(found[1]),
        None if found[2] == "*" else int(found[2]),
    )
