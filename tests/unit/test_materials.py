"""Tests of `parse`, the one door to all kinds of material."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from matdarwin.materials import Kind, MaterialError, parse


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [("Ga2N2", "composition", "Ga N"), ("OCC", "molecule", "CCO"), ("MOF\u20135", "name", "MOF-5")],
)
def test_text_goes_to_the_parser_of_its_kind(given: str, kind: Kind, text: str) -> None:
    material = parse(given, kind)
    assert (material.kind, material.text, material.given) == (kind, text, given)


def test_numpy_text_is_text() -> None:
    import numpy as np

    material = parse(np.str_("GaN"), "composition")
    assert material.text == "Ga N"
    assert type(material.given) is str


@pytest.mark.parametrize("kind", get_args(Kind))
def test_empty_cells_are_named(kind: Kind) -> None:
    import numpy as np
    import pandas as pd

    for missing in (None, float("nan"), np.float32("nan"), np.float64("nan"), pd.NA, pd.NaT):
        with pytest.raises(MaterialError, match="the cell is empty"):
            parse(missing, kind)


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("given", [1, 1.5, True, b"GaN", ["GaN"], {"Ga": 1}, Path("GaN"), object()])
def test_other_types_are_named(given: object, kind: Kind) -> None:
    with pytest.raises(MaterialError, match=f"`{type(given).__name__}`") as caught:
        parse(given, kind)
    assert kind in str(caught.value)
    assert caught.value.token == type(given).__name__


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="composition, molecule, name"):
        parse("GaN", "crystal")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("amounts", "text"),
    [
        ({"Ga": 1, "N": 1}, "Ga N"),
        ({"Ga": 4, "N": 4}, "Ga N"),
        ({"Fe": 0.1 + 0.2, "O": 1}, "Fe0.3 O"),
        ({"Fe": 0.62, "Nb": 0.0000616}, "Nb0.0000616 Fe0.62"),
        ({"Fe": 1.1 * 3, "O": 0.7 + 0.1 + 0.2}, "Fe3.3 O"),
        ({"Fe": 1 / 3, "Co": 2 / 3}, "Fe0.333333333333 Co0.666666666667"),
        ({"Fe3+": 2, "O2-": 3}, "Fe2 O3"),
        ({"Fe2+": 1, "Fe3+": 2, "O2-": 4}, "Fe3 O4"),
        ({"Fe": 1_000_000, "O": 1}, "Fe1000000 O"),
    ],
)
def test_pymatgen_composition(amounts: dict[str, float], text: str) -> None:
    from pymatgen.core import Composition

    material = parse(Composition(amounts), "composition")
    assert material.text == text
    assert material.key == parse(text, "composition").key


@pytest.mark.parametrize(
    ("amounts", "says"),
    [
        ({}, "empty"),
        ({"D": 2, "O": 1}, "`D` is an isotope"),
        ({"D+": 2, "O2-": 1}, "`D` is an isotope"),
        ({"T": 2, "O": 1}, "`T` is an isotope"),
        ({"X0+": 1, "O": 1}, "`X.*` is not an element"),
        ({"Fe": float("inf")}, "amount of `Fe`"),
        ({"Fe": 1e12}, "amount of `Fe`"),
    ],
)
def test_pymatgen_composition_refused(amounts: dict[str, float], says: str) -> None:
    from pymatgen.core import Composition

    with pytest.raises(MaterialError, match=says):
        parse(Composition(amounts), "composition")


def test_negative_amounts_are_refused() -> None:
    from pymatgen.core import Composition

    with pytest.raises(MaterialError, match="above 0"):
        parse(Composition({"Fe": 1, "O": -1}, allow_negative=True), "composition")


def test_pymatgen_structure() -> None:
    from pymatgen.core import Lattice, Structure

    rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert len(rock_salt) == 8
    assert parse(rock_salt, "composition").text == "Na Cl"
    mixed = Structure(Lattice.cubic(3), [{"Ga": 0.1 + 0.2, "In": 0.7}, "As"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert parse(mixed, "composition").text == "In0.7 Ga0.3 As"


def test_a_composition_is_no_molecule() -> None:
    from pymatgen.core import Composition

    with pytest.raises(MaterialError, match="SMILES text or an RDKit molecule, not as `Composition`"):
        parse(Composition("GaN"), "molecule")


def test_rdkit_molecule() -> None:
    from rdkit import Chem

    material = parse(Chem.MolFromSmiles("C[C@H](N)C(=O)O"), "molecule")
    assert material == parse("C[C@H](N)C(=O)O", "molecule")
    with pytest.raises(MaterialError, match="no atoms"):
        parse(Chem.Mol(), "molecule")
    with pytest.raises(MaterialError, match="not as `Mol`"):
        parse(Chem.MolFromSmiles("C"), "composition")


def test_impossible_rdkit_molecule_is_refused() -> None:
    from rdkit import Chem

    with pytest.raises(MaterialError, match="Explicit valence"):
        parse(Chem.MolFromSmiles("CN(C)(C)(C)C", sanitize=False), "molecule")


def test_no_library_is_loaded_for_text() -> None:
    code = (
        "import sys; from matdarwin.materials import parse; parse('GaN', 'composition'); parse('MOF-5', 'name');"
        "print([m for m in ('rdkit', 'pymatgen', 'numpy', 'pandas', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
