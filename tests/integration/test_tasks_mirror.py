"""All 22 scored tasks on the real data: counts, units, prompts and answers, folds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from matdarwin.data.folds import FOLDS, assign, groups
from matdarwin.data.readers import read
from matdarwin.language.answers import format_answer, parse_answer
from matdarwin.language.prompts import STYLES, conditions_text
from matdarwin.tasks.registry import load, names
from matdarwin.tasks.schema import Task

COUNTS = {  # rows kept, rows read, different materials
    "esol": (1128, 1128, 1117),
    "expt_gap": (4604, 4604, 4601),
    "expt_is_metal": (4921, 4921, 4917),
    "glass": (5680, 5680, 5680),
    "hea_phase": (1182, 1252, 1173),
    "hybrid_dimensionality": (469, 1518, 448),
    "lipophilicity": (4200, 4200, 4200),
    "magnet_formation_energy": (140, 140, 41),
    "magnet_moment": (140, 140, 41),
    "mof_heat_capacity": (995, 1001, 143),
    "mof_water_stability": (169, 169, 162),
    "opv_pce": (344, 344, 344),
    "polymer_homo": (1202, 1203, 1114),
    "polymer_lumo": (1202, 1203, 1114),
    "polymer_opv_pce": (1203, 1203, 1115),
    "pv_gap": (604, 1177, 386),
    "pv_pce": (659, 1177, 367),
    "pv_voc": (659, 1177, 367),
    "steels_yield": (312, 312, 312),
    "te_resistivity": (1028, 1028, 271),
    "te_seebeck": (1028, 1028, 271),
    "te_thermal_conductivity": (687, 1028, 191),
}
REJECTED = {
    "hea_phase": {"other labels for the same material": 68, "no composition": 2},
    "hybrid_dimensionality": {"repeats an earlier row": 1049},
    "mof_heat_capacity": {"its atoms do not give its value at 300 K": 6},
    "polymer_homo": {"the HOMO is given as equal to the LUMO": 1},
    "polymer_lumo": {"the HOMO is given as equal to the LUMO": 1},
    "pv_gap": {"repeats an earlier row": 442, "the cell is empty": 128, "a hundredfold gap": 3},
    "pv_pce": {"repeats an earlier row": 343, "the cell is empty": 175},
    "pv_voc": {"repeats an earlier row": 343, "the cell is empty": 175},
    "te_thermal_conductivity": {"the cell is empty": 341},
}
TRAINED = {"expt_gap", "expt_is_metal", "glass", "steels_yield"}
"""Their results hang on their declaration as it is, so none of their wordings is held out."""


def test_the_22_are_there_without_any_data() -> None:
    scored = {name: load(name) for name in names() if load(name).scored}
    assert set(scored) == set(COUNTS)
    assert Counter(task.kind for task in scored.values()) == {"regression": 17, "classification": 5}
    for task in scored.values():
        assert 3 <= len(task.wordings) <= 6 and len(set(task.wordings)) == len(task.wordings)
        assert min(len(wording) for wording in task.wordings) == len(task.wordings[0])
        assert task.wordings[0].endswith("{material}")
        if task.id not in TRAINED:
            # The first two are those that the prompt styles ask in, so neither may be kept from training.
            assert task.held_out_wording is not None and task.held_out_wording >= 2
        if task.conditions:
            assert all("{conditions}" in wording for wording in task.wordings)


def test_quantities_are_shared_by_what_measures_the_same() -> None:
    shared: dict[str, set[str]] = {}
    for name in COUNTS:
        for quantity in load(name).quantities:
            shared.setdefault(quantity, set()).add(name)
    assert {quantity: found for quantity, found in shared.items() if len(found) > 1} == {
        "band gap": {"expt_gap", "expt_is_metal", "pv_gap"},
        "polymer": {"polymer_homo", "polymer_lumo", "polymer_opv_pce", "opv_pce"},
        "photovoltaic": {"pv_gap", "pv_pce", "pv_voc"},
        "thermoelectric": {"te_resistivity", "te_seebeck", "te_thermal_conductivity"},
        "magnet": {"magnet_formation_energy", "magnet_moment"},
    }


@pytest.fixture(params=sorted(COUNTS))
def task(request: pytest.FixtureRequest, mirror: Path) -> Task:
    return load(request.param)


@pytest.mark.mirror
def test_rows_kept_and_rejected_are_those_that_the_notes_state(task: Task) -> None:
    table = read(task)
    materials = {example.material.key for example in table.examples}
    assert (len(table.examples), table.rows_read, len(materials)) == COUNTS[task.id]
    assert len(table.examples) + len(table.rejects) == table.rows_read
    assert Counter(reject.cause for reject in table.rejects) == REJECTED.get(task.id, {})
    assert all(reject.reason and reject.row >= 1 for reject in table.rejects)
    assert len({example.row for example in table.examples}) == len(table.examples)


@pytest.mark.mirror
def test_every_row_becomes_prompts_and_an_answer_that_reads_back(task: Task) -> None:
    for example in read(task).examples:
        conditions = conditions_text(task, example.conditions)
        assert example.target is not None
        answer = format_answer(task, example.target)
        value = parse_answer(task, answer).value
        if isinstance(value, float):
            assert abs(value - float(example.target)) <= 0.51 * 10 ** -(task.decimals or 0)
        else:
            assert value == example.target
        for style in STYLES.values():
            for wording in range(len(task.wordings)):
                prompt = style.render(task, example.material.text, wording=wording, conditions=conditions)
                assert example.material.text in prompt and conditions in prompt


@pytest.mark.mirror
def test_five_folds_by_key_hold_every_row(task: Task) -> None:
    table = read(task)
    done = assign(table, scheme="seeded")
    sizes = Counter(example.fold for example in done)
    assert set(sizes) == set(range(FOLDS)) and sum(sizes.values()) == len(table.examples)
    for together in groups(done):
        assert len({done[place].fold for place in together}) == 1
    assert min(sizes.values()) >= 0.8 * len(done) / FOLDS


@pytest.mark.mirror
def test_units_are_those_that_the_task_states(mirror: Path) -> None:
    found = {name: {example.row: example for example in read(load(name)).examples} for name in COUNTS}
    gaps = [float(example.target or 0) for example in found["pv_gap"].values()]
    assert max(gaps) == 3.03
    volts = [float(example.target or 0) for example in found["pv_voc"].values()]
    assert (min(volts), max(volts)) == (0.101, 1.653)
    logs = [float(example.target or 0) for example in found["te_resistivity"].values()]
    assert (round(min(logs), 3), round(max(logs), 3)) == (-3.914, 4.161)
    assert {example.conditions["temperature"] for example in found["te_seebeck"].values()} == {300, 400, 700, 1000}
    assert {example.conditions["form"] for example in found["te_seebeck"].values()} == {
        "polycrystalline",
        "single crystal",
    }
    assert Counter(example.conditions["acceptor"] for example in found["opv_pce"].values()).most_common(2) == [
        ("PC61BM", 139),
        ("PC71BM", 133),
    ]
    heat = Counter(example.conditions["temperature"] for example in found["mof_heat_capacity"].values())
    assert heat == {300: 143, **dict.fromkeys((250, 275, 325, 350, 375, 400), 142)}


@pytest.mark.mirror
def test_an_absorber_that_is_a_composition_has_its_key(mirror: Path) -> None:
    gaps = {example.material.text: example.material for example in read(load("pv_gap")).examples}
    known = {key for example in read(load("expt_gap")).examples for key in example.material.keys}
    assert not known.isdisjoint(gaps["AgBiS2"].keys)
    assert gaps["N719"].keys == ("name:n719",)  # a dye, not nitrogen
    one, other = gaps["FA0.83Cs0.17Pb(I0.6Br0.4)3"], gaps["Cs0.17FA0.83Pb(I0.6Br0.4)3"]
    assert one.key != other.key and set(one.keys) & set(other.keys)
