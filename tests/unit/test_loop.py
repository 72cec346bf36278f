"""The training loop: the right loss, each row once, the same for the same seed."""

from __future__ import annotations

import copy
import itertools
import math
import random
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.tiny import tiny_model

from matdarwin.language.prompts import Encoded
from matdarwin.training.batches import _WORTH, Batch, _best_groups, _rung, collate, padded, prefix_groups, shared_prefix
from matdarwin.training.errors import TrainingError
from matdarwin.training.graphs import Graphs
from matdarwin.training.loop import Loop, Step
from matdarwin.training.objective import AnswerLoss
from matdarwin.training.options import Optimising
from matdarwin.training.packing import can_pack
from matdarwin.training.schedule import learning_rate, total_steps
from matdarwin.training.words import UsedWords

CPU = torch.device("cpu")


def rows_of(count: int, *, seed: int = 0, prefix: int = 3, longest: int = 9) -> list[Encoded]:
    """Rows of unequal length that begin alike for `prefix` tokens."""
    rng = random.Random(seed)
    shared = tuple(range(10, 10 + prefix))
    return [
        Encoded(
            shared + tuple(rng.randrange(20, 60) for _ in range(rng.randint(1, longest))),
            (*(rng.randrange(20, 60) for _ in range(rng.randint(1, 4))), 1),
        )
        for _ in range(count)
    ]


def naive_loss(model: Any, rows: list[Encoded]) -> Any:
    """Each row apart, over the whole vocabulary, answers and terminators alone."""
    total, tokens = torch.zeros(()), 0
    for row in rows:
        whole = torch.tensor([[*row.prompt, *row.answer]])
        logp = torch.log_softmax(model(whole, use_cache=False).logits[0], dim=-1)
        for place, token in enumerate(row.answer):
            total = total - logp[len(row.prompt) - 1 + place, token]
            tokens += 1
    return total / tokens


# -- the schedule --------------------------------------------------------------------------------------


def test_rate_rises_to_its_peak_and_falls_to_zero_as_half_a_cosine() -> None:
    options = Optimising(learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(step, 100, options) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (k + 1) for k in range(10)])
    assert rates[10] == 2.0 and max(rates) == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert rates[32] == pytest.approx(1 + math.cos(math.pi * 22 / 90))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001


@given(st.integers(1, 300), st.floats(0, 0.99))
def test_every_rate_lies_above_zero_and_at_most_at_the_peak(total: int, warmup: float) -> None:
    options = Optimising(learning_rate=1.0, warmup=warmup)
    assert all(0 < learning_rate(step, total, options) <= 1 for step in range(total))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 3}, 12),
        ({"epochs": 2, "minimum_steps": 7}, 8),
        ({"epochs": 2, "minimum_steps": 9}, 12),
        ({"epochs": 6, "minimum_steps": 20}, 24),
        ({"steps": 5}, 5),
        ({"examples": 15}, 6),
        ({"examples": 1}, 1),
    ],
)
def test_length_of_a_training(options: dict[str, int], expected: int) -> None:
    """Two tasks with 20 rows together, in 4 steps an epoch."""
    assert total_steps(Optimising(**options), size=20, steps=4, sources=2) == expected


def test_the_rate_can_end_above_zero() -> None:
    options = Optimising(learning_rate=2.0, warmup=0.1, final_rate=0.25)
    assert learning_rate(10, 100, options) == 2.0
    assert learning_rate(99, 100, options) == pytest.approx(0.5, abs=0.01)


def batches(rows: list[Encoded], size: int, seed: int) -> Iterator[list[Encoded]]:
    """All rows in batches, shuffled anew in each epoch, without end."""
    rng = random.Random(seed)
    while True:
        order = rng.sample(rows, len(rows))
        yield from (order[start : start + size] for start in range(0, len(order), size))


def answer_loss(model: Any, batch: Batch, words: UsedWords | None = None, **options: Any) -> Any:
    """Mean loss of a batch's judged positions."""
    return AnswerLoss(model, words, **options)(batch) / len(batch.judged)


