"""How good generated samples are, judged without downloads: by a classifier of one's own and by distances.

    judge = CNN("lenet5").fit(X, y)
    frechet_distance(features(judge, samples), features(judge, X_test))

All take images or rows, uint8 (read as values in [0,1]) or real numbers, and compute in float64 unless it says otherwise.
"""

import copy
import math

import numpy as np

from . import backend, train
from ._arguments import natural, number, positive, reals
from .random import Stream, normal, permutation, uniform
from .rows import Rows

__all__ = [
    "GaussianMixture",
    "class_shares",
    "features",
    "frechet_distance",
    "nearest_distances",
    "parzen_log_likelihood",
    "share_of_copies",
]


def _rows(x, name):
    from .models._door import as_input

    a = as_input(x, name)
    if len(a) == 0:
        raise ValueError(f"{name}: expected one sample or more; got none")
    a = Rows(a).take(np.arange(len(a)))
    a = backend.to_host(a).reshape(len(a), -1)
    if not (a.size == 0 or (math.isfinite(a.min()) and math.isfinite(a.max()))):
        raise ValueError(f"{name}: expected finite numbers; got NaN or infinity")
    return a


def _pair(a, b, names):
    a, b = _rows(a, names[0]), _rows(b, names[1])
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{names[1]}: expected {a.shape[1]} values a sample, as {names[0]}; got {b.shape[1]}")
    return a, b


def _centre(x):
    """What to subtract from rows like x before their distances come from products: 0, or their mean where it is large against
    their spread, which float32 would then lose."""
    mean = x.mean(0, dtype=np.float64)
    spread = x.var(0, dtype=np.float64).sum()
    return mean if np.square(mean).sum() > 16.0 * spread else np.zeros_like(mean)


def features(judge, samples):
    """What a classifier's last layer sees: outputs of the layer before it, float32 [N,D].

    Parameters
    ----------
    judge : Classifier
        Fitted, with a network that is a `Sequential`.
    samples : array [N,...]
    """
    from .nn import Sequential

    if not hasattr(judge, "predict") or not hasattr(judge, "_need_fit"):
        raise TypeError(f"judge: expected a classifier of fastdl.models; got {type(judge).__name__}")
    judge._need_fit()
    if not isinstance(judge.module_, Sequential) or len(judge.module_) < 2:
        raise ValueError("judge: expected a classifier of two layers or more in a row; got another")
    out = backend.to_host(train.predict(judge.module_[:-1], judge._input(samples, "samples")))
    return out.reshape(len(out), -1)


def frechet_distance(a, b):
    """Fréchet distance between the normal distributions with the means and covariances of two sets of features.

        d^2 = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    Parameters
    ----------
    a, b : arrays [N,D], [M,D]
        Features. With fewer samples the distance comes out larger: compare equal numbers only.

    Returns
    -------
    float
        d^2, which is what is usually reported.

    Source: Dowson & Landau (1982); Heusel et al., "GANs trained by a two time-scale update rule" (2017).
    """
    a, b = (v.astype(np.float64) for v in _pair(a, b, ("a", "b")))
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a, b: expected two samples or more in each; got {len(a)} and {len(b)}")
    ca, cb = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(ca)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # C_a C_b has the eigenvalues of the symmetric C_a^(1/2) C_b C_a^(1/2).
    both = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cb @ root), 0.0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca) + np.trace(cb) - 2.0 * both)


def class_shares(judge, samples):
    """Share of samples that a classifier takes for each class, in the order of ``judge.classes_``: float64 [classes]."""
    if not hasattr(judge, "predict"):
        raise TypeError(f"judge: expected a classifier; got {type(judge).__name__}")
    predicted = judge.predict(samples)
    return np.array([np.mean(predicted == c) for c in judge.classes_])


