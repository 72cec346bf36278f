"""What a screen costs: memory and seconds a row at a thousand, ten thousand and a hundred thousand rows, and what ten kills change.

Each run is `darwin screen` in a process of its own, of one thread. The speed of a machine that others share changes within
minutes, so beside the large run go small and middle ones, in turn on the second core, and the cost of a row is compared
between them. The model is a tiny random one, so that a hundred thousand rows take minutes: what is measured is what the
screen adds to a model, which is all that could grow with the rows. The ranking keeps a hundred. Writes results/bench/screen.json.

    python benchmarks/screen.py            # a quarter of an hour on 2 cores
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.tiny import tiny_checkpoint  # noqa: E402 - the tests' model, which is no part of the package
from writing import ended, write  # noqa: E402

from matdarwin.prediction.files import CHUNK  # noqa: E402

OUT = Path("results/bench/screen.json")
ELEMENTS = [
    "Li",
    "Na",
    "K",
    "Mg",
    "Ca",
    "Sr",
    "Ba",
    "Al",
    "Ga",
    "In",
    "Si",
    "Ge",
    "Sn",
    "Ti",
    "Zr",
    "Zn",
    "Cd",
    "Cu",
    "Ag",
    "Fe",
    "Co",
    "Ni",
    "Mn",
]
ANIONS = ["O", "S", "Se", "Te", "N", "P", "As", "F", "Cl", "Br", "I"]
KILLS = 10


def candidates(path: Path, count: int) -> Path:
    """Write so many different formulas of three elements."""
    formulas = (
        f"{a}{i}{b}{j}{x}{k}"
        for (a, b), x, i, j, k in itertools.product(
            itertools.combinations(ELEMENTS, 2), ANIONS, range(1, 5), range(1, 5), range(1, 6)
        )
    )
    chosen = list(itertools.islice(formulas, 200_000))
    random.Random(0).shuffle(chosen)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "composition"])
        writer.writerows(enumerate(chosen[:count]))
    return path


def start(source: Path, output: Path) -> subprocess.Popen[bytes]:
    """Begin a screen."""
    command = [
        sys.executable, "-m", "matdarwin", "screen", str(source), str(output), "--where", "value >= 0", "--by", "EI(2)",
        "--top", "100", "--json",
    ]  # fmt: skip
    # Allocators that keep what is freed would be measured for the screen.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)


def measured(source: Path, output: Path) -> dict[str, Any]:
    """A whole run: rows, seconds a row once the model is loaded, and peak resident memory in MiB."""
    return done(start(source, output), source)


def done(process: subprocess.Popen[bytes], source: Path) -> dict[str, Any]:
    """Wait for a run to end; see `measured`."""
    told, usage = ended(process, f"the screen of {source.name}")
    found = {
        "rows": told["rows"],
        "kept": told["kept"],
        "seconds_a_row": told["screening_seconds"] / told["rows"],
        # All of the process, loading included: less swayed by what else the machine does.
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }
    print(json.dumps(found), flush=True)
    return found


def killed(source: Path, output: Path, parts: int, kills: int) -> list[int]:
    """Kill a screen so many times, at moments drawn from the whole of it, then let it end.

    Returns:
        The number of parts that were done at each kill.
    """
    rng = random.Random(1)
    found = []

    def there() -> int:
        return len(list(output.parent.glob(f".{output.name}.screen/*.jsonl")))

    for wanted in sorted(rng.sample(range(1, parts - 1), kills)):
        process = start(source, output)
        while there() < wanted and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2))
        if process.poll() is not None:
            raise SystemExit(f"the screen was done after {len(found)} kills; give more rows")
        process.send_signal(signal.SIGKILL)
        process.wait()
        found.append(there())
        print(f"kill {len(found)}: {found[-1]} parts are done", flush=True)
    measured(source, output)
    return found


def beside(process: subprocess.Popen[bytes], sources: list[Path], home: Path) -> list[dict[str, Any]]:
    """Runs of other tables, one after the other and in turn, as long as a process runs."""
    found: list[dict[str, Any]] = []
    # Looked at only: once it was waited for, what it took could not be asked any more.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        found.append(measured(sources[len(found) % len(sources)], home / f"beside.{len(found)}.csv"))
    return found


def cost_ratio(small: list[dict[str, Any]], middle: list[dict[str, Any]], large: dict[str, Any]) -> float:
    """Processor seconds of a row past the first in the large run, to those in the middle ones; what loading costs is taken off."""
    rows = small[0]["rows"]
    seconds = statistics.mean(run["processor_seconds"] for run in small)

    def of(run: dict[str, Any]) -> float:
        return float((run["processor_seconds"] - seconds) / (run["rows"] - rows))

    return of(large) / statistics.mean(map(of, middle))


def main() -> None:
    """Measure, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs=3, default=[1_000, 10_000, 100_000], help="rows of the three runs")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        tiny_checkpoint(home)
        os.environ["MATDARWIN_HOME"] = name
        sources = [candidates(home / f"{rows}.csv", rows) for rows in given.rows]
        undisturbed = home / "undisturbed.csv"
        process = start(sources[2], undisturbed)
        others = beside(process, sources[:2], home)
        large = done(process, sources[2])
        small, middle = others[::2], others[1::2]
        again = home / "again.csv"
        kills = killed(sources[2], again, -(-given.rows[2] // CHUNK), KILLS)
        identical = again.read_bytes() == undisturbed.read_bytes()
    result = {
        "summary": {
            "rss_ratio": round(large["peak_mib"] / statistics.mean(run["peak_mib"] for run in small), 3),
            "cost_ratio": round(cost_ratio(small, middle, large), 3),
            "kills": len(kills),
            "identical": identical,
        },
        "runs": [*others, large],
        "parts_at_kills": kills,
        "model": "a random model of two layers, width 32; one task of 51 answers",
    }
    write(given.out, result)


if __name__ == "__main__":
    main()
