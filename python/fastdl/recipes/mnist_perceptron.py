"""MNIST digits by the averaged perceptron: learning from mistakes only.

Task: 28x28 grey images of handwritten digits, ten classes. Network: 784-10 without a loss function; the weights are the
average over all samples seen (Freund & Schapire 1999).

Reference: 88.0 % for a linear classifier (one layer, squared error) in LeCun, Bottou, Bengio & Haffner, "Gradient-based
learning applied to document recognition" (1998), table of results.
"""

from ..models import Perceptron
from ._common import fit_and_judge, mnist

EPOCHS = {"mnist": 10, "mnist-embedded": 10}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    config.needs_cpu("mnist-perceptron", "learns from one sample at a time")
    return fit_and_judge(config, Perceptron(average=True, seed=config.seed), mnist(config), epochs=EPOCHS)
