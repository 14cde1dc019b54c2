"""The two backends: each has a separate gradient step, and their results agree."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.backend_parity_worker import build, network_weights, run_on_jax, train_ten_steps

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")


def test_tensorflow_and_jax_agree_over_ten_steps(tmp_path: Path) -> None:
    """The bound follows from the longest sums.

    A gradient sums over 8 images of 8 × 8 positions of a feature map: 512 terms, each rounded by u = 2⁻²⁴, in any
    order. Errors of n random roundings grow as √n: 512 terms are 1.4e-6. The double gradient of the penalty passes
    through both networks twice, 20 layers: 20 · 1.4e-6 = 3e-5. Terms that cancel can leave a gradient of 1/100 of their
    sum: 3e-3. Each of ten steps adds as much. Weights are rounded by u themselves, in each of ten steps.
    """
    start = {f"{i:03d}": weight for i, weight in enumerate(network_weights(build()))}
    np.savez(tmp_path / "start.npz", **start)
    run_on_jax("steps", tmp_path)
    ours = train_ten_steps(build())
    with np.load(tmp_path / "steps.npz") as theirs:
        np.testing.assert_allclose(theirs["losses"], ours["losses"], rtol=1e-4)
        for name, before in start.items():
            for steps, share in ((1, 3e-3), (10, 3e-2)):
                one, other = ours[f"{steps} {name}"], theirs[f"{steps} {name}"]
                moved, apart = np.linalg.norm(one - before), np.linalg.norm(one - other)
                assert apart <= share * moved + steps * 2**-23 * np.linalg.norm(before) + 1e-8, (name, steps)
                assert np.isfinite(one).all()
        assert any((ours[f"10 {name}"] != before).any() for name, before in start.items())
