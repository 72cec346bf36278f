"""Values to texts and back: fixed decimals, no surprises, never a guess."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import tiny_task

from matdarwin.language.answers import format_answer, format_number, grid, parse_answer, parse_number
from matdarwin.tasks.schema import Task


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny_task(tmp_path_factory.mktemp("gap"), bounds=[-1.5, 2], decimals=2)


@pytest.fixture(scope="module")
def metal(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny_task(tmp_path_factory.mktemp("metal"), kind="classification")


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (1.2, 2, "1.20"),
        (0.5, 0, "0"),  # half to even
        (1.5, 0, "2"),
        (2.5, 0, "2"),
        (0.125, 2, "0.12"),
        (0.375, 2, "0.38"),
        (2.675, 2, "2.68"),  # as written, not as the nearest binary fraction below it
        (-0.001, 2, "0.00"),
        (-0.005, 2, "0.00"),
        (-0.0, 1, "0.0"),
        (-0.4, 0, "0"),
        (-1.235, 2, "-1.24"),
        (6.16e-5, 6, "0.000062"),
        (6.16e-5, 2, "0.00"),
        (1e22, 1, "10000000000000000000000.0"),
        (1e30, 2, "1" + "0" * 30 + ".00"),
        (3, 2, "3.00"),
    ],
)
def test_a_number_has_exactly_its_decimals(value: float, decimals: int, text: str) -> None:
    assert format_number(value, decimals) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_no_answer(value: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        format_number(value, 2)


@given(st.floats(-1e9, 1e9), st.integers(0, 6))
def test_format_and_parse_are_inverse(value: float, decimals: int) -> None:
    text = format_number(value, decimals)
    read = parse_number(f" {text}").value
    assert isinstance(read, float)
    assert abs(read - value) <= 0.5 * 10.0**-decimals + 1e-6
    assert format_number(read, decimals) == text
    assert "e" not in text.lower()
    assert not (text.startswith("-") and read == 0)
    assert len(text.partition(".")[2]) == decimals


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 6))
def test_every_finite_float_can_be_written(value: float, decimals: int) -> None:
    text = format_number(value, decimals)
    assert "e" not in text.lower() and parse_number(text).value is not None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-1.2", -1.2),
        ("1e-3", 1e-3),
        ("1.5E+2", 150.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("+2", 2.0),
        (" 1.23 eV", 1.23),
        ("1.23eV", 1.23),
        ("12 °C", 12.0),
        ("7 %", 7.0),
        ("1,234", 1234.0),
        ("1,234,567.5", 1234567.5),
        ("\u22121.20", -1.2),
        ("\u20131.20", -1.2),
        ("\uff0d3", -3.0),
        ("1.5\u00a0eV", 1.5),
        ("0", 0.0),
        ("\n 4 \t", 4.0),
    ],
)
def test_numbers_that_are_read(text: str, value: float) -> None:
    assert parse_number(text).value == value
    assert parse_number(text).reason is None


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "eV", "about 1.2", "none", "-", ".", "-.", "+", "--1", "- 1", "1,5", "1,23", "1,2345", "12,34,567", "0,123", "012,345", ",5", "1.2.3",
        "1 2", "1-2", "1\u20132", "1/2", "1 or 2", "1±0.2", "1e400", "-1e999", "nan", "inf", "0x1f", "1_000", "٣", "1٣", "5-", "10²", "2½",
        "e5", "<eos>", "1.2 eV and then 3",
    ],
)  # fmt: skip
def test_what_is_not_read_has_a_reason_and_no_value(text: str) -> None:
    reading = parse_number(text)
    assert reading.value is None
    assert reading.reason and ("answer" in reading.reason)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_and_never_raises(text: str) -> None:
    reading = parse_number(text)
    assert (reading.value is None) == bool(reading.reason)


def test_a_long_answer_is_shortened_in_the_reason() -> None:
    assert len(parse_number("x" * 100_000).reason or "") < 120


def test_bounds_hold_on_the_way_out_and_in(gap: Task) -> None:
    assert format_answer(gap, 2) == " 2.00"
    assert format_answer(gap, -1.5) == " -1.50"
    for beyond in (2.01, -1.51, 1e9):
        with pytest.raises(ValueError, match=r"outside the bounds of tiny_gap.*-1\.5 to 2\.0 eV"):
            format_answer(gap, beyond)
    assert parse_answer(gap, "2.01").value is None
    assert "outside the bounds" in (parse_answer(gap, "2.01").reason or "")
    assert parse_answer(gap, " -1.50").value == -1.5
    with pytest.raises(ValueError, match=r"finite|bounds"):
        format_answer(gap, float("nan"))


def test_labels_are_told_whatever_their_case_and_never_guessed(metal: Task) -> None:
    assert format_answer(metal, "not metal") == " not metal"
    assert parse_answer(metal, " Not  metal.\n").value == "not metal"
    assert parse_answer(metal, "metal").value == "metal"
    for wrong in ("", "met", "not", "metallic", "metal or not metal", "0"):
        reading = parse_answer(metal, wrong)
        assert reading.value is None and "metal, not metal" in (reading.reason or "")
    with pytest.raises(ValueError, match=r"no label of tiny_metal; its labels are metal, not metal"):
        format_answer(metal, "semimetal")


def test_the_grid_rises_over_the_bounds(gap: Task, tmp_path: Path) -> None:
    values = grid(gap)
    assert len(values) == 351 and values[0] == -1.5 and values[-1] == 2.0 and 0.0 in values
    assert values == sorted(values)
    assert [format_number(v, 2) for v in values[149:152]] == ["-0.01", "0.00", "0.01"]
    assert grid(tiny_task(tmp_path, bounds=[0.1, 0.3], decimals=1)) == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match=r"need more than its 1 decimals"):
        tiny_task(tmp_path, bounds=[0.05, 0.32], decimals=1)


@given(st.floats(-1.5, 2))
def test_each_answer_of_the_bounds_lies_on_the_grid(value: float) -> None:
    task = Task.model_construct(id="t", kind="regression", bounds=(-1.5, 2.0), decimals=2, labels=(), unit="eV")
    read = parse_answer(task, format_answer(task, value)).value
    assert read in set(grid(task))
