"""MNIST read as a sequence of 28 rows by an LSTM.

Task: handwritten digits, a row of 28 pixels a step; the last 5,000 training images are for validation. With ``--pixels`` a pixel
a step, 784 of them; with ``--permuted`` the same in an order drawn once, alike for every run. Those two are run for one epoch:
what counts is how much is learned in what time.
Network: an LSTM of 128 units with dropout before the last layer (pixels: without). What the first pixels say has to last for
hundreds of steps of background: so --pixels begins with chrono biases (Tallec & Ollivier 2018). Without them one epoch teaches
nothing; permuted, where every stretch of steps sees the whole picture, they hinder.
Reference: for rows none; aim: at least 98.8 % on the test part. For pixels 87.2 %, permuted 85.7 %, in Bai, Kolter & Koltun,
"An empirical evaluation of generic convolutional and recurrent networks for sequence modeling" (2018), table 1: an LSTM of
130 units after many epochs.
"""

import dataclasses

import numpy as np

from .. import random
from ..models import RNNClassifier
from ._common import fit_and_judge, mnist

EPOCHS = {"mnist": 12, "mnist-embedded": 20}
VARIANTS = ("pixels", "permuted")


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    digits, options = mnist(config), {"batch_size": 64, "optimizer": "adamw", "lr": 3e-3, "weight_decay": 1e-4, "clip": 1.0}
    x_train, x_test = digits.x_train[..., 0], digits.x_test[..., 0]
    if config.variant is None:
        rows = dataclasses.replace(digits, x_train=x_train, x_test=x_test)
        model = RNNClassifier(128, dropout=0.2, seed=config.seed)
        return fit_and_judge(config, model, rows, epochs=EPOCHS, warmup=0.1, **options)
    pixels = tuple(x.reshape(len(x), -1) for x in (x_train, x_test))
    if config.variant == "permuted":
        order = random.permutation(pixels[0].shape[1], seed=0)
        pixels = tuple(np.ascontiguousarray(x[:, order]) for x in pixels)
    steps = dataclasses.replace(digits, x_train=pixels[0], x_test=pixels[1])
    model = RNNClassifier(128, seed=config.seed)
    if config.variant == "pixels":
        model = RNNClassifier(128, chrono=pixels[0].shape[1], seed=config.seed)
        options["lr"] = 1e-2  # permuted, and without chrono biases, training does not survive it
    report = fit_and_judge(config, model, steps, epochs=1, warmup=0.1, **options)
    report.settings["variant"] = config.variant
    report.metrics["seconds_an_epoch"] = report.model.history_["seconds"][-1]
    return report
