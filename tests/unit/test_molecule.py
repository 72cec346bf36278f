"""Tests of the SMILES parser: identity, wording, and RDKit's complaints pointed at the text."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.timing import least_seconds

from matdarwin.materials.material import MaterialError
from matdarwin.materials.molecule import MAX_LENGTH, parse_molecule

LIMIT_SECONDS = 0.05


def refuse(text: str) -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        parse_molecule(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "canonical", "key", "elements"),
    [
        ("OCC", "CCO", "inchikey:LFQSCWFLJHTTHZ-UHFFFAOYSA-N", ("H", "C", "O")),
        (" CCO\n", "CCO", "inchikey:LFQSCWFLJHTTHZ-UHFFFAOYSA-N", ("H", "C", "O")),
        ("C1=CC=CC=C1", "c1ccccc1", "inchikey:UHOVQNZJYSORNB-UHFFFAOYSA-N", ("H", "C")),
        ("[Na+].[Cl-]", "[Cl-].[Na+]", "inchikey:FAPWRFPIFSIZLT-UHFFFAOYSA-M", ("Na", "Cl")),
        ("[CH3:1][OH:2]", "CO", "inchikey:OKKJLVBELUTLKV-UHFFFAOYSA-N", ("H", "C", "O")),
        ("FC(F)(F)F", "FC(F)(F)F", "inchikey:TXEYQDLBPFQVAA-UHFFFAOYSA-N", ("C", "F")),
    ],
)
def test_reads(text: str, canonical: str, key: str, elements: tuple[str, ...]) -> None:
    material = parse_molecule(text)
    assert material.kind == "molecule"
    assert material.given == text
    assert material.parts == material.source_parts == (canonical,)
    assert material.key == key
    assert material.keys == (key, "inchikey14:" + key.removeprefix("inchikey:")[:14])
    assert material.elements == elements


def test_stereoisomers_differ_in_the_key_and_share_the_second() -> None:
    left, right = parse_molecule("C[C@H](N)C(=O)O"), parse_molecule("C[C@@H](N)C(=O)O")
    assert left.key != right.key
    assert left.keys[1] == right.keys[1]
    assert left.text != right.text


def test_attachment_points_have_no_inchi() -> None:
    material = parse_molecule("C(*)C/C=C/*")
    assert material.key == f"smiles:{material.text}"
    assert material.keys[1].startswith("smiles-flat:")
    assert "/" in material.key and "/" not in material.keys[1]
    assert material.elements == ("H", "C")
    assert parse_molecule("*/C=C/CC*").key == material.key


REFUSED = [
    ("C1CC", "1", 1, "never closed"),
    ("C%12CC", "%12", 1, "never closed"),
    ("  C1CC2C1", "2", 6, "never closed"),
    ("[13CH3]C1CC", "1", 8, "never closed"),
    ("CC(", "(", 2, "syntax error"),
    ("CC)C", ")", 2, "extra close parentheses"),
    (" Xx", "X", 1, "syntax error"),
    ("[Xx]C", "X", 1, "syntax error"),
    ("C==C", "=", 2, "syntax error"),
    ("CN(C)(C)(C)C", "N", 1, "Explicit valence for atom # 1 N, 5"),
    ("Clc1ccccc1C(C)(C)(C)(C)C", "C", 10, "Explicit valence"),
    ("[Na+].CF(C)", "F", 7, "Explicit valence"),
    ("c1cccc1", "c", 0, "kekulize"),
    ("cC", "c", 0, "aromatic"),
    ("CCO ethanol", "ethanol", 4, "alone"),
    ("CCO\tCCN", "CCN", 4, "alone"),
    ("CCé", "é", 2, "U+00E9"),
    ("CCO\x00C", "\x00", 3, "U+0000"),
    ("CC>>CO", ">", 2, "reaction"),
    ("nan", "nan", 0, "missing value"),
    ("-", "-", 0, "missing value"),
]


@pytest.mark.parametrize(("text", "token", "position", "says"), REFUSED)
def test_refuses_with_token_and_position(
    text: str, token: str, position: int, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    error = refuse(text)
    assert (error.token, error.position) == (token, position)
    assert f"at position {position} " in str(error)
    assert says in str(error)
    assert str(error).isprintable()
    assert error.given == text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_refuses_empty(text: str) -> None:
    assert "empty" in str(refuse(text))


def test_refuses_a_formula() -> None:
    assert refuse("Fe2O3").position is not None


@pytest.mark.parametrize("text", ["C" * 100_000, "(" * 100_000, " " * 100_000, "é" * 100_000, "C1" * 50_000])
def test_refuses_100_kb_at_once(text: str) -> None:
    error = refuse(text)
    assert least_seconds(lambda: refuse(text)) < LIMIT_SECONDS
    assert error.position == MAX_LENGTH
    assert "at most 2,000 characters" in str(error)


@pytest.mark.parametrize("text", ["(" * 2_000, "C(" * 1_000, "[" * 2_000, "C1" * 1_000, "C" * 1_999 + "é"])
def test_refuses_long_nonsense_fast(text: str) -> None:
    assert least_seconds(lambda: refuse(text)) < LIMIT_SECONDS


def test_says_nothing_on_stderr_for_a_lone_hydrogen(capfd: pytest.CaptureFixture[str]) -> None:
    assert parse_molecule("CC.[H]").elements == ("H", "C")
    assert capfd.readouterr() == ("", "")


def test_threads_get_their_own_errors() -> None:
    found: dict[str, list[str]] = {"CC(": [], "CN(C)(C)(C)C": []}

    def work(text: str) -> None:
        for _ in range(200):
            found[text].append(str(refuse(text)))

    threads = [threading.Thread(target=work, args=(text,)) for text in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {len(messages) for messages in found.values()} == {200}
    assert all("syntax error" in message for message in found["CC("])
    assert all("Explicit valence" in message for message in found["CN(C)(C)(C)C"])


ATOMS = ["C", "N", "O", "c1ccccc1", "F", "S(=O)(=O)", "C(=O)", "[C@H](C)", "C=C", "Cl", "[Si](C)(C)"]


@given(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=8), st.integers(0, 2**16))
@settings(deadline=None, max_examples=60)
def test_spelling_does_not_change_the_key(atoms: list[str], seed: int) -> None:
    from rdkit import Chem

    text = "".join(atoms)
    try:
        material = parse_molecule(text)
    except MaterialError:
        return
    molecule = Chem.MolFromSmiles(text)
    other = parse_molecule(Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=seed)[0])
    assert (other.key, other.elements) == (material.key, material.elements)
    assert parse_molecule(material.text).text == material.text


@given(st.text(alphabet="CNOcno()[]=#123%@+-.*H ", max_size=20))
@settings(deadline=None, max_examples=200)
def test_every_text_is_read_or_refused_in_place(text: str) -> None:
    try:
        assert parse_molecule(text).text
    except MaterialError as error:
        assert error.position is not None
        assert text[error.position :].startswith(error.token)
