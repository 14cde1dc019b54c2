"""The original networks and the same training steps in plain PyTorch.

Eager, channels-last; float32 on a CPU, automatic mixed precision (bfloat16) on a GPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

BATCH, LATENT = 32, 100


def _to_device(network: Any) -> tuple[Any, Any]:
    """Return the network on the device in channels-last form, and the device."""
    import torch

    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device=device, memory_format=torch.channels_last), device


def _images_on_device(images: np.ndarray, device: Any) -> Any:
    """Return the images as (N, 3, S, S) uint8 on the device."""
    import torch

    whole = torch.from_numpy(images).permute(0, 3, 1, 2)
    return whole.to(device=device).contiguous(memory_format=torch.channels_last)


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def generator(image_size: int) -> Any:
    """Build the generator, from (N, 100) to (N, 3, S, S) in [-1, 1]."""
    from torch import nn

    side, narrower = image_size // 16, 256
    parts = [nn.Linear(LATENT, side * side * 256, bias=False), nn.BatchNorm1d(side * side * 256), nn.LeakyReLU(0.3)]
    parts.append(nn.Unflatten(1, (256, side, side)))
    for filters in (128, 64, 32):
        parts.append(nn.ConvTranspose2d(narrower, filters, 5, 2, padding=2, output_padding=1, bias=False))
        parts += [nn.BatchNorm2d(filters), nn.LeakyReLU(0.3)]
        narrower = filters
    parts += [nn.ConvTranspose2d(narrower, 3, 5, 2, padding=2, output_padding=1, bias=False), nn.Tanh()]
    return nn.Sequential(*parts)


def discriminator(image_size: int) -> Any:
    """Build the discriminator, from (N, 3, S, S) in [-1, 1] to (N, 1) logits."""
    from torch import nn

    parts, narrower = [], 3
    for filters in (64, 128, 256):
        parts += [nn.Conv2d(narrower, filters, 5, 2, padding=2), nn.LeakyReLU(0.3), nn.Dropout(0.3)]
        narrower = filters
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(256 * (image_size // 8) ** 2, 1))


def gan(image_size: int, images: np.ndarray, steps: int = 1) -> Callable[[], float]:
    """Build the step: one pass through each network gives both losses, as in the original.

    Args:
        image_size: S.
        images: (N, S, S, 3) uint8 to train on; they are put on the device once.
        steps: in a call.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as entropy

    generator_, device = _to_device(generator(image_size))
    discriminator_, _ = _to_device(discriminator(image_size))
    optimizers = [torch.optim.Adam(network.parameters(), 1e-4) for network in (generator_, discriminator_)]
    resident = _images_on_device(images, device)

    def step() -> None:
        rows = torch.randint(len(resident), (BATCH,), device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            real = resident[rows].float() / 127.5 - 1
            fake = generator_(torch.randn(BATCH, LATENT, device=device))
            real_logits, fake_logits = discriminator_(real), discriminator_(fake)
        ones, zeros = torch.ones_like(real_logits), torch.zeros_like(real_logits)
        generator_loss = entropy(fake_logits.float(), ones.float())
        discriminator_loss = entropy(real_logits.float(), ones.float()) + entropy(fake_logits.float(), zeros.float())
        for network, loss, keep in ((generator_, generator_loss, True), (discriminator_, discriminator_loss, False)):
            weights = list(network.parameters())
            # Only these gradients, as with a tape: the discriminator's are not computed for the generator's loss.
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, retain_graph=keep), strict=True):
                weight.grad = gradient
        for optimizer in optimizers:
            optimizer.step()

    def work() -> float:
        for _ in range(steps):
            step()
        _wait()
        return steps * BATCH

    return work


def classifier_network(classes: int, image_size: int) -> Any:
    """Build the CNN, from (N, 3, S, S) in [-1, 1] to (N, classes) logits."""
    from torch import nn

    parts, narrower = [], 3
    for filters, dropout in ((32, 0.25), (64, 0.3), (128, 0.4)):
        parts += [nn.Conv2d(narrower, filters, 3, padding="same"), nn.BatchNorm2d(filters), nn.ReLU()]
        parts += [nn.MaxPool2d(2), nn.Dropout(dropout)]
        narrower = filters
    wide = 128 * (image_size // 8) ** 2
    parts += [nn.Flatten(), nn.Linear(wide, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*parts, nn.Linear(512, classes))


def classifier(image_size: int, images: np.ndarray, labels: np.ndarray, steps: int = 8) -> Callable[[], float]:
    """Build the classifier's training.

    Args:
        image_size: S.
        images: (N, S, S, 3) uint8; they are put on the device once.
        labels: (N,) integers.
        steps: in a call.
    """
    import torch
    from torch.nn.functional import cross_entropy

    network, device = _to_device(classifier_network(int(labels.max()) + 1, image_size))
    optimizer = torch.optim.Adam(network.parameters())
    resident, truth = _images_on_device(images, device), torch.from_numpy(labels).to(device)

    def work() -> float:
        for _ in range(steps):
            rows = torch.randint(len(resident), (BATCH,), device=device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = network(resident[rows].float() / 127.5 - 1)
            optimizer.zero_grad()
            cross_entropy(logits.float(), truth[rows]).backward()
            optimizer.step()
        _wait()
        return steps * BATCH

    return work
