"""What is asked of a vLLM server, through its OpenAI-compatible completions interface: log-probabilities of chosen tokens."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from matdarwin.prediction.engines import EngineError

KEY = "MATDARWIN_VLLM_KEY"
"""The environment variable with the server's API key, where it wants one."""

TIMEOUT = 120.0
"""Seconds that an answer may be waited for."""

IN_FLIGHT = 16
"""Requests that are with the server at a time."""

PROMPTS = 64
"""Most prompts of a request."""

IDS = 128
"""Most tokens that a request asks about: as many as vLLM takes."""

_ATTEMPTS = 5
_BUSY = {429, 502, 503, 504}
_LONGEST_PAUSE = 30.0
_SLACK = 1e-3
"""What probabilities may exceed 1 by, from rounding."""

_NEEDS = "vLLM 0.26 or later is needed, with --logprobs-mode raw_logprobs (its default)"
_AGAIN = "the same command goes on: what is done is kept"

Query = tuple[Sequence[int], Sequence[int], tuple[int, ...]]
"""Tokens of a prompt, tokens of the answer so far, and the tokens whose log-probability after both is asked."""


class VllmServer:
    """What is asked of a vLLM server.

    Args:
        url: Its address, such as http://127.0.0.1:8000, with or without /v1.
        model: What its models are asked for as.
        key: API key; None: that of the environment variable, if any.
        timeout: Seconds that an answer may be waited for.
        pause: Seconds before the second attempt at a server that is busy or away; it doubles with each.

    Raises:
        EngineError: The address or key cannot be one.
    """

    def __init__(
        self, url: str, model: str, *, key: str | None = None, timeout: float = TIMEOUT, pause: float = 0.5
    ) -> None:
        self.url = _address(url)
        self.model = model
        self._key = os.environ.get(KEY, "") if key is None else key
        if not all("!" <= letter <= "~" for letter in self._key):
            raise EngineError(f"{KEY} holds characters that no API key has; set it to the key alone")
        self._timeout, self._pause = timeout, pause
        self._local = threading.local()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="vllm")

    def close(self) -> None:
        """Ask nothing more."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def models(self) -> list[str]:
        """Ids of the models that it holds."""
        # A wrong address is told at once, not after all attempts.
        answer = self._send("GET", "/v1/models", attempts=1)
        try:
            return [str(one["id"]) for one in answer["data"]]
        except (KeyError, TypeError) as error:
            raise EngineError(f"{self.url} gives no list of models, so it is no vLLM server") from error

    def encoded(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Tokens that the server makes of texts, with its tokenizer's own beginning where `special` is set."""
        found = []
        for start in range(0, len(texts), PROMPTS):
            part = list(texts[start : start + PROMPTS])
            body = {"prompt": part, "max_tokens": 1, "add_special_tokens": special, "return_token_ids": True}
            for choice in self._choices(body, len(part)):
                tokens = choice.get("prompt_token_ids")
                if not isinstance(tokens, list):
                    raise EngineError(f"{self.url} does not say the tokens of a prompt; {_NEEDS}")
                found.append(tokens)
        return found

    def logps(self, queries: Sequence[Query]) -> list[dict[int, float]]:
        """The log-probability of each token that is asked, by token, of each query.

        Raises:
            EngineError: The server cannot be reached, or does not answer as vLLM does.
        """
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, (_, _, ids) in enumerate(queries):
            alike.setdefault(ids, []).append(number)
        jobs = [
            (numbers[first : first + PROMPTS], ids[start : start + IDS])
            for ids, numbers in alike.items()
            for start in range(0, len(ids), IDS)
            for first in range(0, len(numbers), PROMPTS)
        ]
        found: list[dict[int, float]] = [{} for _ in queries]
        futures = [self._pool.submit(self._scored, [queries[i][:2] for i in numbers], ids) for numbers, ids in jobs]
        try:
            for (numbers, _), future in zip(jobs, futures, strict=True):
                for i, scores in zip(numbers, future.result(), strict=True):
                    found[i].update(scores)
        except BaseException:
            self._stopped.set()
            for future in futures:
                future.cancel()
            raise
        for scores in found:
            if sum(map(math.exp, scores.values())) > 1 + _SLACK:
                raise EngineError(f"{self.url} gives probabilities of more than 1 in all; {_NEEDS}")
        return found

    # -- requests ------------------------------------------------------------------------------------------

    def _scored(
        self, prompts: list[tuple[Sequence[int], Sequence[int]]], ids: tuple[int, ...]
    ) -> list[dict[int, float]]:
        """Log-probabilities of some tokens after each prompt and path."""
        # All that would bend the distribution is switched off by name: a server has its own defaults.
        body = {
            "prompt": [[*prompt, *path] for prompt, path in prompts], "max_tokens": 1, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "ignore_eos": True, "logprobs": len(ids),
            "logprob_token_ids": list(ids), "return_tokens_as_token_ids": True,
        }  # fmt: skip
        found = []
        for choice in self._choices(body, len(prompts)):
            try:
                top = choice["logprobs"]["top_logprobs"][0]
                scores = {token: float(top[f"token_id:{token}"]) for token in ids}
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise EngineError(
                    f"{self.url} does not give the log-probabilities of the tokens that are asked; {_NEEDS}"
                ) from error
            if not all(score <= _SLACK for score in scores.values()):
                raise EngineError(f"{self.url} gives other numbers than log-probabilities; {_NEEDS}")
            found.append(scores)
        return found

    def _choices(self, body: dict[str, Any], count: int) -> list[dict[str, Any]]:
        """What is answered to each prompt of a request, in their order."""
        answer = self._send("POST", "/v1/completions", {"model": self.model, "stream": False, **body})
        try:
            choices = {int(choice["index"]): dict(choice) for choice in answer["choices"]}
            return [choices[i] for i in range(count)]
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"{self.url} did not answer each prompt; {_NEEDS}") from error

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None, *, attempts: int = _ATTEMPTS) -> Any:
        """Send one request, again where the server is busy or away; returns its JSON."""
        import requests
        from urllib3.exceptions import ReadTimeoutError

        fault = ""
        for attempt in range(attempts):
            pause = self._pause * 2**attempt
            try:
                answer = self._session().request(
                    method, self.url + path, json=body, timeout=(min(10.0, self._timeout), self._timeout), auth=self._sign,
                    allow_redirects=False,
                )  # fmt: skip
            except requests.ConnectTimeout:
                fault = "cannot be reached (no answer to the connection)"
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                if error.args and isinstance(error.args[0], ReadTimeoutError):
                    raise EngineError(self._late()) from error
                fault = f"cannot be reached or broke off ({_cause(error)})"
            except requests.Timeout as error:
                # Not asked again: a server that is too slow would have the work twice.
                raise EngineError(self._late()) from error
            except requests.RequestException as error:
                raise EngineError(
                    f"{self.url} cannot be asked: {type(error).__name__}: {self._plain(str(error))}"
                ) from error
            else:
                if answer.status_code not in _BUSY:
                    return self._read(answer)
                fault = f"is too busy or not ready (HTTP {answer.status_code}{self._said(answer)})"
                wanted = answer.headers.get("Retry-After", "")
                pause = max(pause, float(wanted) if wanted.isdecimal() else 0.0)
            if attempt + 1 < attempts and self._stopped.wait(min(pause, _LONGEST_PAUSE)):
                break
        tries = f", {attempts} times over" if attempts > 1 else ""
        raise EngineError(f"{self.url} {fault}{tries}; is the vLLM server up? Once it is, {_AGAIN}")

    def _read(self, answer: Any) -> Any:
        """The JSON of an answer; what went wrong as an error."""
        status = int(answer.status_code)
        if status == 200:
            try:
                return answer.json()
            except ValueError as error:
                raise EngineError(f"{self.url} answers no JSON, so it is no vLLM server") from error
        said = self._said(answer)
        if status in (401, 403):
            has = "the one given is refused" if self._key else "none is given"
            raise EngineError(f"{self.url} wants an API key, {has} (HTTP {status}); set {KEY}")
        if status == 404:
            raise EngineError(f"{self.url} does not hold what is asked (HTTP 404{said}); {holds(self.model)}")
        raise EngineError(
            f"{self.url} failed with HTTP {status}{said}; see the server's log. Once it is mended, {_AGAIN}"
        )

    def _said(self, answer: Any) -> str:
        """What the server says of a fault, for people."""
        try:
            content = answer.json()
            inner = content.get("error", content)
            text = inner.get("message", inner.get("detail", "")) if isinstance(inner, dict) else inner
        except (ValueError, AttributeError):
            return ""
        return f": {self._plain(str(text))}" if text else ""

    def _plain(self, text: str) -> str:
        """A text from elsewhere in one line, short, and without the key."""
        text = " ".join(text.split())
        return (text.replace(self._key, "***") if self._key else text)[:300]

    def _late(self) -> str:
        return f"{self.url} did not answer within {self._timeout:g} s; is it overloaded? Once it is not, {_AGAIN}"

    def _sign(self, request: Any) -> Any:
        # Given even without a key: otherwise requests would look for one in a netrc file.
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _session(self) -> Any:
        """A session of this thread's own."""
        if not hasattr(self._local, "session"):
            import requests

            self._local.session = requests.Session()
        return self._local.session


def holds(name: str) -> str:
    """How a server comes to hold a checkpoint, for people."""
    return f"darwin models export {name} --to FOLDER, then vllm serve FOLDER --served-model-name {name} --dtype float32"


def _address(url: str) -> str:
    """The address without /v1 and the like."""
    try:
        parts = urlsplit(url)
        secret, port = parts.username is not None or parts.password is not None, parts.port
    except ValueError as error:
        raise EngineError("--url is no address; give it as http://HOST:PORT") from error
    if secret:
        raise EngineError(f"--url holds a name or password, which would be seen; give the key in {KEY} instead")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise EngineError(f"{url} is no address of a server; give it as http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"


def _cause(error: BaseException) -> str:
    """The kind of the innermost fault: requests wraps it several times."""
    inner: Any = error
    while True:
        deeper = getattr(inner, "reason", None) or (inner.args[-1] if getattr(inner, "args", ()) else None)
        if not isinstance(deeper, BaseException):
            return type(inner).__name__
        inner = deeper
