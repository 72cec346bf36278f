"""Free text that a stage may learn from, by name, without what it tells of test materials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matdarwin.data import qa, sentences
from matdarwin.data.qa import Removal
from matdarwin.data.readers import names, read
from matdarwin.data.sentences import Pair
from matdarwin.data.sources import DataError, fetch
from matdarwin.tasks import registry
from matdarwin.tasks.registry import TaskFileError, UnknownTaskError, nearest
from matdarwin.tasks.schema import Example, Source, Task

NAMES = ("sciqag", "elements")
"""Texts that are known by name; a file of pairs (.json, .jsonl, also .gz) is named by its path."""

COMPUTED = "computed:"
"""Begins the name of a text that says in sentences what an auxiliary task of computed numbers holds: `computed:pbe_gap_mp`."""


@dataclass(frozen=True)
class Published:
    """A text that is fetched: its name and its file."""

    id: str
    file: Source

    def sources(self) -> tuple[Source, ...]:
        """Its file."""
        return (self.file,)


PUBLISHED = (Published("sciqag", qa.SCIQAG_TEST),)
"""The texts among them that stand in files of others."""

_HELD_OUT = 0.05
"""Share of the questions of a text that no model is taught. No score of ours uses them; to teach them too would change every
stage that has been taught."""
_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


@dataclass(frozen=True)
class Text:
    """A text as it may teach.

    Attributes:
        name: Its name or path.
        rows: Its pairs as examples.
        read: Number of pairs that it has.
        held_out: Those of them that are kept from training. Nothing here tests with them: they are what a user may test
            a model with that has read the rest (`qa.split` gives them again), and no question like them was taught.
        removed: Those that name a material of a scored task and its property.
    """

    name: str
    rows: tuple[Example, ...]
    read: int
    held_out: int
    removed: tuple[Removal, ...]


_cleaned: dict[tuple[str, ...], Text] = {}
"""Texts of this process: an audit of five folds, or a training after it, reads them once."""


def check(name: str) -> None:
    """Make sure that a text is known.

    Raises:
        DataError: It is neither a name nor the path of a file of pairs; or it is to be made of a task that is unknown or
            holds other things than computed numbers.
    """
    if name.startswith(COMPUTED):
        try:
            sentences.check(registry.load(name.removeprefix(COMPUTED)))
        except (UnknownTaskError, TaskFileError) as error:
            raise DataError(f"text {name}: {error}") from error
    elif name not in NAMES and not name.endswith(_SUFFIXES):
        close = nearest(name, NAMES)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(NAMES)} and {COMPUTED}TASK"
        raise DataError(
            f"{name!r} is no text: {hint}; a file of your own is named by its path ({', '.join(_SUFFIXES)})"
        )


def load(name: str, tasks: Sequence[Task]) -> Text:
    """A text without what gives a test answer away.

    Every pair goes that names a material of a scored task, of this recipe or of the library, together with a word of
    the property asked of it. All folds' materials count and not one's alone, so that a stage that was taught by the text
    serves every fold and task.

    Args:
        name: Its name or path.
        tasks: The recipe's tasks.

    Raises:
        DataError: No such text, or one that cannot be read; data of a scored task that cannot be had.
    """
    scored = {task.id: task for task in map(registry.load, registry.names()) if task.scored}
    scored |= {task.id: task for task in tasks}
    known = [scored[key] for key in sorted(scored)]
    asked = (digest(name), *(task.model_dump_json(exclude={"notes"}) for task in known))
    if asked not in _cleaned:
        _cleaned[asked] = _clean(name, known)
    return _cleaned[asked]


def _clean(name: str, scored: Sequence[Task]) -> Text:
    pairs = _pairs(name)
    # Our own sentences are many of one form, so nothing that is held out of them would be new.
    ours = name == "elements" or name.startswith(COMPUTED)
    kept = pairs if ours else qa.split(pairs, _HELD_OUT).train
    tests = [(task, read(task).examples) for task in scored]
    done = qa.remove_test_facts(kept, tests, {task.id: names(task) for task in scored})
    rows = tuple(pair.example(name) for pair in done.kept)
    return Text(name, rows, len(pairs), len(pairs) - len(kept), tuple(done.removed))


def _pairs(name: str) -> list[Pair]:
    check(name)
    if name == "elements":
        return sentences.elements(each=3)
    if name.startswith(COMPUTED):
        task = registry.load(name.removeprefix(COMPUTED))
        return sentences.compounds(task, read(task).examples)
    path = fetch(qa.SCIQAG_TEST) if name == "sciqag" else Path(name)
    found = qa.read_pairs(path, Path(name).name)
    if not found.pairs:
        raise DataError(f"{path}: none of its {found.rows_read} rows is a question with an answer")
    return found.pairs


def crossing(text: Text, task: Task, tests: Sequence[Example]) -> dict[str, Removal]:
    """Test materials that a text still tells of, by key: the first pair that names each beside a word of its property.

    It asks with the filter of `load`, of the text as it teaches and of a fold's own rows. For a task that is scored it
    finds none unless a text went by the filter, so that none is no proof that the filter knows every word.

    Args:
        text: The text as it teaches.
        task: The scored task.
        tests: Its test rows.
    """
    pairs = [Pair.of(row) for row in text.rows]
    called = {task.id: names(task)}
    found: dict[str, Removal] = {}
    while pairs:
        # A pair is told of for one material; whether it names others as well, the next round says.
        left = [row for row in tests if row.material.key not in found]
        told = qa.remove_test_facts(pairs, [(task, left)], called).removed
        for removal in told:
            found.setdefault(removal.key, removal)
        pairs = [removal.pair for removal in told]
    return found


def digest(name: str) -> str:
    """Hash of all that a text says."""
    # Without an instruction as it ever was, so that what was taught before there were any is known again.
    content = [name, *[[*filter(None, [pair.instruction]), pair.question, pair.answer] for pair in _pairs(name)]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
