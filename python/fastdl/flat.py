"""All parameters of a network as one vector, and all gradients as another.

Clearing gradients, their norm, an optimiser's step and a saved copy are then one call each, whatever the number of
layers.

    data  | w0 ...pad | w1 ...pad | ... | b0 ...pad | b1 ...pad |
            decayed parameters first      then those without decay

Each parameter starts on 64 bytes. `Parameter.data` and `.grad` become views into the vectors.
"""

from . import backend

_ALIGN = 16  # floats: a cache line, and the widest vector register


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
        data = backend.vector(n, like)
        for (_, at, _), p in zip(self.table, self.parameters, strict=True):
            backend.assign(data[at : at + p.data.size].reshape(p.data.shape), p.data)
        self._adopt(data)

    def _adopt(self, data):
        """Make this vector the one behind the parameters."""
        self.data, self.grad = data, backend.vector(data.size, data)
        self._views = []
        for (_, at, shape), p in zip(self.table, self.parameters, strict=True):
            stop = at + p.data.size
            p.data, p.grad, p.beta = data[at:stop].reshape(shape), self.grad[at:stop].reshape(shape), 0.0
            self._views.append(p.data)

    def to(self, device):
        """Move all parameters, as one array, to a device; gradients are forgotten. See `Module.to`."""
        data = backend.move(self.data, device)
        if data is not self.data:
            self._adopt(data)

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
        return self.data.copy()

    def restore(self, values):
        """Put back what `snapshot` gave."""
        backend.assign(self.data, values)


def _rebuild(named):
    return Flat(named)
