"""The classifiers' networks: one file each, found here by name.

A network is a module with `LEARNING_RATE` and `build(classes, image_size, metadata)`, with a fourth argument for a file
of weights if it can start from one, which returns a model from
(N, S, S, 3) in [0, 255], and (N, metadata) if there are any, to (N, classes) probabilities. Its last layer is dense,
with a softmax; `head.py` has one. The learning rate is that of Adam at the start; it falls to zero along a cosine.
"""

import importlib
from types import ModuleType

from components.shared.parameters import Options, check


def load(name: str) -> ModuleType:
    """Return the network's module.

    Raises:
        UserError: no network has this name.
    """
    check({"classifier": name}, Options)
    return importlib.import_module(f"{__name__}.{name}")
