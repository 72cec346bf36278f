"""A screen on a local Ray cluster keeps the rows that the local engine keeps.

The commands run in processes of their own: Ray talks over the machine's own address, which tests may not reach out to.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.tiny import tiny_checkpoint, tiny_rows, tiny_task

from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.engines import EngineError, RayAsk, packed, unpacked
from matdarwin.prediction.prediction import Prediction


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny_checkpoint(home, tasks=[tiny_task(home), tiny_task(home, kind="classification")])
    return home


def screen(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "MATDARWIN_HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    env.pop("RAY_ADDRESS", None)
    return subprocess.run(
        [sys.executable, "-m", "matdarwin", "screen", *words], env=env, capture_output=True, text=True, timeout=280
    )


@pytest.mark.slow
def test_the_same_rows_as_the_local_engine(home: Path, tmp_path: Path) -> None:
    # More than one slice, and a row in a hundred that is no material.
    formulas = [formula.replace(" ", "") for formula, _ in tiny_rows(540)]
    rows = [(i, "Xx" if i % 100 == 7 else formulas[i % len(formulas)]) for i in range(1500)]
    source = tmp_path / "in.csv"
    source.write_text("id,composition\n" + "".join(f"{i},{text}\n" for i, text in rows))
    wish = ["--task", "tiny_gap", "--task", "tiny_metal", "--by", "tiny_gap.P(0, 2)", "--top", "50"]
    outputs = []
    for engine in (["--engine", "local"], ["--engine", "ray", "--workers", "1"]):
        output = tmp_path / f"{engine[1]}.parquet"
        done = screen(home, str(source), str(output), *wish, *engine)
        assert done.returncode == 1 and "15 of 1,500 rows have no value" in done.stderr, done.stderr
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]


FAILING = """
from matdarwin.prediction.engines import EngineError, RayAsk

class Broken:
    def predict(self, materials, task, *, coverage, conditions):
        raise ValueError("the weights are gone")

if __name__ == "__main__":
    ask = RayAsk(Broken())
    assert ask([], "t") == []
    try:
        ask(["GaN"], "t")
    except EngineError as error:
        print(error)
    ask.close()
"""


@pytest.mark.slow
def test_a_worker_that_fails_stops_the_screen_and_says_why(tmp_path: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=280)
    assert "a worker of the Ray cluster failed" in done.stdout and "the weights are gone" in done.stdout, done.stderr


def test_a_prediction_travels_to_the_last_bit() -> None:
    share = np.array([0.1, 0.2, 0.7]) / 1.0000000001
    for labels, values in (((), np.array([0.1, 0.30000000000000004, 2.0])), (("a", "b", "c"), np.empty(0))):
        answer = AnswerDistribution(values, labels, share, 0.01, 0.002, 0.3)
        one = Prediction(
            input="GaN", material="Ga N", task="t", value="a" if labels else 0.30000000000000004, unit=None, lower=None,
            upper=None, coverage=None, status="uncalibrated", reason="few", notes=("never saw Pu",), model="m", distribution=answer,
        )  # fmt: skip
        back = unpacked(packed(one))
        assert back.to_dict() == one.to_dict()
        assert back.distribution is not None
        assert back.distribution.values.tobytes() == values.tobytes()
        assert back.distribution.probabilities.tobytes() == share.tobytes()


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match="pip install"):
        RayAsk(None)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="at least one worker"):
        RayAsk(None, workers=0)  # type: ignore[arg-type]
