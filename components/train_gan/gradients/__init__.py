"""The gradient step: all code that depends on the backend. Each backend has a module with the same three functions.

`gradients(generate, score, groups, variables)`: `generate()` returns images, (N, …); `score(images)` returns the losses
of generator and discriminator, a ratio (see `losses`) or None, and any other value. `groups` are the variables of the
generator and of the discriminator, `variables` all variables that may change. Returns the losses, that other value, and
for each group the gradients of its loss. With a ratio, (N, 1), one backward pass serves both; this is correct only if
no image's logit depends on another image.

`with_input_gradient(function, inputs)` returns `function(inputs)` and the gradient of its sum with respect to the
inputs; both can be differentiated again.

`compiled(steps, states, lazy)`: for each of several GANs, a function `step(images, rows, penalised)` that changes only
its state, a list of variables. Returns a function that takes several steps of each GAN in one call. Its arguments are
`images`, for each GAN (M, S, S, 3) uint8; `rows`, for each GAN (K, N) int32 into its images; and `penalised`, (K,)
bool, the steps that are called with True (all of them, unless `lazy`). If the backend supports it, the GANs are
computed as one batch: they then have the same architecture, recipe and number of images.
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
