"""A pack of classifiers that is killed resumes and ends with the same bytes: a real process and a real kill."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.shared.checkpoint import Checkpoints
from components.shared.files import file_sha256
from tests.integration.train_classifier.test_resume import STEMS, load, run

# Processes are forked from a server that has imported, but not run, TensorFlow: this saves ten seconds of imports.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.integration.train_classifier.test_resume"])


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for the decoded images that killed processes leave behind; the fork server inherits the setting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))
        yield


def run_until_killed(saves: int, *arguments: Any) -> None:
    """Train, and kill this process after a number of checkpoints."""
    saved, save = [], Checkpoints.save

    def save_and_count(checkpoints: Checkpoints, *its_arguments: Any) -> None:
        save(checkpoints, *its_arguments)
        saved.append(checkpoints)
        if len(saved) == saves:
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoints.save = save_and_count
    run(*arguments)


def test_train_killed_twice_ends_with_the_same_bytes(
    training_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first kill comes after two of four epochs, the second in the second classifier."""
    for saves in (2, 4):
        process = PROCESSES.Process(target=run_until_killed, args=(saves, training_data, tmp_path))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "classifiers").exists()
    resumed = run(training_data, tmp_path)
    output = capsys.readouterr().out
    assert "baseline, seed 1: finished before" in output
    assert "strong_augmentation, seed 2: resuming after 2 of 4 epochs" in output
    whole = run(training_data, tmp_path / "whole", checkpoints="")
    for stem in STEMS:
        assert file_sha256(resumed / f"{stem}.keras") == file_sha256(whole / f"{stem}.keras"), stem
        assert load(resumed, stem) == load(whole, stem)
