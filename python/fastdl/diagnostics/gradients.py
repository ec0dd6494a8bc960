"""A gradient check for an operation of your own."""

from dataclasses import dataclass

import numpy as np

from .. import backend, random
from .._arguments import number, positive
from ..random import Stream
from ..tensor import Tensor


@dataclass
class GradientCheck:
    """Result of `check_gradient`.

    Attributes
    ----------
    ok : bool
    errors : list of float
        For every input: the worst relative difference over all directions.
    tolerance : float
    """

    ok: bool
    errors: list
    tolerance: float

    def __bool__(self):
        return self.ok

    def __str__(self):
        parts = ", ".join(f"input {i}: {e:.1e}" for i, e in enumerate(self.errors))
        return f"gradient {'agrees' if self.ok else 'DISAGREES'} (tolerance {self.tolerance:.0e}; {parts})"


def check_gradient(f, *inputs, directions=4, tolerance=1e-2, seed=0):
    """Compare the gradients of an operation with central differences along random directions.

    Parameters
    ----------
    f : callable
        Tensors in, a Tensor out; it must give the same for the same inputs.
    *inputs : arrays
        float32. Keep away from kinks, such as relu at 0.
    directions : int
        For each input.
    tolerance : float
        Largest relative difference; float32 leaves about a thousandth.
    seed : int

    Returns
    -------
    GradientCheck
        True where all agree.

    Notes
    -----
    With a random array r of the output's shape and L = sum(r f(x)), summed in float64: dL/dx . v against (L(x + h v) - L(x -
    h v)) / 2h, for three steps h, of which the best counts; what rounding alone can make of the difference is allowed for.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import ops
    >>> from fastdl.diagnostics import check_gradient
    >>> x = np.linspace(0.5, 2, 6, dtype=np.float32).reshape(2, 3)
    >>> bool(check_gradient(lambda x: ops.multiply(ops.tanh(x), x), x))
    True
    """
    if not callable(f):
        raise TypeError(f"f: expected a function of Tensors; got {type(f).__name__}")
    positive("directions", directions), number("tolerance", tolerance, more_than=0.0)
    if not inputs:
        raise ValueError("inputs: expected one array or more; got none")
    arrays = []
    for i, a in enumerate(inputs):
        try:
            arrays.append(backend.array(a))
        except (TypeError, ValueError) as error:
            raise TypeError(f"inputs[{i}]: {error}") from None
    stream = Stream(seed)

    def value(values, r):
        y = backend.to_host(f(*(Tensor(v) for v in values)).data).astype(np.float64)
        return float(np.sum(r * y)), float(np.sum(np.abs(r * y)))

    tensors = [Tensor(a.copy(), wants_grad=True) for a in arrays]
    out = f(*tensors)
    if not isinstance(out, Tensor):
        raise TypeError(f"f: expected a function that returns a Tensor; got {type(out).__name__}")
    r = random.normal(out.shape, 0.0, 1.0, *stream.take(out.data.size))
    if out.step is None:
        raise ValueError("f: expected a result that depends on its inputs by recorded operations; got one that does not")
    out.backward(r.copy())
    r = r.astype(np.float64)
    errors = []
    for i, a in enumerate(arrays):
        grad = np.zeros(a.shape) if tensors[i].grad is None else backend.to_host(tensors[i].grad).astype(np.float64)
        worst = 0.0
        for _ in range(directions):
            v = random.normal(a.shape, 0.0, 1.0, *stream.take(a.size))
            v /= max(float(np.sqrt(np.mean(v * v))), 1e-30)
            best = np.inf
            for h in (3e-2, 1e-2, 3e-3):
                high, low = (a + np.float32(h) * v), (a - np.float32(h) * v)
                (up, size), (down, _) = (value([*arrays[:i], b, *arrays[i + 1 :]], r) for b in (high, low))
                numeric = (up - down) / (2 * h)
                analytic = float(np.sum(grad * ((high.astype(np.float64) - low) / (2 * h))))
                noise = 4 * 6e-8 * size / h
                off = max(abs(numeric - analytic) - noise, 0.0)
                best = min(best, off / max(abs(numeric), abs(analytic), 1e-12))
            worst = max(worst, best)
        errors.append(float(worst))
    return GradientCheck(all(e <= tolerance for e in errors), errors, tolerance)
