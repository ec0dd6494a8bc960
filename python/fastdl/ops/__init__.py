"""Differentiable operations: each one calls a kernel forward and records the call of its backward kernel.

Inputs named x are Tensors; parameters w, b, gamma, ... are Tensors or None. Shapes follow `csrc/kernels.h`: samples first,
channels last, weights [in, out].
"""

from numbers import Real

import numpy as np

from .._arguments import pair
from ..backend import empty, full, kernels
from ..tensor import Tensor, record, recording
from .recurrent import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell  # noqa: F401

# ---------------------------------------------------------------------------------------------------- products


def _data(t):
    return None if t is None else t.data


def _parents(*tensors):
    return tuple(t for t in tensors if t is not None)


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
    k, xd, wd = kernels(x.data), x.data, w.data
    if act == "gelu" and recording():
        saved = empty((*xd.shape[:-1], wd.shape[-1]), xd)
        y = k.dense_forward(xd, wd, _data(b), act, slope, z=saved)
    else:
        saved = y = k.dense_forward(xd, wd, _data(b), act, slope)

    def step(dy):
        k.dense_backward(
            xd, wd, saved, dy, act, slope, None, *x.slot(), *w.slot(), *((None, 0.0) if b is None else b.slot())
        )

    return record(y, (x, w) if b is None else (x, w, b), step)


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


# ------------------------------------------------------------------------------------------------- convolution


def _through_activation(k, saved, dy, act, slope):
    """Gradient before the activation of a fused layer."""
    if act == "none":
        return dy
    return k.activation_backward(saved, dy, act, slope)


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, act="none", slope=0.01):
    """Two-dimensional convolution with fused bias and activation.

    Parameters
    ----------
    x : Tensor [N,Y,X,C]
    w : Tensor [R,S,C/groups,F]
    b : Tensor [F], optional
    stride, padding, dilation : int or (int, int)
        Rows, columns.

    Returns
    -------
    Tensor [N,P,Q,F]
        P = (Y + 2 padding - dilation (R-1) - 1) / stride + 1.
    """
    k, xd, wd = kernels(x.data), x.data, w.data
    at = (*pair("stride", stride), *pair("padding", padding), *pair("dilation", dilation), groups)
    keep_z = act == "gelu" and recording()
    y = k.conv2d_forward(xd, wd, _data(b), *at, "none" if keep_z else act, slope)
    saved = y
    if keep_z:
        y = k.activation_forward(saved, act, slope)

    def step(dy):
        dz = _through_activation(k, saved, dy, act, slope)
        dw, beta_w = w.slot()
        db, beta_b = (None, 0.0) if b is None else b.slot()
        if dw is not None or db is not None:
            if dw is None:
                _sum_into(k, dz, db, beta_b)
            else:
                k.conv2d_backward_weight(xd, dz, *at, None, dw, beta_w, db, beta_b)
        dx, beta = x.slot()
        if dx is not None:
            k.conv2d_backward_data(dz, wd, *at, None, dx, beta)

    return record(y, _parents(x, w, b), step)


def _sum_into(k, dz, db, beta):
    """Column sums of dz into db (+ beta db)."""
    total = k.reduce_forward(dz.reshape(1, -1, dz.shape[-1]), "sum")
    k.axpby(1.0, total.reshape(-1), beta, db)


