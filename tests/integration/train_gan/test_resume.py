"""Killed at any moment, training goes on and ends with the same bytes: real processes, real kills."""

import json
import multiprocessing
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from components.shared.checkpoint import SLOTS, DamagedError, pack, unpack
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.train_gan.train import train

# Forked from a server that has loaded TensorFlow and never ran it: a new process then takes no ten seconds to begin.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["components.train_gan.train"])


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a killed process had decoded stays behind: not in the system's folder. The server takes over the name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))
        yield


def settings_of(splits: dict[str, Path], features: Path, folder: Path, architecture: str) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "cold").touch()
    return {
        "classes": ["vasc"],
        "train_set": splits["train"],
        "validation_set": splits["validation"],
        "features": features,
        "start": folder / "cold",
        "architecture": architecture,
        "kimg": 1.6,  # 50 steps
        "seed": 1,
        "failed_class": "fail",
        "generators": folder / "generators",
        "record": folder / "record",
        "progress_page": folder / "progress",
        "checkpoints": str(folder / "kept"),
        "checkpoint_interval_s": 0.0,
    }


def model_of(settings: dict[str, Any]) -> Path:
    return settings["generators"] / "vasc.keras"


def slots_of(folder: Path) -> dict[str, Path]:
    return {name: folder / "kept" / "train_gan-vasc" / name for name in SLOTS}


def newest(folder: Path) -> int:
    """The number of the newest checkpoint that is whole; 0 for none. A reader sees whole files or none."""
    numbers = [0]
    for path in slots_of(folder).values():
        if path.exists():
            numbers.append(unpack(path.read_bytes())[0]["number"])
    return max(numbers)


def trained_apart(settings: dict[str, Any]) -> Any:
    process = PROCESSES.Process(target=train, kwargs=settings)
    process.start()
    return process


@pytest.fixture(scope="module")
def finished(splits: dict[str, Path], features: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = settings_of(splits, features, tmp_path_factory.mktemp("finished"), "dcgan")
    process = trained_apart(settings)
    process.join()
    assert process.exitcode == 0
    return settings


@pytest.mark.parametrize(("architecture", "kills"), [("dcgan", 4), ("resnet", 2)])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    splits: dict[str, Path], features: Path, tmp_path: Path, finished: dict[str, Any], architecture: str, kills: int
):
    whole = finished
    if architecture != "dcgan":
        whole = settings_of(splits, features, tmp_path / "whole", architecture) | {"checkpoints": ""}
        process = trained_apart(whole)
        process.join()
        assert process.exitcode == 0

    killed = settings_of(splits, features, tmp_path / "killed", architecture)
    rng = np.random.default_rng(5)
    killed_at: list[int] = []
    while True:
        process = trained_apart(killed)
        if len(killed_at) == kills:
            process.join()
            break
        # Some checkpoints later, and a moment more: before the first, while one is written, at a snapshot.
        wanted = newest(tmp_path / "killed") + int(rng.integers(0, 8 // kills))
        while newest(tmp_path / "killed") < wanted and process.is_alive():
            time.sleep(0.01)
        process.join(rng.exponential(0.2))
        assert process.exitcode in (None, 0)
        process.kill()
        process.join()
        killed_at.append(newest(tmp_path / "killed"))
    assert process.exitcode == 0
    assert killed_at == sorted(killed_at)
    assert max(killed_at) > 0

    hashes = []
    for settings in (whole, killed):
        model = keras.saving.load_model(model_of(settings), compile=False)
        images = model.predict_on_batch(
            np.random.default_rng(0).standard_normal((20, *model.input_shape[1:]), np.float32)
        )
        hashes.append((file_sha256(model_of(settings)), images.tobytes()))
    assert hashes[0] == hashes[1], killed_at
    records = [json.loads(settings["record"].read_text())[0] for settings in (whole, killed)]
    assert {**records[0], "seconds": 0} == {**records[1], "seconds": 0}
    # The charts of a page have random names inside; its pictures are the same.
    pictures = [re.findall('base64,([^"]+)', settings["progress_page"].read_text()) for settings in (whole, killed)]
    assert len(pictures[0]) == 9
    assert pictures[0] == pictures[1]


def test_finished_training_is_not_done_again(finished: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    expected = file_sha256(model_of(finished))
    assert expected == json.loads(finished["record"].read_text())[0]["model_sha256"]
    model_of(finished).unlink()
    train(**finished)
    assert "goes on after 1.6 of 1.6 kimg" in capsys.readouterr().out
    assert file_sha256(model_of(finished)) == expected


@pytest.mark.parametrize("damage", [lambda data: data[:-1000], lambda data: b"garbage" * 999])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    finished: dict[str, Any], capsys: pytest.CaptureFixture[str], damage: Any
):
    expected = file_sha256(model_of(finished))
    slots = slots_of(finished["record"].parent)
    last = max(slots, key=lambda name: unpack(slots[name].read_bytes())[0]["number"])
    slots[last].write_bytes(damage(slots[last].read_bytes()))
    with pytest.raises(DamagedError):
        unpack(slots[last].read_bytes())
    train(**finished)
    said = capsys.readouterr().out
    assert f"warning: {last} is damaged" in said
    assert "goes on after 1.5 of 1.6 kimg" in said  # 48 steps of 50
    assert file_sha256(model_of(finished)) == expected


@pytest.mark.parametrize("other", [{"kimg": 0.9}, {"seed": 2}, {"architecture": "resnet"}])
def test_a_checkpoint_of_other_settings_is_refused(finished: dict[str, Any], other: dict[str, Any]):
    with pytest.raises(UserError, match="train_gan vasc: its checkpoints are of a run with other settings"):
        train(**finished | other)


def test_a_whole_checkpoint_of_something_else_is_one_sentence(finished: dict[str, Any]):
    for path in slots_of(finished["record"].parent).values():
        facts, arrays = unpack(path.read_bytes())
        arrays.pop(sorted(arrays)[-1])
        path.write_bytes(pack(facts, arrays))
    with pytest.raises(UserError, match="train_gan vasc: its checkpoint does not hold this GAN's training; delete it"):
        train(**finished)
