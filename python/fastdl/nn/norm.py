"""Normalisation layers."""

from .. import init as _init
from .. import ops
from .._arguments import not_negative, number, positive
from ..module import Module, Parameter
from ..ops._common import sizes_of


class BatchNorm(Module):
    """y = gamma (x - mean) / sqrt(var + eps) + shift, mean and variance of each channel over the batch (and pixels).

    Evaluation uses running averages: running = (1 - momentum) running + momentum batch.

    Parameters
    ----------
    momentum, eps : float
    channels : int, optional
        C, the last axis; from the first input if left out.

    gamma [C] starts at 1, shift [C] at 0. Source: Ioffe & Szegedy, "Batch normalization" (2015).
    """

    replayable = True
    buffers = ("running_mean", "running_var")

    def __init__(self, momentum=0.1, eps=1e-5, channels=None):
        if not 0.0 <= number("momentum", momentum) <= 1.0:
            raise ValueError(f"momentum: expected 0 to 1; got {momentum}")
        self.momentum, self.eps = float(momentum), float(not_negative("eps", eps))
        self.gamma = self.shift = self.running_mean = self.running_var = None
        if channels is not None:
            self._size(positive("channels", channels))

    def _size(self, channels):
        self.gamma = Parameter((channels,), _init.ones, decay=False)
        self.shift = Parameter((channels,), _init.zeros, decay=False)
        self.running_mean = _init.zeros((channels,), None)
        self.running_var = _init.ones((channels,), None)

    def reset(self):
        if self.running_mean is not None:
            self.running_mean[...] = 0.0
            self.running_var[...] = 1.0

    def forward(self, x):
        if self.gamma is None:
            self._size(sizes_of(x)[-1])
        return ops.batch_norm(
            x, self.gamma, self.shift, self.running_mean, self.running_var, self.training, self.eps, self.momentum
        )


class LayerNorm(Module):
    """y = gamma (x - mean) / sqrt(var + eps) + shift, mean and variance of each sample over its last axis.

    gamma [C] starts at 1, shift [C] at 0. Source: Ba, Kiros & Hinton, "Layer normalization" (2016).
    """

    replayable = True

    def __init__(self, eps=1e-5, channels=None):
        self.eps = float(not_negative("eps", eps))
        self.gamma = self.shift = None
        if channels is not None:
            self._size(positive("channels", channels))

    def _size(self, channels):
        self.gamma = Parameter((channels,), _init.ones, decay=False)
        self.shift = Parameter((channels,), _init.zeros, decay=False)

    def forward(self, x):
        if self.gamma is None:
            self._size(sizes_of(x)[-1])
        return ops.layer_norm(x, self.gamma, self.shift, self.eps)
