"""Batches of samples: rows of an array gathered by their places, as they are or changed at random on the way."""

import math

import numpy as np

from . import backend

_KINDS = {np.dtype(kind): kind for kind in ("float32", "uint8", "int64")}  # a dtype's own name takes a microsecond to make


def must_be_array(name, value):
    """TypeError for what has no dtype."""
    if not hasattr(value, "dtype"):
        raise TypeError(f"{name}: expected an array (fastdl.array makes one); got {type(value).__name__}")


class Rows:
    """Batches from an array, in memory or memory-mapped: one gather kernel each, nothing else is copied.

    Parameters
    ----------
    array : array [L,...]
        float32; uint8 (a batch becomes float32 times 1/255); int64 (labels, indices). C-contiguous.
    name : str
        For messages.
    like : array, optional
        The batches go to its device. The array goes there as a whole where that has memory enough; else rows are
        gathered where they lie, and uint8 rows travel as bytes.
    """

    def __init__(self, array, name="x", like=None):
        must_be_array(name, array)
        kind = _KINDS.get(array.dtype)
        if kind is None:
            raise TypeError(f"{name}: expected float32, uint8 or int64; got {array.dtype}")
        if array.ndim < 1:
            raise ValueError(f"{name}: expected one axis or more; got a single number")
        if not array.flags.c_contiguous:
            raise TypeError(f"{name}: expected a C-contiguous array; got strides {array.strides}")
        if like is not None and backend.fits(array, like):
            array = backend.to_device(array, like)
        self.array, self.kind, self._buffer = array, kind, None
        self._row = array.shape[1:]
        self._table = array.reshape(len(array), math.prod(self._row)) if kind != "int64" else array
        self._like = array if like is None else like
        self._bytes_travel = kind == "uint8" and backend.home(array) is not backend.home(self._like)
        self._kernels = backend.kernels(self._like if self._bytes_travel else array)
        self._all_on_host = backend.home(array) is backend.home(self._like) is backend.home(None)

    def __len__(self):
        return len(self.array)

    def take(self, index):
        """The rows at these places, an int64 array. The result is written over by the next call."""
        if self._all_on_host:  # asked once: small networks take a step in the time of five such questions
            return backend.take(self._table, index) if self.kind == "int64" else self._gather(self._table, index)
        index = backend.to_device(index, self.array)
        if self.kind == "int64":
            return backend.to_device(backend.take(self._table, index), self._like)
        if self._bytes_travel:
            table = backend.to_device(backend.take(self._table, index), self._like)
            return self._gather(table, backend.to_device(np.arange(len(index)), self._like))
        return backend.to_device(self._gather(self._table, index), self._like)

    def all(self):
        """All rows: the array itself where that is what a batch would be."""
        if self._all_on_host and self.kind != "uint8":
            return self.array
        return self.take(np.arange(len(self.array)))

    def _gather(self, table, index):
        n = index.shape[0]
        if self._buffer is None or len(self._buffer) < n:
            self._buffer = backend.empty((n, *self._row), table)
            self._flat = self._buffer.reshape(n, table.shape[1])
        whole = len(self._buffer) == n
        flat = self._flat if whole else self._flat[:n]
        if self.kind == "uint8":
            self._kernels.gather_u8(table, index, 1.0 / 255.0, flat)
        else:
            self._kernels.embedding_forward(table, index, flat)
        return self._buffer if whole else self._buffer[:n]


class AugmentedRows:
    """Rows of images that are changed at random on their way out, where they lie, by a `fastdl.data.Augment`."""

    def __init__(self, rows, augment, stream, like):
        self.array, self._augment, self._stream, self._like = rows.array, augment, stream, like

    def __len__(self):
        return len(self.array)

    def take(self, index):
        images = backend.take(self.array, backend.to_device(index, self.array))
        draws = self._augment.draws(*images.shape[:3])
        return backend.to_device(self._augment(images, *self._stream.take(draws)), self._like)

    def get_state(self):
        return self._stream.get_state()

    def set_state(self, state):
        self._stream.set_state(state)
