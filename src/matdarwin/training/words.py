"""The embeddings of the tokens that occur, trained apart from those of the whole vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import functional

from matdarwin.training.errors import TrainingError


class UsedWords:
    """The embeddings of the tokens that occur, trained apart from those of the whole vocabulary.

    A task uses a few hundred of a model's tokens. Training their rows alone spares the gradient of the whole matrix,
    which on a CPU costs up to 9 % of a step; the other rows stay as they are and still count in the softmax.

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
