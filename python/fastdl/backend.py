"""Which compiled module runs a kernel, and every array function that fastdl uses outside kernels.

An array is a ``numpy.ndarray`` on the CPU and a ``cupy.ndarray`` on a GPU; kernels alone also take whatever else has
``__cuda_array_interface__``. Nothing but this file and the kernels touches the data of arrays: the rest of the package uses
the functions below and, of an array itself, `ARRAY_ATTRIBUTES`. A kind of array comes in by one more entry in `_homes`.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from contextvars import ContextVar

import numpy as np

from . import _runtime
from ._arguments import positive

_ORDER = ("avx512", "avx2", "base")  # best first
_loaded = {}
_PRECISIONS = ("highest", "tf32", "bf16")
_precision = 0  # place in it


def runnable():
    """Names of the CPU targets that are built and that this machine can run, best first."""
    able = _runtime.runnable_targets()
    return [t for t in _ORDER if t in able and importlib.util.find_spec(f"fastdl._{t}")]


def load(name):
    """The kernel module of a target."""
    if name not in _loaded:
        module = importlib.import_module(f"fastdl._{name}")
        module.set_num_threads(get_num_threads() if _loaded else module.default_num_threads()[0])
        if hasattr(module, "set_matmul_precision"):  # CUDA's kernels, in the emulator
            module.set_matmul_precision(_precision)
        if hasattr(module, "set_elsewhere"):
            module.set_elsewhere(lambda kernel: _cuda_kernel(kernel))  # defined below
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
    TypeError, ValueError
        For what is no integer, less than 1 or more than 512.
    """
    threads = positive("threads", threads)
    for module in _loaded.values():
        module.set_num_threads(threads)


def get_matmul_precision():
    """The word that `set_matmul_precision` was given last; 'highest' at first."""
    return _PRECISIONS[_precision]


def set_matmul_precision(precision):
    """Choose how products (dense layers, convolutions, matmul) multiply on GPUs. CPUs always multiply in float32.

    Parameters
    ----------
    precision : {'highest', 'tf32', 'bf16'}
        'highest': float32. 'tf32', 'bf16': factors are rounded to 11 or 8 significant bits and their products added in
        float32 by the tensor cores; GPUs before sm_80 stay at 'highest'.

    Raises
    ------
    ValueError
        For another word.
    """
    global _precision
    if precision not in _PRECISIONS:
        raise ValueError(f"precision: expected 'highest', 'tf32' or 'bf16'; got {precision!r}")
    _precision = _PRECISIONS.index(precision)
    for module in (*_loaded.values(), sys.modules.get("fastdl._cuda")):
        if hasattr(module, "set_matmul_precision"):
            module.set_matmul_precision(_precision)


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


if os.environ.get("FASTDL_POOL", "") not in ("", "0", "1"):
    raise ImportError(f"FASTDL_POOL: expected 0 or 1; got {os.environ['FASTDL_POOL']!r}")
target = _choose()
cpu = load(target)

# ------------------------------------------------------------------------------------------------------- devices

# All that this file calls of an array library, and all that the package uses of its arrays.
ARRAY_FUNCTIONS = ("asarray", "asnumpy", "empty", "from_dlpack", "full", "take", "zeros")  # asnumpy: not of NumPy
ARRAY_ATTRIBUTES = (
    "__getitem__", "__len__", "__setitem__", "copy", "device", "dtype", "flags", "ndim", "reshape", "shape", "size",
)  # fmt: skip


class Home:
    """Where arrays of one kind live.

    Parameters
    ----------
    name : {'cpu', 'cuda'}
    library : module
        Makes the arrays: NumPy, CuPy or something with the same `ARRAY_FUNCTIONS`.
    kernels : module
        Takes them.
    """

    __slots__ = ("kernels", "library", "name")

    def __init__(self, name, library, kernels):
        self.name, self.library, self.kernels = name, library, kernels


_cpu = Home("cpu", np, cpu)
_homes = {type(None): _cpu, np.ndarray: _cpu, np.memmap: _cpu}  # by type of array; None stands for no array yet
_modules = {np.ndarray: cpu, np.memmap: cpu}  # the same for `kernels`, which is called more than all else
_cuda = None


