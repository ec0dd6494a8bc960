"""Layers: objects that own parameters and call one operation of `fastdl.ops`.

A layer finds the sizes of its input at its first call (or in `Module.build`), or is told them. Images are channels
last. Biases, and the gains and shifts of normalisations, take no weight decay.
"""

from functools import partial

from .. import init as _init
from .. import ops
from .._arguments import pair
from .._arguments import positive as _positive
from ..module import Module, Parameter
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .recurrent import GRU, LSTM, RNN

__all__ = [
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "AvgPool2d",
    "BatchNorm",
    "Checkpoint",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAvgPool2d",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
]

_ACTIVATIONS = ("none", "relu", "leaky_relu", "sigmoid", "tanh", "gelu")


def _check_act(act):
    if act not in _ACTIVATIONS:
        raise ValueError(f"act: expected one of {', '.join(_ACTIVATIONS)}; got {act!r}")
    return act


def _padding(padding, size, dilation):
    """(rows, columns) of zeros on each side, from "valid", "same" or numbers."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        reach = [d * (s - 1) for s, d in zip(size, dilation, strict=True)]
        if any(r % 2 for r in reach):
            raise ValueError(f'padding: expected an odd filter size with "same"; got size {list(size)}')
        return reach[0] // 2, reach[1] // 2
    if isinstance(padding, str):
        raise ValueError(f'padding: expected "valid", "same" or integers; got {padding!r}')
    return pair("padding", padding, 0)


class Dense(Module):
    """y = act(x w + b).

    Parameters
    ----------
    outputs : int
        O.
    act : {'none', 'relu', 'leaky_relu', 'sigmoid', 'tanh', 'gelu'}
        Fused with the product.
    bias : bool
    init : str or function
        Of w [I,O]; He's normal for rectified units, else Glorot's uniform. b [O] starts at 0.
    inputs : int, optional
        I; from the first input if left out.
    slope : float
        Of leaky_relu.

    x is [N...,I], y [N...,O].
    """

    def __init__(self, outputs, act="none", bias=True, init=None, inputs=None, slope=0.01):
        self.outputs, self.act, self.slope = _positive("outputs", outputs), _check_act(act), float(slope)
        self._init = _init.get(init, act)
        self.w = None
        self.b = Parameter((self.outputs,), _init.zeros, decay=False) if bias else None
        if inputs is not None:
            self._size(_positive("inputs", inputs))

    def _size(self, inputs):
        self.w = Parameter((inputs, self.outputs), self._init)

    def forward(self, x):
        if self.w is None:
            self._size(x.data.shape[-1])
        return ops.dense(x, self.w, self.b, self.act, self.slope)

    def describe(self):
        return f"{self.outputs}, {self.act}"


class _Convolution(Module):
    """What the convolution layers share: their arguments, and filters that get their shape from the first input."""

    shares_weights = True
    _x = "[N,Y,X,C]"
    _pair = staticmethod(pair)  # how sizes and steps are read

    def __init__(self, filters, size, act="none", stride=1, padding="valid", dilation=1, groups=1, bias=True, init=None,
                 channels=None, slope=0.01):  # fmt: skip
        self.filters, self.act, self.slope = _positive("filters", filters), _check_act(act), float(slope)
        self.size, self.stride = self._pair("size", size, 1), self._pair("stride", stride, 1)
        self.dilation, self.groups = self._pair("dilation", dilation, 1), _positive("groups", groups)
        self.padding = self._zeros(padding)
        if self.filters % self.groups:
            raise ValueError(f"groups: expected a divisor of {self.filters} filters; got {self.groups}")
        self._init = _init.get(init, act)
        self.w = None
        self.b = Parameter((self.filters,), _init.zeros, decay=False) if bias else None
        if channels is not None:
            self._size(_positive("channels", channels))

    def _zeros(self, padding):
        return _padding(padding, self.size, self.dilation)

    def _size(self, channels):
        if channels % self.groups:
            raise ValueError(f"x: expected a multiple of {self.groups} channels; got {channels}")
        self.w = self._weights(channels)

    def _weights(self, channels):
        return Parameter((*self.size, channels // self.groups, self.filters), self._init)

    def _begin(self, x):
        axes = self._x.count(",") + 1
        if len(x.shape) != axes:
            raise ValueError(f"x: expected an array {self._x}; got shape {list(x.shape)}")
        self._size(x.data.shape[-1])

    def describe(self):
        r, s = self.size
        return f"{self.filters}, {r}x{s}, {self.act}"


class Conv2d(_Convolution):
    """Two-dimensional convolution with fused bias and activation: y = act(x * w + b).

    Parameters
    ----------
    filters : int
        F.
    size : int or (int, int)
        R, S.
    act : str
        As in `Dense`.
    stride, dilation : int or (int, int)
    padding : {'valid', 'same'} or int or (int, int)
        Zeros on each side. 'same' keeps the image's size at stride 1 (in general: size / stride, rounded up) and
        needs odd filters.
    groups : int
        Channels and filters are split into that many independent groups.
    bias : bool
    init : str or function
        Of w [R,S,C/groups,F], as in `Dense`. b [F] starts at 0.
    channels : int, optional
        C; from the first input if left out.

    x is [N,Y,X,C], y [N,P,Q,F].
    """

    def forward(self, x):
        if self.w is None:
            self._begin(x)
        return ops.conv2d(
            x, self.w, self.b, self.stride, self.padding, self.dilation, self.groups, self.act, self.slope
        )


class Conv1d(_Convolution):
    """One-dimensional convolution: x [N,T,C] with filters w [S,C/groups,F] gives [N,Q,F]. Arguments as in `Conv2d`."""

    _x = "[N,T,C]"

    @staticmethod
    def _pair(name, value, least):
        return _positive(name, value)

    def _zeros(self, padding):
        both = padding if isinstance(padding, str) else (0, padding)
        return _padding(both, (1, self.size), (1, self.dilation))[1]

    def _weights(self, channels):
        return Parameter((self.size, channels // self.groups, self.filters), self._init)

    def forward(self, x):
        if self.w is None:
            self._begin(x)
        return ops.conv1d(
            x, self.w, self.b, self.stride, self.padding, self.dilation, self.groups, self.act, self.slope
        )

    def describe(self):
        return f"{self.filters}, {self.size}, {self.act}"


class ConvTranspose2d(_Convolution):
    """Transposed convolution, the data gradient of a convolution as a layer: it enlarges images by its stride.

    x [N,P,Q,F] gives y [N,Y,X,C] with C = `filters` and Y = (P-1) stride - 2 padding + dilation (R-1) + 1 +
    out_padding. The filters are w [R,S,C/groups,F]: output channels before input channels. `channels` is F. Otherwise
    as `Conv2d`.
    """

    _x = "[N,P,Q,F]"

    def __init__(self, filters, size, act="none", stride=1, padding="valid", out_padding=0, dilation=1, groups=1,
                 bias=True, init=None, channels=None, slope=0.01):  # fmt: skip
        self.out_padding = pair("out_padding", out_padding, 0)
        super().__init__(filters, size, act, stride, padding, dilation, groups, bias, init, channels, slope)

    def _weights(self, channels):
        shape = (*self.size, self.filters // self.groups, channels)
        r, s, c, f = shape
        # Going back through the filters, what counts as an input is the last axis.
        return Parameter(shape, partial(self._init, fans=(r * s * f // self.groups, r * s * c)))

    def forward(self, x):
        if self.w is None:
            self._begin(x)
        return ops.conv_transpose2d(
            x,
            self.w,
            self.b,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.out_padding,
            self.act,
            self.slope,
        )


class MaxPool2d(Module):
    """Maximum of each window: x [N,Y,X,C] to [N,P,Q,C]. The stride is the window's size if left out."""

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

    def forward(self, x):
        return ops.global_avg_pool2d(x)


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

    buffers = ("running_mean", "running_var")

    def __init__(self, momentum=0.1, eps=1e-5, channels=None):
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum: expected 0 to 1; got {momentum}")
        self.momentum, self.eps = float(momentum), float(eps)
        self.gamma = self.shift = self.running_mean = self.running_var = None
        if channels is not None:
            self._size(_positive("channels", channels))

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
            self._size(x.data.shape[-1])
        return ops.batch_norm(
            x, self.gamma, self.shift, self.running_mean, self.running_var, self.training, self.eps, self.momentum
        )


