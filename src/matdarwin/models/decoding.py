"""A prompt to an `AnswerDistribution`: the exact probability over the answer tree, with nothing sampled.

All rows of a batch walk the tree together, level by level. The nodes of a row are fed as one short sequence whose
attention mask lets each node see the prompt and its own ancestors only ("tree attention", Miao et al. 2024,
arXiv 2305.09781), so that a level costs one forward pass. The prefix that all prompts of a task share is computed
once. Branches of little mass are dropped and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from matdarwin.language.tree import AnswerTree
from matdarwin.models.distribution import AnswerDistribution

Floats = NDArray[np.float64]

_PROBED_ENDS = 2
SURE_END = 0.999
"""Probability of the terminator from which on an end counts as sure."""

_MAX_NODES = 4096


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of the tree that a row has reached and not yet run."""

    node: int
    logp: float
    path: tuple[int, ...]
    """Cache slots of its ancestors below the prompt."""
    position: int


@dataclass
class _Row:
    """One prompt on its way through the tree."""

    index: int
    length: int
    """Number of prompt tokens, those of the shared prefix included."""
    pad: int
    """Padding tokens between the shared prefix and the rest of the prompt."""
    frontier: list[_Node] = field(default_factory=list)
    ends: list[_Node] = field(default_factory=list)
    """Nodes that only the terminator can follow; they wait until no other node is left."""
    leaves: dict[int, float] = field(default_factory=dict)
    probed: bool = False
    unexpanded: float = 0.0
    assumed: float = 0.0


