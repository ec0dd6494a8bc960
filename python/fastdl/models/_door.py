"""The door of the models: what users hand in becomes arrays, once, or is named in an error."""

import contextlib
import warnings
from numbers import Integral, Real

import numpy as np

from .. import backend
from .._arguments import reals

REAL = "fiub"  # NumPy kinds


def array_of(x, name, *device):
    """An array of what a user gave, in its own dtype; what will not be one is named."""
    try:
        return backend.array(x, None, *device)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{name}: expected samples of one shape; got {error}") from None
    except (TypeError, BufferError) as error:
        raise TypeError(f"{name}: {error}") from None


def as_input(x, name="X"):
    """An array that the training loop takes, converted at most once.

    uint8 stays (a batch becomes values in [0,1]); every other real dtype becomes float32, and so do objects that are all
    real numbers, as NumPy makes of a table with columns of several kinds.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        No axis of samples, or numbers that float32 can't hold.
    """
    a = x if type(x) in (np.ndarray, np.memmap) else array_of(x, name)
    if a.dtype.kind == "O":
        a = numbers_of(a, name)
    if a.dtype.kind not in REAL:
        raise TypeError(f"{name}: expected an array of real numbers; got {a.dtype}")
    if a.ndim == 0:
        raise ValueError(f"{name}: expected an array with samples first; got a single number")
    if _ready(a):
        return a
    try:
        with np.errstate(over="raise"):
            return backend.array(a, np.uint8 if a.dtype == np.uint8 else np.float32)
    except FloatingPointError:
        raise ValueError(f"{name}: expected numbers within float32's range, up to 3.4e38; got a larger one") from None


def numbers_of(a, name):
    """float64 of an array of objects, the first of which that is no real number is named."""
    values = a.reshape(-1).tolist()
    strange = {kind for kind in set(map(type, values)) if not issubclass(kind, (Real, np.bool_))}
    if strange:
        wrong = next(v for v in values if type(v) in strange)
        kind = type(wrong).__name__
        raise TypeError(
            f"{name}: expected an array of real numbers; got a {kind}"
            + (" (its toarray() makes one)" if hasattr(wrong, "toarray") else f", {wrong!r}" if isinstance(wrong, str) else "")
        )
    try:
        return a.astype(np.float64)
    except OverflowError:
        raise ValueError(f"{name}: expected numbers within float64's range; got a larger one") from None


def _ready(a):
    """Whether it can be used as it is (a memory-mapped file then stays on disk)."""
    return a.dtype in (np.float32, np.uint8) and a.dtype.isnative and a.flags.c_contiguous


def as_labels(y, n, name="y"):
    """A one-dimensional array of n integer, boolean or string labels."""
    mixed = isinstance(y, (list, tuple)) and len({isinstance(v, str) for v in y}) > 1
    y = array_of(y, name, "cpu")
    if y.dtype.kind == "T":  # NumPy's strings of variable length
        y = y.astype(object)
    if mixed and y.dtype.kind == "U":  # NumPy would make strings of all
        raise TypeError(f"{name}: expected integer or string labels; got some of both")
    if y.dtype.kind == "O":
        kinds = set(map(type, y.reshape(-1).tolist()))
        if all(issubclass(kind, str) for kind in kinds):
            y = y.astype(str)
        elif all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
            y = y.astype(bool)
        elif all(issubclass(kind, (Integral, np.bool_)) for kind in kinds):
            for kind in (np.int64, np.uint64):
                with contextlib.suppress(OverflowError):
                    y = y.astype(kind)
                    break
    if y.dtype.kind not in "iubUS":
        raise TypeError(f"{name}: expected integer or string labels; got {y.dtype}")
    if y.shape != (n,):
        raise ValueError(f"{name}: expected shape [{n}], a label for each sample; got {list(y.shape)}")
    return y


def sort_of(labels):
    """Strings, bytes or numbers: NumPy compares those of one sort only, and calls all others unequal."""
    return labels.dtype.kind if labels.dtype.kind in "US" else "numbers"