class LayerNorm(Module):
    """y = gamma (x - mean) / sqrt(var + eps) + shift, mean and variance of each sample over its last axis.

    gamma [C] starts at 1, shift [C] at 0. Source: Ba, Kiros & Hinton, "Layer normalization" (2016).
    """

    def __init__(self, eps=1e-5, channels=None):
        self.eps = float(eps)
        self.gamma = self.shift = None
        if channels is not None:
            self._size(_positive("channels", channels))

    def _size(self, channels):
        self.gamma = Parameter((channels,), _init.ones, decay=False)
        self.shift = Parameter((channels,), _init.zeros, decay=False)

    def forward(self, x):
        if self.gamma is None:
            self._size(x.data.shape[-1])
        return ops.layer_norm(x, self.gamma, self.shift, self.eps)


class Dropout(Module):
    """While training drop each element with probability p and scale the rest by 1 / (1 - p); else the identity.

    The random numbers come from the stream that `Module.initialise` gave, shared by all dropout layers of a network.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout" (2014).
    """

    def __init__(self, p=0.5):
        if not 0.0 <= p < 1.0:
            raise ValueError(f"p: expected 0 <= p < 1; got {p}")
        self.p, self.stream = float(p), None

    def forward(self, x):
        if not self.training or self.p == 0.0:
            return x
        if self.stream is None:
            raise RuntimeError(
                "Dropout: expected a network that was initialised (Module.initialise gives the random stream)"
            )
        return ops.dropout(x, self.p, self.stream)

    def describe(self):
        return f"{self.p}"


