import importlib.util
import subprocess
import sys

import keras
import pytest

from benchmarks import limits, original
from components.train_classifier.networks import cnn
from components.train_gan.architectures import dcgan


def test_original_networks_have_as_many_weights_as_the_product():
    for size in (64, 128):
        assert original.generator(size).count_params() == dcgan.generator(size).count_params()
        assert original.discriminator(size).count_params() == dcgan.discriminator(size).count_params()
    assert original.classifier_network(7, 128).count_params() == cnn.build(7, 128).count_params() == 16_877_511


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is installed only for make bench")
def test_pytorch_networks_have_as_many_trainable_weights_as_the_original():
    # In a separate process: PyTorch and TensorFlow cannot be in one.
    ask = """
from benchmarks import pytorch
networks = pytorch.generator(128), pytorch.discriminator(128), pytorch.classifier_network(7, 128)
print(*(sum(weight.numel() for weight in network.parameters()) for network in networks))
"""
    counted = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    ours = original.generator(128), original.discriminator(128), original.classifier_network(7, 128)
    assert list(map(int, counted)) == [sum(w.shape.num_elements() for w in one.trainable_weights) for one in ours]


def test_forward_flop_equals_the_count_by_hand():
    assert limits.forward_flop(original.discriminator(32)) == [
        2 * 25 * 3 * 64 * 16 * 16,
        2 * 25 * 64 * 128 * 8 * 8,
        2 * 25 * 128 * 256 * 4 * 4,
        2 * 4 * 4 * 256,
    ]
    # A transposed convolution multiplies once per input, not per output.
    assert limits.forward_flop(original.generator(32))[:2] == [2 * 100 * 2 * 2 * 256, 2 * 25 * 256 * 128 * 2 * 2]


def test_step_flop_counts_forward_and_backward_passes():
    simple = keras.Sequential([keras.Input((10,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    first, second = 2 * 10 * 4, 2 * 4
    assert limits.classifier_step_flop(simple) == 3 * (first + second) - first
    # Generator: forward, weights, and inputs except the noise. Discriminator: likewise for real images; for synthetic
    # ones the gradient continues to the image.
    real, synthetic = 2 * first + 3 * second, 3 * (first + second)
    assert limits.gan_step_flop(simple, simple) == real + real + synthetic
