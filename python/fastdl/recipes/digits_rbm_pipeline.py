"""Features of a Boltzmann machine beside raw pixels and scikit-learn's machine.

Task: scikit-learn's 8x8 digits, each also moved by a pixel in four directions, ten classes; a fifth is for testing, a fifth of
the rest for choosing the regression's C, for each way on its own. Each way is one Pipeline of scikit-learn: features, then
logistic regression, fitted as a whole to the training part for every C, and once more for the C that is best on the validation
part. Network: 64-100 Bernoulli units, persistent contrastive divergence; scikit-learn's BernoulliRBM with as many units and
epochs, the same rate and batches. Times are those of the last fit, features and regression together.

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
    x, x_valid, y, y_valid = train_test_split(x, y, test_size=0.2, random_state=1)
    machines = {
        "sklearn_rbm": lambda: BernoulliRBM(
            HIDDEN, learning_rate=RATE, batch_size=BATCH, n_iter=epochs, random_state=config.seed
        ),
        "rbm": lambda: config.place(RBM(HIDDEN, seed=config.seed)),
    }
    # What scikit-learn's machine has in its constructor ours takes in fit.
    options = {"rbm": {"rbm__epochs": epochs, "rbm__lr": RATE, "rbm__batch_size": BATCH}}

    def fitted(name, c):
        """The Pipeline of a way, fitted to the training part."""
        steps = [(name, machines[name]())] if name in machines else []
        pipeline = Pipeline([*steps, ("logistic", LogisticRegression(C=c, max_iter=1000))])
        return pipeline.fit(x, y, **options.get(name, {}))

    metrics, chosen = {}, {}
    show(f"{'features':>12}  {'C':>7}  {'validation':>10}  {'test error':>10}  {'seconds':>8}")
    for name in ("pixels", *machines):
        scores = [fitted(name, c).score(x_valid, y_valid) for c in STRENGTHS]
        best = chosen[name] = STRENGTHS[int(np.argmax(scores))]
        begun = time.perf_counter()
        pipeline = fitted(name, best)
        spent = time.perf_counter() - begun
        error = 1 - pipeline.score(x_test, y_test)
        metrics |= {f"{name}_error": error, f"{name}_seconds": spent, f"{name}_validation_accuracy": max(scores)}
        show(f"{name:>12}  {best:7g}  {max(scores):10.4f}  {error:10.4f}  {spent:8.1f}")
    metrics["test_accuracy"] = 1 - metrics["rbm_error"]
    settings = {
        "data_set": "scikit-learn's digits, nudged",
        "splits": {"train": len(x), "validation": len(x_valid), "test": len(x_test)},
        "epochs": epochs, "lr": RATE, "batch_size": BATCH, "hidden": HIDDEN, "C": chosen, "seed": config.seed,
        "threads": get_num_threads(),
    }  # fmt: skip
    return Report(metrics, settings, pipeline.named_steps["rbm"], (x_test, y_test), tuple("0123456789"))
