"""The gradient step: all that knows the backend. One module for each, with the same three functions.

`gradients(generate, judge, groups, variables)`: `generate()` gives images, (N, …); `judge(images)` gives the losses of
generator and discriminator, a ratio (see `losses`) or None, and anything else. `groups` are the variables of the
generator and of the discriminator, `variables` all that may change. Returns the losses, that, and for each group the
gradients of its loss. With a ratio, (N, 1), one backward pass serves both: that is right only where no image's logit
depends on another image.

`with_input_gradient(function, inputs)`: `function(inputs)`, and the gradient of its sum with respect to the inputs;
both can be differentiated again.

`compiled(steps, states, lazy)`: for each of several GANs a function `step(images, rows, penalised)` that changes its
state (a list of variables) and none but it. Returns a function that takes many steps of each in one call; its
arguments: `images`, for each GAN (M, S, S, 3) uint8; `rows`, for each (K, N) int32 into its images; `penalised`, (K,)
bool, which steps are given True (all, if not `lazy`). Where the backend can, the GANs are computed as one batch: they
have to be of the same architecture and recipe, and their images as many.
"""

import importlib

import keras

BACKENDS = ("tensorflow", "jax")

if keras.backend.backend() not in BACKENDS:
    raise ImportError(f"train_gan runs on {' and '.join(BACKENDS)}, not on {keras.backend.backend()}")
BATCHES = keras.backend.backend() == "jax"
"""Whether `compiled` computes several GANs as one batch."""
_module = importlib.import_module(f"{__name__}.on_{keras.backend.backend()}")
gradients, with_input_gradient, compiled = _module.gradients, _module.with_input_gradient, _module.compiled
