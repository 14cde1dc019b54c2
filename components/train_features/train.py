"""Train the feature extractor of a run: the network whose features compare real and synthetic images.

It sees the training split alone. GANs select their checkpoint with it, and the quality of synthetic images is measured
with it; see `components.shared.sample_metrics`.
"""

from pathlib import Path

from components.shared.features import train_features
from components.shared.files import atomic_write
from components.shared.seeds import derive_seed


def train(training_data: str | Path, seed: int, features: str | Path) -> None:
    """Train the feature extractor.

    Args:
        training_data: folder that prepare_data wrote.
        seed: seed of the run; the extractor has its own below it.
        features: path of the `.keras` file to write.

    Raises:
        UserError: the training set cannot be used.
    """
    with atomic_write(features) as part:
        train_features(Path(training_data) / "train.parquet", derive_seed(seed, "features"), part, "train_features")
