"""What training makes small: the cross-entropy of the answer and its terminator, and what a recipe adds for numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.nn import functional
from transformers import DynamicCache

from matdarwin.training.batches import Batch
from matdarwin.training.words import UsedWords

NumberLoss = Literal["none", "squared", "wasserstein"]


class AnswerLoss(torch.nn.Module):
    """A model with its loss, as one module: what is called, wrapped and sharded in training.

    The loss of a position is the cross-entropy, in nats, against the token that comes next, or against the distribution
    that is taught in its place. Where the token is a digit of a number, `weight` times the number-token loss is added
    (Zausinger et al. 2024, arXiv 2411.02083). With p(d) the softmax over the ten digits' logits alone and y the digit:

        squared       (sum_d p(d) d - y)^2
        wasserstein   sum_d p(d) |d - y|

    The paper means it over the digits, we over all judged positions, so that parts of a batch add up.

    Args:
        model: A causal language model.
        words: Embeddings that are trained apart; None: the model's own.
        number_loss: Which loss of digits as numbers.
        weight: Its factor.
        digits: Token ids of 0 to 9; needed for a number loss.
        sharded: Whether the module will be sharded: the way back then has to come through every call of every layer.
    """

    def __init__(
        self,
        model: Any,
        words: UsedWords | None = None,
        *,
        number_loss: NumberLoss = "none",
        weight: float = 0.0,
        digits: Sequence[int] | None = None,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.words = words
        self.rows = torch.nn.ParameterList(words.parameters if words else [])
        self._number_loss, self._weight = number_loss, weight
        self._digits = list(digits or [])
        self._sharded = sharded

    def forward(self, batch: Batch) -> Any:
        """Sum of the losses of a batch's judged positions, in nats."""
        judged = batch.targets != -100
        targets = batch.targets[judged]
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        output = base.get_output_embeddings() if self.words is None else self.words.output
        logits = _scaled(output(self._hidden(base, batch)[judged]).float(), base.config)
        loss = functional.cross_entropy(logits, targets, reduction="none")
        if batch.soft is not None:
            places, tokens, shares = batch.soft
            logp = torch.log_softmax(logits, dim=-1)
            taught = torch.zeros_like(loss).index_add(0, places, -shares * logp[places, tokens])
            soft = torch.zeros_like(loss, dtype=torch.bool).index_fill(0, places, True)
            loss = torch.where(soft, taught, loss)
        if self._number_loss != "none":
            loss = loss + self._weight * self._as_numbers(logits, targets, batch.digits)
        return loss.sum()

    def _hidden(self, base: Any, batch: Batch) -> Any:
        """Hidden states of the rows behind their prefix, which is run once; gradients flow back through it."""
        decoder = base.get_decoder()

        def run(ids: Any, **options: Any) -> Any:
            if self.words is None:
                return decoder(input_ids=ids, **options)
            return decoder(inputs_embeds=self.words.embed(ids), **options)

        if not len(batch.prefix):
            return run(batch.ids, use_cache=False).last_hidden_state
        count, length = batch.ids.shape
        before = len(batch.prefix)
        prefix, cache = DynamicCache(), DynamicCache()
        last = run(batch.prefix[None], cache=prefix, use_cache=True).last_hidden_state
        for number, layer in enumerate(prefix.layers):
            cache.update(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), number)
        mask = torch.ones((length, before + length), dtype=torch.bool, device=batch.ids.device).tril(before)
        positions = torch.arange(before, before + length, device=batch.ids.device)[None]
        hidden = run(
            batch.ids, position_ids=positions, attention_mask=mask.expand(count, 1, -1, -1), cache=cache, use_cache=True
        ).last_hidden_state  # fmt: skip
        # What the prefix's last layer says is not used, but FSDP fetches a layer's weights once a gradient reaches that.
        return hidden + 0 * last.sum() if self._sharded else hidden

    def _as_numbers(self, logits: Any, targets: Any, digits: Any) -> Any:
        """The number-token loss of each position; 0 where the token is no digit of a number."""
        ids = torch.tensor(self._digits, device=logits.device)
        is_digit = targets[:, None] == ids[None]
        values = torch.arange(10, dtype=logits.dtype, device=logits.device)
        truth = (is_digit * values).sum(dim=-1)
        p = torch.softmax(logits[:, ids], dim=-1)
        if self._number_loss == "squared":
            found = ((p * values).sum(dim=-1) - truth) ** 2
        else:
            found = (p * (values[None] - truth[:, None]).abs()).sum(dim=-1)
        return torch.where(is_digit.any(dim=-1) & digits, found, torch.zeros_like(found))


def _scaled(logits: Any, config: Any) -> Any:
    """What some families do to the output layer's logits before they are read: Granite, Cohere, Gemma."""
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if factor := getattr(config, "logit_scale", None):
        logits = logits * factor
    if softcap := getattr(config, "final_logit_softcapping", None):
        logits = softcap * torch.tanh(logits / softcap)
    return logits
