"""Question-answer pairs: both formats, near-duplicates kept together, and nothing that gives a test material away."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matdarwin.data.mentions import normal
from matdarwin.data.qa import Pair, near_duplicates, read_pairs, remove_test_facts, split
from matdarwin.data.sources import DataError
from matdarwin.materials import Kind, parse
from matdarwin.tasks.registry import load, names
from matdarwin.tasks.schema import Example, Task

GOOD = [{"Q": " What is zinc blende? ", "A": "A structure."}, {"Q": "Why?", "A": "Because."}]


def write(path: Path, content: Any) -> Path:
    text = "\n".join(map(json.dumps, content)) if ".jsonl" in path.suffixes else json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def pair(question: str, answer: str = "Said.", row: str = "1") -> Pair:
    return Pair(question, answer, row, "invented")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "a.v2.jsonl.gz"])
@pytest.mark.parametrize("keys", [("Q", "A"), ("input", "output")])
def test_both_shapes_are_read_from_every_format(tmp_path: Path, name: str, keys: tuple[str, str]) -> None:
    content = [{"source": "invented", keys[0]: one["Q"], keys[1]: one["A"]} for one in GOOD]
    found = read_pairs(write(tmp_path / name, content))
    assert [(one.question, one.answer, one.row) for one in found.pairs] == [
        ("What is zinc blende?", "A structure.", "1"),
        ("Why?", "Because.", "2"),
    ]
    assert (found.rejects, found.rows_read) == ([], 2)


@pytest.mark.parametrize("keys", [("Q", "A"), ("input", "output")])
def test_an_instruction_is_part_of_the_question(tmp_path: Path, keys: tuple[str, str]) -> None:
    question, answer = keys
    content: list[dict[str, Any]] = [
        {"instruction": " Is it metal? -> ", question: " NaTl\n", answer: "Yes."},
        {"instruction": "Tell me its gap.", question: "NaTl", answer: "0"},
        {"instruction": "What is NaTl?", question: "", answer: "A phase."},
        {"instruction": "", question: "Why?", answer: "Because."},
        {"instruction": 7, question: "Why?", answer: "Because."},
        {"instruction": " ", question: "", answer: "Because."},
    ]
    found = read_pairs(write(tmp_path / "a.json", content))
    assert [one.asked for one in found.pairs] == [
        "Is it metal? -> NaTl",
        "Tell me its gap. NaTl",
        "What is NaTl?",
        "Why?",
    ]
    # What is asked about stays apart, so that a file of one instruction is no file of one question.
    assert [one.question for one in found.pairs[:3]] == ["NaTl", "NaTl", "What is NaTl?"]
    assert [(one.row, one.column, one.cause) for one in found.rejects] == [
        (5, "instruction", "no text"),
        (6, question, "empty"),
    ]
    first = found.pairs[0].example("a")
    assert (first.question, first.answer) == ("Is it metal? -> NaTl", "Yes.")
    again = Pair.of(first)
    assert (again.instruction, again.question, again.answer) == ("Is it metal? ->", "NaTl", "Yes.")


@pytest.mark.parametrize(
    "instruction", [("Write its band gap.",) * 3, ("Write its band gap.", "Tell me the gap", "Gap?")]
)
def test_the_filter_sees_an_instruction_whether_or_not_it_is_always_the_same(
    tmp_path: Path, instruction: tuple[str, ...]
) -> None:
    formulas = ("films of TiO2", "SnO2", "films of ZnO")
    content = [{"instruction": i, "input": f, "output": "0.0"} for i, f in zip(instruction, formulas, strict=True)]
    pairs = read_pairs(write(tmp_path / "a.json", content)).pairs
    done = remove_test_facts(pairs, fold_of(GAP, "TiO2", "ZnO"))
    assert [one.question for one in done.kept] == ["SnO2"] and done.counts == {"expt_gap": 2}


def test_what_is_no_pair_is_rejected_with_its_row_and_cause(tmp_path: Path) -> None:
    bad = [GOOD[0], {"Q": "  ", "A": "x"}, {"Q": "Why?"}, {"Q": "Why?", "A": 7}, "text", {"text": "Why?"}, GOOD[1]]
    found = read_pairs(write(tmp_path / "a.json", bad))
    assert [one.row for one in found.pairs] == ["1", "7"]
    assert [(one.row, one.column, one.cause) for one in found.rejects] == [
        (2, "Q", "empty"),
        (3, "A", "no text"),
        (4, "A", "no text"),
        (5, "", "no object"),
        (6, "", "no keys"),
    ]
    assert found.rows_read == len(found.pairs) + len(found.rejects)


def test_a_broken_line_is_a_reject_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"Q": "One?", "A": "a\u2028b"}\n{"Q": "Tw\n\n{"Q": "Three?", "A": "c"}\n', encoding="utf-8")
    found = read_pairs(path)
    assert [one.answer for one in found.pairs] == ["a\u2028b", "c"]
    assert [(one.row, one.cause) for one in found.rejects] == [(2, "no object")]


@pytest.mark.parametrize(
    ("name", "raw", "says"),
    [
        ("a.csv", b"Q,A", r"\.json or \.jsonl"),
        ("a.json", b'{"Q": "x", "A": "y"}', "a list of objects is needed, and this is dict"),
        ("a.json", b'[{"Q": ', "no JSON"),
        ("a.json", b'[{"Q": "\xff"}]', "not UTF-8 at byte 8"),
        ("a.json.gz", b"not packed", "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_of_pairs_is_refused(tmp_path: Path, name: str, raw: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=says):
        read_pairs(tmp_path / name)


def test_near_duplicates_stand_together() -> None:
    questions = [
        "What is the effect of laser power on the hardness of DLC films?",
        "How are perovskite films grown?",
        "What was the effect of the laser power on hardness of DLC film hardness films?",
        "HOW ARE PEROVSKITE FILMS GROWN",
        "What is the effect of laser power on the hardness of steel?",
    ]
    assert near_duplicates(questions) == [[0, 2], [1, 3], [4]]
    with pytest.raises(ValueError, match="above 0"):
        near_duplicates(questions, 0)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=7).map(" x".join), max_size=14),
    st.sampled_from([0.3, 0.5, 0.7, 0.8, 1.0]),
)
def test_the_index_finds_what_comparing_all_finds(questions: list[str], threshold: float) -> None:
    questions = [f"x{question}" for question in questions]
    sets = [set(normal(question).split()) for question in questions]
    group = {place: {place} for place in range(len(questions))}
    for one, other in itertools.combinations(range(len(questions)), 2):
        if len(sets[one] & sets[other]) / len(sets[one] | sets[other]) >= threshold - 1e-9:
            for place in (joined := group[one] | group[other]):
                group[place] = joined
    assert near_duplicates(questions, threshold) == sorted(
        [list(one) for one in {tuple(sorted(one)) for one in group.values()}]
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), st.integers(0, 3))
def test_no_question_stands_on_both_sides_and_none_is_lost(letters: list[str], seed: int) -> None:
    pairs = [pair(f"Which {letter}{letter} does {letter}?", row=str(row)) for row, letter in enumerate(letters)]
    done = split(pairs, 0.4, seed)
    assert not {one.question for one in done.train} & {one.question for one in done.held_out}
    assert sorted(done.train + done.held_out, key=lambda one: int(one.row)) == pairs
    assert done == split(pairs, 0.4, seed)


def test_the_share_is_held_out_and_a_pair_keeps_its_side_beside_others() -> None:
    pairs = [pair(f"Subject{number} object{number}?") for number in range(1000)]
    done, half = split(pairs, 0.2), split(pairs[::2], 0.2)
    assert 150 < len(done.held_out) < 250 and (done.groups, done.largest) == (1000, 1)
    assert set(half.held_out) <= set(done.held_out) and set(half.train) <= set(done.train)
    assert split(pairs, 0.2, seed=1).held_out != done.held_out
    with pytest.raises(ValueError, match="share"):
        split(pairs, 1.0)


def fold_of(task: Task, *texts: str) -> list[tuple[Task, list[Example]]]:
    kind: Kind = task.representation
    return [(task, [Example(task.id, str(row), parse(text, kind)) for row, text in enumerate(texts)])]


GAP = load("expt_gap")


@pytest.mark.parametrize(
    "text",
    [
        "The band gap of TiO2 is 3.2 eV.",
        "O2Ti has a bandgap.",
        "TiO₂, a semiconductor",
        "Is Ti2O4 insulating?",
        "an energy-gap of (TiO2)-based films",
        "Co-doped TiO$_{2}$ has an optical gap",
        "semiconductors such as TiO_2/SnO2",
        "the band gaps of Ti O2 and others",
        "Titanium(IV) dioxide is a semiconductor.",
        "anatase is a semi-conductor",
        "In mixtures, InAs has a small gap.",
        "a gap of Ga 0.5 In 0.5 As",
        "the gap of In0.5Ga0.5As",
        "the gap of [In0.5Ga0.5]As",
        "indium arsenide has a gap",
        "barium titanate is insulating",
        "Silicon has a band gap.",
        "the band gap of Si",
        "metallic In and its oxide",
    ],
)
def test_a_pair_that_names_a_test_material_and_the_property_goes(text: str) -> None:
    tests = fold_of(GAP, "TiO2", "InAs", "Ga0.5In0.5As", "BaTiO3", "Si", "In", "As", "V", "He", "I", "K")
    done = remove_test_facts([pair("What is known?", text)], tests)
    assert (done.kept, done.counts) == ([], {"expt_gap": 1}), text
    removal = done.removed[0]
    assert removal.key in {one.material.key for one in tests[0][1]}
    assert removal.spelling in removal.reason and removal.word in removal.reason


@pytest.mark.parametrize(
    "text",
    [
        "TiO2 is white.",  # no word of the property
        "The band gap of SnO2 is 3.6 eV.",  # no test material
        "In this work the band gap is 3 V. As before, it falls at 300 K. He and I agree.",
        "The gap is 2.1 V at 5 K.",
        "TiO2N has a gap",
        "They filled the gape with tin dioxide.",
    ],
)
def test_any_other_pair_stays(text: str) -> None:
    given_pair = pair("What is known?", text)
    done = remove_test_facts([given_pair], fold_of(GAP, "TiO2", "In", "As", "V", "He", "I", "K"))
    assert (done.kept, done.removed, done.counts) == ([given_pair], [], {})


def test_question_and_answer_are_looked_at_together_and_each_task_has_its_words() -> None:
    asked = pair("How wide is the gap?", "In ZnO it is 3.3 eV.")
    tests = fold_of(load("glass"), "ZnO") + fold_of(GAP, "ZnO")
    assert remove_test_facts([asked], tests).counts == {"expt_gap": 1}
    assert remove_test_facts([pair("Is ZnO glassy?")], tests).counts == {"glass": 1}


def test_names_and_smiles_are_found() -> None:
    name = GAP.model_copy(update={"representation": "name"})
    done = remove_test_facts([pair("The gap of hkust-1?"), pair("The gap of UiO-66?")], fold_of(name, "HKUST-1", "MIL"))
    assert [one.spelling for one in done.removed] == ["hkust 1"] and len(done.kept) == 1
    done = remove_test_facts([pair("Is OCC soluble?"), pair("Is CO soluble?")], fold_of(load("esol"), "OCC"))
    assert [one.spelling for one in done.removed] == ["OCC"]


METAL = load("expt_is_metal")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is given composition metal? -> CsTbZnTe3", "No, CsTbZnTe3 is not metal."),
        ("Is given composition metal? -> CsTbZnTe3", "Yes, CsTbZnTe3 is metal."),
        ("Given composition, is it metal? -> CsTbZnTe3", "No."),
        ("Is CsTbZnTe3 a metal?", "Yes."),
        ("Is CsTbZnTe3 a metal?", "No."),
        ("Are CsTbZnTe3 and NaTl metals?", "Both are metals."),
        ("What is CsTbZnTe3?", "It is a nonmetal."),
        ("What is CsTbZnTe3?", "It is known as a metal."),
    ],
)
def test_being_a_metal_is_a_property(question: str, answer: str) -> None:
    assert not remove_test_facts([pair(question, answer)], fold_of(METAL, "CsTbZnTe3")).kept


def test_a_metal_in_or_on_a_test_material_is_none_of_its_properties() -> None:
    asked = [pair("How do metal contacts to TiO2 stick?"), pair("Which metal oxides are like TiO2?", "Other metals.")]
    assert remove_test_facts(asked, fold_of(METAL, "TiO2")).kept == asked


SCORED = [task for task in map(load, names()) if task.scored]
SPELT = {"composition": "Ba2 Ti O4", "molecule": "CC(O)CCl", "name": "Hexakis framework HKF-7"}


@pytest.mark.parametrize("task", SCORED, ids=lambda task: task.id)
def test_the_words_of_every_scored_task_are_known(task: Task) -> None:
    """In its own wordings, of which no answer is needed to know what is asked."""
    material = SPELT[task.representation]
    asked = [pair(words.format(material=material, conditions="at 300 K"), "?") for words in task.wordings]
    assert [one.asked for one in remove_test_facts(asked, fold_of(task, material)).kept] == []


@pytest.mark.parametrize(
    ("task", "material", "question"),
    [
        (GAP, "Ag(AuS)2", "Ag(AuS)2"),
        (GAP, "Ag(AuS)2", " Ag Au2 S2 ? "),
        (GAP, "TiO2", "TiO\u2082 ->"),
        (GAP, "ZnO", "Zinc oxide"),
        (GAP, "In", "In"),
        (GAP.model_copy(update={"representation": "name"}), "HKUST-1", "hkust-1:"),
        (load("esol"), "CCO", "OCC"),
        (load("esol"), "CCO", "C(O)C"),
    ],
)
def test_a_question_of_nothing_but_a_test_material_goes_whatever_is_said(
    task: Task, material: str, question: str
) -> None:
    asked = pair(question, "0.0")
    (removal,) = remove_test_facts([asked], fold_of(task, material)).removed
    assert removal.word == "" and removal.reason.startswith("asks of nothing but ") and removal.reason.endswith(task.id)
    told = Pair(question, "0.0", "1", "invented", instruction="Go on.")
    assert not remove_test_facts([told], fold_of(task, material)).kept
    spoken = pair(f"Who makes {question}", "0.0")
    assert remove_test_facts([spoken], fold_of(task, material)).kept == [spoken]


def test_molecules_are_found_by_their_other_names_but_not_by_a_number_in_a_list() -> None:
    esol = load("esol")
    tests = fold_of(esol, "OCC", "CCC")
    ethanol, propane = (example.material.key for example in tests[0][1])
    asked = [pair("Is Ethyl alcohol soluble?"), pair("Is P1 soluble?"), pair("Is methanol soluble?")]
    done = remove_test_facts(asked, tests, {"esol": {ethanol: ("ethyl alcohol",), propane: ("P1",)}})
    assert [(one.spelling, one.key) for one in done.removed] == [("ethyl alcohol", ethanol)]
    assert done.kept == asked[1:]
    assert not remove_test_facts(asked, tests).removed


def test_what_is_computed_of_a_material_does_not_teach_its_computed_labels() -> None:
    asked = pair("What do calculations say of Fe2O3?")
    assert not remove_test_facts([asked], fold_of(GAP, "Fe2O3")).removed
    computed = GAP.model_copy(update={"origin": "computed"})
    assert [one.word for one in remove_test_facts([asked], fold_of(computed, "Fe2O3")).removed] == ["calculations"]
