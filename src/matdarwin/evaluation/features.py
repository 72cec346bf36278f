"""What the classical rivals see of a material: element statistics, fractions, descriptors, hashed characters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from matdarwin.data import sources
from matdarwin.materials.composition import amounts_of
from matdarwin.materials.material import Material

Floats = NDArray[np.float64]
FeatureSet = Literal["magpie", "fractions", "molecule", "name"]

FEATURE_VERSION = 1
"""Raised when the code below would give other features for the same material; part of the cache's file name."""

_FINGERPRINT_BITS = 1024
_NAME_BITS = 1024


class FeatureError(ValueError):
    """A material that has no such features, or a cache of features that cannot be used."""


def featurise(materials: Sequence[Material], features: FeatureSet, *, cache: Path | None = None) -> Floats:
    """Features of materials, computed once a text and kept on disk.

    Args:
        materials: What to describe. Two texts of one key, such as tautomers, have features of their own: otherwise those of
            the one that came first would count for both, and depend on what was asked before.
        features: "magpie" (132 element statistics), "fractions" (atomic fraction of each of 118 elements), "molecule"
            (RDKit descriptors and a Morgan count fingerprint of radius 2) or "name" (hashed runs of 2 to 4 characters).
        cache: Folder of the cache, or None for none.

    Returns:
        Array [materials, columns], NaN where a property of an element or molecule is unknown.

    Raises:
        FeatureError: A material that the feature set cannot describe, or a cache file that is none of ours.
        DataError: The cache cannot be written.
    """
    path = None if cache is None else cache / f"features-by-text-{features}-{_version(features)}.parquet"
    known = _load(path)
    missing = {material.text: material for material in materials if material.text not in known}
    if missing:
        compute = {"magpie": _magpie, "fractions": _fractions, "molecule": _molecule, "name": _name}[features]
        known |= dict(zip(missing, compute(list(missing.values())), strict=True))
        _save(path, known)
    return np.stack([known[material.text] for material in materials]) if materials else np.empty((0, 0))


def _version(features: FeatureSet) -> str:
    """What the features depend on, as a short text: our version and that of the library that computes them."""
    from importlib.metadata import version

    library = {"magpie": "matminer", "fractions": "numpy", "molecule": "rdkit", "name": "scikit-learn"}[features]
    return f"v{FEATURE_VERSION}-{library}-{version(library)}"


def _load(path: Path | None) -> dict[str, Floats]:
    """Rows of a cache file by text; empty where there is none."""
    if path is None or not path.exists():
        return {}
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ValueError as error:
        raise FeatureError(f"{path} is no readable feature cache; delete it ({error})") from error
    if frame.columns[:1].tolist() != ["text"]:
        raise FeatureError(f"{path} is no feature cache (its first column is not `text`); delete it")
    return dict(zip(frame["text"], frame.iloc[:, 1:].to_numpy(dtype=np.float64), strict=True))


def _save(path: Path | None, known: dict[str, Floats]) -> None:
    """Write the cache file whole: a reader sees the old one or the new one; of two writers the last wins, and nothing is lost but time."""
    if path is None:
        return
    import pandas as pd

    frame = pd.DataFrame(np.stack(list(known.values())))
    frame.columns = pd.Index([f"f{column}" for column in frame.columns])
    frame.insert(0, "text", list(known))
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with sources.disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            frame.to_parquet(part, index=False)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _amounts(material: Material) -> dict[str, float]:
    """Amount of each element of a composition."""
    try:
        return amounts_of(material)
    except ValueError as error:
        raise FeatureError(str(error)) from error


def _magpie(materials: list[Material]) -> list[Floats]:
    """Magpie's statistics over the elements; gaps of its tables stay NaN, since matminer would fill them with a mean over all elements."""
    from matminer.featurizers.composition import ElementProperty
    from pymatgen.core.composition import Composition

    describe = ElementProperty.from_preset("magpie", impute_nan=False)
    return [np.asarray(describe.featurize(Composition(_amounts(material))), dtype=np.float64) for material in materials]


def _fractions(materials: list[Material]) -> list[Floats]:
    """Atomic fractions by atomic number; deuterium and tritium count as hydrogen."""
    from pymatgen.core.periodic_table import Element

    rows = []
    for material in materials:
        row = np.zeros(118)
        for symbol, amount in _amounts(material).items():
            row[Element(symbol).Z - 1] += amount
        rows.append(row / row.sum())
    return rows


def _molecule(materials: list[Material]) -> list[Floats]:
    """RDKit's descriptors, then counts of Morgan environments of radius 2 folded to 1,024 columns (10.1021/ci100050t)."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import Descriptors, rdFingerprintGenerator

    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=_FINGERPRINT_BITS)
    rows = []
    for material in materials:
        with rdBase.BlockLogs():  # it warns of each hydrogen that is written out, as polymers have them
            molecule = Chem.MolFromSmiles(material.text)
        if molecule is None:
            raise FeatureError(f"RDKit cannot read the SMILES {material.text!r}")
        given = Descriptors.CalcMolDescriptors(molecule, missingVal=float("nan"))  # type: ignore[no-untyped-call]
        descriptors = [float(value) for value in given.values()]
        # Past float32 a forest cannot read a value: unknown, like any other gap.
        wide = np.array(descriptors, dtype=np.float64)
        wide[np.abs(wide) > 1e30] = np.nan
        rows.append(np.concatenate([wide, morgan.GetCountFingerprintAsNumPy(molecule).astype(np.float64)]))
    return rows


def _name(materials: list[Material]) -> list[Floats]:
    """Counts of runs of 2 to 4 characters, hashed to 1,024 columns."""
    from sklearn.feature_extraction.text import HashingVectorizer

    count = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), n_features=_NAME_BITS, norm=None, alternate_sign=False
    )
    return list(count.transform([material.text for material in materials]).toarray().astype(np.float64))