# -- the loss ------------------------------------------------------------------------------------------


def test_collate_by_hand() -> None:
    batch = collate([Encoded((5, 6, 7), (8, 1)), Encoded((5, 6, 9, 10), (11, 12, 1))], CPU)
    assert batch.ids.tolist() == [5, 6, 7, 8, 9, 10, 11, 12] and batch.prefix == 2
    assert batch.places.tolist() == [[2, 3, 0, 0], [4, 5, 6, 7]] and batch.back.tolist() == [0, 1, 4, 5, 6, 7]
    assert batch.judged.tolist() == [2, 3, 5, 6, 7] and batch.targets.tolist() == [8, 1, 11, 12, 1]
    assert batch.tokens == 4 + 6


def test_the_last_token_of_a_prompt_is_never_shared() -> None:
    batch = collate([Encoded((5, 6), (8, 1)), Encoded((5, 6), (9, 1))], CPU)
    assert batch.prefix == 1 and batch.ids.tolist() == [5, 6, 8, 6, 9]
    assert collate([Encoded((5,), (8, 1))], CPU).prefix == 0


def test_rows_of_two_prefixes_by_hand() -> None:
    """Rows 0 and 2 begin with five tokens, rows 1 and 4 with six; row 3 is alone."""
    first, second = (2, 3, 4, 5, 6), (2, 8, 9, 10, 11, 12)
    rows = [
        Encoded((*first, 20), (1,)), Encoded((*second, 21), (22, 1)), Encoded((*first, 23, 24), (1,)),
        Encoded((30, 31), (1,)), Encoded((*second, 25), (1,)),
    ]  # fmt: skip
    batch = collate(rows, CPU, share="groups")
    assert batch.ids.tolist() == [*first, *second, 20, 21, 22, 23, 24, 30, 31, 25] and batch.prefix == 11
    assert batch.places.tolist() == [[11, 0], [12, 13], [14, 15], [16, 17], [18, 0]]
    assert batch.back.tolist() == [0, 2, 3, 4, 5, 6, 7, 8]
    assert batch.judged.tolist() == [11, 12, 13, 15, 17, 18] and batch.targets.tolist() == [1, 22, 1, 1, 1, 1]
    assert batch.tokens == 6 + 8 + 7 + 2 + 7
    heads = batch.heads
    assert heads is not None and heads.of is not None
    assert heads.places.tolist() == [[0, 1, 2, 3, 4, 0], [5, 6, 7, 8, 9, 10]]
    assert heads.back.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert heads.of.tolist() == [0, 1, 0, 0, 1] and heads.starts.tolist() == [5, 6, 5, 0, 6]


def test_one_prefix_of_all_is_one_whichever_may_be_shared() -> None:
    rows = rows_of(7, prefix=6)
    alone, grouped = collate(rows, CPU), collate(rows, CPU, share="groups")
    for batch in (alone, grouped):
        assert batch.heads is not None and batch.heads.of is None and batch.prefix == 6
    assert torch.equal(grouped.ids, alone.ids) and torch.equal(grouped.places, alone.places)
    apart = collate(rows, CPU, share="none")
    assert apart.prefix == 0 and apart.heads is None


def test_few_rows_that_begin_alike_are_not_told_apart() -> None:
    """What they spare must be worth an attention more in each layer, for the whole batch."""
    pair = [(*range(5), n) for n in (60, 61)]
    others = [(n, *range(20, 40)) for n in range(6, 18)]
    assert _best_groups([*pair, *others])[0] == ([0, 1], 5)
    assert prefix_groups([*pair, *others]) == [(list(range(14)), 0)]
    assert prefix_groups([*pair, *others[:3]])[0] == ([0, 1], 5)


def run_tokens(prompts: Any, groups: Any) -> int:
    """Tokens that are run, and what prefixes cost beside."""
    spared = sum(shared * (len(members) - 1) - _WORTH for members, shared in groups if shared)
    return sum(map(len, prompts)) - spared


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    head, *rest = items
    for parts in partitions(rest):
        yield [[head], *parts]
        for at, part in enumerate(parts):
            yield [*parts[:at], [head, *part], *parts[at + 1 :]]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=14).map(tuple), min_size=1, max_size=6))
