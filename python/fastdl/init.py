"""Initial values of parameters: functions ``init(shape, stream, fans=None) -> float32 array``.

Random ones draw from a `fastdl.random.Stream`, so one seed decides a network. `fans` is (number of inputs that one
output sums, number of outputs that one input reaches); without it they follow from a weight's shape: [I,O] has fans I
and O, filters [R,S,C,F] have R S C and R S F.
"""

import math
from functools import partial
from numbers import Real

import numpy as np

from . import random
from ._arguments import axes, number


def _checked(shape, stream, **numbers):
    """The shape as a tuple, where all that an initialiser was given is right."""
    if not isinstance(stream, random.Stream):
        raise TypeError(f"stream: expected a fastdl.random.Stream; got {type(stream).__name__}")
    for name, value in numbers.items():
        number(name, value)
    return axes("shape", shape)


def _fans(shape, fans):
    if fans is not None:
        return fans
    if len(shape) < 2:
        raise ValueError(f"shape: expected two axes or more (or fans given); got {list(shape)}")
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def _uniform(shape, stream, limit):
    return random.uniform(shape, -limit, limit, *stream.take(math.prod(shape)))


def _normal(shape, stream, std):
    return random.normal(shape, 0.0, std, *stream.take(math.prod(shape)))


def glorot_uniform(shape, stream, fans=None, gain=1.0):
    """Uniform with variance gain^2 2 / (fan_in + fan_out): keeps signals' size both ways through tanh units.

    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010), eq. 16.
    """
    shape = _checked(shape, stream, gain=gain)
    fan_in, fan_out = _fans(shape, fans)
    return _uniform(shape, stream, gain * math.sqrt(6.0 / max(fan_in + fan_out, 1)))


def glorot_normal(shape, stream, fans=None, gain=1.0):
    """Normal with variance gain^2 2 / (fan_in + fan_out). Source: Glorot & Bengio (2010), eq. 12."""
    shape = _checked(shape, stream, gain=gain)
    fan_in, fan_out = _fans(shape, fans)
    return _normal(shape, stream, gain * math.sqrt(2.0 / max(fan_in + fan_out, 1)))


def he_uniform(shape, stream, fans=None, slope=0.0):
    """Uniform with variance 2 / ((1 + slope^2) fan_in), for rectified units whose negative side has that slope.

    Source: He, Zhang, Ren & Sun, "Delving deep into rectifiers" (2015), eq. 15.
    """
    shape = _checked(shape, stream, slope=slope)
    fan_in, _ = _fans(shape, fans)
    return _uniform(shape, stream, math.sqrt(6.0 / ((1.0 + slope * slope) * max(fan_in, 1))))


def he_normal(shape, stream, fans=None, slope=0.0):
    """Normal with variance 2 / ((1 + slope^2) fan_in). Source: He et al. (2015), eq. 15."""
    shape = _checked(shape, stream, slope=slope)
    fan_in, _ = _fans(shape, fans)
    return _normal(shape, stream, math.sqrt(2.0 / ((1.0 + slope * slope) * max(fan_in, 1))))


def lecun_uniform(shape, stream, fans=None):
    """Uniform with variance 1 / fan_in.

    Source: LeCun, Bottou, Orr & Mueller, "Efficient backprop" (1998), section 4.6.
    """
    shape = _checked(shape, stream)
    fan_in, _ = _fans(shape, fans)
    return _uniform(shape, stream, math.sqrt(3.0 / max(fan_in, 1)))


def lecun_normal(shape, stream, fans=None):
    """Normal with variance 1 / fan_in. Source: LeCun et al. (1998), section 4.6."""
    shape = _checked(shape, stream)
    fan_in, _ = _fans(shape, fans)
    return _normal(shape, stream, math.sqrt(1.0 / max(fan_in, 1)))


def normal(shape, stream, fans=None, std=0.01):
    """Normal with mean 0."""
    return _normal(_checked(shape, stream, std=std), stream, std)


def uniform(shape, stream, fans=None, limit=0.05):
    """Uniform in [-limit, limit)."""
    return _uniform(_checked(shape, stream, limit=limit), stream, limit)


def orthogonal(shape, stream, fans=None, gain=1.0):
    """A random orthogonal matrix, uniform among them: the fewer of rows and columns are orthonormal, times gain.

    The leading axes of the shape are one axis of the matrix, the last axis is the other.

    Source: Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks" (2014). The signs are fixed as in Mezzadri, "How to generate random matrices from the classical compact
    groups" (2007), without which the draw is not uniform.
    """
    shape = _checked(shape, stream, gain=gain)
    if not shape:
        raise ValueError("shape: expected one axis or more; got []")
    rows, columns = math.prod(shape[:-1]), shape[-1]
    a = _normal((rows, columns), stream, 1.0).astype(np.float64)
    q, r = np.linalg.qr(a if rows >= columns else a.T)
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray((q if rows >= columns else q.T).reshape(shape) * gain, np.float32)


def _constant(shape, stream, fans=None, value=0.0):
    return np.full(shape, value, np.float32)


def constant(value):
    """An initialiser that gives one value."""
    return partial(_constant, value=float(number("value", value)))


zeros = constant(0.0)
ones = constant(1.0)

_BY_NAME = {
    f.__name__: f
    for f in (
        glorot_uniform,
        glorot_normal,
        he_uniform,
        he_normal,
        lecun_uniform,
        lecun_normal,
        normal,
        uniform,
        orthogonal,
    )
} | {"zeros": zeros, "ones": ones}


def get(init, act="none"):
    """An initialiser from its name, from a number (a constant), or by what suits an activation (None).

    Rectified units get `he_normal`, all others `glorot_uniform`.
    """
    if init is None:
        return he_normal if act in ("relu", "leaky_relu", "gelu") else glorot_uniform
    if callable(init):
        return init
    if isinstance(init, Real):
        return constant(init)
    if not isinstance(init, str) or init not in _BY_NAME:
        raise ValueError(f"init: expected one of {', '.join(_BY_NAME)}, a number or a function; got {init!r}")
    return _BY_NAME[init]
