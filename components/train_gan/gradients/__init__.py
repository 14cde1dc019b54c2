"""The gradient step: all that knows the backend. One module for each, with the same three functions.

`gradients(losses, groups, variables)`: `losses()` gives as many scalar losses as there are groups of variables, and
anything else. Returns the losses, that, and for each group the gradients of its loss with respect to its variables.

`with_input_gradient(function, inputs)`: `function(inputs)`, and the gradient of its sum with respect to the inputs;
both can be differentiated again.

`compiled(step, variables)`: `step` as one compiled function of arrays. It may change the variables, and none but them.
"""

import importlib

import keras

BACKENDS = ("tensorflow", "jax")

if keras.backend.backend() not in BACKENDS:
    raise ImportError(f"train_gan runs on {' and '.join(BACKENDS)}, not on {keras.backend.backend()}")
_module = importlib.import_module(f"{__name__}.on_{keras.backend.backend()}")
gradients, with_input_gradient, compiled = _module.gradients, _module.with_input_gradient, _module.compiled
