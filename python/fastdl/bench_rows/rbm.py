"""Boltzmann machines: passes of training over binary digits, and Gibbs chains of a machine that was trained on them.

Not all do the same work: scikit-learn validates its input; learnergy's `fit` shuffles by a DataLoader, has its gradients from
autograd, and adds up the error and the pseudo-likelihood of each batch.
"""

import functools

import numpy as np

from .. import data
from ..bench import Case, Fact, Row
from ..models import RBM
from ..models._boltzmann import Rule, Trainer, stream_of

HIDDEN, BATCH, SAMPLES = 500, 100, 2000


@functools.cache
def _digits():
    """Binary images of the embedded digits, float32 [SAMPLES,784]."""
    images = data.load("mnist-embedded").x_train
    return (images.reshape(len(images), -1)[:SAMPLES] > 127).astype(np.float32)


@functools.cache
def _trained():
    """A machine after a few passes: as many units are on as in real use."""
    return RBM(HIDDEN).fit(_digits(), epochs=10, lr=0.1)


def _sigmoid(z):
    np.negative(z, z)
    np.exp(z, z)
    z += 1
    return np.reciprocal(z, z)


class _Plain:
    """The machine in NumPy, with in-place updates; `chains` None: contrastive divergence."""

    def __init__(self, persistent, weights=None):
        self.rng = np.random.default_rng(0)
        self.w = self.rng.standard_normal((784, HIDDEN), np.float32) * np.float32(0.01)
        self.b, self.c = np.zeros(784, np.float32), np.zeros(HIDDEN, np.float32)
        if weights is not None:
            self.w, self.b, self.c = weights
        self.h = np.zeros((BATCH, HIDDEN), np.float32) if persistent else None

    def draw(self, p):
        return (self.rng.random(p.shape, np.float32) < p).astype(np.float32)

    def up(self, v):
        a = v @ self.w
        a += self.c
        return _sigmoid(a)

    def down(self, h):
        z = h @ self.w.T
        z += self.b
        return _sigmoid(z)

    def epoch(self, x):
        rate = np.float32(0.05 / BATCH)
        for at in range(0, len(x), BATCH):
            v = x[at : at + BATCH]
            p = self.up(v)
            vm = self.draw(self.down(self.draw(p) if self.h is None else self.h))
            m = self.up(vm)
            if self.h is not None:
                self.h = self.draw(m)
            d = v.T @ p
            d -= vm.T @ m
            d *= rate
            self.w += d
            self.b += rate * (v - vm).sum(0)
            self.c += rate * (p - m).sum(0)

    def chain(self, v, steps):
        for _ in range(steps):
            v = self.draw(self.down(self.draw(self.up(v))))
        return v


def _torch_epoch(x, persistent):
    import torch

    w = torch.randn(784, HIDDEN) * 0.01
    b, c, x = torch.zeros(784), torch.zeros(HIDDEN), torch.from_numpy(x)
    chains = [torch.zeros(BATCH, HIDDEN)] if persistent else None

    def epoch():
        with torch.no_grad():
            for v in x.split(BATCH):
                p = torch.sigmoid(torch.addmm(c, v, w))
                h = torch.bernoulli(p) if chains is None else chains[0]
                vm = torch.bernoulli(torch.sigmoid(torch.addmm(b, h, w.T)))
                m = torch.sigmoid(torch.addmm(c, vm, w))
                if chains is not None:
                    chains[0] = torch.bernoulli(m)
                w.add_(v.T @ p - vm.T @ m, alpha=0.05 / BATCH)
                b.add_((v - vm).sum(0), alpha=0.05 / BATCH)
                c.add_((p - m).sum(0), alpha=0.05 / BATCH)

    return epoch


def _torch_chain(weights, v, steps):
    import torch

    w, b, c = (torch.from_numpy(a) for a in weights)
    v = torch.from_numpy(v)

    def chain():
        x = v
        with torch.no_grad():
            for _ in range(steps):
                h = torch.bernoulli(torch.sigmoid(torch.addmm(c, x, w)))
                x = torch.bernoulli(torch.sigmoid(torch.addmm(b, h, w.T)))
        return x

    return chain


