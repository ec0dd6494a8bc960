"""Pooling."""

import numpy as np

from .._arguments import pair
from ..backend import empty, kernels
from ..tensor import DY, Tensor, record_kernel, recording
from ._common import shape_as
from .reductions import reduce_middle


def max_pool2d(x, size=2, stride=None, padding=0):
    """Maximum of each window of x [N,Y,X,C]; stride is the window's size if left out."""
    k, xd = kernels(x.data), x.data
    size = pair("size", size)
    at = (*size, *pair("stride", size if stride is None else stride), *pair("padding", padding))
    if not (recording() and x.wants_grad):
        return Tensor(k.max_pool2d_forward(xd, *at))
    n, rows, columns, c = shape_as(x, "N,Y,X,C")
    shape = (  # the kernel refuses steps of 0
        n,
        (rows + 2 * at[4] - at[0]) // max(at[2], 1) + 1,
        (columns + 2 * at[5] - at[1]) // max(at[3], 1) + 1,
        c,
    )
    where = empty(tuple(max(s, 0) for s in shape), xd, np.uint8)
    y = empty(where.shape, xd)
    k.max_pool2d_forward(xd, *at, y, where)
    return record_kernel(y, k.max_pool2d_backward, where, DY, *at, x)


def avg_pool2d(x, size=2, stride=None, padding=0, count_padding=True):
    """Mean of each window of x [N,Y,X,C]; stride is the window's size if left out."""
    k, xd = kernels(x.data), x.data
    size = pair("size", size)
    at = (*size, *pair("stride", size if stride is None else stride), *pair("padding", padding), count_padding)
    return record_kernel(k.avg_pool2d_forward(xd, *at), k.avg_pool2d_backward, DY, *at, x)


def global_avg_pool2d(x):
    """Mean over all pixels: [N,Y,X,C] to [N,C]."""
    n, rows, columns, c = shape_as(x, "N,Y,X,C")
    return reduce_middle(x, (n, rows * columns, c), "mean", (n, c))


def global_max_pool2d(x):
    """Maximum over all pixels: [N,Y,X,C] to [N,C]."""
    n, rows, columns, c = shape_as(x, "N,Y,X,C")
    return reduce_middle(x, (n, rows * columns, c), "max", (n, c))
