"""The routes: what goes in, what comes out, and that it is what Python and the command line give."""

# Fixtures are imported, since the fault tests use them too.
# ruff: noqa: F811

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.helpers import asked, darwin, served_home, slow  # noqa: F401 - fixtures
from tests.tiny import tiny_task
from typer.testing import CliRunner

from matdarwin import cli
from matdarwin.api import Darwin
from matdarwin.prediction.prediction import Prediction
from matdarwin.serving.chat import NotUnderstoodError, sentence, understand
from matdarwin.tasks.schema import Task

GIVEN = ["GaN", "CdTe", "Xx2", "", "<script>alert(1)</script>", "Fe2 O3"]


def test_predict_gives_what_python_gives(darwin: Darwin) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> httpx.Response:
        body = {"materials": GIVEN, "tasks": ["tiny_gap", "tiny_metal"], "coverage": 0.8}
        return await client.post("/v1/predict", json=body)

    answer = asked(darwin, work)
    expected = [p.to_dict() for p in darwin.predict(GIVEN, ["tiny_gap", "tiny_metal"], coverage=0.8)]
    assert answer.status_code == 200
    assert answer.json() == {"model": darwin.name, "predictions": expected}
    assert [p["status"] for p in expected][4:10:2] == ["invalid"] * 3


