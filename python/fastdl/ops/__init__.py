"""Differentiable operations: each one calls a kernel forward and records the call of its backward kernel.

Inputs named x are Tensors; parameters w, b, gamma, ... are Tensors or None. Shapes follow `csrc/kernels.h`: samples first,
channels last, weights [in, out].
"""

from ..tensor import Tensor
from .convolution import conv1d, conv2d, conv_transpose2d
from .elementwise import (
    activation,
    add,
    divide,
    dropout,
    exp,
    gelu,
    leaky_relu,
    log,
    multiply,
    relu,
    sigmoid,
    sqrt,
    square,
    subtract,
    tanh,
    unary,
)
from .losses import (
    binary_cross_entropy,
    hinge,
    huber,
    log_softmax,
    mae,
    mse,
    softmax,
    softmax_cross_entropy,
)
from .norm import batch_norm, layer_norm
from .pooling import avg_pool2d, global_avg_pool2d, global_max_pool2d, max_pool2d
from .products import dense, matmul
from .recurrent import gru, gru_cell, lstm, lstm_cell, lstm_norm, rnn, rnn_cell
from .reductions import mean, reduce, sum
from .shapes import concatenate, embedding, flatten, reshape
from .trees import ctc_loss, rntn, tree_lstm

__all__ = [
    "activation",
    "add",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "concatenate",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "ctc_loss",
    "dense",
    "divide",
    "dropout",
    "embedding",
    "exp",
    "flatten",
    "gelu",
    "global_avg_pool2d",
    "global_max_pool2d",
    "gru",
    "gru_cell",
    "hinge",
    "huber",
    "layer_norm",
    "leaky_relu",
    "log",
    "log_softmax",
    "lstm",
    "lstm_cell",
    "lstm_norm",
    "mae",
    "matmul",
    "max_pool2d",
    "mean",
    "mse",
    "multiply",
    "reduce",
    "relu",
    "reshape",
    "rnn",
    "rnn_cell",
    "rntn",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "sqrt",
    "square",
    "subtract",
    "sum",
    "tanh",
    "tree_lstm",
    "unary",
]

Tensor.__add__ = Tensor.__radd__ = add
Tensor.__sub__ = subtract
Tensor.__rsub__ = lambda self, other: subtract(other, self)
Tensor.__mul__ = Tensor.__rmul__ = multiply
Tensor.__truediv__ = divide
Tensor.__rtruediv__ = lambda self, other: divide(other, self)
Tensor.__neg__ = lambda self: unary(self, "negate")
Tensor.__matmul__ = matmul
Tensor.reshape = reshape
Tensor.sum = sum
Tensor.mean = mean
