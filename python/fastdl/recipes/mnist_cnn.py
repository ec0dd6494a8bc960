"""MNIST digits by a small modern convolutional network.

Task: 28x28 grey images of handwritten digits, ten classes; training images are shifted, rotated and scaled a little.
Network: two blocks of two 3x3 convolutions with batch normalisation, pooling and dropout, then a dense layer.

Reference: 99.6 % for a convolutional network with elastic distortions in Simard, Steinkraus & Platt, "Best practices
for convolutional neural networks applied to visual document analysis" (2003).
"""

from ..data import Augment
from ..models import CNN
from ._common import fit_and_judge, mnist

EPOCHS = {"mnist": 15, "mnist-embedded": 25}
AUGMENT = Augment(shift=2, rotate=10, scale=0.1)


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    return train(config, mnist(config))


def train(config, dataset):
    """The same on a given data set."""
    model = CNN("small", width=16, dropout=0.1, seed=config.seed)
    return fit_and_judge(
        config,
        model,
        dataset,
        epochs=EPOCHS,
        augment=AUGMENT,
        batch_size=64,
        optimizer="adam",
        lr=2e-3,
        warmup=0.05,
    )
