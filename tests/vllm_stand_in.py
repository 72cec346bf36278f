"""A stand-in for a vLLM server: the part of its OpenAI-compatible interface that a screen asks, over an exported model.

Fields, shapes and refusals are those of vLLM's own (`entrypoints/openai/completion`, `sampling_params.py`): token ids or
texts as prompts, `logprob_token_ids` beside the sampled token, tokens written as `token_id:N`, -9999 for minus infinity,
errors as `{"error": {"message", "type", "param", "code"}}`. What vLLM computes, transformers computes here in fp32.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MAX_LOGPROBS = 20
MAX_IDS = 128

Fault = Callable[[int], str | None]
"""Number of a completion request, counted from 0, to what goes wrong with it: None, an HTTP status, or a word of `StandIn`."""


class Refused(Exception):
    """A request that vLLM refuses."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class StandIn:
    """The server's state.

    Args:
        folder: An exported model.
        name: What it is served as (`--served-model-name`).
        key: The API key that it wants (`--api-key`).
        knows_ids: Whether it has `logprob_token_ids`; before July 2026 vLLM took no notice of it.
        fault: What goes wrong: `cut` (the answer breaks off), `reset` (the connection closes unanswered), `slow`, `bare` (no
            log-probabilities), `logits` (as with `--logprobs-mode raw_logits`), `short` (an answer too few), `html`.
    """

    def __init__(
        self, folder: Path, name: str, *, key: str = "", knows_ids: bool = True, fault: Fault | None = None
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.name, self.key, self.knows_ids, self.fault = name, key, knows_ids, fault
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.asked = 0
        self.most = 0
        self.retry_after = ""
        self._under_way = 0
        self._lock = threading.Lock()
        self._counting = threading.Lock()

    @contextmanager
    def counted(self) -> Iterator[int]:
        """One completion request under way; yields its number."""
        with self._counting:
            number, self.asked = self.asked, self.asked + 1
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        try:
            yield number
        finally:
            with self._counting:
                self._under_way -= 1

    def models(self) -> dict[str, Any]:
        """`GET /v1/models`."""
        card = {"id": self.name, "object": "model", "created": 0, "owned_by": "vllm", "root": self.name, "parent": None}
        return {"object": "list", "data": [{**card, "max_model_len": 512, "permission": []}]}

    def complete(self, body: dict[str, Any], *, logits: bool = False) -> dict[str, Any]:
        """`POST /v1/completions`, for `max_tokens` 1."""
        if body.get("model") != self.name:
            raise Refused(404, f"The model `{body.get('model')}` does not exist.", "NotFoundError")
        if body.get("max_tokens") != 1 or body.get("stream") or body.get("echo"):
            raise Refused(400, "the stand-in answers with one token at once")
        logprobs, ids = body.get("logprobs"), body.get("logprob_token_ids") if self.knows_ids else None
        if ids is not None:
            if not ids or logprobs is None:
                raise Refused(400, "when using `logprob_token_ids`, `logprobs` must be set.")
            if len(ids) > MAX_IDS:
                raise Refused(400, f"Requested logprob_token_ids of length {len(ids)}, greater than max {MAX_IDS}")
            if not all(0 <= token < self.model.config.vocab_size for token in ids):
                raise Refused(400, "logprob_token_ids contain out-of-vocab token ids.")
        elif logprobs is not None and logprobs > MAX_LOGPROBS:
            raise Refused(
                400, f"Requested sample logprobs of {logprobs}, which is greater than max allowed: {MAX_LOGPROBS}"
            )
        given = body["prompt"]
        many = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
        special = body.get("add_special_tokens", True)
        prompts = [
            self.tokenizer(one, add_special_tokens=special).input_ids if isinstance(one, str) else one for one in many
        ]
        choices = []
        for index, (prompt, scores) in enumerate(zip(prompts, self._scores(prompts, logits=logits), strict=True)):
            sampled = int(scores.argmax())
            choice: dict[str, Any] = {
                "index": index, "text": self.tokenizer.decode([sampled], skip_special_tokens=True), "logprobs": None,
                "finish_reason": "length", "stop_reason": None, "token_ids": None, "prompt_logprobs": None, "prompt_token_ids": None,
            }  # fmt: skip
            if body.get("return_token_ids"):
                choice |= {"token_ids": [sampled], "prompt_token_ids": prompt}
            if logprobs is not None:
                best = scores.topk(logprobs).indices.tolist() if ids is None else ids
                shown = {
                    self._shown(token, body): max(float(scores[token]), -9999.0)
                    for token in dict.fromkeys([sampled, *best])
                }
                token = self._shown(sampled, body)
                choice["logprobs"] = {
                    "text_offset": [0], "token_logprobs": [shown[token]], "tokens": [token], "top_logprobs": [shown],
                }  # fmt: skip
            choices.append(choice)
        # In no order that a client may rest on.
        usage = {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": len(prompts), "total_tokens": 0}
        return {
            "id": "cmpl-0", "object": "text_completion", "created": 0, "model": self.name, "choices": choices[::-1],
            "service_tier": None, "system_fingerprint": None, "usage": usage, "kv_transfer_params": None,
        }  # fmt: skip

    def _shown(self, token: int, body: dict[str, Any]) -> str:
        return f"token_id:{token}" if body.get("return_tokens_as_token_ids") else str(self.tokenizer.decode([token]))

    def _scores(self, prompts: list[list[int]], *, logits: bool) -> Any:
        """What the model says of the token after each prompt [prompts, vocabulary]."""
        import torch

        width = max(map(len, prompts))
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
        with self._lock, torch.inference_mode():
            # Padding stands behind the last token, which does not look ahead.
            out = self.model(input_ids=ids, use_cache=False).logits
        last = out[torch.arange(len(prompts)), torch.tensor([len(prompt) - 1 for prompt in prompts])].float()
        return last if logits else torch.log_softmax(last, dim=-1)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: StandIn

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._handle({})

    def do_POST(self) -> None:
        self._handle(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _handle(self, body: dict[str, Any]) -> None:
        me = self.stand_in
        me.seen.append((self.path, dict(self.headers), body))
        try:
            if me.key and self.headers.get("Authorization") != f"Bearer {me.key}":
                self._answer(401, {"error": "Unauthorized"})
            elif self.path == "/v1/models":
                self._answer(200, me.models())
            elif self.path == "/v1/completions":
                with me.counted() as number:
                    self._complete(body, me.fault(number) if me.fault else None)
            else:
                self._answer(404, {"detail": "Not Found"})
        except Refused as error:
            inner = {"message": str(error), "type": error.kind, "param": None, "code": error.status}
            self._answer(error.status, {"error": inner})

    def _complete(self, body: dict[str, Any], fault: str | None) -> None:
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
            return
        if fault == "slow":
            time.sleep(1.5)
        if fault is not None and fault.isdecimal():
            # A careless server that says back what it was sent.
            inner = {"message": f"EngineCore met an issue {self.headers.get('Authorization')}", "type": "x", "code": 0}
            self._answer(int(fault), {"error": inner})
            return
        answer = self.stand_in.complete(body, logits=fault == "logits")
        if fault == "bare":
            answer["choices"] = [{**choice, "logprobs": None} for choice in answer["choices"]]
        if fault == "short":
            answer["choices"] = answer["choices"][1:]
        self._answer(200, answer, cut=fault == "cut", html=fault == "html")

    def _answer(self, status: int, content: dict[str, Any], *, cut: bool = False, html: bool = False) -> None:
        data = b"<html>it works</html>" if html else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.stand_in.retry_after:
            self.send_header("Retry-After", self.stand_in.retry_after)
        self.end_headers()
        try:
            self.wfile.write(data[: len(data) // 2] if cut else data)
        except OSError:
            # The client has gone.
            self.close_connection = True
        if cut:
            self.close_connection = True


@contextmanager
def serving(stand_in: StandIn, *, port: int = 0) -> Iterator[str]:
    """Serve on a port of the loopback; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"stand_in": stand_in}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
