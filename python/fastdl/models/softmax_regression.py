"""Softmax regression: the network without hidden layers."""

from .. import nn
from ._supervised import Classifier


class SoftmaxRegression(Classifier):
    """p(class | x) = softmax(x w + b), trained by cross entropy.

    Also known as multinomial logistic regression. Its loss is convex: with enough steps every seed ends at the same
    place.

    Parameters
    ----------
    seed : int
        Decides the order of samples (the weights start at 0).

    References
    ----------
    Cox, "The regression analysis of binary sequences" (1958); for networks Bridle, "Probabilistic interpretation of
    feedforward classification network outputs" (1990).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import SoftmaxRegression
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array(["low", "low", "high", "high"])
    >>> model = SoftmaxRegression().fit(X, y, epochs=200, lr=0.1)
    >>> model.predict(X).tolist()
    ['low', 'low', 'high', 'high']
    """

    def __init__(self, seed=0):
        self.seed = seed

    def _make(self, input_shape, outputs):
        return nn.Sequential(nn.Dense(outputs, init="zeros"))
