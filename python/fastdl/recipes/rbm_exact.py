"""Annealed importance sampling beside an exact partition function.

Task: how good the estimate of log Z is that larger machines are judged by. Network: 784-15 on binary MNIST digits, persistent
contrastive divergence; the exact log Z adds up all 2^15 states of the hidden layer.

Reference: for 20 hidden units Salakhutdinov & Murray, "On the quantitative analysis of deep belief networks" (2008), found
estimates within 0.1 nat of the exact value, with 100 chains.
"""

import numpy as np

from .. import data, get_num_threads
from ..models import RBM
from ..schedules import cosine
from ._common import Report, Table, mnist
from .mnist_rbm import CHAINS, TEMPERATURES, binary, draw

EPOCHS = {"mnist": 5, "mnist-embedded": 30}


def run(config):
    """Train and compare; see `fastdl.recipes`."""
    dataset = mnist(config)
    x, _, _, _ = data.split_validation(dataset)
    epochs = config.epochs or EPOCHS[dataset.name]
    model = config.place(RBM(15, seed=config.seed))
    options = {"algorithm": "pcd", "lr": 0.05, "batch_size": 100, "stochastic": True}
    model.fit(
        np.ascontiguousarray(x).reshape(len(x), -1), epochs=epochs, schedule=cosine(),
        callbacks=[Table(config.show)] if config.show else [], **options, **config.lasting(),
    )  # fmt: skip
    exact, z = model.log_z(), model.anneal(CHAINS, TEMPERATURES, config.seed)
    test = binary(dataset.x_test)
    metrics = {
        "log_z_ais": z.log_z, "log_z_exact": exact, "log_z_err": z.error, "log_z_upper": z.reverse,
        "test_ll": float(model.log_likelihood(test, exact).mean()),
    }  # fmt: skip
    settings = {
        "data_set": dataset.name,
        "source": dataset.source.partition(", from ")[0],
        "splits": {"train": len(x), "test": len(test)},
        "epochs": epochs, "seed": config.seed, "threads": get_num_threads(), "model": repr(model), **options,
        "schedule": "half a cosine to 0", "chains": CHAINS, "temperatures": TEMPERATURES,
    }  # fmt: skip
    return Report(metrics, settings, model, draw=lambda path: draw(model, test, path))
