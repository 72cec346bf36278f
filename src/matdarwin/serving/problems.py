"""Errors as `application/problem+json`: what is wrong, in which field, row, token and place, and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from fastapi import FastAPI

MEDIA_TYPE = "application/problem+json"
GONE = 499
"""Status in log and metrics of a request whose client left; nobody receives it."""


class Problem(Exception):
    """A request that is refused.

    Args:
        status: HTTP status.
        detail: What is wrong and what to do.
        headers: Further headers, such as Retry-After.
        extra: Further members: field, row, token, position.
    """

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = {name: value for name, value in extra.items() if value is not None}

    @classmethod
    def later(cls, status: int, detail: str, seconds: int = 1) -> Problem:
        """One that may pass if the client comes again after some seconds."""
        return cls(status, detail, headers={"Retry-After": str(max(1, seconds))})

    def response(self) -> Response:
        """The answer that says so."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }
        return Json(body, status_code=self.status, headers=self.headers, media_type=MEDIA_TYPE)


class Json(JSONResponse):
    """JSON in ASCII: half a surrogate pair, which users' texts may hold, has no bytes in UTF-8. No NaN, no infinity."""

    def render(self, content: Any) -> bytes:
        """See starlette."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class ProblemDocument(dict[str, Any]):
    """The schema of a problem, for the OpenAPI document."""

    SCHEMA = {  # noqa: RUF012 - never changed
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong and what to do."},
            "field": {"type": "string", "description": "The field of the request that is at fault."},
            "row": {"type": "integer", "description": "Which of its rows, from 0."},
            "token": {"type": "string", "description": "The part of the text that is at fault."},
            "position": {"type": "integer", "description": "Where that part begins, from 0."},
        },
    }


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a route in the OpenAPI document: those statuses, each a problem."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": ProblemDocument.SCHEMA}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Have every error of an app told as a problem."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        detail = {
            404: f"there is nothing at {path[:200]}; /openapi.json lists what there is",
            405: f"{request.method} is not how {path[:200]} is asked; /openapi.json says how",
        }.get(error.status_code, str(error.detail))
        if error.status_code == 400:
            detail = "the body is no JSON in UTF-8"
        return Problem(error.status_code, detail, headers=error.headers).response()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return of_validation(error.errors()).response()

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def of_validation(errors: Any) -> Problem:
    """The problem that a failed validation is; of several faults the first is told. What was sent is not repeated."""
    first: dict[str, Any] = next(iter(errors), {})
    place = [part for part in first.get("loc", ()) if part not in ("body", "query", "path", "header")]
    if first.get("type") == "json_invalid":
        at = place[0] if place and isinstance(place[0], int) else None
        why = first.get("ctx", {}).get("error", "")
        return Problem(
            400, f"the body is no JSON: {why}" + (f" at character {at}" if at is not None else ""), position=at
        )
    if not place:
        return Problem(
            422, "the body is a JSON object, sent with the header Content-Type: application/json", field="body"
        )
    field = str(place[0])
    if first.get("type") == "extra_forbidden":
        return Problem(422, f"{field}: this field is not known here", field=field)
    # A field that may be a text or a list has a fault as either; what goes deepest is what was meant.
    same = [error for error in errors if field in error.get("loc", ())]
    deep = [error for error in same if _row(error) is not None] or [
        error for error in same if not str(error["type"]).endswith("_type")
    ]
    row = _row(deep[0]) if deep else None
    where = field if row is None else f"{field}, row {row}"
    why = "; or ".join(dict.fromkeys(str(error["msg"]).removeprefix("Value error, ") for error in (deep[:1] or same)))
    return Problem(422, f"{where}: {why}", field=field, row=row)


def _row(error: Any) -> int | None:
    return next((part for part in error["loc"] if isinstance(part, int)), None)
