"""Compiled layers: the same steps within rounding, gone on with bit for bit, and refused where they cannot be."""

from __future__ import annotations

import copy
import shutil
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.tiny import tiny_model
from tests.unit.test_loop import batches, rows_of, rows_of_tasks

from matdarwin.language.prompts import Encoded
from matdarwin.training import compiling
from matdarwin.training.batches import collate
from matdarwin.training.errors import TrainingError
from matdarwin.training.loop import Loop, Step
from matdarwin.training.objective import AnswerLoss
from matdarwin.training.options import Optimising

pytestmark = pytest.mark.slow

STEPS = 5

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))),
    reason="this machine has no C++ compiler, which compiled layers take",
)


def loop_of(*, compile: bool, model: Any | None = None) -> Loop:
    return Loop(model or tiny_model(64), Optimising(learning_rate=1e-3, compile=compile), STEPS)


def run(loop: Loop, *, start: int = 0, stop: int = STEPS) -> list[Step]:
    return [loop.step(rows) for rows in islice(batches(rows_of(30), 7, seed=0), start, stop)]


def short_model() -> Any:
    """One layer alone: half the time in the compiler."""
    model = tiny_model(64)
    del model.model.layers[1:]
    return model


@pytest.fixture
def unlowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are taken as in earnest, and run without a compiler of C++, which takes a minute."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@needs_compiler
def test_steps_are_the_same_within_rounding_and_go_on_bit_for_bit() -> None:
    torch._dynamo.reset()
    model = short_model()
    names, forward = set(model.state_dict()), type(model.model.layers[0]).forward
    compiled, plain = loop_of(compile=True, model=model), run(loop_of(compile=False, model=short_model()))
    steps = run(compiled, stop=2)
    state = compiled.state()
    kept = {name: tensor.clone() for name, tensor in state[0].items()}, state[1]
    steps += run(compiled, start=2)
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in plain], rel=1e-4)
    assert [step.gradient_norm for step in steps] == pytest.approx([step.gradient_norm for step in plain], rel=1e-3)
    # Nothing is left behind on the model, which is then asked and stored as it is.
    assert set(model.state_dict()) == names and model.model.layers[0].forward.__func__ is forward
    torch._dynamo.reset()
    again = loop_of(compile=True, model=short_model())
    again.restore(*kept)
    assert run(again, start=2) == steps[2:]


def test_all_layers_are_one_function(unlowered: None) -> None:
    from torch._dynamo.utils import counters

    def tall_model() -> Any:
        model = tiny_model(64)
        for number in (2, 3):
            model.model.layers.append(copy.deepcopy(model.model.layers[1]))
            model.model.layers[number].self_attn.layer_idx = number
        return model

    counters.clear()
    plain, found = (run(loop_of(compile=on, model=tall_model())) for on in (False, True))
    assert [step.loss for step in found] == pytest.approx([step.loss for step in plain], rel=1e-4)
    # One of the first layer, and one in which its number is left open.
    assert 1 <= counters["stats"]["unique_graphs"] <= 2 < len(tall_model().model.layers)


def test_low_rank_layers_are_compiled_too(unlowered: None) -> None:
    from peft import LoraConfig, get_peft_model

    def lower() -> Any:
        torch.manual_seed(0)
        return get_peft_model(short_model(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))

    plain, found = (run(loop_of(compile=on, model=lower())) for on in (False, True))
    assert [step.loss for step in found] == pytest.approx([step.loss for step in plain], rel=1e-4)


def kinds_of_batches() -> list[list[Encoded]]:
    """Without a prefix, with one of all rows, with several."""
    return [
        [Encoded((n, 40 + n), (50, 1)) for n in range(5, 9)],
        rows_of(7),
        rows_of_tasks(0),
        rows_of_tasks(1)[:9],
        [*rows_of(4, prefix=8), Encoded((9, 50, 51), (7, 1))],
    ]


def test_more_kinds_of_batches_than_may_be_compiled(unlowered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_VARIANTS", 1)
    loop = loop_of(compile=True, model=short_model())
    first, *others = kinds_of_batches()
    loop.step(first)
    with pytest.raises(TrainingError, match=r"in more than 1 shapes.*LlamaModel.*Leave the key out"):
        for rows in others:
            loop.step(rows)


def test_batches_of_every_kind_are_compiled(unlowered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short rows and long ones too: each kind is compiled for itself."""
    kinds = kinds_of_batches()
    heads = [collate(rows, torch.device("cpu"), share="groups").heads for rows in kinds]
    assert [None if found is None else (len(found.places), found.of is None) for found in heads] == [
        None, (1, True), (3, False), (3, False), (1, False),
    ]  # fmt: skip

    def run_kinds(loop: Loop) -> list[Step]:
        made = []
        for most in (1 << 22, 0, 1 << 22):
            monkeypatch.setattr("matdarwin.training.attention._SCORES", most)
            made += [loop.step(rows) for rows in kinds]
        return made

    plain, found = (run_kinds(loop_of(compile=on, model=short_model())) for on in (False, True))
    assert [step.loss for step in found] == pytest.approx([step.loss for step in plain], rel=1e-4)


def test_without_a_compiler_the_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()
    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    model = short_model()
    with (
        fresh_cache(),
        pytest.raises(TrainingError, match=r"layers of LlamaModel cannot be compiled .* takes a C\+\+ compiler"),
    ):
        run(loop_of(compile=True, model=model))
    assert model.model.layers[0].forward.__func__ is type(model.model.layers[0]).forward


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(TrainingError, match="those of type gpt2 cannot"):
        AnswerLoss(other, compile=True)
    with pytest.raises(ValidationError, match="compile keeps activations"):
        Optimising(compile=True, checkpointing=True)
    monkeypatch.setattr("matdarwin.training.ranks.Ranks.sharded", True)
    with pytest.raises(TrainingError, match="not with sharded weights"):
        loop_of(compile=True)
