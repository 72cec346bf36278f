"""`darwin models export` and `darwin models diff`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny import tiny_base, tiny_recipe, tiny_task
from tests.untrained import RECIPE, untrained

from conftest import Darwin
from matdarwin.models import export as exports
from matdarwin.training.run import train


@pytest.fixture
def base(home: Path) -> Path:
    """A base, and two checkpoints: `one`, and `two`, which was trained longer."""
    base, gap = tiny_base(home / "base", seed=7), tiny_task(home)
    untrained("one", gap, base=base)
    untrained("two", gap, base=base, seed=1, recipe=RECIPE | {"optimising": {"epochs": 30, "learning_rate": 1e-2}})
    return base


def test_export(darwin: Darwin, base: Path, tmp_path: Path) -> None:
    done = darwin("models", "export", "one", "--to", str(tmp_path / "out"), "--gguf", "--json")
    said = json.loads(done.out)
    assert done.code == 0 and said["folder"] == str(tmp_path / "out")
    assert set(said["files"]) >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "matdarwin.json",
        "gguf/model.gguf",
    }
    assert said["asked"] == json.loads((tmp_path / "out" / "matdarwin.json").read_text())
    shown = darwin("models", "export", "one", "--to", str(tmp_path / "again"))
    assert shown.code == 0 and "gguf" not in shown.out
    assert "band gap of {material}: -> a number from 0 to 5 with exactly 1 decimal, in eV" in shown.out


def test_export_of_a_base_that_samples(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    """Instruct models say how they sample, which transformers refuses to write beside answers that are not sampled."""
    from transformers import AutoModelForCausalLM

    base = tiny_base(home / "base")
    (base / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": [1, 2]})
    )
    recipe = tiny_recipe(base, [gap := tiny_task(home)], split={"calibration": 0.0})
    made = train(recipe, tasks=[gap])
    done = darwin("models", "export", made.name, "--to", str(tmp_path / "out"))
    assert done.code == 0, done.err
    settings = AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config
    assert settings.eos_token_id == made.tokenizer().eos_token_id
    assert not settings.do_sample and settings.temperature in (None, 1.0) and settings.top_p in (None, 1.0)


def test_export_refused(darwin: Darwin, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    done = darwin("models", "export", "one", "--to", str(tmp_path / "mine"))
    assert (done.code, done.out) == (2, "") and "is not empty" in done.err
    done = darwin("models", "export", "oen", "--to", str(tmp_path / "out"))
    assert (done.code, done.out) == (2, "") and "did you mean one?" in done.err
    assert "--to" in darwin("models", "export", "one").err

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exports.disk, "sync_all", full)
    done = darwin("models", "export", "one", "--to", str(tmp_path / "out"))
    assert (done.code, done.out) == (2, "") and "No space left on device" in done.err and "another disk" in done.err
    assert not (tmp_path / "out").exists()


def test_diff(darwin: Darwin, base: Path) -> None:
    done = darwin("models", "diff", "one", "two", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["recipe"] == {"optimising.epochs": [2, 30]}
    assert found["weights"]["distance"] > 0.1 and not found["weights"]["equal"]
    shown = " ".join(darwin("models", "diff", "one", "two").out.split())
    assert "a: one b: two" in shown and "recipe optimising.epochs 2 30" in shown and "layer 1" in shown
    shown = darwin("models", "diff", "one", "one").out
    assert "nothing differs in how they were made" in shown and "the weights are equal" in shown


def test_diff_with_its_base_by_another_path(darwin: Darwin, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)
    found = json.loads(darwin("models", "diff", "one", f"./{base.name}", "--json").out)
    assert found == json.loads(darwin("models", "diff", "one", "--json").out)


def test_diff_with_its_base(darwin: Darwin, base: Path) -> None:
    found = json.loads(darwin("models", "diff", "one", "--json").out)
    assert found["b"] == str(base) and found["base"] == {} and found["weights"]["distance"] > 0.1
    assert json.loads(darwin("models", "diff", "one", str(base), "--json").out) == found
    assert "its base is this one" in darwin("models", "diff", "one").out


def test_diff_unknown(darwin: Darwin, base: Path) -> None:
    for words in (["oen", "two"], ["two", "oen"]):
        done = darwin("models", "diff", *words)
        assert (done.code, done.out) == (2, "") and "did you mean one?" in done.err


def test_an_earlier_stage_is_shown_and_not_asked(darwin: Darwin, home: Path, tmp_path: Path) -> None:
    from matdarwin.training.run import train

    gap = tiny_task(home)
    more = home / "more.yaml"
    more.write_text(tiny_task(home, id="tiny_more", scored=False).model_dump_json(), encoding="utf-8")
    quick = {"epochs": 1, "batch_size": 16}
    made = train(
        tiny_recipe(tiny_base(home / "base"), [gap], before=[{"name": "facts", "tasks": [str(more)], "optimising": quick}], optimising=quick),
        tasks=[gap],
    )  # fmt: skip
    (stage,) = made.card.training["earlier"]
    shown = darwin("models", "show", stage)
    assert shown.code == 0 and "recipe    facts (" in shown.out
    assert darwin("models", "diff", stage, made.name).code == 0
    for args in (
        ("models", "export", stage, "--to", str(tmp_path / "out")),
        ("evaluate", stage),
        ("predict", "GaN", "--model", stage),
    ):
        done = darwin(*args)
        assert (done.code, done.out) == (2, "") and "is an earlier stage of other trainings and has no task" in done.err
