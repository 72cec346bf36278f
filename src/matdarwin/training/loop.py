"""The training loop: rows in, moved weights out. To be read from top to bottom.

Loss is the cross-entropy of the answer and its terminator alone; only their positions reach the output layer.
Batches come with rows of like length (see training/feed.py), so that little work goes into padding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache

from matdarwin.language.prompts import Encoded
from matdarwin.training.recipe import Optimising


class TrainingError(RuntimeError):
    """A training that cannot go on."""


@dataclass(frozen=True)
class Step:
    """What one step did: its number from 1, the loss a token, the rate, the gradient's norm, and tokens seen."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int


@dataclass(frozen=True)
class Batch:
    """Rows of like length.

    Attributes:
        prefix: Token ids that all rows begin with [p]; they are run once a batch.
        ids: The rest of the rows, padded on the right [rows, length].
        targets: What each position has to say next [rows, length]; -100 has no loss.
        tokens: Number of real tokens, the prefix counted for every row.
    """

    prefix: Any
    ids: Any
    targets: Any
    tokens: int


def _scaled(logits: Any, config: Any) -> Any:
    """What some families do to the output layer's logits before they are read: Granite, Cohere, Gemma."""
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if factor := getattr(config, "logit_scale", None):
        logits = logits * factor
    if softcap := getattr(config, "final_logit_softcapping", None):
        logits = softcap * torch.tanh(logits / softcap)
    return logits


class UsedWords:
    """The embeddings of the tokens that occur, trained apart from those of the whole vocabulary.

    A task uses a few hundred of a model's tokens. Training their rows alone spares the gradient of the whole matrix,
    which on a CPU costs a quarter of a step; the other rows stay as they are and still count in the softmax.

    Args:
        model: A causal language model; its embedding matrices are taken out of training.
        tokens: Ids of the tokens that occur in prompts and answers.
    """

    def __init__(self, model: Any, tokens: Iterable[int]) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._input = base.get_input_embeddings().weight.requires_grad_(False)
        head = base.get_output_embeddings()
        kinds: tuple[Any, Any] = (type(base.get_input_embeddings()), type(head))
        if kinds != (torch.nn.Embedding, torch.nn.Linear) or head.bias is not None:
            raise TrainingError(
                "optimising.embeddings: used needs plain embeddings and a plain output layer, which this base model "
                "does not have; choose trained or frozen"
            )
        self._head = head.weight.requires_grad_(False)
        device = self._input.device
        self._tokens = torch.tensor(sorted(set(tokens)), device=device)
        self._place = torch.full((self._input.shape[0],), -1, dtype=torch.long, device=device)
        self._place[self._tokens] = torch.arange(len(self._tokens), device=device)
        self._rows = torch.nn.Parameter(self._input[self._tokens].clone())
        tied = self._head is self._input
        self._head_rows = self._rows if tied else torch.nn.Parameter(self._head[self._tokens].clone())
        self.parameters = [self._rows] if tied else [self._rows, self._head_rows]
        self.matrices = [self._input] if tied else [self._input, self._head]

    def embed(self, ids: Any) -> Any:
        """Embeddings of token ids; a token that does not occur has the model's own."""
        place = self._place[ids]
        moved = functional.embedding(place.clamp(min=0), self._rows)
        return torch.where((place >= 0)[..., None], moved, functional.embedding(ids, self._input))

    def output(self, hidden: Any) -> Any:
        """Logits over the whole vocabulary [tokens, vocabulary]; only the used rows receive gradients."""
        logits = functional.linear(hidden, self._head)
        return logits.index_copy(1, self._tokens, functional.linear(hidden, self._head_rows).to(logits.dtype))

    def write_back(self) -> None:
        """Put the trained rows into the model's own matrices."""
        with torch.no_grad():
            self._input[self._tokens] = self._rows
            if self._head is not self._input:
                self._head[self._tokens] = self._head_rows


def trainable(model: Any, words: UsedWords | None) -> list[Any]:
    """The parameters in training."""
    return [p for p in model.parameters() if p.requires_grad] + (words.parameters if words else [])


def epochs_of(steps: int, options: Optimising) -> int:
    """Number of epochs that a set of that many steps an epoch is trained for."""
    return max(options.epochs, math.ceil(options.minimum_steps / steps))


