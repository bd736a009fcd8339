"""Metrics: pure functions of per-row scores."""
