"""The predictor of a screen whose model a vLLM server holds: the same walk through the answers, by its log-probabilities.

The prompts, the tokenizer, the tree of answers, the pruning and the intervals are the checkpoint's own, here; its weights
stay unread. For each node of the tree that the walk reaches, the server is given prompt and path as token ids
(`POST /v1/completions`, `max_tokens` 1) and says the log-probabilities of the node's own children
(`logprob_token_ids`), so that nothing rests on what is among its likeliest tokens. A node's prompt begins with that of its
parent, which prefix caching makes cheap; `prompt_logprobs` would score a whole path at once, but go without that cache.

The server: vLLM 0.26 or later (`logprob_token_ids` came to the completions interface in July 2026; whether it is there is
looked at, not the version), with an export of the very checkpoint under the checkpoint's name:

    darwin models export NAME --to FOLDER
    vllm serve FOLDER --served-model-name NAME --dtype float32 --max-logprobs 128

Without `--dtype float32` vLLM rounds to 16 bits, and values differ. The name and the tokens are compared before anything
is asked; the weights cannot be, so that a server must be started anew where its checkpoint was trained anew.

It is tested against a stand-in that speaks the same interface (tests/vllm_stand_in.py), not against vLLM itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdarwin.language.answers import format_answer, grid
from matdarwin.language.tree import AnswerTree
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.models.decoding import MOST_NODES, Decoder, Floats, Node, Row
from matdarwin.models.distribution import AnswerDistribution
from matdarwin.prediction.engines import EngineError
from matdarwin.prediction.prediction import Prediction
from matdarwin.prediction.predictor import Predictor, Progress
from matdarwin.prediction.vllm_server import TIMEOUT, Query, VllmServer, holds
from matdarwin.tasks.schema import Example, Task

ROWS = 256
"""Questions that walk the tree together, where no batch size is given."""


class RemoteDecoder(Decoder):
    """The walk of `Decoder`, with the log-probabilities of a server.

    Args:
        model: `Elsewhere`.
        prune: See `Decoder`.
        sure_end: See `Decoder`.
    """

    def distributions(
        self,
        prompts: Sequence[Sequence[int]],
        tree: AnswerTree,
        values: Floats,
        labels: tuple[str, ...] = (),
        *,
        prefix: Sequence[int] = (),
    ) -> list[AnswerDistribution | None]:
        """See `Decoder.distributions`; `prefix` is not needed, the server finds it itself."""
        ask: Callable[[Sequence[Query]], list[dict[int, float]]] = self._model.server.logps
        forced = [int(tree.tokens[node]) for node in tree.forced]
        root = tree.forced[-1] if tree.forced else 0
        queries: list[Query] = []
        for prompt in prompts:
            queries += [(prompt, forced[:i], (token,)) for i, token in enumerate(forced)]
            queries.append((prompt, forced, _children(tree, root)))
        scores = iter(ask(queries))
        rows = [Row(index=r, exact=bool(labels)) for r in range(len(prompts))]
        for row in rows:
            logp = sum(next(scores)[token] for token in forced)
            self._open(row, [Node(root, logp, (), 0)], _Scores([next(scores)]), tree)
        paths: dict[int, list[int]] = {}
        while open_rows := [row for row in rows if row.frontier or row.ends]:
            running = [self._next(row)[:MOST_NODES] for row in open_rows]
            for nodes in running:
                paths.update((n.node, _path(tree, n.node)) for n in nodes if n.node not in paths)
            scores = iter(
                ask(
                    [
                        (prompts[row.index], paths[node.node], _children(tree, node.node))
                        for row, nodes in zip(open_rows, running, strict=True)
                        for node in nodes
                    ]
                )
            )
            for row, nodes in zip(open_rows, running, strict=True):
                found = _Scores([next(scores) for _ in nodes])
                if row.frontier:
                    row.frontier = row.frontier[len(nodes) :]
                    self._open(row, nodes, found, tree)
                else:
                    self._close(row, nodes, found, tree)
        return [self._finish(row, values, labels) for row in rows]


class Elsewhere:
    """Stands where the model would, which the server holds."""

    def __init__(self, server: VllmServer) -> None:
        self.server = server

    def to(self, device: Any) -> Elsewhere:
        """Itself: it is on no device of ours."""
        return self

    def eval(self) -> Elsewhere:
        """Itself."""
        return self


class RemotePredictor(Predictor):
    """A predictor whose model a vLLM server holds; made by `RemotePredictor.at`."""

    def __init__(self, model: Elsewhere, tokenizer: Any, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        self._server = model.server
        self._terminator = str(tokenizer.eos_token)
        self._decoder = RemoteDecoder(model, prune=self._decoder._prune, sure_end=self._decoder._sure_end)

    @classmethod
    def at(cls, server: VllmServer, checkpoint: Checkpoint, *, batch_size: int | None = None) -> RemotePredictor:
        """The predictor of a checkpoint whose export a server holds.

        Args:
            server: The server.
            checkpoint: The checkpoint; its weights are not read.
            batch_size: Questions that walk the tree together.

        Raises:
            EngineError: The server holds another model, or splits texts into other tokens.
        """
        made = cls.of(_Unweighed(checkpoint, server), batch_size=batch_size or ROWS)
        assert isinstance(made, cls)
        made._check()
        return made

    def embeddings(
        self, task: Task, examples: Sequence[Example], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Refused: a server says log-probabilities alone.

        Raises:
            EngineError: Always.
        """
        raise EngineError(f"{self._server.url} cannot say what the model makes of a question; ask with the model here")

    def _check(self) -> None:
        """Make sure that the server holds the model, as far as it can be told from here."""
        server = self._server
        held = server.models()
        named = [one for one in held if one == server.model] or [
            one for one in held if one.rstrip("/").rpartition("/")[2] == server.model
        ]
        if not named:
            has = ", ".join(held) or "no model"
            raise EngineError(f"{server.url} holds {has}, not {server.model}; {holds(server.model)}")
        name, server.model = server.model, named[0]
        questions, answers = [], [self._terminator]
        for card in self.tasks.values():
            task = card.task
            questions += [self._style.render(task, m, wording=self._wording_of(task, None)) for m in ("Ag", "(x", "1,")]
            known = list(task.labels) if task.kind == "classification" else grid(task)
            answers += [format_answer(task, known[i]) for i in sorted({0, len(known) // 2, len(known) - 1})]
        ours = [*self._encoder.prompts(questions), *(ids[:-1] for ids in self._encoder.answers(answers))]
        theirs = [*server.encoded(questions, special=True), *server.encoded(answers, special=False)]
        for text, one, other in zip([*questions, *answers], ours, theirs, strict=True):
            if one != other:
                raise EngineError(
                    f"{server.url} splits {text!r} into other tokens than {name} does, so its model is another one; {holds(name)}"
                )


class VllmAsk:
    """Asks a vLLM server; to be given to `matdarwin.prediction.screening.screen`.

    Args:
        checkpoint: The checkpoint whose export the server holds.
        url: Address of the server.
        coverage: Share of true values that intervals hold.
        conditions: Conditions of the question, by task.
        batch_size: Questions that walk the tree together; None: `ROWS`.
        timeout: Seconds that an answer may be waited for; None: `TIMEOUT`.

    Raises:
        EngineError: The server cannot be reached, or does not hold the checkpoint's model.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        url: str,
        *,
        coverage: float = 0.9,
        conditions: Mapping[str, dict[str, str | float]] | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self._coverage, self._conditions = coverage, dict(conditions or {})
        self._server = VllmServer(url, checkpoint.name, timeout=TIMEOUT if timeout is None else timeout)
        try:
            self._predictor = RemotePredictor.at(self._server, checkpoint, batch_size=batch_size)
        except BaseException:
            self._server.close()
            raise

    def __call__(self, materials: Sequence[str], task: str) -> list[Prediction]:
        """One prediction a material, in order.

        Raises:
            EngineError: The server failed.
        """
        given = self._conditions.get(task)
        return self._predictor.predict(materials, task, coverage=self._coverage, conditions=given)

    def close(self) -> None:
        """Ask nothing more."""
        self._server.close()


class _Unweighed(Checkpoint):
    """A checkpoint whose weights are with a server."""

    def __init__(self, checkpoint: Checkpoint, server: VllmServer) -> None:
        super().__init__(checkpoint.folder, checkpoint.card)
        self._server = server

    def model(self, dtype: Any) -> Any:
        return Elsewhere(self._server)


class _Scores:
    """Log-probabilities by node and token, of few tokens, read like the array of all that the walk expects."""

    def __init__(self, rows: list[dict[int, float]]) -> None:
        self._rows = rows

    def __getitem__(self, place: tuple[Any, Any]) -> Any:
        nodes, tokens = np.broadcast_arrays(*place)
        found = [self._rows[n][t] for n, t in zip(nodes.ravel().tolist(), tokens.ravel().tolist(), strict=True)]
        return np.array(found, dtype=np.float64).reshape(nodes.shape)


def _children(tree: AnswerTree, node: int) -> tuple[int, ...]:
    return tuple(tree.child_tokens[node].tolist())


def _path(tree: AnswerTree, node: int) -> list[int]:
    """Tokens from the root to a node."""
    tokens = []
    while node:
        tokens.append(int(tree.tokens[node]))
        node = int(tree.parents[node])
    return tokens[::-1]
