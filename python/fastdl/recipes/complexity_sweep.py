"""When a simple model is enough: linear, kernel, shallow and deep models as a pattern grows.

Task: two classes on a square, drawn by chance, 4,000 points to learn from: a half plane, then chessboards of 2 to 12
fields a side. Network: one hidden layer of 64 units, and four of 64, beside logistic regression and a support vector
machine with an RBF kernel (its C and width chosen on validation).

Reference: none for these boards; that such patterns need a number of examples that grows with their number of fields for
any model that only interpolates, kernel machines among them, is in Bengio, Delalleau & Le Roux, "The curse of highly
variable functions for local kernel machines" (2006).
"""

import numpy as np

from .. import get_num_threads, random
from ..models import MLP
from ..random import Stream
from ..schedules import cosine
from ._common import Report

LEVELS = (1, 2, 4, 6, 8, 12)
EPOCHS = {"chessboards": 60}
TRAIN, VALID, TEST = 4000, 1000, 2000


def board(n, fields, stream):
    """n points in the square [-1,1)^2 and the colour of their field; one field a side means a half plane."""
    x = random.uniform((n, 2), -1.0, 1.0, *stream.take(2 * n))
    if fields == 1:
        return x, (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64)
    return x, (np.floor((x + 1.0) * (fields / 2.0)).sum(1) % 2).astype(np.int64)


def machine(x, y, x_valid, y_valid):
    """The RBF support vector machine that is best on validation."""
    from sklearn.svm import SVC

    made = (SVC(C=c, gamma=g).fit(x, y) for c in (1.0, 100.0) for g in (1.0, 10.0, 100.0))
    return max(made, key=lambda m: m.score(x_valid, y_valid))


def draw(metrics, path):
    """Accuracy of each model over the fields a side."""
    from .. import plot

    figure, ax = plot.require().subplots()
    for name in ("linear", "svm", "shallow", "deep"):
        ax.plot(LEVELS, [metrics[f"{name}_{fields}"] for fields in LEVELS], "o-", label=name)
    ax.set_xlabel("fields a side")
    ax.set_ylabel("test accuracy")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plot.require().close(figure)


def run(config):
    """Train and judge all models at every level; see `fastdl.recipes`."""
    config.needs_no_checkpoint("complexity-sweep")
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "complexity-sweep: expected scikit-learn to be installed (pip install 'fastdl-nn[sklearn]'); got none"
        ) from error
    show = config.show or (lambda text: None)
    epochs = config.epochs or EPOCHS["chessboards"]
    metrics, model = {}, None
    show(f"{'fields':>6}  {'linear':>8}  {'RBF SVM':>8}  {'1 hidden':>8}  {'4 hidden':>8}")
    for fields in LEVELS:
        stream = Stream(config.seed).split(f"board {fields}")
        (x, y), (xv, yv), test = (board(n, fields, stream) for n in (TRAIN, VALID, TEST))
        scores = [LogisticRegression().fit(x, y).score(*test), machine(x, y, xv, yv).score(*test)]
        for hidden in ((64,), (64, 64, 64, 64)):
            model = config.place(MLP(hidden, seed=config.seed))
            model.fit(x, y, epochs=epochs, batch_size=50, lr=5e-3, schedule=cosine(0.05))
            scores.append(model.score(*test))
        metrics |= {f"{name}_{fields}": s for name, s in zip(("linear", "svm", "shallow", "deep"), scores, strict=True)}
        show(f"{fields:6d}  " + "  ".join(f"{s:8.3f}" for s in scores))
    metrics["test_accuracy"] = float(np.mean([metrics[f"deep_{fields}"] for fields in LEVELS]))
    settings = {
        "data_set": "chessboards",
        "splits": {"train": TRAIN, "validation": VALID, "test": TEST},
        "epochs": epochs,
        "seed": config.seed,
        "threads": get_num_threads(),
    }
    return Report(metrics, settings, model, test, ("0", "1"), draw=lambda path: draw(metrics, path))
