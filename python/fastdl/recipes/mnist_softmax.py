"""MNIST digits by softmax regression: no hidden layer.

Task: 28x28 grey images of handwritten digits, ten classes. Network: 784-10, cross entropy.

Reference: 88.0 % for a linear classifier (one layer, squared error) in LeCun, Bottou, Bengio & Haffner, "Gradient-based
learning applied to document recognition" (1998), table of results.
"""

from ..models import SoftmaxRegression
from ._common import fit_and_judge, mnist

EPOCHS = {"mnist": 20, "mnist-embedded": 60}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    model = SoftmaxRegression(seed=config.seed)
    return fit_and_judge(
        config, model, mnist(config), epochs=EPOCHS, batch_size=128, optimizer="adam", lr=2e-3, warmup=0.0
    )
