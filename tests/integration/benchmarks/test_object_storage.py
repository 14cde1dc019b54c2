"""The benchmark of object storage, on a few small objects."""

import pytest

from benchmarks import object_storage


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_measure_returns_rates_and_ratios_of_both_directions(scheme: str, monkeypatch: pytest.MonkeyPatch):
    for name in (
        "STORAGE_EMULATOR_HOST",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
    ):
        monkeypatch.setenv(name, "")  # restored after the test
    monkeypatch.setattr(object_storage, "ROUNDS", 1)
    found = object_storage.measure(scheme, 1, 4)
    assert found.keys() == {
        f"{verb}_{what}" for verb in ("write", "read") for what in ("mb_per_s", "ratio", "peak_mib", "bare_peak_mib")
    }
    assert min(found.values()) > 0
