"""The multi-layer perceptron, and the same network once more by hand, from bare kernels."""

import math

import numpy as np

from .. import init, nn
from .._arguments import chance, sizes
from ..nn.activation import check_act
from ._supervised import Classifier, Regressor


class MLP(Classifier):
    """Dense layers with an activation, then softmax; trained by cross entropy.

        h = act(x w1 + b1) ... ;  p(class | x) = softmax(h wn + bn)

    Parameters
    ----------
    hidden : int or sequence of int
        Units of each hidden layer.
    act : {'relu', 'leaky_relu', 'sigmoid', 'tanh', 'gelu'}
    dropout : float
        Chance of dropping a hidden unit's output while training.
    norm : {None, 'batch', 'layer'}
        Normalise each hidden layer before its activation.
    input_dropout : float
        The same for inputs.
    seed : int
        Decides initial weights, order of samples and dropped units.

    References
    ----------
    Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors" (1986).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import MLP
    >>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    >>> model = MLP(hidden=(16,), act="tanh").fit(X, y, epochs=300, lr=0.05)
    >>> model.predict(X).tolist()
    [0, 1, 1, 0]
    """

    def __init__(self, hidden=(128,), act="relu", dropout=0.0, norm=None, input_dropout=0.0, seed=0):
        if norm is not None and not (isinstance(norm, str) and norm in ("batch", "layer")):
            raise ValueError(f"norm: expected None, 'batch' or 'layer'; got {norm!r}")
        self.hidden, self.act, self.norm = sizes("hidden", hidden), check_act(act), norm
        self.dropout, self.input_dropout = chance("dropout", dropout), chance("input_dropout", input_dropout)
        self.seed = seed

    def _make(self, input_shape, outputs):
        layers = [nn.Dropout(self.input_dropout)] if self.input_dropout else []
        for units in self.hidden:
            if self.norm is None:
                layers.append(nn.Dense(units, self.act))
            else:
                # The normalisation's shift takes the place of the bias.
                layers.append(nn.Dense(units, bias=False, init=init.get(None, self.act)))
                layers.append(nn.BatchNorm() if self.norm == "batch" else nn.LayerNorm())
                layers.append(nn.Activation(self.act))
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
        return nn.Sequential(*layers, nn.Dense(outputs))


class MLPRegressor(Regressor):
    """Dense layers with an activation, then linear outputs; trained by squared error. Arguments as in `MLP`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import MLPRegressor
    >>> x = np.linspace(-2, 2, 200)[:, None]
    >>> model = MLPRegressor((32,), "tanh").fit(x, 100 + 10 * np.sin(2 * x[:, 0]), epochs=150, lr=0.02)
    >>> model.score(x, 100 + 10 * np.sin(2 * x[:, 0])) > 0.98
    True
    """

    __init__ = MLP.__init__
    _make = MLP._make


def train_by_hand(x, y, w1, b1, w2, b2, steps, batch_size=64, lr=0.1):
    """What `MLP(hidden=(H,)).fit` does under plain gradient descent, written out with the kernels.

    Parameters
    ----------
    x : float32 array [N,I]
    y : int64 array [N]
        Classes 0 to O-1.
    w1 [I,H], b1 [H], w2 [H,O], b2 [O] : float32 arrays
        Changed in place.
    steps, batch_size : int
        Batches are taken in order, over and over.
    lr : float

    Returns
    -------
    list of float
        The loss of every batch before its update.
    """
    from .. import kernels as k

    losses, batches = [], math.ceil(len(x) / batch_size)
    for step in range(steps):
        at = step % batches * batch_size
        xb, yb = x[at : at + batch_size], y[at : at + batch_size]

        # forward: each layer is one kernel, bias and activation included
        h = k.dense_forward(xb, w1, b1, "relu")
        logits = k.dense_forward(h, w2, b2)
        p = np.empty_like(logits)
        loss = k.softmax_cross_entropy_forward(logits, yb, p=p)

        # backward: the same kernels' partners, last layer first
        dlogits = k.softmax_cross_entropy_backward(p, yb, None, np.ones(1, np.float32))
        dh, dw2, db2 = k.dense_backward(h, w2, logits, dlogits)
        _, dw1, db1 = k.dense_backward(xb, w1, h, dh, "relu")

        # update: w -= lr dw
        for w, dw in ((w1, dw1), (b1, db1), (w2, dw2), (b2, db2)):
            k.sgd(dw.reshape(-1), lr=lr, w=w.reshape(-1), v=None)
        losses.append(float(loss[0]))
    return losses
