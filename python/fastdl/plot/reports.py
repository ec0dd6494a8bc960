"""Pictures of a whole recipe."""

import numpy as np

from ._figure import canvas
from .images import filters, mistakes
from .training import learning_curve


def mnist_cnn_picture(path, history, weights, images, truth, probabilities, title="", names=None):
    """Learning curve, first-layer filters and worst mistakes in one PNG (or what the path's suffix says).

    Parameters
    ----------
    path : path
    history : dict
    weights : array [R,S,C,F]
        Of the first layer.
    images : array [N,Y,X,C]
    truth : int array [N]
    probabilities : array [N,classes]
    title : str
    names : sequence of str, optional

    Returns
    -------
    matplotlib Figure
    """
    figure = canvas((11, 6.5))
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    left, right = top.subplots(1, 2, width_ratios=(1.6, 1))
    learning_curve(history, left)
    left.set_title("learning curve")
    filters(weights, right)
    right.set_title("filters of the first layer")
    cells = bottom.subplots(2, 8, squeeze=False).reshape(-1)
    predicted = np.argmax(probabilities, axis=1)
    mistakes(images, truth, predicted, probabilities, cells, count=16, names=names or None)
    wrong = int(np.sum(predicted != np.asarray(truth)))
    bottom.suptitle(f"worst of {wrong} mistakes among {len(images)} test images", fontsize=10)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    return figure


def report_picture(path, report):
    """`mnist_cnn_picture` of a recipe's report.

    Parameters
    ----------
    path : path
    report : fastdl.recipes.Report

    Returns
    -------
    matplotlib Figure
    """
    if not hasattr(report, "recipe"):
        raise TypeError(f"report: expected a fastdl.recipes.Report; got {type(report).__name__}")
    images, truth = report.test
    model = report.model
    # a perceptron has outputs and no probabilities
    outputs = model.predict_proba(images) if report.probabilistic else _softmax(model.decision_function(images))
    first = next(w for w in model.get_weights().values() if w.ndim in (2, 4))
    title = f"{report.recipe}: test accuracy {report.metrics['test_accuracy']:.2%}"
    return mnist_cnn_picture(path, model.history_, first, images, truth, outputs, title, report.names)


def _softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
