"""Layers over trees."""

from functools import partial

from .. import init as _init
from .. import ops
from .._arguments import number, positive
from ..module import Module, Parameter
from .dense import Dense


class RNTN(Module):
    """Recursive neural tensor network: vectors of all nodes of a batch of binary trees from those of their leaves.

    Parameters
    ----------
    width : int
        D.
    tensor : bool
        False: a plain recursive network, tanh(x w + b).
    identity : float
        The weight w begins at that multiple of the two identities above each other, plus noise: a node's vector then
        begins as about the mean of its children's.

    References
    ----------
    Socher et al. (2013); the beginning at the identity: Socher, Bauer, Manning & Ng (2013).
    """

    def __init__(self, width, tensor=True, identity=0.5):
        positive("width", width), number("identity", identity)
        bound = 1.0 / (2.0 * width)
        self.v = Parameter((2 * width, 2 * width, width), partial(_uniform, bound=bound)) if tensor else None
        self.w = Parameter((2 * width, width), partial(_identities, bound=bound**0.5 / 4, scale=identity))
        self.b = Parameter((width,), _init.zeros, decay=False)

    def forward(self, leaves, children, ends):
        return ops.rntn(leaves, children, ends, self.v, self.w, self.b)

    def describe(self):
        return f"{self.w.shape[1]}{'' if self.v is not None else ', tensor=False'}"


class TreeLSTM(Module):
    """Binary tree LSTM: vectors of all nodes of a batch of binary trees from those of their leaves.

    ::

        at a leaf x:  c = sigmoid(x p + q) tanh(x p' + q'),   h = sigmoid(x p'' + q'') tanh(c)
        above:        i l r g o = (h[left], h[right]) w + b,   c = sigmoid(i) tanh(g) + sigmoid(l) c[left] + sigmoid(r) c[right],
                      h = sigmoid(o) tanh(c)

    Parameters
    ----------
    width : int
        D.
    forget_bias : float
        Where the biases of l and r begin; above 0 what lies deep in a tree is felt at its root from the start.

    References
    ----------
    Tai, Socher & Manning (2015), section 3.2, with two children.
    """

    def __init__(self, width, forget_bias=1.0):
        positive("width", width), number("forget_bias", forget_bias)
        self.write = Dense(width, "sigmoid", inputs=width)
        self.value = Dense(width, "tanh", inputs=width)
        self.read = Dense(width, "sigmoid", inputs=width)
        self.w = Parameter((2 * width, 5 * width), partial(_init.glorot_uniform, fans=(2 * width, width)))
        self.b = Parameter((5 * width,), partial(_kept, value=forget_bias), decay=False)

    def forward(self, leaves, children, ends):
        cells = self.write(leaves) * self.value(leaves)
        return ops.tree_lstm(self.read(leaves) * ops.tanh(cells), cells, children, ends, self.w, self.b)

    def describe(self):
        return f"{self.w.shape[0] // 2}"


def _kept(shape, stream, value):
    b = _init.zeros(shape, stream)
    b[shape[0] // 5 : 3 * shape[0] // 5] = value
    return b


def _uniform(shape, stream, bound):
    return _init._uniform(shape, stream, bound)


def _identities(shape, stream, bound, scale):
    w = _uniform(shape, stream, bound)
    for i in range(shape[1]):
        w[i, i] += scale
        w[shape[1] + i, i] += scale
    return w
