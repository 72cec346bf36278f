"""The screen: a table of candidates of any length to those that fulfil a condition, in bounded memory, resumable after any kill.

The rows go through in parts of a fixed size. What is kept of a part stands in a file of its own in a work folder beside the
output, written whole or not at all, so that the same command goes on at the first part that is missing, and asks the
same batches as an undisturbed run. In the end the table is read once more, and the rows kept are written in their place.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matdarwin.data import disk, sources
from matdarwin.data.sources import DataError
from matdarwin.prediction.chunks import Chunk
from matdarwin.prediction.files import CHUNK, Ask, Summary, Table, answered
from matdarwin.prediction.outputs import check_output, open_sink
from matdarwin.prediction.prediction import FIELDS, Prediction
from matdarwin.prediction.wishes import condition, rank
from matdarwin.tasks.schema import Task

_JOB = "job.json"
_FORMAT = 1


@dataclass(frozen=True)
class Wanted:
    """What of the rows is kept.

    Attributes:
        where: Condition on the predictions (`matdarwin.prediction.wishes`); None: every row is kept.
        by: What rows are scored by; None: they have no score.
        top: Keep this many of the best, best first; None: all, in the order of the table.
        lowest: Little is better.
    """

    where: str | None = None
    by: str | None = None
    top: int | None = None
    lowest: bool = False

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise ValueError(f"at least one row is wanted, got top={self.top}")
        if self.top is not None and self.by is None:
            raise ValueError("the best by what? Name a term, such as value")


@dataclass
class Screened:
    """What became of the rows.

    Attributes:
        summary: Rows, rows without a value, statuses.
        matched: Rows that fulfil the condition.
        unranked: Of these, where the best are wanted, rows whose score is not known, which are not kept.
        kept: Rows of the output.
        found: Rows that an earlier, broken run had done.
    """

    summary: Summary = field(default_factory=Summary)
    matched: int = 0
    unranked: int = 0
    kept: int = 0
    found: int = 0


@dataclass(frozen=True)
class Kept:
    """A row that is kept: its number, counted from 0, its score where there is a rank, and its predictions."""

    row: int
    score: float | None
    predictions: list[Prediction]


def screen(
    table: Table,
    column: str,
    output: Path,
    tasks: Sequence[Task],
    ask: Ask,
    wanted: Wanted,
    *,
    model: str,
    identity: dict[str, Any],
    source: Input | None = None,
    size: int = CHUNK,
    progress: Callable[[int], None] | None = None,
) -> Screened:
    """Screen a table into a file.

    Args:
        table: The candidates.
        column: Its column with the materials.
        output: Where the rows kept go: CSV, or Parquet by its suffix.
        tasks: The tasks.
        ask: The predictor.
        wanted: What is kept.
        model: Name of the model.
        identity: What else an answer hangs on, as JSON types: model, coverage, conditions; where there is no `source`, the
            input. A run that goes on with another one is refused.
        source: The file that the table is read from, taken before the table was opened; None: it is generated.
        size: Rows a part.
        progress: Called with the number of rows done.

    Raises:
        WishError: The condition or rank cannot be read.
        DataError: The output cannot be written so (see `outputs.check_output`); another run is at work on it; the work
            folder belongs to another command; the source is changed meanwhile, and nothing is written; the disk is full.
    """
    check_output(output, table)
    matches = condition(wanted.where, tasks) if wanted.where is not None else None
    score = rank(wanted.by, tasks, lowest=wanted.lowest) if wanted.by is not None else None
    job = {
        "format": _FORMAT, "column": column, "tasks": [task.id for task in tasks], "where": wanted.where, "by": wanted.by,
        "top": wanted.top, "lowest": wanted.lowest, "rows a part": size,
        **({"input": source.identity} if source else {}), **identity,
    }  # fmt: skip
    folder = output.parent / f".{output.name}.screen"
    with _held(folder, output), _disk_errors(folder):
        _begin(folder, job)
        done = Screened()
        for number in _numbers(table, size):
            if (part := _part(folder, number)).is_file():
                done.found += _count(part, done)
        waiting = _Waiting(table, folder, size)
        if progress and done.found:
            progress(done.found)
        for number, found in waiting.answered(column, tasks, ask, model):
            kept = []
            for place, predictions in enumerate(found):
                row = {p.task: p for p in predictions}
                if matches is None or matches(row):
                    kept.append(Kept(number * size + place, score(row) if score else None, predictions))
            counted = Summary()
            for predictions in found:
                counted.add(predictions)
            if source:
                # Parts of a table that was changed and then changed back would be taken for the table's own.
                source.check()
            _write_part(_part(folder, number), counted, kept, wanted)
            _count(_part(folder, number), done)
            if progress:
                progress(done.summary.rows)
        _assemble(table, column, output, tasks, folder, wanted, size, done, source)
        shutil.rmtree(folder)
    return done


class _Waiting:
    """The parts of a table that are not done yet, as a table whose chunks they are."""

    def __init__(self, table: Table, folder: Path, size: int) -> None:
        self.name, self.columns, self.count = table.name, table.columns, table.count
        self._table, self._folder, self._size = table, folder, size
        self._numbers: list[int] = []

    def chunks(self, column: str, size: int) -> Iterator[Chunk]:
        """See `Table`."""
        for number, chunk in enumerate(self._table.chunks(column, size)):
            if not _part(self._folder, number).is_file():
                self._numbers.append(number)
                yield chunk

    def answered(
        self, column: str, tasks: Sequence[Task], ask: Ask, model: str
    ) -> Iterator[tuple[int, list[list[Prediction]]]]:
        """Number of each part, and the predictions of its rows."""
        for _, found in answered(self, column, tasks, ask, model=model, summary=Summary(), size=self._size):
            yield self._numbers.pop(), found


class Input:
    """A file that a table is read from, several times, and that has to stay as it is meanwhile.

    Args:
        path: The file.

    Attributes:
        identity: Its name, size and sha256: what tells an input from another.

    Raises:
        DataError: It cannot be read, or is a pipe, which could not be read once more to go on after a stop.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise DataError(
                f"{path}: is no file, so that a screen could not go on after a stop; save the table as a file"
            )
        self._path = path
        # In this order, so that what is written while it is read is noticed later.
        self._state = self._look()
        self.identity = self._identity()

    def check(self, *, wholly: bool = False) -> None:
        """Make sure that it holds what it held; `wholly`: even where size and time of change say so.

        Raises:
            DataError: It does not, or cannot be read.
        """
        state = self._look()
        if state == self._state and not wholly:
            return
        if self._identity() != self.identity:
            raise DataError(
                f"{self._path}: the table was changed while it was screened, so the output was not written; put it back as "
                "it was and give the same command again to go on, or choose another output to screen the changed one"
            )
        self._state = state

    def _look(self) -> tuple[int, int, int]:
        with _unreadable(self._path):
            found = self._path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _identity(self) -> dict[str, Any]:
        path = self._path
        with _unreadable(path):
            return {"name": path.name, "bytes": path.stat().st_size, "sha256": sources.sha256(path)}


