"""What training makes small: the cross-entropy of the answer and its terminator, and what a recipe adds for numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch.nn import functional
from transformers import DynamicCache

from matdarwin.training.batches import IGNORED, Batch, Sharing
from matdarwin.training.compiling import CompiledLayers
from matdarwin.training.errors import TrainingError
from matdarwin.training.packing import can_pack, has_windows, hidden_states, hidden_states_of_rows
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
        checkpointing: Whether the model computes activations anew on the way back.
        compile: Whether the model's layers run compiled.

    Raises:
        TrainingError: Layers are to be compiled of a model whose batches cannot be packed.
    """

    def __init__(
        self,
        model: Any,
        words: UsedWords | None = None,
        *,
        number_loss: NumberLoss = "none",
        weight: float = 0.0,
        digits: Sequence[int] | None = None,
        checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.words = words
        self.rows = torch.nn.ParameterList(words.parameters if words else [])
        self._number_loss, self._weight = number_loss, weight
        self._digits = list(digits or [])
        self._checkpointing = checkpointing
        # What is computed anew on the way back would be so without its layout.
        self._packs = can_pack(model.config) and not checkpointing
        if compile and not self._packs:
            raise TrainingError(
                f"optimising.compile: for models whose batches can be packed, which those of type {model.config.model_type} "
                "cannot; leave the key out"
            )
        self._compiled = CompiledLayers(self._base.get_decoder()) if compile else None

    @property
    def _base(self) -> Any:
        """The model itself, where low-rank updates are wrapped around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def packs(self) -> bool:
        """Whether the model's attention is plain, so that batches may be laid out in any way."""
        return self._packs

    @property
    def shares(self) -> Sharing:
        """Which prefixes can be run once for the rows of a batch.

        Their keys and values may not be thrown away then, and no window of attention may end inside them. Rows that are
        padded need one that all share.
        """
        if self._packs:
            return "groups"
        return "none" if self._checkpointing or has_windows(self._base.config) else "all"

    def forward(self, batch: Batch) -> Any:
        """Sum of the losses of a batch's judged positions, in nats."""
        targets, base = batch.targets, self._base
        output = base.get_output_embeddings() if self.words is None else self.words.output
        if batch.padded:
            ids = batch.ids.view(batch.places.shape)
            hidden = hidden_states_of_rows(base.get_decoder(), ids, self.words.embed(ids) if self.words else None)
        elif self._packs:
            with self._compiled.used() if self._compiled else nullcontext():
                hidden = hidden_states(base.get_decoder(), batch, self.words.embed(batch.ids) if self.words else None)
        else:
            hidden = self._padded(base, batch)
        logits = _scaled(output(hidden[batch.judged]).float(), base.config)
        loss = functional.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
        if batch.soft is not None:
            places, tokens, shares = batch.soft
            logp = torch.log_softmax(logits, dim=-1)
            taught = torch.zeros_like(loss).index_add(0, places, -shares * logp[places, tokens])
            soft = torch.zeros_like(loss, dtype=torch.bool).index_fill(0, places, True)
            loss = torch.where(soft, taught, loss)
        if self._number_loss != "none":
            loss = loss + self._weight * self._as_numbers(logits, targets, batch.digits)
        return loss.sum()

    def _padded(self, base: Any, batch: Batch) -> Any:
        """Hidden states of a batch's tokens by way of padded rows behind their prefix, for models that cannot be packed."""
        if batch.heads is not None and batch.heads.of is not None:
            raise ValueError("rows that are padded share one prefix: collate them with share='all'")
        decoder = base.get_decoder()

        def run(ids: Any, **options: Any) -> Any:
            if self.words is None:
                return decoder(input_ids=ids, **options)
            return decoder(inputs_embeds=self.words.embed(ids), **options)

        before, (count, length) = batch.prefix, batch.places.shape
        rows = batch.ids[batch.places]
        # Attention is causal: no token sees the padding, which stands on the right.
        if not before:
            return run(rows, use_cache=False).last_hidden_state.flatten(0, 1)[batch.back]
        prefix, cache = DynamicCache(), DynamicCache()
        last = run(batch.ids[None, :before], cache=prefix, use_cache=True).last_hidden_state
        for number, layer in enumerate(prefix.layers):
            cache.update(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), number)
        mask = torch.ones((length, before + length), dtype=torch.bool, device=rows.device).tril(before)
        positions = torch.arange(before, before + length, device=rows.device)[None]
        hidden = run(
            rows, position_ids=positions, attention_mask=mask.expand(count, 1, -1, -1), cache=cache, use_cache=True
        ).last_hidden_state.flatten(0, 1)[batch.back]  # fmt: skip
        # Nothing of the prefix is judged, yet a gradient reaches its last layer this way, which FSDP waits for.
        return torch.cat([last[0], hidden])

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
