"""The commands that run on the host; see `cli`."""
