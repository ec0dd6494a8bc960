"""What the recipes on tables share: columns made ready, folds, and a cross-fitted ensemble that is judged out of its folds.

Small tables have no test part that would tell much. Every row is predicted by networks that never saw it: in each of ten
outer folds an ensemble is trained on the other nine, and all that is chosen (weight decay, calibration, threshold) is
chosen inside these nine, by five inner folds.
"""

import math

import numpy as np

from .. import data
from ..data import read_csv

OUTER, INNER = 10, 5


def read(name, target, config):
    """The table of a data set in the folder ``medical``."""
    folder = data.data_directory(config.data_dir)
    if folder is None:
        raise data.MissingDataError(name, "a folder of data sets, in --data or in FASTDL_DATA", "neither")
    return read_csv(folder / "medical" / f"{name}.csv", target)


def columns(table):
    """float64 [N,I]: a column for every number, one for every word; missing values stay NaN."""
    parts = []
    for at, name in enumerate(table.columns):
        cells = table.x[:, at]
        words = table.categories.get(name)
        if words is None or len(words) == 2:
            parts.append(cells[:, None])
        else:
            parts.append(np.where(np.isnan(cells)[:, None], 0.0, cells[:, None] == np.arange(len(words))))
    return np.concatenate(parts, axis=1)


class Scale:
    """Missing values become the mean, then every column gets mean 0 and spread 1, by the rows that it is made with."""

    def __init__(self, x):
        self.mean = np.nanmean(x, axis=0)
        spread = np.nanstd(x, axis=0)
        self.spread = np.where(spread > 0, spread, 1.0)

    def __call__(self, x):
        return (np.where(np.isnan(x), self.mean, x) - self.mean) / self.spread


def folds(x, y, count):
    """int64 [N]: which fold a row belongs to, by a hash of the row; of each class about as many in each fold."""
    place = np.empty(len(x), np.int64)
    order = np.argsort([_digest(row) for row in x], kind="stable")
    for label in np.unique(y) if y.dtype.kind != "f" else (None,):
        own = order if label is None else order[y[order] == label]
        place[own] = np.arange(len(own)) % count
    return place


def _digest(row):
    import hashlib

    return hashlib.blake2b(np.ascontiguousarray(row, "<f8").tobytes(), digest_size=8).digest()