def cuda():
    """The home of CUDA arrays, found at the first call.

    Raises
    ------
    ImportError
        The CUDA kernels are not built in, or CuPy is missing: the message says what to do.
    """
    global _cuda
    if _cuda is None:
        module = cuda_kernels()
        try:
            import cupy
        except ImportError as error:
            raise ImportError(
                f"cuda: expected CuPy to be installed, pip install 'fastdl-nn[{extra(module)}]'; got none"
            ) from error
        _own_arrays(module, cupy.ndarray)
        _cuda = Home("cuda", cupy, module)
        _homes[cupy.ndarray], _modules[cupy.ndarray] = _cuda, module
    return _cuda


def _own_arrays(module, array):
    """Let the CUDA module know the type of the arrays that it will mostly get."""
    dtypes = [np.dtype(name) for name in ("float32", "uint8", "int64", "uint32")]
    module.set_array_library(_make_output, _current_stream, array, dtypes)


def extra(module):
    """The extra whose CuPy fits the CUDA that the kernels were built with."""
    return f"cuda{module.runtime_version() // 1000}"


def cuda_kernels():
    """The module of the CUDA kernels, loaded at the first call; ImportError where it is not built in."""
    if importlib.util.find_spec("fastdl._cuda") is None:
        raise ImportError("cuda: expected a build with CUDA kernels; got one without (FASTDL_CUDA=ON builds them)")
    module = importlib.import_module("fastdl._cuda")
    if _cuda is None:
        module.set_array_library(_make_output, _current_stream)
    module.set_matmul_precision(_precision)
    return module


def _cuda_kernel(name):
    """The kernel that takes over a call of a CPU kernel with a CUDA array."""
    return getattr(cuda_kernels() if _cuda is None else _cuda.kernels, name)


def _make_output(shape, dtype, device, stream):
    """What a kernel writes to where the caller gave nothing, or its scratch: on the stream that the kernel runs on, so that
    the array library does not hand the memory to another stream too early."""
    library = cuda().library
    if stream is None and (device is None or device == library.cuda.runtime.getDevice()):
        return library.empty(shape, dtype)
    where = contextlib.nullcontext() if device is None else library.cuda.Device(device)
    order = contextlib.nullcontext() if stream is None else library.cuda.ExternalStream(stream)
    with where, order:
        return library.empty(shape, dtype)


def _current_stream(device):
    # Only CuPy's: a caller who makes arrays otherwise, and not on the default stream, says stream=.
    library = _cuda.library if _cuda is not None else sys.modules.get("cupy")
    return 0 if library is None else library.cuda.get_current_stream(device).ptr


def _is_cuda(a):
    return hasattr(a, "__cuda_array_interface__")


def home(a):
    """Where an array lives, as a `Home`."""
    try:
        return _homes[type(a)]
    except KeyError:
        pass
    if isinstance(a, np.ndarray):
        return _cpu
    if _is_cuda(a) and isinstance(a, cuda().library.ndarray):
        return _cuda
    raise TypeError(f"expected a NumPy or CuPy array (fastdl.array makes one); got {type(a).__name__}")


def kernels(a):
    """The module that holds the kernels for this array's device."""
    try:
        return _modules[type(a)]
    except KeyError:
        if isinstance(a, np.ndarray):
            return cpu
        if not _is_cuda(a):
            if type(a) is memoryview:  # the data of an array where those of a Tensor were wanted
                raise TypeError("expected a Tensor (fastdl.Tensor(x) makes one); got an array, or a memoryview") from None
            what = "a NumPy or CUDA array (fastdl.tensor(x) makes a Tensor of what is none)"
            raise TypeError(f"data: expected {what}; got {type(a).__name__}") from None
    return cuda_kernels() if _cuda is None else _cuda.kernels


def device(name):
    """(home, number) of a device's name: 'cpu', 'cuda' (the GPU that is current; number None) or 'cuda:1'."""
    kind, _, number = str(name).partition(":")
    if kind == "cpu" and not number:
        return _cpu, None
    if kind != "cuda" or not (number.isdecimal() or ":" not in str(name)):
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N'; got {name!r}")
    return cuda(), int(number) if number else None


