from pathlib import Path

import pytest

from components.shared import precision


@pytest.mark.parametrize(
    ("capability", "flags", "policy"),
    [
        (7.5, "avx512f avx512_bf16", "float32"),  # a GPU without bfloat16 and a CPU with it
        (8.0, "sse2", "mixed_bfloat16"),
        (9.0, "", "mixed_bfloat16"),
        (None, "fpu avx512f avx512_bf16 vaes", "mixed_bfloat16"),
        (None, "fpu amx_bf16", "mixed_bfloat16"),
        (None, "fpu avx2 avx512f avx512bw", "float32"),
    ],
)
def test_policy_is_bfloat16_if_the_hardware_multiplies_in_it(
    capability: float | None, flags: str, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(precision, "CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(precision, "_compute_capability", lambda: capability)
    assert precision.policy("automatic") == policy
    assert precision.policy("float32") == "float32"


def test_policy_without_information_on_the_cpu_is_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(precision, "CPU", tmp_path / "none")
    assert precision.policy("automatic") == "float32"
