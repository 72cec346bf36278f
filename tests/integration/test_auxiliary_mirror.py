"""The auxiliary tasks on the real data: counts, prompts and answers, quantities, and that the split heeds them."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from matdarwin.data import readers, sources
from matdarwin.data.audit import audit
from matdarwin.data.leakage import check, split
from matdarwin.data.odd import mended
from matdarwin.data.readers import Table, read
from matdarwin.language.answers import format_answer, parse_answer
from matdarwin.language.prompts import STYLES, conditions_text
from matdarwin.tasks.registry import load, names
from matdarwin.tasks.schema import Task

ZHUO = {"zhuo_gap", "zhuo_is_metal"}
COUNTS = {  # rows kept, rows read, different materials
    "alloy_hardness": (516, 1545, 377),
    "alloy_yield_strength": (1067, 1545, 395),
    "bulk_modulus": (10987, 10987, 9723),
    "critical_temperature": (12409, 16414, 12002),
    "estm_conductivity": (5205, 5205, 869),
    "estm_seebeck": (5205, 5205, 869),
    "estm_thermal_conductivity": (5205, 5205, 869),
    "formation_energy_expt": (2135, 2135, 2135),
    "formation_energy_mp": (132752, 132752, 95118),
    "glass_large": (8409, 8415, 6306),
    "hea_phase_large": (11251, 11252, 7069),
    "pbe_gap_aflow": (27577, 27577, 27572),
    "pbe_gap_mp": (106113, 106113, 78164),
    "pbe_gap_oqmd": (341608, 341608, 341608),
    "perovskite_formation_energy": (18928, 18928, 9646),
    "refractive_index": (4764, 4764, 3992),
    "shear_modulus": (10987, 10987, 9723),
}
REJECTED = {
    "alloy_hardness": {"the cell is empty": 1015, "repeats an earlier row": 14},
    "alloy_yield_strength": {"the cell is empty": 297, "condition temperature is needed and not given": 181},
    "critical_temperature": {"no critical temperature is reported": 3966, "no composition": 39},
    "glass_large": {"no composition": 6},
    "hea_phase_large": {"no composition": 1},
}
RANGES = {  # least and greatest value, in the task's unit
    "alloy_hardness": (94.7, 1183),
    "alloy_yield_strength": (24, 3416),
    "bulk_modulus": (0, 2.76),
    "critical_temperature": (0.0005, 143),
    "estm_conductivity": (-3.371, 7.976),
    "estm_seebeck": (-1174, 1052.4),
    "estm_thermal_conductivity": (0.07, 77.16),
    "formation_energy_expt": (-4.489, 0.328),
    "formation_energy_mp": (-4.612, 2.5),
    "pbe_gap_aflow": (0, 17.501),
    "pbe_gap_mp": (0, 9.721),
    "pbe_gap_oqmd": (0, 10.34),
    "perovskite_formation_energy": (-0.64, 5.16),
    "refractive_index": (1, 62.063),
    "shear_modulus": (0, 2.719),
}


def auxiliary() -> list[Task]:
    return [task for task in map(load, names()) if not task.scored and task.id not in ZHUO]


def test_the_auxiliary_tasks_are_there_without_any_data() -> None:
    assert {task.id for task in auxiliary()} == set(COUNTS)
    compact = {task.wordings[0]: task for task in map(load, names()) if task.id not in ZHUO and task.scored}
    for task in auxiliary():
        assert 3 <= len(task.wordings) <= 6 and len(set(task.wordings)) == len(task.wordings)
        assert task.wordings[0] == min(task.wordings, key=len) and task.wordings[0].endswith("{material}")
        assert task.held_out_wording == len(task.wordings) - 1
        if task.conditions:
            assert all("{conditions}" in wording for wording in task.wordings)
        assert len(task.notes) >= 2 and task.licence and "doi" in task.citation
        # Who asks in the words of a scored task answers in its format.
        same = compact.get(task.wordings[0])
        if same is not None:
            assert (task.decimals, task.unit, task.labels) == (same.decimals, same.unit, same.labels)


def test_quantities_are_those_of_the_scored_tasks_that_measure_the_same() -> None:
    shared: dict[str, set[str]] = {}
    for task in map(load, names()):
        for quantity in task.quantities:
            shared.setdefault(quantity, set()).add(task.id)
    found = {quantity: tasks for quantity, tasks in shared.items() if tasks & set(COUNTS)}
    te = {"te_resistivity", "te_seebeck", "te_thermal_conductivity"}
    assert found == {
        "alloy phase": {"hea_phase", "hea_phase_large"},
        "computed band gap": {"pbe_gap_mp", "pbe_gap_oqmd", "pbe_gap_aflow"},
        "critical temperature": {"critical_temperature"},
        "elastic moduli": {"bulk_modulus", "shear_modulus"},
        "formation energy": {
            "magnet_formation_energy", "formation_energy_mp", "formation_energy_expt", "perovskite_formation_energy",
        },
        "glass": {"glass", "glass_large"},
        "hardness": {"alloy_hardness"},
        "refractive index": {"refractive_index"},
        "strength": {"steels_yield", "alloy_yield_strength"},
        "thermoelectric": te | {"estm_seebeck", "estm_conductivity", "estm_thermal_conductivity"},
    }  # fmt: skip
    computed = {task.id for task in auxiliary() if task.origin == "computed"}
    assert computed == {
        "bulk_modulus", "formation_energy_mp", "pbe_gap_aflow", "pbe_gap_mp", "pbe_gap_oqmd",
        "perovskite_formation_energy", "refractive_index", "shear_modulus",
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in place of the user's for all tests here: a table is parsed once and then comes from the cache."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def kept(mirror: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mirror, and in the cache what comes out of pymatgen's wheel; large tables do not stay in memory."""
    monkeypatch.setenv("MATDARWIN_HOME", str(folder))
    monkeypatch.setattr(readers, "_tables", {})
    target = sources._cached(load("formation_energy_expt").source)
    if not target.is_file():
        target.parent.mkdir(parents=True)
        shutil.copy(str(files("pymatgen.analysis.compatibility").joinpath("exp_compounds.json.gz")), target)
    return mirror


