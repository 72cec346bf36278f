"""Two checkpoints beside each other, or one beside its base: what differs in how they were made, and in their weights."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from matdarwin.models.base import Base, BaseModelError
from matdarwin.models.checkpoint import WEIGHTS, Checkpoint, CheckpointError

_LAYER = re.compile(r"^.*?\.(\d+)\.([^.]+)\.")
# Facts of a run that differ between any two runs and say nothing of what was learnt.
_CLOCK = ("seconds", "tokens_per_second")

Pairs = dict[str, list[Any]]
"""What differs, by dotted key: the value of the one and of the other; None where it is not written."""


def differences(one: Checkpoint, other: Checkpoint | Base) -> dict[str, Any]:
    """What differs between two checkpoints, or between a checkpoint and a base model, as JSON.

    Returns:
        `a` and `b` (names); `base` (differing name and sha256 of the base); `weights` (see `distances`). Between two
        checkpoints also `card`, `recipe`, `tasks`, `validation`, `calibration` and `training`, whose differing keys have
        the values of both as a pair.

    Raises:
        BaseModelError: The base model's weights cannot be read.
    """
    found: dict[str, Any] = {"a": one.name, "b": other.name}
    if isinstance(other, Base):
        found["base"] = _bases(one.card.base, {"name": other.name, "sha256": other.sha256})
    else:
        a, b = one.card, other.card
        found["base"] = _bases(a.base, b.base)
        facts = {"role", "code", "method", "style", "answers", "fold", "recipe_hash"}
        found["card"] = _pairs(a.model_dump(include=facts), b.model_dump(include=facts))
        found["recipe"] = _pairs(a.recipe, b.recipe)
        found["tasks"] = _tasks(one, other)
        found["validation"] = _pairs(a.training.get("validation", {}), b.training.get("validation", {}))
        found["calibration"] = _pairs(_calibrations(one), _calibrations(other))
        found["training"] = _pairs(_effort(one), _effort(other))
    found["weights"] = distances(one, other)
    return found


def _bases(one: dict[str, Any], other: dict[str, Any]) -> Pairs:
    """What differs between two bases; the same weights under another name, such as of a folder that was moved, do not."""
    return {} if one["sha256"] == other["sha256"] else _pairs(one, other)


def distances(one: Checkpoint, other: Checkpoint | Base) -> dict[str, Any]:
    """How far the weights of two models lie apart: ‖a - b‖ / ‖b‖ in the Euclidean norm, low-rank updates merged.

    Returns:
        `distance` over all tensors that both have in one shape; `groups`, a list with the `distance` of the embeddings,
        of each layer, with its `parts` (attention, feed-forward, norms, by the model's own names), and of what comes
        after; `equal`; `only_a`, `only_b` and `other_shape`, names of tensors; `reason` why there is no distance, or
        None. A distance is None where b is all zeros and a is not.

    Raises:
        BaseModelError: `other` is a base model whose weights cannot be read.
    """
    nothing: dict[str, Any] = {
        "distance": None,
        "groups": [],
        "equal": False,
        "only_a": [],
        "only_b": [],
        "other_shape": [],
    }
    try:
        with _opened(one) as a, _opened(other) as b:
            return _distances(a, b) | {"reason": None}
    except (BaseModelError, CheckpointError) as error:
        # Of two checkpoints the rest is worth telling even where one's base is not at hand.
        if isinstance(other, Base):
            raise
        return nothing | {"reason": str(error)}


def _distances(a: dict[str, Callable[[], Any]], b: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    import torch

    def norm(tensor: Any) -> float:
        # In fp64, since a sum of millions of squares in fp32 loses digits.
        return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2

    sums: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    shapes = []
    for name in (name for name in b if name in a):
        left, right = a[name]().float(), b[name]().float()
        if left.shape != right.shape:
            shapes.append(name)
            continue
        group, part = _place(name)
        apart = norm(left - right), norm(right)
        sums[group][part] = [x + y for x, y in zip(sums[group][part], apart, strict=True)]
    whole = [sum(part[i] for parts in sums.values() for part in parts.values()) for i in (0, 1)]
    only_a, only_b = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    return {
        "distance": _ratio(*whole) if sums else None,
        "groups": [
            {
                "group": group,
                "distance": _ratio(*(sum(part[i] for part in parts.values()) for i in (0, 1))),
                "parts": {part: _ratio(*two) for part, two in sorted(parts.items()) if part},
            }
            for group, parts in sorted(sums.items(), key=lambda item: _order(item[0]))
        ],
        "equal": bool(sums) and whole[0] == 0 and not (only_a or only_b or shapes),
        "only_a": only_a,
        "only_b": only_b,
        "other_shape": shapes,
    }


def _ratio(apart: float, norm: float) -> float | None:
    """Square root of the ratio; None where there is none."""
    if apart == 0:
        return 0.0
    ratio = math.sqrt(apart / norm) if norm else math.inf
    return ratio if math.isfinite(ratio) else None


def _place(name: str) -> tuple[str, str]:
    """Group and part of a tensor: `model.layers.3.mlp.up_proj.weight` is in `layer 3`, `mlp`; others are by themselves."""
    if layer := _LAYER.match(name):
        return f"layer {layer[1]}", layer[2]
    return name.rsplit(".", 1)[0].rsplit(".", 1)[-1], ""


def _order(group: str) -> tuple[int, int, str]:
    """Embeddings, layers by number, and what comes after them."""
    word, _, number = group.partition(" ")
    return (1, int(number), "") if number else (0 if "emb" in word or word == "wte" else 2, 0, word)


@contextmanager
def _opened(side: Checkpoint | Base) -> Iterator[dict[str, Callable[[], Any]]]:
    """A model's tensors by name, each read when it is asked for."""
    import torch
    from safetensors import SafetensorError, safe_open

    found: dict[str, Callable[[], Any]]
    with ExitStack() as stack:
        if isinstance(side, Checkpoint) and side.card.method == "lora":
            model = side.model(torch.float32)
            found, seen = {}, set()
            for name, tensor in model.state_dict().items():
                # Tied weights are one tensor under two names, of which files have the first only.
                if tensor.data_ptr() not in seen:
                    seen.add(tensor.data_ptr())
                    found[name] = partial(_same, tensor)
            yield found
            return
        folder: Path = side.folder / WEIGHTS if isinstance(side, Checkpoint) else side.folder
        found = {}
        try:
            for file in sorted(folder.glob("*.safetensors")):
                opened = stack.enter_context(safe_open(file, framework="pt"))
                found |= {name: partial(opened.get_tensor, name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise BaseModelError(f"the weights in {folder} cannot be read: {error}") from error
        yield found


def _same(tensor: Any) -> Any:
    return tensor


def _tasks(one: Checkpoint, other: Checkpoint) -> dict[str, Any]:
    """Tasks that only one knows, and what differs in those that both know."""
    a, b = _task_facts(one), _task_facts(other)
    changed = {task: _pairs(a[task], b[task]) for task in a if task in b}
    return {
        "only_a": [task for task in a if task not in b],
        "only_b": [task for task in b if task not in a],
        "changed": {task: pairs for task, pairs in changed.items() if pairs},
    }


def _task_facts(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Of each task what is worth comparing; long tables by a hash."""
    return {
        name: entry.model_dump(mode="json") | {"elements": _digest(entry.elements), "spreads": _digest(entry.spreads)}
        for name, entry in checkpoint.card.tasks.items()
    }


def _calibrations(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        task: {key: _digest(value) if key == "scores" else value for key, value in entry.items()}
        for task, entry in checkpoint.calibration().items()
    }


def _effort(checkpoint: Checkpoint) -> dict[str, Any]:
    """Steps, rows, tokens and commit of a training."""
    training = checkpoint.card.training
    return {key: value for key, value in training.items() if key != "validation" and not key.startswith(_CLOCK)}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _pairs(one: dict[str, Any], other: dict[str, Any]) -> Pairs:
    """Differing leaves of two nested mappings."""
    a, b = dict(_leaves(one)), dict(_leaves(other))
    return {key: [a.get(key), b.get(key)] for key in [*a, *(k for k in b if k not in a)] if a.get(key) != b.get(key)}


def _leaves(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", None if value == {} else value
