"""What benchmarks share: the end of a process that is measured, and the results file."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

from matdarwin.training.provenance import commit, machine


def ended(process: subprocess.Popen[bytes], what: str) -> tuple[Any, resource.struct_rusage]:
    """Wait for a process to end: what it printed as JSON, and what it took."""
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise SystemExit(f"{what} ended with {status}")
    return json.loads(printed), usage


def write(out: Path, found: dict[str, Any]) -> None:
    """Write a results file, with the code's commit and the machine, and print its summary."""
    out.parent.mkdir(parents=True, exist_ok=True)
    whole = {**found, "commit": commit(), "machine": machine()}
    out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found["summary"]))