def conv_transpose2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, out_padding=0, act="none", slope=0.01):
    """Transposed convolution with fused bias and activation.

    Parameters
    ----------
    x : Tensor [N,P,Q,F]
    w : Tensor [R,S,C/groups,F]
        Output channels C before input channels F.
    b : Tensor [C], optional
    out_padding : int or (int, int)
        Rows and columns more than the smallest output.

    Returns
    -------
    Tensor [N,Y,X,C]
        Y = (P-1) stride - 2 padding + dilation (R-1) + 1 + out_padding.
    """
    k, xd, wd = kernels(x.data), x.data, w.data
    at = (*pair("stride", stride), *pair("padding", padding), *pair("dilation", dilation), groups)
    more = pair("out_padding", out_padding)
    shape = [
        (xd.shape[i + 1] - 1) * at[i] - 2 * at[2 + i] + at[4 + i] * (wd.shape[i] - 1) + 1 + more[i] for i in (0, 1)
    ]
    keep_z = act == "gelu" and recording()
    y = empty((xd.shape[0], *shape, wd.shape[2] * groups), xd)
    k.conv_transpose2d_forward(xd, wd, _data(b), *at, "none" if keep_z else act, slope, None, y)
    saved = y
    if keep_z:
        y = k.activation_forward(saved, act, slope)

    def step(dy):
        dz = _through_activation(k, saved, dy, act, slope)
        dw, beta = w.slot()
        if dw is not None:
            k.conv2d_backward_weight(dz, xd, *at, None, dw, beta, None, 0.0)
        db, beta = (None, 0.0) if b is None else b.slot()
        if db is not None:
            _sum_into(k, dz, db, beta)
        dx, beta = x.slot()
        if dx is not None:
            result = dx if beta == 0.0 else empty(dx.shape, dx)
            k.conv2d_forward(dz, wd, None, *at, "none", 0.0, None, result)
            if result is not dx:
                k.axpby(1.0, result, beta, dx)

    return record(y, _parents(x, w, b), step)


def conv1d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, act="none", slope=0.01):
    """One-dimensional convolution over x [N,T,C] with filters w [S,C/groups,F]; gives [N,Q,F]."""
    n, t, c = x.shape
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


# ----------------------------------------------------------------------------------------------------- pooling


def max_pool2d(x, size=2, stride=None, padding=0):
    """Maximum of each window of x [N,Y,X,C]; stride is the window's size if left out."""
    k, xd = kernels(x.data), x.data
    size = pair("size", size)
    at = (*size, *pair("stride", size if stride is None else stride), *pair("padding", padding))
    if not (recording() and x.wants_grad):
        return Tensor(k.max_pool2d_forward(xd, *at))
    shape = (
        xd.shape[0],
        (xd.shape[1] + 2 * at[4] - at[0]) // at[2] + 1,
        (xd.shape[2] + 2 * at[5] - at[1]) // at[3] + 1,
        xd.shape[3],
    )
    where = empty(tuple(max(s, 0) for s in shape), xd, np.uint8)
    y = empty(where.shape, xd)
    k.max_pool2d_forward(xd, *at, y, where)

    def step(dy):
        k.max_pool2d_backward(where, dy, *at, *x.slot())

    return record(y, (x,), step)


def avg_pool2d(x, size=2, stride=None, padding=0, count_padding=True):
    """Mean of each window of x [N,Y,X,C]; stride is the window's size if left out."""
    k, xd = kernels(x.data), x.data
    size = pair("size", size)
    at = (*size, *pair("stride", size if stride is None else stride), *pair("padding", padding), count_padding)
    y = k.avg_pool2d_forward(xd, *at)

    def step(dy):
        k.avg_pool2d_backward(dy, *at, *x.slot())

    return record(y, (x,), step)


def global_avg_pool2d(x):
    """Mean over all pixels: [N,Y,X,C] to [N,C]."""
    n, rows, columns, c = x.shape
    return _reduce(x, (n, rows * columns, c), "mean", (n, c))


def global_max_pool2d(x):
    """Maximum over all pixels: [N,Y,X,C] to [N,C]."""
    n, rows, columns, c = x.shape
    return _reduce(x, (n, rows * columns, c), "max", (n, c))


# ----------------------------------------------------------------------------------------------- normalisation


def _slots(*tensors):
    out = []
    for t in tensors:
        out += (None, 0.0) if t is None else t.slot()
    return out


