"""Modules made of modules."""

from .. import ops
from ..module import Module, observed
from .activation import check_act


class Sequential(Module):
    """Modules one after another.

    >>> from fastdl import nn
    >>> net = nn.Sequential(nn.Dense(16, "tanh"), nn.Dense(1)).build((2,), seed=0)
    >>> net.count()
    65
    """

    replayable = True

    def __init__(self, *layers):
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"layers[{i}]: expected a Module; got {type(layer).__name__}")
        self.layers = list(layers)

    def forward(self, x):
        if observed():
            for layer in self.layers:
                x = layer(x)
        else:  # what a call comes to, for a fifth less time a small layer
            for layer in self.layers:
                x = layer.forward(x)
        return x

    def __len__(self):
        return len(self.layers)

    def __getitem__(self, i):
        return Sequential(*self.layers[i]) if isinstance(i, slice) else self.layers[i]

    def __iter__(self):
        return iter(self.layers)


class Residual(Module):
    """y = act(branch(x) + x), or with a projection act(branch(x) + projection(x)) where the shape changes.

    Source: He, Zhang, Ren & Sun, "Deep residual learning for image recognition" (2016).
    """

    replayable = True

    def __init__(self, branch, projection=None, act="none"):
        if not callable(branch):
            raise TypeError(f"branch: expected a Module or a function; got {type(branch).__name__}")
        if not (projection is None or callable(projection)):
            raise TypeError(f"projection: expected a Module, a function or None; got {type(projection).__name__}")
        self.branch, self.projection, self.act = branch, projection, check_act(act)

    def forward(self, x):
        short = x if self.projection is None else self.projection(x)
        y = self.branch(x)
        if y.shape != short.shape:  # addition alone would repeat the smaller one where it can
            raise ValueError(f"branch: expected the shape of what is added, {list(short.shape)}; got {list(y.shape)}")
        y = ops.add(y, short)
        return y if self.act == "none" else ops.activation(y, self.act)

    def describe(self):
        return "" if self.act == "none" else self.act
