"""How far simple models get on data, before anybody trains a deep one."""

import math
from dataclasses import dataclass

import numpy as np

from .random import Stream, permutation

MOST = 2000  # samples; a kernel machine's time grows with their square
ENOUGH = 0.95  # of the way from guessing to perfect


@dataclass
class Judgement:
    """What a linear model and a kernel machine reach on samples that they were not trained on.

    Attributes
    ----------
    verdict : {'linear', 'kernel', 'complex', 'no pattern'}
    chance, linear, kernel : float
        Accuracy of the most frequent class (of the mean: 0), of the linear model, of the kernel machine; for quantities R^2.
    error : float
        Standard error of such a figure.
    samples : int
        Judged on.
    quantity, structured : bool
        Whether labels are quantities; whether samples are images or sequences.
    """

    verdict: str
    chance: float
    linear: float
    kernel: float
    error: float
    samples: int
    quantity: bool = False
    structured: bool = False

    @property
    def worth_it(self):
        """Whether a deep network is worth a try."""
        return self.verdict in ("complex", "no pattern")

    def __str__(self):
        names = ("ridge regression", "RBF support vector regression") if self.quantity else ("logistic regression", "RBF SVM")
        what = "R2" if self.quantity else "accuracy"
        figures = (
            f"{what} on {self.samples} held-out samples: {names[0]} {self.linear:.3f}, {names[1]} {self.kernel:.3f}, "
            f"guessing {self.chance:.3f} (standard error {self.error:.3f})"
        )
        words = {
            "linear": f"the pattern is simple: nothing found that {names[0]} misses. A deep net is not worth it",
            "kernel": f"the pattern is curved, and the {names[1]} has it. A deep net is not worth it",
            "complex": "the pattern is more than these can hold: a deep net may be worth it",
            "no pattern": "neither finds a pattern: there is none, or one that only a deep net can hold. Try one before more "
            "data are gathered",
        }
        return f"{words[self.verdict]}. {figures}"


def judge(x, y, quantity=False, seed=0):
    """Train a linear model and a kernel machine on a part of the data and judge them on the rest.

    Parameters
    ----------
    x : array [N,...]
        Missing values are filled with the column's mean.
    y : array [N] or [N,K]
    quantity : bool
        Whether y are quantities rather than classes.
    seed : int

    Returns
    -------
    Judgement

    Raises
    ------
    ImportError
        scikit-learn is not installed.
    ValueError
        Fewer than ten samples, or labels that are not finite.
    """
    try:
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression, RidgeCV
        from sklearn.multioutput import MultiOutputRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC, SVR
    except ImportError as error:
        raise ImportError(
            "data: expected scikit-learn to be installed, to look at them (pip install 'fastdl-nn[sklearn]'); got none"
        ) from error
    if len(x) < 10:
        raise ValueError(f"data: expected ten samples or more, to look at them; got {len(x)}")
    rows = x.reshape(len(x), -1).astype(np.float64)
    if quantity:
        y = np.asarray(y, np.float64)
        if not np.isfinite(y).all():
            raise ValueError("labels: expected finite numbers; got NaN or infinity")
        y = (y - y.mean(0)) / np.where(y.std(0) > 0, y.std(0), 1.0)
    order = permutation(len(rows), *Stream(seed).split("judge").take(2 * len(rows)))[:MOST]
    held, kept = order[: len(order) * 3 // 10], order[len(order) * 3 // 10 :]
    if quantity:
        machine = SVR(C=10.0) if y.ndim == 1 else MultiOutputRegressor(SVR(C=10.0))
        pair, chance = (RidgeCV(np.logspace(-3, 3, 7)), machine), 0.0
    else:
        classes, counts = np.unique(y[held], return_counts=True)
        if len(np.unique(y[kept])) < 2:
            raise ValueError("labels: expected two classes among the samples looked at; got one")
        pair = (LogisticRegression(max_iter=300), SVC(C=10.0))
        chance = float(counts.max() / len(held))
    scores = []
    for one in pair:
        pipe = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), one)
        scores.append(float(pipe.fit(rows[kept], y[kept]).score(rows[held], y[held])))
    linear, kernel = scores
    top = max(scores)
    share = min(max(top, 0.0), 1.0)
    error = math.sqrt(max(share * (1.0 - share), 1.0 / len(held)) / len(held))
    structured = x.ndim > 2
    full = (top - chance) / max(1.0 - chance, 1e-9)  # of the way from guessing to perfect
    if top <= chance + 2.0 * error:
        verdict = "no pattern"
    elif structured and full < 0.98:
        verdict = "complex"
    elif linear >= kernel - error:
        verdict = "linear"
    elif full >= ENOUGH - error:
        verdict = "kernel"
    else:
        verdict = "complex"
    return Judgement(verdict, chance, linear, kernel, error, len(held), bool(quantity), structured)
