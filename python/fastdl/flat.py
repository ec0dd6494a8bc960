"""All parameters of a network as one vector, and all gradients as another.

Clearing gradients, their norm, an optimiser's step and a saved copy are then one call each, whatever the number of
layers.

    data  | w0 ...pad | w1 ...pad | ... | b0 ...pad | b1 ...pad |
            decayed parameters first      then those without decay

Each parameter starts on 64 bytes. `Parameter.data` and `.grad` become views into the vectors.
"""

import numpy as np

from . import backend

_ALIGN = 16  # floats: a cache line, and the widest vector register


def _aligned(n, like):
    """A vector of n zeros that starts on 64 bytes."""
    raw = backend.zeros((n + _ALIGN,), like)
    address = raw.__array_interface__["data"][0]
    start = (-address // 4) % _ALIGN
    return raw[start : start + n]


class Flat:
    """Flat vectors behind a list of parameters.

    Parameters
    ----------
    named : list of (str, Parameter)
        As from `Module.named_parameters`; repeats of one parameter count once. Values are kept.

    Attributes
    ----------
    data, grad : array [n]
        All values; all gradients. Padding is zero in both. After a backward pass, `settle` zeroes in `grad` what no
        kernel has written.
    table : list of (name, offset, shape)

    Notes
    -----
    After pickling or copying (together with the module that made it) the parameters of the copy are views into the
    copy's vectors. The gradient is not copied.
    """

    def __init__(self, named):
        self._lay_out(list({id(p): (name, p) for name, p in reversed(list(named))}.values())[::-1])

    def _lay_out(self, named):
        # Decayed first, so that weight decay is one range; a stable sort keeps declaration order within each.
        self.named = sorted(named, key=lambda item: not item[1].decay)
        self.parameters = [p for _, p in self.named]
        self.table, n = [], 0
        for name, p in self.named:
            self.table.append((name, n, p.data.shape))
            n += -(-p.data.size // _ALIGN) * _ALIGN
        like = self.parameters[0].data if self.parameters else None
        self.data, self.grad = _aligned(n, like), _aligned(n, like)
        self._views = []
        for (_, at, shape), p in zip(self.table, self.parameters, strict=True):
            size = p.data.size
            view = self.data[at : at + size].reshape(shape)
            view[...] = p.data
            p.data, p.grad, p.beta = view, self.grad[at : at + size].reshape(shape), 0.0
            self._views.append(view)

    def holds(self, named):
        """Whether these parameters are still the ones behind the vectors."""
        own = {id(p): v for p, v in zip(self.parameters, self._views, strict=True)}
        return len(own) == len({id(p) for _, p in named}) and all(own.get(id(p)) is p.data for _, p in named)

    def ranges(self):
        """(start, stop, decay) of what is trained: two ranges, or more where frozen parameters lie between."""
        result = []
        for (_, at, _), p in zip(self.table, self.parameters, strict=True):
            if not p.wants_grad:
                continue
            stop = at + -(-p.data.size // _ALIGN) * _ALIGN
            if result and result[-1][1] == at and result[-1][2] == p.decay:
                result[-1][1] = stop
            else:
                result.append([at, stop, p.decay])
        return [tuple(r) for r in result if r[0] < r[1]]

    def zero_grad(self):
        """Forget the gradients: the next writer of each overwrites, so nothing needs to be filled with zeros."""
        for p in self.parameters:
            p.beta = 0.0

    def settle(self):
        """Make `grad` whole after a backward pass: zero where nothing has flowed since `zero_grad`."""
        for p in self.parameters:
            if p.beta == 0.0:
                p.grad[...] = 0.0
                p.beta = 1.0

    def __len__(self):
        return self.data.size

    def __repr__(self):
        return f"Flat({len(self.parameters)} parameters, {self.data.size} floats)"

    # The parameters of a copy bring their values with them; the vectors are laid out anew around them.
    def __reduce__(self):
        return _rebuild, (self.named,)

    def snapshot(self):
        """A copy of all values, for `restore`."""
        return np.array(backend.to_host(self.data))

    def restore(self, values):
        """Put back what `snapshot` gave."""
        self.data[...] = backend.to_device(values, self.data)


def _rebuild(named):
    return Flat(named)
