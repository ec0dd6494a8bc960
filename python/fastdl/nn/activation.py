"""Activations as layers of their own."""

from .. import ops
from .._arguments import not_negative, one_of
from ..module import Module

_ACTIVATIONS = ("none", "relu", "leaky_relu", "sigmoid", "tanh", "gelu")


def check_act(act, name="act"):
    return one_of(name, act, _ACTIVATIONS)


class Activation(Module):
    """y = act(x) on its own; `Dense` and the convolutions fuse theirs, which is faster."""

    replayable = True

    def __init__(self, act, slope=0.01):
        self.act, self.slope = check_act(act), float(not_negative("slope", slope))

    def forward(self, x):
        return ops.activation(x, self.act, self.slope)

    def describe(self):
        return self.act


class _Named(Activation):
    def describe(self):
        return ""


class ReLU(_Named):
    """max(x, 0)."""

    replayable = True

    def __init__(self):
        super().__init__("relu")


class LeakyReLU(_Named):
    """x where positive, else slope x."""

    replayable = True

    def __init__(self, slope=0.01):
        super().__init__("leaky_relu", slope)


class Sigmoid(_Named):
    """1 / (1 + exp(-x))."""

    replayable = True

    def __init__(self):
        super().__init__("sigmoid")


class Tanh(_Named):
    """tanh(x)."""

    replayable = True

    def __init__(self):
        super().__init__("tanh")


class GELU(_Named):
    """x times the normal distribution function of x. Source: Hendrycks & Gimpel (2016)."""

    replayable = True

    def __init__(self):
        super().__init__("gelu")


class Softmax(Module):
    """exp(x) / sum(exp(x)) over the last axis. (The cross entropy loss takes logits: no Softmax before it.)"""

    replayable = True

    def forward(self, x):
        return ops.softmax(x)
