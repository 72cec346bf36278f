"""Question-answer pairs for stage 1: read, split by near-duplicates, and freed of what gives a test material away."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matdarwin.data.folds import order
from matdarwin.data.mentions import Mentions, normal
from matdarwin.data.readers import Reject
from matdarwin.data.sentences import Pair as Pair
from matdarwin.data.sources import DataError
from matdarwin.tasks.schema import Example, Source, Task

SCIQAG_TEST = Source(
    kind="mirror",
    name="sciqag/test_qas_8531.json.gz",
    mirror="sciqag/test_qas_8531.json.gz",
    sha256="70670cc0c431ec5b323324ba96a782642aa5078024e56594ceead273604ff0ab",
    made_from="github MasterAI-EAM/SciQAG @ 6c937bb405389ed0a0f4f66a83069b1662cb6625, data/test_qas_8531.json, packed",
)
"""The published 8,531 pairs of SciQAG-24D (arXiv 2405.09939). No licence is stated, so they are never shipped."""

SHAPES = (("Q", "A"), ("input", "output"))
"""Names of question and answer in SciQAG's files: those of its 8,531 test pairs, and of its 179,511 training pairs."""

INSTRUCTION = "instruction"
"""Name of what may stand beside either shape and say what is asked. It is part of the question even where all pairs of a
file have the same: without it the answers of a file of materials would teach nothing that is true, and a filter that did
not read it would not know what is asked."""

THRESHOLD = 0.7
"""Jaccard similarity of two questions' content words from which on they count as one."""

_EMPTY = """a an and are as at be been by can could did do does for from had has have how in into is it its of on or over
that the their these this those to under used using was were what when where which who why will with would"""
_EMPTY_WORDS = frozenset(_EMPTY.split())


@dataclass(frozen=True, slots=True)
class Pairs:
    """All of a file: `rows_read` is always the number of pairs plus that of rejects."""

    pairs: list[Pair]
    rejects: list[Reject]
    rows_read: int


def read_pairs(path: Path, source: str = "sciqag") -> Pairs:
    """The pairs of a file.

    Two formats: .json, a list of objects; .jsonl, one object a line; each also packed (.gz). An object has `Q` and
    `A`, or `input` and `output` (see `SHAPES`), and may have an `instruction`, which stands before the question, or in
    its place where that is empty; what else it has is not read. UTF-8.

    Args:
        path: The file.
        source: What the pairs say they come from.

    Raises:
        DataError: No such file, another suffix, a broken archive, no UTF-8, or no list of objects.
    """
    pairs: list[Pair] = []
    rejects: list[Reject] = []
    count = 0
    for count, given in _objects(path):
        found = _pair(given, count, source)
        (pairs if isinstance(found, Pair) else rejects).append(found)  # type: ignore[arg-type]
    return Pairs(pairs, rejects, count)


