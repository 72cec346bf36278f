"""Questions in plain words: which of the known tasks is meant, about which material, and the answer as a sentence."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matdarwin.language.answers import format_number
from matdarwin.language.prompts import conditions_text
from matdarwin.materials import parse
from matdarwin.materials.material import Kind, Material, MaterialError
from matdarwin.prediction.prediction import Prediction
from matdarwin.tasks.schema import Task

Reads = Callable[[str, Kind], bool]
"""Whether a text can be read as a material of a kind."""

_LONGEST = 12
"""Words that a material is written in, at most."""
_MOST_WORDS = 200
_FILLERS = frozenset(
    re.findall(
        r"\S+",
        "a an and any are as at be by can class compute could did do does estimate experimental expected find for from "
        "give given have has how hello hi i if in is it its kind let me my of on or please predict predicted tell that "
        "the then there this to us value was what whats what's which will with would write you your material compound "
        "crystal alloy molecule large big wide much many no not about know state measured thanks",
    )
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?", re.ASCII)
_UNITS = {"K": r"(?:K|[Kk]elvin)", "°C": r"(?:°\s?C|degrees? C(?:elsius)?)"}
# All that stands before a unit as one quantity: 300, T=300, 1,000, 1 000, 300-500, 300 to 500, - 50.
_RUN = r"(?<!\S)((?:\S*\d\S*\s(?:to|and|or)\s)?(?:[-+]\s)?(?:\d{1,3}(?:\s\d{3})+|\S*\d\S*?))\s?"
# Not K-1, K^-1 and K/s, which are units of something else, nor 300 K-500 K.
_ALONE = r"(?![\w^/]|-\s?\d)"
_MINUS = str.maketrans("\u2212\u2013\ufe63\uff0d", "----")


class NotUnderstoodError(ValueError):
    """A question that is no known task about a readable material; the message says what can be asked."""


@dataclass(frozen=True)
class Understood:
    """A question as tasks.

    Attributes:
        tasks: The tasks that the question's words fit equally well.
        material: The material, as the question has it.
        conditions: The conditions that it names.
        unused: A temperature that it names, where no task has such a condition.
    """

    tasks: tuple[Task, ...]
    material: str
    conditions: dict[str, str | float]
    unused: str | None = None


def understand(question: str, tasks: Mapping[str, Task]) -> Understood:
    """Find task, material and conditions in a question.

    A task is meant where the question is one of its wordings, or else where it names the task's property, in words or by
    id. The material is what stands in the wording's place, or else the longest run of words that the task's own parser
    takes for one.

    Args:
        question: The question.
        tasks: The tasks that can be asked, by id.

    Raises:
        NotUnderstoodError: No task, no material, or a condition is missing or no plain number.
    """
    asked = " ".join(question.translate(_MINUS).split())
    # Tasks of one kind of material ask the same of the same words, and parsing is nearly all of the work.
    reads: Reads = functools.cache(_reads)
    fits = _by_wording(asked, tasks, reads) or _by_property(asked, tasks, reads)
    if not fits:
        raise NotUnderstoodError(_refusal("That is no property that I know.", tasks))
    best = max(score for score, _, _ in fits)
    chosen = [(task, material) for score, task, material in fits if score == best]
    task, material = chosen[0]
    if material is None:
        what = {"composition": "formula", "molecule": "SMILES", "name": "name"}[task.representation]
        raise NotUnderstoodError(
            f"I take this for a question about the {task.property}, but find no {what} in it that I can read. "
            + _example(task)
        )
    if doubtful := _doubtful(asked, material):
        raise NotUnderstoodError(
            f"Is {doubtful!r} a temperature or a part of the formula? Please write `at` before a temperature, and formulas "
            f"without blanks. {_example(task)}"
        )
    same = tuple(t for t, m in chosen if m == material)
    # In a formula such as `Na 0.5 K 0.5` nothing is a temperature.
    rest = re.sub(rf"(?<![^\s(])(?<!\d ){re.escape(material)}(?!\w)", "|", asked, count=1)
    conditions: dict[str, str | float] = {}
    for one in same:
        conditions |= _conditions(rest, one)
    return Understood(same, material, conditions, _unused(rest, same))


def sentence(
    prediction: Prediction, task: Task, conditions: Mapping[str, str | float] | None = None, unused: str | None = None
) -> str:
    """The answer to a question: value, unit and interval, under which conditions, or why there is none."""
    about = prediction.material or prediction.input[:100]
    if at := conditions_text(task, dict(conditions or {}), complete=False):
        about += f" {at}"
    if prediction.value is None:
        return f"I have no value of the {task.property} of {about}: {prediction.reason}."
    if isinstance(prediction.value, str):
        given = prediction.distribution
        odds = ""
        if given is not None and prediction.value in given.labels:
            odds = f" (probability {given.probabilities[given.labels.index(prediction.value)]:.2f})"
        text = f"The {task.property} of {about} is predicted to be: {prediction.value}{odds}."
    else:
        digits, unit = task.decimals or 0, f" {prediction.unit}" if prediction.unit else ""
        text = f"The {task.property} of {about} is predicted to be {format_number(prediction.value, digits)}{unit}"
        if prediction.lower is not None and prediction.upper is not None and prediction.coverage is not None:
            low, high = (format_number(end, digits + 1) for end in (prediction.lower, prediction.upper))
            text += f", with a {100 * prediction.coverage:g} % interval of {low} to {high}{unit}."
        else:
            text += f", without an interval: {prediction.reason}."
    told = [*prediction.notes, *([f"{unused} was not used, since this task has no such condition"] if unused else [])]
    notes = f" Note: {'; '.join(told)}." if told else ""
    return f"{text}{notes} (Task {task.id}, model {prediction.model}.)"


# -- parts -------------------------------------------------------------------------------------------------


def _by_wording(asked: str, tasks: Mapping[str, Task], reads: Reads) -> list[tuple[int, Task, str | None]]:
    """Tasks of which the question is a wording, with the number of its letters that are the wording's own."""
    found: list[tuple[int, Task, str | None]] = []
    plain = asked.rstrip(" ?.!:")
    for task in tasks.values():
        # Only the best wording of a task counts.
        fits: list[tuple[int, str]] = []
        for wording in task.wordings:
            fit = re.fullmatch(_pattern(wording, task), plain, re.IGNORECASE)
            if fit is not None and reads(fit["material"], task.representation):
                fits.append((len(plain) - len(fit["material"]), fit["material"].strip()))
        if fits:
            score, material = max(fits)
            found.append((score, task, material))
    return found


