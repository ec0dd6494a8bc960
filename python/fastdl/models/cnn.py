"""Convolutional networks for small images."""

import math
import warnings

import numpy as np

from .. import nn
from .._arguments import chance, positive, sizes
from ..module import Module, shape_of
from ._door import must_be_images_of
from ._supervised import Classifier, Regressor


def lenet5(classes):
    """LeNet-5 in its usual modern form: relu, maximum pooling, every filter sees every channel, softmax at the end.

    Source: LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition" (1998), which had
    scaled tanh, averaging with trained gains, a sparse table of connections and radial basis outputs instead.
    """
    return nn.Sequential(
        nn.Conv2d(6, 5, "relu", padding="same"),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 5, "relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dense(120, "relu"),
        nn.Dense(84, "relu"),
        nn.Dense(classes),
    )


def small(classes, width=32, dropout=0.25, image=(28, 28)):
    """Two blocks of two 3x3 convolutions with batch normalisation, each block followed by pooling, then a dense layer.

    The filters of the second block are twice as many. Dropout after each block, twice as much before the last layer. An
    axis of the image that is down to one pixel is not pooled.
    """
    windows = [tuple(min(2, max(n // by, 1)) for n in image) for by in (1, 2)]

    def conv(filters):
        # The normalisation's shift takes the place of the bias.
        return [nn.Conv2d(filters, 3, padding="same", bias=False, init="he_normal"), nn.BatchNorm(), nn.ReLU()]

    def drop(p):
        return [nn.Dropout(p)] if p else []

    return nn.Sequential(
        *conv(width),
        *conv(width),
        nn.MaxPool2d(windows[0]),
        *drop(dropout),
        *conv(2 * width),
        *conv(2 * width),
        nn.MaxPool2d(windows[1]),
        *drop(dropout),
        nn.Flatten(),
        nn.Dense(8 * width, "relu"),
        *drop(min(2 * dropout, 0.5)),
        nn.Dense(classes),
    )


def check_image_shape(image_shape):
    """Sizes of the images behind flat rows as a tuple, or None."""
    if image_shape is None:
        return None
    found = sizes("image_shape", image_shape)
    if len(found) not in (2, 3):
        raise ValueError(f"image_shape: expected (rows, columns) or (rows, columns, channels); got {image_shape!r}")
    return found


class CNN(Classifier):
    """Convolutions and pooling, then dense layers and softmax; trained by cross entropy.

    A convolution applies the same few weights at every place of the image: `summary` shows beside its count what a
    dense layer from the same input to the same output would need.

    Parameters
    ----------
    architecture : {'small', 'lenet5'} or callable
        Or ``architecture(classes) -> Module`` that gives logits.
    image_shape : (int, int) or (int, int, int), optional
        Rows, columns and channels, where X comes as flat rows [N,I].
    width : int
        Filters of the first block of 'small'.
    dropout : float
        Of 'small'.
    seed : int
        Decides initial weights, order of samples and dropped units.

    Examples
    --------
    >>> from fastdl.models import CNN
    >>> model = CNN("lenet5").build((28, 28, 1), classes=10)
    >>> model.module_.count()
    61706
    """

    def __init__(self, architecture="small", image_shape=None, width=32, dropout=0.25, seed=0):
        if not callable(architecture) and not (isinstance(architecture, str) and architecture in ("small", "lenet5")):
            raise ValueError(f"architecture: expected 'small', 'lenet5' or a function; got {architecture!r}")
        self.architecture, self.image_shape, self.seed = architecture, check_image_shape(image_shape), seed
        self.width, self.dropout = positive("width", width), chance("dropout", dropout)

    def _sample_shape(self, input_shape):
        return shape_of(input_shape)

    def _make(self, input_shape, outputs):
        if len(input_shape) != 3:
            raise ValueError(f"input_shape: expected (rows, columns, channels); got {list(input_shape)}")
        if callable(self.architecture):
            network = self.architecture(outputs)
            if not isinstance(network, Module):
                kind = type(network).__name__
                raise TypeError(f"architecture: expected a function that gives a Module; got one that gives a {kind}")
            shape = network.trace(input_shape)[0][-1]
            if shape != (outputs,):
                raise ValueError(f"architecture: expected a network of {outputs} outputs a sample; got one of {list(shape)}")
            return network
        if self.architecture == "lenet5":
            must_be_images_of(12, input_shape, "for 'lenet5'")
            return lenet5(outputs)
        return small(outputs, self.width, self.dropout, input_shape[:2])

    def _shape(self, x, name="X"):
        """Images [N,Y,X,C]; grey images may lack the last axis."""
        if self.image_shape is not None and x.ndim == 2:
            shape = tuple(self.image_shape)
            if math.prod(shape) != x.shape[1]:
                raise ValueError(
                    f"{name}: expected {math.prod(shape)} values for images {list(shape)}; got {x.shape[1]}"
                )
            x = x.reshape(len(x), *shape)
        if x.ndim == 3:
            x = x[..., np.newaxis]
        if x.ndim != 4:
            raise ValueError(
                f"{name}: expected images [N,Y,X] or [N,Y,X,C] (or flat rows and image_shape); "
                f"got shape {list(x.shape)}"
            )
        fresh = len(x) and not hasattr(self, "input_shape_")
        if fresh and x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] >= 8:
            warnings.warn(
                f"{name}: {list(x.shape)} is read as images of {x.shape[1]} rows with {x.shape[3]} channels, which come last; "
                f"for images [N,C,Y,X] give {name}.transpose(0, 2, 3, 1)",
                UserWarning,
                stacklevel=7,
            )
        return x


class CNNRegressor(Regressor):
    """Convolutions and pooling, then dense layers and linear outputs; trained by squared error. Arguments as in `CNN`."""

    __init__ = CNN.__init__
    _make = CNN._make
    _sample_shape = CNN._sample_shape
    _shape = CNN._shape