def _pair(given: Any, row: int, source: str) -> Pair | Reject:
    shown = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    if not isinstance(given, dict):
        return Reject(row, shown[:200], "is no object with a question and an answer", cause="no object")
    names = next((shape for shape in SHAPES if not set(shape).isdisjoint(given)), None)
    if names is None:
        wanted = " or ".join(" and ".join(shape) for shape in SHAPES)
        return Reject(
            row, shown[:200], f"has {', '.join(given) or 'no key'} where {wanted} are needed", cause="no keys"
        )
    texts = {INSTRUCTION: given.get(INSTRUCTION, "")} | {name: given.get(name) for name in names}
    for name, text in texts.items():
        if not isinstance(text, str):
            return Reject(row, shown[:200], f"{name} is no text", name, "no text")
    instruction, question, answer = (str(text).strip() for text in texts.values())
    if not question:
        question, instruction = instruction, ""
    for name, text in zip(names, (question, answer), strict=True):
        if not text:
            return Reject(row, shown[:200], f"{name} is empty", name, "empty")
    return Pair(question, answer, str(row), source, instruction=instruction)


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    """Every object of the file, from 1; a line of a .jsonl that is no JSON comes as its text."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    suffix = suffixes[-2 if packed else -1] if len(suffixes) > packed else ""
    if suffix not in (".json", ".jsonl"):
        raise DataError(f"{path}: pairs are read from .json or .jsonl, also with .gz; convert it")
    try:
        raw = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8 and try again") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if suffix == ".jsonl":
        # Not splitlines(), which also cuts at characters that stand inside of answers (U+2028).
        for number, line in enumerate((line for line in text.split("\n") if line.strip()), 1):
            try:
                yield number, json.loads(line)
            except ValueError:
                yield number, line
        return
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: no JSON: {error}; the file may be cut off, fetch it anew") from error
    if not isinstance(content, list):
        raise DataError(f"{path}: a list of objects is needed, and this is {type(content).__name__}")
    yield from enumerate(content, 1)


@dataclass(frozen=True, slots=True)
class PairSplit:
    """Pairs in two parts, in their order, so that no question of one is a near-duplicate of one of the other.

    `groups`: how many groups of near-duplicates there are. `largest`: questions in the greatest.
    """

    train: list[Pair]
    held_out: list[Pair]
    groups: int
    largest: int


def split(pairs: Sequence[Pair], share: float, seed: int = 0, threshold: float = THRESHOLD) -> PairSplit:
    """Divide pairs into train and held-out, near-duplicate questions always together.

    A group's side depends on its alphabetically first question and the seed, so a file with more pairs keeps it
    for every group whose first question stays the same.

    Args:
        pairs: The pairs.
        share: Part of the groups to hold out, from 0 to under 1.
        seed: Seed of the draw.
        threshold: Jaccard similarity of the content words from which on two questions are one.

    Raises:
        ValueError: Share or threshold out of range.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share to hold out is from 0 to under 1, got {share}")
    together = near_duplicates([pair.question for pair in pairs], threshold)
    out: set[int] = set()
    for places in together:
        name = min(normal(pairs[place].question) for place in places)
        if order(f"qa|{seed}", name) < share:
            out.update(places)
    return PairSplit(
        train=[pair for place, pair in enumerate(pairs) if place not in out],
        held_out=[pair for place, pair in enumerate(pairs) if place in out],
        groups=len(together),
        largest=max(map(len, together), default=0),
    )


