"""What an architecture is trained with: each part a named choice."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How a GAN is trained. Every architecture names its own; see `architectures`.

    Attributes:
        loss: a name in `losses.LOSSES`.
        regulariser: a name in `regularisers.NAMES`.
        augmentation: of what the discriminator sees, real and synthetic: a name in `augment.NAMES`.
        turns: whether real images are put into one of their eight positions (flips and quarter turns), at random.
        average_kimg: half-life of the moving average of the generator's weights that is sampled from and saved; 0 for
            none.
        learning_rate, beta_1, beta_2: of Adam, for both networks.
        gamma: weight of the gradient penalties for each pixel of an image: they are weighed with gamma · S².
        penalise_every: steps from one gradient penalty to the next, which weighs as many times more (StyleGAN2's lazy
            regularisation, Karras et al., arXiv 1912.04958).
        precision: `float32`, or `automatic`; see `precision`.
    """

    loss: str
    regulariser: str = "none"
    augmentation: str = "none"
    turns: bool = False
    average_kimg: float = 0.0
    learning_rate: float = 1e-4
    beta_1: float = 0.9
    beta_2: float = 0.999
    gamma: float = 0.0
    penalise_every: int = 1
    precision: str = "float32"
