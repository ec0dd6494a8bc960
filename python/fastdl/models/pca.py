"""Principal components: the linear autoencoder that every other one has to beat."""

import math

import numpy as np

from .. import backend
from .._arguments import positive, reals
from ..rows import Rows
from ._base import Transformer
from ._door import as_input, must_be_on_scale, must_have_some, scale_name


class PCA(Transformer):
    """The best linear code under squared error, by the eigenvectors of the covariance in float64.

    Parameters
    ----------
    code : int
        Components kept.

    Attributes
    ----------
    mean_ : float64 array [V]
    components_ : float64 array [code,V]
    variances_ : float64 array [code]
        Along each component, largest first.

    Source: Pearson, "On lines and planes of closest fit to systems of points in space" (1901).
    """

    def __init__(self, code=32):
        self.code = positive("code", code)

    def fit(self, X, y=None):
        """Learn mean and components; returns the model itself."""
        a = must_have_some(as_input(X))
        scale, x = scale_name(a), self._rows(a)
        if self.code > x.shape[1]:
            raise ValueError(f"code: expected at most {x.shape[1]}, the values of a sample; got {self.code}")
        mean, second = x.mean(0, dtype=np.float64), np.zeros((x.shape[1], x.shape[1]))
        for start in range(0, len(x), 4096):  # float64 by parts
            part = x[start : start + 4096] - mean
            second += part.T @ part
        values, vectors = np.linalg.eigh(second / len(x))
        self.shape_, self.scale_, self.mean_ = a.shape[1:], scale, mean
        self.components_ = np.ascontiguousarray(vectors[:, ::-1][:, : self.code].T)
        self.variances_ = values[::-1][: self.code].copy()
        return self

    @staticmethod
    def _rows(a):
        x = backend.to_host(Rows(a.reshape(len(a), math.prod(a.shape[1:]))).take(np.arange(len(a))))
        finite = np.isfinite(x)
        if not finite.all():
            raise ValueError(f"X: expected finite numbers; got {x[~finite][0]}")
        return x

    def _need_fit(self):
        if not hasattr(self, "components_"):
            raise RuntimeError(f"{type(self).__name__}: expected a model that was built or fitted; got a fresh one")

    def _input(self, X):
        """(X, its rows) of samples such as those that were learned from."""
        self._need_fit()
        a = as_input(X)
        if a.shape == (0,):  # an empty list
            a = a.reshape(0, *self.shape_)
        width = self.components_.shape[1]
        if math.prod(a.shape[1:]) != width:
            raise ValueError(
                f"X: expected samples of shape {[width]}, as the model was made for; got {list(a.shape[1:])}"
            )
        must_be_on_scale(a, self.scale_)
        return a, self._rows(a)

    def transform(self, X):
        """Codes, float64 [N, code]."""
        return (self._input(X)[1] - self.mean_) @ self.components_.T

    def inverse_transform(self, codes):
        """Samples from codes, float32, in the shape of those that were learned from."""
        self._need_fit()
        c = reals("codes", codes)
        if c.ndim != 2 or c.shape[1] != self.code:
            raise ValueError(f"codes: expected shape [N,{self.code}]; got {list(c.shape)}")
        return (c @ self.components_ + self.mean_).astype(np.float32).reshape(len(c), *self.shape_)

    def reconstruct(self, X):
        """Samples from their codes, in the shape of X."""
        a, x = self._input(X)
        return self._again(x).reshape(a.shape)

    def _again(self, x):
        return self.inverse_transform((x - self.mean_) @ self.components_.T).reshape(x.shape)

    def score_samples(self, X):
        """Minus the squared error of each sample, summed over its values."""
        x = self._input(X)[1]
        return -np.square(x - self._again(x)).sum(1, dtype=np.float64)

    def score(self, X, y=None):
        """Mean of `score_samples`."""
        return float(np.mean(must_have_some(self.score_samples(X))))
