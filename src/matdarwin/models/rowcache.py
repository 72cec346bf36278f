"""Keys and values of many rows, each row of its own length, of which any subset can be run next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

_SPARE = 96
"""Columns that are added when a row's tokens no longer fit; growing costs a copy of everything."""


class RowCache(DynamicCache):  # type: ignore[misc]  # transformers' types are skipped
    """A key-value cache whose rows advance on their own.

    A forward pass is announced with `aim`: which rows it runs and how many tokens each. Its tokens are written behind
    what those rows hold; attention then sees the rows' columns up to the longest of them, and a mask must hide what is
    not a row's own. `keep` says how many of the tokens just written stay; the rest are overwritten by the next pass.

    One cache serves batch after batch, since fresh memory is costly to touch; `begin` empties it.

    Args:
        most: Most rows it can hold.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self._tensors: list[list[Any]] = []
        self.lengths: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._rows: Any = None
        self._columns: Any = None
        self._upto = 0

    def begin(self, count: int) -> None:
        """Begin anew with `count` empty rows."""
        if count > self.most:
            raise ValueError(f"a cache for {self.most} rows cannot hold {count}")
        self.lengths = np.zeros(count, dtype=np.int64)
        self._columns = None

    def lend(self, layers: Sequence[tuple[Any, Any]]) -> None:
        """Begin every row with the same keys and values [1, heads, tokens, dimension], given by layer."""
        for number, (keys, values) in enumerate(layers):
            self._room(number, keys)
            for tensor, given in zip(self._tensors[number], (keys, values), strict=True):
                tensor[:, :, : given.shape[2]] = given
        if layers:
            self.lengths += layers[0][0].shape[2]

    def aim(self, rows: Sequence[int], tokens: int, device: Any) -> int:
        """Announce a pass over `rows` with `tokens` tokens each; returns the number of columns attention will see."""
        starts = self.lengths[list(rows)]
        self._upto = int(starts.max()) + tokens
        everything = len(rows) == self.most and all(r == i for i, r in enumerate(rows))
        self._rows = None if everything else torch.tensor(list(rows), device=device)
        self._columns = torch.from_numpy(starts[:, None] + np.arange(tokens)).to(device)
        return self._upto

    def keep(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Keep the first so many of the tokens that the last pass wrote for each of its rows."""
        self.lengths[list(rows)] += np.asarray(tokens, dtype=np.int64)

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write a layer's new keys and values [rows, heads, tokens, dimension]; return all that attention sees."""
        self._room(layer_idx, key_states)
        found = []
        for tensor, given in zip(self._tensors[layer_idx], (key_states, value_states), strict=True):
            rows = torch.arange(self.most, device=given.device) if self._rows is None else self._rows
            # Advanced indices around a slice: the indexed dimensions come first, hence the transpose.
            tensor[rows[:, None], :, self._columns] = given.transpose(1, 2)
            found.append(tensor[:, :, : self._upto] if self._rows is None else tensor[self._rows, :, : self._upto])
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns that the announced pass will see before its own tokens; only asked for where no mask is given."""
        return self._upto - (self._columns.shape[1] if self._columns is not None else 0)

    def _room(self, layer: int, like: Any) -> None:
        needed = max(self._upto, like.shape[2] if self._columns is None else 0)
        if layer == len(self._tensors):
            shape = (self.most, like.shape[1], needed + _SPARE, like.shape[3])
            self._tensors.append([torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2)])
        elif self._tensors[layer][0].shape[2] < needed:
            extra = needed + _SPARE - self._tensors[layer][0].shape[2]
            self._tensors[layer] = [torch.nn.functional.pad(t, (0, 0, 0, extra)) for t in self._tensors[layer]]
