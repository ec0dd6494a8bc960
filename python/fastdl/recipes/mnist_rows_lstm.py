"""MNIST read as a sequence of 28 rows by an LSTM.

Task: handwritten digits, a row of 28 pixels a step; the last 5,000 training images are for validation.
Network: an LSTM of 128 units with dropout before the last layer.
Reference: none for this network. Aim: at least 98.8 % on the test part.
"""

import dataclasses

from ..models import RNNClassifier
from ._common import fit_and_judge, mnist

EPOCHS = {"mnist": 12, "mnist-embedded": 20}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    digits = mnist(config)
    rows = dataclasses.replace(digits, x_train=digits.x_train[..., 0], x_test=digits.x_test[..., 0])
    model = RNNClassifier(128, dropout=0.2, seed=config.seed)
    return fit_and_judge(config, model, rows, epochs=EPOCHS, warmup=0.1, batch_size=64, lr=3e-3, weight_decay=1e-4,
                         optimizer="adamw", clip=1.0)  # fmt: skip
