"""How benchmarks write what they found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matdarwin.training.provenance import commit, machine


def write(out: Path, found: dict[str, Any]) -> None:
    """Write a results file, with the code's commit and the machine, and print its summary."""
    out.parent.mkdir(parents=True, exist_ok=True)
    whole = {**found, "commit": commit(), "machine": machine()}
    out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found["summary"]))
