"""Benchmarks that produce the figures of the documentation: `make bench [DATA=folder]`."""
