"""Whole pipeline runs: in processes and containers, killed, resumed, repeated, and with invalid input."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.shared.files import file_sha256
from scripts.output_reference import OUTPUTS

ROOT = Path(__file__).resolve().parents[3]
SMALL = [
    "data_image_size=32",
    "synthetic_classes=df,vasc",
    "synthetic_per_class=6",
    "gan_kimg=0.2",
    "gan_shared_kimg=0",
    "classifier_epochs=2",
    "classifier_seeds=1",
]


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "counterweight", "run", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KUBERNETES_SERVICE_HOST": "10.0.0.1"},  # as in a notebook's pod
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    process = command(folder, *words)
    output = process.communicate(timeout=600)[0]
    return process.returncode, output


def until(process: subprocess.Popen[str], text: str) -> str:
    """Reads output up to a line with `text`."""
    seen = ""
    for line in process.stdout or ():
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came:\n{seen}")


def left_behind(folder: Path) -> list[str]:
    """Processes whose temporary files lie below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def kill(process: subprocess.Popen[str], number: int, folder: Path) -> None:
    process.send_signal(number)
    process.wait(60)
    deadline = time.monotonic() + 60
    while left_behind(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left_behind(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run from start to end without a break: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    code, output = finish(folder, *SMALL, "OUT=out")
    assert code == 0, output
    return folder, output


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same run, killed in GAN training, at a random moment after it, and interrupted later."""
    folder = tmp_path_factory.mktemp("broken")
    lines = random.randrange(1, 7)  # what comes after are the classifiers
    print(f"killed after {lines} lines")
    process = command(folder, *SMALL, "OUT=out")
    until(process, "train_gan")
    kill(process, signal.SIGKILL, folder)
    process = command(folder, *SMALL, "OUT=out")
    for _ in range(lines):
        until(process, "[")
    time.sleep(random.random())
    kill(process, signal.SIGKILL, folder)
    process = command(folder, *SMALL, "OUT=out")
    until(process, "train_classifier")
    kill(process, signal.SIGINT, folder)
    assert process.returncode == 130
    assert "stopped; rerun the same command to resume" in (process.stdout.read() if process.stdout else "")
    code, output = finish(folder, *SMALL, "OUT=out")
    assert code == 0, output
    return folder, output


def test_the_folder_holds_what_was_promised(whole: tuple[Path, str]):
    out = whole[0] / "out"
    manifest = json.loads((out / "manifest.json").read_text())["files"]
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert there == set(manifest) | {"manifest.json"}
    for name in there:
        assert sum(output.matches(name) for output in OUTPUTS) == 1, name
    assert [it.name for it in OUTPUTS if it.always and not any(map(it.matches, there))] == []
    assert {
        "report.html",
        "metrics.json",
        "models/baseline.keras",
        "models/augmented@0.5.keras",
        "models/gan-df.keras",
        "models/features.keras",
    } <= there
    assert {
        "synthetic/df.parquet",
        "synthetic/df.json",
        "synthetic/vasc.parquet",
        "models/oversampled.keras",
        "predictions.parquet",
    } <= there
    assert "after 0.224 kimg" in (out / "models/gan-df.html").read_text()
    assert "vasc: the first" in (out / "synthetic/vasc.html").read_text()
    for name, entry in manifest.items():
        assert entry["sha256"] == file_sha256(out / name)


def test_metrics_have_their_form(whole: tuple[Path, str]):
    metrics = json.loads((whole[0] / "out" / "metrics.json").read_text())
    classes = metrics["classes"]
    assert classes == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert set(metrics["arms"]) == {"baseline", "oversampled", "augmented@0.5"}
    for arm in metrics["arms"].values():
        assert set(arm["recall"]) == set(arm["support"]) == set(classes)
        for label, dx in enumerate(classes):
            row = arm["confusion"][label]
            assert sum(row) == arm["support"][dx]
            assert arm["recall"][dx] == pytest.approx(row[label] / sum(row))
        assert arm["balanced_accuracy"] == pytest.approx(sum(arm["recall"].values()) / 7)


def test_no_lesion_and_no_synthetic_image_crosses_the_split(whole: tuple[Path, str]):
    (task,) = (whole[0] / "runs/.cache/artifacts").rglob("prepare-data")
    files = {"train": "training_data", "validation": "training_data", "test": "test_data"}
    splits = {name: pd.read_parquet(task / folder / f"{name}.parquet") for name, folder in files.items()}
    lesions = [set(rows["lesion_id"]) for rows in splits.values()]
    assert len(set.union(*lesions)) == sum(map(len, lesions))
    assert all(set(rows["source"]) == {"real"} for rows in splits.values())
    predictions = pd.read_parquet(whole[0] / "out" / "predictions.parquet")
    for name in ("validation", "test"):
        assert set(predictions.loc[predictions["set"] == name, "image_id"]) == set(splits[name]["image_id"])
    assert set(predictions["set"]) == {"validation", "test"}


def test_it_ends_with_the_table_and_the_report(whole: tuple[Path, str]):
    lines = whole[1].splitlines()
    assert lines[-1] == "report: out/report.html"
    for dx in ("akiec", "df", "nv", "vasc"):
        assert any(line.startswith(dx) for line in lines)
    assert all(len(line) <= 160 for line in lines)
    assert "Traceback" not in whole[1]


def test_a_run_that_was_killed_ends_as_one_that_was_not(whole: tuple[Path, str], broken: tuple[Path, str]):
    one, other = whole[0] / "out", broken[0] / "out"
    for name in ("models/gan-df.keras", "models/augmented@0.5.keras", "synthetic/vasc.parquet", "predictions.parquet"):
        assert file_sha256(one / name) == file_sha256(other / name), name
    assert "prepare_data: reading" not in broken[1], "a finished task was done again"


def test_a_gan_goes_on_where_it_was_killed(tmp_path: Path):
    words = [*(word for word in SMALL if not word.startswith("gan_kimg")), "gan_kimg=3", "gans_per_task=2"]
    process = command(tmp_path, *words)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("runs/.cache/checkpoints/*/train_gan-df/checkpoint-*")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kill(process, signal.SIGKILL, tmp_path)
    process = command(tmp_path, *words)
    seen = until(process, "train_gan df: resuming at")
    kill(process, signal.SIGTERM, tmp_path)
    assert "prepare_data: reading" not in seen
    assert "pretrain_gan" not in seen


def test_a_run_without_synthetic_images_compares_a_remedy_and_its_repetition_is_cached(tmp_path: Path):
    words = [*SMALL, "arms=baseline,class_weights", "OUT=out"]
    code, output = finish(tmp_path, *words)
    assert code == 0, output
    out = tmp_path / "out"
    effect = json.loads((out / "metrics.json").read_text())["effect"]
    assert (effect["arm"], effect["reference"]) == ("class_weights", "baseline")
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {"models/class_weights.keras", "models/features.keras"} <= there
    assert not [name for name in there if "gan" in name or name.startswith("synthetic") or name.endswith("none.txt")]
    assert "skipped: this run trains no GANs" in output
    code, again = finish(tmp_path, *words)
    assert (code, "all other tasks were cached" in again) == (0, True), again


def test_other_uses_of_synthetic_images_reach_every_phase(tmp_path: Path):
    uses = {
        "synthetic_until": "0.5",
        "synthetic_weight": "0.5",
        "synthetic_smoothing": "0.1",
        "synthetic_selection": "density",
        "synthetic_scope": "all",
    }
    words = [*SMALL, *(f"{name}={value}" for name, value in uses.items()), "gan_architecture=dcgan", "gans_per_task=7"]
    code, output = finish(tmp_path, *words, "failed_class=continue", "arms=baseline,oversampled,augmented", "OUT=out")
    assert code == 0, output
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert {name: str(metrics["run"][name]) for name in uses} == uses
    arm = json.loads((out / "models" / "augmented@0.5.json").read_text())
    assert {name: str(arm[name]) for name in uses if name != "synthetic_selection"} == {
        name: value for name, value in uses.items() if name != "synthetic_selection"
    }
    assert set(metrics["synthetic"]) == set(metrics["classes"])
    for dx in metrics["classes"]:
        gan = json.loads((out / "models" / f"gan-{dx}.json").read_text())
        assert (gan["status"], gan["architecture"]) == ("trained", "dcgan")
        quality = json.loads((out / "synthetic" / f"{dx}.json").read_text())
        assert (quality["selection"], quality["images"]) == ("density", 6)


def test_checkpoints_go_with_the_end_of_the_run(whole: tuple[Path, str], broken: tuple[Path, str]):
    for folder, _ in (whole, broken):
        assert not list((folder / "runs/.cache/checkpoints").iterdir())


def test_again_does_nothing_but_look(whole: tuple[Path, str]):
    out = whole[0] / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    code, output = finish(whole[0], *SMALL, "OUT=out")
    assert code == 0
    assert "all other tasks were cached" in output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_lost_results_are_put_back_from_the_cache(whole: tuple[Path, str]):
    manifest = json.loads((whole[0] / "out" / "manifest.json").read_text())
    code, output = finish(whole[0], *SMALL, "OUT=elsewhere")
    assert code == 0
    assert "all other tasks were cached" in output
    assert json.loads((whole[0] / "elsewhere" / "manifest.json").read_text()) == manifest


def test_data_that_are_prepared_again_to_the_same_bytes_train_nothing(whole: tuple[Path, str]):
    code, output = finish(whole[0], *SMALL, "OUT=prepared", "data_split=out/splits.csv")
    assert code == 0, output
    assert "] prepare_data: reading" in output
    assert "] train_" not in output
    for name in ("models/gan-df.keras", "predictions.parquet"):
        assert file_sha256(whole[0] / "prepared" / name) == file_sha256(whole[0] / "out" / name), name


def test_another_external_set_restarts_no_gan_and_no_classifier_of_real_images(whole: tuple[Path, str]):
    for number, dx in enumerate(["nv"] * 3 + ["df"] * 2):
        folder = whole[0] / "outside" / dx
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).resize((64, 64)).save(folder / f"{number}.png")
    code, output = finish(whole[0], *SMALL, "OUT=external", "EXTERNAL=outside")
    assert code == 0, output
    assert "read_other_data external: 5 images of 5 lesions" in output
    for label in ("prepare_data", "train_features", "pretrain_gan", "train_gan", "train_classifier baseline"):
        assert f"] {label}" in whole[1]
        assert f"] {label}" not in output
    before, after = (json.loads((whole[0] / name / "metrics.json").read_text()) for name in ("out", "external"))
    assert before["external"] is None
    assert after["external"]["counts"]["nv"] == {"images": 3, "lesions": 3}
    assert after["effect"] == before["effect"]
    assert not list((whole[0] / "external").rglob("*external*"))


def test_the_same_command_twice_at_a_time_is_refused(tmp_path: Path):
    first = command(tmp_path, *SMALL)
    until(first, "results in")
    code, output = finish(tmp_path, *SMALL)
    kill(first, signal.SIGTERM, tmp_path)
    assert first.returncode == 130
    assert code == 2
    assert "another run is in progress in this directory" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["PRESET=gpu"], "PRESET is 'gpu'"),
        (["gan_kimg=lots"], "gan_kimg is 'lots'"),
        (["DATA=empty"], "has no metadata file"),
        (["synthetic_classes=df,dfx"], "dfx"),
        (["data_image_size=50"], "data_image_size is "),
    ],
)
def test_run_with_invalid_input_prints_an_error_and_a_hint(tmp_path: Path, words: list[str], message: str):
    (tmp_path / "empty").mkdir()
    code, output = finish(tmp_path, *words)
    assert code == 2
    error, hint = output.splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")
    assert output.count("error: ") == 1
    assert "Traceback" not in output
    assert {path.name for path in (tmp_path / "runs").glob("*")} <= {".cache"}


def test_a_full_disk_is_one_sentence(tmp_path: Path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("A FULL DISK IS NOT TESTED: this user may not mount a small file system")
    try:
        code, output = finish(tmp_path, *SMALL)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
    assert code == 2
    assert "hint: free some space and rerun the command to resume" in output
    assert "Traceback" not in output


@pytest.mark.engine
def test_in_containers_the_same_comes_out(whole: tuple[Path, str], built: dict[str, str], tmp_path: Path):
    code, output = finish(tmp_path, "RUNNER=containers", *SMALL, "OUT=out")
    assert code == 0, output
    one, other = (
        {str(path.relative_to(out)): file_sha256(path) for path in out.rglob("*") if path.is_file()}
        for out in (whole[0] / "out", tmp_path / "out")
    )
    assert set(one) == set(other)
    # The rest holds how long it took, or the patch of Python.
    timeless = [name for name in one if name.endswith((".keras", ".parquet", ".csv", "comparison.md"))]
    assert len(timeless) >= 9
    assert {name: one[name] for name in timeless} == {name: other[name] for name in timeless}
    assert not any(line for line in output.splitlines() if "Traceback" in line)


def test_two_runs_with_one_output_in_different_directories_are_refused(tmp_path: Path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    first = command(tmp_path / "one", *SMALL, f"OUT={tmp_path}/out")
    until(first, "results in")
    code, output = finish(tmp_path / "other", *SMALL, f"OUT={tmp_path}/out")
    kill(first, signal.SIGTERM, tmp_path)
    assert code == 2
    assert "another run writes to" in output
    assert not (tmp_path / "out").exists()
