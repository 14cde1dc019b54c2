"""One seed for a run, and from it one for everything that is drawn."""

import hashlib


def derive_seed(seed: int, *names: str) -> int:
    """A seed of its own in [0, 2³¹) for each name under a run's seed: `derive_seed(1, "train_gan", "df")`."""
    digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:4]) >> 1