@contextlib.contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


# -- parts on disk -----------------------------------------------------------------------------------------------


def _numbers(table: Table, size: int) -> range:
    """Numbers of the parts."""
    return range(-(-table.count // size))


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.jsonl"


def _write_part(path: Path, counted: Summary, kept: Sequence[Kept], wanted: Wanted) -> None:
    """Write what is kept of a part, under another name first: after any kill it is there whole, or not at all."""
    ranked = kept if wanted.top is None else [one for one in kept if one.score is not None]
    head = {
        "rows": counted.rows, "without_value": counted.without_value, "statuses": dict(counted.statuses),
        "matched": len(kept), "unranked": len(kept) - len(ranked),
    }  # fmt: skip
    if wanted.top is not None:
        # More than these cannot be among the best of all.
        ranked = sorted(_best(ranked, wanted), key=lambda one: one.row)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(head, allow_nan=False) + "\n")
        for one in ranked:
            rows = [_plain(prediction) for prediction in one.predictions]
            stream.write(json.dumps([one.row, one.score, rows], allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    disk.sync(path.parent)


def _count(path: Path, done: Screened) -> int:
    """Add what a part says of its rows; returns their number."""
    with path.open(encoding="utf-8") as stream:
        head = json.loads(stream.readline())
    done.summary.rows += head["rows"]
    done.summary.without_value += head["without_value"]
    done.summary.statuses.update(Counter(head["statuses"]))
    done.matched += head["matched"]
    done.unranked += head["unranked"]
    return int(head["rows"])


def _read_part(path: Path) -> Iterator[Kept]:
    with path.open(encoding="utf-8") as stream:
        stream.readline()
        for line in stream:
            row, score, predictions = json.loads(line)
            yield Kept(row, score, [Prediction(**{**p, "notes": tuple(p["notes"])}) for p in predictions])


def _plain(prediction: Prediction) -> dict[str, Any]:
    plain = prediction.to_dict()
    return {name: plain[name] for name in FIELDS}


# -- putting together --------------------------------------------------------------------------------------------


def _best(kept: Iterable[Kept], wanted: Wanted) -> list[Kept]:
    """The best, best first; of equals the one that stands earlier in the table."""
    sign = 1.0 if wanted.lowest else -1.0

    def key(one: Kept) -> tuple[float, int]:
        assert one.score is not None
        return sign * one.score, one.row

    return heapq.nsmallest(wanted.top or 0, kept, key=key)


def _assemble(
    table: Table, column: str, output: Path, tasks: Sequence[Task], folder: Path, wanted: Wanted, size: int,
    done: Screened, source: Input | None,
) -> None:  # fmt: skip
    """Write the rows kept, in the order of the table, or best first where the best were asked for."""
    if source:
        source.check(wholly=True)
    parts = _numbers(table, size)
    best: list[Kept] | None = None
    if wanted.top is not None:
        best = _best((one for number in parts for one in _read_part(_part(folder, number))), wanted)
    with open_sink(output, table, tasks, scored=wanted.by is not None) as sink:
        if best is not None:
            chosen = {one.row: one for one in best}
            cells: dict[int, Chunk] = {}
            for number, chunk in enumerate(table.chunks(column, size)):
                for place in range(len(chunk.materials)):
                    if number * size + place in chosen:
                        cells[number * size + place] = chunk.pick([place])
            for one in best:
                sink.write(cells[one.row], [one.predictions], [one.score])
            done.kept = len(best)
        else:
            for number, chunk in enumerate(table.chunks(column, size)):
                kept = list(_read_part(_part(folder, number)))
                if kept:
                    picked = chunk.pick([one.row - number * size for one in kept])
                    sink.write(picked, [one.predictions for one in kept], [one.score for one in kept])
                    done.kept += len(kept)
        if source:
            # Within, so that the output does not get its name.
            source.check(wholly=True)


# -- the work folder ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _held(folder: Path, output: Path) -> Iterator[None]:
    """Hold an output against other runs; the lock goes with the process, however it ends."""
    if not output.parent.is_dir():
        raise DataError(f"{output}: there is no folder {output.parent}; make it, or choose another")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(disk.held(Path(f"{folder}.lock"), Path(f"{folder}.holder"), remove=True))
        except disk.HeldError as error:
            raise DataError(f"{output} is being written by another screen ({error}); wait for it or stop it") from None
        except OSError as error:
            raise DataError(
                f"{output.parent} cannot be written: {error.strerror or error}; choose another folder"
            ) from error
        yield


def _begin(folder: Path, job: dict[str, Any]) -> None:
    """Open the work folder, or go on in it where it belongs to this very command."""
    path = folder / _JOB
    if not path.is_file():
        # Nothing counts before the job stands.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        disk.write_whole(path, json.dumps(job, indent=2))
        disk.sync(folder)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    differing = [name for name in dict.fromkeys([*before, *job]) if before.get(name) != job.get(name)]
    if differing:
        raise DataError(
            f"{folder}: an unfinished screen with another {', '.join(differing)} lies here; give its command again to go on "
            "with it, remove the folder to begin anew, or choose another output"
        )


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if disk.is_full(error):
            raise DataError(
                f"{folder}: the disk is full; free some space and give the same command again: what is done is kept"
            ) from error
        raise
