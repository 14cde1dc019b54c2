"""Derive the seeds of all random choices from the seed of a run."""

import hashlib


def derive_seed(seed: int, *names: str) -> int:
    """Return a seed in [0, 2³¹) that depends on the seed of the run and on the names of its purpose.

    Example:
        >>> derive_seed(1, "train_gan", "df")
        1170615345
    """
    digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:4]) >> 1
