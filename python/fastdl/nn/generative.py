"""Layers for autoencoders and generative networks: noise, other shapes, tied and spectrally normalised weights."""

import copy
import math

from .. import init as _init
from .. import ops
from .._arguments import integer
from ..backend import assign, empty, full, kernels
from ..module import Module, Parameter
from ..ops._common import sizes_of
from ..random import Stream
from ..tensor import Tensor

__all__ = ["Noise", "Reshape", "SpectralNorm", "TiedDense"]


class Noise(Module):
    """Corrupt an input while training; evaluation leaves it alone. No gradient flows back through it.

    Parameters
    ----------
    kind : {'gaussian', 'mask', 'salt'}
        Add normal numbers of standard deviation `level`; set a share `level` of the elements to 0; set that share to 0
        or 1, with equal chance.
    level : float

    Source: Vincent, Larochelle, Lajoie, Bengio & Manzagol, "Stacked denoising autoencoders" (2010), section 3.3.
    """

    def __init__(self, kind="gaussian", level=0.3):
        if kind not in ("gaussian", "mask", "salt"):
            raise ValueError(f"kind: expected 'gaussian', 'mask' or 'salt'; got {kind!r}")
        if not (0.0 <= level < math.inf if kind == "gaussian" else 0.0 <= level < 1.0):
            raise ValueError(f"level: expected 0 or more{'' if kind == 'gaussian' else ', below 1'}; got {level}")
        self.kind, self.level, self.stream = kind, float(level), Stream(0)

    def forward(self, x):
        if not self.training or self.level == 0.0:
            return x
        return Tensor(corrupt(x.data, self.kind, self.level, self.stream))

    def describe(self):
        return f"{self.kind}, {self.level:g}"


def corrupt(x, kind, level, stream):
    """A corrupted copy of an array; arguments as of `Noise`, random numbers from a stream."""
    k = kernels(x)
    if kind == "gaussian":
        y = k.normal(0.0, level, *stream.take(x.size), empty(x.shape, x))
        k.axpby(1.0, x, 1.0, y)
        return y
    flat = x.reshape(1, x.size)
    hit = k.bernoulli(full((x.size,), x, level), *stream.take(x.size))
    if kind == "salt":  # x + hit (salt - x)
        salt = k.bernoulli(full((1, x.size), x, 0.5), *stream.take(x.size))
        return k.binary(
            k.binary(k.binary(salt, flat.reshape(-1), "subtract"), hit, "multiply"), flat.reshape(-1), "add"
        ).reshape(x.shape)
    return k.binary(flat, k.binary(full((1, x.size), x, 1.0), hit, "subtract").reshape(-1), "multiply").reshape(x.shape)


class Reshape(Module):
    """[N,...] to [N, shape]."""

    replayable = True

    def __init__(self, *shape):
        self.shape = tuple(integer("shape", s) for s in shape)

    def forward(self, x):
        return ops.reshape(x, (sizes_of(x)[0], *self.shape))

    def describe(self):
        return ", ".join(map(str, self.shape))


def _with_weights(name, layer):
    if not (isinstance(layer, Module) and hasattr(layer, "w")):
        raise TypeError(f"{name}: expected a layer with weights w; got {type(layer).__name__}")
    return layer


class TiedDense(Module):
    """A dense layer back through the weights of another: y = act(x w^T + b), w [I,O] of `partner`, x [N...,O], y [N...,I].

    Parameters
    ----------
    partner : Dense
        It must have seen an input before, so that it has weights.
    act : str
        As in `Dense`.
    """

    replayable = True

    def __init__(self, partner, act="none"):
        self.partner, self.act, self.b = _with_weights("partner", partner), act, None

    def forward(self, x):
        w = self.partner.w
        if w is None:
            raise ValueError("partner: expected a layer that has seen an input; got one without weights")
        if self.b is None:
            self.b = Parameter((w.shape[0],), _init.zeros, decay=False)
        y = ops.add(ops.matmul(x, w, False, True), self.b)
        return y if self.act == "none" else ops.activation(y, self.act)

    def describe(self):
        return self.act


class SpectralNorm(Module):
    """A dense or convolution layer whose weights are divided by their largest singular value.

        y = layer(x) with w / s,   s = u^T w v,  w taken as a matrix [inputs, outputs]

    Each call in training mode moves u and v one step of power iteration; to the gradient they are constants.

    Parameters
    ----------
    layer : Dense, Conv2d or Conv1d

    Source: Miyato, Kataoka, Koyama & Yoshida, "Spectral normalization for generative adversarial networks" (2018).
    """

    buffers = ("u",)

    def __init__(self, layer):
        self.layer, self.u = _with_weights("layer", layer), None

    def reset(self):
        if self.u is not None:
            stream = Stream(0).split("spectral norm")
            assign(self.u, _init.normal(self.u.shape, stream, std=self.u.size**-0.5))

    def forward(self, x):
        if self.layer.w is None:  # the first call finds the sizes
            y = self.layer(x)
            self.u = _init.zeros((1, self.layer.w.data.size // self.layer.w.shape[-1]), None)
            self.reset()
            return y
        w = self.layer.w
        matrix = ops.reshape(w, (self.u.size, w.shape[-1]))
        k, m = kernels(w.data), matrix.data
        v = _unit(k, k.matmul(self.u, m))  # [1,O]
        u = self.u
        if self.training:
            u = _unit(k, k.matmul(v, m, False, True))
            assign(self.u, u)
        size = ops.reduce(ops.multiply(ops.matmul(Tensor(u.copy()), matrix), Tensor(v)), "sum")
        # A copy of the layer with other weights: the layer itself may be in use in another thread.
        other = copy.copy(self.layer)
        other.w = ops.divide(w, size)
        return other.forward(x)

    def describe(self):
        return self.layer.describe()


def _unit(k, a):
    """A row [1,n] scaled to length 1."""
    length = k.unary_forward(k.sum_squares(a.reshape(-1)), "sqrt")
    k.binary(length.reshape(1, 1), full((1,), a, 1e-12), "maximum", length.reshape(1, 1))
    return k.binary(a.reshape(-1, 1), length.reshape(1), "divide").reshape(a.shape)
