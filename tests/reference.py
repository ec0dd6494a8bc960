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


def dense_backward(x, w, saved, dy, act="none", slope=0.01, **_):
    dz = dy * act_grad(saved, act, slope)
    rows = int(np.prod(dz.shape[:-1]))
    flat = dz.reshape(rows, dz.shape[-1])
    return {"dx": dz @ w.T, "dw": x.reshape(rows, x.shape[-1]).T @ flat, "db": flat.sum(0)}


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


def conv2d_forward(
    x, w, b=None, stride_y=1, stride_x=1, pad_y=0, pad_x=0, dilation_y=1, dilation_x=1, groups=1, act="none", slope=0.01
):
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


def conv2d_backward_data(
    dy, w, stride_y=1, stride_x=1, pad_y=0, pad_x=0, dilation_y=1, dilation_x=1, groups=1, out_pad_y=0, out_pad_x=0
):
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


def conv2d_backward_weight(
    x, dy, stride_y=1, stride_x=1, pad_y=0, pad_x=0, dilation_y=1, dilation_x=1, groups=1, R=None, S=None
):
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


def conv_transpose2d_forward(
    x,
    w,
    b=None,
    stride_y=1,
    stride_x=1,
    pad_y=0,
    pad_x=0,
    dilation_y=1,
    dilation_x=1,
    groups=1,
    act="none",
    slope=0.01,
    out_pad_y=0,
    out_pad_x=0,
):
    z = conv2d_backward_data(
        x, w, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, groups, out_pad_y, out_pad_x
    )
    if b is not None:
        z = z + b
    return {"y": globals()["act"](z, act, slope), "z": z}


def axpby(a, x, b):
    return x.dtype.type(a) * x


# ---------------------------------------------------------------------------------------------------- element-wise


def activation_forward(x, act="none", slope=0.01):
    return globals()["act"](x, act, slope)


def activation_backward(saved, dy, act="none", slope=0.01, **_):
    return dy * act_grad(saved, act, slope)


UNARY = {
    "negate": (np.negative, lambda x: -np.ones_like(x)),
    "abs": (np.abs, np.sign),
    "square": (np.square, lambda x: 2 * x),
    "sqrt": (np.sqrt, lambda x: 1 / (2 * np.sqrt(x))),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / (x * x)),
    "exp": (np.exp, np.exp),
    "log": (np.log, lambda x: 1 / x),
    "softplus": (lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), lambda x: act(x, "sigmoid")),
    "sin": (np.sin, np.cos),
    "cos": (np.cos, lambda x: -np.sin(x)),
}


def unary_forward(x, op):
    return UNARY[op][0](x)


def unary_backward(x, dy, op):
    return dy * UNARY[op][1](x)


BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "maximum": np.maximum,
          "minimum": np.minimum}  # fmt: skip


def binary(x, y, op):
    return BINARY[op](x, y)


def reduce_forward(x, op):
    empty = {"max": -np.inf, "min": np.inf, "mean": np.nan}
    if x.shape[1] == 0 and op in empty:
        return np.full((x.shape[0], x.shape[2]), empty[op], x.dtype)
    return {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}[op](x, axis=1)


def reduce_backward(x, y, dy, op):
    dx = np.zeros_like(x)
    if op in ("sum", "mean"):
        dx += dy[:, None, :] / (x.shape[1] if op == "mean" else 1)
    elif x.shape[1]:
        first = (x == y[:, None, :]).argmax(axis=1)
        np.put_along_axis(dx, first[:, None, :], dy[:, None, :], axis=1)
    return dx


def argmax(x):
    return np.argmax(x, axis=1)


def sum_squares(x):
    return np.sum(x * x).reshape(1)


def get_columns(x, at, n):
    return x[:, at : at + n]


# ------------------------------------------------------------------------------------------------- softmax, losses


def softmax_forward(x, log=False):
    d = x - x.max(axis=-1, keepdims=True)
    e = np.exp(d)
    s = e.sum(axis=-1, keepdims=True)
    return d - np.log(s) if log else e / s


