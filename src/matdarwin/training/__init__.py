"""A recipe to a sealed, calibrated checkpoint."""
