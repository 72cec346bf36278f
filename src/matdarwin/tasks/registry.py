"""Find and load tasks: one YAML file each, by id from the library or by path."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from matdarwin.tasks.schema import Task

_LIBRARY = "library"


class UnknownTaskError(ValueError):
    """No task has that name, or no file stands at that path."""


class TaskFileError(ValueError):
    """A task's YAML that does not fit the schema; the message names file, key and what is wrong."""


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of the choices that are spelt most like `name`, best first; case does not count."""
    known = {choice.casefold(): choice for choice in choices}
    return [known[match] for match in difflib.get_close_matches(name.casefold(), list(known), n=count, cutoff=0.5)]


def names() -> list[str]:
    """Ids of the tasks in the library, sorted."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in files("matdarwin.tasks").joinpath(_LIBRARY).iterdir()
        if entry.name.endswith(".yaml")
    )


def load(id_or_path: str) -> Task:
    """The task of that id, or the one written in that YAML file.

    Args:
        id_or_path: An id of the library (`expt_gap`), or a path that ends in .yaml or .yml.

    Raises:
        UnknownTaskError: No such id or file; the message has the nearest known names.
        TaskFileError: The file is no valid task.
    """
    if id_or_path.endswith((".yaml", ".yml")):
        path = Path(id_or_path).expanduser()
        if not path.is_file():
            raise UnknownTaskError(
                f"there is no task file {id_or_path}; give a path to a YAML file or an id: {', '.join(names())}"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TaskFileError(
                f"{id_or_path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
            ) from error
        return parse(text, id_or_path)
    return _library(id_or_path)


@cache
def _library(name: str) -> Task:
    if name not in names():
        close = nearest(name, names())
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(names())}"
        raise UnknownTaskError(f"{name!r} is no task; {hint}")
    file = f"{name}.yaml"
    task = parse(files("matdarwin.tasks").joinpath(_LIBRARY, file).read_text(encoding="utf-8"), file)
    if task.id != name:
        raise TaskFileError(f"{file}: id is {task.id!r}, but the file's name says {name!r}; make them equal")
    return task


def parse(text: str, file: str) -> Task:
    """The task that a YAML text states.

    Args:
        text: The YAML.
        file: Name of the file, for messages.

    Raises:
        TaskFileError: The text is no YAML, or does not fit the schema.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TaskFileError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise TaskFileError(f"{file}: a task file holds keys with values, not {type(content).__name__}")
    try:
        return Task.model_validate(content)
    except ValidationError as error:
        raise TaskFileError("\n".join(render(error, file, Task))) from error


def render(error: ValidationError, file: str, model: type[BaseModel]) -> list[str]:
    """One line for each fault that pydantic found: file, key, what is wrong, nearest known key.

    Args:
        error: What pydantic raised.
        file: Name of the file, for messages.
        model: The model that was being filled, to look its keys up.
    """
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            keys = _keys(model, fault["loc"][:-1])
            close = nearest(str(fault["loc"][-1]), keys, 1)
            message = "unknown key; " + (f"did you mean {close[0]}?" if close else f"known are {', '.join(keys)}")
        elif fault["type"] == "missing":
            message = "this key is needed and absent"
        elif not isinstance(fault["input"], dict | list):
            message += f" (given {fault['input']!r})"
        lines.append(f"{file}: {key}: {message}" if key else f"{file}: {message}")
    return lines


def schema() -> dict[str, Any]:
    """JSON Schema of a task file, made from the model: for editors, and for `darwin tasks --schema`."""
    return Task.model_json_schema()


def _keys(model: type[BaseModel], where: Sequence[int | str]) -> list[str]:
    """Known keys of the model that stands at that place inside `model`."""
    found: type[BaseModel] | None = model
    for part in where:
        if isinstance(part, int):
            continue
        field = found.model_fields.get(part) if found else None
        found = next(_models(field.annotation), None) if field else None
    return list(found.model_fields) if found else []


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models inside a type such as `tuple[Condition, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
