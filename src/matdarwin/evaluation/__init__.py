"""Scores on folds, beside classical rivals and the published board."""