def parzen_log_likelihood(samples, x, bandwidth):
    """Mean log-likelihood of x under a Gaussian kernel around each sample, in nats.

        log p(x) = log mean_i N(x; sample_i, bandwidth^2)

    Parameters
    ----------
    samples : array [N,...]
    x : array [M,...]
        Data that the model has not seen.
    bandwidth : float or sequence of float
        Standard deviation of the kernel. Of several the first axis of the result has one figure each: choose one on
        validation data, then judge test data with it.

    Returns
    -------
    (float or array, float or array)
        Mean, and its standard error over x.

    Notes
    -----
    Distances are float32 products. In many dimensions the figure says little about how samples look (Theis, van den Oord
    & Bethge, "A note on the evaluation of generative models", 2016); it is here because papers report it.

    Source: Breuleux, Bengio & Vincent (2011), as used by Goodfellow et al. (2014).
    """
    s, x = _pair(samples, x, ("samples", "x"))
    widths = np.atleast_1d(reals("bandwidth", bandwidth))
    if widths.ndim != 1 or not ((widths > 0) & np.isfinite(widths)).all():
        raise ValueError(f"bandwidth: expected more than 0, one finite number or several; got {bandwidth}")
    logs = np.empty((len(widths), len(x)))
    for start, d in _distances(x, s):
        for i, h in enumerate(widths):
            a = d / (-2.0 * h * h)
            top = a.max(1, keepdims=True)
            logs[i, start : start + len(d)] = np.log(np.exp(a - top).mean(1)) + top[:, 0]
    logs -= x.shape[1] * np.log(widths * math.sqrt(2 * math.pi))[:, None]
    mean, error = logs.mean(1), logs.std(1) / math.sqrt(len(x))
    return (mean, error) if np.ndim(bandwidth) else (float(mean[0]), float(error[0]))


def _distances(x, y, block=1024):
    """(first row, squared distances [rows, len(y)]) for blocks of rows of x."""
    centre = _centre(y)
    if centre.any():
        x, y = (x - centre).astype(np.float32), (y - centre).astype(np.float32)
    length = np.square(y, dtype=np.float32).sum(1)
    for start in range(0, len(x), block):
        part = x[start : start + block]
        d = np.square(part).sum(1)[:, None] + length[None] - 2.0 * (part @ y.T)
        yield start, np.maximum(d, 0.0)


def nearest_distances(samples, data):
    """Distance from each sample to the nearest of the data, and which one that is: float32 [N], int64 [N]."""
    s, d = _pair(samples, data, ("samples", "data"))
    distance, place = np.empty(len(s), np.float32), np.empty(len(s), np.int64)
    for start, squares in _distances(s, d):
        at = squares.argmin(1)
        place[start : start + len(at)] = at
        # Which is the nearest products tell; how far it is, they do to a thousandth of the vectors' length only.
        apart = s[start : start + len(at)].astype(np.float64) - d[at]
        distance[start : start + len(at)] = np.sqrt(np.square(apart).sum(1))
    return distance, place


def share_of_copies(samples, data, held_out):
    """Share of samples that lie nearer to the training data than all but a hundredth of unseen data does.

    About 0.01 for a model that has learned the distribution, near 1 for one that repeats what it was shown.
    """
    usual, _ = nearest_distances(held_out, data)
    found, _ = nearest_distances(samples, data)
    return float(np.mean(found < np.quantile(usual, 0.01)))