def softmax_backward(y, dy, log=False, **_):
    if log:
        return dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def _target(labels, classes, smoothing, dtype):
    target = np.full((len(labels), classes), smoothing / classes, dtype)
    target[np.arange(len(labels)), np.maximum(labels, 0)] += dtype.type(1 - smoothing)
    target[labels < 0] = 0
    return target


def _reduced(losses, counted, weights, reduction):
    s = counted.astype(losses.dtype) * (1 if weights is None else weights)
    total = np.sum(s * losses)
    return (total / (np.sum(s) or 1) if reduction == "mean" else total).reshape(1)


def softmax_cross_entropy_forward(x, labels, weights=None, smoothing=0.0, reduction="mean"):
    log_p = softmax_forward(x, log=True)
    rows = -np.sum(_target(labels, x.shape[-1], smoothing, x.dtype) * log_p, axis=-1)
    return {"loss": _reduced(rows, labels >= 0, weights, reduction), "rows": rows, "p": np.exp(log_p)}


def softmax_cross_entropy_backward(p, labels, dloss, weights=None, smoothing=0.0, reduction="mean", by_row=False, **_):
    share = np.ones(len(labels), p.dtype)
    if by_row:
        share = dloss.copy()
    else:
        share = share if weights is None else weights.copy()
        share *= dloss / ((share[labels >= 0].sum() or 1) if reduction == "mean" else 1)
    share[labels < 0] = 0
    return (p - _target(labels, p.shape[-1], smoothing, p.dtype)) * share[:, None]


LOSS = {
    "binary_cross_entropy": (lambda x, t, _: np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x))),
                             lambda x, t, _: act(x, "sigmoid") - t),
    "squared_error": (lambda x, t, _: (x - t) ** 2, lambda x, t, _: 2 * (x - t)),
    "absolute_error": (lambda x, t, _: np.abs(x - t), lambda x, t, _: np.sign(x - t)),
    "huber": (lambda x, t, d: np.where(np.abs(x - t) <= d, (x - t) ** 2 / 2, d * (np.abs(x - t) - d / 2)).astype(x.dtype),
              lambda x, t, d: np.clip(x - t, -d, d)),
    "hinge": (lambda x, t, _: np.maximum(0, 1 - t * x), lambda x, t, _: np.where(t * x < 1, -t, 0).astype(x.dtype)),
}  # fmt: skip


def loss_forward(x, t, kind, weights=None, delta=1.0, reduction="mean"):
    elements = LOSS[kind][0](x, t, delta)
    return {"loss": _reduced(elements, np.ones(x.shape, bool), weights, reduction), "elements": elements}


def loss_backward(x, t, dloss, kind, weights=None, delta=1.0, reduction="mean", by_element=False):
    share = dloss
    if not by_element:
        s = np.ones_like(x) if weights is None else weights
        share = dloss * s / ((s.sum() or 1) if reduction == "mean" else 1)
    return LOSS[kind][1](x, t, delta) * share


# --------------------------------------------------------------------------------------------------- normalisation


def batch_norm_forward(x, gamma=None, shift=None, eps=1e-5, momentum=0.1, running_mean=None, running_var=None):
    mean = x.mean(axis=0)
    rstd = 1 / np.sqrt(x.var(axis=0) + x.dtype.type(eps))
    y = (x - mean) * rstd * (1 if gamma is None else gamma) + (0 if shift is None else shift)
    result = {"y": y, "mean": mean, "rstd": rstd}
    m = x.dtype.type(momentum)
    if running_mean is not None:
        result["running_mean"] = (1 - m) * running_mean + m * mean
    if running_var is not None:
        n = len(x)
        result["running_var"] = (1 - m) * running_var + m * x.var(axis=0) * n / max(n - 1, 1)
    return result


def batch_norm_inference(x, mean, var, gamma=None, shift=None, eps=1e-5):
    y = (x - mean) / np.sqrt(var + x.dtype.type(eps))
    return y * (1 if gamma is None else gamma) + (0 if shift is None else shift)


