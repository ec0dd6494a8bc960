"""Principal components: the linear autoencoder that every other one has to beat."""

import numpy as np

from ..rows import Rows
from ._base import as_input


class PCA:
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
        if code < 1:
            raise ValueError(f"code: expected at least 1; got {code}")
        self.code = int(code)

    def fit(self, X, y=None):
        """Learn mean and components; returns the model itself."""
        x = self._rows(X)
        if self.code > x.shape[1]:
            raise ValueError(f"code: expected at most {x.shape[1]}, the values of a sample; got {self.code}")
        if len(x) == 0:
            raise ValueError("X: expected one sample or more; got none")
        self.shape_, self.mean_ = np.shape(X)[1:], x.mean(0, dtype=np.float64)
        second = np.zeros((x.shape[1], x.shape[1]))
        for start in range(0, len(x), 4096):  # float64 by parts
            part = x[start : start + 4096] - self.mean_
            second += part.T @ part
        values, vectors = np.linalg.eigh(second / len(x))
        self.components_ = np.ascontiguousarray(vectors[:, ::-1][:, : self.code].T)
        self.variances_ = values[::-1][: self.code].copy()
        return self

    @staticmethod
    def _rows(X):
        x = as_input(X)
        x = x.reshape(len(x), -1)
        return Rows(x).take(np.arange(len(x)))

    def transform(self, X):
        """Codes, float64 [N, code]."""
        return (self._rows(X) - self.mean_) @ self.components_.T

    def inverse_transform(self, codes):
        """Samples from codes, float32, in the shape of those that were learned from."""
        return (np.asarray(codes) @ self.components_ + self.mean_).astype(np.float32).reshape(len(codes), *self.shape_)

    def reconstruct(self, X):
        """Samples from their codes, in the shape of X."""
        return self.inverse_transform(self.transform(X)).reshape(np.shape(X))

    def score_samples(self, X):
        """Minus the squared error of each sample, summed over its values."""
        return -np.square(self._rows(X) - self.reconstruct(X).reshape(len(X), -1)).sum(1, dtype=np.float64)

    def score(self, X, y=None):
        """Mean of `score_samples`."""
        return float(np.mean(self.score_samples(X)))
