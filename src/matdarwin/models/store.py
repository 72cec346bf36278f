"""The folder of checkpoints: what is in it, and which one to ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matdarwin.language.prompts import wordings_hash
from matdarwin.models.checkpoint import Checkpoint, CheckpointError, checkpoints_folder
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Task


def list_checkpoints() -> list[tuple[str, Checkpoint | CheckpointError]]:
    """All checkpoints, newest first, each opened without hashing, or the reason why it cannot be."""
    root = checkpoints_folder()
    found: list[tuple[str, Checkpoint | CheckpointError]] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        try:
            found.append((folder.name, Checkpoint.open(folder, verify=False)))
        except CheckpointError as error:
            found.append((folder.name, error))
    return sorted(found, key=lambda item: item[1].card.created if isinstance(item[1], Checkpoint) else "", reverse=True)


def find_checkpoint(name: str | None = None, tasks: Sequence[str] | None = None, *, stages: bool = False) -> Checkpoint:
    """The checkpoint of that name or folder; without one, the newest sealed product that knows the tasks.

    Args:
        name: Its name or folder.
        tasks: Tasks that it has to know.
        stages: Whether it may be an earlier stage of other trainings, which cannot be asked anything.

    Raises:
        CheckpointError: There is none, or it is such a stage, or a task that nobody knows; the nearest names, or tasks of the same quantity,
            are named.
    """
    if name is not None:
        for folder in (checkpoints_folder() / name, Path(name)):
            if folder.is_dir():
                checkpoint = Checkpoint.open(folder)
                if checkpoint.card.role == "stage" and not stages:
                    raise CheckpointError(
                        f"{checkpoint.name} is an earlier stage of other trainings and has no task, so it cannot be asked, "
                        "scored or exported; train a recipe that goes on from it, such as recipes/qa-st.yaml"
                    )
                _knows(checkpoint, tasks or [])
                return checkpoint
        names = [n for n, _ in list_checkpoints()]
        near = registry.nearest(name, names)
        hint = (
            f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none yet; make demo trains one'}"
        )
        raise CheckpointError(f"{name!r} is no checkpoint in {checkpoints_folder()}; {hint}")
    sealed = [found for _, found in list_checkpoints() if isinstance(found, Checkpoint)]
    products = [checkpoint for checkpoint in sealed if checkpoint.card.role == "product"]
    for checkpoint in products:
        if set(tasks or []) <= set(checkpoint.card.tasks):
            return Checkpoint.open(checkpoint.folder)
    for task in tasks or []:
        _exists(task, sealed)
    if not products:
        raise CheckpointError(
            f"there is no sealed product checkpoint in {checkpoints_folder()}; train one with `darwin train RECIPE.yaml` "
            f"or `make demo`{_made_for_scoring(tasks or [], sealed)}"
        )
    known = _tasks_of(products)
    missing = [task for task in tasks or [] if task not in known]
    if not missing:
        raise CheckpointError(f"no single checkpoint knows all of {', '.join(tasks or [])}; ask for them one by one")
    if hint := _made_for_scoring(missing[:1], sealed):
        raise CheckpointError(f"no product checkpoint knows the task {missing[0]}{hint}")
    raise CheckpointError(f"no checkpoint knows the task {missing[0]}; {_instead(missing[0], known)}")


def _tasks_of(checkpoints: Sequence[Checkpoint]) -> dict[str, Task]:
    """The tasks that any of them knows, by id."""
    return {name: entry.task for checkpoint in checkpoints for name, entry in checkpoint.card.tasks.items()}


def _exists(task: str, sealed: Sequence[Checkpoint]) -> None:
    """Make sure that somebody knows a task: a checkpoint, or the library."""
    known = _tasks_of(sealed)
    if task in known:
        return
    try:
        registry.load(task)
    except registry.UnknownTaskError as error:
        near = registry.nearest(task, [*known, *registry.names()])
        raise CheckpointError(f"{task!r} is no task; did you mean {near[0]}?" if near else str(error)) from error


def _made_for_scoring(tasks: Sequence[str], sealed: Sequence[Checkpoint]) -> str:
    """A hint at a checkpoint that is never taken unasked, but knows the tasks."""
    for checkpoint in sealed:
        if checkpoint.card.role != "product" and tasks and set(tasks) <= set(checkpoint.card.tasks):
            return (
                f"; {checkpoint.name} knows {', '.join(tasks)}, but was made for scoring: use --model {checkpoint.name}"
            )
    return ""


def _instead(task: str, known: dict[str, Task]) -> str:
    """What to do about a task that exists and that no checkpoint at hand knows."""
    quantities = set(registry.load(task).quantities) if task in registry.names() else set()
    kin = [name for name, other in known.items() if quantities & set(other.quantities)]
    if kin:
        return f"{kin[0]} is of the same quantity: use --task {kin[0]}"
    return f"train one: darwin train recipes/product.yaml --set tasks=[{task}]"


def changed_since(checkpoint: Checkpoint) -> dict[str, str]:
    """Tasks that the library asks otherwise today than this checkpoint was taught, with what differs.

    No fault: a checkpoint carries its tasks, and is asked as it was taught.
    """
    found = {}
    for name, entry in checkpoint.card.tasks.items():
        if name not in registry.names():
            continue
        ours, taught = registry.load(name), entry.task
        differing = [
            what
            for what, same in (
                ("wordings or labels", wordings_hash(ours) == entry.wordings),
                ("bounds", ours.bounds == taught.bounds),
                ("unit", ours.unit == taught.unit),
                ("data", ours.data_sha256() == entry.data_sha256),
            )
            if not same
        ]
        if differing:
            found[name] = (
                f"the library's version {ours.version} has other {', '.join(differing)} (taught: version {taught.version})"
            )
    return found


def _knows(checkpoint: Checkpoint, tasks: Sequence[str]) -> None:
    """Make sure that a checkpoint which was named knows the tasks."""
    known = _tasks_of([checkpoint])
    for task in tasks:
        if task not in known:
            near = registry.nearest(task, list(known))
            if task not in registry.names() and near:
                hint = f"did you mean {near[0]}?"
            else:
                _exists(task, [])
                hint = _instead(task, known)
            raise CheckpointError(
                f"{checkpoint.name} does not know the task {task}; {hint} (it knows {', '.join(known)})"
            )
