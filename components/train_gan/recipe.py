"""Training recipes: named choices for each architecture."""

from dataclasses import dataclass

from components.shared import precision
from components.train_gan import augment, losses


@dataclass(frozen=True)
class Recipe:
    """How a GAN is trained; each architecture has one, see `architectures`.

    Attributes:
        loss: a name in `losses.LOSSES`.
        augmentation: augmentation of the discriminator's input, real and synthetic; a name in `augment.NAMES`.
        random_dihedral: whether real images are flipped and rotated by multiples of 90° at random.
        average_kimg: half-life of the moving average of the generator's weights, which is sampled and saved; 0 for no
            average.
        learning_rate, beta_1, beta_2: Adam's hyperparameters, for both networks.
        final_rate: share of the learning rate at the end, reached along a cosine; 1 for a constant rate. A short
            training keeps its rate; see `loop.SETTLING_KIMG`.
        gamma: weight of the gradient penalties at real and synthetic images (R1 and R2) per pixel: they are weighted
            with gamma · S²; 0 for none.
        penalise_every: steps between gradient penalties, which are weighted as many times more (StyleGAN2's lazy
            regularisation, Karras et al., arXiv 1912.04958).
        precision: `float32`, or `automatic`; see `precision`.

    Raises:
        ValueError: a name is unknown.
    """

    loss: str
    augmentation: str = "none"
    random_dihedral: bool = False
    average_kimg: float = 0.0
    learning_rate: float = 1e-4
    final_rate: float = 1.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    gamma: float = 0.0
    penalise_every: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Check the names: an unknown one would count as `none` or `float32`."""
        choices = {"loss": losses.LOSSES, "augmentation": augment.NAMES, "precision": precision.NAMES}
        for field, names in choices.items():
            if (name := getattr(self, field)) not in names:
                raise ValueError(f"{field} is {name!r}: choose from {', '.join(names)}")
