"""Softmax and losses."""

from .._arguments import one_of
from ..backend import empty, kernels
from ..tensor import DY, Tensor, record, record_kernel, recording


def softmax(x):
    """Softmax over the last axis."""
    return _softmax(x, False)


def log_softmax(x):
    """Logarithm of the softmax over the last axis."""
    return _softmax(x, True)


def _softmax(x, logarithm):
    k = kernels(x.data)
    y = k.softmax_forward(x.data, logarithm)
    return record_kernel(y, k.softmax_backward, y, DY, logarithm, x)


def _how(reduction):
    """(whether the single losses are wanted, the kernel's reduction)."""
    if reduction == "none":
        return True, "mean"
    return False, one_of("reduction", reduction, ("mean", "sum", "none"))


def softmax_cross_entropy(x, labels, weights=None, smoothing=0.0, reduction="mean"):
    """Cross entropy of softmax(x) against labels, in nats.

    Parameters
    ----------
    x : Tensor [n...,C]
        Logits.
    labels : int64 array [n...]
        Classes; -1 is not counted.
    weights : float32 array [n...], optional
        Weight of each sample.
    smoothing : float
        Share of the target spread over all classes.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of the counted weights; 'none' gives each sample's unweighted loss.

    Returns
    -------
    Tensor [1], or [n...] for 'none'
    """
    k, xd = kernels(x.data), x.data
    by_row, how = _how(reduction)
    p = empty(xd.shape, xd) if recording() and x.wants_grad else None
    rows = empty(xd.shape[:-1], xd) if by_row else None
    loss = k.softmax_cross_entropy_forward(xd, labels, weights, smoothing, how, rows=rows, p=p)

    def step(dy):
        k.softmax_cross_entropy_backward(p, labels, weights, dy.reshape(-1), smoothing, how, by_row, None, *x.slot())

    return record(rows if by_row else loss, (x,), step)


def _loss(x, target, kind, weights, reduction, delta=1.0):
    k, xd = kernels(x.data), x.data
    t = target
    if isinstance(target, Tensor):
        if target.wants_grad and recording():
            raise ValueError("target: expected values without a gradient (Tensor.detach); got a Tensor that wants one")
        t = target.data
    by_element, how = _how(reduction)
    elements = empty(xd.shape, xd) if by_element else None
    loss = k.loss_forward(xd, t, weights, kind, delta, how, elements=elements)

    def step(dy):
        k.loss_backward(xd, t, weights, dy if dy.ndim == 1 else dy.reshape(-1), kind, delta, how, by_element, None, *x.slot())

    return record(elements if by_element else loss, (x,), step)


def binary_cross_entropy(x, target, weights=None, reduction="mean"):
    """Binary cross entropy of sigmoid(x) against targets in [0, 1], in nats; x are logits."""
    return _loss(x, target, "binary_cross_entropy", weights, reduction)


def mse(x, target, weights=None, reduction="mean"):
    """Squared error."""
    return _loss(x, target, "squared_error", weights, reduction)


def mae(x, target, weights=None, reduction="mean"):
    """Absolute error."""
    return _loss(x, target, "absolute_error", weights, reduction)


def huber(x, target, delta=1.0, weights=None, reduction="mean"):
    """d^2/2 up to |d| = delta, linear beyond (Huber 1964)."""
    return _loss(x, target, "huber", weights, reduction, delta)


def hinge(x, target, weights=None, reduction="mean"):
    """max(0, 1 - t x) for targets t of -1 and 1."""
    return _loss(x, target, "hinge", weights, reduction)
