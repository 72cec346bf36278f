"""Memory that runs short in earnest: by a limit of the system's, not by an error of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource
from tests.tiny import tiny_model
from tests.unit.test_loop import rows_of
from matdarwin.training.errors import TrainingError
from matdarwin.training.loop import Loop
from matdarwin.training.options import Optimising

loop = Loop(tiny_model(64), Optimising(micro_tokens=10**9), 9)
loop.step(rows_of(4))
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 200 * 2**20,) * 2)
try:
    loop.step(rows_of(4000, longest=200))
except TrainingError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are the system's affair")
def test_memory_that_runs_short_is_told_with_batch_and_remedy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    said = "the memory does not suffice at step 2 for 4000 rows of up to 208 tokens; set optimising.micro_tokens to "
    assert done.stdout.startswith(said), done.stderr[-2000:]
