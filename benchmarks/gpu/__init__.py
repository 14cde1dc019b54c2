"""Benchmarks on a GPU: see README.md."""
