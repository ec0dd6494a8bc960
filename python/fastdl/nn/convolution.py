"""Convolution layers."""

from functools import partial

from .. import init as _init
from .. import ops
from .._arguments import not_negative, pair, positive
from ..module import Module, Parameter
from .activation import check_act


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


class _Convolution(Module):
    """What the convolution layers share: their arguments, and filters that get their shape from the first input."""

    shares_weights = True
    _x = "[N,Y,X,C]"
    _pair = staticmethod(pair)  # how sizes and steps are read

    def __init__(self, filters, size, act="none", stride=1, padding="valid", dilation=1, groups=1, bias=True, init=None,
                 channels=None, slope=0.01):  # fmt: skip
        self.filters, self.act, self.slope = positive("filters", filters), check_act(act), float(not_negative("slope", slope))
        self.size, self.stride = self._pair("size", size, 1), self._pair("stride", stride, 1)
        self.dilation, self.groups = self._pair("dilation", dilation, 1), positive("groups", groups)
        self.padding = self._zeros(padding)
        if self.filters % self.groups:
            raise ValueError(f"groups: expected a divisor of {self.filters} filters; got {self.groups}")
        self._init = _init.get(init, act)
        self.w = None
        self.b = Parameter((self.filters,), _init.zeros, decay=False) if bias else None
        if channels is not None:
            self._size(positive("channels", channels))

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
    slope : float
        Of leaky_relu.

    x is [N,Y,X,C], y [N,P,Q,F].
    """

    replayable = True

    def forward(self, x):
        if self.w is None:
            self._begin(x)
        return ops.conv2d(
            x, self.w, self.b, self.stride, self.padding, self.dilation, self.groups, self.act, self.slope
        )


class Conv1d(_Convolution):
    """One-dimensional convolution: x [N,T,C] with filters w [S,C/groups,F] gives [N,Q,F]. Arguments as in `Conv2d`."""

    replayable = True
    _x = "[N,T,C]"

    @staticmethod
    def _pair(name, value, least):
        return positive(name, value)

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

    replayable = True
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
