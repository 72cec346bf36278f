"""Cards become a page, and the page says what the cards say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matdarwin.data.cards import BINS, Card, card, histogram, public
from matdarwin.data.readers import read
from matdarwin.data.sources import DataError
from matdarwin.studies import tables, tasks_page
from matdarwin.studies.scores import ResultsError
from matdarwin.tasks import registry
from tiny import tiny_rows, tiny_task

ROOT = Path(__file__).parents[2]


def cards(folder: Path) -> list[Card]:
    gap = tiny_task(folder, rows=[*tiny_rows(60), ("Xx|y", "1"), ("Ga N", "1.0")], notes=["A | bar, and <b>."])
    metal = tiny_task(folder, kind="classification", scored=False)
    return [card(gap), card(metal)]


def test_the_page_has_every_task_with_its_numbers(tmp_path: Path) -> None:
    text = tasks_page.page(public(cards(tmp_path))["tasks"])
    assert "1 tasks are scored; 1 more are auxiliary" in text
    assert "| [tiny_gap](#tiny_gap) | regression | eV | 61 | 62 |" in text
    for piece in (
        "## tiny_gap",
        "**rows**: 61 of 62, 1 left out",
        "| composition: no composition | 1 |",
        "band gap (measured), 0 to 5 eV with 1 decimal",
        "folds**: seeded: ",
        "- A \\| bar, and &lt;b>.",
        "| not metal |",
        "one of metal, not metal",
        "`What is the band gap of {material}?`",
    ):
        assert piece in text, piece


def test_the_histogram_counts_every_row_in_its_bin(tmp_path: Path) -> None:
    rows = [(formula, f"{place % 21 * 0.2:.1f}") for place, (formula, _) in enumerate(tiny_rows(105))]
    task = tiny_task(tmp_path, rows=rows, decimals=1)
    found = histogram(task, read(task).examples)
    assert found is not None and len(found["counts"]) == BINS and len(found["edges"]) == BINS + 1
    assert sum(found["counts"]) == 105 and (found["edges"][0], found["edges"][-1]) == (0.0, 4.0)
    # 21 values, five rows each, in 20 bins: the last holds its upper edge too.
    assert sorted(found["counts"]) == [5] * 19 + [10]
    same = tiny_task(tmp_path, rows=[(formula, "1.0") for formula, _ in tiny_rows(30)])
    assert histogram(same, read(same).examples) is None


def test_an_empty_bin_is_told_from_a_bin_with_one_row(tmp_path: Path) -> None:
    rows = [*((formula, "0.0") for formula, _ in tiny_rows(40)), ("Ti O2", "4.0")]
    text = tasks_page.section(card(tiny_task(tmp_path, rows=rows)))
    assert f"    0 |█{' ' * (BINS - 2)}▂| 4 eV" in text


def test_published_cards_hold_no_rows_of_the_data(tmp_path: Path) -> None:
    text = json.dumps(public(cards(tmp_path)))
    assert "Xx|y" not in text and '"rejects"' not in text
    with pytest.raises(DataError, match=r"task expt_gap: the source is not on this machine"):
        public([card(registry.load("expt_gap").model_copy())])


def test_make_results_writes_the_page_where_there_are_cards(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"{tables.BEGIN}\n{tables.END}\n")
    tables.write(tmp_path)
    assert not (tmp_path / "docs" / "tasks.md").exists()
    file = tmp_path / "results" / "data" / "cards.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(public(cards(tmp_path))))
    assert tables.write(tmp_path) == [tmp_path / "docs" / "tasks.md"]
    assert tables.write(tmp_path) == []
    for broken in ("{", "[]", '{"tasks": [{}]}'):
        file.write_text(broken)
        with pytest.raises(ResultsError, match=r"cards.json: holds no cards of tasks"):
            tables.write(tmp_path)


def test_the_page_of_this_repository_says_what_its_cards_say() -> None:
    """Run `make results` where this fails."""
    found, page = tasks_page.read_cards(ROOT / "results"), ROOT / "docs" / "tasks.md"
    assert (found is not None) == page.is_file()
    if found is not None:
        assert page.read_text(encoding="utf-8") == tasks_page.page(found)
