"""CIFAR-10 photographs by a convolutional network; a subset of 5,000 images is enough to show it.

Task: 32x32 colour images of ten kinds of things; training images are mirrored and shifted. Network: blocks of one, two
and two 3x3 convolutions with batch normalisation, pooling and dropout, then the mean over the image and one dense
layer. It takes the full set where the folder has it, else the subset ``cifar10-small``.

Reference: 79.7 % for a wide residual network trained on 4,000 labelled images alone, in Oliver, Odena, Raffel, Cubuk &
Goodfellow, "Realistic evaluation of deep semi-supervised learning algorithms" (2018), table 1. Ours is far smaller and
trained for minutes.
"""

from .. import data, nn
from ..data import Augment
from ..models import CNN
from ._common import fit_and_judge

EPOCHS = {"cifar10": 20, "cifar10-small": 60}
AUGMENT = Augment(shift=4, whole_pixels=True, flip=True)


def network(classes):
    """Filters 32 at 32x32 pixels, 64 at 16x16, 128 at 8x8."""
    layers = []
    for filters, convolutions in ((32, 1), (64, 2), (128, 2)):
        for _ in range(convolutions):
            # The normalisation's shift takes the place of the bias.
            layers += [nn.Conv2d(filters, 3, padding="same", bias=False, init="he_normal"), nn.BatchNorm(), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Dense(classes))


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    model = CNN(network, seed=config.seed)
    return fit_and_judge(
        config,
        model,
        data.load("cifar10", config.data_dir),
        epochs=EPOCHS,
        augment=AUGMENT,
        batch_size=64,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=0.02,
        smoothing=0.1,
        warmup=0.1,
    )
