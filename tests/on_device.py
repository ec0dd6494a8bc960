"""A CUDA module's kernels for the tables of the tests: NumPy arrays go to the device and back around each call."""

import functools

import numpy as np


class DeviceKernels:
    """The kernels of `module`, called with NumPy arrays.

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
            moved = {}  # NumPy array -> array on the device; the same memory twice stays the same memory

            def there(a):
                if not isinstance(a, np.ndarray):
                    return tuple(map(there, a)) if isinstance(a, tuple) else a
                if id(a) not in moved:
                    moved[id(a)] = a, library.asarray(a)
                return moved[id(a)][1]

            result = value(*map(there, args), **{k: there(v) for k, v in kwargs.items()})
            for here, gone in moved.values():
                if here.flags.writeable:
                    here[...] = library.asnumpy(gone)

            def back(r):
                if isinstance(r, library.ndarray):
                    given = [here for here, gone in moved.values() if gone is r]
                    return given[0] if given else library.asnumpy(r)
                return tuple(map(back, r)) if isinstance(r, tuple) else r

            return back(result)

        return call
