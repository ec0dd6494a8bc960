"""Every kernel in plain NumPy: the definition that all targets are held against.

Written from the papers, slow and obvious, never from a kernel. A function has its kernel's name and takes the kernel's inputs
and attributes by name (no outputs, no workspace, no beta); it returns what the kernel returns: one array, or a dict from
output name to array. It computes in the dtype of its inputs, so that the same lines serve as the definition (float64) and as
the yardstick of what float32 can reach.
"""

import numpy as np


def erf(x):
    """The error function by its series (small |x|) and continued fraction (large |x|): Abramowitz & Stegun 7.1.5, 7.1.14."""
    from math import erf as scalar

    return np.vectorize(scalar, otypes=[x.dtype])(x) if x.size else x.copy()


def act(z, act="none", slope=0.01):
    """Activation of a pre-activation."""
    if act == "none":
        return z.copy()
    if act == "relu":
        return np.maximum(z, z.dtype.type(0))
    if act == "leaky_relu":
        return np.where(z > 0, z, z * z.dtype.type(slope))
    if act == "sigmoid":
        e = np.exp(-np.abs(z))
        return np.where(z >= 0, 1 / (1 + e), e / (1 + e)).astype(z.dtype)
    if act == "tanh":
        return np.tanh(z)
    if act == "gelu":
        return (z * (1 + erf(z / np.sqrt(z.dtype.type(2)))) / 2).astype(z.dtype)
    raise ValueError(act)


def act_grad(saved, act="none", slope=0.01):
    """Derivative of the activation from what its layer saved: the output, for gelu the pre-activation."""
    one = saved.dtype.type(1)
    if act == "none":
        return np.ones_like(saved)
    if act == "relu":
        return (saved > 0).astype(saved.dtype)
    if act == "leaky_relu":
        return np.where(saved > 0, one, saved.dtype.type(slope))
    if act == "sigmoid":
        return saved * (1 - saved)
    if act == "tanh":
        return 1 - saved * saved
    if act == "gelu":
        density = np.exp(-saved * saved / 2) / np.sqrt(saved.dtype.type(2 * np.pi))
        return ((1 + erf(saved / np.sqrt(saved.dtype.type(2)))) / 2 + saved * density).astype(saved.dtype)
    raise ValueError(act)


# -------------------------------------------------------------------------------------------------------- products


def matmul(a, b, trans_a=False, trans_b=False):
    a = np.swapaxes(a, -1, -2) if trans_a else a
    b = np.swapaxes(b, -1, -2) if trans_b else b
    return a @ b


def dense_forward(x, w, b=None, act="none", slope=0.01):
    z = x @ w + (0 if b is None else b)
    return {"y": globals()["act"](z, act, slope), "z": z}


def dense_backward(x, w, saved, dy, act="none", slope=0.01):
    dz = dy * act_grad(saved, act, slope)
    flat = dz.reshape(-1, dz.shape[-1])
    return {"dx": dz @ w.T, "dw": x.reshape(-1, x.shape[-1]).T @ flat, "db": flat.sum(0)}

# ----------------------------------------------------------------------------------------------------- convolution


def _taps(x, R, S, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x):
    """The padded image, and for each tap (r, s) the index of the P x Q pixels of it that the tap reads."""
    padded = np.pad(x, ((0, 0), (pad_y, pad_y), (pad_x, pad_x), (0, 0)))
    places = {}
    for r in range(R):
        for s in range(S):
            rows = slice(r * dilation_y, r * dilation_y + (P - 1) * stride_y + 1, stride_y)
            columns = slice(s * dilation_x, s * dilation_x + (Q - 1) * stride_x + 1, stride_x)
            places[r, s] = (slice(None), rows, columns)
    return padded, places


def _group(a, g, groups):
    """Channels of group g: the g-th of equal parts of the last axis."""
    size = a.shape[-1] // groups
    return a[..., g * size : (g + 1) * size]


def conv2d_forward(x, w, b=None, stride_y=1, stride_x=1, pad_y=0, pad_x=0, dilation_y=1, dilation_x=1, groups=1, act="none",
                   slope=0.01):
    R, S, _, F = w.shape
    P = (x.shape[1] + 2 * pad_y - dilation_y * (R - 1) - 1) // stride_y + 1
    Q = (x.shape[2] + 2 * pad_x - dilation_x * (S - 1) - 1) // stride_x + 1
    padded, places = _taps(x, R, S, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x)
    z = np.zeros((len(x), P, Q, F), x.dtype)
    for (r, s), place in places.items():
        for g in range(groups):
            _group(z, g, groups)[...] += _group(padded[place], g, groups) @ _group(w[r, s], g, groups)
    if b is not None:
        z = z + b
    return {"y": globals()["act"](z, act, slope), "z": z}


def conv2d_backward_data(dy, w, stride_y=1, stride_x=1, pad_y=0, pad_x=0, dilation_y=1, dilation_x=1, groups=1, out_pad_y=0,
                         out_pad_x=0):
    R, S, C, _ = w.shape
    _, P, Q, _ = dy.shape
    Y = (P - 1) * stride_y - 2 * pad_y + dilation_y * (R - 1) + 1 + out_pad_y
    X = (Q - 1) * stride_x - 2 * pad_x + dilation_x * (S - 1) + 1 + out_pad_x
    dx = np.zeros((len(dy), Y, X, C * groups), dy.dtype)
    padded, places = _taps(dx, R, S, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x)
    for (r, s), place in places.items():
        for g in range(groups):
            _group(padded[place], g, groups)[...] += _group(dy, g, groups) @ _group(w[r, s], g, groups).T
    return np.ascontiguousarray(padded[:, pad_y : pad_y + Y, pad_x : pad_x + X])


def conv2d_backward_weight(x, dy, stride_y=1, stride_x=1, pad_y=0, pad_x=0, dilation_y=1, dilation_x=1, groups=1, R=None, S=None):
    """Without R and S: the largest filter that makes dy's image out of x's."""
    _, P, Q, F = dy.shape
    R = (x.shape[1] + 2 * pad_y - 1 - (P - 1) * stride_y) // dilation_y + 1 if R is None else R
    S = (x.shape[2] + 2 * pad_x - 1 - (Q - 1) * stride_x) // dilation_x + 1 if S is None else S
    C = x.shape[-1] // groups
    padded, places = _taps(x, R, S, P, Q, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x)
    dw = np.zeros((R, S, C, F), x.dtype)
    for (r, s), place in places.items():
        for g in range(groups):
            columns = _group(padded[place], g, groups).reshape(-1, C)
            _group(dw[r, s], g, groups)[...] = columns.T @ _group(dy, g, groups).reshape(-1, F // groups)
    return {"dw": dw, "db": dy.reshape(-1, F).sum(0)}


def conv_transpose2d_forward(x, w, b=None, stride_y=1, stride_x=1, pad_y=0, pad_x=0, dilation_y=1, dilation_x=1, groups=1,
                             act="none", slope=0.01, out_pad_y=0, out_pad_x=0):
    z = conv2d_backward_data(x, w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups, out_pad_y, out_pad_x)
    if b is not None:
        z = z + b
    return {"y": globals()["act"](z, act, slope), "z": z}



def axpby(a, x, b):
    return x.dtype.type(a) * x
