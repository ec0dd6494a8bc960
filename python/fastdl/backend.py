"""Which compiled module runs a kernel, and every array function that fastdl uses outside kernels.

An array is a ``numpy.ndarray`` on the CPU. Nothing but this file and the kernels touches the data of arrays, so another kind
of array comes in by one more entry here.
"""

import importlib
import importlib.util
import os
import warnings

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
        module.set_num_threads(get_num_threads() if _loaded else module.default_num_threads()[0])
        _loaded[name] = module
    return _loaded[name]


def _agrees(module, base):
    """Whether a module computes what the baseline does, on a sample of kernels; takes about a millisecond."""
    n = np.arange(37 * 41, dtype=np.float32)
    x, w = np.sin(n).reshape(37, 41), np.cos(n).reshape(41, 37)
    bits = np.empty(100, np.uint32), np.empty(100, np.uint32)
    module.random_words(7, 5, bits[0])
    base.random_words(7, 5, bits[1])
    products = [k.dense_forward(x, w, None, "tanh") for k in (module, base)]
    images = [k.conv2d_forward(x[:32, :40].reshape(2, 16, 20, 2).copy(), w[:9, :16].reshape(3, 3, 2, 8).copy())
              for k in (module, base)]  # fmt: skip
    return (
        np.array_equal(*bits)
        and np.array_equal(*(k.activation_forward(x, "gelu") for k in (module, base)))
        and np.allclose(*products, atol=1e-4)
        and np.allclose(*images, atol=1e-4)
    )


def _choose():
    able = runnable()
    if not able:
        built = [t for t in _ORDER if importlib.util.find_spec(f"fastdl._{t}")]
        raise ImportError(
            f"fastdl: expected kernels for one of {', '.join(_runtime.runnable_targets())}, which this machine runs; "
            f"got a build with {', '.join(built) or 'none'} (FASTDL_TARGETS=native builds them from source)"
        )
    wanted = os.environ.get("FASTDL_TARGET")
    if not wanted:
        # This target's instructions could not be executed where it was developed, so it proves itself before it is used.
        # (The last one is the simplest that is built; where there is no other, there is nothing to compare with.)
        if able[0] == "avx512" and len(able) > 1 and not _agrees(load("avx512"), load(able[-1])):
            warnings.warn(
                "the avx512 kernels disagree with the baseline on this machine: using the next target", stacklevel=2
            )
            del _loaded["avx512"]
            return able[1]
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


class pooled:
    """``with pooled():`` arrays made inside keep their memory for the next ones of that size when they are freed.

    A steady training step then takes no page faults. It holds for this thread and context; arrays may outlive it.
    ``FASTDL_POOL=0`` turns it off.
    """

    __slots__ = ("_before",)

    def __enter__(self):
        self._before = _runtime.pool_enter()

    def __exit__(self, *_):
        _runtime.pool_leave(self._before)


def empty_cache():
    """Give the memory that `pooled` keeps for later arrays back to the system."""
    _runtime.empty_cache()


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


def array(obj, dtype=np.float32):
    """An array that kernels take: converted, and copied, only where that is needed.

    Parameters
    ----------
    obj : array-like, or anything with ``__array__`` or ``__dlpack__`` on the CPU
        A NumPy array, a list, a PyTorch tensor, ...
    dtype : dtype
        float32, or int64 for labels and indices.

    Returns
    -------
    numpy.ndarray
        C-contiguous, in native byte order.
    """
    if not isinstance(obj, np.ndarray) and hasattr(obj, "__dlpack__"):
        obj = np.from_dlpack(obj)
    # ascontiguousarray would turn a number into an array of one axis
    return np.asarray(obj, np.dtype(dtype).newbyteorder("="), order="C")


def empty(shape, like, dtype=np.float32):
    """A new array on the device of `like`, not initialised."""
    return np.empty(shape, dtype)


def full(shape, like, value):
    """A new float32 array on the device of `like`, filled with one value."""
    return np.full(shape, value, np.float32)


def zeros(shape, like, dtype=np.float32):
    """A new array of zeros on the device of `like`."""
    return np.zeros(shape, dtype)


def reshape(a, shape):
    """The same memory under another shape."""
    return a.reshape(shape)


_ONE = np.ones(1, np.float32)
_ONE.flags.writeable = False


def ones(shape, like):
    """A float32 array of ones on the device of `like`, not to be written to: where every backward pass begins."""
    return _ONE if shape == (1,) else np.ones(shape, np.float32)


def to_device(a, like):
    """A host array on the device of `like`."""
    return a


def to_host(a):
    """The values of an array as a NumPy array."""
    return a
