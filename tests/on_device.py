"""A CUDA module's kernels for the tables of the tests: NumPy arrays go to the device and back around each call."""

import ctypes
import functools

import numpy as np


class _Block:
    """The memory behind some NumPy arrays, byte for byte on the device."""

    def __init__(self, owner, library):
        low, high = np.lib.array_utils.byte_bounds(owner)
        self.owner, self.address, self.size, self.library = owner, low, high - low, library
        self.there = library.asarray(self._bytes().copy())

    def _bytes(self):
        return np.frombuffer((ctypes.c_char * self.size).from_address(self.address), np.uint8)

    def pointer(self, array):
        start = self.there.__cuda_array_interface__["data"][0]
        return start + array.ctypes.data - self.address if array.size else 0

    def come_back(self):
        back = self.library.asnumpy(self.there)
        ctypes.memmove(self.address, back.ctypes.data, self.size)


class _Array:
    """What a NumPy array is, type, strides, overlaps and all, on the device: not CuPy's own array."""

    def __init__(self, array, block):
        self.dtype, self.block = array.dtype, block
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (block.pointer(array), not array.flags.writeable),
            "strides": None if array.flags.c_contiguous else array.strides,
        }


class DeviceKernels:
    """The kernels of `module`, called with NumPy arrays.

    What is wrong with an array here (layout, byte order, memory shared with another) is wrong with it there.

    Parameters
    ----------
    module : module
        Takes CUDA arrays.
    library : module
        Makes them: CuPy, or `fake_cuda`.
    """

    def __init__(self, module, library):
        self._module, self._library = module, library
        self.SPECS = module.SPECS

    def __getattr__(self, name):
        value = getattr(self._module, name)
        if name not in self.SPECS:
            return value
        library = self._library

        @functools.wraps(value)
        def call(*args, **kwargs):
            moved, blocks = [], {}  # (NumPy array, the one on the device); by the array that owns the memory

            def there(a):
                if not isinstance(a, np.ndarray):
                    return tuple(map(there, a)) if isinstance(a, tuple) else a
                for here, gone in moved:
                    if here is a:
                        return gone
                owner = a
                while isinstance(owner.base, np.ndarray):
                    owner = owner.base
                if id(owner) not in blocks:
                    blocks[id(owner)] = _Block(owner, library)
                moved.append((a, _Array(a, blocks[id(owner)])))
                return moved[-1][1]

            result = value(*map(there, args), **{k: there(v) for k, v in kwargs.items()})
            for block in {id(gone.block): gone.block for here, gone in moved if here.flags.writeable}.values():
                block.come_back()

            def back(r):
                if isinstance(r, _Array):
                    return next(here for here, gone in moved if gone is r)
                if isinstance(r, library.ndarray):
                    return library.asnumpy(r)
                return tuple(map(back, r)) if isinstance(r, tuple) else r

            return back(result)

        return call
