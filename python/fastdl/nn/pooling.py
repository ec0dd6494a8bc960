"""Pooling layers."""

from .. import ops
from .._arguments import pair
from ..module import Module


class MaxPool2d(Module):
    """Maximum of each window: x [N,Y,X,C] to [N,P,Q,C]. The stride is the window's size if left out."""

    replayable = True

    def __init__(self, size=2, stride=None, padding=0):
        self.size = pair("size", size, 1)
        self.stride = self.size if stride is None else pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)

    def forward(self, x):
        return ops.max_pool2d(x, self.size, self.stride, self.padding)

    def describe(self):
        return f"{self.size[0]}x{self.size[1]}"


class AvgPool2d(Module):
    """Mean of each window, as `MaxPool2d`; count_padding=False divides by the pixels inside the image only."""

    replayable = True

    def __init__(self, size=2, stride=None, padding=0, count_padding=True):
        self.size = pair("size", size, 1)
        self.stride = self.size if stride is None else pair("stride", stride, 1)
        self.padding, self.count_padding = pair("padding", padding, 0), bool(count_padding)

    def forward(self, x):
        return ops.avg_pool2d(x, self.size, self.stride, self.padding, self.count_padding)

    def describe(self):
        return f"{self.size[0]}x{self.size[1]}"


class GlobalAvgPool2d(Module):
    """Mean over all pixels: [N,Y,X,C] to [N,C]."""

    replayable = True

    def forward(self, x):
        return ops.global_avg_pool2d(x)
