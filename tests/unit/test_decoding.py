"""Decoding is exact: against a plain forward pass for each answer, whatever the batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import tiny_model, tiny_tokenizer

from matdarwin.language.answers import grid
from matdarwin.language.prompts import Encoder
from matdarwin.language.tree import AnswerTree
from matdarwin.models.decoding import Decoder
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.tasks.schema import Task

QUESTIONS = [
    "band gap of Ga N:",
    "band gap of Ag2 Ge S3:",
    "band gap of Fe:",
    "band gap of Cu2 Zn Sn S4:",
    "band gap of La0.5 Sr0.5 Mn O3:",
    "band gap of Ga0.123 In0.877 As0.5 P0.5:",
    "band gap of Zn O:",
    "band gap of U:",
]
NUMBERS = {"low": (0.0, 5.0, 1), "signed": (-1.5, 1.2, 2), "whole": (-12.0, 112.0, 0), "fine": (0.0, 3.0, 2)}
LABELS = {
    "two": ("metal", "not metal"),
    "shared": ("metal", "metal oxide", "metal of a kind", "not a metal", "glass"),
}


def numeric(bounds: tuple[float, float], decimals: int) -> Task:
    return Task.model_construct(id="t", kind="regression", bounds=bounds, decimals=decimals, labels=(), unit="eV")


class Setting:
    """A tiny model, a tree, and the exact answer to each question."""

    def __init__(self, name: str, digits_single: bool = True, scale: float = 0.2) -> None:
        tokenizer = tiny_tokenizer(digits_single=digits_single)
        self.encoder = Encoder(tokenizer)
        self.model = tiny_model(len(tokenizer), seed=3, scale=scale)
        if name in NUMBERS:
            low, high, decimals = NUMBERS[name]
            task = numeric((low, high), decimals)
            self.values, self.labels = np.array(grid(task)), ()
        else:
            self.values, self.labels = np.empty(0), LABELS[name]
            task = Task.model_construct(id="t", kind="classification", labels=self.labels)
        self.tree = AnswerTree.of_task(task, self.encoder)
        self.answers = self._answers(task)

    def _answers(self, task: Task) -> list[list[int]]:
        from matdarwin.language.answers import format_answer

        got: Sequence[Any] = self.labels or self.values.tolist()
        return self.encoder.answers([format_answer(task, answer) for answer in got])

    def prompts(self, questions: Sequence[str] = QUESTIONS) -> list[list[int]]:
        return self.encoder.prompts(questions)

    def decode(
        self, prompts: Sequence[Sequence[int]], *, prefix: Sequence[int] = (), **options: Any
    ) -> list[AnswerDistribution]:
        found = Decoder(self.model, **options).distributions(
            prompts, self.tree, self.values, self.labels, prefix=prefix
        )
        assert all(d is not None for d in found)
        return found  # type: ignore[return-value]

    @cache  # noqa: B019 - lives as long as the tests
    def exact(self, prompt: tuple[int, ...]) -> np.ndarray:
        """Probability of each answer, terminator included: one row each, nothing shared, no cache."""
        length = max(map(len, self.answers))
        ids = torch.zeros((len(self.answers), len(prompt) + length), dtype=torch.long)
        for row, answer in enumerate(self.answers):
            ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        masses = []
        with torch.no_grad():
            for start in range(0, len(ids), 128):
                logp = torch.log_softmax(self.model(ids[start : start + 128], use_cache=False).logits.double(), dim=-1)
                for row, answer in enumerate(self.answers[start : start + 128]):
                    at = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(answer))
                    masses.append(float(logp[row, at, torch.tensor(answer)].sum()))
        return np.exp(np.array(masses))


@cache
def setting(name: str, digits_single: bool = True, scale: float = 0.2) -> Setting:
    return Setting(name, digits_single, scale)


def full(got: AnswerDistribution, known: Setting) -> np.ndarray:
    """Probabilities over all answers, 0 where one was not expanded."""
    if got.labels:
        return got.probabilities
    made = np.zeros(len(known.values))
    made[np.searchsorted(known.values, got.values)] = got.probabilities
    return made


ALL = [(name, single) for name in (*NUMBERS, *LABELS) for single in (True, False)]


@pytest.mark.parametrize(("name", "single"), ALL)
def test_it_equals_brute_force(name: str, single: bool) -> None:
    known = setting(name, single)
    prompts = known.prompts()
    for prompt, got in zip(prompts, known.decode(prompts, prune=0.0, sure_end=1.0), strict=True):
        masses = known.exact(tuple(prompt))
        inside = masses.sum()
        assert full(got, known) == pytest.approx(masses / inside, abs=1e-5)
        assert got.outside == pytest.approx(1 - inside, abs=1e-5)
        assert got.unexpanded == 0 and got.assumed_ends == 0
        assert got.probabilities.sum() == pytest.approx(1.0)
        if not got.labels:
            assert (np.diff(got.values) > 0).all(), "sorted by value, not by text"


@pytest.mark.parametrize(("name", "single"), ALL)
def test_what_is_pruned_is_little_and_told(name: str, single: bool) -> None:
    known = setting(name, single)
    prompts = known.prompts()
    found = Decoder(known.model, sure_end=1.0).distributions(prompts, known.tree, known.values, known.labels)
    for prompt, got in zip(prompts, found, strict=True):
        masses = known.exact(tuple(prompt))
        inside = masses.sum()
        if got is None:
            assert inside <= 0.01, "all of it may be pruned, but no more than may be pruned"
            continue
        assert 0 <= got.unexpanded <= 0.01
        expanded = 1 - got.outside - got.unexpanded
        assert expanded <= inside + 1e-5, "nothing is counted twice"
        assert inside - expanded <= got.unexpanded + 1e-5, "what is missing inside was told as unexpanded"
        # The bound on the whole: at most the pruned mass is misplaced, in proportion to what lies inside.
        off = np.abs(full(got, known) - masses / inside).sum() / 2
        assert off <= got.unexpanded / inside + 1e-5


def test_a_little_mass_inside_the_format_is_not_pruned_away() -> None:
    """A model that has not learnt the format well still prefers some answers; they must be told, not lost."""
    known = setting("low")
    prompts = known.prompts()
    assert all(0 < known.exact(tuple(prompt)).sum() < 0.05 for prompt in prompts)
    for prompt, got in zip(prompts, known.decode(prompts, sure_end=1.0), strict=True):
        masses = known.exact(tuple(prompt))
        assert np.abs(full(got, known) - masses / masses.sum()).sum() / 2 <= 0.02


@pytest.mark.parametrize("name", [*NUMBERS, *LABELS])
def test_with_the_defaults_a_trained_like_model_is_within_two_percent(name: str) -> None:
    """A model that puts its mass inside the format, as a trained one does, made by asking for answers alone."""
    known = confident(name)
    prompts = known.prompts()
    for prompt, got in zip(prompts, known.decode(prompts), strict=True):
        masses = known.exact(tuple(prompt))
        inside = masses.sum()
        assert inside > 0.8
        assert np.abs(full(got, known) - masses / inside).sum() / 2 <= 0.02
        assert got.unexpanded <= 0.01
        assert got.outside == pytest.approx(1 - inside, abs=0.02)


@cache
def confident(name: str) -> Setting:
    """A setting whose model was trained for a moment on random answers of the task."""
    known = Setting(name)
    rng = np.random.default_rng(0)
    prompts = known.prompts()
    optimiser = torch.optim.Adam(known.model.parameters(), lr=1e-2)
    known.model.train()
    for _ in range(150):
        chosen = [
            (prompts[i], known.answers[j])
            for i, j in zip(rng.integers(len(prompts), size=24), rng.integers(len(known.answers), size=24), strict=True)
        ]
        length = max(len(p) + len(a) for p, a in chosen)
        ids = torch.zeros((len(chosen), length), dtype=torch.long)
        targets = torch.full((len(chosen), length), -100)
        for row, (prompt, answer) in enumerate(chosen):
            ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
            targets[row, len(prompt) - 1 : len(prompt) - 1 + len(answer)] = torch.tensor(answer)
        loss = torch.nn.functional.cross_entropy(known.model(ids).logits.flatten(0, 1), targets.flatten())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    known.model.eval()
    return known


class Positional:
    """A model whose next token depends on the position alone, so that every probability is known."""

    device = torch.device("cpu")

    def __init__(self, table: np.ndarray) -> None:
        self.table = torch.from_numpy(np.log(np.maximum(table, 1e-30))).float()

    def eval(self) -> Positional:
        return self

    def __call__(self, *, position_ids: Any, logits_to_keep: int, **_: Any) -> Any:
        return SimpleNamespace(logits=self.table[position_ids][:, -logits_to_keep:])


def test_all_that_is_pruned_is_told_as_unexpanded() -> None:
    """10 to 99, two digits that are drawn apart, nothing outside: what is missing is what was pruned, no more, no less."""
    encoder = Encoder(tiny_tokenizer())
    task = numeric((10.0, 99.0), 0)
    tree, values = AnswerTree.of_task(task, encoder), np.array(grid(task))
    blank, *digits = (encoder.answers([text])[0][0] for text in (" ", *"0123456789"))
    first = np.array([0, 0.5, 0.3, 0.15, 0.04, 0.005, 0.003, 0.001, 0.0007, 0.0003])
    second = np.array([0.4, 0.2, 0.2, 0.1, 0.06, 0.02, 0.01, 0.006, 0.003, 0.001])
    table = np.zeros((7, 400))
    table[2, blank] = 1  # after the third and last token of the prompt
    table[3, digits] = first
    table[4, digits] = second
    table[5, encoder.terminator] = 1
    expected = np.outer(first[1:], second).ravel()
    decoder = Decoder(Positional(table))
    (got,) = decoder.distributions([[7, 8, 9]], tree, values)
    assert got is not None and got.outside == pytest.approx(0, abs=1e-6)
    kept = expected[np.searchsorted(values, got.values)]
    assert 0.002 < got.unexpanded <= 0.01 and len(got.values) < 60, "branches were dropped before they were run"
    assert got.unexpanded == pytest.approx(1 - kept.sum(), abs=1e-6)
    assert got.probabilities == pytest.approx(kept / kept.sum(), abs=1e-6)
    assert {10, 15, 20, 42}.issubset(got.values) and not {60, 70, 80, 90} & set(got.values), "the least likely went"
    (whole,) = Decoder(Positional(table), prune=0.0).distributions([[7, 8, 9]], tree, values)
    assert whole is not None and whole.probabilities == pytest.approx(expected, abs=1e-6) and whole.unexpanded == 0


def test_sure_ends_are_taken_only_where_they_are_sure() -> None:
    known = confident("low")
    prompts = known.prompts()
    sure = known.decode(prompts, prune=0.0, sure_end=0.9)
    never = known.decode(prompts, prune=0.0, sure_end=1.0)
    assert any(d.assumed_ends > 0 for d in sure)
    for one, other in zip(sure, never, strict=True):
        assert full(one, known) == pytest.approx(full(other, known), abs=0.02)
    # A random model ends nothing surely, so every end is scored.
    wild = setting("low")
    assert all(d.assumed_ends == 0 for d in wild.decode(wild.prompts(), prune=0.0))


@given(
    st.sampled_from(["low", "signed", "two", "shared"]),
    st.permutations(range(len(QUESTIONS))),
    st.lists(st.integers(1, len(QUESTIONS)), min_size=1, max_size=4),
    st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_an_answer_does_not_depend_on_its_company(
    name: str, order: list[int], sizes: list[int], prefixed: bool
) -> None:
    known = confident(name)
    prompts = known.prompts()
    prefix = known.prompts(["band gap of"])[0] if prefixed else []
    alone = baseline(name)
    found: dict[int, AnswerDistribution] = {}
    start = 0
    while start < len(order):
        chosen = order[start : start + sizes[start % len(sizes)]]
        start += len(chosen)
        found |= dict(zip(chosen, known.decode([prompts[i] for i in chosen], prefix=prefix), strict=True))
    for index, one in enumerate(alone):
        other = found[index]
        assert full(one, known) == pytest.approx(full(other, known), abs=1e-4)
        assert (one.outside, one.unexpanded) == pytest.approx((other.outside, other.unexpanded), abs=1e-4)
        if one.labels:
            assert one.label() == other.label()
        else:
            assert one.median() == other.median() and one.mean() == pytest.approx(other.mean(), abs=1e-3)


@cache
def baseline(name: str) -> list[AnswerDistribution]:
    """Each question asked alone, without a prefix."""
    known = confident(name)
    return [known.decode([prompt])[0] for prompt in known.prompts()]


def test_the_same_question_many_times_has_the_same_answer() -> None:
    known = confident("fine")
    prompts = known.prompts()
    made = known.decode([prompts[2]] * 20 + prompts + [prompts[2]] * 20)
    same = [made[i] for i in (*range(21), 22, 29, 47)]
    for other in [*made[:20], *made[28:]]:
        assert full(other, known) == pytest.approx(full(same[0], known), abs=1e-4)


@pytest.mark.parametrize("single", [True, False])
def test_a_prefix_given_or_not_is_all_one(single: bool) -> None:
    known = setting("signed", single)
    prompts = known.prompts()
    plain = known.decode(prompts, prune=0.0, sure_end=1.0)
    for prefix in (known.prompts(["band gap of"])[0], prompts[0][:1], prompts[2], [1, 2, 3]):  # the last two not shared
        for one, other in zip(plain, known.decode(prompts, prefix=prefix, prune=0.0, sure_end=1.0), strict=True):
            assert full(one, known) == pytest.approx(full(other, known), abs=1e-5)


def test_a_decoder_may_be_asked_again_with_another_prefix_and_tree() -> None:
    known, other = setting("low"), setting("two")
    decoder = Decoder(known.model, prune=0.0, sure_end=1.0)
    prompts = known.prompts()
    prefix = known.prompts(["band gap of"])[0]
    first = decoder.distributions(prompts, known.tree, known.values, prefix=prefix)
    labels = decoder.distributions(prompts, other.tree, other.values, other.labels, prefix=prefix[:2])
    again = decoder.distributions(prompts[::-1], known.tree, known.values, prefix=prefix)[::-1]
    for one, two, words, prompt in zip(first, again, labels, prompts, strict=True):
        assert one is not None and two is not None and words is not None
        assert full(one, known) == pytest.approx(full(two, known), abs=1e-5)
        masses = other.exact(tuple(prompt))
        assert words.probabilities == pytest.approx(masses / masses.sum(), abs=1e-5)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, len(QUESTIONS) - 1), min_size=1, max_size=12), st.booleans()),
        min_size=2,
        max_size=6,
    )
)
@settings(max_examples=15, deadline=None)
def test_a_decoder_keeps_nothing_of_earlier_batches(batches: list[tuple[list[int], bool]]) -> None:
    """Its cache is used again, for more rows and for fewer, with a prefix and without."""
    known = setting("low")
    decoder = Decoder(known.model, prune=0.0, sure_end=1.0)
    prompts = known.prompts()
    prefix = known.prompts(["band gap of"])[0]
    for chosen, prefixed in batches:
        found = decoder.distributions(
            [prompts[i] for i in chosen], known.tree, known.values, prefix=prefix if prefixed else []
        )
        for index, got in zip(chosen, found, strict=True):
            assert got is not None
            masses = known.exact(tuple(prompts[index]))
            assert full(got, known) == pytest.approx(masses / masses.sum(), abs=1e-5)


def test_prompts_of_very_unequal_length_and_one_token() -> None:
    known = setting("low")
    prompts = [[5], *known.prompts(["band gap of " + " ".join(["Ga0.1"] * 40) + ":", "band gap of Fe:"]), [7, 8]]
    for prompt, got in zip(prompts, known.decode(prompts, prune=0.0, sure_end=1.0), strict=True):
        masses = known.exact(tuple(prompt))
        assert full(got, known) == pytest.approx(masses / masses.sum(), abs=1e-5)


def test_it_is_deterministic_and_leaves_the_torch_generator_alone() -> None:
    known = setting("signed")
    state = torch.get_rng_state()
    one, other = (known.decode(known.prompts(), prune=0.0) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.values, b.values) and np.array_equal(a.probabilities, b.probabilities)


def test_no_prompts_no_answers() -> None:
    assert setting("low").decode([]) == []


@pytest.mark.parametrize("prune", [-0.001, 0.011, float("nan")])
def test_pruning_past_one_percent_is_refused(prune: float) -> None:
    with pytest.raises(ValueError, match="at most 1 %"):
        Decoder(setting("low").model, prune=prune)


def test_a_model_of_nonsense_weights_gives_none_and_not_a_number_nowhere() -> None:
    known = Setting("low")
    with torch.no_grad():
        known.model.get_output_embeddings().weight.fill_(float("nan"))
    found = Decoder(known.model).distributions(known.prompts(), known.tree, known.values)
    assert found == [None] * len(QUESTIONS)


@pytest.mark.slow
def test_the_exact_distribution_is_what_sampling_tends_to() -> None:
    """20,000 samples of a small task, each drawn token by token from the full vocabulary."""
    known = confident("whole")
    (prompt,) = known.prompts(QUESTIONS[:1])
    (got,) = known.decode([prompt], prune=0.0, sure_end=1.0)
    torch.manual_seed(1)
    count = 20_000
    ids = torch.tensor([prompt]).expand(count, -1)
    length = max(map(len, known.answers))
    with torch.no_grad():
        for _ in range(length):
            # Rows that are alike share one forward pass.
            unique, inverse = torch.unique(ids, dim=0, return_inverse=True)
            logits = torch.cat([known.model(part, use_cache=False).logits[:, -1] for part in unique.split(512)])
            ids = torch.cat([ids, torch.multinomial(torch.softmax(logits, -1)[inverse], 1)], dim=1)
    answers = {tuple(answer): number for number, answer in enumerate(known.answers)}
    seen = np.zeros(len(known.answers))
    for row in ids[:, len(prompt) :].tolist():
        text = tuple(row[: row.index(known.encoder.terminator) + 1]) if known.encoder.terminator in row else ()
        if text in answers:
            seen[answers[text]] += 1
    inside = seen.sum() / count
    assert inside == pytest.approx(1 - got.outside, abs=4 * np.sqrt(0.25 / count))
    shares = seen / seen.sum()
    expected = full(got, known)
    assert np.abs(shares - expected).max() <= 5 * np.sqrt(expected.max() / seen.sum())
    assert abs(float(known.values @ shares) - got.mean()) <= 5 * np.sqrt(
        float((known.values**2) @ expected) / seen.sum()
    )
