"""fastdl: deep learning on hand-written kernels, for NumPy arrays."""

try:
    from . import kernels
except (ImportError, ValueError) as error:
    from .cli import end_the_command

    end_the_command(error)
    raise
from ._files import get_include, get_sources
from .backend import (
    array,
    empty_cache,
    get_matmul_precision,
    get_num_threads,
    pooled,
    set_matmul_precision,
    set_num_threads,
)
from .tensor import Tensor, frozen, inference, tensor

__all__ = [
    "Tensor",
    "array",
    "empty_cache",
    "frozen",
    "get_include",
    "get_matmul_precision",
    "get_num_threads",
    "get_sources",
    "inference",
    "kernels",
    "ops",
    "pooled",
    "set_matmul_precision",
    "set_num_threads",
    "tensor",
]


_SUBMODULES = (
    "checkpoint",
    "chooser",
    "data",
    "diagnostics",
    "flat",
    "init",
    "interop",
    "io",
    "models",
    "module",
    "nn",
    "onnx",
    "ops",
    "optim",
    "random",
    "schedules",
    "sklearn",
    "tensorboard",
    "train",
)


def __getattr__(name):
    if name in _SUBMODULES:  # loaded where they are first used, so that the kernels alone import in milliseconds
        from importlib import import_module

        return import_module(f"fastdl.{name}")
    if name == "choose":
        from .chooser import choose

        return choose
    # The machinery that knows versions takes longer to import than the rest of this package.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("fastdl-nn")
        except PackageNotFoundError:  # a source tree on the path
            return "0+unknown"
    raise AttributeError(f"module 'fastdl' has no attribute {name!r}")


def __dir__():
    return sorted({*__all__, *_SUBMODULES, "choose", "__version__"})
