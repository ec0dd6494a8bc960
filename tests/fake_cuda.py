"""CUDA arrays without a GPU: host memory behind just the part of CuPy that fastdl uses.

What CuPy refuses is refused here: NumPy arrays do not mix with these, neither in an assignment nor in a kernel. New memory
holds 0xFF bytes (NaN), so that reading before writing shows. `cuda.Device` and `cuda.Stream` keep books of what is current
and of who asked.
"""

import contextlib
import threading

import numpy as np

_local = threading.local()


def _state():
    if not hasattr(_local, "devices"):
        _local.devices, _local.streams = [0], [0]
    return _local


class Device:
    """A GPU by number; inside ``with Device(1):`` new arrays are on it."""

    def __init__(self, number=None):
        self.id = _state().devices[-1] if number is None else number

    def __enter__(self):
        _state().devices.append(self.id)
        return self

    def __exit__(self, *_):
        _state().devices.pop()

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None

    @property
    def mem_info(self):
        return free[0], free[0]


free = [1 << 30]  # bytes of memory that a device has left


class Stream:
    """A stream by number."""

    def __init__(self, ptr=0):
        self.ptr = ptr

    def __enter__(self):
        _state().streams.append(self.ptr)
        return self

    def __exit__(self, *_):
        _state().streams.pop()


class runtime:
    """Stands for the module cupy.cuda.runtime: two GPUs."""

    getDeviceCount = staticmethod(lambda: 2)
    getDevice = staticmethod(lambda: _state().devices[-1])
    getDeviceProperties = staticmethod(lambda number: {"name": f"Fake {number}".encode()})


class cuda:
    """Stands for the module cupy.cuda."""

    Device = Device
    Stream = Stream
    ExternalStream = Stream
    runtime = runtime

    @staticmethod
    def get_current_stream(device_id=-1):
        return Stream(_state().streams[-1])


class _Flags:
    def __init__(self, host):
        self.c_contiguous = host.flags.c_contiguous


class _Memory:
    def __init__(self, ptr, device_id):
        self.ptr, self.device_id = ptr, device_id


class ndarray:
    """Host memory with ``__cuda_array_interface__``."""

    def __init__(self, host, device, interface=None):
        self.host, self.device, self.interface = host, device, interface or {}

    data = property(lambda self: _Memory(self.host.ctypes.data, self.device.id))
    dtype = property(lambda self: self.host.dtype)
    flags = property(lambda self: _Flags(self.host))
    ndim = property(lambda self: self.host.ndim)
    shape = property(lambda self: self.host.shape)
    size = property(lambda self: self.host.size)
    strides = property(lambda self: self.host.strides)

    @property
    def __cuda_array_interface__(self):
        return {
            "version": 3,
            "shape": self.host.shape,
            "typestr": self.host.dtype.str,
            "data": (self.host.ctypes.data if self.host.size else 0, not self.host.flags.writeable),
            "strides": None if self.host.flags.c_contiguous else self.host.strides,
            "stream": None,
        } | self.interface

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        raise TypeError("not used by fastdl")

    def __bool__(self):
        raise TypeError("not used by fastdl")

    def __eq__(self, other):
        raise TypeError("not used by fastdl")

    __hash__ = object.__hash__

    def __getitem__(self, at):
        return ndarray(self.host[at], self.device)

    def __setitem__(self, at, value):
        if isinstance(value, ndarray):
            if value.device != self.device:
                raise ValueError("an array of another device")
            self.host[at] = value.host
        elif isinstance(value, (int, float)):
            self.host[at] = value
        else:
            raise TypeError(f"unsupported type {type(value).__name__}")

    def reshape(self, *shape):
        return ndarray(self.host.reshape(*shape), self.device)

    def copy(self):
        return ndarray(self.host.copy(), self.device)

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return asarray, (self.host,)

    def __repr__(self):
        return f"ndarray({self.host!r}, device={self.device.id})"


class Foreign(ndarray):
    """An array of some other library: a kernel knows of it what its interface says."""


def _new(shape, dtype):
    host = np.empty(shape, dtype)
    host.view(np.uint8).reshape(-1)[...] = 255 if host.size and host.ndim else 0
    return ndarray(host, Device())


def empty(shape, dtype=float):
    return _new(shape, dtype)


def zeros(shape, dtype=float):
    a = _new(shape, dtype)
    a.host[...] = 0
    return a


def full(shape, fill_value, dtype=None):
    a = _new(shape, dtype)
    a.host[...] = fill_value
    return a


def asarray(a, dtype=None, order=None):
    if isinstance(a, ndarray):
        host = np.asarray(a.host, dtype, order=order)
        return a if np.may_share_memory(host, a.host) else ndarray(host, a.device)
    if hasattr(a, "__cuda_array_interface__"):
        return ndarray(a.host, a.device)
    return ndarray(np.array(a, dtype, order="C"), Device())


def asnumpy(a):
    return a.host.copy()


def take(a, indices, axis=None):
    assert isinstance(a, ndarray) and isinstance(indices, ndarray)
    return ndarray(np.take(a.host, indices.host, axis=axis), a.device)


def from_dlpack(array):
    with Device(array.__dlpack_device__()[1]):
        return asarray(np.array(array.host))


class HostKernels:
    """A CPU module's kernels for these arrays."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        function = getattr(self._module, name)

        def unwrap(a):
            if isinstance(a, np.ndarray):
                raise TypeError("expected a CUDA array; got a NumPy array")
            return a.host if isinstance(a, ndarray) else a

        def call(*args, **kwargs):
            given = [a for a in [*args, *kwargs.values()] if isinstance(a, ndarray)]
            result = function(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()})

            def wrap(r):
                if not isinstance(r, np.ndarray):
                    return r
                return next((g for g in given if g.host is r), ndarray(r, given[0].device))

            return tuple(map(wrap, result)) if isinstance(result, tuple) else wrap(result)

        return call


@contextlib.contextmanager
def as_cuda(kernels):
    """Inside, these arrays are fastdl's CUDA arrays and `kernels` is the module that takes them."""
    from fastdl import backend

    before = backend._cuda
    if hasattr(kernels, "set_array_library"):  # what stands behind the border of the CUDA module
        backend._own_arrays(kernels, ndarray)
    backend._cuda = backend.Home("cuda", __import__(__name__), kernels)
    backend._homes[ndarray], backend._modules[ndarray] = backend._cuda, kernels
    try:
        yield
    finally:
        backend._cuda = before
        del backend._homes[ndarray], backend._modules[ndarray]