def batch_norm(x, gamma, shift, running_mean, running_var, training, eps=1e-5, momentum=0.1):
    """Batch normalisation of x [n...,C].

    While training the batch's own statistics are used and the running ones (arrays, updated in place) move by `momentum`;
    otherwise the running ones are used.
    """
    k, xd = kernels(x.data), x.data
    g, s = _data(gamma), _data(shift)
    if training:
        y, mean, rstd = k.batch_norm_forward(xd, g, s, eps, momentum, None, running_mean, running_var)

        def step(dy):
            k.batch_norm_backward(xd, g, mean, rstd, dy, None, *_slots(x, gamma, shift))
    else:
        y = k.batch_norm_inference(xd, g, s, running_mean, running_var, eps)

        def step(dy):
            # constants here: dx = dy gamma rstd, dgamma = sum dy xhat, dshift = sum dy
            c = xd.shape[-1]
            var = k.binary(running_var.reshape(c, 1), full((1,), xd, eps), "add")
            rstd = k.unary_forward(k.unary_forward(var.reshape(c), "sqrt"), "reciprocal")
            flat = dy.reshape(-1, c)
            dx, beta = x.slot()
            if dx is not None:
                scale = rstd if g is None else k.binary(rstd.reshape(1, c), g, "multiply").reshape(c)
                k.axpby(1.0, k.binary(flat, scale, "multiply").reshape(dx.shape), beta, dx)
            for t in (gamma, shift):
                out, beta = (None, 0.0) if t is None else t.slot()
                if out is None:
                    continue
                terms = flat
                if t is gamma:
                    centred = k.binary(k.binary(xd.reshape(-1, c), running_mean, "subtract"), rstd, "multiply")
                    terms = k.binary(centred.reshape(1, -1), flat.reshape(-1), "multiply").reshape(flat.shape)
                _sum_into(k, terms, out, beta)

    return record(y, _parents(x, gamma, shift), step)


def layer_norm(x, gamma=None, shift=None, eps=1e-5):
    """Layer normalisation: each row of x [n...,C] over its C values."""
    k, xd, g = kernels(x.data), x.data, _data(gamma)
    y, mean, rstd = k.layer_norm_forward(xd, g, _data(shift), eps)

    def step(dy):
        k.layer_norm_backward(xd, g, mean, rstd, dy, None, *_slots(x, gamma, shift))

    return record(y, _parents(x, gamma, shift), step)


def dropout(x, p, stream):
    """Drop each element with probability p, scale the rest by 1/(1-p); `stream` gives the random numbers."""
    k = kernels(x.data)
    seed, offset = stream.take(x.data.size)
    y = k.dropout_forward(x.data, p, seed, offset)

    def step(dy):
        k.dropout_backward(dy, p, seed, offset, *x.slot())

    return record(y, (x,), step)


# ------------------------------------------------------------------------------------------------ element-wise


def activation(x, act, slope=0.01):
    """act(x), element by element."""
    k, xd = kernels(x.data), x.data
    y = k.activation_forward(xd, act, slope)
    saved = xd if act == "gelu" else y

    def step(dy):
        k.activation_backward(saved, dy, act, slope, *x.slot())

    return record(y, (x,), step)


def relu(x):
    """max(x, 0)."""
    return activation(x, "relu")


def leaky_relu(x, slope=0.01):
    """x, times slope where it is negative."""
    return activation(x, "leaky_relu", slope)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return activation(x, "sigmoid")


def tanh(x):
    """Hyperbolic tangent."""
    return activation(x, "tanh")


def gelu(x):
    """x times the normal distribution function of x (Hendrycks & Gimpel 2016)."""
    return activation(x, "gelu")


def unary(x, op):
    """One of negate, abs, square, sqrt, reciprocal, exp, log, softplus, sin, cos."""
    k, xd = kernels(x.data), x.data

    def step(dy):
        k.unary_backward(xd, dy, op, *x.slot())

    return record(k.unary_forward(xd, op), (x,), step)


