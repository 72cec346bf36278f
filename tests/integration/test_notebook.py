"""The notebooks of examples/: kept without outputs, and each of them runs from its first cell to its last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from matdarwin.models.store import list_checkpoints
from tiny import at_home, tiny_base, tiny_checkpoint

FOLDER = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_is_one() -> None:
    assert [path.name for path in NOTEBOOKS] == ["from-a-formula-to-a-screen.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path: Path) -> None:
    book = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(book)
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.source[:60]
    assert str(Path.home()) not in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base(tmp_path / "base")
    quick = {"epochs": 1, "minimum_steps": 40, "learning_rate": 1e-2, "batch_size": 16}
    made = tiny_checkpoint(tmp_path, base=base, optimising=quick)
    for name, value in {
        "MATDARWIN_HOME": str(tmp_path), "MATDARWIN_EXAMPLE_BASE": str(base), "MATDARWIN_EXAMPLE_STEPS": "10",
        "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path / "ipython"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    # Where none is to be had, a network must not be what makes it run.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    book: Any = nbformat.read(NOTEBOOKS[0], as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(book, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()

    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    said = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert made.name in said and "270 candidates, 270 with an answer" in said and "50 rows" in said
    tables = [
        output.data["text/html"] for cell in code for output in cell.outputs if "text/html" in output.get("data", {})
    ]
    assert "invalid" in tables[0] and "Ga N" in tables[0]
    assert "Al N" in tables[2]
    # The command ranks as the library does.
    ranked, screened = tables[4], tables[5]
    assert _first(ranked, 0) == _first(screened, 0)
    assert "AlP" in tables[6]
    with at_home(tmp_path):
        assert len(list_checkpoints()) >= 1
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def _first(table: str, column: int) -> str:
    """A cell of the first row of a frame's HTML, its spaces dropped."""
    body = table.split("<tbody>")[1].split("</tr>")[0]
    return body.split("<td>")[1 + column].split("</td>")[0].replace(" ", "")
