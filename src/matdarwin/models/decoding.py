"""A prompt to an `AnswerDistribution`: the exact probability over the answer tree, with nothing sampled.

All rows of a batch walk the tree together, level by level. The nodes of a row are fed as one short sequence whose
attention mask lets each node see the prompt and its own ancestors only ("tree attention", Miao et al. 2024,
arXiv 2305.09781), so that a level costs one forward pass. The prefix that all prompts of a task share is computed
once. Branches of little mass are dropped and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from matdarwin.language.tree import AnswerTree
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.models.rowcache import RowCache

Floats = NDArray[np.float64]

_PROBED_ENDS = 2
SURE_END = 0.999
"""Probability of the terminator from which on an end counts as sure."""

USUAL = 384
"""Tokens of a question up to which whole batches are asked, and their cache is kept for the next one."""

MOST_NODES = 1024
"""Most nodes of one row in a forward pass; a wider level takes several."""


class _Passes(NamedTuple):
    """What a forward pass costs beside its tokens, in tokens, and the most tokens in one."""

    cost: int
    most: int


_ON_CPU = _Passes(cost=48, most=2048)
"""The weights are read once more, whatever the number of tokens; logits over the whole vocabulary must fit into memory."""
_ON_GPU = _Passes(cost=2048, most=4096)
"""Some thousand kernels are started one by one, in which time a GPU could do thousands of tokens."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree that a row has reached and not yet run."""

    node: int
    logp: float
    path: tuple[int, ...]
    """Cache columns of its ancestors below the row's base."""
    position: int


@dataclass
class Row:
    """One prompt on its way through the tree."""

    index: int
    base: int = 0
    """Number of its tokens that every node sees: the prompt and what all answers begin with."""
    exact: bool = False
    """Nothing is pruned or assumed: classes are few, and a rare one must not get the probability 0."""
    frontier: list[Node] = field(default_factory=list)
    """Nodes of the present level that are still to be run."""
    level: list[Node] = field(default_factory=list)
    """Nodes of the next level that are found so far."""
    ends: list[Node] = field(default_factory=list)
    """Nodes that only the terminator can follow; they wait until no other node is left."""
    leaves: dict[int, float] = field(default_factory=dict)
    probed: bool = False
    unexpanded: float = 0.0
    assumed: float = 0.0


class _Chosen:
    """Log-probabilities of the tokens that answers are made of [nodes, tokens], to be had by node and token id."""

    def __init__(self, values: NDArray[np.float32], alphabet: NDArray[np.int64]) -> None:
        self._values, self._alphabet = values, alphabet

    def __getitem__(self, at: tuple[Any, Any]) -> Any:
        nodes, tokens = at
        return self._values[nodes, np.searchsorted(self._alphabet, tokens)]


