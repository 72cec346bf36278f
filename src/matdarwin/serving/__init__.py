"""Serving: the one predictor over HTTP."""