def exp(x):
    """e to the x."""
    return unary(x, "exp")


def log(x):
    """Natural logarithm."""
    return unary(x, "log")


def square(x):
    """x times x."""
    return unary(x, "square")


def sqrt(x):
    """Square root."""
    return unary(x, "sqrt")


def _operand(y, like):
    """A Tensor from a Tensor or a number."""
    if isinstance(y, Tensor):
        return y
    if not (isinstance(y, Real) or (isinstance(y, np.ndarray) and y.ndim == 0)):
        raise TypeError(f"y: expected a Tensor or a number; got {type(y).__name__}")
    return Tensor(full((1,), like, y))


def _arithmetic(x, y, op):
    """x op y, where y has x's shape, or its last axes, or one element."""
    if not isinstance(x, Tensor):
        x = _operand(x, y.data)
        if op in ("add", "multiply"):
            x, y = y, x
        else:  # a number minus, or divided by, a tensor
            x = Tensor(full(y.shape, y.data, x.item()))
    y = _operand(y, x.data)
    k, xd, yd = kernels(x.data), x.data, y.data
    if yd.size == 1:
        n = 1
    elif yd.shape == xd.shape[xd.ndim - yd.ndim :]:
        n = yd.size
    elif op in ("add", "multiply") and xd.shape == yd.shape[yd.ndim - xd.ndim :]:
        return _arithmetic(y, x, op)
    else:
        raise ValueError(f"y: expected shape {list(xd.shape)}, its last axes, or one element; got {list(yd.shape)}")
    flat, row = xd.reshape(-1, n) if n else xd.reshape(0, 0), yd.reshape(n)
    z = k.binary(flat, row, op).reshape(xd.shape)

    def step(dy):
        d = dy.reshape(flat.shape)
        dx, beta = x.slot()
        if dx is not None:
            dx = dx.reshape(flat.shape)
            if op in ("add", "subtract"):
                k.axpby(1.0, d, beta, dx)
            else:
                k.axpby(1.0, k.binary(d, row, op), beta, dx)
        out, beta = y.slot()
        if out is None:
            return
        if op in ("add", "subtract"):
            terms = d
        else:
            terms = k.binary(d.reshape(1, -1), flat.reshape(-1), "multiply").reshape(flat.shape)
            if op == "divide":  # -x / y^2
                terms = k.binary(terms, k.unary_forward(row, "square"), "divide")
        total = k.reduce_forward(terms.reshape(1, *terms.shape), "sum")
        sign = 1.0 if op in ("add", "multiply") else -1.0
        k.axpby(sign, total.reshape(out.shape), beta, out)

    return record(z, (x, y), step)


def add(x, y):
    """x + y; y may also be the last axes of x, or a number."""
    return _arithmetic(x, y, "add")


def subtract(x, y):
    """x - y."""
    return _arithmetic(x, y, "subtract")


def multiply(x, y):
    """x * y."""
    return _arithmetic(x, y, "multiply")


def divide(x, y):
    """x / y."""
    return _arithmetic(x, y, "divide")


# -------------------------------------------------------------------------------------------------- reductions


def _reduce(x, middle, op, shape):
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
        return _reduce(x, (1, x.data.size, 1), op, (1,))
    shape = x.shape
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis: expected -{len(shape)} to {len(shape) - 1}; got {axis}")
    axis %= len(shape)
    outer, inner = int(np.prod(shape[:axis], dtype=np.int64)), int(np.prod(shape[axis + 1 :], dtype=np.int64))
    return _reduce(x, (outer, shape[axis], inner), op, shape[:axis] + shape[axis + 1 :])


def sum(x, axis=None):
    """Sum over one axis or all."""
    return reduce(x, "sum", axis)


def mean(x, axis=None):
    """Mean over one axis or all."""
    return reduce(x, "mean", axis)


