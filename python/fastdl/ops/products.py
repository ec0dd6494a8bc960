"""Dense layers and matrix products."""

from ..backend import empty, kernels
from ..tensor import DY, record, record_kernel, recording
from ._common import absent_or


def dense(x, w, b=None, act="none", slope=0.01):
    """Dense layer y = act(x w + b).

    Parameters
    ----------
    x : Tensor [N...,I]
    w : Tensor [I,O]
    b : Tensor [O], optional
    act : {'none', 'relu', 'leaky_relu', 'sigmoid', 'tanh', 'gelu'}
    slope : float
        Of leaky_relu for negative values.

    Returns
    -------
    Tensor [N...,O]
    """
    xd, wd, bd = x.data, w.data, None if b is None else b.data
    k = kernels(xd)
    if act == "gelu" and recording():
        saved = empty((*xd.shape[:-1], wd.shape[-1]), xd)
        y = k.dense_forward(xd, wd, bd, act, slope, z=saved)
    else:
        saved = y = k.dense_forward(xd, wd, bd, act, slope)
    return record_kernel(y, k.dense_backward, xd, wd, saved, DY, act, slope, None, x, w, absent_or(b))


def matmul(a, b, trans_a=False, trans_b=False):
    """Matrix product over the last two axes, op(a) op(b); leading axes are a batch and must agree."""
    k, ad, bd = kernels(a.data), a.data, b.data
    y = k.matmul(ad, bd, trans_a, trans_b)

    def step(dy):
        da, beta = a.slot()
        if da is not None:
            if trans_a:
                k.matmul(bd, dy, trans_b, True, beta, da)
            else:
                k.matmul(dy, bd, False, not trans_b, beta, da)
        db, beta = b.slot()
        if db is not None:
            if trans_b:
                k.matmul(dy, ad, True, trans_a, beta, db)
            else:
                k.matmul(ad, dy, not trans_a, False, beta, db)

    return record(y, (a, b), step)
