"""What holds on a CUDA device: the same losses and answers as on a CPU, bf16, exact states, and memory that does not suffice.

Run by `pytest -m gpu tests/gpu` where there is one; `make test` leaves these out.
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_base, tiny_model, tiny_recipe, tiny_task
from tests.unit.test_decoding import full, setting
from tests.unit.test_loop import batches, rows_of

from matdarwin.models.base import BaseModelError, device_and_dtype
from matdarwin.models.decoding import Decoder
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.predictor import Predictor
from matdarwin.training.errors import TrainingError
from matdarwin.training.loop import Loop, Step
from matdarwin.training.options import Optimising
from matdarwin.training.run import train
from matdarwin.training.words import UsedWords

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CUDA = torch.device("cuda")
STEPS = 20


def losses_of(device: str, *, autocast: Any = None, words: bool = False, **options: Any) -> tuple[list[Step], Any]:
    """Train a tiny model on one device."""
    model = tiny_model(64, seed=1).to(device)
    apart = UsedWords(model, list(range(64))) if words else None
    loop = Loop(model, Optimising(learning_rate=1e-3, **options), STEPS, autocast=autocast, words=apart)
    rows = rows_of(40, seed=2)
    return [loop.step(batch) for batch in itertools.islice(batches(rows, 8, 0), STEPS)], model


@pytest.mark.parametrize("options", [{}, {"checkpointing": True}, {"micro_batch": 3}, {"average": 0.4}])
def test_losses_are_those_of_the_cpu(options: dict[str, Any]) -> None:
    (ours, model), (known, other) = losses_of("cuda", **options), losses_of("cpu", **options)
    assert [s.loss for s in ours] == pytest.approx([s.loss for s in known], rel=1e-4)
    assert [s.gradient_norm for s in ours] == pytest.approx([s.gradient_norm for s in known], rel=1e-3)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(one.cpu(), two, atol=1e-3), name


def test_steps_that_are_recorded_are_those_that_are_not() -> None:
    rows = list(itertools.islice(batches(rows_of(40, seed=2), 8, 0), STEPS))

    def trained(*, recorded: bool) -> tuple[list[float], int]:
        model = tiny_model(64, seed=1).to(CUDA)
        loop = Loop(model, Optimising(learning_rate=1e-3), STEPS, words=UsedWords(model, range(64)))
        assert loop._graphs is not None
        graphs = loop._graphs
        if not recorded:
            loop._graphs = None
        return [loop.step(batch).loss for batch in rows], len(graphs._recordings)

    (ours, shapes), (known, none) = trained(recorded=True), trained(recorded=False)
    assert ours == pytest.approx(known, rel=1e-4) and shapes >= 1 and none == 0


def test_a_recorded_loss_that_is_no_number_stops_before_the_weights_are_spoiled() -> None:
    model = tiny_model(64, seed=1).to(CUDA)
    loop = Loop(model, Optimising(learning_rate=1e-3), STEPS)
    rows = rows_of(8, seed=2)
    for _ in range(3):
        loop.step(rows)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    before = model.lm_head.weight.clone()
    with pytest.raises(TrainingError, match="the loss is nan at step 4"):
        loop.step(rows)
    assert torch.equal(model.lm_head.weight, before)


def test_words_trained_apart_are_those_of_the_cpu() -> None:
    (ours, _), (known, _) = losses_of("cuda", words=True), losses_of("cpu", words=True)
    assert [s.loss for s in ours] == pytest.approx([s.loss for s in known], rel=1e-4)


def test_bf16_keeps_weights_in_fp32_and_is_near() -> None:
    (ours, model), (known, _) = losses_of("cuda", autocast=torch.bfloat16), losses_of("cuda")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert [s.loss for s in ours] == pytest.approx([s.loss for s in known], rel=0.03)
    assert [s.loss for s in ours] != [s.loss for s in known], "bf16 was not used"


def test_auto_is_bf16_for_training_and_fp32_for_asking() -> None:
    assert device_and_dtype("auto", training=True) == (CUDA, torch.bfloat16)
    assert device_and_dtype("auto", training=False) == (CUDA, torch.float32)
    with pytest.raises(BaseModelError, match="int8"):
        device_and_dtype("int8", training=False)


def test_a_state_goes_on_as_it_would_have() -> None:
    rows = list(itertools.islice(batches(rows_of(40, seed=2), 8, 0), STEPS))
    first = tiny_model(64, seed=1).to(CUDA)
    loop = Loop(first, Optimising(learning_rate=1e-3, average=0.5), STEPS)
    for batch in rows[:12]:
        loop.step(batch)
    tensors, numbers = loop.state()
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    whole = [loop.step(batch).loss for batch in rows[12:]]
    second = Loop(tiny_model(64, seed=9).to(CUDA), Optimising(learning_rate=1e-3, average=0.5), STEPS)
    second.restore({name: tensor.cpu() for name, tensor in kept.items()}, numbers)
    # Sums of gradients are not in one order on a GPU, so equal but for rounding.
    assert [second.step(batch).loss for batch in rows[12:]] == pytest.approx(whole, rel=1e-4)
    assert "random/cuda" in kept


def test_too_little_memory_is_said_with_rows_and_a_remedy() -> None:
    model = tiny_model(50_000, seed=1).to(CUDA)
    loop = Loop(model, Optimising(), 1)
    rows = rows_of(40_000, seed=2)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**31 / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(TrainingError, match=r"does not suffice at step 1 for 40000 rows .*micro_batch to 20000"):
            loop.step(rows)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("name", ["low", "signed", "shared"])
def test_answers_are_those_of_the_cpu_and_the_same_in_any_company(name: str) -> None:
    known = setting(name)
    prompts, exactly = known.prompts(), {"prune": 0.0, "sure_end": 1.0}
    decoder = Decoder(copy.deepcopy(known.model).to(CUDA), **exactly)

    def asked(questions: list[list[int]]) -> list[AnswerDistribution]:
        found = decoder.distributions(questions, known.tree, known.values, known.labels)
        return [one for one in found if one is not None]

    together, apart = asked(prompts), [asked([prompt])[0] for prompt in prompts]
    for want, one, other in zip(known.decode(prompts, **exactly), together, apart, strict=True):
        for got in (one, other):
            assert full(got, known) == pytest.approx(full(want, known), abs=1e-5)
            assert got.outside == pytest.approx(want.outside, abs=1e-5)


def test_a_recipe_is_trained_calibrated_and_asked_on_it(home: Path) -> None:
    task = tiny_task(home)
    recipe = tiny_recipe(tiny_base(home / "base"), [task], optimising={"epochs": 3}, dtype="auto", fold=0)
    checkpoint = train(recipe, tasks=[task])
    assert checkpoint.card.training["dtype"] == "bfloat16"
    assert checkpoint.card.machine["gpu"] == torch.cuda.get_device_name()
    predictor = Predictor.of(checkpoint)
    (found,) = predictor.predict(["GaN"], task.id)
    assert isinstance(found.value, float) and found.lower is not None and found.lower <= found.value
    half = Predictor.of(checkpoint, dtype="bf16").predict(["GaN"], task.id)
    assert half[0].status == "ok" and any("bfloat16" in note for note in half[0].notes)