def test_csv_gives_what_the_command_line_gives(darwin: Darwin, served_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("MATDARWIN_HOME", str(served_home))
    table = tmp_path / "in.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "composition"], *enumerate([*GIVEN, "x,\r\ny", *["GaN", "InP"] * 200])])
    out = tmp_path / "out.csv"
    code = cli.run(["predict", "--input", str(table), "--output", str(out), "--task", "tiny_gap"])
    assert code == 1

    async def work(client: httpx.AsyncClient, state: Any) -> httpx.Response:
        return await client.post(
            "/v1/predict/csv?task=tiny_gap&column=composition",
            content=table.read_bytes(),
            headers={"Content-Type": "text/csv"},
        )

    answer = asked(darwin, work)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/csv")
    assert answer.content == out.read_bytes()
    assert len(list(csv.reader(io.StringIO(answer.text, newline="")))) == 408


@pytest.mark.parametrize(
    ("body", "query", "field", "words"),
    [
        (b"", "", "body", "empty"),
        (b"composition,composition\n1,2\n", "", "column", "2 times"),
        (b"a,b\nGaN,1\n", "", "column", "which column"),
        (b"a,b\nGaN,1\n", "&column=c", "column", "c"),
        (b"composition\n\xff\n", "", "body", "not UTF-8"),
        (b'composition\n"Ga"N\n', "", "body", "no CSV"),
        (b"composition\nGaN\n", "&task=nope", "task", "does not know"),
        (b"composition\nGaN\n", "&coverage=2", "coverage", "less than 1"),
        (b"composition\nGaN\n", "&condition=x", "condition", "NAME=VALUE"),
        (b"composition\nGaN\n", "&condition=t=3&condition=t=4", "condition", "t is given as 3 and as 4; give it once"),
    ],
)
def test_faults_of_a_table_are_told_before_the_first_byte(
    darwin: Darwin, body: bytes, query: str, field: str, words: str
) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> httpx.Response:
        answer = await client.post(
            f"/v1/predict/csv?task=tiny_gap{query}", content=body, headers={"Content-Type": "text/csv"}
        )
        assert state.streams == 0
        return answer

    told = asked(darwin, work)
    assert told.status_code == 422 and told.headers["content-type"] == "application/problem+json"
    assert told.json()["field"] == field and words in told.json()["detail"]


@pytest.mark.parametrize(
    ("content", "status", "field", "row"),
    [
        (b'{"materials": ["GaN"', 400, None, None),
        (b"\xff", 400, None, None),
        (b'{"materials": "GaN", "coverage": NaN, "tasks": "tiny_gap"}', 422, "coverage", None),
        (b'{"materials": ["GaN", 5], "tasks": "tiny_gap"}', 422, "materials", 1),
        (b'{"materials": "GaN", "tasks": "tiny_gap", "colour": 1}', 422, "colour", None),
        (b'{"materials": "GaN", "tasks": "tiny_gop"}', 422, "tasks", None),
        (b'{"materials": "GaN"}', 422, "tasks", None),
        (b'{"materials": "GaN", "tasks": "tiny_gap", "conditions": {"temperature": 3}}', 422, "conditions", None),
        (b'{"materials": "\\ud800", "tasks": "tiny_gap"}', 422, "materials", None),
        (b"[1]", 422, None, None),
        (b'{"materials": "' + b"9" * 200 + b'"' + b"[" * 50_000, 400, None, None),
    ],
)
def test_a_bad_request_names_its_field_and_row(darwin: Darwin, content: bytes, status: int, field: str | None, row: int | None) -> None:  # fmt: skip
    async def work(client: httpx.AsyncClient, state: Any) -> httpx.Response:
        return await client.post("/v1/predict", content=content, headers={"Content-Type": "application/json"})

    answer = asked(darwin, work)
    problem = answer.json()
    assert (
        answer.status_code == problem["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
    )
    assert problem["detail"] and problem["title"] and problem["type"] == "about:blank"
    assert problem.get("row") == row
    if field:
        assert problem["field"] == field


def test_404_and_405_are_problems(darwin: Darwin) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        return [
            await client.get("/nowhere"),
            await client.get("/v1/tasks/nope"),
            await client.get("/static/../app.py"),
            await client.get("/v1/predict"),
        ]

    answers = asked(darwin, work)
    assert [a.status_code for a in answers] == [404, 404, 404, 405]
    assert all(a.headers["content-type"] == "application/problem+json" for a in answers)
    assert answers[3].headers["allow"] == "POST"


def test_tasks_models_version_and_metrics(darwin: Darwin) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> dict[str, httpx.Response]:
        await client.post("/v1/predict", json={"materials": ["GaN", "InP"], "tasks": "tiny_gap"})
        paths = ("/v1/tasks", "/v1/tasks/tiny_gap", "/v1/models", "/version", "/metrics", "/openapi.json")
        return {path: await client.get(path) for path in paths}

    got = asked(darwin, work)
    assert all(a.status_code == 200 for a in got.values())
    listed = got["/v1/tasks"].json()
    assert listed["model"] == darwin.name and [t["id"] for t in listed["tasks"]] == ["tiny_gap", "tiny_metal"]
    gap, metal = listed["tasks"]
    assert gap["unit"] == "eV" and gap["bounds"] == [0.0, 5.0] and gap["decimals"] == 1 and gap["elements"]["Ga"] > 0
    assert metal["labels"] == ["metal", "not metal"]
    card = got["/v1/tasks/tiny_gap"].json()
    assert card["data_sha256"] == darwin.card.tasks["tiny_gap"].data_sha256
    # Where files lie on this machine is nobody's business.
    assert darwin.tasks["tiny_gap"].source.name not in got["/v1/tasks/tiny_gap"].text
    assert [m["id"] for m in got["/v1/models"].json()["data"]] == [darwin.name]
    version = got["/version"].json()
    assert version["data"]["tiny_gap"] == card["data_sha256"]
    assert all(len(value) == 64 for value in version["model"]["weights"].values()) and version["model"]["weights"]
    text = got["/metrics"].text
    assert 'darwin_requests_total{route="/v1/predict",status="200"} 1.0' in text
    assert 'darwin_rows_predicted_total{task="tiny_gap"} 2.0' in text
    assert "darwin_queue_rows 0.0" in text and "darwin_batch_rows_sum 2.0" in text


def test_explain_gives_what_python_gives(darwin: Darwin) -> None:
    from matdarwin.prediction.explain import explain

    parts = ["neighbours", "embedding", "without", "swaps", "wordings"]

    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        body = {"material": "GaN", "task": "tiny_gap"}
        return [
            await client.post("/v1/explain", json=body),
            await client.post("/v1/explain", json={**body, "parts": parts}),
            await client.post("/v1/explain", json={**body, "material": "Xx"}),
            await client.post("/v1/explain", json={**body, "parts": ["soul"]}),
        ]

    quick, full, invalid, wrong = asked(darwin, work)
    assert quick.json() == explain(darwin.predictor, "GaN", "tiny_gap", parts=["neighbours"]).to_dict()
    assert full.json() == explain(darwin.predictor, "GaN", "tiny_gap", parts=parts).to_dict()
    assert quick.json()["wordings"] == [] and len(full.json()["wordings"]) == 2
    assert invalid.status_code == 200 and invalid.json()["prediction"]["status"] == "invalid"
    assert wrong.status_code == 422 and wrong.json()["field"] == "parts"


def test_chat_answers_with_value_unit_and_interval(darwin: Darwin) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> list[httpx.Response]:
        body = {"messages": [{"role": "user", "content": "What is the band gap of GaN?"}]}
        return [
            await client.post("/v1/chat/completions", json={"model": darwin.name, "temperature": 0, **body}),
            await client.post("/v1/chat/completions", json={"stream": True, **body}),
            await client.post("/v1/chat/completions", json={"model": "gpt", **body}),
            await client.get("/openapi.json"),
        ]

    plain, streamed, other, document = asked(darwin, work)
    (prediction,) = darwin.predict("GaN", "tiny_gap")
    choice = plain.json()["choices"][0]
    assert choice["finish_reason"] == "stop" and choice["message"]["role"] == "assistant"
    text = choice["message"]["content"]
    assert f"band gap of Ga N is predicted to be {prediction.value:.1f} eV" in text.replace("GaN", "Ga N")
    assert f"90 % interval of {prediction.lower:.2f} to {prediction.upper:.2f} eV" in text
    lines = [line for line in streamed.text.split("\n") if line]
    assert streamed.headers["content-type"].startswith("text/event-stream") and lines[1] == "data: [DONE]"
    stated = document.json()["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert {"application/json", "text/event-stream"} == set(stated)
    chunk = json.loads(lines[0].removeprefix("data: "))
    assert chunk["object"] == "chat.completion.chunk" and chunk["choices"][0]["delta"]["content"] == text
    assert other.status_code == 404 and darwin.name in other.json()["detail"]


@pytest.mark.parametrize(
    "question", ["Write me a poem about the sea", "What is the boiling point of GaN?", "What is the band gap of it?"]
)
def test_chat_refuses_honestly(darwin: Darwin, question: str) -> None:
    async def work(client: httpx.AsyncClient, state: Any) -> httpx.Response:
        return await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": question}]})

    answer = asked(darwin, work)
    choice = answer.json()["choices"][0]
    assert answer.status_code == 200 and choice["finish_reason"] == "stop"
    assert "band gap" in choice["message"]["content"]
    if "gap" not in question:
        assert "tiny_gap" in choice["message"]["content"] and "tiny_metal" in choice["message"]["content"]


@pytest.mark.parametrize(
    ("question", "material"),
    [
        ("What is the band gap of GaN?", "GaN"),
        ("band gap of Ga 0.5 In 0.5 As", "Ga 0.5 In 0.5 As"),
        ("In eV, how large is the band gap of CdTe, please?", "CdTe"),
        ("Hi! I would like to know the Band Gap for Cu2ZnSnS4.", "Cu2ZnSnS4"),
        ("CdSe band gap", "CdSe"),
        ("tiny gap of (Ga2O3)?", "Ga2O3"),
        ("What band gap does InP have?", "InP"),
    ],
)
def test_questions_in_many_words(tmp_path: Path, question: str, material: str) -> None:
    tasks = {task.id: task for task in (tiny_task(tmp_path), tiny_task(tmp_path, kind="classification", property="metallic character"))}  # fmt: skip
    found = understand(question, tasks)
    assert (found.material, [task.id for task in found.tasks]) == (material, ["tiny_gap"])


def test_tasks_of_one_kind_of_material_share_what_was_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matdarwin.serving import chat

    one, other = tiny_task(tmp_path), tiny_task(tmp_path, kind="classification", property="metallic character")
    asked: list[tuple[str, str]] = []
    real = chat.parse
    monkeypatch.setattr(chat, "parse", lambda given, kind: asked.append((given, kind)) or real(given, kind))
    question = "the band gap and the metallic character of Q1 Q2 Q3 and GaN"
    assert understand(question, {task.id: task for task in (one, other)}).material == "GaN"
    assert ("GaN", "composition") in asked and len(asked) == len(set(asked))


def test_conditions_are_found_or_asked_for(tmp_path: Path) -> None:
    task = tiny_task(
        tmp_path, conditions=[{"name": "temperature", "unit": "K"}], wordings=["band gap {conditions} of {material}"]
    )
    assert understand("What is the band gap of GaN at 300 K?", {task.id: task}).conditions == {"temperature": 300.0}
    assert understand("band gap at 77.5 K of GaN", {task.id: task}).material == "GaN"
    with pytest.raises(NotUnderstoodError, match="temperature, in K"):
        understand("What is the band gap of GaN?", {task.id: task})


@pytest.fixture
def hot(tmp_path: Path) -> dict[str, Task]:
    """A task that needs a temperature in K, and one in °C."""
    wordings = ["band gap {conditions} of {material}"]
    kelvin = tiny_task(tmp_path, conditions=[{"name": "temperature", "unit": "K"}], wordings=wordings)
    celsius = tiny_task(
        tmp_path, id="tiny_loss", property="loss", conditions=[{"name": "temperature", "unit": "°C"}], wordings=["loss {conditions} of {material}"]
    )  # fmt: skip
    return {task.id: task for task in (kelvin, celsius)}


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("band gap of GaN at 300 K", 300.0),
        ("band gap of GaN at 300K?", 300.0),
        ("band gap of Fe2O3 300 K", 300.0),
        ("band gap of Na 0.5 K 0.5 Cl at 300 K", 300.0),
        ("band gap of Na2K at 300 K", 300.0),
        ("band gap of K2O at 300 K", 300.0),
        ("band gap of PbTe at 300 K", 300.0),
        ("band gap of Na 0.5 K 0.5 Cl (300 K)", 300.0),
        ("band gap of GaN at 300 Kelvin", 300.0),
        ("What is the band gap of Bi2Te3 at 300 K, in W m-1 K-1?", 300.0),
        ("band gap of Bi2Te3 at 300 K in W m^-1 K^-1", 300.0),
        ("at 300 K, what is the band gap of K?", 300.0),
        ("band gap of GaN (T=300 K)", 300.0),
        ("band gap of GaN at ~77.5 kelvin", 77.5),
        ("loss of GaN at -50 °C", -50.0),
        ("loss of GaN at \u221250 °C", -50.0),
        ("loss of GaN at +20 degrees Celsius", 20.0),
    ],
)
def test_temperatures_are_read_as_they_are_written(hot: dict[str, Task], question: str, value: float) -> None:
    assert understand(question, hot).conditions == {"temperature": value}


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("band gap of GaN at 1,000 K", "'1,000'"),
        ("band gap of GaN at 1 000 K", "'1 000'"),
        ("band gap of GaN at 300,5 K", "'300,5'"),
        ("band gap of GaN at 300-500 K", "'300-500'"),
        ("band gap of GaN at 300\u2013500 K", "'300-500'"),
        ("band gap of GaN at 1e3 K", "'1e3'"),
        ("band gap of GaN from 300 to 500 K", "'300 to 500'"),
        ("band gap of GaN at 300 K-500 K", "'K-500'"),
        ("band gap of PbTe 300 K", "Is '300 K' a temperature or a part of the formula?"),
        ("band gap of PbTe 1 000 K", "Is '1 000 K' a temperature or a part"),
        ("What is the band gap of PbTe, 300 K?", "Is '300 K' a temperature"),
        ("band gap at 300 K PbTe", "Is '300 K' a temperature"),
        ("loss of GaN at - 50 °C", "'- 50'"),
        ("band gap of GaN at 300 K or 500 K", "300 and 500"),
    ],
)
def test_a_temperature_that_is_no_plain_number_is_not_guessed(hot: dict[str, Task], question: str, named: str) -> None:
    with pytest.raises(NotUnderstoodError, match=re.escape(named)):
        understand(question, hot)