class GaussianMixture:
    """A mixture of normal distributions by expectation-maximisation: what a generator has to beat.

    Parameters
    ----------
    components : int
    covariance : {'diagonal', 'full'}
        'full' takes the covariance of each component after the diagonal mixture has converged, by one more step.
    floor : float
        Added to all variances.
    iterations : int
    seed : int
        Decides the first means, which are samples.

    Source: Dempster, Laird & Rubin, "Maximum likelihood from incomplete data via the EM algorithm" (1977).
    """

    def __init__(self, components=100, covariance="diagonal", floor=1e-3, iterations=30, seed=0):
        if covariance not in ("diagonal", "full"):
            raise ValueError(f"covariance: expected 'diagonal' or 'full'; got {covariance!r}")
        positive("components", components), positive("iterations", iterations), number("floor", floor, more_than=0.0)
        self.components, self.covariance, self.floor = components, covariance, floor
        self.iterations, self.seed = iterations, seed

    def fit(self, X, y=None):
        """Learn weights, means and covariances; returns the model itself."""
        x = _rows(X, "X")
        centre = _centre(x)
        if centre.any():
            x = (x - centre).astype(np.float32)
        if len(x) < self.components:
            raise ValueError(f"X: expected {self.components} samples or more, one a component; got {len(x)}")
        self.shape_ = np.shape(X)[1:]
        order = permutation(len(x), *Stream(self.seed).split("mixture").take(2 * len(x)))
        self.means_ = x[order[: self.components]].astype(np.float64)
        self.variances_ = np.full(self.means_.shape, x.var() + self.floor)
        self.weights_ = np.full(self.components, 1.0 / self.components)
        squares = np.square(x)
        for _ in range(self.iterations):
            r = self._responsibilities(x, squares)
            mass = r.sum(0, dtype=np.float64) + 1e-9
            self.weights_ = mass / mass.sum()
            self.means_ = (r.T @ x) / mass[:, None]
            self.variances_ = np.maximum((r.T @ squares) / mass[:, None] - self.means_**2, 0.0) + self.floor
        self.roots_ = None
        if self.covariance == "full":
            owner = self._responsibilities(x, squares).argmax(1)
            self.roots_ = [self._root(x[owner == c], c) for c in range(self.components)]
        self.means_ = self.means_ + centre
        return self

    def diagonal(self):
        """The diagonal mixture of which a full one was made."""
        other = copy.copy(self)
        other.covariance, other.roots_ = "diagonal", None
        return other

    def _root(self, x, c):
        """A factor of a component's covariance; of a component that owns too few samples the diagonal one."""
        if len(x) < 2:
            return np.diag(np.sqrt(self.variances_[c])).astype(np.float32)
        d = x - self.means_[c]
        return np.linalg.cholesky(d.T @ d / len(x) + self.floor * np.eye(x.shape[1])).astype(np.float32)

    def _responsibilities(self, x, squares):
        inverse = 1.0 / self.variances_
        constant = np.log(self.weights_) - 0.5 * (np.log(self.variances_) + self.means_**2 * inverse).sum(1)
        logs = (
            x @ (self.means_ * inverse).T.astype(np.float32) - 0.5 * (squares @ inverse.T.astype(np.float32)) + constant
        )
        logs -= logs.max(1, keepdims=True)
        r = np.exp(logs)
        return (r / r.sum(1, keepdims=True)).astype(np.float32)

    def sample(self, n, seed=0, low=None, high=None):
        """n new samples, float32, in the shape of the data's, cut to [low, high] where given."""
        natural("n", n)
        for name, end in (("low", low), ("high", high)):
            if end is not None:
                number(name, end)
        if not hasattr(self, "means_"):
            raise RuntimeError("GaussianMixture: expected a mixture that was fitted; got a fresh one")
        u = uniform(n, seed=seed).astype(np.float64)
        chosen = np.minimum(np.searchsorted(np.cumsum(self.weights_), u, side="right"), self.components - 1)
        z = normal((n, self.means_.shape[1]), seed=seed, offset=4 * n + 4)
        y = np.empty_like(z)
        for c in np.unique(chosen):
            here = chosen == c
            spread = z[here] * np.sqrt(self.variances_[c]) if self.roots_ is None else z[here] @ self.roots_[c].T
            y[here] = self.means_[c] + spread
        if low is not None or high is not None:
            np.clip(y, low, high, out=y)
        return y.reshape(n, *self.shape_)
