"""fastdl: deep learning on hand-written kernels, for NumPy arrays."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fastdl-nn")
except PackageNotFoundError:  # a source tree on the path
    __version__ = "0+unknown"

from . import kernels, ops
from .backend import array, empty_cache, get_num_threads, pooled, set_num_threads
from .tensor import Tensor, frozen, inference, tensor

__all__ = [
    "Tensor",
    "array",
    "empty_cache",
    "frozen",
    "get_num_threads",
    "inference",
    "kernels",
    "ops",
    "pooled",
    "set_num_threads",
    "tensor",
]
