"""Faults of a training that are told to users."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """A training that cannot go on."""
