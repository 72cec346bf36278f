"""A table from the cache is the table that was parsed; what is damaged or of other code is made anew."""

from __future__ import annotations

import ast
import json
import logging
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.timing import least_seconds

from matdarwin.data import odd, readers, tablecache
from matdarwin.data.cards import away
from matdarwin.data.readers import Reject, Table, read
from matdarwin.data.sources import DataError
from matdarwin.materials.material import Material
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Task
from tiny import tiny_rows, tiny_task

ROWS = [*tiny_rows(120), ("Ga2 O3", "9"), ("Xx", "1"), ("GaN", ""), ("GaN", "1,5")]


@pytest.fixture(autouse=True)
def _own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has an empty cache, and what other tests read is forgotten."""
    monkeypatch.setattr(readers, "_tables", {})


def again(task: Task, monkeypatch: pytest.MonkeyPatch, *, parses: bool) -> Table:
    """Read as a new process would; `parses`: whether it may parse."""
    monkeypatch.setattr(readers, "_tables", {})
    made = []
    real = readers._table

    def table(*args: object) -> Table:
        made.append(args)
        return real(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(readers, "_table", table)
        found = read(task)
    assert bool(made) == parses
    return found


def kept() -> list[Path]:
    return sorted(tablecache.folder().iterdir()) if tablecache.folder().is_dir() else []


def test_a_second_load_parses_nothing_and_is_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(tmp_path, rows=ROWS)
    fresh = read(task)
    assert len(fresh.rejects) == 4 and [path.suffix for path in kept()] == [".parquet"]
    assert again(task, monkeypatch, parses=False) == fresh
    assert tablecache.counts(task) == tablecache.count(fresh)
    assert tablecache.count(fresh)._asdict() == {"rows_read": 124, "rows": 120, "materials": 120, "folds": 0}


def test_small_tables_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(tmp_path, rows=ROWS[: tablecache.LEAST_ROWS - 1])
    read(task)
    assert kept() == [] and tablecache.counts(task) is None
    again(task, monkeypatch, parses=True)


def test_a_file_is_known_by_its_content_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = read(tiny_task(tmp_path / "one", rows=ROWS))
    other = tiny_task(tmp_path / "two", rows=ROWS)
    assert again(other, monkeypatch, parses=False) == replace(fresh, task=other)
    changed = tiny_task(tmp_path / "two", rows=[*ROWS, ("AlN", "2")])
    assert again(changed, monkeypatch, parses=True).rows_read == len(ROWS) + 1


@pytest.mark.parametrize(
    ("changes", "parses"),
    [
        ({"bounds": [0, 2]}, True),
        ({"reader": {"material": "target", "target": "target"}}, True),
        ({"representation": "name"}, True),
        ({"wordings": ["gap of {material}"]}, False),
        ({"title": "another", "notes": ["a note"], "version": 2, "scored": False}, False),
    ],
)
def test_what_shapes_rows_is_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], parses: bool
) -> None:
    read(tiny_task(tmp_path, rows=ROWS))
    other = tiny_task(tmp_path, rows=ROWS, **changes)
    assert again(other, monkeypatch, parses=parses) == readers._table(
        other, odd.table_rows([Path(other.source.name)], readers.columns(other.reader))
    )


def test_other_code_is_another_parser_and_its_tables_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(tmp_path, rows=ROWS)
    read(task)
    (old,) = kept()
    monkeypatch.setattr(tablecache, "parser", lambda: "other")
    again(task, monkeypatch, parses=True)
    (new,) = kept()
    assert new.name.split(".")[2] == "other" and not old.exists()


def test_all_code_that_parses_is_part_of_the_parser() -> None:
    """What the readers import, and what that imports, must be named in PARSING, or shape no row."""
    package = Path(tablecache.__file__).parents[1]
    shapeless = {"data/__init__.py", "data/sources.py", "data/disk.py", "tasks/__init__.py", "tasks/registry.py"}
    seen: set[str] = set()
    waiting = ["data/readers.py"]
    while waiting:
        name = waiting.pop()
        if name in seen or name in shapeless or not (package / name).is_file():
            continue
        seen.add(name)
        for node in ast.walk(ast.parse((package / name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("matdarwin"):
                stem = (node.module or "").partition(".")[2].replace(".", "/")
                waiting += [f"{stem}.py", f"{stem}/__init__.py", *(f"{stem}/{one.name}.py" for one in node.names)]
    named = {name for name in seen if name in tablecache.PARSING or name.split("/")[0] in tablecache.PARSING}
    assert seen == named and len(seen) >= 8


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_a_damaged_file_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None) -> None:
    task = tiny_task(tmp_path, rows=ROWS)
    fresh = read(task)
    (file,) = kept()
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :] if damage is None else damage)
    assert tablecache.counts(task) is None
    assert again(task, monkeypatch, parses=True) == fresh
    assert [path.read_bytes() for path in kept()] == [whole]


def test_a_changed_source_is_refused_though_its_table_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(tmp_path, rows=ROWS)
    read(task)
    with Path(task.source.name).open("a") as file:
        file.write("AlN,1\n")
    with pytest.raises(DataError, match=r"wrong checksum"):
        again(task, monkeypatch, parses=False)


def test_a_cache_that_cannot_be_written_costs_time_alone(
    tmp_path: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / ".cache").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert len(read(tiny_task(tmp_path, rows=ROWS)).examples) == 120
    assert "cannot be kept (Not a directory)" in caplog.text or "cannot be kept (File exists)" in caplog.text


def test_a_process_that_is_stopped_while_it_writes_leaves_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        read(tiny_task(tmp_path, rows=ROWS))
    assert kept() == []


texts = st.text(max_size=8)
parts = st.lists(texts, max_size=3).map(tuple)
materials = st.builds(
    Material, kind=st.sampled_from(["composition", "molecule", "name"]), given=texts, parts=parts, source_parts=parts,
    key=texts, keys=parts, elements=parts,
)  # fmt: skip
numbers = st.sampled_from([0.0, -0.0]) | st.floats(allow_nan=False, allow_infinity=False)
examples = st.builds(
    Example, task=st.just("tiny_gap"), row=texts, material=materials,
    conditions=st.dictionaries(texts, numbers | texts, max_size=2), evidence=parts, target=st.none() | numbers | texts,
    fold=st.none() | st.integers(0, 9), spread=numbers, question=st.none() | texts, answer=st.none() | texts,
)  # fmt: skip
rejects = st.builds(Reject, row=st.integers(1, 10**9), text=texts, reason=texts, column=texts, cause=texts)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(examples, max_size=6), st.lists(rejects, max_size=4))
def test_every_table_comes_back_as_it_was(tmp_path: Path, some: list[Example], refused: list[Reject]) -> None:
    table = Table(tiny_task(tmp_path, rows=[]), some, refused, len(some) + len(refused))
    back = tablecache._load(table.task, tablecache._pack(table))
    assert back == table
    for one, other in zip(back.examples, some, strict=True):
        assert type(one.target) is type(other.target) and list(one.conditions) == list(other.conditions)
        if isinstance(other.target, float):
            assert repr(one.target) == repr(other.target), "-0.0 equals 0.0 and is another answer"


def test_no_field_is_forgotten() -> None:
    """A field that is new to one of these must be kept in the cache too."""
    assert [f.name for f in fields(Material)] == [
        "kind", "given", "parts", "source_parts", "key", "keys", "elements"
    ]  # fmt: skip
    assert [f.name for f in fields(Example)] == [
        "task", "row", "material", "conditions", "evidence", "target", "fold", "spread",
        "question", "answer",
    ]  # fmt: skip
    assert [f.name for f in fields(Reject)] == ["row", "text", "reason", "column", "cause"]
    assert [f.name for f in fields(Table)] == ["task", "examples", "rejects", "rows_read"]


def test_the_kept_file_is_plain_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet

    read(tiny_task(tmp_path, rows=ROWS))
    (file,) = kept()
    table = pyarrow.parquet.read_table(file)
    assert table.num_rows == len(ROWS) and json.loads(table.schema.metadata[b"matdarwin"])["rows"] == 120


@pytest.mark.mirror
def test_every_real_table_comes_back_as_it_was_and_quickly(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [task for name in registry.names() if away(task := registry.load(name)) is None and task.scored]
    fresh = [read(task) for task in tasks]
    monkeypatch.setattr(readers, "_tables", {})
    monkeypatch.setattr(readers, "_table", lambda *_: pytest.fail("parsed again"))

    def again() -> None:
        readers._tables.clear()
        assert all(read(task) == table for task, table in zip(tasks, fresh, strict=True))

    assert least_seconds(again, 5, enough=3) < 3
