"""Benchmarks: their rows, their scores, their metrics."""
