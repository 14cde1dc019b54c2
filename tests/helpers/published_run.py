"""A published run without models: results, simulated predictions and a manifest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.evaluate.predict.probabilities import predictions_table
from components.shared.files import file_sha256
from components.shared.records import Manifest, ManifestEntry, write_record
from tests.helpers.example_results import ARMS, CLASSES, example

IMAGES = {"akiec": 12, "bcc": 10, "bkl": 10, "df": 12, "mel": 10, "nv": 40, "vasc": 10}


def rows_of(name: str) -> pd.DataFrame:
    """Return image_id, lesion_id and dx of a set's images, two of each lesion."""
    names = [(dx, number) for dx, count in IMAGES.items() for number in range(count)]
    return pd.DataFrame(
        [(f"{name}-{dx}-{number}", f"{name}-{dx}-lesion-{number // 2}", dx) for dx, number in names],
        columns=["image_id", "lesion_id", "dx"],
    )


def simulate(rows: pd.DataFrame, seeds: int, skill: float, seed: int) -> np.ndarray:
    """Return (seeds, N, classes) probabilities; a larger skill classifies more images correctly."""
    truth = pd.Categorical(rows["dx"], categories=list(CLASSES)).codes
    # Images differ in the same way in all arms and runs, which makes the comparison a paired one.
    logits = np.random.default_rng(3).normal(0, 1, (1, len(rows), len(CLASSES)))
    logits = logits + np.random.default_rng(seed).normal(0, 0.3, (seeds, len(rows), len(CLASSES)))
    logits[:, np.arange(len(rows)), truth] += skill
    probabilities = np.exp(logits)
    return np.asarray(probabilities / probabilities.sum(-1, keepdims=True))


def write_manifest(folder: Path, candidate: str | None = None) -> Path:
    """Write the manifest of a folder's files, as publish does."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    entries = {
        str(path.relative_to(folder)): ManifestEntry(sha256=file_sha256(path), bytes=path.stat().st_size)
        for path in paths
    }
    manifest = Manifest(files=entries, candidate=candidate, promote_if="improved", verdict="no evidence")
    write_record(folder / "manifest.json", manifest)
    return folder


def write_run(
    folder: Path, seeds: int = 3, skill: float = 1.0, arms: tuple[str, ...] = ARMS, luck: int = 0, **changes: Any
) -> Path:
    """Write a run.

    Args:
        folder: to create.
        seeds: number of seeds.
        skill: of the augmented arms; the others have 1.
        arms: names.
        luck: seed of the augmented arms' models.
        **changes: replace fields of `run` in the results.
    """
    folder.mkdir(parents=True)
    results = example(seeds, arms=arms)
    results["run"] |= changes
    (folder / "metrics.json").write_text(json.dumps(results), encoding="utf-8")
    (folder / "report.html").write_text("<html></html>", encoding="utf-8")
    tables = []
    for name in ("validation", "test"):
        rows = rows_of(name)
        probabilities = {
            arm: simulate(rows, seeds, skill if "@" in arm else 1.0, number + 100 * luck * ("@" in arm))
            for number, arm in enumerate(arms)
        }
        tables.append(predictions_table(rows, name, probabilities, results["run"]["seeds"], CLASSES))
    pd.concat(tables).to_parquet(folder / "predictions.parquet", index=False)
    return write_manifest(folder)
