"""Reverse-mode differentiation over coarse kernels.

An operation computes its result with kernels and hands `record_kernel` the kernel that writes the gradients of its inputs,
with its arguments, or, where that is more than one call, `record` a function `step(dy)`. Tensors are numbered as they are
made, so the order of creation is a topological order, and the backward pass is a walk from the newest to the oldest. A step
holds arrays and parents, never its own output: there are no reference cycles, and memory returns as soon as it is not needed.

Limits: no second derivatives; a graph serves one backward pass (add losses first); an array that a step has captured may not
change before the backward pass; one graph belongs to one thread. A tensor given twice to one operation hands out the same
buffer twice, first to be written, then to be added to: right for arithmetic, `matmul`, `concatenate` and convolutions, whose
gradients are written one after another; `dense` and the normalisations write theirs in one kernel, which refuses (``dx:
... overlap dw``).

What each operation pays for (a tensor's fields, `record`, `slot`, the walk) is compiled, in csrc/tape.cpp: small networks
spend their time there, not in kernels.
"""

from contextvars import ContextVar
from copyreg import __newobj__

import numpy as np

from . import backend
from ._runtime import DY, Node, record, record_kernel, use_tape

__all__ = ["ABSENT", "DY", "Tensor", "frozen", "inference", "record", "record_kernel", "recording", "tensor"]

# Each thread, and each asynchronous task, has its own: predicting in one must not end the recording of another.
# (A threading.local would do, but costs every operation four times as much to read.)
_recording = ContextVar("recording", default=True)
_is_recording = _recording.get


class Tensor(Node):
    """An array, its gradient, and how to pass that gradient on.

    Parameters
    ----------
    data : array
        float32, C-contiguous.
    wants_grad : bool
        Whether a backward pass leaves the gradient in `grad`.

    Attributes
    ----------
    grad : array or None
        Of data's shape; None while nothing has flowed back.
    beta : float
        What the next writer of `grad` multiplies it with: the first overwrites (0), later ones add (1).
    parents : tuple of Tensor
        What it was made from; () for a leaf.
    step : callable, tuple or None
        How its gradient reaches them: ``step(dy)``, or (kernel, argument...) of `record_kernel`; None for a leaf.
    order : int
        Its number, counted over all tensors.
    """

    __slots__ = ("__weakref__",)
    __array_ufunc__ = None  # NumPy then leaves ``array * tensor`` to Tensor, instead of making an array of Tensors

    @property
    def shape(self):
        """Sizes of the axes."""
        try:
            return self.data.shape
        except AttributeError:  # looked at where it costs nothing until it is wrong: not where a tensor is made
            backend.kernels(self.data)
            raise

    def __repr__(self):
        return f"Tensor({self.data!r})"

    def __float__(self):
        return self.item()

    def __len__(self):
        return len(self.data)

    def __array__(self, dtype=None, copy=None):
        # NumPy would make an array of one object of it, with which everything goes wrong later.
        raise TypeError("expected an array; got a Tensor (its data is one)")

    # A copy stands alone: the graph behind a tensor is made of functions.
    def __reduce__(self):
        return __newobj__, (type(self),), self.__getstate__()

    def __getstate__(self):
        return self.data, self.wants_grad

    def __setstate__(self, state):
        Tensor.__init__(self, *state)

    def item(self):
        """The value of a tensor with one element."""
        value = backend.to_host(self.data)
        return float(value.reshape(-1)[0]) if value.size == 1 else self._no_item()

    def _no_item(self):
        raise ValueError(f"item: expected a tensor with one element; got shape {list(self.shape)}")

    def detach(self):
        """The same array, cut off from what made it."""
        return Tensor(self.data)

    def backward(self, seed=None):
        """Run every step recorded behind this tensor, newest first.

        Parameters
        ----------
        seed : array, optional
            Gradient of what is minimised by this tensor, of its shape; ones if left out.

        Raises
        ------
        RuntimeError
            The graph was used before.
        """
        if self.step is None:
            raise RuntimeError(
                "backward: expected a tensor made by recorded operations; got one that depends on nothing"
            )
        if seed is None:
            seed = backend.ones(self.data.shape, self.data)
        elif isinstance(seed, Tensor) or not hasattr(seed, "dtype"):
            raise TypeError(f"seed: expected an array; got {type(seed).__name__}")
        elif seed.dtype != np.float32:
            raise TypeError(f"seed: expected float32; got {seed.dtype}")
        elif seed.shape != self.data.shape:
            raise ValueError(f"seed: expected shape {list(self.data.shape)}; got {list(seed.shape)}")
        elif type(self.step) is not tuple:
            seed = seed.copy()  # a step may write over what it is given
        self._run(seed)


def _loading_ops(name):
    def method(self, *args, **options):
        from . import ops  # noqa: F401, puts its own in the place of this one

        return getattr(self, name)(*args, **options)

    return method


# Arithmetic is of `ops`, which loads when first used: whoever wants kernels alone need not wait for it.
for _name in (
    "__add__", "__matmul__", "__mul__", "__neg__", "__radd__", "__rmul__", "__rsub__", "__rtruediv__", "__sub__", "__truediv__",
    "mean", "reshape", "sum",
):  # fmt: skip
    setattr(Tensor, _name, _loading_ops(_name))


def _spent(dy):
    raise RuntimeError("backward: this graph was already used; add the losses, then call it once")


use_tape(Tensor, _recording, backend.empty_like, _spent)
ABSENT = Tensor(None)  # among the arguments of `record_kernel`: no such input, no gradient wanted


def recording():
    """Whether operations are recorded now, in this thread."""
    return _is_recording()


class inference:
    """``with inference():`` this thread's operations are not recorded, so nothing is kept for a backward pass."""

    def __enter__(self):
        self._before = _is_recording()
        _recording.set(False)

    def __exit__(self, *_):
        _recording.set(self._before)


class frozen:
    """``with frozen(tensors):`` gradients flow through these tensors, not into them.

    It must enclose the forward and the backward pass of what it protects.
    """

    def __init__(self, tensors):
        self._tensors = list(tensors)

    def __enter__(self):
        self._before = [t.wants_grad for t in self._tensors]
        for t in self._tensors:
            t.wants_grad = False

    def __exit__(self, *_):
        for t, flag in zip(self._tensors, self._before, strict=True):
            t.wants_grad = flag


def tensor(obj, wants_grad=False):
    """A tensor of anything `fastdl.array` takes, on the device where it is, converted to float32 where it is not."""
    if isinstance(obj, Tensor):
        return obj
    return Tensor(backend.array(obj), wants_grad)
