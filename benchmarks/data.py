"""What the data layer takes: all scored tasks to prompts, at first and from the cache, and the audit of the largest recipe.

Each is a process of its own, of one thread, in a home folder of its own: the first reading parses every file, the second finds
the tables kept. Seconds are by the clock, so other work on the machine counts; processor seconds stand beside. Needs the
files of all scored tasks and texts (MATDARWIN_MIRROR). Writes results/bench/data.json.

    python benchmarks/data.py            # a minute or two
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from writing import ended, write

OUT = Path("results/bench/data.json")
RECIPE = "recipes/qa-mt.yaml"


def prompts() -> None:
    """Load all scored tasks and write every row's question and answer; prints what was made and what it took."""
    from matdarwin.data.readers import read
    from matdarwin.language.prompts import Asked, answer, question, style
    from matdarwin.language.writing import Writing
    from matdarwin.tasks import registry

    began = time.perf_counter()
    tables = [read(task) for task in map(registry.load, registry.names()) if task.scored]
    loaded = time.perf_counter()
    asked = [Asked(table.task, row, 0, 0) for table in tables for row in table.examples]
    form = style("compact")
    letters = sum(len(question(one, form, Writing())) + len(answer(one)) for one in asked)
    ended = time.perf_counter()
    told = {"tasks": len(tables), "rows": len(asked), "letters": letters}
    print(json.dumps(told | {"load_s": loaded - began, "prompts_s": ended - loaded}))


def run(command: list[str], home: str) -> dict[str, Any]:
    """Run a command; what it printed as JSON (`told`), and what it took."""
    env = {**os.environ, "MATDARWIN_HOME": home, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, env=env)
    told, usage = ended(process, " ".join(command))
    return {
        "told": told,
        "seconds": round(time.perf_counter() - began, 2),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Measure, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.prompts:
        prompts()
        return
    own = [__file__, "--prompts"]
    with tempfile.TemporaryDirectory() as home:
        first, second = run(own, home), run(own, home)
        audit = run(["-m", "matdarwin", "audit", RECIPE, "--json"], home)
    told = audit.pop("told")
    audit |= {"verdict": told["verdict"], "pairs": len(told["pairs"])}
    summary = {
        "first_s": round(first["told"]["load_s"] + first["told"]["prompts_s"], 2),
        "load_s": round(second["told"]["load_s"], 2),
        "prompts_s": round(second["told"]["load_s"] + second["told"]["prompts_s"], 2),
        "peak_gib": max(first["peak_gib"], second["peak_gib"]),
        "audit_s": audit["seconds"],
        "audit_peak_gib": audit["peak_gib"],
    }
    write(given.out, {"summary": summary, "first": first, "second": second, "audit": audit, "recipe": RECIPE})


if __name__ == "__main__":
    main()
