"""Layers that are compiled (torch.compile), for training alone: the same model answers as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from matdarwin.training.errors import TrainingError

_VARIANTS = 64
"""Most variants of a layer: batches without a prefix, with one and with several, of short rows and of long ones, and layers without gradients
before them, are each compiled for themselves. torch's own limit, of eight, would end a training half way."""


class CompiledLayers:
    """The layers of a decoder, compiled as one function that all of them share.

    Lengths and numbers of rows are left open, so that it is compiled once and not for each batch. What cannot be
    compiled whole is refused: in parts it would only look compiled.

    Args:
        decoder: A model without its output layer that runs packed batches (training/packing.py).
    """

    def __init__(self, decoder: Any) -> None:
        self._name = type(decoder).__name__
        self._layers = list(decoder.layers)
        # Each class of layers once; there is one in nearly all models.
        kinds = {type(layer) for layer in self._layers}
        # torch's own overloads lack the limit.
        compiled = partial(torch.compile, dynamic=True, fullgraph=True, recompile_limit=_VARIANTS)
        self._compiled = {kind: compiled(kind.forward) for kind in kinds}

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it, the layers run compiled.

        Raises:
            TrainingError: They cannot be compiled here, or for no more kinds of batches.
        """
        for layer in self._layers:
            layer.forward = MethodType(self._compiled[type(layer)], layer)
        try:
            yield
        except TorchDynamoException as error:
            says = " ".join(str(error).split())[:300]
            raise TrainingError(
                f"optimising.compile: the layers of {self._name} cannot be compiled on this machine ({says}); "
                "it takes a C++ compiler on a CPU. Leave the key out to train without"
            ) from error
        except FailOnRecompileLimitHit as error:
            raise TrainingError(
                f"optimising.compile: batches have come in more than {_VARIANTS} shapes that the layers of {self._name} are compiled anew "
                "for. Leave the key out to train without, which is a run of its own"
            ) from error
        finally:
            for layer in self._layers:
                del layer.forward