def platt(z, y):
    """(a, b) of the probability sigmoid(a z + b) that fits labels 0 and 1 best.

    Source: Platt, "Probabilistic outputs for support vector machines" (1999), with his softened labels.
    """
    ones, t = y.sum(), np.empty(len(y))
    t[y == 1], t[y == 0] = (ones + 1.0) / (ones + 2.0), 1.0 / (len(y) - ones + 2.0)
    middle, spread = z.mean(), max(z.std(), 1e-12)
    design, w = np.stack([(z - middle) / spread, np.ones_like(z)], 1), np.zeros(2)

    def loss(w):
        u = design @ w
        return float(np.sum(np.logaddexp(0.0, u) - t * u))

    for _ in range(50):  # Newton's method, a step halved where it would go uphill
        p = sigmoid(design @ w)
        curve = (design * (p * (1.0 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curve, design.T @ (p - t))
        while loss(w - step) > loss(w) and np.abs(step).max() > 1e-8:
            step *= 0.5
        w = w - step
        if np.abs(step).max() < 1e-8:
            break
    return np.array([w[0] / spread, w[1] - w[0] * middle / spread])


def sigmoid(z):
    """1 / (1 + exp(-z)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def threshold(p, y):
    """Where sensitivity plus specificity is largest: the middle of the best gap between two scores."""
    order = np.argsort(p, kind="stable")
    p, y = p[order], y[order]
    # A cut before place i: those from i on are called 1.
    gain = (y.sum() - np.concatenate([[0], np.cumsum(y)])) / max(y.sum(), 1)
    gain += np.concatenate([[0], np.cumsum(1 - y)]) / max((1 - y).sum(), 1)
    i = int(np.argmax(gain))
    return float((p[max(i - 1, 0)] + p[min(i, len(p) - 1)]) / 2.0)


def auc(p, y):
    """Area under the receiver operating characteristic: chance that a 1 scores above a 0, ties a half."""
    order = np.argsort(p, kind="stable")
    ranks = np.empty(len(p))
    _, first, count = np.unique(p[order], return_index=True, return_counts=True)
    ranks[order] = np.repeat(first + (count + 1) / 2.0, count)
    ones = int(y.sum())
    return float((ranks[y == 1].sum() - ones * (ones + 1) / 2.0) / (ones * (len(y) - ones)))


def figures(p, y, cut=None):
    """Accuracy at the threshold (a number, or one for each row), area under the curve, Brier score, log loss."""
    called = p > (0.5 if cut is None else cut)
    q = np.clip(p, 1e-7, 1 - 1e-7)
    return {
        "accuracy": float(np.mean(called == (y == 1))),
        "auc": auc(p, y),
        "brier": float(np.mean((p - y) ** 2)),
        "log_loss": float(-np.mean(y * np.log(q) + (1 - y) * np.log(1 - q))),
        "sensitivity": float(np.mean(called[y == 1])),
        "specificity": float(np.mean(~called[y == 0])),
    }


def cross_fitted(x, y, fit, outputs, loss, decays):
    """Out-of-fold outputs of ensembles of networks.

    Parameters
    ----------
    x : float64 [N,I]
    y : array [N]
    fit : callable
        ``fit(x, y, decay, seed) -> model``.
    outputs : callable
        ``outputs(model, x) -> float64 [n]``.
    loss : callable
        ``loss(outputs, y) -> float``, by which the weight decay is chosen.
    decays : sequence of float

    Returns
    -------
    list of (rows, outputs of these rows, training rows, their own inner out-of-fold outputs, decay)
        For every outer fold.
    """
    place, result = folds(x, y, OUTER), []
    for outer in range(OUTER):
        rows, rest = np.flatnonzero(place == outer), np.flatnonzero(place != outer)
        inner, tried = folds(x[rest], y[rest], INNER), []
        for decay in decays:
            own, given = np.empty(len(rest)), np.zeros(len(rows))
            for part in range(INNER):
                kept = rest[inner != part]
                scale = Scale(x[kept])
                model = fit(scale(x[kept]), y[kept], decay, part)
                own[inner == part] = outputs(model, scale(x[rest[inner == part]]))
                given += outputs(model, scale(x[rows])) / INNER
            tried.append((loss(own, y[rest]), given, own, decay))
        best = min(tried, key=lambda t: t[0])
        result.append((rows, best[1], rest, best[2], best[3]))
    return result


def log_loss_of_logits(z, y):
    """Mean log loss of logits against labels 0 and 1."""
    return float(np.mean(np.logaddexp(0.0, z) - y * z))


def two_classes(config, table, y, hidden, epochs):
    """A calibrated ensemble of networks and a logistic regression on a table with two classes, both out of their folds.

    Returns
    -------
    metrics, settings, model, (x, y)
        The model is one network trained on all rows with the most frequent choice; it takes standardised columns.
    """
    from ..models import MLP

    x = columns(table)
    epochs = config.epochs or epochs

    def fit(x, y, decay, part):
        model = config.place(MLP(hidden, "tanh", seed=config.seed * 1000 + part))
        return model.fit(x, y, epochs=epochs, batch_size=32, optimizer="adamw", lr=5e-3, weight_decay=decay)

    def logits(model, x):
        z = model.decision_function(x).astype(np.float64)
        return z[:, 1] - z[:, 0]

    decays = (0.03, 0.3, 3.0)
    parts = cross_fitted(x, y, fit, logits, log_loss_of_logits, decays)
    p, cut = np.empty(len(y)), np.empty(len(y))
    for rows, z, rest, own, _ in parts:
        a, b = platt(own, y[rest])
        p[rows], cut[rows] = sigmoid(a * z + b), threshold(sigmoid(a * own + b), y[rest])
    base = logistic(x, y)
    metrics = {f"test_{k}" if k == "accuracy" else k: v for k, v in figures(p, y).items()}
    at_cut = figures(p, y, cut)
    metrics |= {"accuracy_at_threshold": at_cut["accuracy"], "threshold": float(cut.mean())}
    metrics |= {"sensitivity": at_cut["sensitivity"], "specificity": at_cut["specificity"]}
    metrics |= {f"baseline_{k}": v for k, v in figures(base, y).items() if k in ("accuracy", "auc", "brier", "log_loss")}
    # As precise as a share of so few rows can be.
    metrics["standard_error"] = math.sqrt(metrics["test_accuracy"] * (1 - metrics["test_accuracy"]) / len(y))
    scale, chosen = Scale(x), [part[4] for part in parts]
    decay = max(decays, key=chosen.count)
    settings = about(config, table, x, epochs) | {"hidden": list(hidden), "weight_decay": chosen}
    return metrics, settings, fit(scale(x), y, decay, 0), (scale(x), y), p


def about(config, table, x, epochs):
    """Settings that all recipes on tables have."""
    from .. import get_num_threads

    return {
        "splits": f"{OUTER} outer folds by hash, {INNER} inner ones for all choices; every row judged once",
        "rows": len(x),
        "columns": x.shape[1],
        "predicted": table.target,
        "epochs": epochs,
        "seed": config.seed,
        "threads": get_num_threads(),
    }


def logistic(x, y):
    """Out-of-fold probabilities of scikit-learn's logistic regression, its penalty chosen by inner folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    place, p = folds(x, y, OUTER), np.empty(len(y))
    for outer in range(OUTER):
        rows, rest = place == outer, place != outer
        scale = Scale(x[rest])
        search = GridSearchCV(
            LogisticRegression(max_iter=1000), {"C": np.logspace(-3, 2, 6)}, cv=INNER, scoring="neg_log_loss"
        )
        p[rows] = search.fit(scale(x[rest]), y[rest]).predict_proba(scale(x[rows]))[:, 1]
    return p


def need_scikit_learn(recipe):
    """The baseline is scikit-learn's."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{recipe}: expected scikit-learn to be installed (pip install 'fastdl-nn[sklearn]'); got none"
        ) from error


def draw(path, p, y, title):
    """How far the score can be trusted, and what a threshold trades: one picture."""
    from .. import plot
    from ..plot.scores import calibration, roc

    figure, (left, right) = plot.require().subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    calibration(p, y, left)
    roc(p, y, right)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plot.require().close(figure)


