"""Precision of training; weights are always float32."""

import re
from pathlib import Path

import keras

NAMES = ("float32", "automatic")
CPU = Path("/proc/cpuinfo")


def policy(precision: str) -> str:
    """Return the Keras dtype policy of a precision.

    Args:
        precision: `float32`, or `automatic`: bfloat16 if the hardware multiplies matrices in it. This is an NVIDIA GPU
            of compute capability 8 or more or, without a GPU, a CPU with AVX512-BF16 or AMX.

    Returns:
        `float32` or `mixed_bfloat16`.
    """
    return "mixed_bfloat16" if precision == "automatic" and has_bfloat16() else "float32"


def has_gpu() -> bool:
    """Return whether the backend computes on a GPU."""
    return _compute_capability() is not None


def has_bfloat16() -> bool:
    """Return whether the first GPU or, without a GPU, the CPU multiplies matrices in bfloat16."""
    capability = _compute_capability()
    if capability is not None:
        return capability >= 8
    return CPU.exists() and bool(re.search(r"\b(avx512_bf16|amx_bf16)\b", CPU.read_text(encoding="utf-8")))


def _compute_capability() -> float | None:
    """Return the compute capability of the first GPU, or None without a GPU."""
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        return float(getattr(device, "compute_capability", 0)) if device.platform == "gpu" else None
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    major, minor = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    return major + minor / 10