# ------------------------------------------------------------------------------------------------------ shapes


def reshape(x, shape):
    """The same elements under another shape."""
    xd = x.data
    y = xd.reshape(shape)

    def step(dy):
        dx, beta = x.slot()
        kernels(xd).axpby(1.0, dy.reshape(xd.shape), beta, dx)

    return record(y, (x,), step)


def flatten(x):
    """[N,...] to [N,the rest]."""
    n = x.shape[0]
    return reshape(x, (n, x.data.size // n if n else int(np.prod(x.shape[1:], dtype=np.int64))))


def concatenate(tensors, axis=-1):
    """Join tensors along one axis; the other axes agree."""
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("tensors: expected at least one; got none")
    first = tensors[0].shape
    ndim = len(first)
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis: expected -{ndim} to {ndim - 1}; got {axis}")
    axis %= ndim
    for i, t in enumerate(tensors):
        if len(t.shape) != ndim or t.shape[:axis] + t.shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
            raise ValueError(f"tensors[{i}]: expected shape {list(first)} but for axis {axis}; got {list(t.shape)}")
    k, like = kernels(tensors[0].data), tensors[0].data
    rows = int(np.prod(first[:axis], dtype=np.int64))
    inner = int(np.prod(first[axis + 1 :], dtype=np.int64))
    widths = [t.shape[axis] * inner for t in tensors]
    total = np.sum([t.shape[axis] for t in tensors])
    y = empty((*first[:axis], int(total), *first[axis + 1 :]), like)
    flat = y.reshape(rows, -1) if y.size else y.reshape(rows, 0 if rows else int(np.sum(widths)))
    places = np.cumsum([0, *widths[:-1]]).tolist()
    for t, at, width in zip(tensors, places, widths, strict=True):
        k.put_columns(t.data.reshape(rows, width), at, flat)

    def step(dy):
        d = dy.reshape(flat.shape)
        for t, at, width in zip(tensors, places, widths, strict=True):
            dx, beta = t.slot()
            if dx is not None:
                k.get_columns(d, at, dx.reshape(rows, width), beta)

    return record(y, tensors, step)


def embedding(table, index):
    """Rows table[index] of a Tensor [L,D], for an int64 array `index` of any shape."""
    k = kernels(table.data)
    y = k.embedding_forward(table.data, index)

    def step(dy):
        k.embedding_backward(index, dy, *table.slot())

    return record(y, (table,), step)


# ------------------------------------------------------------------------------------------------------ losses


def softmax(x):
    """Softmax over the last axis."""
    return _softmax(x, False)


def log_softmax(x):
    """Logarithm of the softmax over the last axis."""
    return _softmax(x, True)


def _softmax(x, logarithm):
    k = kernels(x.data)
    y = k.softmax_forward(x.data, logarithm)

    def step(dy):
        k.softmax_backward(y, dy, logarithm, *x.slot())

    return record(y, (x,), step)


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
    by_row = reduction == "none"
    how = "mean" if by_row else reduction
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
    by_element = reduction == "none"
    how = "mean" if by_element else reduction
    elements = empty(xd.shape, xd) if by_element else None
    loss = k.loss_forward(xd, t, weights, kind, delta, how, elements=elements)

    def step(dy):
        k.loss_backward(xd, t, weights, dy.reshape(-1), kind, delta, how, by_element, None, *x.slot())

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


Tensor.__add__ = Tensor.__radd__ = add
Tensor.__sub__ = subtract
Tensor.__rsub__ = lambda self, other: subtract(other, self)
Tensor.__mul__ = Tensor.__rmul__ = multiply
Tensor.__truediv__ = divide
Tensor.__rtruediv__ = lambda self, other: divide(other, self)
Tensor.__neg__ = lambda self: unary(self, "negate")
Tensor.__matmul__ = matmul
Tensor.reshape = reshape
Tensor.sum = sum
Tensor.mean = mean
