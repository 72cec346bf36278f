"""What a sweep varies, and what it tries next."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from matdarwin.training.vary import SweepError, Vary, parse, propose

RATE, EPOCHS = parse("optimising.learning_rate=log:5e-5:5e-4"), parse("optimising.epochs=int:3:8")


def test_ranges_and_choices_are_read() -> None:
    assert Vary("optimising.learning_rate", "log", 5e-5, 5e-4) == RATE
    assert Vary("optimising.epochs", "int", 3, 8) == EPOCHS
    assert parse("a=float:-1:2") == Vary("a", "float", -1.0, 2.0)
    assert parse("method=choice:full, lora") == Vary("method", "choice", choices=("full", "lora"))


@pytest.mark.parametrize("text", ["a=log:1e-4:1e-3", "a=float:-1:2", "a=int:3:8", "a=choice:x,y"])
def test_what_was_read_is_written_as_it_was(text: str) -> None:
    assert parse(parse(text).text()) == parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimising.epochs", "write KEY=log:LOW:HIGH"), ("a=int:1.5:3", "write KEY="), ("a=int:3", "write KEY="), ("a=int:1:2:3", "write KEY="),
        ("a=normal:0:1", "write KEY="), ("=int:1:2", "write KEY="), ("a=float:0:inf", "write KEY="), ("a=float:nan:1", "write KEY="),
        ("a=int:3:3", "ends must rise"), ("a=log:0:1", "be above 0"), ("a=choice:x", "two or more"), ("a=choice:x,x", "two or more"),
        ("split.validation=float:0.1:0.3", "rows that trials are scored on"), ("tasks=choice:a,b", "rows that trials"), ("seed=int:0:9", "is chance"),
        ("predicting.views=int:1:4", "validation does not follow"),
    ],
)  # fmt: skip
def test_what_cannot_be_varied_is_told(text: str, said: str) -> None:
    with pytest.raises(SweepError, match=said):
        parse(text)


def test_a_number_is_tried_as_it_can_be_written_down() -> None:
    assert RATE.setting(1.23456e-4) == "optimising.learning_rate=0.000123"
    assert RATE.setting(5.001e-5) == "optimising.learning_rate=5e-05"
    # Rounding must not step out of the range.
    assert parse("a=float:1.0009:1.0011").setting(1.001) == "a=1.0009"
    assert EPOCHS.setting(4) == "optimising.epochs=4"
    assert EPOCHS.ends() == ["optimising.epochs=3", "optimising.epochs=8"]
    assert parse("method=choice:full,lora").ends() == ["method=full", "method=lora"]


def test_what_is_tried_depends_on_the_seed_and_the_past_alone() -> None:
    vary = [RATE, EPOCHS, parse("method=choice:full,lora")]
    past: list[tuple[dict[str, Any], float | None]] = []
    for number in range(14):
        drawn = propose(vary, past, seed=3)
        assert drawn == propose(vary, past, seed=3)
        assert 5e-5 <= float(drawn[RATE.key]) <= 5e-4 and drawn[EPOCHS.key] in range(3, 9)
        past.append((drawn, None if number == 2 else abs(float(drawn[RATE.key]) - 2e-4)))
    assert len({drawn[RATE.key] for drawn, _ in past}) > 10
    assert propose(vary, past, seed=4) != propose(vary, past, seed=3)
    assert propose(vary, past[:-1], seed=3) == past[-1][0]


def test_what_was_good_is_tried_more_often() -> None:
    past: list[tuple[dict[str, Any], float | None]] = []
    for _ in range(40):
        drawn = propose([RATE], past, seed=0)
        past.append((drawn, abs(float(drawn[RATE.key]) - 4e-4)))
    errors = [score for _, score in past if score is not None]
    assert sum(errors[-15:]) < 0.6 * sum(errors[:15])


def test_a_key_is_varied_once() -> None:
    with pytest.raises(SweepError, match="each once"):
        propose([EPOCHS, EPOCHS], [], seed=0)


def test_without_optuna_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SweepError, match=r"\(optuna\): pip install -e '\.\[sweep\]'"):
        propose([EPOCHS], [], seed=0)