def _pattern(wording: str, task: Task) -> str:
    pieces: list[str] = []
    for piece in re.split(r"(\{material\}|\{conditions\})", " ".join(wording.rstrip(" ?.!:").split())):
        if piece == "{material}":
            # One mention of it is read; a wording that has two asks the same of both.
            pieces.append("(?P<material>.+?)" if "(?P<material>" not in "".join(pieces) else "(?P=material)")
        elif piece == "{conditions}":
            pieces.append(".*?")
        else:
            pieces.append(re.escape(piece).replace(r"\ ", r"\s*"))
    at = r"(?:\s+at\s.+)?" if task.conditions else ""
    return r"(?:please\s+)?(?:what(?:'s|\sis)\s+(?:the\s+)?)?" + "".join(pieces) + at


def _by_property(asked: str, tasks: Mapping[str, Task], reads: Reads) -> list[tuple[int, Task, str | None]]:
    """Tasks whose property or id stands in the question, with the length of the name that does."""
    found: list[tuple[int, Task, str | None]] = []
    for task in tasks.values():
        names = sorted({task.property, task.id, task.id.replace("_", " "), *_shorter(task)}, key=len, reverse=True)
        for name in names:
            place = re.search(rf"(?<!\w){re.escape(name)}s?(?!\w)", asked, re.IGNORECASE)
            if place is not None:
                rest = f"{asked[: place.start()]} \n {asked[place.end() :]}"
                found.append((len(name), task, _material(rest, task, reads)))
                break
    return found


def _shorter(task: Task) -> list[str]:
    """The property without what it is measured in or how."""
    name = task.property.removeprefix("log10 of the ")
    return [name, *(name.removeprefix(word) for word in ("gravimetric ", "aqueous ") if name.startswith(word))]


def _material(text: str, task: Task, reads: Reads) -> str | None:
    """The run of words that is most likely the material: the longest that can be read."""
    words = [match for match in re.finditer(r"\S+", text.replace("\n", " | "))][:_MOST_WORDS]
    cleaned = [_trimmed(match.group()) for match in words]
    best: tuple[int, int] | None = None
    chosen = None
    for start in range(len(cleaned)):
        for end in range(start + 1, min(len(cleaned), start + _LONGEST) + 1):
            run = cleaned[start:end]
            if any(word == "|" for word in run) or _filler(run[0]) or _filler(run[-1]):
                break
            if task.representation != "name" and any(_filler(word) for word in run):
                break
            given = " ".join(run)
            if reads(given, task.representation):
                score = (len(given), -start)
                if best is None or score > best:
                    best, chosen = score, given
    return chosen


