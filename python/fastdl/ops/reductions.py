"""Sums, means and extremes."""

import numpy as np

from ..backend import kernels
from ..tensor import record


def reduce_middle(x, middle, op, shape):
    k, xd = kernels(x.data), x.data.reshape(middle)
    y = k.reduce_forward(xd, op)
    inner = y.shape

    def step(dy):
        dx, beta = x.slot()
        k.reduce_backward(xd, y.reshape(inner), dy.reshape(inner), op, dx.reshape(middle), beta)

    return record(y.reshape(shape), (x,), step)


def reduce(x, op, axis=None):
    """Sum, mean, max or min over one axis, or over all (result of shape [1])."""
    if axis is None:
        return reduce_middle(x, (1, -1, 1), op, (1,))
    shape = x.shape
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis: expected -{len(shape)} to {len(shape) - 1}; got {axis}")
    axis %= len(shape)
    outer, inner = int(np.prod(shape[:axis], dtype=np.int64)), int(np.prod(shape[axis + 1 :], dtype=np.int64))
    return reduce_middle(x, (outer, shape[axis], inner), op, shape[:axis] + shape[axis + 1 :])


def sum(x, axis=None):
    """Sum over one axis or all."""
    return reduce(x, "sum", axis)


def mean(x, axis=None):
    """Mean over one axis or all."""
    return reduce(x, "mean", axis)
