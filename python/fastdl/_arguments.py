"""Checks of arguments that several files share."""

import math
import operator
import os
from numbers import Real
from operator import index

import numpy as np


def integer(name, value):
    """A whole number as an int, of a type that is for them: NumPy's would overflow beside an int of 64 bits."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer; got {type(value).__name__}") from None


def function(name, value):
    """Something to call."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function; got {type(value).__name__}")
    return value


def file_name(name, value):
    """A file's or folder's path."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}: expected a path; got {type(value).__name__}")
    return value


def array(name, value):
    """A NumPy array of what makes one; lists of unequal lengths do not."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected an array, or lists of equal lengths; got lists of unequal ones") from None


def reals(name, value):
    """A float64 array of what makes an array of real numbers."""
    a = array(name, value)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers; got {a.dtype}")
    return a.astype(np.float64)


def axes(name, value):
    """Sizes of one axis or several, from 0 on."""
    given = tuple(value) if hasattr(value, "__iter__") and not isinstance(value, str) else (value,)
    found = tuple(integer(name, n) for n in given)
    if any(n < 0 for n in found):
        raise ValueError(f"{name}: expected sizes from 0 on; got {value}")
    return found


def pair(name, value, least=None, kind=index):
    """(rows, columns) from one number or two; what is wrong with `value` is told under `name`."""
    try:
        if isinstance(value, (tuple, list)):
            y, x = value
            y, x = kind(y), kind(x)
        else:
            y = x = kind(value)
    except (TypeError, ValueError):
        pass
    else:
        if least is None or (y >= least and x >= least):
            return y, x
    what = "an integer" if kind is index else "one number"
    what += "" if least is None else f" of at least {least},"
    raise ValueError(f"{name}: expected {what} or two; got {value!r}")


def positive(name, value):
    """A whole number from 1 on."""
    value = integer(name, value)
    if value < 1:
        raise ValueError(f"{name}: expected at least 1; got {value}")
    return value


def one_of(name, value, known):
    """One of the words that are known."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}; got {value!r}")
    return value


def natural(name, value):
    """A whole number from 0 on."""
    value = integer(name, value)
    if value < 0:
        raise ValueError(f"{name}: expected 0 or more; got {value}")
    return value


def sizes(name, values):
    """A tuple of whole numbers from 1 on, of one number or a sequence of them (units of layers)."""
    if hasattr(values, "__index__") and not getattr(values, "ndim", 0):  # arrays have it, too
        values = (values,)
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name}: expected integers, one a layer; got {values!r}")
    found = tuple(positive(name, v) for v in (values.tolist() if hasattr(values, "tolist") else values))
    # the very tuple that was given, where nothing changes: scikit-learn's clone asks for that
    return values if type(values) is tuple and all(map(operator.is_, values, found)) else found


def chance(name, value):
    """A number from 0 on and below 1: how often something is left out."""
    if not isinstance(value, Real) or not 0.0 <= value < 1.0:
        raise ValueError(f"{name}: expected 0 <= {name} < 1; got {value!r}")
    return value


def not_negative(name, value):
    """A finite number from 0 on."""
    if not isinstance(value, Real) or not 0.0 <= value < math.inf:
        raise (ValueError if isinstance(value, Real) else TypeError)(f"{name}: expected 0 or more; got {value!r}")
    return value


def number(name, value, more_than=-math.inf):
    """A finite number."""
    if not isinstance(value, Real) or not math.isfinite(value) or value <= more_than:
        what = "a finite number" + ("" if more_than == -math.inf else f" of more than {more_than:g}")
        raise (ValueError if isinstance(value, Real) else TypeError)(f"{name}: expected {what}; got {value!r}")
    return value


def functions(name, given):
    """A tuple of functions, of one or a sequence."""
    given = (given,) if callable(given) or not hasattr(given, "__iter__") else tuple(given)
    for f in given:
        if not callable(f):
            raise TypeError(f"{name}: expected a function or a sequence of functions; got {f!r} in it")
    return given


def schedule_or_none(schedule):
    """A schedule of a learning rate, if there is one."""
    if schedule is not None and not callable(schedule):
        raise TypeError(f"schedule: expected a function (fastdl.schedules makes some); got {schedule!r}")
    return schedule


def scheduled(schedule, t, total):
    """The factor that a schedule gives; a learning rate below 0 would climb."""
    return not_negative("schedule", schedule(t, total))
