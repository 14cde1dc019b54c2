"""A task without work writes an empty output in less time than the import of Keras."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from kfp import dsl
from components.generate_images.component import generate_images
from components.train_classifier.component import train_classifier
from components.train_gan.component import pretrain_gan, train_gan

data, start, gans, synthetic, classifiers = (
    dsl.Model(uri=f"{sys.argv[1]}/{name}") for name in ("data", "start", "gans", "synthetic", "classifiers")
)
gan = {"architecture": "resnet", "kimg": 1.0, "seed": 1, "features": data, "train_gans": False}
pretrain_gan.python_func(classes=["df"], training_data=data, start=start, **gan)
train_gan.python_func(classes="df", rare_data=data, start=start, gans=gans, **gan)
generate_images.python_func(
    classes="df", gans=gans, sources=data, features=data, rare_data=data, count=1, selection="realism", seed=1,
    synthetic=synthetic,
)
train_classifier.python_func(
    pack="none", training_data=data, synthetic_per_class=1, random_seed=1, epochs=1, metadata="none", classifier="cnn",
    weights="none", synthetic_scope="rare", synthetic_until=1.0, synthetic_weight=1.0, synthetic_smoothing=0.0,
    classifiers=classifiers, synthetic_images=None,
)
assert not {"keras", "tensorflow"} & set(sys.modules)
"""


def test_tasks_without_work_write_an_empty_output_and_start_no_keras(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sources.json").write_text('{"sources": {}}')  # as read_other_data writes it without any
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("none.txt")) == [
        "classifiers/none.txt", "gans/none.txt", "start/none.txt", "synthetic/none.txt",
    ]  # fmt: skip
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 5
    assert done.stdout.count("skipped: ") == 4
