"""Convolutions and their transposes."""

from .._arguments import pair
from ..backend import empty, kernels
from ..tensor import record, recording
from ._common import absent_or, data_of, parents, shape_as, sum_into, through_activation
from .shapes import reshape


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, act="none", slope=0.01):
    """Two-dimensional convolution with fused bias and activation.

    Parameters
    ----------
    x : Tensor [N,Y,X,C]
    w : Tensor [R,S,C/groups,F]
    b : Tensor [F], optional
    stride, padding, dilation : int or (int, int)
        Rows, columns.
    groups : int
        Channels and filters are split into that many independent groups.
    act, slope
        As in `dense`.

    Returns
    -------
    Tensor [N,P,Q,F]
        P = (Y + 2 padding - dilation (R-1) - 1) / stride + 1.
    """
    k, xd, wd = kernels(x.data), x.data, w.data
    at = (*pair("stride", stride), *pair("padding", padding), *pair("dilation", dilation), groups)
    keep_z = act == "gelu" and recording()
    y = k.conv2d_forward(xd, wd, data_of(b), *at, "none" if keep_z else act, slope)
    saved = y
    if keep_z:
        y = k.activation_forward(saved, act, slope)

    def step(dy):
        dz = through_activation(k, saved, dy, act, slope)
        dw, beta_w = w.slot()
        db, beta_b = absent_or(b).slot()
        if dw is not None or db is not None:
            if dw is None:
                sum_into(k, dz, db, beta_b)
            else:
                k.conv2d_backward_weight(xd, dz, *at, None, dw, beta_w, db, beta_b)
        dx, beta = x.slot()
        if dx is not None:
            k.conv2d_backward_data(dz, wd, *at, None, dx, beta)

    return record(y, parents(x, w, b), step)


def conv_transpose2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, out_padding=0, act="none", slope=0.01):
    """Transposed convolution with fused bias and activation.

    Parameters
    ----------
    x : Tensor [N,P,Q,F]
    w : Tensor [R,S,C/groups,F]
        Output channels C before input channels F.
    b : Tensor [C], optional
    stride, padding, dilation, groups, act, slope
        As in `conv2d`, of which this is the way back.
    out_padding : int or (int, int)
        Rows and columns more than the smallest output.

    Returns
    -------
    Tensor [N,Y,X,C]
        Y = (P-1) stride - 2 padding + dilation (R-1) + 1 + out_padding.
    """
    k, xd, wd = kernels(x.data), x.data, w.data
    at = (*pair("stride", stride), *pair("padding", padding), *pair("dilation", dilation), groups)
    more, stride = pair("out_padding", out_padding), at[:2]
    for extra, s in zip(more, stride, strict=True):
        if extra < 0:
            raise ValueError(f"out_padding: expected 0 or more; got {extra}")
        if s <= extra > 0:  # a convolution of that image would give another row than those of x
            raise ValueError(f"out_padding: expected less than the stride, {s}; got {extra}")
    least = [(shape_as(x, "N,P,Q,F")[i + 1] - 1) * at[i] + at[4 + i] * (wd.shape[i] - 1) + 1 + more[i] for i in (0, 1)]
    shape = [n - 2 * p for n, p in zip(least, at[2:4], strict=True)]
    if min(shape) < 0:
        raise ValueError(f"padding: expected less, for an image of {least[0]}x{least[1]} without it; got {list(at[2:4])}")
    keep_z = act == "gelu" and recording()
    y = empty((xd.shape[0], *shape, wd.shape[2] * groups), xd)
    k.conv_transpose2d_forward(xd, wd, data_of(b), *at, "none" if keep_z else act, slope, None, y)
    saved = y
    if keep_z:
        y = k.activation_forward(saved, act, slope)

    def step(dy):
        dz = through_activation(k, saved, dy, act, slope)
        dw, beta = w.slot()
        if dw is not None:
            k.conv2d_backward_weight(dz, xd, *at, None, dw, beta, None, 0.0)
        db, beta = absent_or(b).slot()
        if db is not None:
            sum_into(k, dz, db, beta)
        dx, beta = x.slot()
        if dx is not None:
            result = dx if beta == 0.0 else empty(dx.shape, dx)
            k.conv2d_forward(dz, wd, None, *at, "none", 0.0, None, result)
            if result is not dx:
                k.axpby(1.0, result, beta, dx)

    return record(y, parents(x, w, b), step)


def conv1d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, act="none", slope=0.01):
    """One-dimensional convolution over x [N,T,C] with filters w [S,C/groups,F]; gives [N,Q,F]."""
    n, t, c = shape_as(x, "N,T,C")
    y = conv2d(
        reshape(x, (n, 1, t, c)),
        reshape(w, (1, *w.shape)),
        b,
        (1, stride),
        (0, padding),
        (1, dilation),
        groups,
        act,
        slope,
    )
    return reshape(y, (n, y.shape[2], y.shape[3]))
