"""A small run, made by the phases themselves, and what evaluate made of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.balance_dataset.balance import balance
from components.evaluate.compare import ARMS
from components.evaluate.evaluate import evaluate
from components.generate_images.generate import generate
from components.shared.files import file_sha256
from components.shared.image_set import read_header, write_image_set
from components.train_classifier.train import train as train_classifier
from components.train_gan.pretrain import pretrain
from components.train_gan.train import train as train_gan


@pytest.fixture(scope="session")
def run(splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that evaluate reads, made by the phases themselves, with no external images."""
    folder = tmp_path_factory.mktemp("run")
    sets = {"train_set": splits["train"], "validation_set": splits["validation"]}
    pretrain(
        ["df"], **sets, architecture="dcgan", kimg=0.0, seed=1, features=folder / "features.keras",
        start=folder / "start", record=folder / "shared.json", progress_page=folder / "shared.html",
    )  # fmt: skip
    train_gan(
        ["df"], **sets, features=folder / "features.keras", start=folder / "start", architecture="dcgan", kimg=0.03,
        seed=1, failed_class="fail", generators=folder / "gans", record=folder / "g.json",
        progress_page=folder / "g.html",
    )  # fmt: skip
    generate(
        folder / "gans", folder / "g.json", folder / "features.keras", **sets, count=9, reject=0.1, seed=1,
        images=folder / "synthetic", sheet=folder / "sheet", quality=folder / "quality.json",
    )  # fmt: skip
    balance(splits["train"], [folder / "synthetic"], 1, folder / "augmented", folder / "oversampled", folder / "s.md")
    sets = {"baseline": splits["train"], "oversampled": folder / "oversampled", "augmented": folder / "augmented"}
    for arm, path in sets.items():
        train_classifier(
            arm, path, splits["validation"], 1, 1, "none", 1,
            folder / f"{arm}-1.keras", folder / f"{arm}-1.json", folder / f"{arm}.html",
        )  # fmt: skip
    # A second seed without a second training: each arm takes the model of another.
    for arm, other in zip(ARMS, ("augmented", "baseline", "oversampled"), strict=True):
        facts = json.loads((folder / f"{arm}-1.json").read_text())
        facts["settings"]["seed"] = 2
        shutil.copy(folder / f"{other}-1.keras", folder / f"{arm}-2.keras")
        facts["model_sha256"] = file_sha256(folder / f"{arm}-2.keras")
        (folder / f"{arm}-2.json").write_text(json.dumps(facts))
    with write_image_set(folder / "no-external", replace(read_header(splits["test"]), split="external")):
        pass
    return {
        "data": "test",
        "split": "random",
        "external_data": "none",
        "rare_classes": ["df"],
        "malignant": ["mel", "vasc"],
        "seed": 1,
        "test_set": splits["test"],
        "external_set": folder / "no-external",
        "train_set": splits["train"],
        "validation_set": splits["validation"],
        "synthetic_sets": [folder / "synthetic"],
        "gan_records": [folder / "g.json"],
        "quality": [folder / "quality.json"],
        "models": {arm: [folder / f"{arm}-{seed}.keras" for seed in (1, 2)] for arm in ARMS},
        "records": {arm: [folder / f"{arm}-{seed}.json" for seed in (1, 2)] for arm in ARMS},
    }


@pytest.fixture(scope="session")
def judged(run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("judged")
    names = ("results", "predictions", "report_page", "comparison", "model_card", "data_sheet")
    return evaluate(**run, **{name: folder / name for name in names}), folder
