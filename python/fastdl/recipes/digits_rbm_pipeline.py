"""Features of a Boltzmann machine beside raw pixels and scikit-learn's machine.

Task: scikit-learn's 8x8 digits, each also moved by a pixel in four directions, ten classes; a fifth is for testing, a fifth of
the rest for choosing the regression's C, for each way on its own. Network: 64-100 Bernoulli units, persistent contrastive
divergence, then logistic regression in a Pipeline; scikit-learn's BernoulliRBM with as many units, epochs and the same rate.

Reference: scikit-learn's example "Restricted Boltzmann machine features for digit classification": 93 % of the test part by
machine and regression, 78 % by regression on pixels (C as the example sets it). As there, copies of one digit fall into the
training and the test part both, so the figures are higher than on digits never seen; for all three ways alike.
"""

import time

import numpy as np

from .. import get_num_threads
from ..models import RBM
from ._common import Report

EPOCHS = {"sklearn-digits": 20}
HIDDEN, RATE, BATCH = 100, 0.06, 10
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)


def nudged():
    """(images [N,64] in [0,1], labels): every digit and its copies moved by a pixel up, left, right and down."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, parts = digits.images.astype(np.float32), []
    for dy, dx in ((0, 0), (-1, 0), (0, -1), (0, 1), (1, 0)):
        moved = np.zeros_like(images)
        moved[:, max(dy, 0) : 8 + min(dy, 0), max(dx, 0) : 8 + min(dx, 0)] = images[
            :, max(-dy, 0) : 8 + min(-dy, 0), max(-dx, 0) : 8 + min(-dx, 0)
        ]
        parts.append(moved)
    x = np.concatenate(parts).reshape(-1, 64) / np.float32(16)
    return x, np.tile(digits.target, 5)


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    config.needs_no_checkpoint("digits-rbm-pipeline")
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import train_test_split
        from sklearn.neural_network import BernoulliRBM
        from sklearn.pipeline import Pipeline
    except ImportError as error:
        raise ImportError(
            "digits-rbm-pipeline: expected scikit-learn to be installed (pip install 'fastdl-nn[sklearn]'); got none"
        ) from error
    show, epochs = config.show or (lambda text: None), config.epochs or EPOCHS["sklearn-digits"]
    x, y = nudged()
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
    fit = train_test_split(x, y, test_size=0.2, random_state=1)
    ours = config.place(RBM(HIDDEN, seed=config.seed))

    def features(name):
        """A step of a pipeline, and its options of `fit`."""
        if name == "rbm":
            return ours, {"epochs": epochs, "lr": RATE, "batch_size": BATCH}
        if name == "sklearn_rbm":
            return BernoulliRBM(HIDDEN, learning_rate=RATE, batch_size=BATCH, n_iter=epochs, random_state=config.seed), {}
        return None, {}

    metrics = {}
    show(f"{'features':>12}  {'C':>7}  {'validation':>10}  {'test error':>10}  {'seconds':>8}")
    for name in ("pixels", "sklearn_rbm", "rbm"):
        step, options = features(name)
        begun = time.perf_counter()
        if step is not None:
            step.fit(fit[0], **options)
        spent = time.perf_counter() - begun

        def regress(c, part, labels, step=step):
            last = LogisticRegression(C=c, max_iter=1000)
            steps = [("features", step)] if step is not None else []
            shown = part if step is None else step.transform(part)
            return Pipeline([*steps, ("logistic", last.fit(shown, labels))])

        scores = [regress(c, fit[0], fit[2]).score(fit[1], fit[3]) for c in STRENGTHS]
        best = STRENGTHS[int(np.argmax(scores))]
        error = 1 - regress(best, x, y).score(x_test, y_test)
        metrics |= {f"{name}_error": error, f"{name}_seconds": spent, f"{name}_validation_accuracy": max(scores)}
        show(f"{name:>12}  {best:7g}  {max(scores):10.4f}  {error:10.4f}  {spent:8.1f}")
    metrics["test_accuracy"] = 1 - metrics["rbm_error"]
    settings = {
        "data_set": "scikit-learn's digits, nudged",
        "splits": {"train": len(fit[0]), "validation": len(fit[1]), "test": len(x_test)},
        "epochs": epochs, "lr": RATE, "batch_size": BATCH, "hidden": HIDDEN, "seed": config.seed,
        "threads": get_num_threads(),
    }  # fmt: skip
    return Report(metrics, settings, ours, (x_test, y_test), tuple("0123456789"))
