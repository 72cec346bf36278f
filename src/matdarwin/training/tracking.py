"""Metrics and parameters of runs to MLflow (extra `tracking`), beside the metrics.jsonl that every run keeps."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from matdarwin.data import sources
from matdarwin.models.checkpoint import LEAKY
from matdarwin.training.report import Report

EXPERIMENT = "matdarwin"
"""The experiment that runs go into, unless MLFLOW_EXPERIMENT_NAME names another."""

_RUN = "matdarwin.run"
"""Tag by which a run that goes on is found again."""
_LEAKY = "LEAKY"
"""Tag of a run whose scores do not count."""
_EVERY = 10.0
"""Seconds from one delivery to the next: one call a step would slow the training to the pace of a server."""
_AGAIN = 60.0
"""Seconds until a delivery that failed is tried again."""
_KEYS = ("loss", "learning_rate", "gradient_norm", "tokens")
_BATCH, _MOST = 1000, 100
"""Metrics and parameters that MLflow takes in one call."""


class TrackingError(RuntimeError):
    """Metrics that cannot be tracked, before a run begins."""


class Several:
    """A report that tells several reports."""

    def __init__(self, *reports: Report) -> None:
        self._reports = reports

    def begin(self, text: str, total: int) -> None:
        """Tell all that a part of the run begins."""
        for report in self._reports:
            report.begin(text, total)

    def step(self, done: int, text: str) -> None:
        """Tell all what is done."""
        for report in self._reports:
            report.step(done, text)

    def say(self, text: str) -> None:
        """Tell all a line."""
        for report in self._reports:
            report.say(text)

    def metrics(self, run: str, line: dict[str, Any]) -> None:
        """Give all a line of metrics."""
        for report in self._reports:
            report.metrics(run, line)


@dataclass
class _Tracked:
    """A run as MLflow knows it, or will as soon as it answers."""

    id: str | None = None
    sent: dict[str, int] = field(default_factory=dict)
    """By metric, the last step that an earlier start of the run delivered."""
    leaky: bool = False
    """Whether its scores are marked, and MLflow has not been told so yet."""
    waiting: list[tuple[str, float, int, int | None]] = field(default_factory=list)
    """Metric, value, time in ms, and step; None: the step that an earlier start ended with."""
    step: int | None = None


class MlflowReport:
    """A `Report` that forwards the metrics of each run to a run of that name in MLflow; to be used as a context.

    What was tracked of a run that was broken off is not sent again, and its run in MLflow goes on. Where a server stops
    answering, training goes on: what waits is kept and tried again, and `say` is told. Nothing is sent but metrics, the
    recipe and the name of the run; MLflow's own telemetry is turned off.

    Args:
        uri: Where to: a folder, a server's address, or a database as MLflow names it. None: MLFLOW_TRACKING_URI, else the
            folder `mlruns` beside the checkpoints.
        parameters: The recipe as a mapping.
        say: Told once for each time that a delivery fails.

    Raises:
        TrackingError: MLflow is not installed, or what `uri` names does not answer or cannot be written.
    """

    def __init__(self, uri: str | None, parameters: Mapping[str, Any], say: Callable[[str], None]) -> None:
        where = uri or os.environ.get("MLFLOW_TRACKING_URI") or str(sources.home() / "mlruns")
        # Before it is imported, since it looks at them then.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # A training must not wait for minutes at each delivery; what fails is tried again here.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        if "://" not in where:
            # A folder is what needs neither a server nor a database driver; MLflow wants to hear that it is meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            where = Path(where.removeprefix("file:")).absolute().as_uri()
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
            from mlflow.exceptions import MlflowException
        except ModuleNotFoundError as error:
            raise TrackingError(
                f"tracking to MLflow needs a package that is not installed ({error.name}): pip install -e '.[tracking]' in the repository"
            ) from error
        self._metric, self._param, self._fault = Metric, Param, (MlflowException, OSError)
        self._parameters = flat(parameters)
        self._say = say
        self._runs: dict[str, _Tracked] = {}
        self._due = time.monotonic() + _EVERY
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        try:
            self._client = MlflowClient(tracking_uri=where)
            found = self._client.get_experiment_by_name(name)
            self._experiment = found.experiment_id if found else self._client.create_experiment(name)
        except self._fault as error:
            raise TrackingError(f"MLflow cannot track to {where}: {_first(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deliver()
        if waiting := sum(len(run.waiting) for run in self._runs.values()):
            self._say(f"{waiting:,} metrics never reached MLflow; the checkpoint's metrics.jsonl has them all")
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        for name, run in self._runs.items():
            if run.id is None:
                continue
            try:
                self._client.set_terminated(run.id, status=status)
            except self._fault as fault:
                self._say(f"MLflow was not told that {name} has ended: {_first(fault)}")

    def begin(self, text: str, total: int) -> None:
        """Say nothing."""

    def step(self, done: int, text: str) -> None:
        """Say nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def metrics(self, run: str, line: dict[str, Any]) -> None:
        """Keep a line of a run for the next delivery."""
        tracked = self._runs.setdefault(run, _Tracked())
        tracked.step = line.get("step", tracked.step)
        tracked.leaky |= bool(line.get("leaky"))
        values = {key: value for key, value in line.items() if key in _KEYS}
        values |= {f"validation.{task}.{metric}": value for task, (metric, value) in line.get("validation", {}).items()}
        now = int(time.time() * 1000)
        tracked.waiting += [
            (key, float(value), now, tracked.step) for key, value in values.items() if math.isfinite(value)
        ]
        if time.monotonic() >= self._due:
            self._deliver()

    def _deliver(self) -> None:
        """Send what waits; what cannot be sent goes on waiting."""
        self._due = time.monotonic() + _EVERY
        for name, run in self._runs.items():
            try:
                if run.id is None:
                    run.id, run.sent = self._find(name)
                last = max(run.sent.values(), default=0)
                while run.waiting:
                    steps = [
                        (key, value, now, last if step is None else step)
                        for key, value, now, step in run.waiting[:_BATCH]
                    ]
                    new = [self._metric(*one) for one in steps if one[3] > run.sent.get(one[0], -1)]
                    self._client.log_batch(run.id, metrics=new)
                    del run.waiting[:_BATCH]
                if run.leaky:
                    self._client.set_tag(run.id, _LEAKY, LEAKY)
                    run.leaky = False
            except self._fault as error:
                self._say(f"metrics of {name} did not reach MLflow and will be sent again: {_first(error)}")
                self._due = time.monotonic() + _AGAIN
                return

    def _find(self, name: str) -> tuple[str, dict[str, int]]:
        """The run of that name that did not finish, or a new one: its id, and the last step of each of its metrics."""
        begun = self._client.search_runs(
            [self._experiment], f"tags.`{_RUN}` = '{name}' and attributes.status != 'FINISHED'", max_results=1
        )
        if begun:
            run = begun[0]
            self._client.update_run(run.info.run_id, status="RUNNING")
            sent = {
                key: max(one.step for one in self._client.get_metric_history(run.info.run_id, key))
                for key in run.data.metrics
            }
        else:
            run, sent = self._client.create_run(self._experiment, tags={_RUN: name}, run_name=name), {}
        new = [self._param(k, v) for k, v in self._parameters.items() if k not in run.data.params]
        for start in range(0, len(new), _MOST):
            self._client.log_batch(run.info.run_id, params=new[start : start + _MOST])
        return run.info.run_id, sent


def flat(content: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """A recipe's keys as MLflow's parameters: dotted, values as text. Words for people and other tasks' keys stay out."""
    found: dict[str, str] = {}
    for key, value in content.items():
        name = f"{above}{key}"
        if name in ("description", "overrides"):
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif isinstance(value, Sequence) and value and all(isinstance(part, Mapping) for part in value):
            found |= flat({str(number): part for number, part in enumerate(value)}, f"{name}.")
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value)
    return found


def _first(error: BaseException) -> str:
    """The first line of an error, which says what is wrong."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
