"""GAN architectures: one file each, found here by name.

An architecture is a module with `RECIPE` (how it is trained), `BATCH_INDEPENDENT` (whether the discriminator scores
images independently), `generator(image_size)` from (N, L) standard normal, with any L, to (N, S, S, 3) in [-1, 1], and
`discriminator(image_size)` from (N, S, S, 3) in [-1, 1] to (N, 1) logits. No other code depends on it: a generator is
saved as a plain `.keras` model.
"""

import importlib
from types import ModuleType

from components.shared.parameters import Options, check


def load(name: str) -> ModuleType:
    """Return the architecture's module.

    Raises:
        UserError: no architecture has this name.
    """
    check({"gan_architecture": name}, Options)
    return importlib.import_module(f"{__name__}.{name}")
