"""Tracking to MLflow: a folder as its store, and faults of it."""

from __future__ import annotations

import builtins
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from matdarwin import cli
from matdarwin.training import tracking
from matdarwin.training.report import Silent
from matdarwin.training.tracking import MlflowReport, Several, TrackingError, flat
from tiny import tiny_base, tiny_recipe, tiny_task

RECIPE = {"name": "try", "description": "words", "tasks": ["a", "b"], "optimising": {"epochs": 2, "betas": [0.9, 0.99]}}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tracking sets in the environment is undone, and what the user may have set does not count."""
    for name in [
        *(n for n in os.environ if n.startswith("MLFLOW_")),
        "MLFLOW_ALLOW_FILE_STORE",
        "MLFLOW_DISABLE_TELEMETRY",
    ]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def line(step: int) -> dict[str, Any]:
    return {"step": step, "loss": 1 / step, "learning_rate": 1e-4, "gradient_norm": 2.0, "tokens": 10 * step}


def stored(folder: Path) -> Any:
    """All runs of a folder, and the client that reads them."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=folder.as_uri())
    experiment = client.get_experiment_by_name("matdarwin")
    assert experiment is not None
    return client, client.search_runs([experiment.experiment_id])


def history(client: Any, run: Any, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]


def test_metrics_and_parameters_reach_a_folder(tmp_path: Path) -> None:
    told: list[str] = []
    with MlflowReport(str(tmp_path / "runs"), RECIPE, told.append) as report:
        for step in range(1, 6):
            report.metrics("try-1", line(step))
        report.metrics("try-1", {"epoch": 1, "validation": {"gap": ["mae", 0.4]}})
        report.metrics("stage-2", line(1))
    client, runs = stored(tmp_path / "runs")
    assert {run.info.run_name: run.info.status for run in runs} == {"try-1": "FINISHED", "stage-2": "FINISHED"}
    run = next(run for run in runs if run.info.run_name == "try-1")
    assert history(client, run, "loss") == [(step, 1 / step) for step in range(1, 6)]
    assert history(client, run, "validation.gap.mae") == [(5, 0.4)]
    assert run.data.params == flat(RECIPE) and run.data.params["optimising.epochs"] == "2"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert told == []


def test_a_leaky_run_is_tagged(tmp_path: Path) -> None:
    with MlflowReport(str(tmp_path / "runs"), RECIPE, print) as report:
        report.metrics("clean-1", {"epoch": 1, "validation": {"gap": ["mae", 0.4]}})
        report.metrics("leaky-1", {"epoch": 1, "validation": {"gap": ["mae", 0.1]}, "leaky": True})
    _, runs = stored(tmp_path / "runs")
    assert {run.info.run_name: "LEAKY" in run.data.tags for run in runs} == {"clean-1": False, "leaky-1": True}


