"""Molecules: SMILES to a validated `Material`, through RDKit, whose complaints become errors that point at the text."""

from __future__ import annotations

import re
import string
import threading
from typing import Any

from matdarwin.materials.elements import canonical_order
from matdarwin.materials.material import Material, MaterialError
from matdarwin.materials.refusals import MISSING, fault

MAX_LENGTH = 2_000
"""Most characters of a SMILES; canonical numbering of much longer ones takes seconds."""

_INCHIKEY = re.compile(r"[A-Z]{14}-[A-Z]{10}-[A-Z]")
_STAMP = re.compile(r"^\[\d\d:\d\d:\d\d\] ?", re.MULTILINE)
_PLACE = re.compile(r"around position (\d+)")
_ATOM_NUMBER = re.compile(r"[Aa]toms?:? (?:# ?)?(\d+)")
_ATOM = re.compile(r"\[[^\]]*\]|Br|Cl|[BCNOPSFIbcnops*]")
_RING = re.compile(r"\[[^\]]*\]|%\(\d+\)|%\d\d|\d")
# RDKit's log is one for the whole process; two threads that capture it at once would mix up their errors.
_LOG = threading.Lock()


def parse_molecule(text: str) -> Material:
    """Read a SMILES.

    The wording is RDKit's canonical isomeric SMILES, without atom maps on real atoms. The key is the standard InChIKey,
    and its first block, which knows no stereochemistry, is the second key. Where InChI has no name for the molecule
    (attachment points `*` of polymers), the canonical SMILES takes its place, with and without stereochemistry.

    Args:
        text: The SMILES alone, of one or more fragments; at most 2,000 characters. White space around it is dropped.

    Returns:
        The material, of kind "molecule"; its elements include hydrogen that the SMILES leaves out.

    Raises:
        MaterialError: RDKit cannot read it, or it is empty or too long; the message has the place and RDKit's words.
    """
    if len(text) > MAX_LENGTH:
        says = f"is past the limit: a SMILES has at most {MAX_LENGTH:,} characters, and this text has {len(text):,}"
        raise fault(text, text[MAX_LENGTH : MAX_LENGTH + 40], MAX_LENGTH, says)
    smiles = text.strip()
    if not smiles:
        raise MaterialError("the SMILES is empty; write one such as CCO", given=text, position=0)
    start = text.index(smiles)
    if smiles in MISSING:
        raise fault(text, smiles, start, "stands for a missing value, not for a molecule")
    _check_characters(text, smiles, start)
    return _material(text, _read(text, smiles, start))


def smiles_of(molecule: Any) -> str:
    """Write an RDKit molecule as SMILES.

    Args:
        molecule: An `rdkit.Chem.Mol`, sanitised or not.

    Returns:
        Its canonical isomeric SMILES.

    Raises:
        MaterialError: It has no atoms.
    """
    from rdkit import Chem, rdBase

    if molecule.GetNumAtoms() == 0:
        raise MaterialError("the molecule has no atoms", given="")
    with _LOG, rdBase.BlockLogs():
        return str(Chem.MolToSmiles(molecule))


def _check_characters(text: str, smiles: str, start: int) -> None:
    """Refuse what RDKit would misread or drop silently: white space, characters beyond ASCII, control characters."""
    for at, char in enumerate(smiles, start):
        if char.isspace():
            rest = text[at:].strip().split()[0]
            raise fault(text, rest, text.index(rest, at), "follows white space; give one SMILES alone, without a name")
        if char not in string.printable:
            raise fault(
                text, char, at, f"(U+{ord(char):04X}) is no character of a SMILES; delete it or type its plain form"
            )
        if char == ">":
            raise fault(text, char, at, "is the arrow of a reaction; give one molecule")


def _read(text: str, smiles: str, start: int) -> Any:
    """Have RDKit read it; `start` is where it begins in the given text."""
    from rdkit import Chem, rdBase

    options: Any = Chem.SmilesParserParams()
    options.allowCXSMILES = False
    options.parseName = False
    with _LOG, rdBase.BlockLogs(), rdBase.CaptureErrorLog() as log:
        molecule = Chem.MolFromSmiles(smiles, options)
    if molecule is None:
        raise _complaint(text, smiles, start, log.messages or "")
    if molecule.GetNumAtoms() == 0:
        raise fault(text, smiles, start, "holds no atoms; write a SMILES such as CCO")
    return molecule


def _complaint(text: str, smiles: str, start: int, log: str) -> MaterialError:
    """Turn RDKit's log into one sentence with the place that it speaks of."""
    lines = [line.removeprefix("SMILES Parse Error: ") for line in _STAMP.sub("", log).splitlines()]
    first = next((line for line in lines if line.strip()), "no reason given")
    reason = " ".join(re.sub(r" (?:for input|while parsing): .*", "", first).split())
    if reason == "unclosed ring":
        open_rings: dict[str, re.Match[str]] = {}
        for mark in _RING.finditer(smiles):
            number = mark[0].strip("%()")
            if number in open_rings:
                del open_rings[number]
            elif not mark[0].startswith("["):
                open_rings[number] = mark
        for mark in open_rings.values():
            says = "opens a ring that is never closed; write the number again where the ring ends"
            return fault(text, mark[0], start + mark.start(), says)
    place = _PLACE.search(log)
    if place:
        at = min(max(int(place[1]) - 1, 0), len(smiles) - 1)
        return fault(text, smiles[at], start + at, f"stops the reading of this SMILES (RDKit: {reason})")
    number_found = _ATOM_NUMBER.search(reason)
    if number_found:
        # RDKit numbers atoms in the order of the text, and has found no fault in the spelling when it speaks of atoms.
        atoms = list(_ATOM.finditer(smiles))
        index = int(number_found[1])
        if index < len(atoms):
            return fault(
                text, atoms[index][0], start + atoms[index].start(), f"breaks the rules of bonding (RDKit: {reason})"
            )
    return fault(text, smiles, start, f"cannot be read as a SMILES (RDKit: {reason})")


def _material(text: str, molecule: Any) -> Material:
    """Word and key a molecule that RDKit has read."""
    from rdkit import Chem, rdBase

    chem: Any = Chem  # RDKit declares no types for its InChI functions.
    symbols: set[str] = set()
    for atom in molecule.GetAtoms():
        if atom.GetAtomicNum():
            atom.SetAtomMapNum(0)
            symbols.add(atom.GetSymbol())
        if atom.GetTotalNumHs():
            symbols.add("H")
    with _LOG, rdBase.BlockLogs():
        canonical = str(Chem.MolToSmiles(molecule))
        inchikey = str(chem.MolToInchiKey(molecule))
        flat = str(Chem.MolToSmiles(molecule, isomericSmiles=False))
    if _INCHIKEY.fullmatch(inchikey):
        keys = (f"inchikey:{inchikey}", f"inchikey14:{inchikey[:14]}")
    else:
        keys = (f"smiles:{canonical}", f"smiles-flat:{flat}")
    return Material(
        kind="molecule",
        given=text,
        parts=(canonical,),
        source_parts=(canonical,),
        key=keys[0],
        keys=keys,
        elements=tuple(canonical_order(symbols)),
    )
