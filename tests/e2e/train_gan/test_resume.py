"""Training that is killed resumes and ends with the same bytes: a real process and a real kill."""

import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.shared.checkpoint import Checkpoints
from components.shared.files import file_sha256
from tests.integration.train_gan.conftest import ARCHITECTURES, Trainer, checkpointed, load_json, train_quickly

# Processes are forked from a server that has imported, but not run, TensorFlow: this saves ten seconds of imports.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.integration.train_gan.conftest"])


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for the decoded images that killed processes leave behind; the fork server inherits the setting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))
        yield


def train_until_killed(**settings: Any) -> None:
    """Train, and kill this process after its third checkpoint of eight."""
    saved, save = [], Checkpoints.save

    def save_and_count(checkpoints: Checkpoints, *arguments: Any) -> None:
        save(checkpoints, *arguments)
        saved.append(checkpoints)
        if len(saved) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoints.save = save_and_count
    train_quickly(**settings)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_train_killed_and_restarted_ends_with_the_same_bytes(
    trainer: Trainer, trained: dict[str, Path], tmp_path: Path, architecture: str
) -> None:
    settings = trainer.settings(tmp_path, **checkpointed(tmp_path, architecture))
    process = PROCESSES.Process(target=train_until_killed, kwargs=settings)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "gans").exists()

    train_quickly(**settings)
    whole, resumed = (folder / "gans" / "models" for folder in (trained[architecture], tmp_path))
    assert file_sha256(resumed / "gan-vasc.keras") == file_sha256(whole / "gan-vasc.keras")
    assert load_json(resumed) == load_json(whole)
    # The charts of a page have random names inside; its images are the same.
    images = [re.findall('base64,([^"]+)', (models / "gan-vasc.html").read_text()) for models in (whole, resumed)]
    assert len(images[0]) == 9
    assert images[0] == images[1]
