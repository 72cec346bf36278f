"""The task schema refuses what would make no sense later."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from matdarwin.tasks.schema import Source, Task

SHA = "0" * 64
READER = {"material": "formula", "target": "hardness"}


def content(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "id": "hardness",
        "version": 1,
        "kind": "regression",
        "title": "Hardness",
        "property": "hardness",
        "quantities": ["hardness"],
        "unit": "GPa",
        "bounds": [0, 100],
        "decimals": 1,
        "representation": "composition",
        "wordings": ["hardness of {material}"],
        "metric": "mae",
        "source": {"kind": "file", "name": "hardness.csv", "sha256": SHA},
        "reader": READER,
        "licence": "MIT",
        "citation": "ours",
        "description": "A task for tests.",
    }
    return {**given, **changes}


def classes(**changes: Any) -> dict[str, Any]:
    given = content(
        kind="classification", labels=["yes", "no"], metric="accuracy", unit=None, bounds=None, decimals=None
    )
    return {**given, **changes}


def test_a_whole_task_is_taken() -> None:
    assert Task.model_validate(content()).bounds == (0.0, 100.0)
    assert Task.model_validate(classes()).labels == ("yes", "no")
    worded = ["{conditions} the {{hardness}} of {material}", "{material}"]
    assert Task.model_validate(content(wordings=worded)).wordings == tuple(worded)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (content(bounds=None), "needs bounds and decimals"),
        (content(bounds=[5, 5]), "bounds must rise"),
        (content(bounds=[0, 1e6], decimals=3), "narrow them"),
        (content(labels=["a", "b"]), "labels belong to classification"),
        (content(metric="accuracy"), "is for classification"),
        (content(wordings=["hardness?"]), "lacks {material}"),
        (content(wordings=["hardness of {{material}}"]), "lacks {material}"),
        (
            content(wordings=["fine: {material}", "glass {alloy} {material}"]),
            r"has the placeholder {alloy}; there are {material} and {conditions} alone",
        ),
        (content(wordings=["{material} {}"]), "has the placeholder {};"),
        (content(wordings=["{0} {material}"]), r"has the placeholder \{0\};"),
        (content(wordings=["{material.text}"]), "has the placeholder {material.text};"),
        (content(wordings=["{material!r}"]), "has the placeholder {material!r};"),
        (content(wordings=["{material:>20}"]), "has the placeholder {material:>20};"),
        (content(wordings=["{material"]), "a brace that is no placeholder"),
        (content(wordings=["{material} }"]), "a brace that is no placeholder"),
        (content(folds="official"), "official folds need reader.fold"),
        (content(leads=["colour"]), "not among its quantities"),
        (content(id="Hard ness"), "pattern"),
        (content(version=0), "greater than or equal"),
        (content(decimal=1), "Extra inputs"),
        (classes(labels=["yes"]), "two or more different labels"),
        (classes(labels=["yes", "yes"]), "two or more different labels"),
        (classes(positive="maybe"), "not among"),
        (classes(metric="mae"), "is for regression"),
        (content(held_out_wording=0), "greater than or equal to 1"),
        (content(held_out_wording=1), "held_out_wording 1 is none of its 1 wordings"),
        (content(reader={**READER, "scael": 0.1}), "Extra inputs"),
        (content(reader={**READER, "scale": 0}), "greater than 0"),
        (content(reader={**READER, "conflicts": "drop"}), "conflicts belongs to classification"),
        (content(reader={**READER, "abbreviations": {"MA": "CH6N"}}), "abbreviations needs reader.keys"),
        (content(reader={**READER, "conditions": {"T": "T"}}), "has 'T', which is not among its conditions"),
        (classes(reader={**READER, "scale": 0.001}), "belong to regression"),
        (classes(reader={**READER, "log10": True}), "belong to regression"),
    ],
)
def test_nonsense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Task.model_validate(given)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "wheel", "name": "w", "version": "1", "sha256": SHA}, "needs version and path"),
        ({"kind": "github", "name": "a/b", "path": "c", "sha256": SHA}, "needs version and path"),
        ({"kind": "mirror", "name": "a.csv", "sha256": SHA}, "needs the path in the mirror"),
        ({"kind": "url", "name": "a", "sha256": "abc"}, "pattern"),
    ],
)
def test_a_source_without_what_pins_it_is_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Source.model_validate(source)


def test_a_task_does_not_change_after_it_was_made() -> None:
    task = Task.model_validate(content())
    with pytest.raises(ValidationError, match=r"frozen"):
        setattr(task, "decimals", 3)  # noqa: B010 (the plain form is a type error)


def test_further_files_come_after_the_first() -> None:
    more = {"kind": "file", "name": "more.csv", "sha256": "1" * 64}
    task = Task.model_validate(content(extra_sources=[more]))
    assert [source.name for source in task.sources()] == ["hardness.csv", "more.csv"]
    assert [source.name for source in Task.model_validate(content()).sources()] == ["hardness.csv"]


def test_what_a_task_does_not_say_is_no_part_of_what_shapes_its_results() -> None:
    said = Task.model_validate(content()).model_dump(exclude_defaults=True)
    assert set(said) == set(content()) and set(said["reader"]) == {"material", "target"}
