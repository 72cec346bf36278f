"""Tests of the name parser: which spellings are one material, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.timing import least_seconds

from matdarwin.materials.material import MaterialError
from matdarwin.materials.name import MAX_LENGTH, parse_name


def refuse(text: str) -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        parse_name(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "wording", "key"),
    [
        ("HKUST-1", "HKUST-1", "name:hkust-1"),
        ("  Zn-MOF \n 74 ", "Zn-MOF 74", "name:zn-mof 74"),
        ("UiO\u201366", "UiO-66", "name:uio-66"),
        ("UiO\u221266", "UiO-66", "name:uio-66"),
        ("4,4\u2032-bipyridine", "4,4'-bipyridine", "name:4,4'-bipyridine"),
        ("4,4\u00b4-bipyridine", "4,4'-bipyridine", "name:4,4'-bipyridine"),
        ("\u201cblack\u201d phase", '"black" phase', 'name:"black" phase'),
        ("Zr₆O₄", "Zr6O4", "name:zr6o4"),
        ("stra\u00dfe", "stra\u00dfe", "name:strasse"),
        ("caf\u0065\u0301", "caf\u00e9", "name:caf\u00e9"),
        ("tert\u00ad-butyl", "tert-butyl", "name:tert-butyl"),
    ],
)
def test_reads(text: str, wording: str, key: str) -> None:
    material = parse_name(text)
    assert material.kind == "name"
    assert material.given == text
    assert material.text == wording
    assert material.parts == material.source_parts == (wording,)
    assert material.key == key
    assert material.keys == (key,)
    assert material.elements == ()


@pytest.mark.parametrize(
    ("text", "token", "position", "says"),
    [
        ("MOF\x00-5", "\x00", 3, "U+0000"),
        ("  MOF\u200b-5", "\u200b", 5, "U+200B"),
        ("MOF\x1f5", "\x1f", 3, "U+001F"),
        ("M\ud800", "\ud800", 1, "U+D800"),
        (" 12-3 ", "12-3", 1, "no letter"),
        ("!?", "!?", 0, "no letter"),
        ("NaN", "NaN", 0, "missing value"),
        (" n/a", "n/a", 1, "missing value"),
    ],
)
def test_refuses_with_token_and_position(text: str, token: str, position: int, says: str) -> None:
    error = refuse(text)
    assert (error.token, error.position) == (token, position)
    assert f"at position {position} " in str(error)
    assert says in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_refuses_empty(text: str) -> None:
    assert "empty" in str(refuse(text))


@pytest.mark.parametrize("size", [MAX_LENGTH + 1, 100_000])
def test_refuses_long_text_at_once(size: int) -> None:
    error = refuse("x" * size)
    assert least_seconds(lambda: refuse("x" * size)) < 0.05
    assert "at most 300 characters" in str(error)
    assert error.position == MAX_LENGTH


def test_longest_name_is_read() -> None:
    assert parse_name("x" * MAX_LENGTH).text == "x" * MAX_LENGTH


@given(st.text(min_size=1, max_size=60))
def test_reading_twice_changes_nothing(text: str) -> None:
    try:
        material = parse_name(text)
    except MaterialError:
        return
    again = parse_name(material.text)
    assert again.text == material.text
    assert again.key == material.key
