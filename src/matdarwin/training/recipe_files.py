"""Recipe files: YAML to a recipe, with what it extends, what is set on top, and a task's own keys."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from matdarwin.tasks import registry
from matdarwin.tasks.registry import nearest
from matdarwin.training.recipe import Recipe, RecipeError

ALL = "all"
"""In the place of task names: all scored tasks of the library."""


def load_recipe(path: Path | str, settings: list[str] | None = None) -> Recipe:
    """Load a recipe and apply `key=value` settings, dotted for nested keys.

    A recipe may say `extends: OTHER.yaml`, a file beside it whose keys it changes; `tasks: all` are all scored tasks.
    One that names a single task takes that task's `overrides`.

    Raises:
        RecipeError: No such file, broken YAML, an unknown key (the nearest known one is named), a wrong value.
    """
    return build_recipe(_read(Path(path), ()), settings, where=str(path))


def load_for_tasks(path: Path | str, names: Sequence[str], settings: list[str] | None = None) -> list[Recipe]:
    """A recipe for other tasks than its own: one recipe for each task that is named, or for each of all.

    Args:
        path: A recipe file that names a single task.
        names: Ids or files of tasks, or `all`.
        settings: As for `load_recipe`.

    Raises:
        RecipeError: As from `load_recipe`, or the recipe trains several tasks at once.
    """
    data = _read(Path(path), ())
    if (own := load_recipe(path, settings).tasks)[1:]:
        raise RecipeError(
            f"{path} trains {len(own)} tasks at once; --task is for recipes of a single task. Change its tasks with "
            "--set 'tasks=[...]'"
        )
    return [build_recipe({**data, "tasks": [name]}, settings, where=str(path)) for name in _every(list(names))]


def _every(names: list[Any]) -> list[Any]:
    """Names of tasks, `all` written out."""
    if ALL not in names:
        return names
    if len(names) > 1:
        raise RecipeError(f"tasks: {ALL} stands for every scored task and cannot have others beside it")
    return [name for name in registry.names() if registry.load(name).scored]


def _read(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The keys of a file, laid over those of the file that it extends."""
    if not file.is_file():
        raise RecipeError(f"{file} is no recipe file" + (f", but {above[-1]} extends it" if above else ""))
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is not readable as YAML: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{file} holds no keys")
    if (other := data.pop("extends", None)) is None:
        return data
    if not isinstance(other, str):
        raise RecipeError(f"{file}: extends names one recipe file, got {other!r}")
    parent = (file.parent / other).resolve()
    if parent in above or parent == file.resolve():
        raise RecipeError(f"{file}: extends {other}, which extends it in turn")
    found = _read(parent, (*above, file.resolve()))
    _merge(found, data)
    return found


def build_recipe(data: dict[str, Any], settings: list[str] | None = None, *, where: str = "recipe") -> Recipe:
    """Validate a recipe from a mapping; see `load_recipe`."""
    data = copy.deepcopy(data)
    changes = [_setting(text) for text in settings or []]
    for keys, value in changes:
        _put(data, keys, value)
    if data.get("tasks") == ALL:
        data["tasks"] = [ALL]
    if isinstance(data.get("tasks"), list):
        data["tasks"] = _every(data["tasks"])
    recipe = _validated(data, where)
    _check_overrides(recipe, data, where)
    if len(recipe.tasks) == 1 and recipe.tasks[0] in recipe.overrides:
        _merge(data, recipe.overrides[recipe.tasks[0]])
        # What was asked for on the command line stands above what the file says of a task.
        for keys, value in changes:
            _put(data, keys, value)
        recipe = _validated(data, f"{where}, overrides of {recipe.tasks[0]}")
    return recipe


def _check_overrides(recipe: Recipe, data: dict[str, Any], where: str) -> None:
    """Refuse what is wrong with a task's own keys, whether that task is trained now or not."""
    known = registry.names()
    for name, changes in recipe.overrides.items():
        if name not in (*known, *recipe.tasks):
            near = nearest(name, known)
            raise RecipeError(
                f"{where}: overrides.{name} is no task"
                + (f"; did you mean {near[0]}?" if near else "; see darwin tasks")
            )
        own = copy.deepcopy(data) | {"tasks": [name]}
        _merge(own, changes)
        _validated(own, f"{where}, overrides of {name}")


def _validated(data: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "; ".join(_line(problem) for problem in error.errors())) from error


def _line(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = nearest(str(problem["loc"][-1]), _known(problem["loc"][:-1]))
        return f"{path} is no key of a recipe" + (f"; did you mean {near[0]}?" if near else "")
    if problem["type"] == "missing":
        return f"{path} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}, got {problem['input']!r}" if path else message


def _known(parents: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for part in parents:
        if isinstance(part, int):
            # An item of a tuple, whose kind stands in its type.
            model = next(iter(get_args(model)), None)
            continue
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field else None
    return list(model.model_fields) if hasattr(model, "model_fields") else []


def _setting(text: str) -> tuple[list[str], Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise RecipeError(f"--set {text}: write key=value, such as optimising.epochs=3")
    try:
        return key.split("."), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {text}: {value!r} is not readable as YAML") from error


def _put(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for place, key in enumerate(keys[:-1], start=1):
        inner = data.setdefault(key, {})
        if isinstance(inner, list):
            # Earlier stages go by their names, or by their numbers, as messages of what is wrong with them have it.
            named = {str(item["name"]): item for item in inner if isinstance(item, dict) and "name" in item}
            inner = {str(number): item for number, item in enumerate(named.values())} | named
            if keys[place] not in inner or keys[place:] == keys[-1:]:
                known = ", ".join(named) or "none"
                raise RecipeError(f"--set {'.'.join(keys)}: {key} takes NAME.KEY below it, with the names {known}")
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {'.'.join(keys)}: {key} is a single value and has no keys below it")
        data = inner
    data[keys[-1]] = value


def _merge(data: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            _merge(data[key], value)
        else:
            data[key] = value
