"""The real pairs and the real databases: counts, what the filter takes, keys, and presence of metals and others."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.timing import least_seconds

from matdarwin.data import evidence, texts
from matdarwin.data.evidence import GAPS, Evidence, attach, key_of, presence
from matdarwin.data.qa import SCIQAG_TEST, Pairs, near_duplicates, read_pairs, remove_test_facts, split
from matdarwin.data.readers import read
from matdarwin.data.sources import fetch
from matdarwin.data.tables import rows
from matdarwin.materials import parse_composition
from matdarwin.tasks.registry import load

pytestmark = pytest.mark.mirror


@pytest.fixture(autouse=True)
def _real(mirror: Path) -> None:
    """Every test of this file needs the mirror."""


def sciqag() -> Pairs:
    return read_pairs(fetch(SCIQAG_TEST))


def test_all_pairs_of_sciqag_are_read_and_split_without_a_duplicate_across() -> None:
    found = sciqag()
    assert (found.rows_read, len(found.pairs), found.rejects) == (8531, 8531, [])
    done = split(found.pairs, 0.05)
    assert len(done.train) + len(done.held_out) == 8531 and 350 < len(done.held_out) < 500
    assert (done.groups, done.largest) == (8479, 7)
    whole = near_duplicates([pair.question for pair in done.train + done.held_out])
    assert all(max(places) < len(done.train) or min(places) >= len(done.train) for places in whole)


def test_the_filter_takes_what_speaks_of_test_gaps_and_spares_the_rest() -> None:
    task = load("expt_gap")
    test = [example for example in read(task).examples if example.fold == 0]
    done = remove_test_facts(sciqag().pairs, [(task, test)])
    assert len(test) == 921
    assert done.counts == {"expt_gap": 34} and len(done.kept) == 8497  # 0.4 %
    spellings = {removal.spelling for removal in done.removed}
    assert {"TiO2", "HfO2", "anatase", "SnSe2"} <= spellings and not {"In", "As", "I", "He"} & spellings


def test_a_published_file_of_instructions_keeps_no_pair_of_a_test_material(mirror: Path) -> None:
    tests = [(task, read(task).examples) for task in (load("expt_is_metal"), load("expt_gap"))]
    for name, left in (("matbench_is_metal", 164), ("matbench_expt_gap", 0)):
        pairs = read_pairs(mirror / "darwin" / name / f"{name}.json.gz").pairs
        kept = remove_test_facts(pairs, tests).kept
        # What is left asks of words that are no materials.
        assert len(kept) == left and all("is not a composition" in pair.answer for pair in kept)


def test_what_is_taught_of_sciqag_and_the_elements_is_what_was_taught_before() -> None:
    """Stages that have been trained are found by it."""
    told = {name: texts.load(name, []) for name in ("sciqag", "elements")}
    assert {name: (len(text.rows), len(text.removed)) for name, text in told.items()} == {
        "sciqag": (7980, 121),
        "elements": (4509, 0),
    }
    assert {name: texts.digest(name) for name in told} == {"sciqag": "0dba2c350440704b", "elements": "794cd24d6ae1a105"}


@pytest.mark.slow
def test_evidence_of_the_real_databases(home: Path) -> None:
    lookup = Evidence.load()
    assert least_seconds(Evidence.load, 5, enough=3) < 3
    assert len(lookup) == 548_988
    task = load("expt_gap")
    examples = read(task).examples
    told = {one["group"]: one for one in presence(task, examples, lookup)}
    assert told["metal"] == {
        "group": "metal",
        "materials": 2450,
        "any": 2450,
        "found": {"gap_mp": 2186, "gap_oqmd": 1878, "gap_aflow": 1314, "energy_mp": 2449},
    }
    assert told["not metal"]["materials"] == 2152
    assert {name: round(count / 2152, 2) for name, count in told["not metal"]["found"].items()} == {
        "gap_mp": 0.56,
        "gap_oqmd": 0.36,
        "gap_aflow": 0.33,
        "energy_mp": 0.57,
    }
    metals = {one.material.key for one in examples if one.target == 0}
    with_gap = sum(not set(GAPS).isdisjoint(lookup.of(key)) for key in metals)
    assert with_gap / len(metals) == pytest.approx(0.963, abs=1e-3)
    known = next(one for one in attach(task, examples, lookup) if one.material.text == "Ti O2")
    assert known.evidence == (
        "computed gap 2.3 eV (MP), 2.0 (OQMD), 2.3 (AFLOW)",
        "computed formation energy -3.52 eV/atom (MP)",
    )


def test_fast_keys_equal_the_parsers_on_real_formulas() -> None:
    for database in evidence.DATABASES:
        source = database.files[-1]
        cells = [row["formula"] for _, row in rows(fetch(source), ["formula"]) if not isinstance(row, str)]
        for formula in random.Random(0).sample(cells, 300):
            assert key_of(formula) == parse_composition(formula).key
