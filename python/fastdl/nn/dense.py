"""Dense layers, embeddings, dropout."""

from functools import partial

from .. import init as _init
from .. import ops
from .._arguments import chance, not_negative, positive
from ..module import Module, Parameter
from ..ops._common import sizes_of
from ..tensor import Tensor
from .activation import check_act


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

    replayable = True

    def __init__(self, outputs, act="none", bias=True, init=None, inputs=None, slope=0.01):
        self.outputs, self.act, self.slope = positive("outputs", outputs), check_act(act), float(not_negative("slope", slope))
        self._init = _init.get(init, act)
        self.w = None
        self.b = Parameter((self.outputs,), _init.zeros, decay=False) if bias else None
        if inputs is not None:
            self._size(positive("inputs", inputs))

    def _size(self, inputs):
        self.w = Parameter((inputs, self.outputs), self._init)

    def forward(self, x):
        if self.w is None:
            self._size(sizes_of(x)[-1])
        return ops.dense(x, self.w, self.b, self.act, self.slope)

    def describe(self):
        return f"{self.outputs}, {self.act}"


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

    replayable = True

    def __init__(self, rows, width, init=None):
        rows, width = positive("rows", rows), positive("width", width)
        init = partial(_init.normal, std=width**-0.5) if init is None else _init.get(init)
        self.table = Parameter((rows, width), init)

    def forward(self, index):
        return ops.embedding(self.table, index.data if isinstance(index, Tensor) else index)

    def describe(self):
        rows, width = self.table.shape
        return f"{rows}, {width}"


class Dropout(Module):
    """While training drop each element with probability p and scale the rest by 1 / (1 - p); else the identity.

    The random numbers come from the stream that `Module.initialise` gave, shared by all dropout layers of a network.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout" (2014).
    """

    replayable = True

    def __init__(self, p=0.5):
        self.p, self.stream = float(chance("p", p)), None

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


class Flatten(Module):
    """[N,...] to [N, all the rest]."""

    replayable = True

    def forward(self, x):
        return ops.flatten(x)
