"""Materials in, predictions out: every row answered in its place, the same whatever stands beside it."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tiny import at_home, tiny_base, tiny_checkpoint, tiny_rows, tiny_task

from matdarwin.language.writing import Writing
from matdarwin.materials import parse
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.models.distribution import average
from matdarwin.models.export import describe
from matdarwin.prediction.predictor import Predictor
from matdarwin.tasks.schema import Condition, Example

GOOD = [
    "GaN",
    "Ga2 O3",
    "CdSe",
    "Cu2ZnSnS4",
    "Fe",
    "Ga0.5In0.5As",
    "Mg(AlO2)2",
    "AgCuFeNiZn",
    "Al2O3",
    "InP",
    "UO2",
    "SNiZn",
]
BAD = ["Xx", "", "Fe0O3", "not a material", "D2O", "Ga(", "NaN", "💎"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    home = tmp_path_factory.mktemp("predictor")
    # Scattered about what can be learnt, so that distributions and intervals have a width.
    scattered = [
        (formula, f"{float(target) + number % 7 / 10:.1f}") for number, (formula, target) in enumerate(tiny_rows(300))
    ]
    tasks = [
        tiny_task(home, rows=scattered),
        tiny_task(home, kind="classification", rows=tiny_rows(300, kind="classification")),
    ]
    return tiny_checkpoint(home, tasks=tasks, base=tiny_base(home / "base", scale=0.05), optimising={"epochs": 5})


@pytest.fixture(scope="module")
def predictor(checkpoint: Checkpoint) -> Predictor:
    return Predictor.of(checkpoint)


@pytest.fixture(scope="module")
def several(checkpoint: Checkpoint) -> Predictor:
    return Predictor.of(checkpoint, views=3)


def same(one: Any, other: Any) -> None:
    """Two predictions agree: values equal, probabilities within 1e-4 (fp32)."""
    assert (one.input, one.material, one.value, one.status, one.reason, one.notes) == (
        other.input, other.material, other.value, other.status, other.reason, other.notes,
    )  # fmt: skip
    if one.lower is not None:
        # Ends are rounded outward to a tenth; a hair may move one by a step.
        assert (one.lower, one.upper) == pytest.approx((other.lower, other.upper), abs=0.1001)
    if one.distribution is not None:
        a, b = one.distribution, other.distribution
        if a.labels:
            assert a.probabilities == pytest.approx(b.probabilities, abs=1e-4)
        else:
            both = sorted({*a.values.tolist(), *b.values.tolist()})
            pa, pb = (dict(zip(d.values.tolist(), d.probabilities.tolist(), strict=True)) for d in (a, b))
            assert [pa.get(v, 0.0) for v in both] == pytest.approx([pb.get(v, 0.0) for v in both], abs=1e-4)


# -- rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["tiny_gap", "tiny_metal"])
def test_good_and_bad_rows_keep_order_and_count(predictor: Predictor, task: str) -> None:
    rows = [*GOOD, *BAD] * 3
    random.Random(0).shuffle(rows)
    made = predictor.predict(rows, task)
    assert [p.input for p in made] == rows
    for given_text, prediction in zip(rows, made, strict=True):
        if given_text in BAD:
            assert prediction.status == "invalid" and prediction.value is None and prediction.material is None
            assert prediction.reason and prediction.lower is None and prediction.distribution is None
        else:
            assert prediction.status == "ok" and prediction.value is not None
            assert prediction.material == parse(given_text, "composition").text
        assert prediction.task == task and prediction.model == predictor.name
        assert prediction.unit == ("eV" if task == "tiny_gap" else None)


def test_the_reason_names_token_and_position(predictor: Predictor) -> None:
    (bad,) = predictor.predict(["GaXxN"], "tiny_gap")
    assert "`Xx`" in (bad.reason or "") and "position 2" in (bad.reason or "")


LONG = "".join(
    f"{symbol}0.{'123456789' * 3}"
    for symbol in [
        "Ga",
        "In",
        "Al",
        "Zn",
        "Cd",
        "Mg",
        "Cu",
        "Ag",
        "Fe",
        "Ni",
        "As",
        "P",
        "O",
        "S",
        "N",
        "Se",
        "Te",
        "F",
    ]
)


def test_a_question_that_is_too_long_is_said_to_be_so_in_its_row(predictor: Predictor) -> None:
    """The model has no places for it, and memory grows with the square of its length."""
    before, long, after = predictor.predict(["GaN", LONG, "CdSe"], "tiny_gap")
    assert long.status == "invalid" and long.value is None and long.input == LONG
    assert re.fullmatch(r"its question has \d+ tokens, and at most 480 are read", str(long.reason))
    assert [before.value, after.value] == [one.value for one in predictor.predict(["GaN", "CdSe"], "tiny_gap")]


def test_long_questions_are_asked_few_at_a_time(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    from matdarwin.models import decoding
    from matdarwin.prediction import predictor as module

    given = [*GOOD, *(LONG[:90] + symbol for symbol in ("O2", "S2", "N2"))]
    expected = Predictor.of(checkpoint).predict(given, "tiny_gap")
    # From 16 tokens on: none of a batch of long ones is kept for the next.
    monkeypatch.setattr(module, "USUAL", 16)
    monkeypatch.setattr(decoding, "USUAL", 16)
    asked = Predictor.of(checkpoint)
    sizes: list[int] = []
    real = asked._decoder.distributions
    monkeypatch.setattr(
        asked._decoder, "distributions", lambda ids, *a, **k: sizes.append(len(ids)) or real(ids, *a, **k)
    )
    had: list[int] = []
    found = asked.predict(given, "tiny_gap", progress=lambda done, total: had.append(done))
    for one, other in zip(found, expected, strict=True):
        assert (one.input, one.value, one.status) == (other.input, other.value, other.status)
        assert (one.lower, one.upper) == pytest.approx((other.lower, other.upper), abs=1e-6)
    assert len(sizes) > 2 and sizes[-1] == 1 and sum(sizes) == len(given) and had[-1] == len(given)


@pytest.mark.parametrize("rows", [[], ["Xx"], ["Xx", "Xx"]])
def test_nothing_readable_is_no_error(predictor: Predictor, rows: list[str]) -> None:
    assert [p.status for p in predictor.predict(rows, "tiny_gap")] == ["invalid"] * len(rows)


@pytest.mark.parametrize("thing", [None, 3.5, 7, b"GaN", ["GaN"], object()])
def test_what_is_no_material_at_all_is_an_invalid_row(predictor: Predictor, thing: object) -> None:
    first, middle, last = predictor.predict(["GaN", thing, "InP"], "tiny_gap")
    assert middle.status == "invalid" and middle.reason and middle.input == str(thing)
    assert (first.status, last.status) == ("ok", "ok")


def test_compositions_and_structures_are_what_their_formulas_are(predictor: Predictor) -> None:
    from pymatgen.core import Composition, Lattice, Structure

    zincblende = Structure.from_spacegroup("F-43m", Lattice.cubic(4.5), ["Ga", "N"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    texts = predictor.predict(["GaN", "Ga2O3"], "tiny_gap")
    things = predictor.predict([zincblende, Composition("Ga2O3")], "tiny_gap")
    assert [p.material for p in things] == [p.material for p in texts]
    assert [p.value for p in things] == [p.value for p in texts]


def test_spellings_of_one_material_have_one_answer(predictor: Predictor, several: Predictor) -> None:
    for asked in (predictor, several):
        one, two, three = asked.predict(["Cu2ZnSnS4", "S4SnZnCu2", "Cu 2 Zn Sn S 4"], "tiny_gap")
        assert one.material == two.material == three.material and one.value == two.value == three.value
        assert one.distribution is not None and two.distribution is not None
        assert np.array_equal(one.distribution.probabilities, two.distribution.probabilities) or (
            one.distribution.probabilities == pytest.approx(two.distribution.probabilities, abs=1e-4)
        )


def test_a_wrong_question_is_refused_whole(predictor: Predictor) -> None:
    with pytest.raises(KeyError):
        predictor.predict(["GaN"], "expt_gap")
    for coverage in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="coverage lies between 0 and 1"):
            predictor.predict(["GaN"], "tiny_gap", coverage=coverage)
    with pytest.raises(ValueError, match="no condition 'temperature'"):
        predictor.predict(["Xx"], "tiny_gap", conditions={"temperature": 300.0})


# -- what they say -------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.999])
def test_an_interval_holds_its_value_and_lies_in_the_bounds(predictor: Predictor, coverage: float) -> None:
    for p in predictor.predict(GOOD, "tiny_gap", coverage=coverage):
        assert p.lower is not None and p.upper is not None and isinstance(p.value, float)
        assert 0 <= p.lower <= p.value <= p.upper <= 5 and p.coverage == coverage
        assert p.distribution is not None and p.value == p.distribution.median()


def test_wider_coverage_wider_intervals(predictor: Predictor) -> None:
    narrow, wide = (predictor.predict(GOOD, "tiny_gap", coverage=c) for c in (0.5, 0.95))
    assert all(w.lower <= n.lower and n.upper <= w.upper for n, w in zip(narrow, wide, strict=True))  # type: ignore[operator]
    assert any(w.upper - w.lower > n.upper - n.lower for n, w in zip(narrow, wide, strict=True))  # type: ignore[operator]


def test_mean_for_squared_errors(checkpoint: Checkpoint) -> None:
    squared = Predictor.of(checkpoint)
    card = squared.tasks["tiny_gap"]
    squared.tasks["tiny_gap"] = card.model_copy(update={"task": card.task.model_copy(update={"metric": "rmse"})})
    for p in squared.predict(GOOD, "tiny_gap", coverage=0.1):
        assert p.distribution is not None and p.value == p.distribution.mean()
        assert p.lower <= p.value <= p.upper  # type: ignore[operator]


def test_without_calibration_the_status_says_so(checkpoint: Checkpoint) -> None:
    bare = Predictor.of(checkpoint)
    bare.calibrations = {}
    (p,) = bare.predict(["GaN"], "tiny_gap")
    assert p.status == "uncalibrated" and p.value is not None and p.lower is None and p.coverage is None and p.reason


def test_balanced_classes_are_chosen_in_proportion_to_their_shares(checkpoint: Checkpoint) -> None:
    skewed = Predictor.of(checkpoint)
    card = skewed.tasks["tiny_metal"]

    def labels(metric: str, shares: dict[str, float]) -> list[Any]:
        task = card.task.model_copy(update={"metric": metric})
        skewed.tasks["tiny_metal"] = card.model_copy(update={"task": task, "shares": shares})
        return [p.value for p in skewed.predict(GOOD, "tiny_metal")]

    rare = labels("balanced_accuracy", {"metal": 1e-6, "not metal": 1 - 1e-6})
    assert set(rare) == {"metal"}
    assert set(labels("balanced_accuracy", {"metal": 1 - 1e-6, "not metal": 1e-6})) == {"not metal"}
    plain = labels("accuracy", {"metal": 1e-6, "not metal": 1 - 1e-6})
    assert plain == labels("balanced_accuracy", {"metal": 0.5, "not metal": 0.5})
    never = labels("balanced_accuracy", {"metal": 0.0, "not metal": 1.0})
    assert set(never) == {"not metal"}, "a class that training never showed is no answer"


def test_notes_name_elements_never_or_hardly_seen(checkpoint: Checkpoint) -> None:
    asked = Predictor.of(checkpoint)
    card = asked.tasks["tiny_gap"]
    asked.tasks["tiny_gap"] = card.model_copy(update={"elements": {**card.elements, "In": 2}})
    known, unseen, few = asked.predict(["GaN", "UPuO4", "InN"], "tiny_gap")
    assert not any("never saw" in n or "fewer than" in n for n in known.notes)
    assert any(
        n == "outside what the model was trained on: never saw U, Pu" or n.endswith("never saw Pu, U")
        for n in unseen.notes
    )
    assert "saw In in fewer than 3 training materials" in few.notes
    assert unseen.value is not None, "noted, not refused"


def test_a_note_on_large_spread_of_repeated_measurements(checkpoint: Checkpoint) -> None:
    asked = Predictor.of(checkpoint)
    card = asked.tasks["tiny_gap"]
    asked.tasks["tiny_gap"] = card.model_copy(update={"spreads": {parse("GaN", "composition").key: 2.0}})
    one, other = asked.predict(["GaN", "CdTe"], "tiny_gap")
    assert "measurements of this material differ by up to 2 eV" in one.notes
    assert not any("differ" in n for n in other.notes), "it is another material whose measurements differ"
    asked.tasks["tiny_gap"] = card.model_copy(update={"spreads": {parse("GaN", "composition").key: 0.01}})
    (p,) = asked.predict(["GaN"], "tiny_gap")
    assert not any("differ" in n for n in p.notes)


def test_a_model_of_nonsense_is_unread_with_a_reason(checkpoint: Checkpoint) -> None:
    import torch

    broken = Predictor.of(checkpoint)
    with torch.no_grad():
        broken._decoder._model.model.norm.weight.fill_(float("nan"))
    first, bad, last = broken.predict(["GaN", "Xx", "InP"], "tiny_gap")
    assert [p.status for p in (first, bad, last)] == ["unread", "invalid", "unread"]
    assert first.value is None and first.reason and first.material == "Ga N"


# -- the same whatever the batch -----------------------------------------------------------------------


@given(
    rows=st.lists(st.sampled_from([*GOOD, *BAD]), min_size=1, max_size=14),
    size=st.integers(1, 9),
    task=st.sampled_from(["tiny_gap", "tiny_metal"]),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_answer_does_not_depend_on_batch_or_company(
    predictor: Predictor, rows: list[str], size: int, task: str
) -> None:
    before = predictor.batch_size
    try:
        predictor.batch_size = size
        together = predictor.predict(rows, task)
        predictor.batch_size = 64
        alone = [predictor.predict([row], task)[0] for row in dict.fromkeys(rows)]
    finally:
        predictor.batch_size = before
    by_row = {p.input: p for p in alone}
    for prediction in together:
        same(prediction, by_row[prediction.input])


@pytest.mark.parametrize("task", ["tiny_gap", "tiny_metal"])
def test_views_are_averaged_as_by_hand(predictor: Predictor, several: Predictor, task: str) -> None:
    for formula, answer in zip(GOOD, several.predict(GOOD, task), strict=True):
        material = parse(formula, "composition")
        card = predictor.tasks[task]
        texts = Writing("permuted").views(material, 3)
        # Each view asked as a question of its own.
        parts = []
        for text in texts:
            prompt = predictor._render(card.task, Example(task=task, row="0", material=material), text, None)
            tree, values = predictor._tree(card.task)
            parts += predictor._decoder.distributions(
                predictor._encoder.prompts([prompt]), tree, values, card.task.labels
            )
        by_hand = average([p for p in parts if p is not None])
        got = answer.distribution
        assert got is not None and len(parts) == len(texts)
        if got.labels:
            assert got.probabilities == pytest.approx(by_hand.probabilities, abs=1e-4)
        else:
            assert got.mean() == pytest.approx(by_hand.mean(), abs=1e-3) and got.median() == by_hand.median()
        assert got.outside == pytest.approx(by_hand.outside, abs=1e-4)


def test_views_do_not_depend_on_the_batch(several: Predictor) -> None:
    together = several.predict([*GOOD, *GOOD[::-1]], "tiny_gap")
    for first, second, formula in zip(together[: len(GOOD)], together[: len(GOOD) - 1 : -1], GOOD, strict=True):
        same(first, second)
        same(first, several.predict([formula], "tiny_gap")[0])


def test_progress_counts_examples_up_to_all(several: Predictor) -> None:
    told: list[tuple[int, int]] = []
    several.batch_size = 5
    several.predict([*GOOD, "Xx"], "tiny_gap", progress=lambda done, total: told.append((done, total)))
    several.batch_size = 32
    assert [t for _, t in told] == [len(GOOD)] * len(told)
    assert [d for d, _ in told] == sorted(d for d, _ in told) and told[-1] == (len(GOOD), len(GOOD))


def test_conditions_reach_the_prompt(checkpoint: Checkpoint) -> None:
    asked = Predictor.of(checkpoint)
    card = asked.tasks["tiny_gap"]
    warm = card.task.model_copy(update={"conditions": (Condition(name="temperature", unit="K"),)})
    asked.tasks["tiny_gap"] = card.model_copy(update={"task": warm})
    example = Example(task="tiny_gap", row="0", material=parse("GaN", "composition"), conditions={"temperature": 300.0})
    assert asked.prompt(warm, example) == "at 300 K band gap of Ga N:"
    (p,) = asked.predict(["GaN"], "tiny_gap", conditions={"temperature": 300.0})
    assert p.status == "ok"
    with pytest.raises(ValueError, match="needs the condition 'temperature'"):
        asked.predict(["GaN"], "tiny_gap")


def test_the_checkpoint_says_how_it_is_asked(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with at_home(tmp_path):
        asked = Predictor.of(Checkpoint.open(checkpoint.folder))
    assert (asked.views, asked.batch_size, asked.name) == (1, 32, checkpoint.name)
    assert Predictor.of(checkpoint, views=4, batch_size=2).views == 4
    one, other = (Predictor.of(checkpoint).predict(GOOD, "tiny_gap") for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert a.to_dict() == b.to_dict(), "the same twice, to the last bit"


def test_what_was_taught_per_cent_is_asked_in_per_cent_and_says_so(tmp_path: Path) -> None:
    made = tiny_checkpoint(tmp_path, prompting={"amounts": "percent", "order": "permuted"})
    assert made.card.recipe["prompting"]["amounts"] == "percent"
    asked = Predictor.of(made, views=2)
    card = asked.tasks["tiny_gap"]
    material = parse("Ag2GeS3", "composition")
    example = Example(task="tiny_gap", row="0", material=material)
    assert asked.prompt(card.task, example) == "band gap of Ag33.33 Ge16.67 S50:"
    (said,) = asked.predict(["Ag2GeS3"], "tiny_gap")
    assert said.material == material.text, "people are shown the formula"
    by_hand = average(
        [
            answer
            for text in Writing("permuted", "percent").views(material, 2)
            for answer in asked._decoder.distributions(
                asked._encoder.prompts([f"band gap of {text}:"]), *asked._tree(card.task), ()
            )
            if answer is not None
        ]
    )
    assert said.distribution is not None and said.distribution.mean() == pytest.approx(by_hand.mean(), abs=1e-3)
    told = describe(made, made.tokenizer())["prompting"]["materials"]["composition"]
    assert "per cent" in told["text"] and told["example"] == {"given": "CdCu2SnS4", "written": "Cd12.5 Cu25 Sn12.5 S50"}
