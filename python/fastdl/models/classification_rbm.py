"""Restricted Boltzmann machines with labels among the visible units: they classify, and draw samples of a class."""

import math

import numpy as np

from .. import backend, init, ops, train
from .._arguments import natural, not_negative, one_of, positive
from ..module import Module, Parameter
from ..random import Stream, uniform
from ..rows import Rows
from ..tensor import Tensor
from ._boltzmann import stream_of
from ._door import array_of
from ._supervised import Classifier

OBJECTIVES = ("discriminative", "generative", "hybrid")


class ClassificationRBM(Classifier):
    """A Boltzmann machine of inputs x, hidden units h and a label y, whose p(y | x) is exact.

        E(y, x, h) = -b x - d_y - c h - x w h - u_y h
        log p(y | x) = s_y - log sum_y' e^(s_y'),   s_y = d_y + sum_j log(1 + e^(c_j + u_yj + sum_i x_i w_ij))

    Parameters
    ----------
    hidden : int
        H.
    objective : {'discriminative', 'generative', 'hybrid'}
        What `fit` makes small: -log p(y | x), with its exact gradient; -log p(x, y), by contrastive divergence; or the first
        plus `weight` times the second, which keeps it from overfitting.
    weight : float
        Of the generative part of 'hybrid'.
    k : int
        Gibbs steps of contrastive divergence.
    seed : int

    Attributes
    ----------
    module_ : Module
        With w [V,H], u [C,H], b [V], c [H], d [C].

    Notes
    -----
    Inputs are values from 0 to 1, read as chances of Bernoulli units.

    References
    ----------
    Larochelle & Bengio, "Classification using discriminative restricted Boltzmann machines" (2008); hybrid training with
    weight 0.01 there.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import ClassificationRBM
    >>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    >>> model = ClassificationRBM(hidden=16).fit(X, y, epochs=500, lr=0.05)
    >>> model.predict(X).tolist()
    [0, 1, 1, 0]
    """

    def __init__(self, hidden=256, objective="hybrid", weight=0.01, k=1, seed=0):
        self.hidden, self.k, self.seed = positive("hidden", hidden), positive("k", k), seed
        self.objective, self.weight = one_of("objective", objective, OBJECTIVES), not_negative("weight", weight)

    def _make(self, input_shape, outputs):
        return _Joint(math.prod(input_shape), self.hidden, outputs, self)

    def _input(self, X, name="X"):
        x = super()._input(X, name)
        a = backend.to_host(x)
        if a.dtype != np.uint8 and a.size:
            low, high = a.min(), a.max()
            if not (low >= 0 and high <= 1):  # NaN is neither
                bad = low if not low >= 0 else high
                raise ValueError(f"{name}: expected values from 0 to 1, for Bernoulli units; got {bad:g}")
        return x

    def _prepare(self, X, y, validation, warm_start):
        fresh = not (warm_start and hasattr(self, "module_"))
        x, codes, held = super()._prepare(X, y, validation, warm_start)
        if fresh:  # biases that give the base rates, as Hinton (2012) recommends
            a = backend.to_host(x).reshape(len(x), -1)
            sums = a.sum(0, dtype=np.float64) / (255 if a.dtype == np.uint8 else 1)
            p = np.clip((sums + 1) / (len(a) + 2), 1e-3, 1 - 1e-3)
            backend.assign(self.module_.b.data, np.log(p / (1 - p)).astype(np.float32))
        return x, codes, held

    def _objective(self, smoothing):
        plain = train.loss_of(super()._objective(smoothing))

        def loss(output, target):
            # Validation is judged by the cross entropy alone.
            return self.module_.objective(plain, output, target) if self.module_.training else plain(output, target)

        return loss

    def free_energy(self, X, y):
        """-log p(x, y) of samples with their labels, up to log Z: float32 [N]."""
        scores = self.decision_function(X)
        x = Rows(self._input(X)).take(np.arange(len(scores)))
        x = backend.to_host(x).reshape(len(scores), math.prod(self.input_shape_))
        b = backend.to_host(self.module_.b.data)
        return -(x @ b) - scores[np.arange(len(scores)), self._codes(y, len(scores))]

    def sample(self, n=1, label=None, steps=1000, seed=0, means=False):
        """Inputs, drawn by `steps` Gibbs steps from random ones; with `label` the label is held fast.

        Parameters
        ----------
        n, steps : int
        label : optional
            One of `classes_`; each in turn, at first, if left out.
        seed : int
        means : bool
            Give the means of the last step instead of its samples.

        Returns
        -------
        x : float32 [n,...]
        y : array [n]
            Labels that go with them.
        """
        self._need_fit()
        n, steps = natural("n", n), natural("steps", steps)
        net, stream = self.module_, stream_of(seed, "sample")
        inputs, classes = net.w.shape[0], net.d.shape[0]
        if label is None:
            codes = np.arange(n) % classes
        else:
            if np.ndim(label):
                raise ValueError(f"label: expected one of {self.classes_.tolist()}; got {label!r}")
            codes = np.full(n, self._codes(array_of([label], "label"), 1, "label"))
        v = np.zeros((n, inputs + classes), np.float32)
        v[np.arange(n), inputs + codes] = 1
        v[:, :inputs] = uniform((n, inputs), 0.0, 1.0, *stream.take(n * inputs)) < 0.5
        v = backend.to_device(v, net.w.data)
        with backend.pooled():
            net.gibbs(v, steps, stream, label is not None, means)
        v = backend.to_host(v)
        return v[:, :inputs].reshape(n, *self.input_shape_).copy(), self.classes_[v[:, inputs:].argmax(1)]


