"""The figures that take a GPU: see README.md."""
