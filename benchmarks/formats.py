"""What the number formats to ask in are worth: rows per second, and the error that they cost.

One checkpoint of recipes/base-st.yaml, the rows of expt_gap's test fold that it holds out, one process; the formats take
turns, round by round. Writes results/bench/formats.json.

    python benchmarks/formats.py            # trains fold 2 where it is missing, then a few minutes with nothing else to do
    python benchmarks/formats.py --quick    # 32 rows, one round; writes no result
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from matdarwin.models.base import AskedIn
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks import registry
from matdarwin.training.recipe_files import load_recipe
from matdarwin.training.run import split_of, train

OUT = Path("results/bench/formats.json")
FORMATS: tuple[AskedIn, ...] = tuple(name for name in get_args(AskedIn) if name != "auto")
TASK, FOLD, BATCH, ROUNDS = "expt_gap", 2, 64, 2


def against(errors: NDArray[np.float64], exact: NDArray[np.float64]) -> dict[str, float]:
    """How much greater the errors are than the exact format's, row by row: mean and its standard error."""
    more = errors - exact
    return {"mean": float(more.mean()), "standard_error": float(more.std(ddof=1) / len(more) ** 0.5)}


def summarise(
    seconds: dict[str, list[float]], medians: dict[str, NDArray[np.float64]], targets: NDArray[np.float64]
) -> dict[str, Any]:
    """Scores of each format: the best round's rate, the error, what it costs against fp32, and how far answers move.

    Args:
        seconds: Of each round, by format.
        medians: Answers [n], by format.
        targets: What was measured [n].
    """
    errors = {name: np.abs(found - targets) for name, found in medians.items()}
    rates = {name: len(targets) / min(taken) for name, taken in seconds.items()}
    return {
        "rows_per_second": rates,
        "times_fp32": {name: rate / rates["fp32"] for name, rate in rates.items()},
        "mae": {name: float(error.mean()) for name, error in errors.items()},
        "mae_cost": {name: against(error, errors["fp32"]) for name, error in errors.items()},
        "moved": {name: float(np.abs(found - medians["fp32"]).mean()) for name, found in medians.items()},
    }


def main() -> None:
    """Measure and write."""
    # Beside this file, where it is run from; a test that imports its arithmetic does not have them.
    from predict import Lines
    from writing import write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="32 rows and one round, and write nothing")
    given = parser.parse_args()
    recipe = load_recipe("recipes/base-st.yaml", [f"tasks=[{TASK}]", f"fold={FOLD}"])
    checkpoint = train(recipe, report=Lines())
    task = registry.load(TASK)
    test = list(split_of(recipe, [task]).test[task.id])[: 32 if given.quick else None]
    predictors = {name: Predictor.of(checkpoint, dtype=name, batch_size=BATCH) for name in FORMATS}
    seconds: dict[str, list[float]] = {name: [] for name in FORMATS}
    medians: dict[str, NDArray[np.float64]] = {}
    for predictor in predictors.values():
        predictor.distributions(task, test[:BATCH])
    for _ in range(1 if given.quick else ROUNDS):
        for name, predictor in predictors.items():
            began = time.perf_counter()
            answers = predictor.distributions(task, test)
            seconds[name].append(time.perf_counter() - began)
            # An unread answer is no number, and neither is the mean error then.
            medians[name] = np.array([np.nan if answer is None else answer.median() for answer in answers])
            print(f"{name}: {len(test) / seconds[name][-1]:.1f} rows/s", flush=True)
    summary = summarise(seconds, medians, np.array([float(e.target) for e in test if e.target is not None]))
    if given.quick:
        print(json.dumps(summary, indent=1))
        return
    write(OUT, {"format": 1, "summary": summary, "checkpoint": checkpoint.name, "task": task.id, "fold": FOLD, "rows": len(test), "batch": BATCH, "seconds": seconds})  # fmt: skip


if __name__ == "__main__":
    main()
