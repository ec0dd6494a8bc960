"""Checks of what `fastdl.train` is given, and of what its users' functions give."""

from .rows import Rows, must_be_array


def must_take_images_of(module, whole, cropped):
    """What the network makes of cropped images is seen before the first update."""
    if cropped != whole:
        try:
            module.trace(cropped)
        except ValueError as error:
            what = f"images of a size that the network takes; got {list(cropped)} of {list(whole)} ({error})"
            raise ValueError(f"augment: expected {what}") from error


def must_be_samples(validation):
    """(x, y) as many of one as of the other, told before the first epoch and not after it."""
    if validation is None:
        return
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        raise TypeError(f"validation: expected (x, y) or a function; got {type(validation).__name__}")
    for name, part in zip("xy", validation, strict=True):
        must_be_array(f"validation {name}", part)
    Rows(validation[0], "validation x")
    n = len(validation[0])
    if n == 0:
        raise ValueError("validation: expected one sample or more; got none")
    if len(validation[1]) != n:
        raise ValueError(f"validation y: expected {n} targets, as many as samples in validation x; got {len(validation[1])}")


def must_be_module(module):
    if not hasattr(module, "named_modules"):
        raise TypeError(f"module: expected a Module; got {type(module).__name__}")


def must_be_metrics(metrics):
    """Functions by name, none of which takes the place of the loss."""
    if metrics is not None and not hasattr(metrics, "items"):
        raise TypeError(f"metrics: expected a dict of functions by name; got {type(metrics).__name__}")
    for name, f in (metrics or {}).items():
        if name == "loss":
            raise ValueError("metrics: expected names other than 'loss', under which the loss itself is recorded; got 'loss'")
        if not callable(f):
            raise TypeError(f"metrics[{name!r}]: expected a function; got {type(f).__name__}")


def figures_of(found):
    """What a user's own validation gave."""
    if not hasattr(found, "items"):
        raise TypeError(f"validation: expected a function that returns a dict of numbers; got {type(found).__name__}")
    return {name: number_of(f"validation()[{name!r}]", value) for name, value in found.items()}


def number_of(name, value):
    """A float of what somebody's function gave."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number; got {value!r}") from None


def must_be_watchable(watch, known):
    if watch not in known:
        raise ValueError(f"watch: expected one of {', '.join(known)}; got {watch!r}")
