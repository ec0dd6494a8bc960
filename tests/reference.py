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


def axpby(a, x, b):
    return x.dtype.type(a) * x