# The best groups lie inside one another: three rows share three tokens around two that share eleven.
@example([(0,) * 5, (0, 0, 0, 0, 1, 0), (0, 0, 0, 0, *(1,) * 7, 0), (0, 0, 0, 0, *(1,) * 8), (0, 0, 0, 1)])
def test_no_other_partition_runs_fewer_tokens(prompts: list[tuple[int, ...]]) -> None:
    found = _best_groups(prompts)
    assert sorted(r for members, _ in found for r in members) == list(range(len(prompts)))
    for members, shared in found:
        assert len({prompts[r][:shared] for r in members}) == 1 and all(len(prompts[r]) > shared for r in members)
    others = (
        [(part, shared_prefix([prompts[r] for r in part]) if len(part) > 1 else 0) for part in parts]
        for parts in partitions(list(range(len(prompts))))
    )
    assert run_tokens(prompts, found) == min(run_tokens(prompts, other) for other in others)


def test_thousands_of_rows_are_grouped_in_an_instant() -> None:
    tasks = [(*range(30), *range(100 * task, 100 * task + 20)) for task in range(20)]
    prompts = [(*tasks[n % 20], 30 + n % 7, n) for n in range(4000)]
    began = time.perf_counter()
    assert sorted(len(members) for members, _ in prefix_groups(prompts)) == [200] * 20
    # Prompts that go on from one another: as many forks above one another as there are rows.
    assert sum(len(members) for members, _ in prefix_groups([tuple(range(n)) for n in range(1, 500)])) == 499
    assert time.perf_counter() - began < 5


def rows_of_tasks(seed: int = 0) -> list[Encoded]:
    """Rows of three wordings of different lengths, in turns, and one of its own."""
    rng = random.Random(seed)
    made = []
    for n in range(11):
        wording = tuple(range(10 + 9 * (n % 3), 16 + 9 * (n % 3) + n % 3))
        prompt = (*wording, *(rng.randrange(5, 60) for _ in range(rng.randint(1, 9))))
        made.append(Encoded(prompt, (*(rng.randrange(20, 60) for _ in range(rng.randint(1, 4))), 1)))
    return [*made, Encoded((7, 6, 5), (30, 1))]


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_groups_of_rows_have_the_loss_and_gradient_of_rows_apart(family: str, words: bool) -> None:
    rows = rows_of_tasks()
    shared, apart = of_family(family), of_family(family)
    batch = collate(rows, CPU, share="groups")
    assert batch.heads is not None and len(batch.heads.places) == 3 and len(batch.ids) < batch.tokens
    assert AnswerLoss(shared).shares == "groups"
    taught = UsedWords(shared, used(rows)) if words else None
    loss, expected = answer_loss(shared, batch, taught), naive_loss(apart, rows)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    for (name, one), other in zip(shared.named_parameters(), apart.parameters(), strict=True):
        if words and name == "model.embed_tokens.weight":
            continue
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-5, rtol=1e-4), name


def test_long_rows_of_groups_are_attended_by_blocks_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, found = rows_of_tasks(), []
    batch = collate(rows, CPU, share="groups")
    for most in (1 << 22, 0):
        monkeypatch.setattr("matdarwin.training.attention._SCORES", most)
        model = of_family("llama")
        loss = answer_loss(model, batch)
        loss.backward()
        found.append((loss.item(), {name: p.grad for name, p in model.named_parameters()}))
    (written_out, known), (by_blocks, grads) = found
    assert by_blocks == pytest.approx(written_out, abs=1e-5)
    for name, grad in known.items():
        assert torch.allclose(grads[name], grad, atol=1e-5, rtol=1e-4), name


