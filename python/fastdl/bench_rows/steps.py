"""Whole training steps and a prediction: forward, loss, backward, update, on a batch that lies ready."""

from itertools import pairwise

import numpy as np

from .. import nn, ops, optim, pooled, train
from ..bench import Case, Fact, Row
from ..models import CNN
from ..replay import Step
from . import compiled, dcgan, plain
from .conv import _Shape


def _array(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# ----------------------------------------------------------------------------------------------- perceptrons


class _Mlp:
    """Layer widths, batch, loss and optimiser of one network, and its training step in every library."""

    def __init__(self, widths, batch, update="adam", loss="cross_entropy", tanh=False):
        self.widths, self.batch, self.update, self.loss, self.tanh = widths, batch, update, loss, tanh
        self.flops = 6.0 * batch * sum(i * o for i, o in pairwise(widths)) - 2.0 * batch * (
            widths[0] * widths[1]  # nobody computes the gradient of the input
        )

    def data(self):
        """A batch: x, and labels or targets."""
        x = np.random.default_rng(0).random((self.batch, self.widths[0]), np.float32)
        if self.loss == "cross_entropy":
            return x, np.random.default_rng(1).integers(0, self.widths[-1], self.batch)
        if self.loss == "squared_error":
            return x, x
        return x, (np.random.default_rng(1).random((self.batch, self.widths[-1])) < 0.5).astype(np.float32)

    def ours(self):
        """One step with fastdl's layers."""
        act = "tanh" if self.tanh else "relu"
        net = nn.Sequential(*(nn.Dense(o, act) for o in self.widths[1:-1]), nn.Dense(self.widths[-1]))
        net.build((self.widths[0],), seed=0).train()
        update = optim.get(self.update, net, lr=1e-3)
        loss_of = {
            "cross_entropy": ops.softmax_cross_entropy,
            "squared_error": ops.mse,
            "binary": ops.binary_cross_entropy,
        }[self.loss]
        x, target = self.data()
        return _step(net, loss_of, update, x, target)

    def numpy(self):
        """The same by hand."""
        weights = []
        for i, o in pairwise(self.widths):
            weights += [_array(i, i, o) * np.float32(i**-0.5), np.zeros(o, np.float32)]
        update = plain.Adam(weights) if self.update == "adam" else plain.SGD(weights)
        loss = {
            "cross_entropy": plain.softmax_cross_entropy,
            "squared_error": plain.squared_error,
            "binary": plain.binary_cross_entropy,
        }[self.loss]
        x, target = self.data()
        return Case(plain.mlp_step, (weights, x, target, loss, update, self.tanh))

    def torch(self, fused):
        """The same in PyTorch."""
        import torch

        layers = []
        for i, o in pairwise(self.widths):
            layers += [torch.nn.Linear(i, o), torch.nn.Tanh() if self.tanh else torch.nn.ReLU()]
        return _torch_step(torch.nn.Sequential(*layers[:-1]), *self.data(), self.loss, self.update, fused)

    def jax(self):
        """The same in JAX."""
        import jax.numpy as jnp

        weights = []
        for i, o in pairwise(self.widths):
            weights += [_array(i, i, o) * np.float32(i**-0.5), np.zeros(o, np.float32)]

        def loss_of(weights, x, target):
            for i in range(0, len(weights), 2):
                x = x @ weights[i] + weights[i + 1]
                if i + 2 < len(weights):
                    x = jnp.tanh(x) if self.tanh else jnp.maximum(x, 0)
            if self.loss == "cross_entropy":
                return compiled.cross_entropy(x, target)
            if self.loss == "squared_error":
                return jnp.mean((x - target) ** 2)
            return jnp.mean(jnp.maximum(x, 0) - x * target + jnp.log1p(jnp.exp(-jnp.abs(x))))

        update = compiled.sgd(1e-3) if self.update == "sgd" else compiled.adam(1e-3)
        return Case(compiled.training_step(loss_of, weights, update), tuple(jnp.asarray(a) for a in self.data()))

    def sklearn(self):
        """The same in scikit-learn."""
        import sklearn.neural_network as networks

        kind = networks.MLPRegressor if self.loss == "squared_error" else networks.MLPClassifier
        model = kind(
            hidden_layer_sizes=self.widths[1:-1],
            activation="tanh" if self.tanh else "relu",
            solver=self.update,
            batch_size=self.batch,
            alpha=0.0,
        )
        x, target = self.data()
        if self.loss == "squared_error":
            return Case(model.partial_fit, (x, target))
        target = target.reshape(-1).astype(np.int64)
        classes = np.arange(max(2, self.widths[-1]))
        model.partial_fit(x, target, classes=classes)
        return Case(model.partial_fit, (x, target))

    def setup(self, peers):
        """All contestants."""
        cases = {"fastdl": self.ours()}
        if "numpy" in peers:
            cases["numpy"] = self.numpy()
        if "torch" in peers:
            cases |= {"torch": self.torch(False), "torch-fused": self.torch(True)}
        if "jax" in peers:
            cases["jax"] = self.jax()
        if "sklearn" in peers:
            cases["sklearn"] = self.sklearn()
        return cases

    def setup_predict(self, peers):
        """Classes of one batch."""
        x, _ = self.data()
        layers = (*(nn.Dense(o, "relu") for o in self.widths[1:-1]), nn.Dense(self.widths[-1]))
        net = nn.Sequential(*layers).build((self.widths[0],), seed=0).eval()

        def ours():
            return train.predict(net, x).argmax(1)

        cases = {"fastdl": Case(ours)}
        if "numpy" in peers:
            weights = self.numpy().args[0]
            cases["numpy"] = Case(plain.mlp_predict, (weights, x))
        if "torch" in peers:
            import torch

            model, tx = torch.nn.Sequential(), torch.from_numpy(x)
            for i, o in pairwise(self.widths):
                model.append(torch.nn.Linear(i, o)).append(torch.nn.ReLU())
            model = model[:-1].eval()

            def theirs():
                with torch.inference_mode():
                    return model(tx).argmax(1)

            cases["torch"] = Case(theirs)
        return cases


def _step(net, loss_of, update, x, target):
    """Our training step, as `fastdl.train.fit` makes it."""
    return Case(Step(net, loss_of, update), (x, target))


def _torch_step(model, x, target, loss, update, fused, layout=None):
    import torch

    x, target = torch.from_numpy(x), torch.from_numpy(target)
    if layout is not None:
        model, x = model.to(memory_format=layout), x.to(memory_format=layout)
    kind = torch.optim.Adam if update == "adam" else torch.optim.SGD
    optimiser = kind(model.parameters(), lr=1e-3, fused=fused)
    functional = torch.nn.functional
    loss_of = {
        "cross_entropy": functional.cross_entropy,
        "squared_error": functional.mse_loss,
        "binary": functional.binary_cross_entropy_with_logits,
    }[loss]

    def step():
        optimiser.zero_grad()
        value = loss_of(model(x), target)
        value.backward()
        optimiser.step()
        return value

    return Case(step)


# ------------------------------------------------------------------------------------------- convolutional networks


def _mnist_cnn(classes):
    """32 filters 3x3, 64 filters 3x3, pooling, 128 units."""
    return nn.Sequential(
        nn.Conv2d(32, 3, "relu"),
        nn.Conv2d(64, 3, "relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dense(128, "relu"),
        nn.Dense(classes),
    )


def _ours_cnn(architecture, update, batch):
    net = CNN(architecture, seed=0).build((28, 28, 1), 10).module_.train()
    x = np.random.default_rng(0).random((batch, 28, 28, 1), np.float32)
    labels = np.random.default_rng(1).integers(0, 10, batch)
    return _step(net, ops.softmax_cross_entropy, optim.get(update, net, lr=1e-3), x, labels)


def _cnn(architecture, update, batch=64):
    def setup(peers):
        cases = {"fastdl": _ours_cnn(architecture, update, batch)}
        x = np.random.default_rng(0).random((batch, 28, 28, 1), np.float32)
        labels = np.random.default_rng(1).integers(0, 10, batch)
        lenet = architecture == "lenet5"
        if "torch" in peers:
            import torch

            t = torch.nn

            def model():
                torch.manual_seed(0)
                if lenet:
                    return t.Sequential(
                        t.Conv2d(1, 6, 5, padding=2), t.ReLU(), t.MaxPool2d(2),
                        t.Conv2d(6, 16, 5), t.ReLU(), t.MaxPool2d(2), t.Flatten(),
                        t.Linear(400, 120), t.ReLU(), t.Linear(120, 84), t.ReLU(), t.Linear(84, 10),
                    )  # fmt: skip
                return t.Sequential(
                    t.Conv2d(1, 32, 3), t.ReLU(), t.Conv2d(32, 64, 3), t.ReLU(), t.MaxPool2d(2),
                    t.Flatten(), t.Linear(9216, 128), t.ReLU(), t.Linear(128, 10),
                )  # fmt: skip

            image = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
            for name, fused, layout in (
                ("torch", False, None),
                ("torch-fused", True, None),
                ("torch-channels-last", True, torch.channels_last),
            ):
                cases[name] = _torch_step(model(), image, labels, "cross_entropy", update, fused, layout)
        if "numpy" in peers:
            layers = _numpy_cnn(lenet, batch)
            weights = [w for layer in layers for w in layer.parameters]
            step = plain.Adam(weights) if update == "adam" else plain.SGD(weights)
            cases["numpy"] = Case(plain.net_step, (layers, x, labels, step))
        return cases

    return setup


def _numpy_cnn(lenet, n):
    def conv(c, y, f, r, pad=0):
        w = _array(c, r, r, c, f) * np.float32((r * r * c) ** -0.5)
        return plain.ConvRelu(_Shape(n, c, y, f, r, 1, pad), w, np.zeros(f, np.float32))

    def dense(i, o, relu=True):
        return plain.Dense(_array(i, i, o) * np.float32(i**-0.5), np.zeros(o, np.float32), relu)

    if lenet:
        head = [dense(400, 120), dense(120, 84), dense(84, 10, False)]
        return [conv(1, 28, 6, 5, 2), plain.Pool(), conv(6, 14, 16, 5), plain.Pool(), *head]
    return [conv(1, 28, 32, 3), conv(32, 26, 64, 3), plain.Pool(), dense(9216, 128), dense(128, 10, False)]


def _faults(make):
    """Page faults of a steady step: the fewest of three runs of twenty, so that the interpreter's own do not count."""

    def measure(threads):
        import resource

        case, runs = make(), []
        with pooled():
            for _ in range(5):
                case.call(*case.args)
            for _ in range(3):
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                for _ in range(20):
                    case.call(*case.args)
                runs.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
        return min(runs)

    return measure


def rows():
    """Rows of this area."""
    wide = _Mlp((784, 512, 512, 10), 128)
    mlps = {
        "MLP 2-16-1 (XOR) B4 SGD": (_Mlp((2, 16, 1), 4, "sgd", "binary", True), {"numpy": 8.0, "torch": 60.0}),
        "MLP 784-128-10 B64 SGD": (_Mlp((784, 128, 10), 64, "sgd"), {"torch": 3.0, "numpy": 1.4}),
        "MLP 784-128-10 B64 Adam": (_Mlp((784, 128, 10), 64), {"torch": 3.0, "numpy": 1.4}),
        "MLP 784-512-512-10 B128 Adam": (wide, {"torch": 2.0, "jax": 1.25}),
        "MLP of 1000 layers of 64 units B32 SGD": (_Mlp((64,) * 1001, 32, "sgd"), {"torch": 8.0, "jax": 2.0}),
        "autoencoder 784-256-64-256-784 B128": (_Mlp((784, 256, 64, 256, 784), 128, "adam", "squared_error"), {}),
    }
    result = [Row("steps", name, m.setup, m.flops, 0.0, goals) for name, (m, goals) in mlps.items()]
    one = _Mlp((784, 128, 10), 1)
    result.append(Row("steps", "predict MLP 784-128-10 B1", one.setup_predict, goals={"torch": 5.0, "numpy": 1.7}))
    # forward, and both gradients but for the image's, which nobody computes
    lenet = 64.0 * (4 * 117_600 + 6 * (240_000 + 48_000 + 10_080 + 840))
    result.append(Row("steps", "LeNet-5 B64 SGD", _cnn("lenet5", "sgd"), lenet, 0.0, {"torch": 3.0}))
    flops = 64.0 * (4 * 194_688 + 6 * (10_616_832 + 1_179_648 + 1_280))
    name = "MNIST CNN 32c3-64c3-p-128-10 B64 Adam"
    result.append(Row("steps", name, _cnn(_mnist_cnn, "adam"), flops, 0.0, {"torch": 1.7}))
    result.append(dcgan.row())
    result.append(Fact("steps", "page faults, MLP 784-512-512-10 step", _faults(wide.ours), "a step", 0.0, ()))
    result.append(
        Fact(
            "steps",
            "page faults, MNIST CNN step",
            _faults(lambda: _ours_cnn(_mnist_cnn, "adam", 64)),
            "a step",
            0.0,
            (),
        )
    )
    return result
