"""A screen asked of a vLLM server keeps the rows that the local engine keeps, and stands what befalls servers.

It is a stand-in that is asked (tests/vllm_stand_in.py), not vLLM itself.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.tiny import at_home, tiny_base, tiny_checkpoint, tiny_rows, tiny_task
from tests.vllm_stand_in import StandIn, serving

from matdarwin import cli
from matdarwin.materials import parse
from matdarwin.models.checkpoint import Checkpoint
from matdarwin.models.export import export
from matdarwin.prediction import files, vllm_server
from matdarwin.prediction.engines import EngineError
from matdarwin.prediction.predictor import Predictor
from matdarwin.prediction.remote import VllmAsk

Run = Callable[..., tuple[int, str, str]]
"""A command's words to its exit code, standard output and standard error."""

KEY = "sk-very-secret-0123"


class Made:
    """A checkpoint, its home and its export."""

    def __init__(self, home: Path, checkpoint: Checkpoint) -> None:
        self.home, self.checkpoint, self.folder = home, checkpoint, home / "export"
        with at_home(home):
            export(checkpoint, self.folder)

    def stand_in(self, **options: object) -> StandIn:
        return StandIn(self.folder, self.checkpoint.name, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = tmp_path_factory.mktemp("home")
    return Made(home, tiny_checkpoint(home, tasks=[tiny_task(home), tiny_task(home, kind="classification")]))


@pytest.fixture(autouse=True)
def surroundings(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATDARWIN_HOME", str(made.home))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(vllm_server.KEY, raising=False)
    # No test is to wait for seconds.
    monkeypatch.setattr(vllm_server, "_LONGEST_PAUSE", 0.02)


@pytest.fixture
def darwin(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    def call(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    yield call


def table(path: Path, count: int, *, bad: int = 7) -> Path:
    formulas = [formula.replace(" ", "") for formula, _ in tiny_rows(540)]
    rows = [f"{i},{'Xx' if i % 20 == bad else formulas[i % len(formulas)]}\n" for i in range(count)]
    path.write_text("id,composition\n" + "".join(rows))
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("ids", [128, 4])
def test_the_same_distributions(made: Made, monkeypatch: pytest.MonkeyPatch, ids: int) -> None:
    # With few tokens and prompts a request, each node takes several.
    monkeypatch.setattr(vllm_server, "IDS", ids)
    monkeypatch.setattr(vllm_server, "PROMPTS", 64 if ids == 128 else 5)
    local = Predictor.of(made.checkpoint)
    materials = [formula for formula, _ in tiny_rows(12)] + ["Xx"]
    stand_in = made.stand_in()
    with serving(stand_in) as url:
        ask = VllmAsk(made.checkpoint, url + "/v1/")
        try:
            for task in ("tiny_gap", "tiny_metal"):
                for here, there in zip(local.predict(materials, task), ask(materials, task), strict=True):
                    assert (here.value, here.status, here.notes, here.material) == (
                        there.value, there.status, there.notes, there.material,
                    )  # fmt: skip
                    assert (here.lower, here.upper) == pytest.approx((there.lower, there.upper))
                    one, other = here.distribution, there.distribution
                    if here.status == "invalid":
                        assert one is None and other is None
                        continue
                    assert one is not None and other is not None and one.labels == other.labels
                    assert one.values.tolist() == other.values.tolist()
                    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
                    for name in ("outside", "unexpanded", "assumed_ends"):
                        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-5)
        finally:
            ask.close()
    assert 1 < stand_in.most <= vllm_server.IN_FLIGHT
    scored = [body for path, _, body in stand_in.seen if "logprob_token_ids" in body]
    assert scored and all(len(body["prompt"]) <= vllm_server.PROMPTS for body in scored)
    assert all(len(body["logprob_token_ids"]) <= ids for body in scored)


def test_a_pruned_walk_and_tokens_of_several_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Made
) -> None:
    # With signs, with two decimals, with tokens of two digits, averaged over element orders, and pruned.
    task = tiny_task(tmp_path, bounds=[-5, 5], decimals=2)
    checkpoint = tiny_checkpoint(
        tmp_path, tasks=[task], base=tiny_base(tmp_path / "base", digits_single=False),
        predicting={"views": 2, "prune": 0.01, "batch_size": 8}, optimising={"epochs": 2, "learning_rate": 1e-2, "batch_size": 16},
    )  # fmt: skip
    other = Made(tmp_path, checkpoint)
    materials = [formula for formula, _ in tiny_rows(5)]
    with serving(other.stand_in()) as url:
        ask = VllmAsk(checkpoint, url, batch_size=3)
        there = [one.distribution for one in ask(materials, "tiny_gap")]
        ask.close()
    here = [one.distribution for one in Predictor.of(checkpoint).predict(materials, "tiny_gap")]
    for mine, its in zip(here, there, strict=True):
        assert mine is not None and its is not None and len(mine.values) > 50
        assert mine.unexpanded > 0
        assert mine.values.tolist() == its.values.tolist()
        assert mine.probabilities == pytest.approx(its.probabilities, abs=1e-5)


@pytest.mark.parametrize(
    "wish",
    [
        ["--task", "tiny_gap", "--task", "tiny_metal", "--where", "tiny_gap.value < 5", "--by", "tiny_gap.P(0, 2)", "--top", "12"],
        ["--task", "tiny_gap", "--where", "P(0, 2) > 0.2"],
        ["--task", "tiny_gap"],
    ],
)  # fmt: skip
def test_the_same_rows_as_the_local_engine(made: Made, tmp_path: Path, darwin: Run, wish: list[str]) -> None:
    source = table(tmp_path / "in.csv", 60)
    with serving(made.stand_in()) as url:
        there = darwin("screen", source, tmp_path / "there.csv", *wish, "--engine", "vllm", "--url", url, "--json")
    here = darwin("screen", source, tmp_path / "here.csv", *wish, "--json")
    assert here[0] == there[0] == 1, there[2]
    assert "3 of 60 rows have no value" in there[2] and f"asking the vLLM server at {url}" in there[2]
    assert "reading the model's weights" not in there[2]
    timed = {"seconds", "screening_seconds", "output"}
    told = [{k: v for k, v in json.loads(done[1]).items() if k not in timed} for done in (here, there)]
    assert told[0] == told[1] and told[0]["kept"] > 0
    rows, others = read(tmp_path / "here.csv"), read(tmp_path / "there.csv")
    assert len(rows) == len(others) == told[0]["kept"]
    off = 0
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for column, cell in row.items():
            if column.startswith(("lower", "upper", "score")) and cell:
                # An end is rounded outward: where it falls on a whole hundredth, as for the very row that the
                # calibration took it from, the last bits of a probability decide which one.
                slack = 1e-5 if column == "score" else 0.01 + 1e-9
                assert float(cell) == pytest.approx(float(other[column]), abs=slack), column
                off += abs(float(cell) - float(other[column])) > 1e-5
            else:
                assert cell == other[column], column
    assert off <= 1


FAULTS = [
    ("500", "failed with HTTP 500: EngineCore met an issue"),
    ("503", "too busy or not ready (HTTP 503"),
    ("429", "too busy or not ready (HTTP 429"),
    ("cut", "cannot be reached or broke off (IncompleteRead), 5 times over"),
    ("reset", "cannot be reached or broke off"),
    ("bare", "does not give the log-probabilities"),
    ("logits", "other numbers than log-probabilities"),
    ("short", "did not answer each prompt"),
    ("html", "answers no JSON"),
    ("302", "failed with HTTP 302"),
    ("404", "does not hold what is asked (HTTP 404"),
]


@pytest.mark.parametrize(("fault", "told"), FAULTS)
def test_a_server_that_fails_midway_and_the_same_command_after(
    made: Made, tmp_path: Path, darwin: Run, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    monkeypatch.setenv(vllm_server.KEY, KEY)
    monkeypatch.setattr(files, "CHUNK", 16)
    source, output = table(tmp_path / "in.csv", 40), tmp_path / "out.csv"
    words = ["screen", source, output, "--task", "tiny_gap", "--engine", "vllm"]
    # The first part goes through whole.
    whole = made.stand_in(key=KEY)
    with serving(whole) as url:
        assert darwin(*words, "--url", url)[0] == 1
    complete = output.read_bytes()
    output.unlink()
    half = whole.asked // 2
    sick = made.stand_in(key=KEY, fault=lambda number: fault if number >= half else None)
    with serving(sick) as url:
        code, out, err = darwin(*words, "--url", url)
    assert code == 2 and told in err and url in err, err
    assert KEY not in out + err and not output.exists()
    work = tmp_path / ".out.csv.screen"
    done = sorted(work.glob("*.jsonl"))
    assert 1 <= len(done) < 3
    assert KEY not in "".join(path.read_text() for path in work.iterdir())
    # Another engine does not go on with it; the same one does, wherever the server is now.
    code, _, err = darwin("screen", source, output, "--task", "tiny_gap")
    assert code == 2 and "another engine" in err
    with serving(made.stand_in(key=KEY)) as url:
        code, _, err = darwin(*words, "--url", url)
    assert code == 1 and f"{16 * len(done)} rows were done by an earlier run" in err
    assert output.read_bytes() == complete
    assert [row["id"] for row in read(output)] == [str(i) for i in range(40)]


@pytest.mark.parametrize("fault", ["503", "429", "reset", "cut"])
def test_a_passing_fault_is_ridden_out(made: Made, fault: str) -> None:
    materials = [formula for formula, _ in tiny_rows(3)]
    stand_in = made.stand_in(fault=lambda number: fault if number % 3 == 1 else None)
    stand_in.retry_after = "1"
    with serving(stand_in) as url:
        ask = VllmAsk(made.checkpoint, url)
        assert [one.status for one in ask(materials, "tiny_gap")] == ["ok"] * 3
        ask.close()


def test_a_server_that_is_away(made: Made, tmp_path: Path, darwin: Run) -> None:
    source = table(tmp_path / "in.csv", 5)
    with serving(made.stand_in()) as url:
        pass
    code, _, err = darwin(
        "screen", source, tmp_path / "out.csv", "--task", "tiny_gap", "--engine", "vllm", "--url", url
    )
    assert code == 2 and f"{url} cannot be reached" in err and "is the vLLM server up?" in err
    assert not (tmp_path / "out.csv").exists()


def test_a_slow_server_times_out(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = made.stand_in()
    with serving(stand_in) as url:
        ask = VllmAsk(made.checkpoint, url, timeout=0.4)
        stand_in.fault = lambda number: "slow"
        with pytest.raises(EngineError, match=r"did not answer within 0\.4 s"):
            ask(["Ga N"], "tiny_gap")
        ask.close()
    # The root of one question is one request, asked once.
    assert sum("logprob_token_ids" in body for _, _, body in stand_in.seen) <= 2


def test_the_key(made: Made, tmp_path: Path, darwin: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = table(tmp_path / "in.csv", 3, bad=-1), tmp_path / "out.csv"
    # A password that lies about for that host is not taken for the key.
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other-secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    stand_in = made.stand_in(key=KEY)
    with serving(stand_in) as url:
        words = ("screen", source, output, "--task", "tiny_gap", "--engine", "vllm", "--url", url)
        code, _, err = darwin(*words)
        assert code == 2 and f"none is given (HTTP 401); set {vllm_server.KEY}" in err
        assert all("Authorization" not in headers for _, headers, _ in stand_in.seen)
        monkeypatch.setenv(vllm_server.KEY, "wrong")
        code, _, err = darwin(*words)
        assert code == 2 and "the one given is refused" in err and "wrong" not in err
        stand_in.seen.clear()
        monkeypatch.setenv(vllm_server.KEY, KEY)
        code, out, err = darwin("--debug", *words)
    assert code == 0 and KEY not in out + err, err
    assert stand_in.seen and all(h["Authorization"] == f"Bearer {KEY}" for _, h, _ in stand_in.seen)
    assert KEY.encode() not in output.read_bytes()


def test_another_model(made: Made, tmp_path: Path, darwin: Run) -> None:
    name = made.checkpoint.name
    words = ("screen", table(tmp_path / "in.csv", 3), tmp_path / "out.csv", "--task", "tiny_gap", "--engine", "vllm")
    remedy = f"darwin models export {name} --to FOLDER, then vllm serve FOLDER --served-model-name {name}"
    with serving(StandIn(made.folder, "gpt2")) as url:
        code, _, err = darwin(*words, "--url", url)
    assert code == 2 and f"holds gpt2, not {name}" in err and remedy in err
    # The name alone does not do: its tokens are others.
    with serving(StandIn(tiny_base(tmp_path / "other", digits_single=False), name)) as url:
        code, _, err = darwin(*words, "--url", url)
    assert code == 2 and "into other tokens" in err and remedy in err
    # A folder of that name is what vLLM calls a model by without --served-model-name.
    stand_in = StandIn(made.folder, f"/models/{name}")
    with serving(stand_in) as url:
        code, _, err = darwin(*words, "--url", url)
    assert code == 0, err
    assert {body["model"] for _, _, body in stand_in.seen if body} == {f"/models/{name}"}


def test_a_server_that_does_not_know_the_field(made: Made) -> None:
    with serving(made.stand_in(knows_ids=False)) as url:
        ask = VllmAsk(made.checkpoint, url)
        with pytest.raises(
            EngineError, match=r"does not give the log-probabilities of the tokens.*vLLM 0\.26 or later"
        ):
            ask(["Ga N"], "tiny_gap")
        ask.close()


def test_no_weights_are_read(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the weights were read")

    stand_in = made.stand_in()
    monkeypatch.setattr(Checkpoint, "model", refuse)
    with serving(stand_in) as url:
        ask = VllmAsk(made.checkpoint, url)
        assert ask(["Ga N"], "tiny_gap")[0].status == "ok"
        ask.close()


def test_what_a_server_cannot_say_is_refused(made: Made) -> None:
    with serving(made.stand_in()) as url:
        ask = VllmAsk(made.checkpoint, url)
        task = made.checkpoint.card.tasks["tiny_gap"].task
        question = ask._predictor.example(task, parse("GaN", "composition"))
        with pytest.raises(EngineError, match="ask with the model here"):
            ask._predictor.embeddings(task, [question])
        ask.close()