class Decoder:
    """Walks answer trees with one model.

    Args:
        model: A causal language model of transformers, on its device, in its dtype.
        prune: Greatest mass that may stay unexpanded in a row.
        sure_end: Once the likeliest answers of a row all end with at least this probability, the ends of its less
            likely ones are taken for as sure instead of each being scored. It saves over half of the work; the mass
            concerned is reported. 1 scores every end.
    """

    def __init__(self, model: Any, *, prune: float = 0.01, sure_end: float = SURE_END) -> None:
        if not 0 <= prune <= 0.01:
            raise ValueError(f"at most 1 % of the mass may stay unexpanded, got prune={prune}")
        self._model = model.eval()
        self._prune = prune
        self._sure_end = sure_end
        self._prefixes: dict[tuple[int, ...], Any] = {}

    @torch.inference_mode()
    def distributions(
        self, prompts: Sequence[Sequence[int]], tree: AnswerTree, values: Floats, labels: tuple[str, ...] = (), *, prefix: Sequence[int] = ()
    ) -> list[AnswerDistribution | None]:
        """The answer distribution of each prompt.

        Args:
            prompts: Token ids of the prompts of one batch.
            tree: The answers.
            values: Their values, rising, in the task's unit [n]; empty for classes.
            labels: Their labels [n]; empty for numbers.
            prefix: Token ids that the prompts are known to share; a prompt that does not begin with them makes
                the batch run without.

        Returns:
            One distribution a prompt; None where the model gives no mass at all to the format.
        """
        if not prompts:
            return []
        shared = list(prefix)
        # At least one token must be left to be computed for each row.
        if any(list(p[: len(shared)]) != shared or len(p) == len(shared) for p in prompts):
            shared = []
        rows: list[_Row] = []
        self._walk(self._start(prompts, shared, tree, rows), rows, tree, len(shared), max(map(len, prompts)), classes=bool(labels))
        return [self._finish(row, values, labels) for row in rows]

    # -- the walk ------------------------------------------------------------------------------------------

    def _start(self, prompts: Sequence[Sequence[int]], shared: list[int], tree: AnswerTree, rows: list[_Row]) -> Any:
        """Run the prompts, and the tokens that all answers begin with, and open each row's frontier."""
        forced = [int(tree.tokens[node]) for node in tree.forced]
        width = max(map(len, prompts)) - len(shared)
        count = len(prompts)
        ids = np.zeros((count, width + len(forced)), dtype=np.int64)
        positions = np.zeros_like(ids)
        total = len(shared) + width + len(forced)
        mask = np.zeros((count, 1, width + len(forced), total), dtype=np.bool_)
        causal = np.tril(np.ones((width + len(forced), width + len(forced)), dtype=np.bool_))
        for r, prompt in enumerate(prompts):
            rest = [*prompt[len(shared) :], *forced]
            pad = width + len(forced) - len(rest)
            rows.append(_Row(index=r, length=len(prompt), pad=pad))
            ids[r, pad:] = rest
            positions[r, pad:] = np.arange(len(shared), len(shared) + len(rest))
            mask[r, 0, :, : len(shared)] = True
            mask[r, 0, :, len(shared) :] = causal
            mask[r, 0, :, len(shared) : len(shared) + pad] = False
            # A padding token must see something, or its softmax is not a number; it sees itself.
            for p in range(pad):
                mask[r, 0, p, len(shared) + p] = True
        cache = self._prefix_cache(shared, count)
        logits, norms = self._forward(ids, positions, mask, cache, keep=1 + len(forced))
        slots = tuple(range(len(forced)))
        for r, row in enumerate(rows):
            logp = 0.0
            for k, token in enumerate(forced):
                logp += float(logits[r, k, token] - norms[r, k])
            first = _Node(tree.forced[-1] if tree.forced else 0, logp, slots, row.length + len(forced) - 1)
            self._open(row, [first], logits[r, -1:], norms[r, -1:], tree)
        return cache

    def _walk(self, cache: Any, rows: list[_Row], tree: AnswerTree, shared: int, longest: int, *, classes: bool) -> None:
        """Walk a group of rows down to the leaves; groups of very unequal frontiers are parted."""
        pending = [(cache, rows, len(tree.forced))]
        base = longest
        while pending:
            cache, group, slots = pending.pop()
            group, cache = _keep_open(group, cache)
            if not group:
                continue
            running = [self._next(row, classes=classes) for row in group]
            counts = np.array([len(nodes) for nodes in running])
            cut = _cut(counts)
            if cut is not None:
                for part in cut:
                    pending.append((_select(cache, part), [group[i] for i in part], slots))
                continue
            width = int(counts.max())
            ids = np.zeros((len(group), width), dtype=np.int64)
            positions = np.zeros_like(ids)
            mask = np.zeros((len(group), 1, width, base + slots + width), dtype=np.bool_)
            for r, (row, nodes) in enumerate(zip(group, running, strict=True)):
                mask[r, 0, :, :shared] = True
                mask[r, 0, :, shared + row.pad : base] = True
                for k, node in enumerate(nodes):
                    ids[r, k] = tree.tokens[node.node]
                    positions[r, k] = node.position
                    mask[r, 0, k, [base + slot for slot in node.path]] = True
            own = np.arange(width)
            mask[:, 0, own, base + slots + own] = True
            logits, norms = self._forward(ids, positions, mask, cache, keep=width)
            for r, (row, nodes) in enumerate(zip(group, running, strict=True)):
                if row.frontier:
                    run = [_Node(n.node, n.logp, (*n.path, slots + k), n.position) for k, n in enumerate(nodes)]
                    self._open(row, run, logits[r], norms[r], tree)
                else:
                    self._close(row, nodes, logits[r], norms[r], tree)
            pending.append((cache, group, slots + width))

    def _next(self, row: _Row, *, classes: bool) -> list[_Node]:
        """The nodes of a row to run now: its frontier; after that its ends, where many only the likeliest few."""
        if row.frontier:
            return row.frontier
        if classes or self._sure_end >= 1 or row.probed or len(row.ends) <= _PROBED_ENDS:
            return row.ends
        return sorted(row.ends, key=lambda n: -n.logp)[:_PROBED_ENDS]

    def _close(self, row: _Row, run: list[_Node], logits: Any, norms: Any, tree: AnswerTree) -> None:
        """Take in the terminator's probability after the ends that were run; maybe take the others' for as sure."""
        scores = [float(logits[k, int(tree.child_tokens[n.node][0])] - norms[k]) for k, n in enumerate(run)]
        for node, score in zip(run, scores, strict=True):
            row.leaves[_answer(tree, node)] = node.logp + score
        ran = {node.node for node in run}
        row.ends = [node for node in row.ends if node.node not in ran]
        row.probed = True
        if row.ends and np.exp(min(scores)) >= self._sure_end:
            sure = float(np.log(np.average(np.exp(scores), weights=np.exp([n.logp for n in run]))))
            for node in row.ends:
                row.leaves[_answer(tree, node)] = node.logp + sure
                row.assumed += float(np.exp(node.logp))
            row.ends = []

    def _open(self, row: _Row, run: list[_Node], logits: Any, norms: Any, tree: AnswerTree) -> None:
        """Replace a row's frontier by the children of the nodes that were run, and prune it."""
        parents = np.repeat(np.arange(len(run)), [len(tree.children[n.node]) for n in run])
        children = np.concatenate([tree.children[n.node] for n in run])
        tokens = np.concatenate([tree.child_tokens[n.node] for n in run])
        scores = logits[parents, tokens].astype(np.float64) - norms[parents] + np.array([n.logp for n in run])[parents]
        found: list[_Node] = []
        for k, child, score in zip(parents.tolist(), children.tolist(), scores.tolist(), strict=True):
            if (answer := int(tree.answer[child])) >= 0:
                row.leaves[answer] = score
            else:
                found.append(_Node(child, score, run[k].path, run[k].position + 1))
        masses = np.exp([node.logp for node in found])
        order = np.argsort(masses, kind="stable")
        # Branches dropped early save whole subtrees, but some of the allowance must be left for the level where
        # most branches are: the last but the ends. Ends are few to score, so that dropping them would save nothing.
        last = all(tree.ends[tree.children[node.node][0]] for node in found)
        share = 0.0 if any(tree.ends[node.node] for node in found) else 1.0 if last else 0.5
        dropped = int(np.searchsorted(np.cumsum(masses[order]), (self._prune - row.unexpanded) * share, side="right"))
        row.unexpanded += float(masses[order[:dropped]].sum())
        kept = [found[i] for i in sorted(order[dropped:].tolist())]
        row.frontier = [node for node in kept if not tree.ends[node.node]]
        row.ends += [node for node in kept if tree.ends[node.node]]

    # -- the model -----------------------------------------------------------------------------------------

    def _forward(self, ids: Any, positions: Any, mask: Any, cache: Any, *, keep: int) -> tuple[Any, Any]:
        """Logits of the last `keep` tokens [rows, keep, vocabulary] and the logarithm of their sums of exponentials."""
        device = self._model.device
        out = self._model(
            input_ids=torch.from_numpy(ids).to(device),
            position_ids=torch.from_numpy(positions).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            cache=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits = out.logits.float()
        return logits.cpu().numpy(), torch.logsumexp(logits, dim=-1).double().cpu().numpy()

    def _prefix_cache(self, shared: list[int], count: int) -> Any:
        cache = DynamicCache()
        if not shared:
            return cache
        key = tuple(shared)
        if key not in self._prefixes:
            made = DynamicCache()
            self._model(
                input_ids=torch.tensor([shared], device=self._model.device), cache=made, use_cache=True, logits_to_keep=1
            )
            self._prefixes[key] = [(layer.keys, layer.values) for layer in made.layers]
        for index, (keys, values) in enumerate(self._prefixes[key]):
            cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), index)
        return cache

    def _finish(self, row: _Row, values: Floats, labels: tuple[str, ...]) -> AnswerDistribution | None:
        answers = np.array(sorted(row.leaves), dtype=np.int64)
        masses = np.exp([row.leaves[int(a)] for a in answers])
        inside = float(masses.sum())
        if not np.isfinite(inside) or inside <= 0:
            return None
        outside = max(0.0, 1.0 - inside - row.unexpanded)
        if labels:
            probabilities = np.zeros(len(labels))
            probabilities[answers] = masses / inside
            return AnswerDistribution(np.empty(0), labels, probabilities, outside, row.unexpanded)
        return AnswerDistribution(values[answers], (), masses / inside, outside, row.unexpanded, row.assumed)


