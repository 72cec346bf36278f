"""Several processes that train one model: who does what, and what they tell each other. One alone pays nothing for it.

The processes are those of `accelerate launch` or `torchrun`. Each holds the whole model (DDP), or a part of each weight
(FSDP2, torch's `fully_shard`) where accelerate's `--use_fsdp`, or ACCELERATE_USE_FSDP=true, asks for it. All draw the same
batches and take their share of the rows; what is written, told, validated and calibrated is the first one's work.
"""

from __future__ import annotations

import copy
import functools
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch

from matdarwin.models import checkpoint as checkpoints
from matdarwin.training.errors import TrainingError

_T = TypeVar("_T")

_PATIENCE = timedelta(days=7)
"""How long processes wait for the first one, which validates and calibrates for them; launchers end them if it fails."""


class Ranks:
    """The processes of a training; this class is one that is alone, `Several` are more.

    Attributes:
        world: Their number.
        rank: Which of them this one is, from 0.
        sharded: Whether each holds a part of each weight.
    """

    world = 1
    rank = 0
    sharded = False

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes, tells and judges."""
        return self.rank == 0

    def first(self, do: Callable[[], _T]) -> _T:
        """Do something in the first process alone while the others wait.

        Returns:
            Its result, in all of them.

        Raises:
            TrainingError: In the others, where it failed in the first, in which the error itself is raised.
        """
        return do()

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set in any process."""
        return flags

    def mean(self, value: float) -> float:
        """The mean of a number over the processes."""
        return value

    @contextmanager
    def hold(self, name: str, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold a checkpoint's name for all; see `checkpoint.hold`."""
        with ExitStack() as held:
            self.first(lambda: held.enter_context(checkpoints.hold(name, waiting=waiting)))
            yield

    def reseed(self, seed: int, step: int) -> None:
        """Draw otherwise than the other processes from here on, and as in every training that comes to this step."""

    def own(self, model: Any) -> Any:
        """The model to train in place of one: itself, or a copy that can be taken apart."""
        return model

    def wrap(self, module: Any, model: Any) -> Any:
        """The module that adds gradients up over the processes, of a module and the causal model in it."""
        return module

    def parts(self, rows: Sequence[_T], cut: Callable[[Sequence[_T]], list[Sequence[_T]]]) -> list[Sequence[_T]]:
        """This process's rows of a batch, cut into parts; each process has equally many, some empty."""
        return cut(rows)

    def unsummed(self, module: Any) -> AbstractContextManager[Any]:
        """While gradients of a wrapped module are only added up in this process, before a batch's last part."""
        return nullcontext()

    def whole(self, tensor: Any) -> Any:
        """The whole of a tensor that may be held in parts; to be called in all processes."""
        return tensor

    def stored(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The wholes of tensors in the first process, nothing in the others; to be called in all processes."""
        return dict(tensors)

    def handed_out(self, tensor: Any, like: Any) -> Any:
        """A new tensor on the device of another, laid out as it is, of values that the first process has as a whole; None in the others."""
        return tensor.to(like.device, copy=True)

    def share(self, model: Any) -> None:
        """Give every process the first one's weights of a whole model; the first one's is then on the device to compute on."""

    def placed(self, model: Any) -> AbstractContextManager[Any]:
        """The first process's whole model on the device to compute on for a while."""
        return nullcontext()


class Several(Ranks):
    """The processes that a launcher has started; see `current`.

    Raises:
        TrainingError: They are to be joined in a way that is not supported.
    """

    def __init__(self) -> None:
        from accelerate import PartialState
        from torch import distributed

        self._dist = distributed
        for kind in ("DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
            if _asked(f"ACCELERATE_USE_{kind}"):
                raise TrainingError(
                    f"accelerate is set to use {kind.lower()}; train with DDP (no option) or --use_fsdp"
                )
        self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
        self.world, self.rank = self._state.num_processes, self._state.process_index
        self.sharded = _asked("ACCELERATE_USE_FSDP")
        self._reshard = True
        if self.sharded:
            self._reshard = _reshard_after_forward()
        # Small things go over the CPU: no GPU is kept busy with waiting.
        self._talk = distributed.new_group(backend="gloo", timeout=_PATIENCE)

    def first(self, do: Callable[[], _T]) -> _T:
        """See `Ranks.first`."""
        told: list[Any] = [None, None]
        if self.is_first:
            try:
                told[0] = do()
            except BaseException as error:
                told[1] = f"the first process has ended: {' '.join(str(error).split()) or type(error).__name__}"
                self._dist.broadcast_object_list(told, src=0, group=self._talk)
                raise
        self._dist.broadcast_object_list(told, src=0, group=self._talk)
        if told[1] is not None:
            raise TrainingError(told[1])
        return told[0]  # type: ignore[no-any-return]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """See `Ranks.any`."""
        told = torch.tensor(flags, dtype=torch.int32)
        self._dist.all_reduce(told, op=self._dist.ReduceOp.MAX, group=self._talk)
        return tuple(bool(flag) for flag in told.tolist())

    def mean(self, value: float) -> float:
        """See `Ranks.mean`."""
        told = torch.tensor(value, dtype=torch.float64)
        self._dist.all_reduce(told, group=self._talk)
        return float(told) / self.world

    def reseed(self, seed: int, step: int) -> None:
        """See `Ranks.reseed`."""
        torch.manual_seed(((seed << 32) + step * self.world + self.rank) % 2**63)

    def own(self, model: Any) -> Any:
        """See `Ranks.own`."""
        return copy.deepcopy(model.to("cpu")) if self.sharded else model

    def wrap(self, module: Any, model: Any) -> Any:
        """See `Ranks.wrap`."""
        if not self.sharded:
            # A wrapper of an earlier stage would still listen to the gradients.
            gc.collect()
            return torch.nn.parallel.DistributedDataParallel(
                module, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self._state.device.type, (self.world,))
        layers = set(getattr(model, "_no_split_modules", None) or ())
        # From the inside out; accelerate does so too, but on CUDA only.
        for part in reversed(list(module.modules())):
            if type(part).__name__ in layers:
                fully_shard(part, mesh=mesh, reshard_after_forward=self._reshard)
        return fully_shard(module, mesh=mesh)

    def parts(self, rows: Sequence[_T], cut: Callable[[Sequence[_T]], list[Sequence[_T]]]) -> list[Sequence[_T]]:
        """See `Ranks.parts`."""
        cuts = [cut(rows[rank :: self.world]) for rank in range(self.world)]
        own = cuts[self.rank]
        # Every process must come to the sum of the gradients equally often.
        return own + [()] * (max(map(len, cuts)) - len(own))

    def unsummed(self, module: Any) -> AbstractContextManager[Any]:
        """See `Ranks.unsummed`."""
        # Unsummed gradients of sharded weights would be whole ones, which may not fit.
        return nullcontext() if self.sharded else module.no_sync()

    def whole(self, tensor: Any) -> Any:
        """See `Ranks.whole`."""
        return tensor.full_tensor() if self.sharded else tensor

    def stored(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """See `Ranks.stored`."""
        made = {}
        for name, tensor in tensors.items():
            whole = self.whole(tensor)
            if self.is_first:
                made[name] = whole.cpu() if self.sharded else whole
        return made

    def handed_out(self, tensor: Any, like: Any) -> Any:
        """See `Ranks.handed_out`."""
        if tensor is None:
            whole = torch.empty(like.shape, dtype=like.dtype, device=self._state.device)
        else:
            whole = tensor.to(self._state.device, like.dtype, copy=True)
        if not self.sharded:
            self._dist.broadcast(whole, src=0)
            return whole
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(whole, like.device_mesh, like.placements)

    def share(self, model: Any) -> None:
        """See `Ranks.share`."""
        if self.is_first or not self.sharded:
            model.to(self._state.device)
        for parameter in model.parameters():
            whole = parameter.detach().to(self._state.device)
            self._dist.broadcast(whole, src=0)
            parameter.detach().copy_(whole)

    @contextmanager
    def placed(self, model: Any) -> Iterator[None]:
        """See `Ranks.placed`."""
        moved = self.sharded and self.is_first
        if moved:
            model.to(self._state.device)
        yield
        if moved:
            model.to("cpu")


@functools.cache
def current() -> Ranks:
    """The processes that a launcher has started this one among; alone where none has."""
    if "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return Several()
    return Ranks()


def _asked(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1", "yes", "on")


def _reshard_after_forward() -> bool:
    """What accelerate's settings say of FSDP that we follow; what we do not is refused.

    Returns:
        Whether a layer's weights are let go after the forward pass and fetched again for the backward pass.
    """
    for name, instead in (
        ("OFFLOAD_PARAMS", "weights cannot be kept on the CPU; set it to false"),
        ("ACTIVATION_CHECKPOINTING", "set it to false, and optimising.checkpointing in the recipe to true"),
    ):
        if _asked(f"FSDP_{name}"):
            raise TrainingError(f"accelerate's fsdp_{name.lower()} is true: {instead}")
    # Parts are cut from the weights that each process has loaded; by default transformers would load them in one alone.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    found = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower()
    if found not in ("true", "full_shard", "false", "shard_grad_op"):
        raise TrainingError(f"accelerate's fsdp_reshard_after_forward is {found}; set it to true or false")
    return found in ("true", "full_shard")
