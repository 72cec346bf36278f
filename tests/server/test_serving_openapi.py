"""The OpenAPI document: whatever it allows is answered as it says, and whatever it does not is refused as it says."""

# Fixtures are imported, since the fault tests use them too.
# ruff: noqa: F811

from __future__ import annotations

import contextlib
from unittest import SkipTest

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from tests.server.helpers import darwin, served_home, slow  # noqa: F401 - fixtures

from matdarwin.api import Darwin
from matdarwin.serving.app import create_app
from matdarwin.serving.settings import Settings

pytestmark = pytest.mark.slow
CHECKS = [
    not_a_server_error, content_type_conformance, negative_data_rejection, response_schema_conformance,
    status_code_conformance, unsupported_method,
]  # fmt: skip


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_route_keeps_to_the_document(darwin: Darwin, mode: GenerationMode) -> None:
    app = create_app(darwin, Settings(rate=0, seconds=10))
    headers = {"Host": "127.0.0.1"}
    found = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    seen: list[str] = []
    statuses: dict[str, set[int]] = {}
    for operation in (result.ok() for result in found.get_all_operations()):
        seen.append(operation.label)

        @settings(
            max_examples=10, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps(case: schemathesis.Case) -> None:
            # Names of tasks are data, and not in the document.
            if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
                case.body.update({key: "tiny_gap" for key in {"task", "tasks"} & set(case.body)})
            answer = case.call_and_validate(headers=headers, checks=CHECKS)
            statuses.setdefault(case.operation.label, set()).add(answer.status_code)

        # Where nothing can be sent wrongly, there is nothing to send.
        with (
            contextlib.suppress(Unsatisfiable, SkipTest)
            if mode is GenerationMode.NEGATIVE
            else contextlib.nullcontext()
        ):
            keeps()
    assert {"POST /v1/predict", "POST /v1/predict/csv", "POST /v1/explain", "POST /v1/chat/completions"} <= set(seen)
    assert len(seen) == 11
    # Had the model not been asked, the document would be kept to in vain.
    for route in ("POST /v1/predict", "POST /v1/explain"):
        assert (200 if mode is GenerationMode.POSITIVE else 422) in statuses[route]


@pytest.mark.parametrize("stream", [True, False])
def test_both_forms_of_a_chat_answer_keep_to_the_document(darwin: Darwin, stream: bool) -> None:
    app = create_app(darwin, Settings(rate=0, seconds=10))
    headers = {"Host": "127.0.0.1"}
    found = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    asked = {"messages": [{"role": "user", "content": "What is the band gap of GaN?"}], "stream": stream}
    case = found["/v1/chat/completions"]["POST"].Case(body=asked, media_type="application/json")
    answer = case.call_and_validate(headers=headers, checks=CHECKS)
    kind = "text/event-stream" if stream else "application/json"
    assert answer.status_code == 200 and answer.headers["content-type"][0].startswith(kind)
