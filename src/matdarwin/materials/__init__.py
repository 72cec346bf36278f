"""Materials: a user's text or object to a validated `Material` with an identity and one canonical wording."""

from __future__ import annotations

import sys
from decimal import Context
from numbers import Real
from typing import Any, get_args

from matdarwin.materials.composition import from_amounts, parse_composition
from matdarwin.materials.material import Kind, Material, MaterialError
from matdarwin.materials.molecule import parse_molecule, smiles_of
from matdarwin.materials.name import parse_name

__all__ = [
    "Kind",
    "Material",
    "MaterialError",
    "is_missing",
    "parse",
    "parse_composition",
    "parse_molecule",
    "parse_name",
]

_PARSERS = {"composition": parse_composition, "molecule": parse_molecule, "name": parse_name}
_ACCEPTED = {
    "composition": "text, a pymatgen Composition or a pymatgen Structure",
    "molecule": "SMILES text or an RDKit molecule",
    "name": "text",
}
# A float carries 15 to 17 digits, of which sums such as 0.1 + 0.2 spoil the last few; 12 are kept.
_TWELVE = Context(prec=12)


def parse(given: object, kind: Kind) -> Material:
    """Read whatever a user may give as a material.

    Args:
        given: Text; for a composition also a pymatgen Composition or Structure, whose amounts are taken to 12
            significant digits and whose oxidation states are dropped; for a molecule also an RDKit Mol.
        kind: What to read it as.

    Returns:
        The material.

    Raises:
        MaterialError: It is an empty cell (None, NaN), of another type, or not readable as `kind`.
        ValueError: `kind` is unknown.
    """
    if kind not in _PARSERS:
        raise ValueError(f"kind of material `{kind}` is unknown; it is one of {', '.join(get_args(Kind))}")
    if isinstance(given, str):
        return _PARSERS[kind](str(given))
    if is_missing(given):
        raise MaterialError(f"the cell is empty; a {kind} was expected", given="")
    if kind == "composition":
        composition = _pymatgen_composition(given)
        if composition is not None:
            return _from_pymatgen(composition)
    if kind == "molecule" and _is_instance(given, "rdkit.Chem", "Mol"):
        return parse_molecule(smiles_of(given))
    name = type(given).__name__
    raise MaterialError(f"a {kind} is given as {_ACCEPTED[kind]}, not as `{name}`", given="", token=name)


def is_missing(given: object) -> bool:
    """Say whether it is None, a NaN or one of pandas' missing values."""
    if given is None or type(given).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(given, Real) and given != given


def _is_instance(given: object, module: str, name: str) -> bool:
    """Check a class of a library without importing it: an object of it exists only where it is loaded."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(given, getattr(loaded, name))


def _pymatgen_composition(given: Any) -> Any:
    """Give the pymatgen Composition that it is or has, or None."""
    if _is_instance(given, "pymatgen.core.composition", "Composition"):
        return given
    if _is_instance(given, "pymatgen.core.structure", "SiteCollection"):
        return given.composition
    return None


def _from_pymatgen(composition: Any) -> Material:
    """Take the element amounts; pymatgen's own formula text would go through `%g`."""
    for specie in composition:
        # pymatgen adds isotopes to hydrogen without a word, where the text "D2O" is refused.
        name = getattr(getattr(specie, "element", specie), "name", "")
        if name in ("D", "T"):
            raise MaterialError(
                f"`{name}` is an isotope, and isotopes are not told apart here; use H", given="", token=name
            )
    amounts = [
        (str(symbol), _TWELVE.create_decimal(repr(float(amount))))
        for symbol, amount in composition.get_el_amt_dict().items()
    ]
    given = " ".join(f"{symbol}{amount.normalize(_TWELVE):f}" for symbol, amount in amounts)
    return from_amounts(given, amounts)
