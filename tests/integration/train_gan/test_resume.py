"""Training that is killed resumes and ends with the same bytes: a real process and a real kill."""

import multiprocessing
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.shared.checkpoint import SLOTS, pack, unpack
from components.shared.files import file_sha256
from components.train_gan import architectures
from tests.helpers.errors import raises_user_error
from tests.integration.train_gan.conftest import Trainer, checkpointed, load_json, train_quickly

# Processes are forked from a server that has imported, but not run, TensorFlow: this saves ten seconds of imports.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.integration.train_gan.conftest"])


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for the decoded images that killed processes leave behind; the fork server inherits the setting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))
        yield


def settings_in(trainer: Trainer, folder: Path, architecture: str = "dcgan", **changes: Any) -> dict[str, Any]:
    """Return the arguments of `train` with checkpoints in a folder, as `trained` has them."""
    return trainer.settings(folder, **checkpointed(folder, architecture), **changes)


def slots_in(folder: Path) -> list[Path]:
    return [folder / "checkpoints" / "train_gan-vasc" / name for name in SLOTS]


def newest_checkpoint(folder: Path) -> int:
    """Return the number of the newest checkpoint; 0 for none. A reader sees complete files or none."""
    return max([unpack(path.read_bytes())[0]["number"] for path in slots_in(folder) if path.exists()], default=0)


@pytest.mark.parametrize("architecture", architectures.NAMES)
def test_train_killed_and_restarted_ends_with_the_same_bytes(
    trainer: Trainer, trained: dict[str, Path], tmp_path: Path, architecture: str
) -> None:
    settings = settings_in(trainer, tmp_path, architecture=architecture)
    process = PROCESSES.Process(target=train_quickly, kwargs=settings)
    process.start()
    while newest_checkpoint(tmp_path) < 3 and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert 3 <= newest_checkpoint(tmp_path) < 8, "killed between the first and the last of eight checkpoints"
    assert not (tmp_path / "gans").exists()

    train_quickly(**settings)
    whole, resumed = (folder / "gans" / "models" for folder in (trained[architecture], tmp_path))
    assert file_sha256(resumed / "gan-vasc.keras") == file_sha256(whole / "gan-vasc.keras")
    assert load_json(resumed) == load_json(whole)
    # The charts of a page have random names inside; its images are the same.
    images = [re.findall('base64,([^"]+)', (models / "gan-vasc.html").read_text()) for models in (whole, resumed)]
    assert len(images[0]) == 9
    assert images[0] == images[1]


@pytest.fixture
def finished(trained: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the checkpoints of a finished training, without its result."""
    shutil.copytree(trained["dcgan"] / "checkpoints", tmp_path / "checkpoints")
    return tmp_path


def test_train_that_had_finished_writes_the_same_bytes_without_training(
    trainer: Trainer, trained: dict[str, Path], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.train_gan.loop.Together", None)
    train_quickly(**settings_in(trainer, finished))
    assert load_json(finished / "gans" / "models") == load_json(trained["dcgan"] / "gans" / "models")


def test_train_with_a_damaged_newest_checkpoint_resumes_from_the_one_before(
    trainer: Trainer, trained: dict[str, Path], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = max(slots_in(finished), key=lambda path: unpack(path.read_bytes())[0]["number"])
    newest.write_bytes(newest.read_bytes()[:-1000])
    train_quickly(**settings_in(trainer, finished))
    output = capsys.readouterr().out
    assert f"warning: {newest.name} is damaged" in output
    assert "resuming at 0.2 of 0.256 kimg" in output
    assert load_json(finished / "gans" / "models") == load_json(trained["dcgan"] / "gans" / "models")


@pytest.mark.parametrize("changes", [{"kimg": 0.9}, {"architecture": "resnet"}])
def test_train_with_checkpoints_of_other_settings_fails(
    trainer: Trainer, finished: Path, changes: dict[str, Any]
) -> None:
    with raises_user_error("checkpoints.other_settings") as caught:
        train_quickly(**settings_in(trainer, finished, **changes))
    assert caught.value.fields == {"label": "train_gan vasc"}


def test_train_with_a_checkpoint_that_lacks_an_array_fails(trainer: Trainer, finished: Path) -> None:
    for path in slots_in(finished):
        state, arrays = unpack(path.read_bytes())
        arrays.pop(sorted(arrays)[-1])
        path.write_bytes(pack(state, arrays))
    with raises_user_error("checkpoint.invalid") as caught:
        train_quickly(**settings_in(trainer, finished))
    assert caught.value.fields == {"label": "train_gan vasc"}
