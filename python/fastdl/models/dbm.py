"""Deep Boltzmann machines of two hidden layers: both infer together, from below and from above."""

import math

import numpy as np

from .. import backend
from .._arguments import number, positive, sizes
from .._interrupts import unless_begun
from ..module import shape_of
from ..rows import Rows
from ._base import Model, Transformer
from ._boltzmann import Annealing
from .rbm import RBM


class DBM(Transformer, Model):
    """A Boltzmann machine of a visible and two hidden layers of Bernoulli units.

        E(v, h1, h2) = -b v - c1 h1 - c2 h2 - v w1 h1 - h1 w2 h2

    Given h1, v and h2 are independent: a machine of two layers, [v h2] and h1, of which h2 is never seen. Its chains, its
    partition function and its gradient are those of an `RBM`; what comes to it is that h2 is inferred for each sample, by mean
    field, before an update.

    Parameters
    ----------
    hidden : (int, int)
        H1, H2.
    mean_field : int
        Passes of the inference of h1 and h2.
    seed : int

    Attributes
    ----------
    joint_ : RBM
        The machine over [v h2] and h1, with its chains.
    history_ : dict
        As of `RBM`; the error is that of v and the inferred h2.

    References
    ----------
    Salakhutdinov & Hinton, "Deep Boltzmann machines" (2009); Montavon & Müller, "Deep Boltzmann machines and the centering trick"
    (2012), for training without a greedy start.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import DBM
    >>> X = np.tile([[1, 1, 0, 0], [0, 0, 1, 1]], (50, 1))
    >>> dbm = DBM(hidden=(4, 3)).fit(X, epochs=20, batch_size=10, lr=0.1)
    >>> dbm.transform(X).shape
    (100, 3)
    """

    _fitted = ("joint_", "input_shape_")

    def __init__(self, hidden=(500, 1000), mean_field=10, seed=0):
        self.hidden, self.mean_field, self.seed = sizes("hidden", hidden), positive("mean_field", mean_field), seed
        if len(self.hidden) != 2:
            raise ValueError(f"hidden: expected two layers; got {hidden!r}")

    # The network of a Model is that of the joint machine.
    @property
    def module_(self):
        """The joint machine's arrays: w = [w1; w2^T] as [V + H2,H1], b = [b c2], c = c1."""
        return self.joint_.module_

    @unless_begun
    def build(self, input_shape):
        """Make the machine with small random weights; returns the model itself."""
        observed = math.prod(shape_of(input_shape))
        if observed < 1:
            raise ValueError("X: expected one column or more; got none")
        self.input_shape_ = (observed,)
        self.joint_ = _Joint(self.hidden[0], seed=self.seed)
        self.joint_.observed, self.joint_.passes = observed, self.mean_field
        self.joint_.to(self._device)
        self.joint_.build(observed + self.hidden[1])
        return self

    def _build_from(self, config):
        return self.build(tuple(config["input_shape"]))

    @unless_begun
    def fit(self, X, y=None, *, epochs=10, k=5, lr=0.02, centre=True, warm_start=False, checkpoint=None, resume=None,
            **options):  # fmt: skip
        """Learn the distribution of samples by persistent chains.

        Parameters
        ----------
        X : array [N,...]
            Values from 0 to 1; uint8 is read so.
        y : ignored
        epochs, k : int
            k: Gibbs steps an update.
        lr : float
        centre : bool
            Use the gradient of the centred machine.
        warm_start, checkpoint, resume, **options
            As in `RBM.fit`: batch_size, schedule, momentum, weight_decay, stochastic, callbacks, ...

        Returns
        -------
        The model itself.
        """
        x = self._begin(X, warm_start)
        if not hasattr(self, "joint_"):
            self.build(x.shape[1:])
            fresh = True
        else:
            fresh = False
        wide = np.zeros((len(x), x.shape[1] + self.hidden[1]), x.dtype)  # room for h2
        wide[:, : x.shape[1]] = backend.to_host(x)
        if fresh:
            self.joint_._first(self.joint_._values(wide))
        self.joint_.fit(
            wide, epochs=epochs, k=k, lr=lr, centre=centre, warm_start=True, checkpoint=self._checkpoint(checkpoint, resume),
            resume=resume, **options
        )
        self.history_ = self.joint_.history_
        return self

    def _inferred(self, X):
        """[v h2] and h1 of samples: values and means, arrays on the machine's device."""
        self._need_fit()
        x = self._input(X)
        a = backend.to_host(x)
        if a.dtype != np.uint8 and a.size and not (a.min() >= 0 and a.max() <= 1):
            worst = a.min() if a.min() < 0 else a.max()
            raise ValueError(f"X: expected values from 0 to 1, for Bernoulli units; got {worst:g}")
        v = Rows(x, "X", self.module_.w.data).take(np.arange(len(x)))
        wide = backend.empty((len(x), self.module_.sizes[0]), v)
        backend.assign(wide[:, : v.shape[1]], v)
        both = self.joint_._complete(wide)
        return both, self.module_.hidden(both)

    def transform(self, X, layer=2):
        """Means of the units of a hidden layer, by mean field, float32 [N,H]."""
        if layer not in (1, 2):
            raise ValueError(f"layer: expected 1 or 2; got {layer!r}")
        both, h1 = self._inferred(X)
        return backend.to_host(h1) if layer == 1 else backend.to_host(both)[:, self.input_shape_[0] :].copy()

    def reconstruct(self, X):
        """Means of the visible units given the inferred h1, float32 [N,V]."""
        _, h1 = self._inferred(X)
        return backend.to_host(self.module_.visible(h1))[:, : self.input_shape_[0]].copy()

    def sample(self, n=1, steps=1000, seed=0, means=False):
        """Samples of the visible units after `steps` Gibbs steps; as `RBM.sample`. float32 [n,V]."""
        self._need_fit()
        return self.joint_.sample(n, steps, seed, means=means)[:, : self.input_shape_[0]].copy()

    def log_z(self):
        """The logarithm of the partition function, exact, where the first hidden layer has at most 22 units."""
        self._need_fit()
        return self.joint_.log_z()

    def anneal(self, chains=100, temperatures=10000, seed=0, reverse_steps=1000) -> Annealing:
        """Estimate the partition function; as `RBM.anneal`."""
        self._need_fit()
        return self.joint_.anneal(chains, temperatures, seed, reverse_steps)

    def lower_bound(self, X, log_z):
        """A lower bound of each sample's log-probability in nats, float64 [N], with the log_z of `log_z` or `anneal`.

            log p(v) >= b v + c1 m1 + c2 m2 + v w1 m1 + m1 w2 m2 + H(m1) + H(m2) - log Z,   m the mean-field means
        """
        number("log_z", log_z)
        both, h1 = self._inferred(X)
        w, b, c = (backend.to_host(a).astype(np.float64) for a in self.module_.arrays)
        x, m = (backend.to_host(a).astype(np.float64) for a in (both, h1))
        m2 = x[:, self.input_shape_[0] :]
        return x @ b + m @ c + ((x @ w) * m).sum(1) + _entropy(m) + _entropy(m2) - float(log_z)

    def summary(self):
        """A few words on layers and parameters."""
        self._need_fit()
        layers = f"{self.input_shape_[0]} visible units, {self.hidden[0]} and {self.hidden[1]} hidden units"
        return f"{self!r}\n{layers}, {self.module_.count():,} parameters"


class _Joint(RBM):
    """Visible units of which only the first `observed` have data."""

    observed = passes = 0
    _called = "DBM"

    def _checkpoint(self, checkpoint, resume=None):
        return checkpoint  # the DBM's, which has looked at it

    def _first(self, x):
        super()._first(x)
        m = self.module_
        for a in (m.b.data, m.base):
            mine = backend.to_host(a).copy()
            mine[self.observed :] = 0
            backend.assign(a, mine)

    def _complete(self, v):
        """v with the other units at their mean-field means, from 1/2."""
        m, seen = self.module_, self.observed
        x = backend.empty(v.shape, v)
        backend.assign(x, v)
        backend.assign(x[:, seen:], backend.full((len(v), v.shape[1] - seen), v, 0.5))
        for _ in range(self.passes):
            backend.assign(x[:, seen:], m.visible(m.hidden(x))[:, seen:])
        return x


def _entropy(m):
    """Of independent Bernoulli units with means m, summed over each row, in nats."""
    m = np.clip(m, 1e-12, 1 - 1e-12)
    return -(m * np.log(m) + (1 - m) * np.log1p(-m)).sum(1)