class _Joint(Module):
    """Scores of the classes given inputs; while training it keeps what the generative objective needs."""

    def __init__(self, inputs, hidden, classes, model):
        self.w = Parameter((inputs, hidden), _small)
        self.u = Parameter((classes, hidden), _small)
        self.b = Parameter((inputs,), init.zeros, decay=False)
        self.c = Parameter((hidden,), init.zeros, decay=False)
        self.d = Parameter((classes,), init.zeros, decay=False)
        self.share = {"discriminative": 0.0, "generative": 1.0, "hybrid": model.weight}[model.objective]
        self.discriminative, self.k = model.objective != "generative", model.k
        self.stream, self._kept = Stream(0), None

    def __getstate__(self):
        return self.__dict__ | {"_kept": None}

    def forward(self, x):
        x = ops.flatten(x) if len(x.shape) > 2 else x
        if self.training:
            self._kept = x
        return self.scores(x)

    def scores(self, x):
        """s [N,C], minus the free energy but for b x: every hidden unit under every class at once."""
        n, (classes, hidden) = x.shape[0], self.u.shape
        a = ops.dense(x, self.w, self.c)
        inputs = ops.add(ops.concatenate([a] * classes), ops.reshape(self.u, (classes * hidden,)))
        units = ops.reshape(ops.unary(inputs, "softplus"), (n, classes, hidden))
        return ops.add(ops.sum(units, 2), self.d)

    def objective(self, cross_entropy, scores, target):
        """Of a batch: the cross entropy, and the free energy of samples less that of what Gibbs steps make of them."""
        x, self._kept = self._kept, None
        total = cross_entropy(scores, target) if self.discriminative else None
        if self.share:
            n, inputs = x.shape[0], self.w.shape[0]
            on = self._labels(target, n)
            v = backend.empty((n, inputs + self.d.shape[0]), self.w.data)
            backend.assign(v[:, :inputs], x.data)
            backend.assign(v[:, inputs:], on)
            self.gibbs(v, self.k, self.stream)
            other, label = (backend.empty((n, width), v) for width in (inputs, self.d.shape[0]))
            backend.assign(other, v[:, :inputs])
            backend.assign(label, v[:, inputs:])
            other = Tensor(other)
            gap = ops.subtract(self._energy(x, scores, on), self._energy(other, self.scores(other), label))
            gap = ops.multiply(gap, self.share / n)
            total = gap if total is None else ops.add(total, gap)
        return total

    def _labels(self, target, n):
        """Rows [N,C] with a one for the label."""
        classes = self.d.shape[0]
        each = backend.to_device(np.eye(classes, dtype=np.float32), self.w.data)
        return backend.take(each, target)

    def _energy(self, x, scores, label):
        """Sum over the batch of -b x - s_y."""
        linear = ops.sum(ops.matmul(x, ops.reshape(self.b, (self.b.shape[0], 1))))
        return ops.multiply(ops.add(linear, ops.sum(ops.multiply(scores, Tensor(label)))), -1.0)

    def gibbs(self, v, steps, stream, keep_label=False, means=False):
        """Move states v [N,V+C], inputs and labels side by side, by Gibbs steps."""
        k, n, (inputs, hidden) = backend.kernels(v), len(v), self.w.shape
        classes = self.d.shape[0]
        both = backend.empty((inputs + classes, hidden), v)
        backend.assign(both[:inputs], self.w.data)
        backend.assign(both[inputs:], self.u.data)
        h, x, y = (backend.empty((n, width), v) for width in (hidden, inputs, classes))
        for step in range(steps):
            seed, offset = stream.take(hidden)
            k.gibbs_sample_hidden(v, both, self.c.data, seed=seed, offset=offset, sample=h)
            seed, offset = stream.take(inputs)
            out = {"sample": None, "mean" if means and step == steps - 1 else "sample": x}
            k.gibbs_sample_visible(h, self.w.data, self.b.data, seed=seed, offset=offset, **out)
            backend.assign(v[:, :inputs], x)
            if keep_label:
                continue
            seed, offset = stream.take(classes)
            k.gibbs_sample_visible(
                h, self.u.data, self.d.data, units="softmax", group=classes, seed=seed, offset=offset, sample=y
            )
            backend.assign(v[:, inputs:], y)


def _small(shape, stream, fans=None):
    return init.normal(shape, stream, std=0.01)