def must_have_some(x, name="X"):
    """Refuse data without a sample, of which there is no mean."""
    if len(x) == 0:
        raise ValueError(f"{name}: expected one sample or more; got none")
    return x


def scale_of(targets, name="y"):
    """Mean and spread of each column of float64 targets [N,K]; the spread of a constant one is 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = targets.mean(0), targets.std(0)
    if not np.isfinite(spread).all():
        raise ValueError(f"{name}: expected numbers whose squares are below 1e308; got one of {np.abs(targets).max():.2g}")
    return mean, np.where(spread > 0, spread, 1.0)


def check_scale(mean, spread, count):
    """Means and spreads of so many columns, float64 [count], of one number for all or one for each."""
    found = [reals(name, value) for name, value in (("mean", mean), ("spread", spread))]
    for name, a in zip(("mean", "spread"), found, strict=True):
        if not np.isfinite(a).all():
            raise ValueError(f"{name}: expected finite numbers; got {a[~np.isfinite(a)].flat[0]}")
        if a.shape not in ((), (count,)):
            raise ValueError(f"{name}: expected a number or shape [{count}]; got {list(a.shape)}")
    if not np.all(found[1] > 0.0):
        raise ValueError(f"spread: expected more than 0; got {spread}")
    return [np.broadcast_to(a, count).copy() for a in found]


def must_be_within(x, low, high, why, name="X"):
    """Refuse values that an output of that range can never give back; a little beyond may come of rounding."""
    a = backend.to_host(x)
    if a.dtype == np.uint8 or a.size == 0:
        return
    least, most, slack = float(a.min()), float(a.max()), 1e-3 * (high - low)
    if least < low - slack or most > high + slack:
        got = least if least < low - slack else most
        raise ValueError(f"{name}: expected values from {low} to {high}, {why}; got {got:.3g}")


def must_be_images_of(least, shape, why, name="X"):
    """Refuse images of so few pixels that pooling or a filter would find none left."""
    if min(shape[:2]) < least:
        raise ValueError(f"{name}: expected images of at least {least}x{least} pixels, {why}; got {list(shape)}")


def scale_name(x, name="X"):
    """What values a model is trained on: 'bytes' (read as values in [0,1]), 'wide' (floats beyond 1) or 'unit'."""
    if x.dtype != np.uint8:
        return "wide" if is_wide(x) else "unit"
    must_be_bytes(x, name)
    return "bytes"


def _all_bits(x):
    """Whether uint8 has the values 0 and 1 alone; a file on disk is not read for it."""
    return not isinstance(x, np.memmap) and x.size > 0 and int(backend.to_host(x).max()) == 1


def must_be_bytes(x, name="X"):
    """Refuse uint8 of 0 and 1 alone: as bytes that is all but black, and who has bits would learn from 0 and 1/255."""
    if _all_bits(x):
        raise ValueError(
            f"{name}: expected uint8 up to 255, read as values from 0 to 1; got none above 1 (astype('float32') keeps 0 and 1)"
        )


def must_be_on_scale(x, scale, name="X"):
    """Bytes are read as values in [0,1]: the same image as floats up to 255 would be another one, 255 times as bright."""
    if x.dtype == np.uint8:
        if scale == "wide":
            raise ValueError(
                f"{name}: expected floats on the scale of training, which went beyond 1; got uint8, read as values from 0 to 1"
            )
        if scale == "unit" and _all_bits(x):  # an image may be that dark, so it is not refused
            warnings.warn(
                f"{name}: uint8 of which none is above 1 is read as values from 0 to 1, all but black (astype('float32') "
                "keeps 0 and 1)",
                UserWarning,
                stacklevel=4,
            )
    elif scale == "bytes" and is_wide(x):
        raise ValueError(f"{name}: expected uint8, as in training, or values from 0 to 1; got values beyond 1")


def is_wide(x):
    """Whether values go well beyond 1; a file on disk, which may be larger than memory, is not read for it."""
    if isinstance(x, np.memmap) or x.size == 0:
        return False
    return float(backend.to_host(x).max()) > 2.0