def device_name(name):
    """What a device is called: 'cpu', or the GPU's product name. Shows that it can be used before any work is done.

    Raises
    ------
    ImportError
        No CUDA kernels in this build, or no CuPy.
    ValueError
        No such device, or none that CUDA can use.
    """
    there, number = device(name)
    if there is _cpu:
        return "cpu"
    runtime = there.library.cuda.runtime
    try:
        count = runtime.getDeviceCount()
        number = runtime.getDevice() if number is None else number
    except RuntimeError as error:  # no driver, or no GPU
        raise ValueError(f"device: expected a GPU that CUDA can use, for {name!r}; got {error}") from error
    if number >= count:
        raise ValueError(f"device: expected one of {count} GPUs, numbered from 0; got {name!r}")
    called = runtime.getDeviceProperties(number)["name"]
    return called.decode() if isinstance(called, bytes) else str(called)


def fits(a, like):
    """Whether a whole array may go to the device of `like`: at most a quarter of the memory that is free there."""
    if home(like) is _cpu or home(a) is home(like):
        return False
    free, _ = like.device.mem_info
    return 4 * a.size * a.dtype.itemsize <= free


def move(a, name):
    """An array on the device of that name; the same array where it is there already."""
    there, number = device(name)
    here = home(a)
    if here is there and (number is None or a.device.id == number):
        return a
    a = to_host(a)
    if there is _cpu:
        return a
    if number is None:
        return there.library.asarray(a)
    with there.library.cuda.Device(number):
        return there.library.asarray(a)


# -------------------------------------------------------------------------------------------------- new arrays


def array(obj, dtype=np.float32, device=None):
    """An array that kernels take: converted, and copied, only where that is needed.

    Parameters
    ----------
    obj : array-like, or anything with ``__dlpack__``, ``__cuda_array_interface__`` or ``__array__``
        A NumPy or CuPy array, a list, a PyTorch tensor, a JAX array, ... Their memory is used as it is where dtype, layout
        and device allow.
    dtype : dtype, optional
        float32; int64 for labels and indices; None keeps what is there.
    device : {'cpu', 'cuda', 'cuda:N'}, optional
        Where the array shall be; where it is now if left out.

    Returns
    -------
    numpy.ndarray or cupy.ndarray
        C-contiguous, in native byte order.

    Raises
    ------
    ImportError
        A CUDA array, in a build without CUDA kernels or without CuPy.
    BufferError
        On a device that is neither a CPU nor a CUDA GPU.
    TypeError
        None, a Tensor, a masked array with something masked; with a dtype, what is no real number.
    ValueError
        Lists of unequal lengths; for a dtype of integers, numbers that are none or too large.
    """
    if type(obj) not in _homes or obj is None:
        obj = _adopt(obj)
    dtype = np.dtype(obj.dtype if dtype is None else dtype)
    if obj.dtype.kind in "cmMSUV" and dtype.kind != obj.dtype.kind:
        raise TypeError(f"expected real numbers; got {obj.dtype}")
    dtype = dtype if dtype.isnative else dtype.newbyteorder("=")
    if home(obj) is _cpu:
        # ascontiguousarray would turn a number into an array of one axis
        obj = _whole(obj, dtype) if dtype.kind in "iu" and obj.dtype != dtype else np.asarray(obj, dtype, order="C")
    if device is not None:
        obj = move(obj, device)
    made = home(obj).library.asarray(obj, dtype, order="C")
    return made.copy() if home(made) is _cpu and not made.flags.aligned else made


def _whole(a, dtype):
    """Numbers as integers, which they must be. Those on a GPU are not looked at, as that would wait for it."""
    with np.errstate(invalid="ignore"):
        made = np.asarray(a, dtype, order="C")
    if a.dtype.kind in "fiu" and (strange := made != a).any():
        raise ValueError(f"expected whole numbers that {dtype} holds; got {a[strange][0]}")
    return made


