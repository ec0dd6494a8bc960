"""Sequences of unequal length as one array, and back."""

from numbers import Real

import numpy as np

from .. import backend
from .._arguments import array, integer, positive


def pad(sequences, value=0, length=None, name="sequences"):
    """Sequences side by side in one array, filled up at their ends.

    Parameters
    ----------
    sequences : list of arrays [T_n,...]
        All of one kind but for their length; an array [N,T,...] is taken as it is.
    value : number
        What fills up.
    length : int, optional
        T; the longest if left out.
    name : str
        What errors call them.

    Returns
    -------
    x : array [N,T,...]
        float32; int64 for whole numbers, `value` among them.
    lengths : int64 array [N]

    Raises
    ------
    TypeError
        Not real numbers, or a masked array.
    ValueError
        No sequences, one longer than `length`, sequences that differ in more than their length, or numbers that neither
        dtype can hold.

    Examples
    --------
    >>> from fastdl import data
    >>> x, lengths = data.pad([[1, 2, 3], [4]])
    >>> x.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    if not hasattr(sequences, "__iter__"):
        raise TypeError(f"{name}: expected a list of sequences; got {type(sequences).__name__}")
    if not isinstance(value, Real):
        raise TypeError(f"value: expected a number; got {type(value).__name__}")
    arrays = []
    for i, s in enumerate(sequences):
        try:
            arrays.append(backend.array(s, None, "cpu"))
        except ValueError as error:
            raise ValueError(f"{name}[{i}]: expected steps of one shape; got {error}") from None
        except (TypeError, BufferError) as error:
            raise TypeError(f"{name}[{i}]: {error}") from None
    if not arrays:
        raise ValueError(f"{name}: expected one or more; got none")
    for i, a in enumerate(arrays):
        if a.ndim == 0:
            raise ValueError(f"{name}[{i}]: expected an axis of steps; got a single number")
        if a.dtype.kind not in "fiub":
            raise TypeError(f"{name}[{i}]: expected real numbers; got {a.dtype}")
    steps = [a.shape[1:] for a in arrays if len(a)] or [arrays[0].shape[1:]]
    for i, a in enumerate(arrays):
        if len(a) and a.shape[1:] != steps[0]:
            raise ValueError(f"{name}[{i}]: expected steps of shape {list(steps[0])}; got {list(a.shape[1:])}")
    lengths = np.array([len(a) for a in arrays], np.int64)
    length = None if length is None else integer("length", length)
    longest = int(lengths.max())
    if length is not None and longest > length:
        raise ValueError(f"{name}[{int(lengths.argmax())}]: expected at most {length} steps; got {longest}")
    whole = all(a.dtype.kind in "iub" for a in arrays if len(a)) and float(value).is_integer() and -(2**63) <= value < 2**63
    filler = np.int64(value) if whole else float32_of(value, "value")
    x = np.full((len(arrays), longest if length is None else length, *steps[0]), filler)
    for i, a in enumerate(arrays):
        if whole and a.dtype == np.uint64 and a.max(initial=0) >= 2**63:
            raise ValueError(f"{name}[{i}]: expected whole numbers below 2**63; got {a.max()}")
        if len(a):
            x[i, : len(a)] = a if whole else float32_of(a, f"{name}[{i}]")
    return x, lengths


def float32_of(a, name):
    """float32 of numbers, none of which is too large for it."""
    try:
        with np.errstate(over="raise"):
            return np.asarray(a).astype(np.float32, copy=False)
    except FloatingPointError:
        raise ValueError(f"{name}: expected numbers within float32's range, up to 3.4e38; got a larger one") from None


def unpad(x, lengths):
    """The list of sequences in a padded array [N,T,...]: views of their first steps, `lengths` [N] of them, 0 to T."""
    x, n = array("x", x), array("lengths", lengths)
    if x.ndim < 2:
        raise ValueError(f"x: expected a padded array [N,T,...]; got shape {list(x.shape)}")
    if n.shape != x.shape[:1] or (n.size and (n.dtype.kind not in "iu" or n.min() < 0 or n.max() > x.shape[1])):
        raise ValueError(f"lengths: expected {len(x)} whole numbers from 0 to {x.shape[1]}; got {n.tolist()}")
    return [row[:n] for row, n in zip(x, lengths, strict=True)]


def windows(series, width, ahead=1):
    """Every run of `width` values of a series, and the `ahead` values that follow it.

    Parameters
    ----------
    series : array [L] or [L,K]
    width, ahead : int

    Returns
    -------
    x : float32 array [N,width,K]
    y : float32 array [N,ahead,K]
        N = L - width - ahead + 1.
    """
    positive("width", width), positive("ahead", ahead)
    s = array("series", series)
    if s.dtype.kind not in "fiub":
        raise TypeError(f"series: expected an array of real numbers; got {s.dtype}")
    s = float32_of(s, "series")
    s = s[:, None] if s.ndim == 1 else s
    if s.ndim != 2:
        raise ValueError(f"series: expected shape [L] or [L,K]; got {list(s.shape)}")
    n = len(s) - width - ahead + 1
    if n < 1:
        raise ValueError(f"series: expected {width + ahead} values or more for one window; got {len(s)}")
    at = np.arange(n)[:, None] + np.arange(width + ahead)
    runs = s[at]
    return np.ascontiguousarray(runs[:, :width]), np.ascontiguousarray(runs[:, width:])
