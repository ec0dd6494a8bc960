"""MNIST digits with few labels: pre-trained on all images, beside random weights.

Task: 28x28 grey images, of which 10, 30 or 100 a class have labels; all training images may be looked at. Network:
784-500-500-10; machines by contrastive divergence on all images, then backpropagation on the labelled ones.

Reference: with 10 labels a class 13.5 % errors after contractive pre-training and 25.8 % for a plain network in Rifai,
Dauphin, Vincent, Bengio & Muller, "The manifold tangent classifier" (2011).
"""

import numpy as np

from .. import data, get_num_threads
from ..models import DBN
from ..random import Stream, permutation
from ._common import Report, mnist

EPOCHS = {"mnist": 10, "mnist-embedded": 20}
LABELS = (10, 30, 100)
STEPS = 600


def some_of_each(y, count, stream):
    """Places of `count` labels of every class, chosen at random."""
    order = permutation(len(y), *stream.take(2 * len(y)))
    return np.concatenate([order[y[order] == c][:count] for c in np.unique(y)])


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    dataset = mnist(config)
    show = config.show or (lambda text: None)
    x, y, x_valid, y_valid = (np.ascontiguousarray(a) for a in data.split_validation(dataset))
    epochs = config.epochs or EPOCHS[dataset.name]
    fresh = lambda: config.place(DBN((500, 500), dropout=0.3, input_dropout=0.1, seed=config.seed))
    model = fresh()
    files = {k: v for k, v in config.lasting("stack").items() if v is not None}
    model.pretrain(x.reshape(len(x), -1), epochs=epochs, momentum=0.5, weight_decay=2e-4, show=show, **files)
    metrics = {}
    show(f"{'labels':>7}  {'random weights':>14}  {'pre-trained':>11}   (validation)")
    for count in LABELS:
        index = some_of_each(y, count, Stream(config.seed).split(f"labels {count}"))
        scores = []
        for name in ("random", "pretrained"):
            net = model if name == "pretrained" else fresh()
            batch = min(100, len(index))
            net.fit(x[index], y[index], epochs=max(1, STEPS * batch // len(index)), batch_size=batch, lr=1e-3)
            metrics[f"{name}_{count}"] = net.score(dataset.x_test, dataset.y_test)
            scores.append(net.score(x_valid, y_valid))
        metrics[f"gain_{count}"] = metrics[f"pretrained_{count}"] - metrics[f"random_{count}"]
        show(f"{10 * count:7d}  {scores[0]:14.4f}  {scores[1]:11.4f}")
    metrics["test_accuracy"] = metrics[f"pretrained_{LABELS[-1]}"]
    settings = {
        "data_set": dataset.name,
        "source": dataset.source.partition(", from ")[0],
        "splits": {"train": len(x), "validation": len(x_valid), "test": len(dataset.x_test)},
        "labels_a_class": list(LABELS), "epochs": epochs, "steps": STEPS, "seed": config.seed,
        "threads": get_num_threads(), "model": repr(model),
    }  # fmt: skip
    return Report(metrics, settings, model, (dataset.x_test, dataset.y_test), dataset.names)