def _adopt(obj):
    """The memory of some other library's array as one of ours, or a list as an array."""
    if obj is None:
        raise TypeError("expected an array or what makes one; got None")
    if isinstance(obj, np.ndarray):
        if np.ma.is_masked(obj):
            raise TypeError("expected an array without masked elements; got a masked array (its filled() makes one)")
        return obj
    if _is_cuda(obj):
        return cuda().library.asarray(obj)
    if isinstance(obj, _runtime.Node):
        raise TypeError("expected an array or what makes one; got a Tensor (its data is one)")
    if not hasattr(obj, "__dlpack__"):
        return np.asarray(obj)
    kind = int(obj.__dlpack_device__()[0])
    if kind in (2, 13):  # kDLCUDA, kDLCUDAManaged
        return cuda().library.from_dlpack(obj)
    if kind not in (1, 3, 11):  # kDLCPU, and pinned memory of CUDA and ROCm
        raise BufferError(f"expected an array on a CPU or a CUDA GPU; got one on DLPack device {kind}")
    try:
        return np.from_dlpack(obj)
    except RuntimeError as error:
        what = getattr(obj, "dtype", type(obj).__name__)
        raise TypeError(f"expected an array of a dtype that NumPy has; got {what} ({error})") from None


_FLOAT32 = np.dtype(np.float32)  # NumPy takes a third longer from the class


def empty(shape, like, dtype=_FLOAT32):
    """A new array on the device of `like`, not initialised."""
    if type(like) is np.ndarray or home(like) is _cpu:
        return np.empty(shape, dtype)
    with like.device:
        return home(like).library.empty(shape, dtype)


def empty_like(a):
    """A new float32 array of the shape and on the device of `a`, not initialised."""
    return np.empty(a.shape, _FLOAT32) if type(a) is np.ndarray else empty(a.shape, a)


_constants = ContextVar("constants", default=None)


def keep_constants():
    """From now on what `full` makes in this context is kept, in the list that this gives: a recorded step reads it whenever it is
    replayed, and no kernel of it writes it again. So its memory is apart from that of the step, where an array may lie in the
    place of an earlier one, which a replay writes anew."""
    kept = []
    _constants.set((kept, _runtime.new_arena()))
    return kept


def full(shape, like, value):
    """A new float32 array on the device of `like`, filled with one value; not to be written to while a step is recorded."""
    if type(like) is np.ndarray or home(like) is _cpu:
        constants = _constants.get()
        if constants is None:
            return np.full(shape, value, np.float32)
        kept, arena = constants
        outer = _runtime.arena_enter(arena)
        try:
            kept.append(np.full(shape, value, np.float32))
        finally:
            _runtime.pool_leave(outer)
        return kept[-1]
    with like.device:
        return home(like).library.full(shape, value, np.float32)


def zeros(shape, like, dtype=np.float32):
    """A new array of zeros on the device of `like`."""
    if home(like) is _cpu:
        return np.zeros(shape, dtype)
    with like.device:
        return home(like).library.zeros(shape, dtype)


def vector(n, like):
    """A vector of n float32 zeros on the device of `like` that starts on 64 bytes (CuPy's own start on 512)."""
    if home(like) is not _cpu:
        return zeros((n,), like)
    raw = np.zeros(n + 16, np.float32)
    start = (-raw.ctypes.data // 4) % 16
    return raw[start : start + n]


_ONE = np.ones(1, np.float32)
_ONE.flags.writeable = False


def ones(shape, like):
    """A float32 array of ones on the device of `like`, not to be written to: where every backward pass begins."""
    if shape == (1,) and (type(like) is np.ndarray or home(like) is _cpu):
        return _ONE
    return full(shape, like, 1.0)


def take(a, index):
    """Rows of an array at the places in an int64 array on the same device."""
    return home(a).library.take(a, index, axis=0)


# ------------------------------------------------------------------------------------------- from device to device


def to_device(a, like):
    """The values of an array on the device of `like`: the array itself where it is there."""
    here, there = home(a), home(like)
    if here is there and (here is _cpu or a.device.id == like.device.id):
        return a
    a = to_host(a)
    if there is _cpu:
        return a
    with like.device:
        return there.library.asarray(a)


def to_host(a):
    """The values of an array as a NumPy array: the array itself where it is one. Waits for a GPU."""
    here = home(a)
    return a if here is _cpu else here.library.asnumpy(a)


def assign(a, values):
    """Write values, an array of the same shape from any device or a number, into an array."""
    a[...] = values if isinstance(values, (int, float)) else to_device(values, a)