class Embedding(Module):
    """Rows of a table: int64 indices [N...] to vectors [N...,D].

    Parameters
    ----------
    rows : int
        L.
    width : int
        D.
    init : str or function
        Of the table [L,D]; normal with standard deviation 1/sqrt(D) if left out.
    """

    def __init__(self, rows, width, init=None):
        rows, width = _positive("rows", rows), _positive("width", width)
        init = partial(_init.normal, std=width**-0.5) if init is None else _init.get(init)
        self.table = Parameter((rows, width), init)

    def forward(self, index):
        return ops.embedding(self.table, index.data if isinstance(index, Tensor) else index)

    def describe(self):
        rows, width = self.table.shape
        return f"{rows}, {width}"


class Flatten(Module):
    """[N,...] to [N, all the rest]."""

    def forward(self, x):
        return ops.flatten(x)


class Activation(Module):
    """y = act(x) on its own; `Dense` and the convolutions fuse theirs, which is faster."""

    def __init__(self, act, slope=0.01):
        self.act, self.slope = _check_act(act), float(slope)

    def forward(self, x):
        return ops.activation(x, self.act, self.slope)

    def describe(self):
        return self.act


class _Named(Activation):
    def describe(self):
        return ""


class ReLU(_Named):
    """max(x, 0)."""

    def __init__(self):
        super().__init__("relu")


class LeakyReLU(_Named):
    """x where positive, else slope x."""

    def __init__(self, slope=0.01):
        super().__init__("leaky_relu", slope)


class Sigmoid(_Named):
    """1 / (1 + exp(-x))."""

    def __init__(self):
        super().__init__("sigmoid")


class Tanh(_Named):
    """tanh(x)."""

    def __init__(self):
        super().__init__("tanh")


class GELU(_Named):
    """x times the normal distribution function of x. Source: Hendrycks & Gimpel (2016)."""

    def __init__(self):
        super().__init__("gelu")


class Softmax(Module):
    """exp(x) / sum(exp(x)) over the last axis. (The cross entropy loss takes logits: no Softmax before it.)"""

    def forward(self, x):
        return ops.softmax(x)


class Sequential(Module):
    """Modules one after another.

    >>> from fastdl import nn
    >>> net = nn.Sequential(nn.Dense(16, "tanh"), nn.Dense(1)).build((2,), seed=0)
    >>> net.count()
    65
    """

    def __init__(self, *layers):
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"layers[{i}]: expected a Module; got {type(layer).__name__}")
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
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

    def __init__(self, branch, projection=None, act="none"):
        self.branch, self.projection, self.act = branch, projection, _check_act(act)

    def forward(self, x):
        short = x if self.projection is None else self.projection(x)
        y = ops.add(self.branch(x), short)
        return y if self.act == "none" else ops.activation(y, self.act)

    def describe(self):
        return "" if self.act == "none" else self.act


from .generative import Noise, Reshape, SpectralNorm, TiedDense  # noqa: E402

__all__ += ["Noise", "Reshape", "SpectralNorm", "TiedDense"]