def _trimmed(word: str) -> str:
    """A word without the marks that sentences put around it; brackets of a formula stay."""
    word = word.strip("?!,;:\"'`").rstrip(".")
    return word[1:-1] if word.startswith("(") and word.endswith(")") and word.count("(") == 1 else word


def _filler(word: str) -> bool:
    """Whether it is a word of English; what is written like an element (`In`, `As`) is one only at no formula's place."""
    return not word or word.casefold() in _FILLERS


def _reads(given: str, kind: Kind) -> bool:
    try:
        return isinstance(parse(given, kind), Material)
    except MaterialError:
        return False


def _conditions(asked: str, task: Task) -> dict[str, str | float]:
    """The conditions that a question names: a number before the condition's unit, or `(name value)`."""
    found: dict[str, str | float] = {}
    for condition in task.conditions:
        if condition.unit is not None:
            given = _quantities(asked, condition.unit)
            if len(given) > 1:
                raise NotUnderstoodError(
                    f"I read {' and '.join(given)} as the {condition.name} in {condition.unit}; please give one number."
                )
            if given:
                if _NUMBER.fullmatch(given[0]) is None:
                    raise NotUnderstoodError(
                        f"I cannot read {given[0]!r} as the {condition.name} in {condition.unit}; please write a plain number, "
                        "such as 1000 or -50.5."
                    )
                found[condition.name] = float(given[0])
        elif fit := re.search(rf"\({re.escape(condition.name)}\s+([^()]+)\)", asked, re.IGNORECASE):
            found[condition.name] = fit[1]
        if condition.required and condition.name not in found:
            unit = f", in {condition.unit}" if condition.unit else ""
            raise NotUnderstoodError(
                f"The {task.property} depends on the {condition.name}{unit}; please give it. {_example(task)}"
            )
    return found


def _quantities(asked: str, unit: str) -> list[str]:
    """What stands before a unit as a number, each once."""
    runs = re.findall(rf"{_RUN}{_UNITS.get(unit, re.escape(unit))}{_ALONE}", asked)
    # `T=300`, `(300`, `~300` say 300.
    plain = (re.sub(r"^[^\d+-]*=", "", run.lstrip("([~\u2248")).lstrip("~\u2248") for run in runs)
    return list(dict.fromkeys(plain))


def _doubtful(asked: str, material: str) -> str | None:
    """A number and K at an end of the material that may as well be a temperature: `PbTe 300 K`, `300 K PbTe`."""
    before, _, after = asked.partition(material)
    behind = re.search(r"(?<=\s)\d[\d.,]*(?:\s\d{3})*(\s?K)?$", material)
    rest = re.match(r"(?:\s\d{3})*\s?K(?!\w)", after)
    if behind is not None and (behind[1] or rest is not None):
        return behind[0] + ("" if behind[1] or rest is None else rest[0])
    ahead = re.search(r"(?<!\S)\d\S*\s?$", before)
    return f"{ahead.group().rstrip()} K" if ahead is not None and material.startswith("K ") else None


def _unused(asked: str, tasks: Sequence[Task]) -> str | None:
    """A temperature in a question for which no task has a place."""
    known = {condition.unit for task in tasks for condition in task.conditions}
    named = [f"{one} {unit}" for unit in _UNITS if unit not in known for one in _quantities(asked, unit)]
    return named[0] if named else None


def _example(task: Task) -> str:
    material = {"composition": "GaN", "molecule": "CCO", "name": "HKUST-1"}[task.representation]
    at = "".join(f" at 300 {c.unit}" if c.unit else f" ({c.name} …)" for c in task.conditions if c.required)
    return f'Ask like this: "What is the {task.property} of {material}{at}?"'


def _refusal(why: str, tasks: Mapping[str, Task]) -> str:
    lines: Sequence[str] = [f"- {task.property} ({task.id}: {task.title})" for task in tasks.values()]
    return "\n".join(
        [f"{why} I predict properties of materials and nothing else:", *lines, _example(next(iter(tasks.values())))]
    )