def test_groups_of_rows_train_in_bf16_as_rows_apart_do() -> None:
    rows, losses = rows_of_tasks(), []
    for share in ("groups", "none"):
        model = of_family("llama")
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(answer_loss(model, collate(rows, CPU, share=share)).item())
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_padded_rows_of_several_prefixes_are_refused() -> None:
    batch = collate(rows_of_tasks(), CPU, share="groups")
    with pytest.raises(ValueError, match="share one prefix"):
        answer_loss(of_family("olmo2"), batch)


def test_models_that_are_not_packed_share_one_prefix_or_none() -> None:
    assert AnswerLoss(of_family("olmo2")).shares == "all"
    assert AnswerLoss(tiny_model(64), checkpointing=True).shares == "none"


def of_family(family: str) -> Any:
    """A tiny model of a family, two of whose heads share their keys."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family, vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=None, tie_word_embeddings=True, initializer_range=0.2,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").float().eval()


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "olmo2"])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_loss_and_gradient_equal_those_of_rows_apart(prefix: int, family: str) -> None:
    """Packed, and (OLMo) padded."""
    rows = rows_of(7, seed=prefix, prefix=prefix)
    shared, apart = of_family(family), of_family(family)
    assert can_pack(shared.config) == (family != "olmo2")
    batch = collate(rows, CPU)
    assert batch.prefix == prefix
    loss, expected = answer_loss(shared, batch), naive_loss(apart, rows)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    expected.backward()
    for (name, one), other in zip(shared.named_parameters(), apart.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-5, rtol=1e-4), name


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_rows_padded_to_a_shape_have_the_loss_and_gradient_of_packed_ones(family: str, words: bool) -> None:
    rows = rows_of(7, seed=3)
    found = []
    for batch in (collate(rows, CPU), padded(rows, 12)):
        model = of_family(family)
        loss = AnswerLoss(model, UsedWords(model, range(5, 60)) if words else None)
        total = loss(batch)
        total.backward()
        found.append((total.item(), {name: p.grad for name, p in loss.named_parameters() if p.grad is not None}))
    assert batch.padded and batch.places.shape == (12, 16) and len(batch.judged) == 128
    (packed, known), (other, grads) = found
    assert other == pytest.approx(packed, rel=1e-6) and grads.keys() == known.keys()
    for name, grad in known.items():
        assert torch.allclose(grads[name], grad, atol=1e-4, rtol=1e-4), name


def test_rows_are_padded_to_few_shapes() -> None:
    lengths = [_rung(length, 16) for length in range(1, 513)]
    assert all(length <= made <= max(16, 1.25 * length + 16) for length, made in enumerate(lengths, start=1))
    assert len(set(lengths)) == 16 and lengths == sorted(lengths)
    assert {_rung(count, 128) for count in (1, 128, 129, 1000, 1025)} == {128, 256, 1024, 1280}


def test_what_is_taught_softly_is_never_recorded() -> None:
    plain = rows_of(3)
    soft = [*plain, Encoded((5, 6), (8, 1), (((8, 0.5), (9, 0.5)), ()))]
    assert Graphs.take(plain) and not Graphs.take(soft)
    assert Loop(tiny_model(64), Optimising(), 1)._graphs is None, "nothing is recorded on a CPU"


def test_packing_changes_the_time_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(7)
    model = tiny_model(64)
    packed = answer_loss(model, collate(rows, CPU))
    monkeypatch.setattr("matdarwin.training.objective.can_pack", lambda config: False)
    assert answer_loss(model, collate(rows, CPU)).item() == pytest.approx(packed.item(), abs=1e-6)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("config", "packs"),
    [
        ({"model_type": "llama", "attention_dropout": 0.0}, True),
        ({"model_type": "llama", "attention_dropout": 0.1}, False),
        ({"model_type": "mistral", "sliding_window": 4096}, False),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, True),
        ({"model_type": "gemma2"}, False),
    ],
)
def test_only_plain_attention_is_packed(config: dict[str, Any], packs: bool) -> None:
    assert can_pack(SimpleNamespace(**config)) == packs


def test_the_loss_is_that_of_answers_alone() -> None:
    model = tiny_model(64)
    one = Encoded((10, 11, 12), (20, 1))
    # Another question changes the loss through what the answer is given only, never as something to be said.
    batch = collate([one], CPU)
    assert len(batch.targets) == 2
    logits = model(torch.tensor([[10, 11, 12, 20]])).logits[0]
    by_hand = -(torch.log_softmax(logits[2], -1)[20] + torch.log_softmax(logits[3], -1)[1]) / 2
    assert answer_loss(model, batch).item() == pytest.approx(by_hand.item(), abs=1e-5)


# -- embeddings that are trained apart -----------------------------------------------------------------


def used(rows: list[Encoded]) -> list[int]:
    return sorted({token for row in rows for token in (*row.prompt, *row.answer)})


def untied(seed: int = 1) -> Any:
    """A tiny model whose output layer is a matrix of its own."""
    from transformers import LlamaForCausalLM

    config = copy.deepcopy(tiny_model(64).config)
    config.tie_word_embeddings = False
    torch.manual_seed(seed)
    return LlamaForCausalLM(config).float().eval()


@pytest.mark.parametrize("make", [lambda: tiny_model(64, seed=1), untied])
@pytest.mark.parametrize("prefix", [0, 3])
def test_loss_and_gradients_are_the_same_with_used_words_alone(make: Any, prefix: int) -> None:
    rows = rows_of(7, prefix=prefix)
    tokens = used(rows)
    assert len(tokens) < 60
    whole, part = make(), make()
    words = UsedWords(part, tokens)
    batch = collate(rows, CPU)
    one, other = answer_loss(whole, batch), answer_loss(part, batch, words)
    assert one.item() == pytest.approx(other.item(), abs=1e-5)
    one.backward()
    other.backward()
    matrices = [whole.get_input_embeddings().weight]
    if len(words.parameters) == 2:
        matrices.append(whole.get_output_embeddings().weight)
    for matrix, own in zip(matrices, words.parameters, strict=True):
        assert torch.allclose(matrix.grad[tokens], own.grad, atol=1e-5, rtol=1e-4)
    assert part.get_input_embeddings().weight.grad is None
    for (name, a), b in zip(whole.named_parameters(), part.parameters(), strict=True):
        if b.requires_grad:
            assert torch.allclose(a.grad, b.grad, atol=1e-5, rtol=1e-4), name


@pytest.mark.parametrize("make", [lambda: tiny_model(64, seed=1), untied])
def test_used_words_move_and_the_others_stay(make: Any) -> None:
    model = make()
    rows = rows_of(24)
    tokens = used(rows)
    others = [token for token in range(64) if token not in tokens]
    words = UsedWords(model, tokens)
    before = [matrix.detach().clone() for matrix in words.matrices]
    loop = Loop(model, Optimising(batch_size=8, learning_rate=1e-2), 3, words=words)
    for rows_of_step in itertools.islice(batches(rows, 8, 0), 3):
        loop.step(rows_of_step)
    assert all(torch.equal(matrix, old) for old, matrix in zip(before, words.matrices, strict=True))
    words.write_back()
    for old, matrix, moved in zip(before, words.matrices, words.parameters, strict=True):
        assert torch.equal(matrix[others], old[others])
        assert (matrix[tokens] != old[tokens]).any(dim=1).float().mean() > 0.9
        assert torch.equal(matrix[tokens], moved)
    # What the model says by itself is now what it said with the words apart.
    batch = collate(rows[:5], CPU)
    assert answer_loss(model, batch).item() == pytest.approx(answer_loss(model, batch, words).item(), abs=1e-6)


def test_a_token_that_was_not_foreseen_has_the_models_own_embedding() -> None:
    model = tiny_model(64)
    words = UsedWords(model, [5, 6, 6, 5])
    ids = torch.tensor([[5, 40, 6]])
    assert torch.equal(words.embed(ids), model.get_input_embeddings()(ids))


# -- training ------------------------------------------------------------------------------------------


def run(
    model: Any, *, epochs: int = 2, rate: float = 1e-2, autocast: Any = None, seed: int = 0, **options: Any
) -> list[Step]:
    rows = rows_of(24)
    asked = Optimising(epochs=epochs, batch_size=8, learning_rate=rate, **options)
    loop = Loop(model, asked, 3 * epochs, autocast=autocast)
    return [loop.step(one) for one in itertools.islice(batches(rows, 8, seed), 3 * epochs)]


def test_steps_are_told_in_order() -> None:
    steps = run(tiny_model(64))
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    options = Optimising(epochs=2, batch_size=8, learning_rate=1e-2)
    assert [s.learning_rate for s in steps] == [learning_rate(k, 6, options) for k in range(6)]
    assert all(s.tokens > 0 and s.gradient_norm > 0 for s in steps)


def test_the_same_seed_gives_the_same_losses_bit_for_bit() -> None:
    def losses(seed: int) -> list[float]:
        return [step.loss for step in run(tiny_model(64), seed=seed)]

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_loss_falls_on_rows_that_can_be_learnt() -> None:
    steps = run(tiny_model(64, scale=0.05), epochs=25)
    assert steps[-1].loss < steps[0].loss / 2


def test_gradients_are_clipped() -> None:
    plain, clipped = tiny_model(64), tiny_model(64)
    start = copy.deepcopy(plain.state_dict())
    # Under AdamW's normalisation only the tiniest of gradients show: with a clip far below its epsilon nothing moves.
    run(plain, epochs=1, rate=1e-3, clip=1.0)
    run(clipped, epochs=1, rate=1e-3, clip=1e-12)

    def moved(model: Any) -> float:
        return max(float((p - start[name]).abs().max()) for name, p in model.state_dict().items())

    assert moved(clipped) < 1e-2 * moved(plain)


def test_frozen_weights_stay() -> None:
    model = tiny_model(64)
    model.get_input_embeddings().weight.requires_grad_(False)
    before = model.get_input_embeddings().weight.clone()
    run(model, epochs=1)
    assert torch.equal(before, model.get_input_embeddings().weight)


def test_a_loss_that_is_no_number_stops_with_step_and_remedy() -> None:
    model = tiny_model(64)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss is nan at step 1; lower optimising\.learning_rate"):
        run(model)


def test_a_gradient_that_is_no_number_stops_before_it_spoils_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(64)
    before = copy.deepcopy(model.state_dict())
    weight = model.model.norm.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"gradient is .* at step 1"):
        run(model)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_bf16_autocast_computes_in_bf16_and_keeps_fp32_weights() -> None:
    one, other = tiny_model(64), tiny_model(64)
    low = [e.loss for e in run(one, autocast=torch.bfloat16)]
    full = [e.loss for e in run(other)]
    assert low != full and low == pytest.approx(full, rel=0.1)
    assert all(p.dtype == torch.float32 for p in one.parameters())


# -- going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True])
def test_a_state_that_is_put_back_goes_on_bit_for_bit(apart: bool) -> None:
    rows = rows_of(24)
    given = list(itertools.islice(batches(rows, 8, 0), 8))

    def fresh() -> tuple[Any, Loop]:
        model = tiny_model(64)
        words = UsedWords(model, used(rows)) if apart else None
        return model, Loop(model, Optimising(learning_rate=1e-2, average=0.6), 8, words=words)

    _, whole = fresh()
    losses = [whole.step(one).loss for one in given]
    _, first = fresh()
    for one in given[:5]:
        first.step(one)
    tensors, numbers = first.state()
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    first.step(given[5])  # what was taken must not move with the loop, once it is written
    _, second = fresh()
    second.restore(kept, numbers)
    assert [second.step(one).loss for one in given[5:]] == losses[5:]
    ended, expected = second.state()[0], whole.state()[0]
    assert all(torch.equal(ended[name], expected[name]) for name in expected if not name.startswith("random"))


def test_a_state_of_other_weights_is_refused() -> None:
    model = tiny_model(64)
    tensors, numbers = Loop(model, Optimising(), 4).state()
    model.get_input_embeddings().weight.requires_grad_(False)
    with pytest.raises(TrainingError, match="other weights in training"):
        Loop(model, Optimising(), 4).restore(tensors, numbers)


# -- memory --------------------------------------------------------------------------------------------


def test_parts_of_a_batch_add_up_to_it() -> None:
    whole, parts = (run(tiny_model(64), micro_batch=size) for size in (None, 3))
    assert [s.loss for s in parts] == pytest.approx([s.loss for s in whole], rel=1e-4)
    assert [s.gradient_norm for s in parts] == pytest.approx([s.gradient_norm for s in whole], rel=1e-3)


def test_checkpointing_changes_nothing_but_the_memory() -> None:
    models = [tiny_model(64), tiny_model(64)]
    passes = [0, 0]

    def counting(number: int) -> Any:
        def count(*_: Any) -> None:
            passes[number] += 1

        return count

    for number, model in enumerate(models):
        model.model.layers[0].self_attn.register_forward_pre_hook(counting(number))
    whole, less = (run(model, checkpointing=on) for model, on in zip(models, (False, True), strict=True))
    assert [s.loss for s in less] == pytest.approx([s.loss for s in whole], rel=1e-4)
    assert passes[1] == 2 * passes[0], "activations are computed anew"


def test_checkpointing_of_an_earlier_stage_ends_with_it() -> None:
    model, fresh = tiny_model(64), tiny_model(64)
    run(model, checkpointing=True)
    fresh.load_state_dict(model.state_dict())
    assert [s.loss for s in run(model)] == [s.loss for s in run(fresh)]


def test_too_little_memory_is_told_with_batch_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, batch: Batch) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(AnswerLoss, "forward", full)
    with pytest.raises(
        TrainingError, match=r"step 1 for 8 rows of up to \d+ tokens; set optimising.micro_tokens to \d+ or"
    ):
        run(tiny_model(64))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no room"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "cuda", "cublas"],
)
def test_too_little_memory_for_the_moments_is_told_too(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(TrainingError, match=r"does not suffice at step 1 for 8 rows .* optimising.checkpointing"):
        run(tiny_model(64))


# -- numbers -------------------------------------------------------------------------------------------


def one_number(soft: Any = ()) -> Batch:
    """An answer of two digits (tokens 20 to 29 are 0 to 9) and its terminator."""
    return collate([Encoded((10, 11), (23, 27, 1), soft, number=True)], CPU)


@pytest.mark.parametrize("kind", ["squared", "wasserstein"])
def test_number_loss_by_hand(kind: Any) -> None:
    model = tiny_model(64)
    plain = AnswerLoss(model)(one_number()).item()
    found = AnswerLoss(model, number_loss=kind, weight=0.5, digits=range(20, 30))(one_number()).item()
    logits = model(torch.tensor([[10, 11, 23, 27]])).logits[0]
    expected = 0.0
    for place, digit in ((1, 3), (2, 7)):
        p = torch.softmax(logits[place, 20:30], -1)
        values = torch.arange(10.0)
        expected += float((p @ values - digit) ** 2 if kind == "squared" else p @ (values - digit).abs())
    assert found - plain == pytest.approx(0.5 * expected, rel=1e-4)


def test_digits_of_words_have_no_number_loss() -> None:
    model = tiny_model(64)
    batch = collate([Encoded((10, 11), (23, 27, 1))], CPU)
    loss = AnswerLoss(model, number_loss="squared", weight=0.5, digits=range(20, 30))
    assert loss(batch).item() == AnswerLoss(model)(batch).item()


def test_what_is_taught_softly_is_the_cross_entropy_against_its_shares() -> None:
    model = tiny_model(64)
    soft = (((23, 0.75), (24, 0.25)), ((26, 0.2), (27, 0.6), (28, 0.2)), ((1, 1.0),))
    logp = torch.log_softmax(model(torch.tensor([[10, 11, 23, 27]])).logits[0], -1)
    expected = -sum(share * logp[1 + place, token] for place, choices in enumerate(soft) for token, share in choices)
    assert AnswerLoss(model)(one_number(soft)).item() == pytest.approx(float(expected), rel=1e-5)
