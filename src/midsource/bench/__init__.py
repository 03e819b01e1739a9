"""Benchmarks and laboratories."""
