"""MNIST digits by LeNet-5, the first convolutional network in wide use.

Task: 28x28 grey images of handwritten digits, ten classes; training images are shifted and rotated a little. Network:
LeNet-5 in its usual modern form (relu, maximum pooling, softmax), 61,706 parameters.

Reference: 99.05 % without and 99.2 % with distorted training images in LeCun, Bottou, Bengio & Haffner, "Gradient-based
learning applied to document recognition" (1998).
"""

from ..data import Augment
from ..models import CNN
from ._common import fit_and_judge, mnist

EPOCHS = {"mnist": 25, "mnist-embedded": 80}
AUGMENT = Augment(shift=2, rotate=10)


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    model = CNN("lenet5", seed=config.seed)
    return fit_and_judge(
        config,
        model,
        mnist(config),
        epochs=EPOCHS,
        augment=AUGMENT,
        batch_size=64,
        optimizer="adam",
        lr=2e-3,
        warmup=0.05,
    )
