"""Which compiled module runs a kernel, and every array function that fastdl uses outside kernels.

An array is a ``numpy.ndarray`` on the CPU. Nothing but this file and the kernels touches the data of arrays, so another kind
of array comes in by one more entry here.
"""

import importlib
import importlib.util
import os

import numpy as np

from . import _runtime

_ORDER = ("avx512", "avx2", "base")  # best first
_loaded = {}


def runnable():
    """Names of the CPU targets that are built and that this machine can run, best first."""
    able = _runtime.runnable_targets()
    return [t for t in _ORDER if t in able and importlib.util.find_spec(f"fastdl._{t}")]


def load(name):
    """The kernel module of a target."""
    if name not in _loaded:
        module = importlib.import_module(f"fastdl._{name}")
        module.set_num_threads(_runtime.default_num_threads()[0] if not _loaded else get_num_threads())
        _loaded[name] = module
    return _loaded[name]


def _choose():
    able = runnable()
    wanted = os.environ.get("FASTDL_TARGET")
    if not wanted:
        return able[0]
    if wanted not in able:
        raise ImportError(f"FASTDL_TARGET: expected one of {', '.join(able)} on this machine; got {wanted!r}")
    return wanted


def get_num_threads():
    """How many threads a kernel may use."""
    return next(iter(_loaded.values())).get_num_threads()


def set_num_threads(threads):
    """Let kernels use this many threads. Results do not depend on it.

    Parameters
    ----------
    threads : int
        At least 1.

    Raises
    ------
    ValueError
        For less than 1.
    """
    threads = int(threads)
    if threads < 1:
        raise ValueError(f"threads: expected at least 1; got {threads}")
    for module in _loaded.values():
        module.set_num_threads(threads)


target = _choose()
cpu = load(target)
_modules = {np.ndarray: cpu, np.memmap: cpu}


def kernels(a):
    """The module that holds the kernels for this array's device."""
    try:
        return _modules[type(a)]
    except KeyError:
        if isinstance(a, np.ndarray):
            return cpu
        raise TypeError(f"expected a NumPy array; got {type(a).__name__}") from None


def empty(shape, like, dtype=np.float32):
    """A new array on the device of `like`, not initialised."""
    return np.empty(shape, dtype)


def zeros(shape, like, dtype=np.float32):
    """A new array of zeros on the device of `like`."""
    return np.zeros(shape, dtype)


def reshape(a, shape):
    """The same memory under another shape."""
    return a.reshape(shape)


def to_device(a, like):
    """A host array on the device of `like`."""
    return a


def to_host(a):
    """The values of an array as a NumPy array."""
    return a