def _answer(tree: AnswerTree, end: _Node) -> int:
    return int(tree.answer[tree.children[end.node][0]])


def _keep_open(group: list[_Row], cache: Any) -> tuple[list[_Row], Any]:
    """Drop rows that have no frontier left; the cache follows when that is a good part of them."""
    still = [i for i, row in enumerate(group) if row.frontier or row.ends]
    if len(still) == len(group):
        return group, cache
    return [group[i] for i in still], _select(cache, still) if still else None


def _cut(counts: NDArray[np.int64]) -> tuple[list[int], list[int]] | None:
    """Where to part a group so that less is spent on padding; None where it would not pay."""
    order = np.argsort(counts, kind="stable")
    if len(order) < 2:
        return None
    rising = counts[order]
    whole = int(rising[-1]) * len(order)
    sizes = np.arange(1, len(order))
    costs = rising[:-1] * sizes + rising[-1] * (len(order) - sizes)
    best = int(np.argmin(costs))
    worth = whole - int(costs[best]) > max(64, whole // 4)
    if not worth and whole <= _MAX_NODES:
        return None
    at = best + 1 if worth else len(order) // 2
    return sorted(order[:at].tolist()), sorted(order[at:].tolist())


def _select(cache: Any, rows: list[int]) -> Any:
    chosen = DynamicCache()
    index = torch.tensor(rows, device=cache.layers[0].keys.device)
    for number, layer in enumerate(cache.layers):
        chosen.update(layer.keys[index], layer.values[index], number)
    return chosen