def _epoch(algorithm):
    def setup(peers):
        x, persistent = _digits(), algorithm == "pcd"
        machine = RBM(HIDDEN).build(784).module_
        trainer = Trainer(machine, Rule(algorithm), stream_of(0, "bench"), BATCH)

        def ours():
            for at in range(0, SAMPLES, BATCH):
                trainer.update(x[at : at + BATCH])

        cases = {"fastdl": Case(ours)}
        if "numpy" in peers:
            cases["numpy"] = Case(_Plain(persistent).epoch, (x,))
        if "torch" in peers:
            cases["torch"] = Case(_torch_epoch(x, persistent))
        if "sklearn" in peers and persistent:
            from sklearn.neural_network import BernoulliRBM

            theirs = BernoulliRBM(HIDDEN, learning_rate=0.05, batch_size=BATCH, random_state=0)
            theirs.partial_fit(x[:BATCH])

            def epoch():
                for at in range(0, SAMPLES, BATCH):
                    theirs.partial_fit(x[at : at + BATCH])

            cases["sklearn"] = Case(epoch)
        if "learnergy" in peers and not persistent:
            cases["learnergy"] = _learnergy_epoch(x)
        return cases

    return setup


def _learnergy_epoch(x):
    import torch
    from learnergy.models.bernoulli import RBM as Theirs

    images = torch.from_numpy(x)
    labels = torch.zeros(len(x))  # it leaves them out, but asks for them
    return Case(Theirs(784, HIDDEN, learning_rate=0.05).fit, (torch.utils.data.TensorDataset(images, labels), BATCH, 1))


def _chains(n, steps):
    def setup(peers):
        model = _trained()
        m, v = model.module_, _digits()[:n].copy()
        h, stream = np.zeros((n, HIDDEN), np.float32), stream_of(0, "bench")
        weights = tuple(a.copy() for a in m.arrays)
        cases = {"fastdl": Case(lambda: m.chain(v, h, steps, stream))}
        if "numpy" in peers:
            cases["numpy"] = Case(_Plain(False, weights).chain, (v.copy(), steps))
        if "torch" in peers:
            cases["torch"] = Case(_torch_chain(weights, v.copy(), steps))
        if "sklearn" in peers:
            from sklearn.neural_network import BernoulliRBM

            theirs = BernoulliRBM(HIDDEN, random_state=0)
            theirs.partial_fit(v[:1])
            w, b, c = weights
            theirs.components_, theirs.intercept_visible_, theirs.intercept_hidden_ = w.T.copy(), b, c

            def chain():
                x = v.copy()
                for _ in range(steps):
                    x = theirs.gibbs(x)

            cases["sklearn"] = Case(chain)
        return cases

    return setup


def _activity(_):
    """What share of the units is on in those chains after 100 steps: Gibbs sampling leaves out the others."""
    m, v, stream = _trained().module_, _digits()[:100].copy(), stream_of(0, "bench")
    h = np.zeros((100, HIDDEN), np.float32)
    m.chain(v, h, 100, stream)
    return 100.0 * (v.sum() + h.sum()) / (v.size + h.size)


def rows():
    """Rows of this area."""
    product = 2.0 * 784 * HIDDEN
    return [
        Row("rbm", f"CD-1, {SAMPLES} samples 784-500, batches of 100", _epoch("cd"), flops=5 * product * SAMPLES,
            goals={"torch": 1.15, "numpy": 1.15, "learnergy": 3.0}),
        Row("rbm", f"PCD-1, {SAMPLES} samples 784-500, batches of 100", _epoch("pcd"), flops=5 * product * SAMPLES,
            goals={"sklearn": 1.6}),
        Row("rbm", "Gibbs, 100 chains x 1000 steps, trained 784-500", _chains(100, 1000), flops=2e5 * product,
            goals={"numpy": 2.0, "torch": 3.0}),
        Row("rbm", "Gibbs, 1 chain x 1000 steps, trained 784-500", _chains(1, 1000), flops=2e3 * product,
            goals={"numpy": 2.3, "torch": 3.0}),
        Fact("rbm", "Gibbs, units that are on", _activity, "%"),
    ]  # fmt: skip