def near_duplicates(questions: Sequence[str], threshold: float = THRESHOLD) -> list[list[int]]:
    """Places of questions that are near-duplicates, directly or through others.

    Two questions are one if they are equal but for case, punctuation and empty words ("what is the"), or if the
    Jaccard similarity of their sets of content words reaches the threshold. Exact: pairs are found by an index of
    each set's rarest words, of which two sets that similar must share one (Chaudhuri et al., ICDE 2006,
    doi 10.1109/ICDE.2006.9).

    Args:
        questions: The questions.
        threshold: Above 0, at most 1.

    Returns:
        Groups in the order of their first question; each a list of places, rising.

    Raises:
        ValueError: The threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold of similarity is above 0 and at most 1, got {threshold}")
    same: dict[frozenset[str], list[int]] = defaultdict(list)
    for place, question in enumerate(questions):
        words = normal(question).split()
        same[frozenset(word for word in words if word not in _EMPTY_WORDS) or frozenset(words)].append(place)
    sets = sorted(same, key=len)  # stable: the order of first appearance within a size
    frequency = Counter(word for content in sets for word in content)
    parent = list(range(len(sets)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    index: dict[str, list[int]] = defaultdict(list)
    for number, content in enumerate(sets):
        size = len(content)
        rarest = sorted(content, key=lambda word: (frequency[word], word))
        # The small term keeps 0.7 * 10 from becoming 8.
        prefix = rarest[: size - math.ceil(threshold * size - 1e-9) + 1]
        for other in {other for word in prefix for other in index[word]}:
            if len(sets[other]) < threshold * size - 1e-9 or root(other) == root(number):
                continue
            shared = len(content & sets[other])
            if shared >= threshold * (size + len(sets[other]) - shared) - 1e-9:
                parent[root(other)] = root(number)
        for word in prefix:
            index[word].append(number)
    found: dict[int, list[int]] = defaultdict(list)
    for number, content in enumerate(sets):
        found[root(number)].extend(same[content])
    return sorted(sorted(places) for places in found.values())


@dataclass(frozen=True, slots=True)
class Removal:
    """A pair that was taken away: the spelling of a test material and the word of the property that stand in it.

    `task` and `key` are those of the test material. `word` is empty where the question is nothing but the material.
    """

    pair: Pair
    task: str
    key: str
    spelling: str
    word: str

    @property
    def reason(self) -> str:
        """The removal in one sentence."""
        if not self.word:
            return f"asks of nothing but {self.spelling}, a test material of {self.task}"
        return f"names {self.spelling}, a test material of {self.task}, and {self.word!r}"


@dataclass(frozen=True, slots=True)
class Filtered:
    """Pairs that may teach and those that may not; `counts`: removals by task."""

    kept: list[Pair]
    removed: list[Removal]
    counts: dict[str, int]


def remove_test_facts(
    pairs: Iterable[Pair],
    tests: Sequence[tuple[Task, Sequence[Example]]],
    names: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> Filtered:
    """Take away every pair that names a test material together with a word of the property asked of it.

    Made to miss little: no value need stand in the pair, and a composition counts as a formula in whatever order and
    brackets, with blanks or subscripts, and as a name (silicon, zinc sulphide, barium titanate, alumina) whatever its
    amounts. A lone symbol that is a word where it stands (In, As, He at the start of a sentence; I) or a unit (after a
    number) does not count. A pair that asks of nothing but a test material goes whatever its words: no word of it says
    what the answer is of. One removal a pair, for the first task that it touches.

    Args:
        pairs: The pairs.
        tests: Each scored task with the examples of its test fold.
        names: Other names of a task's materials, by its id and their key (see `readers.names`).
    """
    asked = [
        (task.id, _property_words(task), Mentions((example.material for example in rows), (names or {}).get(task.id)))
        for task, rows in tests
    ]
    kept: list[Pair] = []
    removed: list[Removal] = []
    for pair in pairs:
        text = f"{pair.asked}\n{pair.answer}"
        plain = f" {normal(text)} ".replace("_", " ")
        for task, words, mentions in asked:
            said = words.search(plain)
            found = (mentions.find(text) if said else None) or mentions.bare(pair.question)
            if found:
                removed.append(Removal(pair, task, found[0], found[1], said[0].strip() if said else ""))
                break
        else:
            kept.append(pair)
    return Filtered(kept, removed, dict(Counter(removal.task for removal in removed)))


PROPERTY_WORDS: Mapping[str, tuple[str, ...]] = {
    "band gap": (
        *("gap", "bandgap", "eg", "e g", "conductor", "conduction band*", "absorption edge"),
        *("semiconduct*", "semimetal*", "insulat*", "metallic", "non metal*", "nonmetal*"),
        # Not "metal" alone: of what a metal is in, on or bound to, texts speak everywhere.
        *("metal or not", "metal or non", "not a metal", "not metal", "is metal", "is a metal", "are metal"),
        *("a metal or", "as a metal", "as metal", "be a metal", "it metal", "metal yes", "metal no"),
    ),
    "glass": ("glass*", "amorphous", "vitrif*"),
    "alloy phase": ("phase", "solid solution", "bcc", "fcc", "hcp", "body centered", "face centered", "body centred"),
    "strength": ("strength", "yield stress", "hardness", "mpa", "gpa"),
    "thermoelectric": (
        *(
            "seebeck",
            "thermopower",
            "thermoelectric*",
            "thermal conductivity",
            "resistivity",
            "electrical conductivity",
        ),
        *("power factor", "figure of merit", "zt"),
    ),
    "polymer": ("efficiency", "pce", "homo", "lumo", "solar cell", "photovoltaic*"),
    "photovoltaic": (
        *("efficiency", "pce", "open circuit voltage", "voc", "band gap", "bandgap", "solar cell", "photovoltaic*"),
    ),
    "magnet": ("magnetic moment", "magneti*", "bohr magneton", "formation energy", "formation enthalpy"),
    "formation energy": (
        "formation energy",
        "energy of formation",
        "formation enthalpy",
        "enthalpy of formation",
        "heat of formation",
    ),
    "aqueous solubility": ("solub*", "dissol*"),
    "lipophilicity": ("lipophil*", "log d", "logd", "log p", "logp", "partition coefficient", "hydrophob*"),
    "heat capacity": ("heat capacity", "specific heat"),
    "water stability": ("water stab*", "stable in water", "stability in water", "moisture", "hydrolytic*", "hydroly*"),
    "dimensionality": ("dimension*", "0d", "1d", "2d", "3d", "layered", "chain*"),
}
"""Words of a quantity, in lower case without hyphens; `*` stands for any ending. A task's own property is added."""


_COMPUTED_WORDS = ("comput*", "calculat*")


def _property_words(task: Task) -> re.Pattern[str]:
    words = [normal(task.property)]
    if task.origin == "computed":
        words += _COMPUTED_WORDS  # nothing computed of a material teaches computed labels
    words += [word for quantity in task.quantities for word in PROPERTY_WORDS.get(quantity, (normal(quantity),))]
    return re.compile(
        " (?:" + "|".join(re.escape(word).replace(r"\*", r"\w*").replace(r"\ ", " ") + "s?" for word in words) + ") "
    )