def test_the_answer_says_at_which_temperature_and_which_was_not_used(tmp_path: Path, hot: dict[str, Task]) -> None:
    def said(question: str, tasks: dict[str, Task]) -> str:
        asked = understand(question, tasks)
        task = asked.tasks[0]
        found = Prediction(
            input=asked.material, material=asked.material, task=task.id, value=1.5, unit="eV", lower=None, upper=None,
            coverage=None, status="uncalibrated", reason="few", notes=(), model="m",
        )  # fmt: skip
        return sentence(found, task, asked.conditions, asked.unused)

    assert "of GaN at 300 K is predicted to be 1.5 eV" in said("band gap of GaN at 300 K", hot)
    cold = tiny_task(tmp_path)
    text = said("band gap of GaN at 600 K", {cold.id: cold})
    assert "Note: 600 K was not used, since this task has no such condition." in text
    assert "Note" not in said("band gap of GaN", {cold.id: cold})


def test_names_of_tasks_are_as_short_as_texts(darwin: Darwin) -> None:
    """Each that is not known is compared with those that are, while nobody else is served."""

    async def work(client: Any, _: Any) -> Any:
        return await client.post("/v1/predict", json={"materials": "GaN", "tasks": ["a" * 20_000]})

    answer = asked(darwin, work)
    assert answer.status_code == 422 and answer.json()["field"] == "tasks" and "20,000 characters" in answer.text


def test_a_table_of_very_many_columns_is_refused(darwin: Darwin) -> None:
    """Each row would be brought to the header's width: a megabyte of commas would take gigabytes."""

    async def work(client: Any, _: Any) -> Any:
        body = b"composition" + b"," * 100_000 + b"\n" + b"GaN\n" * 1000
        return await client.post("/v1/predict/csv?task=tiny_gap", content=body, headers={"content-type": "text/csv"})

    answer = asked(darwin, work)
    assert answer.status_code == 422 and "100,001 columns" in answer.text


def test_the_command_names_its_options() -> None:
    import typer

    from matdarwin.commands.serve import serve

    app = typer.Typer()
    app.command()(serve)
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and "--api-key-file" in shown.output