def batch_norm_backward(x, mean, rstd, dy, gamma=None, **_):
    h = (x - mean) * rstd
    g = dy * (1 if gamma is None else gamma)
    dx = rstd * (g - g.mean(axis=0) - h * (g * h).mean(axis=0))
    return {"dx": dx, "dgamma": (dy * h).sum(axis=0), "dshift": dy.sum(axis=0)}


def layer_norm_forward(x, gamma=None, shift=None, eps=1e-5, **_):
    mean = x.mean(axis=-1)
    rstd = 1 / np.sqrt(x.var(axis=-1) + x.dtype.type(eps))
    y = (x - mean[:, None]) * rstd[:, None]
    return {"y": y * (1 if gamma is None else gamma) + (0 if shift is None else shift), "mean": mean, "rstd": rstd}


def layer_norm_backward(x, mean, rstd, dy, gamma=None, **_):
    h = (x - mean[:, None]) * rstd[:, None]
    g = dy * (1 if gamma is None else gamma)
    dx = rstd[:, None] * (g - g.mean(axis=-1, keepdims=True) - h * (g * h).mean(axis=-1, keepdims=True))
    return {"dx": dx, "dgamma": (dy * h).sum(axis=0), "dshift": dy.sum(axis=0)}


# --------------------------------------------------------------------------------------------------------- pooling


def _windows(shape, size_y=2, size_x=2, stride_y=2, stride_x=2, pad_y=0, pad_x=0, **_):
    """For each output pixel: p, q and its window's (row, column, place) inside the image."""
    height, width = shape[1:3]
    for p in range((height + 2 * pad_y - size_y) // stride_y + 1):
        for q in range((width + 2 * pad_x - size_x) // stride_x + 1):
            places = [(p * stride_y - pad_y + r, q * stride_x - pad_x + s, r * size_x + s)
                      for r in range(size_y) for s in range(size_x)]  # fmt: skip
            yield p, q, [(i, j, k) for i, j, k in places if 0 <= i < height and 0 <= j < width]


def max_pool2d_forward(x, **window):
    shape = [
        max(p + 1 for p, _, _ in _windows(x.shape, **window)),
        max(q + 1 for _, q, _ in _windows(x.shape, **window)),
    ]
    y = np.empty((x.shape[0], *shape, x.shape[3]), x.dtype)
    where = np.empty(y.shape, np.uint8)
    for p, q, inside in _windows(x.shape, **window):
        values = np.stack([x[:, i, j] for i, j, _ in inside])
        best = values.argmax(axis=0)
        y[:, p, q] = np.take_along_axis(values, best[None], axis=0)[0]
        where[:, p, q] = np.array([k for _, _, k in inside], np.uint8)[best]
    return {"y": y, "where": where}


def max_pool2d_backward(where, dy, x, **window):
    dx = np.zeros_like(x)
    for p, q, inside in _windows(x.shape, **window):
        for i, j, k in inside:
            dx[:, i, j] += np.where(where[:, p, q] == k, dy[:, p, q], 0)
    return dx


def avg_pool2d_forward(x, count_padding=True, **window):
    shape = [
        max(p + 1 for p, _, _ in _windows(x.shape, **window)),
        max(q + 1 for _, q, _ in _windows(x.shape, **window)),
    ]
    y = np.empty((x.shape[0], *shape, x.shape[3]), x.dtype)
    for p, q, inside in _windows(x.shape, **window):
        count = window.get("size_y", 2) * window.get("size_x", 2) if count_padding else len(inside)
        y[:, p, q] = sum(x[:, i, j] for i, j, _ in inside) / count
    return y


def avg_pool2d_backward(dy, x, count_padding=True, **window):
    dx = np.zeros_like(x)
    for p, q, inside in _windows(x.shape, **window):
        count = window.get("size_y", 2) * window.get("size_x", 2) if count_padding else len(inside)
        for i, j, _ in inside:
            dx[:, i, j] += dy[:, p, q] / count
    return dx


# ------------------------------------------------------------------------------------------------------- embedding


def embedding_forward(table, index):
    return table[index]


def embedding_backward(index, dy, table):
    dtable = np.zeros_like(table)
    np.add.at(dtable, index, dy)
    return dtable


def gather_u8(table, index, scale=1.0):
    return table[index].astype(np.float32) * np.float32(scale)


# ------------------------------------------------------------------------------------------------------ randomness


def philox(counter, key):
    """Philox4x32-10 of Salmon et al. (2011), Random123's function: counter [..., 4] and key [2] of 32-bit words."""
    c = [np.asarray(counter, np.uint64)[..., i] for i in range(4)]
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    low, by = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> by) ^ c[1] ^ k0, p1 & low, (p0 >> by) ^ c[3] ^ k1, p0 & low]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack(c, axis=-1)


