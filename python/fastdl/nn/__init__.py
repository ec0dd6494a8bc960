"""Layers: objects that own parameters and call one operation of `fastdl.ops`.

A layer finds the sizes of its input at its first call (or in `Module.build`), or is told them. Images are channels
last. Biases, and the gains and shifts of normalisations, take no weight decay.
"""

from ..module import Module, Parameter
from .activation import GELU, Activation, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from .checkpoint import Checkpoint
from .containers import Residual, Sequential
from .convolution import Conv1d, Conv2d, ConvTranspose2d
from .dense import Dense, Dropout, Embedding, Flatten
from .generative import Noise, Reshape, SpectralNorm, TiedDense
from .norm import BatchNorm, LayerNorm
from .pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .recurrent import GRU, LSTM, RNN
from .trees import RNTN, TreeLSTM

__all__ = [
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "RNTN",
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
    "Noise",
    "Parameter",
    "ReLU",
    "Reshape",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SpectralNorm",
    "Tanh",
    "TiedDense",
    "TreeLSTM",
]
