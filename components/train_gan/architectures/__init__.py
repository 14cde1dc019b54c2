"""GAN architectures: one file each, found here by name.

An architecture is a module with `RECIPE` (how it is trained), `ALONE` (whether the discriminator judges each image
without a look at the others in the batch), `generator(image_size)` from (N, L) standard normal, L of its own choice, to
(N, S, S, 3) in [-1, 1], and `discriminator(image_size)` from (N, S, S, 3) in [-1, 1] to (N, 1) logits. Nothing
downstream knows more of it: a generator is saved as a plain `.keras` model.
"""

import importlib
from types import ModuleType

from components.shared.errors import UserError

NAMES = ("dcgan", "resnet")


def load(name: str) -> ModuleType:
    """The architecture's module.

    Raises:
        UserError: there is none of this name.
    """
    if name not in NAMES:
        raise UserError(f"gan_architecture is {name!r}; choose one of {', '.join(NAMES)}.")
    return importlib.import_module(f"{__name__}.{name}")