class Decoder:
    """Walks answer trees with one model.

    Args:
        model: A causal language model of transformers, on its device, in its dtype.
        prune: Greatest share of a row's mass within the format that may stay unexpanded.
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
        self._prefixes: dict[tuple[int, ...], list[tuple[Any, Any]]] = {}
        self._cache = RowCache(0)
        device = getattr(model, "device", None)
        self._passes = _ON_GPU if device is not None and device.type == "cuda" else _ON_CPU

    @torch.inference_mode()
    def distributions(
        self,
        prompts: Sequence[Sequence[int]],
        tree: AnswerTree,
        values: Floats,
        labels: tuple[str, ...] = (),
        *,
        prefix: Sequence[int] = (),
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
        rows, cache = self._start(prompts, shared, tree, exact=bool(labels))
        while open_rows := [row for row in rows if row.frontier or row.ends]:
            running = {row.index: self._next(row)[:MOST_NODES] for row in open_rows}
            for group in _groups(open_rows, [len(running[row.index]) for row in open_rows], self._passes):
                self._advance(group, [running[row.index] for row in group], cache, tree)
        return [self._finish(row, values, labels) for row in rows]

    # -- the walk ------------------------------------------------------------------------------------------

    def _start(
        self, prompts: Sequence[Sequence[int]], shared: list[int], tree: AnswerTree, *, exact: bool
    ) -> tuple[list[Row], RowCache]:
        """Run the prompts, and the tokens that all answers begin with, and open each row's frontier."""
        forced = [int(tree.tokens[node]) for node in tree.forced]
        rests = [[*prompt[len(shared) :], *forced] for prompt in prompts]
        count = len(prompts)
        if self._cache.most < count:
            self._cache = RowCache(count)
        # A cache keeps the widest prompt's room for as many rows as it ever had.
        wide = len(shared) + max(map(len, rests)) > USUAL
        cache = RowCache(count) if wide else self._cache
        cache.begin(count)
        if shared:
            cache.lend(self._prefix(shared))
        rows = [Row(index=r, base=len(shared) + len(rest), exact=exact) for r, rest in enumerate(rests)]
        for group in _groups(rows, [len(rest) for rest in rests], self._passes):
            indices = [row.index for row in group]
            width = max(len(rests[r]) for r in indices)
            total = cache.aim(indices, width, self._model.device)
            ids = np.zeros((len(group), width), dtype=np.int64)
            for k, r in enumerate(indices):
                ids[k, : len(rests[r])] = rests[r]
            positions = np.broadcast_to(np.arange(len(shared), total), ids.shape).copy()
            # Padding stands behind the real tokens, and none of them looks ahead.
            ahead = np.tril(np.ones((width, total), dtype=np.bool_), len(shared))
            mask = np.broadcast_to(ahead, (len(group), 1, width, total)).copy()
            keep = 1 + len(forced) + width - min(len(rests[r]) for r in indices)
            logps = self._forward(ids, positions, mask, cache, tree, keep=keep)
            cache.keep(indices, [len(rests[r]) for r in indices])
            for k, row in enumerate(group):
                first = keep - width + len(rests[row.index]) - 1 - len(forced)
                said = _Chosen(logps[k, first:], tree.alphabet)
                logp = sum(float(said[i, token]) for i, token in enumerate(forced))
                root = Node(tree.forced[-1] if tree.forced else 0, logp, (), row.base - 1)
                self._open(row, [root], _Chosen(logps[k, first + len(forced) :], tree.alphabet), tree)
        return rows, cache

    def _advance(self, group: list[Row], running: list[list[Node]], cache: RowCache, tree: AnswerTree) -> None:
        """Run some nodes of each row of a group in one pass, and take in what the model says after them."""
        indices = [row.index for row in group]
        width = max(map(len, running))
        before = cache.lengths[indices].tolist()
        total = cache.aim(indices, width, self._model.device)
        ids = np.zeros((len(group), width), dtype=np.int64)
        positions = np.zeros_like(ids)
        mask = np.zeros((len(group), 1, width, total), dtype=np.bool_)
        for r, (row, nodes) in enumerate(zip(group, running, strict=True)):
            mask[r, 0, :, : row.base] = True
            for k, node in enumerate(nodes):
                ids[r, k] = tree.tokens[node.node]
                positions[r, k] = node.position
                mask[r, 0, k, [*node.path, before[r] + k]] = True
        logps = self._forward(ids, positions, mask, cache, tree, keep=width)
        cache.keep(indices, [len(nodes) for nodes in running])
        for r, (row, nodes) in enumerate(zip(group, running, strict=True)):
            said = _Chosen(logps[r], tree.alphabet)
            if row.frontier:
                row.frontier = row.frontier[len(nodes) :]
                run = [Node(n.node, n.logp, (*n.path, before[r] + k), n.position) for k, n in enumerate(nodes)]
                self._open(row, run, said, tree)
            else:
                self._close(row, nodes, said, tree)

    def _next(self, row: Row) -> list[Node]:
        """The nodes of a row to run now: its frontier; after that its ends, where many only the likeliest few."""
        if row.frontier:
            return row.frontier
        if row.exact or self._sure_end >= 1 or row.probed or len(row.ends) <= _PROBED_ENDS:
            return row.ends
        return sorted(row.ends, key=lambda n: -n.logp)[:_PROBED_ENDS]

    def _close(self, row: Row, run: list[Node], logps: Any, tree: AnswerTree) -> None:
        """Take in the terminator's probability after the ends that were run; maybe take the others' for as sure."""
        scores = [float(logps[k, tree.child_tokens[n.node][0]]) for k, n in enumerate(run)]
        for node, score in zip(run, scores, strict=True):
            row.leaves[_answer(tree, node)] = node.logp + score
        ran = {node.node for node in run}
        row.ends = [node for node in row.ends if node.node not in ran]
        row.probed = True
        if row.ends and not row.exact and np.exp(min(scores)) >= self._sure_end:
            sure = float(np.log(np.average(np.exp(scores), weights=np.exp([n.logp for n in run]))))
            for node in row.ends:
                row.leaves[_answer(tree, node)] = node.logp + sure
                row.assumed += float(np.exp(node.logp))
            row.ends = []

    def _open(self, row: Row, run: list[Node], logps: Any, tree: AnswerTree) -> None:
        """Take in the children of nodes that were run; once a level is through, prune it and make it the frontier."""
        parents = np.repeat(np.arange(len(run)), [len(tree.children[n.node]) for n in run])
        children = np.concatenate([tree.children[n.node] for n in run])
        tokens = np.concatenate([tree.child_tokens[n.node] for n in run])
        scores = logps[parents, tokens].astype(np.float64) + np.array([n.logp for n in run])[parents]
        found = row.level
        for k, child, score in zip(parents.tolist(), children.tolist(), scores.tolist(), strict=True):
            if (answer := int(tree.answer[child])) >= 0:
                row.leaves[answer] = score
            else:
                found.append(Node(child, score, run[k].path, run[k].position + 1))
        if row.frontier:
            return
        row.level = []
        masses = np.exp([node.logp for node in found])
        order = np.argsort(masses, kind="stable")
        # Branches dropped early save whole subtrees, but some of the allowance must be left for the level where
        # most branches are: the last but the ends. Ends are few to score, so that dropping them would save nothing.
        last = all(tree.ends[tree.children[node.node][0]] for node in found)
        share = 0.0 if row.exact or any(tree.ends[node.node] for node in found) else 1.0 if last else 0.5
        # Of what can still end inside the format, not of all: a model that puts little there is not to lose it.
        within = float(
            masses.sum() + sum(np.exp(node.logp) for node in row.ends) + sum(map(np.exp, row.leaves.values()))
        )
        allowance = max(0.0, self._prune * within - row.unexpanded) * share
        dropped = int(np.searchsorted(np.cumsum(masses[order]), allowance, side="right"))
        row.unexpanded += float(masses[order[:dropped]].sum())
        kept = [found[i] for i in sorted(order[dropped:].tolist())]
        row.frontier = [node for node in kept if not tree.ends[node.node]]
        row.ends += [node for node in kept if tree.ends[node.node]]

    # -- the model -----------------------------------------------------------------------------------------

    def _forward(self, ids: Any, positions: Any, mask: Any, cache: Any, tree: AnswerTree, *, keep: int) -> Any:
        """Log-probabilities, after each of the last `keep` tokens, of those that answers are made of [rows, keep, alphabet]."""
        device = self._model.device
        out = self._model(
            input_ids=torch.from_numpy(ids).to(device),
            position_ids=torch.from_numpy(positions).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            cache=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logps = torch.log_softmax(out.logits.float(), dim=-1)
        # A dozen columns of fifty thousand, so that from a GPU little has to be brought.
        return logps[..., torch.from_numpy(tree.alphabet).to(device)].cpu().numpy()

    def _prefix(self, shared: list[int]) -> list[tuple[Any, Any]]:
        """Keys and values of a shared prefix, by layer; computed once."""
        key = tuple(shared)
        if key not in self._prefixes:
            made = DynamicCache()
            self._model(
                input_ids=torch.tensor([shared], device=self._model.device),
                cache=made,
                use_cache=True,
                logits_to_keep=1,
            )
            self._prefixes[key] = [(layer.keys, layer.values) for layer in made.layers]
        return self._prefixes[key]

    def _finish(self, row: Row, values: Floats, labels: tuple[str, ...]) -> AnswerDistribution | None:
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


def _answer(tree: AnswerTree, end: Node) -> int:
    return int(tree.answer[tree.children[end.node][0]])


def _groups(rows: list[Row], counts: list[int], passes: _Passes) -> list[list[Row]]:
    """Part rows into groups for one pass each, at the least cost of padding and passes together."""
    order = np.argsort(counts, kind="stable")
    rising = np.array(counts)[order]
    # cost[i]: least cost of the first i rows; a group costs its rows times its widest, and a pass.
    cost = np.zeros(len(order) + 1)
    begin = np.zeros(len(order) + 1, dtype=np.int64)
    for i in range(1, len(order) + 1):
        tokens = (i - np.arange(i)) * rising[i - 1]
        options = cost[:i] + np.where((tokens <= passes.most) | (np.arange(i) == i - 1), tokens + passes.cost, np.inf)
        begin[i] = int(np.argmin(options))
        cost[i] = options[begin[i]]
    groups = []
    i = len(order)
    while i > 0:
        groups.append([rows[k] for k in sorted(order[begin[i] : i].tolist())])
        i = int(begin[i])
    return groups
