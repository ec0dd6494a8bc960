"""Cats and dogs in photographs of 32x32 pixels.

Task: 2,000 colour photographs to learn from, mirrored and shifted; 400 to judge. Network: blocks of one, two and two 3x3
convolutions with batch normalisation, pooling and dropout, then the mean over the image. Beside it a support vector machine
with RBF kernel on the principal components of the pixels, as many and as stiff as validation likes best.

Reference: none for this subset. Of the two classes among the ten of CIFAR-10, where they are the pair that networks confuse most,
see Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
"""

from .. import data
from ..data import Augment
from ..models import CNN
from ._common import fit_and_judge
from ._pixels import KernelMachine
from .cifar_cnn import network

EPOCHS = {"cats_dogs_32": 50}
AUGMENT = Augment(shift=4, whole_pixels=True, flip=True)


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    dataset = data.load("cifar10-small/cats_dogs_32", config.data_dir)
    dataset.name, dataset.names = "cats_dogs_32", ("cat", "dog")
    base = KernelMachine(dataset)
    report = fit_and_judge(
        config,
        CNN(network, seed=config.seed),
        dataset,
        epochs=EPOCHS,
        augment=AUGMENT,
        batch_size=50,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=0.02,
        smoothing=0.1,
        warmup=0.1,
    )
    report.metrics["baseline_accuracy"] = base.score(dataset.x_test, dataset.y_test)
    report.settings["baseline"] = base.settings
    return report
