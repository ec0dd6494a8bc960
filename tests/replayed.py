"""Networks, batches and steps for the tests of replayed steps."""

import numpy as np

from fastdl import nn, optim, train

BATCH = 12
IMAGE = (8, 8, 3)

# Layers of every class that says it can be replayed, in networks that begin with this input.
NETWORKS = {
    "Dense": ((6,), lambda: [nn.Dense(7, act) for act in ("relu", "leaky_relu", "sigmoid", "tanh", "gelu")]),
    "Sequential": ((6,), lambda: [nn.Sequential(nn.Dense(5, "tanh"), nn.Sequential(nn.Dense(4)))]),
    "Residual": ((6,), lambda: [nn.Residual(nn.Dense(6, "tanh"), act="relu"), nn.Residual(nn.Dense(4), nn.Dense(4))]),
    "Dropout": ((6,), lambda: [nn.Dropout(0.2), nn.Dense(9, "relu"), nn.Dropout(0.5), nn.Dense(5)]),
    "Embedding": ((5,), lambda: [nn.Embedding(11, 3), nn.Flatten()]),
    "Flatten": (IMAGE, lambda: [nn.Flatten(), nn.Dense(4)]),
    "Reshape": ((12,), lambda: [nn.Dense(24, "tanh"), nn.Reshape(2, 4, 3), nn.Conv2d(2, 1), nn.Flatten()]),
    "TiedDense": ((6,), lambda: tied()),
    "Activation": ((6,), lambda: [nn.Dense(5), nn.Activation("tanh"), nn.Dense(5), nn.Activation("gelu")]),
    "ReLU": ((6,), lambda: [nn.Dense(5), nn.ReLU()]),
    "LeakyReLU": ((6,), lambda: [nn.Dense(5), nn.LeakyReLU(0.2)]),
    "Sigmoid": ((6,), lambda: [nn.Dense(5), nn.Sigmoid()]),
    "Tanh": ((6,), lambda: [nn.Dense(5), nn.Tanh()]),
    "GELU": ((6,), lambda: [nn.Dense(5), nn.GELU()]),
    "Softmax": ((6,), lambda: [nn.Dense(5), nn.Softmax()]),
    "BatchNorm": (IMAGE, lambda: [nn.BatchNorm(), nn.Conv2d(4, 3), nn.BatchNorm(), nn.ReLU(), nn.Flatten()]),
    "LayerNorm": ((6,), lambda: [nn.LayerNorm(), nn.Dense(5, "relu"), nn.LayerNorm()]),
    "MaxPool2d": (IMAGE, lambda: [nn.Conv2d(4, 3, padding="same"), nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.Flatten()]),
    "AvgPool2d": (IMAGE, lambda: [nn.Conv2d(4, 3, "relu"), nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1, False), nn.Flatten()]),
    "GlobalAvgPool2d": (IMAGE, lambda: [nn.Conv2d(4, 3, "relu"), nn.GlobalAvgPool2d()]),
    "Conv1d": ((9, 3), lambda: [nn.Conv1d(4, 3, "gelu"), nn.Conv1d(4, 3, "relu", groups=2), nn.Flatten()]),
    "Conv2d": (IMAGE, lambda: [nn.Conv2d(8, 3, "relu"), nn.Conv2d(8, 3, "gelu", stride=2), nn.Conv2d(4, 1), nn.Flatten()]),
    "ConvTranspose2d": (IMAGE, lambda: [nn.ConvTranspose2d(4, 3, "relu", stride=2), nn.ConvTranspose2d(2, 2), nn.Flatten()]),
}  # fmt: skip


def tied():
    first = nn.Dense(5, "tanh")
    return [first, nn.TiedDense(first, "sigmoid")]


def network(name, dropout_seed=0):
    shape, layers = NETWORKS[name]
    return nn.Sequential(*layers(), nn.Dense(3)).build(shape, dropout_seed, **integers(name)).train()


def integers(name):
    return {"dtype": np.int64} if name == "Embedding" else {}


def batches(name, count=6, size=BATCH):
    rng = np.random.default_rng(1)
    for _ in range(count):
        shape = (size, *NETWORKS[name][0])
        x = rng.integers(0, 11, shape) if name == "Embedding" else rng.standard_normal(shape, np.float32)
        yield x, rng.integers(0, 3, size)


def eager(step):
    """The same step, never recorded."""
    step._streams = lambda x: None
    return step


def state(net):
    return [net.flatten().data.copy(), *(b.copy() for _, b in net.named_buffers())]


def same(a, b):
    return all(np.array_equal(p, q, equal_nan=True) for p, q in zip(a, b, strict=True))


def pair(make=lambda: network("Dense"), loss="softmax_cross_entropy", lr=0.05):
    """Two equal networks and their steps, the second one never recorded."""
    nets = make(), make()
    steps = [train.Step(net, loss, optim.Adam(net, lr=lr)) for net in nets]
    return nets, (steps[0], eager(steps[1]))


def only_replay(step):
    """From now on the step fails where it is not replayed."""

    def first(*_):
        raise AssertionError("expected a replay")

    step._first = first