def test_a_run_that_was_broken_off_goes_on_in_its_run(tmp_path: Path) -> None:
    folder = str(tmp_path / "runs")
    with pytest.raises(KeyboardInterrupt), MlflowReport(folder, RECIPE, print) as report:
        for step in range(1, 6):
            report.metrics("try-1", line(step))
        raise KeyboardInterrupt
    assert [run.info.status for run in stored(tmp_path / "runs")[1]] == ["KILLED"]
    with MlflowReport(folder, RECIPE | {"seed": 3}, print) as report:
        # It stood at step 3 when its state was last saved.
        for step in range(4, 8):
            report.metrics("try-1", line(step))
        report.metrics("try-1", {"epoch": 1, "validation": {"gap": ["mae", 0.4]}})
    client, runs = stored(tmp_path / "runs")
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert [step for step, _ in history(client, runs[0], "loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert history(client, runs[0], "validation.gap.mae") == [(7, 0.4)]
    assert runs[0].data.params["seed"] == "3"


def test_a_run_that_goes_on_right_before_its_validation_has_it_at_the_step_where_it_stood(tmp_path: Path) -> None:
    for lines in [[line(1), line(2)], [{"epoch": 1, "validation": {"gap": ["mae", 0.4]}}]]:
        with pytest.raises(KeyboardInterrupt), MlflowReport(str(tmp_path / "runs"), RECIPE, print) as report:
            for one in lines:
                report.metrics("try-1", one)
            raise KeyboardInterrupt
    client, runs = stored(tmp_path / "runs")
    assert history(client, runs[0], "validation.gap.mae") == [(2, 0.4)]


def test_a_store_that_stops_answering_does_not_stop_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_EVERY", 0.0)
    told: list[str] = []
    with MlflowReport(str(tmp_path / "runs"), RECIPE, told.append) as report:
        report.metrics("try-1", line(1))
        deliver = report._client.log_batch

        def fail(*args: Any, **options: Any) -> None:
            raise OSError("nobody there")

        monkeypatch.setattr(report._client, "log_batch", fail)
        for step in range(2, 5):
            report.metrics("try-1", line(step))
        # Told once, since it is not tried again before a minute has gone by.
        assert told == ["metrics of try-1 did not reach MLflow and will be sent again: nobody there"]
        monkeypatch.setattr(report._client, "log_batch", deliver)
    client, runs = stored(tmp_path / "runs")
    assert [step for step, _ in history(client, runs[0], "loss")] == [1, 2, 3, 4]
    assert len(told) == 1


def test_what_never_arrives_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def fail(*args: Any, **options: Any) -> None:
        raise OSError("nobody there")

    with MlflowReport(str(tmp_path / "runs"), RECIPE, told.append) as report:
        monkeypatch.setattr(report._client, "log_batch", fail)
        report.metrics("try-1", line(1))
    assert told[-1] == "4 metrics never reached MLflow; the checkpoint's metrics.jsonl has them all"


def test_a_server_that_does_not_answer_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"cannot track to http://127\.0\.0\.1:9"):
        MlflowReport("http://127.0.0.1:9", RECIPE, print)


def test_without_mlflow_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.split(".")[0] == "mlflow":
            raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TrackingError, match=r"\(mlflow\): pip install -e '\.\[tracking\]'"):
        MlflowReport(str(tmp_path), RECIPE, print)


def test_parameters_are_flat_text() -> None:
    made = flat(
        RECIPE | {"before": [{"name": "qa", "texts": ["sciqag"]}], "fold": None, "overrides": {"a": {"seed": 1}}}
    )
    assert made["before.0.name"] == "qa" and made["before.0.texts"] == '["sciqag"]'
    assert made["fold"] == "null" and made["optimising.betas"] == "[0.9, 0.99]"
    assert not any(key.startswith(("overrides", "description")) for key in made)


def test_several_reports_are_told_the_same() -> None:
    class Kept(Silent):
        def __init__(self) -> None:
            self.told: list[tuple[object, ...]] = []

        def begin(self, text: str, total: int) -> None:
            self.told.append((text, total))

        def step(self, done: int, text: str) -> None:
            self.told.append((done, text))

        def say(self, text: str) -> None:
            self.told.append((text,))

        def metrics(self, run: str, line: dict[str, Any]) -> None:
            self.told.append((run, line))

    kept = (Kept(), Kept())
    report = Several(*kept)
    report.begin("training", 2)
    report.step(1, "loss 1")
    report.say("so")
    report.metrics("run", {"step": 1})
    assert kept[0].told == [("training", 2), (1, "loss 1"), ("so",), ("run", {"step": 1})] == kept[1].told


def test_the_command_tracks_what_it_trains(home: Path, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    recipe = tiny_recipe(base, [str(tmp_path / "tiny_gap.yaml")], fold=0, split={"folds": "seeded"})
    (tmp_path / "tiny_gap.yaml").write_text(tiny_task(tmp_path).model_dump_json(exclude_none=True))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert cli.run(["train", str(tmp_path / "recipe.yaml"), "--track", "mlflow"]) == 0
    (folder,) = [path for path in (home / "checkpoints").iterdir() if (path / "manifest.json").is_file()]
    steps = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    client, runs = stored(home / "mlruns")
    assert [(run.info.run_name, run.info.status) for run in runs] == [(folder.name, "FINISHED")]
    assert history(client, runs[0], "loss") == [(one["step"], one["loss"]) for one in steps if "step" in one]
    assert runs[0].data.metrics["validation.tiny_gap.mae"] == steps[-1]["validation"]["tiny_gap"][1]
    assert runs[0].data.params["optimising.learning_rate"] == "0.01"


def test_the_command_knows_no_other_tracker(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "recipe.yaml", "--track", "wandb"]) == 2
    assert "--track wandb: runs are tracked by mlflow or mlflow:URI" in capsys.readouterr().err