def learning_rate(step: int, total: int, options: Optimising) -> float:
    """Learning rate of a step (from 0): linear warm-up, then half a cosine down to zero."""
    warm = max(1, round(options.warmup * total))
    if step < warm:
        return options.learning_rate * (step + 1) / warm
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def collate(rows: Sequence[Encoded], device: Any) -> Batch:
    """Pad rows on the right, the prefix that they share taken off. Attention is causal: no token sees the padding."""
    shared = _shared_prefix([row.prompt for row in rows])
    # The terminator is only ever a target: nothing follows it, so it is not run.
    length = max(len(row.prompt) + len(row.answer) for row in rows) - 1 - shared
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    targets = torch.full((len(rows), length), -100, dtype=torch.long)
    tokens = 0
    for r, row in enumerate(rows):
        whole = torch.tensor([*row.prompt[shared:], *row.answer[:-1]])
        ids[r, : len(whole)] = whole
        # The token at p is judged by what it says of p + 1.
        start = len(row.prompt) - 1 - shared
        targets[r, start : start + len(row.answer)] = torch.tensor(row.answer)
        tokens += shared + len(whole)
    prefix = torch.tensor(rows[0].prompt[:shared], dtype=torch.long)
    return Batch(prefix.to(device), ids.to(device), targets.to(device), tokens)


def _shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Number of tokens that all prompts begin with; the last token of a prompt is never shared, since it is judged."""
    first, last = min(prompts), max(prompts)
    longest = min(len(p) for p in prompts) - 1
    same = 0
    while same < longest and first[same] == last[same]:
        same += 1
    return same


def answer_loss(model: Any, batch: Batch, words: UsedWords | None = None) -> Any:
    """Mean cross-entropy over the answers' tokens, in nats; the output layer sees only these positions.

    With `words`, embeddings are taken from there. The shared prefix is run once, and its keys and values are lent to all rows; gradients flow back through it.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = base.get_decoder()

    def run(ids: Any, **options: Any) -> Any:
        if words is None:
            return decoder(input_ids=ids, **options)
        return decoder(inputs_embeds=words.embed(ids), **options)

    if len(batch.prefix):
        count, length = batch.ids.shape
        before = len(batch.prefix)
        prefix, cache = DynamicCache(), DynamicCache()
        run(batch.prefix[None], cache=prefix, use_cache=True)
        for number, layer in enumerate(prefix.layers):
            cache.update(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), number)
        mask = torch.ones((length, before + length), dtype=torch.bool, device=batch.ids.device).tril(before)
        positions = torch.arange(before, before + length, device=batch.ids.device)[None]
        hidden = run(
            batch.ids,
            position_ids=positions,
            attention_mask=mask.expand(count, 1, -1, -1),
            cache=cache,
            use_cache=True,
        ).last_hidden_state
    else:
        hidden = run(batch.ids, use_cache=False).last_hidden_state
    judged = batch.targets != -100
    output = base.get_output_embeddings() if words is None else words.output
    logits = _scaled(output(hidden[judged]).float(), base.config)
    return functional.cross_entropy(logits, batch.targets[judged])


def optimise(
    model: Any,
    batches: Iterator[list[Encoded]],
    epochs: int,
    steps: int,
    options: Optimising,
    *,
    autocast: Any | None,
    words: UsedWords | None = None,
) -> Iterator[Step | int]:
    """Train, yielding each step, and the number of each epoch (from 1) once it is over.

    Args:
        model: The model, on its device, weights in fp32.
        batches: The batches, of which as many are taken as there are steps.
        epochs: Number of epochs.
        steps: Steps in an epoch.
        options: The recipe's `optimising`.
        autocast: torch dtype to compute in, or None for that of the weights.
        words: Embeddings that are trained apart; they are written back before an epoch's number is yielded.

    Raises:
        TrainingError: The loss or the gradient is not a number.
    """
    device = next(model.parameters()).device
    weights = trainable(model, words)
    optimiser = torch.optim.AdamW(
        weights, lr=options.learning_rate, betas=options.betas, weight_decay=options.weight_decay, fused=True
    )
    done, total = 0, epochs * steps
    for number in range(1, epochs + 1):
        model.train()
        for rows in itertools.islice(batches, steps):
            batch = collate(rows, device)
            rate = learning_rate(done, total, options)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, autocast) if autocast is not None else nullcontext():
                loss = answer_loss(model, batch, words)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss.item()} at step {done + 1}, epoch {number}; lower optimising.learning_rate"
                )
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(weights, options.clip)
            if not torch.isfinite(norm):
                raise TrainingError(
                    f"the gradient is {float(norm)} at step {done + 1}, epoch {number}; lower optimising.learning_rate"
                )
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            done += 1
            yield Step(done, float(loss.detach()), rate, float(norm), batch.tokens)
        if words is not None:
            words.write_back()
        yield number
