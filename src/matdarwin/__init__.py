"""Language models that know materials: a formula in, a property with an honest error bar out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matdarwin.api import Darwin as Darwin
    from matdarwin.estimators import DarwinClassifier as DarwinClassifier
    from matdarwin.estimators import DarwinRegressor as DarwinRegressor
    from matdarwin.prediction.prediction import Prediction as Prediction

__version__ = "0.1.0"
__all__ = ["Darwin", "DarwinClassifier", "DarwinRegressor", "Prediction", "__version__"]

_HOMES = {
    "Darwin": "matdarwin.api",
    "DarwinClassifier": "matdarwin.estimators",
    "DarwinRegressor": "matdarwin.estimators",
    "Prediction": "matdarwin.prediction.prediction",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: `import matdarwin` itself costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'matdarwin' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
