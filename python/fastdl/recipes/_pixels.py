"""The baseline of recipes on pictures: a kernel machine on principal components of the pixels."""

import numpy as np

from .. import data


class KernelMachine:
    """A support vector machine with RBF kernel; components and penalty chosen on validation.

    Attributes
    ----------
    settings : dict
    """

    def __init__(self, dataset):
        try:
            from sklearn.decomposition import PCA
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
            from sklearn.svm import SVC
        except ImportError as error:
            raise ImportError(
                "baseline: expected scikit-learn to be installed (pip install 'fastdl-nn[sklearn]'); got none"
            ) from error
        x, y, xv, yv = data.split_validation(dataset)
        best = -1.0
        for components in (30, 100):
            for penalty in (1.0, 10.0):
                pca = PCA(min(components, len(x) - 1), random_state=0)
                made = make_pipeline(pca, StandardScaler(), SVC(C=penalty)).fit(rows(x), y)
                score = made.score(rows(xv), yv)
                if score > best:
                    best, self._made = score, made
                    self.settings = {"components": int(pca.n_components_), "C": penalty, "validation_accuracy": score}

    def score(self, x, y):
        """Accuracy."""
        return float(self._made.score(rows(x), y))


def rows(x):
    """Images as rows of numbers in [0,1]."""
    return x.reshape(len(x), -1).astype(np.float32) / 255.0
