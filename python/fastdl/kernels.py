"""Every kernel, forward and backward, on plain arrays: the functions of the compiled module that was chosen at import.

    >>> import numpy as np
    >>> from fastdl import kernels
    >>> image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    >>> halves = np.full((2, 2, 1, 1), 0.5, np.float32)
    >>> kernels.conv2d_forward(image, halves)[0, :, :, 0]
    array([[ 5.,  7.,  9.],
           [13., 15., 17.],
           [21., 23., 25.]], dtype=float32)

Arrays are never converted or copied: float32 (int64 for indices and labels, uint8 where a kernel reads bytes), C-contiguous,
of the right shape, or an error names the argument. An output that is left out is made and returned; `out=` (one array, or a
tuple where a kernel returns several) writes into yours. ``help(kernels.conv2d_forward)`` lists a kernel's arguments.

Any number of threads may call kernels, and longer ones let go of the GIL. While a kernel runs, its arrays are its own: what
another thread writes into them meanwhile makes results undefined, and indices have been checked before.

CUDA arrays (CuPy's, PyTorch's on a GPU, whatever has ``__cuda_array_interface__``) go to the CUDA kernel of the same name, where
fastdl was built with them: on the arrays' GPU and CuPy's current stream, or the one of the argument `stream`. Indices that lie on
a GPU are not checked, as that would wait for it.
"""

from . import backend

__all__ = sorted(backend.cpu.SPECS)

globals().update({name: getattr(backend.cpu, name) for name in __all__})


def address(name):
    """The machine's address of a kernel, for code below Python: Cython, Numba, ctypes, C++.

    Parameters
    ----------
    name : str
        A kernel, or ``<kernel>_workspace``: how many floats its scratch holds.

    Returns
    -------
    PyCapsule
        Named ``fastdl.kernel``; holds the function that ``fastdl/kernels.h`` (see `fastdl.get_include`) declares, of the
        target that was chosen at import. Nothing is checked on this way.

    Raises
    ------
    KeyError
        There is no such kernel.

    Examples
    --------
    >>> from fastdl import kernels
    >>> kernels.address("dense_forward")  # doctest: +ELLIPSIS
    <capsule object "fastdl.kernel" at 0x...>
    """
    return backend.cpu.ADDRESSES[name]


def __dir__():
    return [*__all__, "address"]
