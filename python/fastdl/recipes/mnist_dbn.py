"""MNIST digits by a deep belief network, trained without labels, then with them.

Task: 28x28 grey images of handwritten digits, ten classes, no knowledge of their geometry, no augmentation. Network:
784-500-500-2000-10; three machines by contrastive divergence, then backpropagation with dropout. `test_error` is in per cent;
`test_error_before` is that of softmax regression on the last machine's hidden means of 20,000 images, before the weights
were tuned.

Reference: 1.25 % test errors for 784-500-500-2000-10 by up-down fine-tuning in Hinton, Osindero & Teh, "A fast learning
algorithm for deep belief nets" (2006); 1.2 % for backpropagation after such pre-training in Hinton & Salakhutdinov (2006).
"""

import numpy as np

from .. import data
from ..models import DBN, SoftmaxRegression
from ..schedules import cosine
from ._common import fit_and_judge, mnist

EPOCHS = {"mnist": 80, "mnist-embedded": 30}
MACHINE_EPOCHS = {"mnist": 20, "mnist-embedded": 20}
PRETRAIN = {"batch_size": 100, "momentum": 0.5, "weight_decay": 2e-4}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    dataset = mnist(config)
    show = config.show or (lambda text: None)
    x, y, _, _ = data.split_validation(dataset)
    epochs = min(MACHINE_EPOCHS[dataset.name], config.epochs or MACHINE_EPOCHS[dataset.name])
    model = config.place(DBN((500, 500, 2000), dropout=0.5, input_dropout=0.2, seed=config.seed))
    files = {k: v for k, v in config.lasting("stack").items() if v is not None}
    model.pretrain(
        np.ascontiguousarray(x).reshape(len(x), -1), epochs=epochs, lr=0.05, schedule=cosine(), show=show, **PRETRAIN,
        **files,
    )  # fmt: skip
    top = config.place(SoftmaxRegression(seed=config.seed))
    top.fit(model.transform(x[:20000]), y[:20000], epochs=min(10, epochs), batch_size=128, lr=1e-3, schedule=cosine())
    before = top.score(model.transform(dataset.x_test), dataset.y_test)
    report = fit_and_judge(
        config, model, dataset, epochs=EPOCHS, batch_size=128, optimizer="adam", lr=2e-3, warmup=0.05
    )
    report.settings["pretrain"] = {"epochs": epochs, "lr": 0.05, "algorithm": "cd", **PRETRAIN}
    report.metrics["test_error"] = 100.0 * (1.0 - report.metrics["test_accuracy"])
    report.metrics["test_error_before"] = 100.0 * (1.0 - before)
    return report
