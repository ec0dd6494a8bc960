"""Checks of arguments that several files share."""

from operator import index


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
    if not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer; got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1; got {value}")
    return int(value)
