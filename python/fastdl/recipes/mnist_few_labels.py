"""MNIST digits with few labels: pre-trained on all images, beside random weights, three times each.

Task: 28x28 grey images, of which 10, 100 or 1,000 a class have labels; all training images may be looked at. Network:
784-500-500-10; machines by contrastive divergence on all images, then backpropagation on the labelled ones.

Both kinds get the same search, for each number of labels and each of three seeds: six trials of initial weights, dropout and
learning rate, each judged on the validation images after a third, two thirds and all of its updates; the best of the 18 is
scored on the test images. `gain_100` is the mean difference of test accuracies at 100 labels, `gain_sd_100` its standard
deviation over the seeds.

Reference: with 10 labels a class 13.5 % errors after contractive pre-training and 25.8 % for a plain network in Rifai,
Dauphin, Vincent, Bengio & Muller, "The manifold tangent classifier" (2011).
"""

import numpy as np

from .. import backend, data, get_num_threads, nn
from ..models import DBN
from ..random import Stream, permutation
from ._common import Report, mnist

EPOCHS = {"mnist": 10, "mnist-embedded": 20}
LABELS = (10, 100, 1000)
STEPS, SEEDS, HIDDEN = 600, 3, (500, 500)
# "wide": four times Glorot's weights, as he advises for sigmoids; "first": the upper layer begins at random.
STARTS = {"random": ("glorot", "wide"), "pretrained": ("all", "first")}
TRIALS = ((0.0, 1e-3), (0.3, 1e-3), (0.5, 3e-4))  # dropout (of the inputs half as much), learning rate


def some_of_each(y, count, stream):
    """Places of `count` labels of every class, chosen at random."""
    order = permutation(len(y), *stream.take(2 * len(y)))
    return np.concatenate([order[y[order] == c][:count] for c in np.unique(y)])


def network(config, stack, start, dropout, seed, images, classes):
    """A classifier with the initial weights that are asked for."""
    net = DBN(HIDDEN, dropout=dropout, input_dropout=dropout / 2, seed=seed).build((images[0].size,), classes)
    layers = [m for _, m in net.module_.named_modules() if isinstance(m, nn.Dense)][: len(HIDDEN)]
    if start == "wide":
        for layer in layers:
            backend.assign(layer.w.data, 4 * layer.w.data)
    if start in ("all", "first"):
        for layer, rbm in zip(layers[: 1 if start == "first" else None], stack, strict=False):
            weights = rbm.get_weights()
            backend.assign(layer.w.data, weights["w"])
            backend.assign(layer.b.data, weights["c"])
    return config.place(net)


def search(config, kind, stack, seed, images, labels, valid, steps):
    """The best of all trials by validation: (accuracy there, settings, network)."""
    best = (-1.0, None, None)
    batch = min(100, len(images))
    for start in STARTS[kind]:
        for dropout, lr in TRIALS:
            net = network(config, stack, start, dropout, seed, images, np.unique(labels))
            for third in (1, 2, 3):
                net.fit(
                    images, labels, epochs=max(1, steps * batch // (3 * len(images))), batch_size=batch, lr=lr, warm_start=True
                )
                accuracy = net.score(*valid)
                if accuracy > best[0]:
                    kept = net.get_weights()
                    best = accuracy, {"start": start, "dropout": dropout, "lr": lr, "thirds": third}, (net, kept)
    net, kept = best[2]
    return *best[:2], net.set_weights(kept)


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    dataset = mnist(config)
    show = config.show or (lambda text: None)
    x, y, x_valid, y_valid = (np.ascontiguousarray(a) for a in data.split_validation(dataset))
    epochs = config.epochs or EPOCHS[dataset.name]
    counts = [c for c in LABELS if c <= np.bincount(y).min()]
    found, chosen = {}, {}
    for seed in range(config.seed, config.seed + SEEDS):
        model = config.place(DBN(HIDDEN, seed=seed))
        files = {k: v for k, v in config.lasting(f"stack{seed - config.seed}").items() if v is not None}
        model.pretrain(x.reshape(len(x), -1), epochs=epochs, momentum=0.5, weight_decay=2e-4, show=show, **files)
        show(f"{'labels':>7}  {'random weights':>14}  {'pre-trained':>11}   (validation, seed {seed})")
        for count in counts:
            index = some_of_each(y, count, Stream(seed).split(f"labels {count}"))
            steps, shown = round(STEPS * (count / LABELS[0]) ** 0.4), []
            for kind in STARTS:
                result = search(config, kind, model.stack_, seed, x[index], y[index], (x_valid, y_valid), steps)
                accuracy, settings, net = result
                found.setdefault((kind, count), []).append(net.score(dataset.x_test, dataset.y_test))
                chosen[f"{kind}_{10 * count}_seed{seed}"] = settings
                shown.append(accuracy)
            show(f"{10 * count:7d}  {shown[0]:14.4f}  {shown[1]:11.4f}")
    metrics = {}
    for count in counts:
        random, pretrained = (np.array(found[kind, count]) for kind in STARTS)
        gain, labels = pretrained - random, 10 * count
        metrics |= {f"random_{labels}": float(random.mean()), f"pretrained_{labels}": float(pretrained.mean())}
        metrics |= {f"gain_{labels}": float(gain.mean()), f"gain_sd_{labels}": float(gain.std(ddof=1)) if SEEDS > 1 else 0.0}
    metrics["test_accuracy"] = metrics[f"pretrained_{10 * counts[-1]}"]
    settings = {
        "data_set": dataset.name,
        "source": dataset.source.partition(", from ")[0],
        "splits": {"train": len(x), "validation": len(x_valid), "test": len(dataset.x_test)},
        "labels_a_class": counts, "epochs": epochs, "steps": STEPS, "seed": config.seed, "seeds": SEEDS,
        "threads": get_num_threads(), "trials": [list(t) for t in TRIALS], "chosen": chosen, "model": repr(net),
    }  # fmt: skip
    return Report(metrics, settings, net, (dataset.x_test, dataset.y_test), dataset.names)
