"""The routes: each checks its request, queues the work, and gives the answer as JSON or CSV."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from matdarwin import __version__
from matdarwin.api import QuestionError
from matdarwin.models.checkpoint import TaskCard
from matdarwin.prediction.prediction import Prediction
from matdarwin.serving import chat, metrics, tables
from matdarwin.serving.batching import Question, Ticket, Watched
from matdarwin.serving.problems import Json, Problem, documented
from matdarwin.serving.schemas import ChatBody, ExplainBody, PredictBody, Predicted, listed
from matdarwin.serving.state import State

_ALWAYS = (401, 403, 421, 429, 503)
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
"""One of the events that `stream` asks for."""
_WORK = documented(400, 408, 413, 415, 422, 500, 504, *_ALWAYS)
_READ = documented(*_ALWAYS)


def routes(state: State) -> APIRouter:
    """All routes of a server."""
    router = APIRouter(default_response_class=Json)
    _work(router, state)
    _tasks(router, state)
    _health(router, state)
    return router


def _work(router: APIRouter, state: State) -> None:
    @router.post("/v1/predict", response_model=Predicted, responses=_WORK, summary="Predict properties of materials")
    async def predict(body: PredictBody, request: Request) -> Response:
        """Invalid materials are predictions with the status `invalid` and the reason."""
        materials: list[str | None] = body.materials if isinstance(body.materials, list) else [body.materials]
        names = _names(state, body.tasks, "tasks")
        conditions = _conditions(state, names, body.conditions)
        limit = state.settings.rows
        if len(materials) * len(names) > limit:
            raise Problem(
                422,
                f"{len(materials):,} materials of {len(names)} tasks are more than {limit:,} answers; send fewer at a time, or a CSV",
                field="materials",
            )
        for row, text in enumerate(materials):
            _check_length(state, text or "", "materials", row)
        ticket = state.ticket()
        questions = [Question(name, materials, body.coverage, conditions[name]) for name in names]
        futures = state.queue(lambda: state.batcher.submit(ticket, questions))
        found: list[list[Prediction]] = await state.had(request, ticket, futures)
        ordered = [answers[i].to_dict() for i in range(len(materials)) for answers in found]
        return Json({"model": state.darwin.name, "predictions": ordered})

    @router.post("/v1/explain", responses=_WORK, summary="What a prediction hangs on")
    async def explain(body: ExplainBody, request: Request) -> Response:
        """The prediction, its distribution, and the parts that were asked for."""
        (name,) = _names(state, body.task, "task")
        conditions = _conditions(state, [name], body.conditions)[name]
        _check_length(state, body.material, "material")
        ticket = state.ticket()

        def work(predictor: Watched) -> dict[str, Any]:
            return _explained(predictor, body, name, conditions)

        (answer,) = await state.had(request, ticket, [state.queue(lambda: state.batcher.run(ticket, work))])
        return Json(answer)

    @router.post(
        "/v1/predict/csv",
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, **_WORK},
        summary="Predict the rows of a CSV",
        response_class=Response,
        openapi_extra={
            "requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}},
        },
    )
    async def predict_csv(
        request: Request,
        column: Annotated[str | None, Query(description="Column with the materials.")] = None,
        task: Annotated[list[str] | None, Query(description="Task; may be repeated.")] = None,
        coverage: Annotated[float, Query(gt=0, lt=1, allow_inf_nan=False)] = 0.9,
        condition: Annotated[
            list[str] | None, Query(description="Condition as NAME=VALUE, such as temperature=300; may be repeated.")
        ] = None,
    ) -> Response:
        """All columns as they came, with value, unit, lower, upper, status and reason beside them."""
        kind = request.headers.get("content-type", "text/csv").partition(";")[0].strip().lower()
        if kind not in ("text/csv", "application/csv", "text/plain", "application/octet-stream"):
            raise Problem(415, f"a table is sent with Content-Type: text/csv, not {kind[:80]}")
        names = _names(state, task, "task")
        conditions = _conditions(state, names, _pairs(condition or []))
        state.check_ready()
        return await tables.answer(state, request, await request.body(), column, names, coverage, conditions)

    @router.post(
        "/v1/chat/completions",
        responses={200: {"content": {"text/event-stream": {"schema": _EVENT}}}, **_WORK, **documented(404)},
        summary="Ask in plain words (OpenAI form)",
    )
    async def completions(body: ChatBody, request: Request) -> Response:
        """The last user message is answered; one that asks for no known property is told what can be asked."""
        if body.model is not None and body.model != state.darwin.name:
            raise Problem(404, f"the served model is {state.darwin.name}", field="model")
        question = next((m.words() for m in reversed(body.messages) if m.role == "user"), None)
        if not question or not question.strip():
            raise Problem(422, "messages: none of them is a user's text", field="messages")
        most = min(state.settings.question, state.settings.text)
        if len(question) > most:
            raise Problem(
                422,
                f"messages: a question of {len(question):,} characters, and at most {most:,} are read; POST /v1/predict takes longer materials",
                field="messages",
            )
        text = await _reply(state, request, question)
        return _stream(state, text) if body.stream else Json(_completion(state, text))


def _tasks(router: APIRouter, state: State) -> None:
    cards = state.darwin.card.tasks

    @router.get("/v1/tasks", responses=_READ, summary="The tasks that the model knows")
    async def list_tasks() -> Response:
        return Json({"tasks": [_listed(card) for card in cards.values()], "model": state.darwin.name})

    @router.get("/v1/tasks/{id}", responses=_READ | documented(404), summary="A task's card")
    async def show_task(id: str) -> Response:
        if id not in cards:
            raise Problem(404, f"{state.darwin.name} does not know this task; it knows {', '.join(cards)}", field="id")
        return Json(_card(cards[id]))

    @router.get("/v1/models", responses=_READ, summary="The served model")
    async def models() -> Response:
        card = state.darwin.card
        entry = {
            "id": state.darwin.name,
            "object": "model",
            "created": int(datetime.fromisoformat(card.created).timestamp()),
            "owned_by": "matdarwin",
            "role": card.role,
            "base": card.base_title,
            "tasks": list(cards),
        }
        return Json({"object": "list", "data": [entry]})


def _health(router: APIRouter, state: State) -> None:
    @router.get("/healthz", summary="Whether the server runs")
    async def healthz() -> Response:
        return Json({"status": "ok"})

    @router.get(
        "/readyz",
        responses=documented(503),
        summary="Whether it can predict: the weights are read, and it is not stopping",
    )
    async def readyz() -> Response:
        state.check_ready()
        return Json({"status": "ready", "model": state.darwin.name})

    @router.get("/metrics", responses=_READ, summary="Counters in Prometheus' form", response_class=Response)
    async def counters() -> Response:
        return Response(state.metrics.text(), media_type=metrics.MEDIA_TYPE)

    hashes = state.darwin.checkpoint.weights_sha256

    @router.get("/version", responses=_READ, summary="Hashes of code, model and data")
    async def version() -> Response:
        return Json(
            {
                "code": __version__,
                "model": {"name": state.darwin.name, "recipe": state.darwin.card.recipe_hash, "weights": hashes},
                "data": {name: card.data_sha256 for name, card in state.darwin.card.tasks.items()},
            }
        )


# -- parts -------------------------------------------------------------------------------------------------


def _names(state: State, tasks: str | Sequence[str] | None, field: str) -> list[str]:
    for name in [tasks] if isinstance(tasks, str) else tasks or []:
        # One that is not known is compared with all that are.
        _check_length(state, name, field)
    try:
        return state.darwin.resolve(tasks)
    except QuestionError as error:
        raise Problem(422, str(error)[:1000], field=field) from error


def _conditions(state: State, names: Sequence[str], given: dict[str, Any] | None) -> dict[str, dict[str, str | float]]:
    for key, value in (given or {}).items():
        _check_length(state, key, "conditions")
        _check_length(state, str(value), "conditions")
    try:
        return state.darwin.conditions(names, given)
    except QuestionError as error:
        raise Problem(422, str(error)[:1000], field="conditions") from error


def _check_length(state: State, text: str, field: str, row: int | None = None) -> None:
    limit = state.settings.text
    if len(text) > limit:
        where = field if row is None else f"{field}, row {row}"
        raise Problem(
            422, f"{where}: {len(text):,} characters, and at most {limit:,} are read",
            field=field, row=row, token=text[:40].encode("ascii", "replace").decode(), position=limit,
        )  # fmt: skip


def _pairs(texts: Sequence[str]) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for name, value in map(_pair, texts):
        if name in found:
            raise Problem(
                422, f"condition: {name[:80]} is given as {str(found[name])[:80]} and as {str(value)[:80]}; give it once",
                field="condition",
            )  # fmt: skip
        found[name] = value
    return found


def _pair(text: str) -> tuple[str, str | float]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value.strip():
        raise Problem(422, "condition: write NAME=VALUE, such as temperature=300", field="condition")
    return name.strip(), value.strip()


def _explained(predictor: Watched, body: ExplainBody, task: str, conditions: dict[str, str | float]) -> dict[str, Any]:
    from matdarwin.prediction.explain import explain
    from matdarwin.prediction.predictor import Predictor

    explanation = explain(
        # It passes on all that a predictor has.
        cast(Predictor, predictor),
        body.material,
        task,
        coverage=body.coverage,
        conditions=conditions or None,
        parts=tuple(body.parts),
    )
    return dict(explanation.to_dict())


async def _reply(state: State, request: Request, question: str) -> str:
    """The answer to a question in plain words."""
    reading = state.ticket()
    try:
        (asked,) = await state.had(
            request, reading, [state.readers.submit(chat.understand, question, state.darwin.tasks)]
        )
        by_task = state.darwin.conditions([task.id for task in asked.tasks], asked.conditions)
    except (chat.NotUnderstoodError, QuestionError) as error:
        return str(error)
    ticket = Ticket(reading.left)
    questions = [Question(task.id, [asked.material], conditions=by_task[task.id]) for task in asked.tasks]
    found = await state.had(request, ticket, state.queue(lambda: state.batcher.submit(ticket, questions)))
    return "\n".join(
        chat.sentence(answer[0], task, by_task[task.id], asked.unused)
        for answer, task in zip(found, asked.tasks, strict=True)
    )


def _head(state: State, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": state.darwin.name,
    }


def _completion(state: State, text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    # No text is written token by token here; clients that add the numbers up add nothing.
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {**_head(state, "chat.completion"), "choices": [choice], "usage": usage}


def _stream(state: State, text: str) -> Response:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    chunk = {**_head(state, "chat.completion.chunk"), "choices": [choice]}

    def events() -> Iterator[str]:
        yield f"data: {json.dumps(chunk, allow_nan=False)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _listed(card: TaskCard) -> dict[str, Any]:
    return {**listed(card.task), "elements": card.elements}


def _card(card: TaskCard) -> dict[str, Any]:
    """A task's card. Not its sources' paths and the reader's rules, which say how this machine is laid out."""
    more = card.task.model_dump(
        mode="json",
        include={
            "version", "origin", "quantities", "positive", "wordings", "metric", "folds", "board", "licence", "citation",
            "description", "notes",
        },
    )  # fmt: skip
    return {**_listed(card), **more, "counts": card.counts, "shares": card.shares, "data_sha256": card.data_sha256}
