"""Element by element: activations, functions, arithmetic, dropout."""

from numbers import Real

import numpy as np

from ..backend import full, kernels
from ..tensor import DY, Tensor, record, record_kernel


def activation(x, act, slope=0.01):
    """act(x), element by element."""
    k, xd = kernels(x.data), x.data
    y = k.activation_forward(xd, act, slope)
    return record_kernel(y, k.activation_backward, xd if act == "gelu" else y, DY, act, slope, x)


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
    return record_kernel(k.unary_forward(xd, op), k.unary_backward, xd, DY, op, x)


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
        number, x = x, _operand(x, y.data)
        if op in ("add", "multiply"):
            x, y = y, x
        else:  # a number minus, or divided by, a tensor
            x = Tensor(full(y.shape, y.data, float(number)))
    y = _operand(y, x.data)
    k, xd, yd = kernels(x.data), x.data, y.data
    try:
        one = yd.size == 1
    except AttributeError:
        kernels(yd)  # says what it is instead of an array
        raise
    if one:
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


def dropout(x, p, stream):
    """Drop each element with probability p, scale the rest by 1/(1-p); `stream` gives the random numbers."""
    k = kernels(x.data)
    seed, offset = stream.take(x.data.size)
    return record_kernel(k.dropout_forward(x.data, p, seed, offset), k.dropout_backward, DY, p, seed, offset, x)
