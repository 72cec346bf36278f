"""`darwin mcp` through the protocol's own client: over standard streams of a process, and in this one for its limits."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent

from matdarwin.api import Darwin
from matdarwin.prediction.explain import explain
from matdarwin.prediction.predictor import Predictor
from matdarwin.serving.mcp import NEIGHBOURS, ROWS, TEXT, create_server
from tiny import at_home, tiny_base, tiny_checkpoint, tiny_task

COMMAND = ["-m", "matdarwin", "mcp"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mcp")
    quick = {"epochs": 1, "minimum_steps": 20, "learning_rate": 1e-2, "batch_size": 16}
    tasks = [tiny_task(home), tiny_task(home, kind="classification")]
    tiny_checkpoint(home, tasks=tasks, base=tiny_base(home / "base"), optimising=quick)
    return home


@pytest.fixture(scope="module")
def darwin(trained: Path) -> Darwin:
    with at_home(trained):
        return Darwin.load()


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def spoken(server: Any, talk: Callable[[Client], Awaitable[None]]) -> None:
    """Hold a conversation with a server."""

    async def go() -> None:
        async with Client(server, read_timeout_seconds=120) as client:
            await talk(client)

    asyncio.run(go())


@pytest.mark.slow
def test_over_standard_streams_of_a_process(trained: Path, darwin: Darwin) -> None:
    environment = {**os.environ, "MATDARWIN_HOME": str(trained), "OMP_NUM_THREADS": "1"}
    server = StdioServerParameters(command=sys.executable, args=COMMAND, env=environment)

    async def talk(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"predict", "explain", "list_tasks"}
        asked = tools["predict"].input_schema
        assert asked["required"] == ["materials"]
        assert asked["properties"]["materials"]["maxItems"] == ROWS
        assert asked["properties"]["materials"]["items"] == {"type": "string", "maxLength": TEXT}
        assert set(tools["explain"].input_schema["properties"]) == {
            "material", "task", "coverage", "conditions", "neighbours",
        }  # fmt: skip

        known = (await client.call_tool("list_tasks", {})).structured_content
        assert known is not None and [task["id"] for task in known["tasks"]] == ["tiny_gap", "tiny_metal"]

        found = await client.call_tool("predict", {"materials": ["GaN", "Xx2"], "tasks": ["tiny_gap"], "coverage": 0.8})
        assert not found.is_error
        same = [one.to_dict() for one in darwin.predict(["GaN", "Xx2"], "tiny_gap", coverage=0.8)]
        assert found.structured_content == {"model": darwin.name, "predictions": same}
        assert json.loads(text_of(found)) == found.structured_content
        assert same[1]["status"] == "invalid"

        told = (
            await client.call_tool("explain", {"material": "GaN", "task": "tiny_gap", "neighbours": 2})
        ).structured_content
        assert told == {"model": darwin.name, **explain(darwin.predictor, "GaN", "tiny_gap", neighbours=2).to_dict()}
        assert len(told["neighbours"]) == 2 and told["swapped_element"]

        wrong = await client.call_tool("predict", {"materials": ["GaN"], "tasks": ["tiny_gob"]})
        assert wrong.is_error and "does not know the task tiny_gob; did you mean tiny_gap?" in text_of(wrong)
        # And it goes on.
        assert not (await client.call_tool("list_tasks", {})).is_error

    spoken(server, talk)


@pytest.mark.slow
def test_standard_output_carries_the_protocol_alone(trained: Path) -> None:
    first = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
    }  # fmt: skip
    call = {"name": "predict", "arguments": {"materials": ["GaN"], "tasks": ["tiny_gap"]}}
    with subprocess.Popen(
        [sys.executable, *COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "MATDARWIN_HOME": str(trained), "OMP_NUM_THREADS": "1"}, text=True,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        for message in (
            first,
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
        ):
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        lines = [process.stdout.readline(), process.stdout.readline()]
        # Its input ends, and so does it.
        process.stdin.close()
        rest = process.stdout.read()
        error = process.stderr.read()
        assert process.wait(60) == 0, error
    answers = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["structuredContent"]["predictions"][0]["input"] == "GaN"
    assert "using checkpoint" in error and "GaN" not in error


def test_weights_are_read_at_the_first_question(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = Predictor.of

    def of(checkpoint: Any, **options: Any) -> Predictor:
        made.append(checkpoint.name)
        return real(checkpoint, **options)

    monkeypatch.setattr(Predictor, "of", of)
    with at_home(trained):
        server = create_server(Darwin.load())

    async def talk(client: Client) -> None:
        await client.list_tools()
        await client.call_tool("list_tasks", {})
        assert made == []
        asked = {"materials": ["GaN"], "tasks": ["tiny_gap"]}
        # At once, on threads of their own: the weights are read once all the same, and each has its answer.
        found = await asyncio.gather(*(client.call_tool("predict", asked) for _ in range(4)))
        assert len(made) == 1
        assert len({text_of(one) for one in found}) == 1 and not found[0].is_error

    spoken(server, talk)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("predict", {"materials": []}, "the list is empty"),
    ("predict", {"materials": ["GaN"]}, "knows several tasks, so say which: tiny_gap, tiny_metal"),
    ("predict", {"materials": ["GaN"] * (ROWS + 1), "tasks": ["tiny_gap"]}, f"257 materials times 1 tasks are more than {ROWS}"),
    ("predict", {"materials": ["GaN"] * 129, "tasks": ["tiny_gap", "tiny_metal"]}, f"more than {ROWS} answers"),
    ("predict", {"materials": ["GaN", "A" * (TEXT + 1)], "tasks": ["tiny_gap"]}, "materials, number 2: 2,001 characters"),
    ("predict", {"materials": ["GaN"], "tasks": ["tiny_gap"], "coverage": 1.5}, "coverage lies between 0 and 1"),
    ("predict", {"materials": ["GaN"], "tasks": ["tiny_gap"], "conditions": {"heat": 3}}, "has no condition 'heat'"),
    ("explain", {"material": "GaN"}, "say which"),
    ("explain", {"material": "GaN", "task": "tiny_gap", "neighbours": NEIGHBOURS + 1}, "from 1 to 20, got 21"),
    ("explain", {"material": "GaN", "task": "tiny_gap", "coverage": 0}, "coverage lies between 0 and 1"),
    ("predict", {"materials": "GaN"}, "materials"),
]  # fmt: skip


def test_what_is_refused_is_an_error_of_the_tool_in_our_words(darwin: Darwin) -> None:
    async def talk(client: Client) -> None:
        for tool, arguments, said in REFUSED:
            found = await client.call_tool(tool, arguments)
            assert found.is_error and said in text_of(found), (tool, said, text_of(found))
        # Exactly the limit is answered.
        whole = await client.call_tool("predict", {"materials": ["GaN"] * ROWS, "tasks": ["tiny_gap"]})
        assert not whole.is_error

    spoken(create_server(darwin), talk)


def test_a_fault_of_ours_does_not_tell_its_text(darwin: Darwin, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(darwin, "predict", broken)

    async def talk(client: Client) -> None:
        found = await client.call_tool("predict", {"materials": ["GaN"], "tasks": ["tiny_gap"]})
        assert found.is_error and "secret" not in text_of(found)

    spoken(create_server(darwin), talk)
