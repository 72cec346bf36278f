"""The predictor of a screen on a Ray cluster: parts of the rows are spread over actors, each of which holds the model."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.files import CHUNK
from matdarwin.prediction.prediction import Prediction

PARTS = 16
"""Slices that are given out together: the more, the less the actors wait; their predictions are in memory at a time."""


class EngineError(RuntimeError):
    """An engine that cannot be had, or that stopped on its way."""


class Asker(Protocol):
    """What actors ask: `matdarwin.api.Darwin`, which travels as a path and reads its weights where it arrives."""

    def predict(
        self, materials: object, task: str, *, coverage: float, conditions: Mapping[str, str | float] | None
    ) -> Sequence[Prediction]:
        """One prediction a material."""
        ...


class _Actor:
    """Answers slices of materials in a process of its own."""

    def __init__(self, asker: Asker, coverage: float, conditions: Mapping[str, str | float] | None) -> None:
        self._asker, self._coverage, self._conditions = asker, coverage, conditions

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns `number`, `task` and `materials` (JSON) to `number`, `answers` (JSON) and `fault` (empty where all went well)."""
        answers, faults = [], []
        for task, text in zip(batch["task"], batch["materials"], strict=True):
            try:
                found = self._asker.predict(
                    json.loads(str(text)), str(task), coverage=self._coverage, conditions=self._conditions
                )
                answers.append(json.dumps([packed(one) for one in found]))
                faults.append("")
            except Exception as error:
                # Told as a result: in Ray's own account of a failure the cause drowns.
                answers.append("[]")
                faults.append(f"{type(error).__name__}: {error}")
        return {
            "number": batch["number"], "answers": np.array(answers, dtype=object), "fault": np.array(faults, dtype=object),
        }  # fmt: skip


class RayAsk:
    """Asks through Ray Data; to be given to `matdarwin.prediction.screening.screen` with parts of `PARTS * CHUNK` rows.

    An actor is given whole slices of `CHUNK` rows, which are what the local engine asks at a time, so that the batches
    are the same too. The model is read once an actor and part. On a cluster of several machines the checkpoint must lie
    under the same path on each.

    Args:
        asker: What to ask.
        coverage: Share of true values that intervals hold.
        conditions: Conditions of the question.
        workers: Actors, each with a GPU where the cluster has any, else with a core.

    Raises:
        EngineError: Ray is not installed, or no cluster can be had.
    """

    def __init__(
        self,
        asker: Asker,
        *,
        coverage: float = 0.9,
        conditions: Mapping[str, str | float] | None = None,
        workers: int = 1,
    ) -> None:
        if workers < 1:
            raise EngineError(f"at least one worker is needed, got {workers}")
        # Nothing is told to anybody.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            ray: Any = importlib.import_module("ray")
            importlib.import_module("ray.data")
        except ImportError as error:
            raise EngineError("Ray is not installed: pip install -e '.[ray]' in the repository") from error
        if not ray.is_initialized():
            # A cluster is named by RAY_ADDRESS; without one, this machine is it.
            local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers + 1, "include_dashboard": False}
            try:
                ray.init(logging_level="error", log_to_driver=False, **local)
            except (ConnectionError, OSError, RuntimeError) as error:
                raise EngineError(
                    f"no Ray cluster can be had: {error}; RAY_ADDRESS names one, without it this machine is used"
                ) from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # Its account of each execution would stand between the lines of the progress.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._ray = ray
        self._gpu = bool(ray.cluster_resources().get("GPU"))
        self._workers = workers
        self._given = {"asker": asker, "coverage": coverage, "conditions": dict(conditions) if conditions else None}

    def __call__(self, materials: Sequence[str], task: str) -> list[Prediction]:
        """One prediction a material, in order.

        Raises:
            EngineError: A worker died, or a slice was lost.
        """
        slices = [list(materials[start : start + CHUNK]) for start in range(0, len(materials), CHUNK)]
        if not slices:
            return []
        rows = [{"number": i, "task": task, "materials": json.dumps(part)} for i, part in enumerate(slices)]
        data = self._ray.data
        share = {"num_gpus": 1} if self._gpu else {"num_cpus": 1}
        asked = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor, batch_size=1, fn_constructor_kwargs=self._given,
            compute=data.ActorPoolStrategy(size=min(self._workers, len(rows))), **share,
        )  # fmt: skip
        answers: dict[int, str] = {}
        try:
            for row in asked.iter_rows():
                if row["fault"]:
                    raise EngineError(
                        f"a worker of the Ray cluster failed: {row['fault']}; mended, the same command goes on"
                    )
                answers[int(row["number"])] = row["answers"]
        except self._ray.exceptions.RayError as error:
            says = " ".join(str(error).split())[:300]
            raise EngineError(
                f"the Ray cluster failed ({type(error).__name__}): {says}; the same command goes on"
            ) from error
        found = [unpacked(one) for i in range(len(slices)) for one in json.loads(answers.get(i, "[]"))]
        if len(found) != len(materials):
            raise EngineError(
                f"the Ray cluster answered {len(found):,} of {len(materials):,} rows; give the command again"
            )
        return found

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()


def packed(prediction: Prediction) -> dict[str, Any]:
    """A prediction with its distribution as JSON types, every number to its last bit."""
    plain: dict[str, Any] = {
        field.name: getattr(prediction, field.name)
        for field in dataclasses.fields(prediction)
        if field.name != "distribution"
    }
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in plain.items()}
    given = prediction.distribution
    if given is not None:
        plain["distribution"] = {
            "values": given.values.tolist(), "labels": list(given.labels), "probabilities": given.probabilities.tolist(),
            "outside": float(given.outside), "unexpanded": float(given.unexpanded), "assumed_ends": float(given.assumed_ends),
        }  # fmt: skip
    return plain


def unpacked(plain: Mapping[str, Any]) -> Prediction:
    """The prediction that was packed."""
    given = plain.get("distribution")
    answer = None
    if given is not None:
        arrays = {name: np.array(given[name], dtype=np.float64) for name in ("values", "probabilities")}
        answer = AnswerDistribution(**{**given, **arrays, "labels": tuple(given["labels"])})
    return Prediction(**{**plain, "notes": tuple(plain["notes"]), "distribution": answer})