def prompts_and_answers(task: Task, table: Table) -> None:
    """Every row as prompt and answer; styles and wordings take turns, so that each of them meets thousands."""
    turns = itertools.cycle(itertools.product(STYLES.values(), range(len(task.wordings))))
    for example, (style, wording) in zip(table.examples, turns, strict=False):
        assert example.target is not None
        conditions = conditions_text(task, example.conditions)
        prompt = style.render(task, example.material.text, wording=wording, conditions=conditions)
        assert example.material.text in prompt and conditions in prompt
        value = parse_answer(task, format_answer(task, example.target)).value
        if isinstance(value, float):
            assert abs(value - float(example.target)) <= 0.51 * 10 ** -(task.decimals or 0)
        else:
            assert value == example.target


@pytest.mark.mirror
@pytest.mark.parametrize("name", sorted(COUNTS))
def test_rows_are_those_that_the_notes_state_and_each_can_be_asked_and_answered(name: str, kept: Path) -> None:
    task = load(name)
    table = read(task)
    materials = {example.material.key for example in table.examples}
    assert (len(table.examples), table.rows_read, len(materials)) == COUNTS[name]
    assert Counter(reject.cause for reject in table.rejects) == REJECTED.get(name, {})
    assert len(table.examples) + len(table.rejects) == table.rows_read
    assert len({example.row for example in table.examples}) == len(table.examples)
    if task.kind == "regression":
        values = [float(example.target or 0) for example in table.examples]
        assert (min(values), max(values)) == pytest.approx(RANGES[name], abs=1e-3)
    else:
        assert {example.target for example in table.examples} == set(task.labels)
    prompts_and_answers(task, table)


@pytest.mark.mirror
def test_conditions_of_alloys_are_words_and_degrees(kept: Path) -> None:
    rows = read(load("alloy_yield_strength")).examples
    assert {row.conditions.get("processing") for row in rows} == {
        "cast", "wrought", "annealed", "powder", "other", None,
    }  # fmt: skip
    assert {row.conditions["test"] for row in rows} == {"compression", "tension"}
    heat = [float(row.conditions["temperature"]) for row in rows]
    assert (min(heat), max(heat)) == (-268.8, 1600)
    asked = conditions_text(load("alloy_yield_strength"), rows[0].conditions)
    assert asked == "at 25 °C (processing cast) (test compression)"


@pytest.mark.mirror
def test_spoilt_and_padded_formulas_are_mended(kept: Path) -> None:
    phases = read(load("hea_phase_large")).examples
    assert all("BCC" not in example.material.given for example in phases)
    assert "Mo25.6Nb22.7Ta24.4W27.3" in {example.material.given for example in phases}
    glasses = {example.row: example for example in read(load("glass_large")).examples}
    assert all(mended(example.material.given) == example.material.given for example in [*phases, *glasses.values()])
    assert glasses["ward-1"].material.given == "Ag20Al25La55"
    agreed = Counter()  # with the labels of glass, where all rows of an alloy are of one mind
    told: dict[str, set[float | str | None]] = {}
    for example in glasses.values():
        told.setdefault(example.material.key, set()).add(example.target)
    for example in read(load("glass")).examples:
        if len(mind := told.get(example.material.key, set())) == 1:
            agreed[example.target in mind] += 1
    assert agreed[True] > 5000 and agreed[False] <= 5


@pytest.mark.mirror
def test_energies_are_for_an_atom_of_the_formula_as_written(kept: Path) -> None:
    energy = {
        example.material.given: float(example.target or 0) for example in read(load("formation_energy_expt")).examples
    }
    # Handbook enthalpies, in kJ for a mole of formula units, by atoms.
    for formula, kilojoule, atoms in (("Al2O3", -1675.7, 5), ("NaCl", -411.2, 2), ("Fe2O3", -824.2, 5)):
        assert energy[formula] == pytest.approx(kilojoule / 96.485 / atoms, abs=0.02)


@pytest.mark.mirror
def test_test_materials_leave_what_measures_the_same_and_computed_gaps_stay(kept: Path) -> None:
    tasks = [load(name) for name in ("expt_gap", "glass", "glass_large", "hea_phase", "hea_phase_large", "pbe_gap_mp")]
    done = split(tasks, 0)
    assert check(done) == []
    lost = {name: count for name, count in done.removed.items() if "key in the test fold" in name}
    assert set(lost) == {
        "glass_large: key in the test fold of glass", "hea_phase_large: key in the test fold of hea_phase",
    }  # fmt: skip
    assert all(count > 100 for count in lost.values())
    assert done.kept["pbe_gap_mp"] == COUNTS["pbe_gap_mp"][0]
    found = audit([done])
    assert found.verdict == "CLEAN"
    assert {pair.train_task for pair in found.knowledge} == {"pbe_gap_mp"}
    known = {pair.task: pair.found for pair in found.knowledge}
    assert known["expt_gap"] > 400


@pytest.mark.mirror
def test_test_magnets_leave_computed_formation_energies(kept: Path) -> None:
    tasks = [load("magnet_formation_energy"), load("formation_energy_mp")]
    done = [split(tasks, fold) for fold in range(2)]
    assert all(check(one) == [] for one in done)
    reason = "formation_energy_mp: key in the test fold of magnet_formation_energy"
    assert sum(one.removed.get(reason, 0) for one in done) > 0
