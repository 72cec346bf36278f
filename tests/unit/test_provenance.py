"""Which code made a result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matdarwin.training import provenance


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module's file as if it lay in a repository, in a package of its own."""
    file = tmp_path / "src" / "matdarwin" / "training" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text(Path(provenance.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(provenance, "__file__", str(file))
    git(tmp_path, "init", "-q")
    return file


def test_the_commit_of_ones_own_repository(module: Path) -> None:
    git(module.parent, "add", ".")
    git(module.parent, "commit", "-q", "-m", "code")
    head = git(module.parent, "rev-parse", "HEAD")
    assert provenance.commit() == head
    module.write_text("# edited")
    assert provenance.commit() == f"{head}-dirty"


def test_a_package_in_an_environment_inside_somebody_elses_repository_has_none(module: Path, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("src\n")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "-q", "-m", "theirs")
    assert provenance.commit() is None


def test_outside_of_a_repository_there_is_none(module: Path, tmp_path: Path) -> None:
    (tmp_path / ".git").rename(tmp_path / "not-git")
    assert provenance.commit() is None


def test_the_machine_is_told_in_terms_that_mean_something_elsewhere() -> None:
    told = provenance.machine()
    assert told["cores"] >= 1 and told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert provenance.peak_memory() > 0.05
