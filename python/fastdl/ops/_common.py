"""What operations of several families need."""

from ..tensor import ABSENT


def data_of(t):
    """The array, or None for None."""
    return None if t is None else t.data


def absent_or(t):
    """The tensor, or one that stands for none and wants no gradient."""
    return ABSENT if t is None else t


def sizes_of(x):
    """The sizes of x, which has one axis or more."""
    shape = x.shape
    if not shape:
        raise ValueError("x: expected one axis or more; got a single number")
    return shape


def shape_as(x, axes):
    """The sizes of x, which has the axes that are written there, such as "N,T,C"."""
    shape = x.shape
    if len(shape) != axes.count(",") + 1:
        raise ValueError(f"x: expected shape [{axes}]; got {list(shape)}")
    return shape


def parents(*tensors):
    """Those that are there."""
    return tuple(t for t in tensors if t is not None)


def through_activation(k, saved, dy, act, slope):
    """Gradient before the activation of a fused layer, in the place of the one after it."""
    if act == "none":
        return dy
    return k.activation_backward(saved, dy, act, slope, dy)


def sum_into(k, dz, db, beta):
    """Column sums of dz into db (+ beta db)."""
    total = k.reduce_forward(dz.reshape(1, -1, dz.shape[-1]), "sum")
    k.axpby(1.0, total.reshape(-1), beta, db)
