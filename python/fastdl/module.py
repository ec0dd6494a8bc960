"""Modules: objects that own parameters, buffers and other modules, found by looking through their attributes.

There is nothing to register. A parameter is any attribute that is a `Parameter`, a part is any attribute that is a
`Module` (also inside lists and tuples), and both are named by where they were found, in the order in which they were
assigned.
"""

import copy
from contextvars import ContextVar

import numpy as np

from . import backend
from ._runtime import snapshot, unchanged
from .random import Stream
from .tensor import Tensor, inference


class Parameter(Tensor):
    """A tensor that training changes.

    It is declared with its shape and filled by `Module.initialise`, so that one seed decides all of a network.

    Parameters
    ----------
    shape : tuple of int
    init : callable
        ``init(shape, stream) -> array``; see `fastdl.init`.
    decay : bool
        Whether weight decay applies; not to biases, and not to gains and shifts of normalisations.
    """

    def __init__(self, shape, init, decay=True):
        # NaN until initialised: a network that was never initialised then shows at its first loss
        super().__init__(np.full(shape, np.nan, np.float32), wants_grad=True)
        self.init, self.decay = init, decay

    def __getstate__(self):
        return self.data, self.wants_grad, self.decay, self.init

    def __setstate__(self, state):
        data, wants_grad, self.decay, self.init = state
        super().__init__(data, wants_grad)

    def __repr__(self):
        return f"Parameter({list(self.data.shape)}{'' if self.wants_grad else ', frozen'})"


def shape_of(input_shape):
    """The sizes of one sample as a tuple; one number is one axis."""
    sizes = tuple(input_shape) if isinstance(input_shape, (tuple, list, np.ndarray)) else (input_shape,)
    if not all(hasattr(s, "__index__") and s >= 0 for s in sizes):
        raise ValueError(f"input_shape: expected the sizes of one sample, whole numbers; got {input_shape!r}")
    return tuple(int(s) for s in sizes)


def _input_dtype(dtype):
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype: expected float32 or int64; got {dtype!r}") from None
    if found not in (np.float32, np.int64):
        raise ValueError(f"dtype: expected float32 or int64; got {found}")
    return found


def _numbers(name, values):
    """A float32 array on the CPU of what somebody gave as weights."""
    try:
        a = backend.array(values, None, "cpu")
        if a.dtype.kind in "cmMSU":
            raise TypeError(f"expected real numbers; got {a.dtype}")
        with np.errstate(over="raise"):
            return backend.array(a, device="cpu")
    except FloatingPointError:
        raise ValueError(f"{name}: expected numbers within float32's range, up to 3.4e38; got a larger one") from None
    except ValueError as error:
        raise ValueError(f"{name}: expected an array of numbers; got {error}") from None
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


# While somebody observes: ``observer(module, inputs) -> output``, which calls ``module.forward``. Calls in other threads
# are not its business.
_observer = ContextVar("observer", default=None)
_observer_of_now = _observer.get


def observed():
    """Whether somebody observes the calls of modules in this thread."""
    return _observer_of_now() is not None


class observing:
    """``with observing(f):`` every call of a module in this thread is ``f(module, inputs)``."""

    def __init__(self, observer):
        self._observer = observer

    def __enter__(self):
        self._before = _observer_of_now()
        _observer.set(self._observer)

    def __exit__(self, *_):
        _observer.set(self._before)


class _Walk:
    """What a module remembers of its tree, under a name that `snapshot` leaves out. A copy of the module begins with none."""

    __slots__ = ("modules", "parameters", "programs", "then", "watched")

    def __init__(self):
        self.modules, self.parameters, self.watched, self.then = [], [], (), None  # nothing has been looked at
        self.programs = {}  # what fastdl.replay has recorded of the tree as it is

    def __reduce__(self):
        return _Walk, ()


