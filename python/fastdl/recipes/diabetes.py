"""How far diabetes has progressed after a year: a quantity from ten numbers.

Task: 442 patients, age, sex, body mass, blood pressure and six blood values; a measure of progression, 25 to 346. Network:
five tanh networks of 8 units, their mean. Beside it a ridge regression.

Reference: the data are those of Efron, Hastie, Johnstone & Tibshirani, "Least angle regression" (2004), whose full linear model
has R2 = 0.52 on the patients that it was fitted to.
"""

import numpy as np

from ..models import MLPRegressor
from ..train import r2
from ._common import Report
from ._tabular import OUTER, Scale, about, columns, cross_fitted, folds, need_scikit_learn, read

EPOCHS = {"diabetes_progression": 40}


def ridge(x, y):
    """Out-of-fold predictions of scikit-learn's ridge regression, its penalty chosen by leaving one out."""
    from sklearn.linear_model import RidgeCV

    place, given = folds(x, y, OUTER), np.empty(len(y))
    for outer in range(OUTER):
        rows, rest = place == outer, place != outer
        scale = Scale(x[rest])
        given[rows] = RidgeCV(np.logspace(-2, 3, 11)).fit(scale(x[rest]), y[rest]).predict(scale(x[rows]))
    return given


def run(config):
    """Train and judge, out of the folds; see `fastdl.recipes`."""
    config.needs_no_checkpoint("diabetes")
    need_scikit_learn("diabetes")
    table = read("diabetes_progression", "progression", config)
    x, y = columns(table), table.y.astype(np.float64)
    epochs = config.epochs or EPOCHS["diabetes_progression"]

    def fit(x, y, decay, part):
        model = config.place(MLPRegressor((8,), "tanh", seed=config.seed * 1000 + part))
        return model.fit(x, y, epochs=epochs, batch_size=32, optimizer="adamw", lr=5e-3, weight_decay=decay)

    decays = (0.03, 0.3, 3.0)
    parts = cross_fitted(x, y, fit, lambda model, x: model.predict(x), lambda p, y: float(np.mean((p - y) ** 2)), decays)
    given = np.empty(len(y))
    for rows, p, *_ in parts:
        given[rows] = p
    base, scale, chosen = ridge(x, y), Scale(x), [part[4] for part in parts]
    metrics = {
        "r2": r2(given[:, None], y[:, None]),
        "mae": float(np.mean(np.abs(given - y))),
        "baseline_r2": r2(base[:, None], y[:, None]),
        "baseline_mae": float(np.mean(np.abs(base - y))),
    }
    settings = about(config, table, x, epochs) | {"data_set": "diabetes_progression", "hidden": [8], "weight_decay": chosen}
    model = fit(scale(x), y, max(decays, key=chosen.count), 0)
    return Report(metrics, settings, model, (scale(x), y), probabilistic=False, draw=lambda path: draw(path, given, y))


def draw(path, given, y):
    """Predicted against measured."""
    from .. import plot

    figure, ax = plot.require().subplots()
    ax.plot(y, given, ".", alpha=0.6)
    ax.plot([25, 346], [25, 346], color="0.6")
    ax.set_xlabel("progression, measured")
    ax.set_ylabel("predicted by networks that never saw the patient")
    figure.savefig(path, dpi=110)
    plot.require().close(figure)