def _blocks(first, count, seed):
    block = np.array([(first + i) & 0xFFFFFFFFFFFFFFFF for i in range(count)], np.uint64)
    zero = np.zeros_like(block)
    counter = np.stack([block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), zero, zero], axis=-1)
    return philox(counter, (seed & 0xFFFFFFFF, seed >> 32))


def random_words(n, seed, offset=0):
    lead = offset & 3
    return _blocks(offset >> 2, (n + lead + 3) // 4, seed).reshape(-1)[lead : lead + n].astype(np.uint32)


def _uniforms(n, seed, offset):
    return (random_words(n, seed, offset) >> 8) * 2.0**-24


def uniform(n, seed, offset=0, low=0.0, high=1.0):
    return low + (high - low) * _uniforms(n, seed, offset)


def normal(n, seed, offset=0, mean=0.0, std=1.0):
    lead = offset & 3
    u = (_blocks(offset >> 2, (n + lead + 3) // 4, seed) >> np.uint64(8)) * 2.0**-24
    radius, angle = np.sqrt(-2 * np.log(u[:, ::2] + 2.0**-24)), 2 * np.pi * u[:, 1::2]
    z = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return mean + std * z.reshape(-1)[lead : lead + n]


def bernoulli(p, seed, offset=0):
    return (_uniforms(len(p), seed, offset) < p).astype(p.dtype)


def dropout_forward(x, p, seed, offset=0):
    return np.where(_uniforms(len(x), seed, offset) >= p, x / x.dtype.type(1 - p), x.dtype.type(0))


def dropout_backward(dy, p, seed, offset=0, **_):
    return dropout_forward(dy, p, seed, offset)


# ------------------------------------------------------------------------------------------------------ optimisers


def sgd(g, w, lr, v=None, momentum=0.0, nesterov=False, weight_decay=0.0):
    g = g + weight_decay * w
    if v is None:  # without a velocity there is no momentum
        return {"w": w - lr * g}
    v = momentum * v + g
    return {"w": w - lr * (g + momentum * v if nesterov else v), "v": v}


def adam(g, w, m, v, lr, t, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decoupled=False):
    if not decoupled:
        g = g + weight_decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    step = lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return {"w": w - step - (lr * weight_decay * w if decoupled else 0), "m": m, "v": v}


def rmsprop(g, w, v, lr, rho=0.9, eps=1e-8, weight_decay=0.0):
    g = g + weight_decay * w
    v = rho * v + (1 - rho) * g**2
    return {"w": w - lr * g / (np.sqrt(v) + eps), "v": v}


def adagrad(g, w, v, lr, eps=1e-10, weight_decay=0.0):
    g = g + weight_decay * w
    v = v + g**2
    return {"w": w - lr * g / (np.sqrt(v) + eps), "v": v}


def clip_norm(g, max_norm):
    norm = np.sqrt(np.sum(g * g))
    return {"g": g * (max_norm / norm) if norm > max_norm else g, "norm": norm.reshape(1)}


def put_columns(x, y, at, beta=0.0):
    y = y.copy()
    y[:, at : at + x.shape[1]] = x + (beta * y[:, at : at + x.shape[1]] if beta else 0)
    return y
