"""The training loop: rows in, moved weights out. To be read from top to bottom.

Batches come with rows of like length (see training/feed.py), so that little work goes into padding, and only the
answers' positions reach the output layer (training/objective.py). The loop's state can be taken out and put back at
any step; it then goes on bit for bit as it would have. Several processes take their share of each batch
(training/ranks.py); the state is the same whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from matdarwin.language.prompts import Encoded
from matdarwin.training.average import WeightAverage
from matdarwin.training.batches import collate
from matdarwin.training.errors import TrainingError
from matdarwin.training.graphs import Graphs
from matdarwin.training.objective import AnswerLoss
from matdarwin.training.options import TOKENS_AT_ONCE, Optimising
from matdarwin.training.parts import by_rows, by_tokens
from matdarwin.training.ranks import Ranks
from matdarwin.training.schedule import learning_rate
from matdarwin.training.words import UsedWords


@dataclass(frozen=True)
class Step:
    """What one step did: its number from 1, the loss a token, the rate, the gradient's norm, and its tokens."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int


class Loop:
    """A model in training.

    Args:
        model: The model, on its device, weights in fp32.
        options: The recipe's `optimising`.
        total: Steps of the whole training, which the rate's way goes by.
        autocast: torch dtype to compute in, or None for that of the weights.
        words: Embeddings that are trained apart.
        digits: Token ids of 0 to 9, for a number loss.
        ranks: The processes that train together.
        seed: Seed of what several processes draw; one alone goes on with torch's state.

    Raises:
        TrainingError: The layers of this model, or sharded ones, are to be compiled.

    Attributes:
        done: Steps that were made.
        average: The mean of the last weights, where the recipe asks for it.
    """

    def __init__(
        self,
        model: Any,
        options: Optimising,
        total: int,
        *,
        autocast: Any | None = None,
        words: UsedWords | None = None,
        digits: Sequence[int] | None = None,
        ranks: Ranks | None = None,
        seed: int = 0,
    ) -> None:
        self._options, self._total, self._autocast = options, total, autocast
        self._ranks, self._seed, self._given = ranks or Ranks(), seed, model
        model = self._ranks.own(model)
        if options.compile and self._ranks.sharded:
            raise TrainingError("optimising.compile: not with sharded weights; leave the key out, or train with DDP")
        if options.checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            # An earlier stage may have left it on.
            model.activation_checkpointing_disable()
        loss = AnswerLoss(
            model, words, number_loss=options.number_loss, weight=options.number_weight, digits=digits,
            checkpointing=options.checkpointing, compile=options.compile,
        )  # fmt: skip
        self._share = loss.shares
        if self._ranks.sharded and self._share == "all":
            # A prefix is a pass of its own there, and all processes have to come to the weights equally often.
            self._share = "none"
        self._module = self._ranks.wrap(loss, model)
        self._weights = {name: p for name, p in loss.named_parameters() if p.requires_grad}
        self._optimiser = torch.optim.AdamW(
            list(self._weights.values()),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self._device = next(loss.parameters()).device
        if self._device.type == "cuda":
            # Its gradients can be no numbers on Hopper, with a mask above all: github.com/pytorch/pytorch/issues/196678.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self._graphs = None
        # Digits of a number loss are made anew in each step, which a recording cannot.
        if (
            self._device.type == "cuda"
            and self._ranks.world == 1
            and loss.packs
            and not options.compile
            and options.number_loss == "none"
            and options.micro_tokens is None
        ):
            self._graphs = Graphs(loss, self._device, autocast, options.micro_batch or options.batch_size)
        self._running: Sequence[Encoded] = ()
        self.done = 0
        self.average = None
        if options.average:
            first = total - max(1, round(options.average * total)) + 1
            self.average = WeightAverage(list(self._weights.values()), first=first, total=total)

    def step(self, rows: Sequence[Encoded]) -> Step:
        """Move the weights by one batch.

        Raises:
            TrainingError: The loss or the gradient is not a number, before it has spoiled the weights; or the memory
                does not suffice.
        """
        with memory(f"step {self.done + 1}", self._smaller):
            return self._step(rows)

    def _step(self, rows: Sequence[Encoded]) -> Step:
        self._module.train()
        rate = learning_rate(self.done, self._total, self._options)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._ranks.reseed(self._seed, self.done)
        # Gradients are means over the processes, each of which has its rows alone.
        judged = sum(len(row.answer) for row in rows) / self._ranks.world
        parts = self._ranks.parts(rows, self._cut)
        loss = 0.0
        for number, own in enumerate(parts, start=1):
            self._running = own
            if self._graphs is not None and self._graphs.take(own):
                loss += float(self._graphs.run(own, judged))
                continue
            # A process without rows runs one that is another's, for nothing: all have to come to the sum of the gradients.
            batch = collate(own or [min(rows, key=lambda row: len(row.prompt))], self._device, share=self._share)
            with self._ranks.unsummed(self._module) if number < len(parts) else nullcontext():
                with torch.autocast(self._device.type, self._autocast) if self._autocast else nullcontext():
                    part = self._module(batch) / judged
                if not own:
                    part = part * 0
                part.backward()
            loss += float(part.detach())
        loss = self._ranks.mean(loss)
        norm = self._clip()
        for what, value in (("loss", loss), ("gradient", norm)):
            if not torch.isfinite(torch.tensor(value)):
                self._forget_gradients()
                raise TrainingError(f"the {what} is {value} at step {self.done + 1}; lower optimising.learning_rate")
        self._optimiser.step()
        self._forget_gradients()
        self.done += 1
        if self.average is not None:
            self.average.take(self.done)
        # The last token of an answer is only ever a target.
        tokens = sum(len(row.prompt) + len(row.answer) - 1 for row in rows)
        return Step(self.done, loss, rate, norm, tokens)

    @property
    def _room(self) -> int | None:
        """Tokens that are in memory at once. A GPU wants many, and has memory for them; computed anew, few are kept."""
        bound = self._device.type == "cpu" and not self._options.checkpointing
        return self._options.micro_tokens or (TOKENS_AT_ONCE if bound else None)

    def _cut(self, rows: Sequence[Encoded]) -> list[Sequence[Encoded]]:
        """What is in memory at once."""
        parts = by_rows(rows, self._options.micro_batch or max(1, len(rows)))
        if self._room is None:
            return parts
        return [small for part in parts for small in by_tokens(part, self._room, share=self._share)]

    def _smaller(self) -> str:
        """What the memory did not suffice for, and what takes less."""
        rows = self._running
        if not rows:
            return "; set method to lora, or choose a smaller base"
        longest = max(len(row.prompt) + len(row.answer) for row in rows)
        less = []
        if len(rows) > 1 and self._room is None:
            less.append(
                f"optimising.micro_batch to {len(rows) // 2} or less, which adds the gradients of parts of a batch"
            )
        elif len(rows) > 1:
            run = len(collate(rows, "cpu", share=self._share).ids)
            less.append(f"optimising.micro_tokens to {run // 2} or less, which adds the gradients of parts of a batch")
        less.append("method to lora" if self._options.checkpointing else "optimising.checkpointing to true")
        some = f"{len(rows)} rows of up to {longest} tokens" if len(rows) > 1 else f"one row of {longest} tokens"
        return f" for {some}; set {', or '.join(less)}"

    def _forget_gradients(self) -> None:
        # Recorded steps add to the tensors that they were recorded with.
        self._optimiser.zero_grad(set_to_none=self._graphs is None)

    def _clip(self) -> float:
        """Shorten the gradient where it is too long, and tell how long it was."""
        weights = list(self._weights.values())
        norm = self._ranks.whole(torch.nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None]))
        torch.nn.utils.clip_grads_with_norm_(weights, self._options.clip, norm)
        return float(norm)

    def collect(self) -> None:
        """Put the weights into the model that was given, where a copy of it is trained; to be called in all processes."""
        if not self._ranks.sharded:
            return
        given = dict(self._given.named_parameters())
        with torch.no_grad():
            for name, p in self._weights.items():
                for whole in self._ranks.stored({name: p.detach()}).values():
                    given[name.removeprefix("model.")].copy_(whole)

    def state(self) -> tuple[dict[str, Any], dict[str, int]]:
        """All that the next step depends on but the feed: tensors by name, and numbers.

        To be called in all processes; the tensors are the first one's to have.
        """
        tensors = {f"weights/{name}": p.detach() for name, p in self._weights.items()}
        for name, p in self._weights.items():
            held = self._optimiser.state.get(p, {})
            tensors |= {f"{kind}/{name}": held[kind] for kind in ("exp_avg", "exp_avg_sq") if kind in held}
        if self.average is not None:
            tensors |= {f"average/{n}": mean for n, mean in zip(self._weights, self.average.means, strict=True)}
        tensors = self._ranks.stored(tensors)
        tensors["random/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self._device)
        return tensors, {"done": self.done, "averaged": self.average.count if self.average else 0}

    def restore(self, tensors: Mapping[str, Any], numbers: Mapping[str, int]) -> None:
        """Put a state back that was taken from a loop over the same model, options and words.

        Args:
            tensors: Its tensors; those of the first process count, the others need none.
            numbers: Its numbers.

        Raises:
            TrainingError: It is that of another.
        """
        stored = self._ranks.first(lambda: set(tensors))
        names = {name.partition("/")[2] for name in stored if name.startswith("weights/")}
        if names != set(self._weights):
            raise TrainingError(
                "the saved state has other weights in training than this recipe; remove it and begin anew"
            )
        with torch.no_grad():
            for place, (name, p) in enumerate(self._weights.items()):
                held = {
                    kind: self._ranks.handed_out(tensors.get(f"{kind}/{name}"), p)
                    for kind in ("weights", "exp_avg", "exp_avg_sq", "average")
                    if f"{kind}/{name}" in stored
                }
                p.copy_(held["weights"])
                if "exp_avg" in held:
                    self._optimiser.state[p] = {
                        "step": torch.tensor(float(numbers["done"]), device=p.device),
                        "exp_avg": held["exp_avg"],
                        "exp_avg_sq": held["exp_avg_sq"],
                    }
                if self.average is not None:
                    self.average.means[place].copy_(held["average"])
        if self.average is not None:
            self.average.count = numbers["averaged"]
        if "random/cpu" in tensors:
            torch.set_rng_state(tensors["random/cpu"].cpu())
        if "random/cuda" in tensors and self._device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random/cuda"].cpu(), self._device)
        self.done = numbers["done"]


@contextmanager
def memory(place: str, remedy: Callable[[], str]) -> Iterator[None]:
    """Where the memory does not suffice, say at what place, and what to do.

    Args:
        place: The place, in words.
        remedy: What takes less, as the end of the sentence.

    Raises:
        TrainingError: It did not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise TrainingError(f"the memory does not suffice at {place}{remedy()}") from error


def _out_of_memory(error: BaseException) -> bool:
    # CUDA and its libraries have words of their own where memory that PyTorch does not manage is short.
    said = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in str(error) for words in said)
