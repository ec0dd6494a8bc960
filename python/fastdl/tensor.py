"""Reverse-mode differentiation over coarse kernels: the whole engine.

An operation computes its result with kernels and hands `record` a function `step(dy)` that writes the gradients of its
inputs. Tensors are numbered as they are made, so the order of creation is a topological order, and the backward pass is a
walk from the newest to the oldest. A step captures arrays and parents, never its own output: there are no reference cycles,
and memory returns as soon as it is not needed.

Limits: no second derivatives; a graph serves one backward pass (add losses first); an array that a step has captured may not
change before the backward pass; one graph belongs to one thread. A tensor given twice to one operation hands out the same
buffer twice, first to be written, then to be added to: right for arithmetic, `matmul`, `concatenate` and convolutions, whose
gradients are written one after another; `dense` and the normalisations write theirs in one kernel, which refuses (``dx:
... overlap dw``).
"""

from contextvars import ContextVar
from itertools import count

from . import backend

_next_order = count().__next__

# Each thread, and each asynchronous task, has its own: predicting in one must not end the recording of another.
# (A threading.local would do, but costs every operation four times as much to read.)
_recording = ContextVar("recording", default=True)
_is_recording = _recording.get


class Tensor:
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
    """

    # What most tensors never set stands here once: making a tensor is then two assignments.
    grad = None
    beta = 0.0  # what the next writer of grad multiplies it with: the first overwrites, later ones add
    wants_grad = False
    parents = ()
    step = None
    __array_ufunc__ = None  # NumPy then leaves ``array * tensor`` to Tensor, instead of making an array of Tensors

    def __init__(self, data, wants_grad=False):
        self.data = data
        self.order = _next_order()
        if wants_grad:
            self.wants_grad = True

    @property
    def shape(self):
        """Sizes of the axes."""
        return self.data.shape

    def __repr__(self):
        return f"Tensor({self.data!r})"

    def __float__(self):
        return self.item()

    def __len__(self):
        return len(self.data)

    def item(self):
        """The value of a tensor with one element."""
        return float(backend.to_host(self.data).reshape(-1)[0]) if self.data.size == 1 else self._no_item()

    def _no_item(self):
        raise ValueError(f"item: expected a tensor with one element; got shape {list(self.shape)}")

    def detach(self):
        """The same array, cut off from what made it."""
        return Tensor(self.data)

    def slot(self):
        """Where a backward kernel writes, as (buffer, beta): buffer = new + beta * buffer. (None, 0) if not wanted."""
        if not self.wants_grad:
            return None, 0.0
        if self.grad is None:
            self.grad = backend.empty(self.data.shape, self.data)
            self.beta = 0.0
        beta, self.beta = self.beta, 1.0
        return self.grad, beta

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
        found, todo = {self.order: self}, [self]
        while todo:
            for p in todo.pop().parents:
                if p.step is not None and p.order not in found:
                    found[p.order] = p
                    todo.append(p)
        if seed is None:
            seed = backend.ones(self.data.shape, self.data)
        elif seed.shape != self.data.shape:
            raise ValueError(f"seed: expected shape {list(self.data.shape)}; got {list(seed.shape)}")
        self.grad = seed
        for order in sorted(found, reverse=True):
            t = found.pop(order)
            if t.grad is not None:
                t.step(t.grad)
            # frees memory on the way
            t.grad, t.parents, t.step = None, (), _spent


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


def record(data, parents, step):
    """Wrap a kernel's output; `step(dy)` writes into the parents' slots."""
    y = Tensor(data)
    if _is_recording():
        for p in parents:
            if p.wants_grad:
                y.wants_grad, y.parents, y.step = True, parents, step
                break
    return y


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
