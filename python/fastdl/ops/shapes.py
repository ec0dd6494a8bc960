"""Shapes: the same elements under another one, joined, or picked out of a table."""

import numpy as np

from ..backend import empty, kernels
from ..tensor import DY, record, record_kernel
from ._common import sizes_of


def reshape(x, shape):
    """The same elements under another shape."""
    xd = x.data
    try:
        y = xd.reshape(shape)
    except AttributeError:
        kernels(xd)  # says what it is instead of an array
        raise
    except ValueError:
        raise ValueError(f"shape: expected {xd.size} elements, as x {list(xd.shape)} has; got {list(shape)}") from None

    def step(dy):
        dx, beta = x.slot()
        kernels(xd).axpby(1.0, dy.reshape(xd.shape), beta, dx)

    return record(y, (x,), step)


def flatten(x):
    """[N,...] to [N,the rest]."""
    n = sizes_of(x)[0]
    return reshape(x, (n, x.data.size // n if n else int(np.prod(x.shape[1:], dtype=np.int64))))


def concatenate(tensors, axis=-1):
    """Join tensors along one axis; the other axes agree."""
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("tensors: expected at least one; got none")
    first = tensors[0].shape
    ndim = len(first)
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis: expected -{ndim} to {ndim - 1}; got {axis}")
    axis %= ndim
    for i, t in enumerate(tensors):
        if len(t.shape) != ndim or t.shape[:axis] + t.shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
            raise ValueError(f"tensors[{i}]: expected shape {list(first)} but for axis {axis}; got {list(t.shape)}")
    k, like = kernels(tensors[0].data), tensors[0].data
    rows = int(np.prod(first[:axis], dtype=np.int64))
    inner = int(np.prod(first[axis + 1 :], dtype=np.int64))
    widths = [t.shape[axis] * inner for t in tensors]
    total = np.sum([t.shape[axis] for t in tensors])
    y = empty((*first[:axis], int(total), *first[axis + 1 :]), like)
    flat = y.reshape(rows, -1) if y.size else y.reshape(rows, 0 if rows else int(np.sum(widths)))
    places = np.cumsum([0, *widths[:-1]]).tolist()
    for t, at, width in zip(tensors, places, widths, strict=True):
        k.put_columns(t.data.reshape(rows, width), at, flat)

    def step(dy):
        d = dy.reshape(flat.shape)
        for t, at, width in zip(tensors, places, widths, strict=True):
            dx, beta = t.slot()
            if dx is not None:
                k.get_columns(d, at, dx.reshape(rows, width), beta)

    return record(y, tensors, step)


def embedding(table, index):
    """Rows table[index] of a Tensor [L,D], for an int64 array `index` of any shape."""
    k = kernels(table.data)
    return record_kernel(k.embedding_forward(table.data, index), k.embedding_backward, index, DY, None, table)
