"""Helpers that only tests and benchmarks use."""
