"""Development scripts: `python -m scripts.NAME`."""