class Module:
    """Base of layers and networks.

    A module says in `forward` what it computes; parts and parameters are plain attributes:

        class Net(Module):
            def __init__(self):
                self.hidden = nn.Dense(128, act="relu")
                self.logits = nn.Dense(10)

            def forward(self, x):
                return self.logits(self.hidden(x))

        net = Net().build((784,), seed=0)

    or stand in lists or tuples that are. Dicts, and attributes whose names begin with _, are not looked into.

    Attributes
    ----------
    training : bool
        True: dropout drops and batch normalisation uses the batch. Set by `train` and `eval`.
    replayable : bool
        Of this very class, not of those derived from it: `forward` calls the same kernels in the same order on every batch of
        a shape, and does nothing else that depends on the batch or that a step must do each time: no NumPy on what it
        computes. Training may then replay it, see `fastdl.train.Step`, where its attributes are plain values, arrays,
        parameters, modules and the network's random stream, or lists of them.
    buffers : tuple of str
        Of the class: names of attributes that are arrays which belong to the state but are not trained.
    """

    training = True
    replayable = False
    buffers = ()
    _flat = None

    def __call__(self, *inputs):
        observer = _observer_of_now()
        try:
            return self.forward(*inputs) if observer is None else observer(self, inputs)
        except (TypeError, AttributeError) as error:
            # what a NumPy array calls its data; asked here, where it costs nothing until it is wrong
            if "memoryview" in str(error) and any(isinstance(x, np.ndarray) for x in inputs):
                raise TypeError(f"{type(self).__name__}: expected a Tensor (fastdl.Tensor(x) makes one); got an array") from None
            lacks = getattr(error, "obj", self)  # lists and the like have none of what every layer asks for first
            if getattr(error, "name", None) in ("data", "shape") and any(x is lacks for x in inputs):
                what = f"a Tensor (fastdl.tensor(x) makes one); got {type(lacks).__name__}"
                raise TypeError(f"{type(self).__name__}: expected {what}") from None
            raise

    def forward(self, *inputs):
        """What the module computes: Tensors in, a Tensor out."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method forward; got none")

    # ------------------------------------------------------------------------------------------ what is inside

    def _children(self):
        """(name, object) of parameters and modules among the attributes, in order; each list entry under its place."""
        for name, value in vars(self).items():
            if name.startswith("_"):
                continue
            if isinstance(value, (Parameter, Module)):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    if isinstance(item, (Parameter, Module)):
                        yield f"{name}.{i}", item

    def _walked(self):
        """(modules but this one, parameters) of the tree, each with its name; walked anew only where an attribute or a list has
        changed. What is remembered does not refer to this module, which would keep it alive."""
        walk = self.__dict__.get("_walk")
        if walk is None:
            walk = self._walk = _Walk()
        if walk.then is not None and unchanged((vars(self), *walk.watched), walk.then):
            return walk
        seen, modules, parameters = set(), [], []
        ahead = [("", self)]  # no function that calls itself: it would hold itself, and with it this module
        while ahead:
            prefix, module = ahead.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            modules.append((prefix, module))
            parts = [(n, m) for n, m in module._children() if isinstance(m, Module)]
            ahead += [(f"{prefix}.{name}" if prefix else name, part) for name, part in reversed(parts)]
        for prefix, module in modules:
            for name, child in module._children():
                if isinstance(child, Parameter) and id(child) not in seen:
                    seen.add(id(child))
                    parameters.append((f"{prefix}.{name}" if prefix else name, child))
        holders = tuple(self._holders(modules))
        then = snapshot(holders)
        walk.programs = {}  # first: another thread takes what is remembered for valid as soon as `then` fits
        walk.modules, walk.parameters, walk.watched, walk.then = modules[1:], parameters, holders[1:], then
        return walk

    @staticmethod
    def _holders(modules):
        """What a tree hangs together by, for `unchanged`: the attributes of its modules, and lists among them."""
        for _, m in modules:
            yield vars(m)
        for _, m in modules:
            yield from (v for v in vars(m).values() if isinstance(v, list))

    def named_modules(self):
        """(name, module) of this module (named "") and all below it, each once, parents first."""
        return [("", self), *self._walked().modules]

    def named_parameters(self):
        """(name, Parameter) in declaration order; a tied parameter once, under its first name."""
        return self._walked().parameters.copy()

    def parameters(self):
        """All parameters, each once."""
        return [p for _, p in self.named_parameters()]

    def named_buffers(self):
        """(name, array) of the state that is not trained, such as running statistics."""
        return [
            (f"{prefix}.{name}" if prefix else name, getattr(module, name))
            for prefix, module in self.named_modules()
            for name in module.buffers
            if getattr(module, name) is not None
        ]

    def count(self):
        """Number of parameters, tied ones counted once."""
        return sum(p.data.size for p in self.parameters())

    # ------------------------------------------------------------------------------------------ making it ready

    def build(self, input_shape, seed=0, dtype=np.float32):
        """Let every layer find its sizes by sending one sample of zeros through, then initialise all parameters.

        Parameters
        ----------
        input_shape : tuple of int
            Of one sample, without the batch axis.
        seed : int or Stream
        dtype : dtype
            Of the input: int64 for a network that begins with an embedding.

        Returns
        -------
        Module
            Itself.

        Raises
        ------
        ValueError
            As of `trace`; or a layer is called that is no part of this module.
        """
        names = {id(m) for _, m in self.named_modules()}
        for _, m, _, _ in self.trace(input_shape, dtype):
            if id(m) not in names:  # it would be neither filled nor trained nor saved
                raise ValueError(
                    f"{type(self).__name__}: expected layers as attributes, or in lists or tuples that are, with names that "
                    f"don't begin with _; got a {type(m).__name__} that is kept elsewhere"
                )
        return self.initialise(seed)

    def initialise(self, seed=0):
        """Fill all parameters in declaration order and reset the buffers.

        Parameters
        ----------
        seed : int or Stream
            Decides the initial weights and, on a stream of its own, what dropout drops.
        """
        stream = seed if isinstance(seed, Stream) else Stream(seed)
        weights, drops = stream.split("weights"), stream.split("dropout")
        for p in self.parameters():
            values = p.init(p.data.shape, weights)
            if values is None or np.shape(values) not in ((), p.data.shape):
                got = None if values is None else list(np.shape(values))
                raise ValueError(f"init: expected an array of shape {list(p.data.shape)}; got {got}")
            backend.assign(p.data, values)
        for _, module in self.named_modules():
            module.reset()
            if hasattr(module, "stream"):
                module.stream = drops
        return self

    def reset(self):
        """Give the buffers their first values; layers with buffers override it."""

    def trace(self, input_shape, dtype=np.float32):
        """Send one sample of zeros through and see what is called.

        Returns
        -------
        list of (name, module, input shape, output shape)
            For every call in reading order; shapes without the batch axis.

        Raises
        ------
        ValueError
            The input does not fit the first layer, or a layer does not fit the one before. Layers that found their sizes on
            the way have none again.
        """
        shape, dtype = shape_of(input_shape), _input_dtype(dtype)
        x = backend.zeros((1, *shape), self.any_array(), dtype)
        holders = [vars(m) for _, m in self.named_modules()]
        before = [(h, h.copy(), {n: v.copy() for n, v in h.items() if isinstance(v, list)}) for h in holders]
        try:
            rows = self.run_traced(Tensor(x) if dtype == np.float32 else x)
        except BaseException:
            for holder, attributes, lists in before:
                holder.clear()
                holder.update(attributes)
                for name, items in lists.items():
                    attributes[name][:] = items
            raise
        return [(name, module, before[1:], y.shape[1:]) for name, module, before, y in rows]

    def run_traced(self, x, evaluate=True):
        """Run without recording; returns (name, module, input shape, output array) for every call, in reading order."""
        modes = [(m, m.training) for _, m in self.named_modules()]
        rows = []

        def observe(module, inputs):
            row = [module, inputs[0].shape, None]
            rows.append(row)  # before its parts, so that rows come out in reading order
            y = module.forward(*inputs)
            row[2] = y.data
            return y

        try:
            with inference(), observing(observe):
                if evaluate:
                    self.eval()
                self(x)
            names = {id(m): name for name, m in self.named_modules()}
            return [(names.get(id(m), "?"), m, shape, y) for m, shape, y in rows]
        finally:
            for module, mode in modes:
                module.training = mode

    # ------------------------------------------------------------------------------------------ modes

    def train(self, mode=True):
        """Switch to training mode; returns itself."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self):
        """Switch to evaluation mode; returns itself."""
        return self.train(False)

    def freeze(self):
        """Exclude all parameters from training (before the optimiser is made); returns itself."""
        for p in self.parameters():
            p.wants_grad = False
        return self

    def unfreeze(self):
        """Undo `freeze`; returns itself."""
        for p in self.parameters():
            p.wants_grad = True
        return self

    # ------------------------------------------------------------------------------------------ state

    def flatten(self):
        """The flat vectors behind this module's parameters (`fastdl.flat.Flat`), made at the first call."""
        from .flat import Flat

        named = self.named_parameters()
        if self._flat is None or not self._flat.holds(named):
            self._flat = Flat(named)
        return self._flat

    def loose_buffers(self):
        """{name: shape of a row} of those buffers that may be None and have any number of rows: `set_weights` takes what comes,
        so that the weights of a module without them, or with others, fit. Modules with such buffers override it."""
        return {}

    def any_array(self):
        """Some array of the module, to find its device; None if there is none."""
        for _, p in self._walked().parameters:
            return p.data
        for _, a in self.named_buffers():
            return a
        return None

    def to(self, device):
        """Move parameters and buffers to a device; an optimiser made for them follows at its next update.

        Parameters
        ----------
        device : {'cpu', 'cuda', 'cuda:N'}
            'cuda' is the GPU that is current in CuPy.

        Returns
        -------
        Module
            Itself. Build it first: layers find their sizes on the CPU.

        Raises
        ------
        ImportError
            No CUDA kernels in this build, or no CuPy.
        """
        named = self.named_parameters()
        if self._flat is not None and self._flat.holds(named):
            self._flat.to(device)
        else:
            for _, p in named:
                p.data, p.grad, p.beta = backend.move(p.data, device), None, 0.0
        for _, module in self.named_modules():
            for name in module.buffers:
                if getattr(module, name) is not None:
                    setattr(module, name, backend.move(getattr(module, name), device))
        return self

    def get_weights(self):
        """Copies of all parameters and buffers as NumPy arrays, by name, wherever the module is."""
        return {name: np.array(backend.to_host(p.data)) for name, p in self.named_parameters()} | {
            name: np.array(backend.to_host(a)) for name, a in self.named_buffers()
        }

    def set_weights(self, weights):
        """Copy arrays into parameters and buffers.

        Parameters
        ----------
        weights : dict of str to array
            As from `get_weights`: every name, every shape; but of persistent chains any number, or none.

        Raises
        ------
        ValueError
            A name is missing or unknown, or a shape differs. Nothing is changed then.
        TypeError
            No dict, or what is no array of real numbers; nothing is changed then either.
        """
        if not hasattr(weights, "keys"):
            raise TypeError(f"weights: expected a dict of arrays by name; got {type(weights).__name__}")
        loose = {
            f"{prefix}.{name}" if prefix else name: (module, name, tail)
            for prefix, module in self.named_modules()
            for name, tail in module.loose_buffers().items()
        }
        own = {name: p.data for name, p in self.named_parameters()} | dict(self.named_buffers())
        own = {name: a for name, a in own.items() if name not in loose}
        missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys() - loose.keys())
        if missing or unknown:
            raise ValueError(
                f"weights: expected the names {', '.join(own)}; "
                f"got {'no ' + ', '.join(missing) if missing else 'also ' + ', '.join(unknown)}"
            )
        new = {name: _numbers(f"weights[{name!r}]", weights[name]) for name in own}
        for name, a in own.items():
            if new[name].shape != a.shape:
                raise ValueError(f"weights[{name!r}]: expected shape {list(a.shape)}; got {list(new[name].shape)}")
        rows, counts = {}, {}
        for name, (module, _, tail) in loose.items():
            a = None if name not in weights else _numbers(f"weights[{name!r}]", weights[name]).copy()
            if a is not None and (a.shape[1:] != tail or not len(a)):
                shape = f"[N,{','.join(map(str, tail))}]"
                raise ValueError(f"weights[{name!r}]: expected shape {shape}, N at least 1; got {list(a.shape)}")
            rows[name], count = a, 0 if a is None else len(a)
            other, before = counts.setdefault(id(module), (name, count))
            if count != before:
                raise ValueError(f"weights[{name!r}]: expected {before} rows, as weights[{other!r}] has; got {count}")
        for name, a in own.items():
            backend.assign(a, new[name])
        for name, (module, buffer, _) in loose.items():
            a = rows[name]
            setattr(module, buffer, None if a is None else backend.to_device(a, self.any_array()))

    def clone(self):
        """A copy with weights of its own."""
        return copy.deepcopy(self)

    # ------------------------------------------------------------------------------------------ words

    def describe(self):
        """The arguments that matter, for repr and summaries; layers override it."""
        return ""

    def __repr__(self):
        parts = [(name, child) for name, child in self._children() if isinstance(child, Module)]
        if not parts:
            return f"{type(self).__name__}({self.describe()})"
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in parts]
        return f"{type(self).__name__}({self.describe()}\n" + "\n".join(lines) + "\n)"

    def summary(self, input_shape, dtype=np.float32):
        """A table of the layers: output shape, parameters, and for a convolution what a dense layer would need instead.

        Parameters
        ----------
        input_shape : tuple of int
            Of one sample.
        dtype : dtype
            Of the samples: np.int64 for tokens.

        Returns
        -------
        str
        """
        rows, seen, calls = [], set(), self.trace(input_shape, dtype)
        called = {id(module) for _, module, _, _ in calls}
        for name, module, before, shape in calls:
            parts = [c for _, c in module._children() if isinstance(c, Module)]
            # What a module does with parts that it does not call is its own doing.
            own, ahead = [], [module]
            while ahead:
                children = [c for _, c in ahead.pop()._children()]
                own += [c for c in children if isinstance(c, Parameter)]
                ahead += [c for c in children if isinstance(c, Module) and id(c) not in called]
            fresh = [p for p in own if id(p) not in seen]
            seen.update(id(p) for p in own)
            if (name == "" or type(module).__name__ == "Sequential") and parts and not fresh:
                continue
            size = sum(p.data.size for p in fresh)
            dense = ""
            if getattr(module, "shares_weights", False):
                inputs, outputs = int(np.prod(before)), int(np.prod(shape))
                dense = f"{(inputs + 1) * outputs:,}"
            rows.append((f"{name} {type(module).__name__}".strip(), str(list(shape)), f"{size:,}", dense))
        total = self.count()
        frozen = sum(p.data.size for p in self.parameters() if not p.wants_grad)
        head = ("layer", "output", "parameters", "as a dense layer")
        if not any(r[3] for r in rows):
            head, rows = head[:3], [r[:3] for r in rows]
        widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]

        def line(r):
            return "  ".join(
                c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))
            )

        rule = "-" * len(line(head))
        end = f"{total:,} parameters, {total * 4 / 1e6:.2f} MB" + (f", {frozen:,} of them frozen" if frozen else "")
        return "\n".join([line(head), rule, *(line(r).rstrip() for r in rows), rule, end])
