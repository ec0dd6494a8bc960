"""Updates and predictions of a network, and their replay: the same kernels on the same memory, called without Python.

A training step is a fixed sequence of kernel calls. Where it is known to be (networks of layers that say so, losses of
`fastdl.ops`, on a CPU) its way forward and back is recorded when it first runs on a batch of some shape, and later batches of
that shape are one call. A step of a few units takes a quarter of the time; for large ones it comes to nothing, and steps that
need much memory are not recorded, since it would be held.

The results are the same, bit for bit.
"""

import math
from contextvars import copy_context

import numpy as np

from . import backend, ops
from ._runtime import arena_bytes, arena_enter, new_arena, snapshot, unchanged
from .module import Module, Parameter, observed
from .optim import Optimizer
from .random import Stream
from .tensor import Tensor, inference, recording

LOSSES = {
    "softmax_cross_entropy": ops.softmax_cross_entropy,
    "binary_cross_entropy": ops.binary_cross_entropy,
    "mse": ops.mse,
    "mae": ops.mae,
    "huber": ops.huber,
    "hinge": ops.hinge,
}
_MASK = 2**64 - 1
_MOST_SHAPES = 4  # of batches: whoever has more of them does not come back to the same one soon
_MOST_BYTES = 32 << 20  # of memory that a recorded step may hold; larger ones gain less than a hundredth
# A recording costs what several replays gain, and to look whether one is possible costs something too. Where it is forgotten
# again and again, by somebody who changes something between steps, or never possible, every so many calls may try, after some
# that are free.
_EVERY, _FREE = 8, 8
_MOST_PREDICTED = 1 << 18  # bytes of a batch to predict for, and of what is made on the way, where that is recorded
_SEEN = 3  # batches of a shape that are predicted for before one is recorded
_INPUTS = (np.dtype(np.float32), np.dtype(np.int64))
# What may be among the attributes of layers, alone or in a list: into others (functions, dicts, lists in lists) nobody looks.
_PLAIN = (bool, bytes, float, int, np.generic, str, type(None))
_KNOWN = (*_PLAIN, np.ndarray, Module, Parameter, Stream)


def loss_of(loss):
    """The function that a loss's name stands for; a function stays itself."""
    found = LOSSES.get(loss, loss) if isinstance(loss, str) else loss
    if not callable(found):
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)} or a function; got {loss!r}")
    return found


def _replayable(module):
    """Whether this very class says so: what a subclass or an object does in forward is another matter."""
    own = vars(module)
    if not vars(type(module)).get("replayable", False) or "forward" in own:
        return False
    for name, value in own.items():
        parts = value if isinstance(value, (list, tuple)) else (value,)
        hidden = name.startswith("_")  # from the network, which does not know what it has there
        if any(isinstance(part, (Module, Tensor)) if hidden else not _known(part) for part in parts):
            return False
    return True


def _known(part, kinds=_KNOWN):
    return isinstance(part, kinds) or (isinstance(part, tuple) and all(_known(p, _PLAIN) for p in part))


def _record(inputs, compute, drawn, most, copied=False):
    """What compute() gives, a Tensor; its replay, as kernels.recorded gives it, or None; and what must be kept for that, None
    where nothing could be recorded."""
    kernels, arena = backend.kernels(inputs[0]), new_arena(most)
    try:
        if not kernels.record():  # inside another recording, which comes to nothing now
            return compute(), None, None
        # in a context that ends with it, wherever an interrupt may come
        result, constants = copy_context().run(_inside, arena, compute)
        run = kernels.recorded(inputs, result.data, *drawn(), copied)
    except BaseException:
        kernels.recorded()
        raise
    return result, run if arena_bytes(arena) <= most else None, (arena, constants)


def _inside(arena, compute):
    arena_enter(arena)
    constants = backend.keep_constants()
    return compute(), constants


def _overlap(inputs, own):
    """Whether inputs lie in arrays that are used besides: a replay with others would take those for them."""
    return any(
        isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.may_share_memory(a, b) for a in inputs for b in own
    )


def predicted(module, x, batch_size):
    """What a network in evaluation mode gives for a batch that is like earlier ones, replayed.

    Parameters
    ----------
    module : Module
        Built and initialised.
    x : array
        The module's input.
    batch_size : int
        Rows that may be sent through at a time.

    Returns
    -------
    float32 array or None
        None where it must be computed as usual: for the first batches of a shape, large ones, networks that are not known to
        call kernels alone, in training mode, or watched.
    """
    if type(x) is not np.ndarray or not 0 < x.nbytes <= _MOST_PREDICTED or observed():
        return None
    if not x.shape or x.shape[0] > batch_size:
        return None
    walk = module._walked()
    programs, attributes = walk.programs, walk.then  # new ones where an attribute of the network has changed
    program = programs.get(x.shape)
    if type(program) is tuple:
        run, shape, parameters, then, _ = program  # all of it is held while it runs, whatever another thread changes
        out = run(x, np.empty(shape, np.float32), 0) if unchanged(parameters, then) else None
        if out is None:
            programs[x.shape] = 0
        return out
    if program is None:
        if x.shape in programs:
            return None
        if len(programs) >= _MOST_SHAPES:
            seen = next((s for s, p in list(programs.items()) if type(p) is int), None)  # the first that is only counted
            if seen is None:
                return None
            programs.pop(seen, None)
        program = 0
    programs[x.shape] = program + 1
    if program < _SEEN:
        return None
    own = [p.data for _, p in walk.parameters] + [b for _, b in module.named_buffers()]
    fits = x.dtype in _INPUTS and x.flags.c_contiguous and not _overlap((x,), own)
    if not fits or not all(type(a) is np.ndarray for a in own):
        programs[x.shape] = 0  # the next batch may be another, and the weights elsewhere
        return None
    programs[x.shape] = None
    if any(m.training or not _replayable(m) for m in [module, *(m for _, m in walk.modules)]):
        return None
    parameters = tuple(p for _, p in walk.parameters)
    then = tuple((p.data,) for p in parameters)

    def compute():
        with inference():
            return module(Tensor(x) if x.dtype == np.float32 else x)

    try:
        result, run, held = _record((x,), compute, lambda: (0, 0, 0), _MOST_PREDICTED, copied=True)
    except BaseException:
        programs[x.shape] = 0  # it may have been the batch
        raise
    out = result.data.copy()
    if held is None:
        programs[x.shape] = 0
    elif run is not None:
        programs[x.shape] = run, out.shape, parameters, then, (held, attributes)
    return out


class Step:
    """Updates of a network: ``step(x, y)`` sends a batch forward, its loss back, and lets the optimiser do its part.

    Parameters
    ----------
    module : Module
        Built and initialised.
    loss : str or callable
        As in `fastdl.train.fit`.
    optimizer : Optimizer
        Made for this module, or for one that it is a part of.

    Notes
    -----
    Steps are replayed where every layer's class says ``replayable = True`` (see `Module`) and the loss is one of
    `fastdl.ops`, or a function with an attribute ``replayable`` that is true: like a layer it then calls kernels alone, and the
    arrays that it brings itself stay where they are. Layers and their options may change between steps, as may the number of
    threads: what was recorded is then forgotten. Values that a layer keeps of its own are not looked at. An optimiser whose
    `zero_grad` is its own, to add up the gradients of several batches, say, has its steps done as usual.

    Copies, also by pickle, begin without what was recorded.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import nn, optim, train
    >>> net = nn.Sequential(nn.Dense(16, "tanh"), nn.Dense(1)).build((2,), seed=0)
    >>> step = train.Step(net, "binary_cross_entropy", optim.SGD(net, lr=0.5))
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    >>> y = np.array([[0], [1], [1], [0]], np.float32)
    >>> losses = [step(x, y) for _ in range(1000)]
    >>> losses[-1] < 0.1 < losses[0]
    True
    """

    def __init__(self, module, loss, optimizer):
        self._module, self._loss_of, self._optimizer = module, loss_of(loss), optimizer
        self._programs, self._watched, self._then = {}, (), ()
        self._credit = _EVERY * _FREE  # calls for which nothing was tried

    def __getstate__(self):
        return vars(self) | {"_programs": {}, "_watched": (), "_then": ()}

    def __call__(self, x, y):
        """One update.

        Parameters
        ----------
        x : array
            float32; or int64, of which the module makes what it wants.
        y : array
            Targets.

        Returns
        -------
        float
            The loss before the update. Where it is not finite there is none: no weights change, but buffers have.
        """
        value = self._replay(x, y) if self._programs else None
        if value is None:
            value = self._first(x, y)
        if math.isfinite(value):
            self._optimizer.step()
        return value

    def _replay(self, x, y):
        """The loss, where the way forward and back could be replayed."""
        if not unchanged(self._watched, self._then) or observed() or not recording():
            self._programs.clear()
            return None
        program = self._programs.get(x.shape)
        if program is None:
            return None
        run, _, untouched, stream, seed, start, used = program
        moved = 0
        if stream is not None:
            moved = (stream.offset - start) & _MASK
            if stream.seed != seed or moved % 4:  # takers begin at blocks of four, and would lie otherwise
                return None
        value = run(x, y, moved)
        if value is not None:
            if stream is not None:
                stream.take(used)
            for p in untouched:  # whatever lies there by now
                p.beta = 0.0
        return value

    def _first(self, x, y):
        """The loss of a batch sent forward and back as usual, and recorded if it can be."""
        self._credit = min(self._credit + 1, _EVERY * _FREE)
        room = x.shape in self._programs or len(self._programs) < _MOST_SHAPES
        streams = None
        if room and self._programs.get(x.shape, self) is not None and self._credit >= _EVERY:  # None: not to be recorded
            self._credit -= _EVERY
            streams = self._streams(x)
        if streams is None or self._overlaps(x, y):
            return self._forward_and_back(x, y).item()  # read only now: a GPU has the way back to do meanwhile
        stream = streams[0] if streams else None
        seed, start = (stream.seed, stream.offset) if streams else (0, 0)
        then = self._watch()

        def drawn():
            return seed, start, (stream.offset - start) & _MASK if streams else 0

        loss, run, held = _record((x, y), lambda: self._forward_and_back(x, y), drawn, _MOST_BYTES)
        if held is None:
            return loss.item()
        self._programs[x.shape] = None
        # Of another shape than usual, the loss had a gradient of its own to begin with, which a kernel may have written over.
        if run is not None and loss.data.shape == (1,):
            untouched = [p for p in self._optimizer.flat.parameters if p.beta == 0.0]
            self._programs[x.shape] = run, (held, then), untouched, stream, *drawn()
        return loss.item()

    def _overlaps(self, x, y):
        """Whether the batch lies in arrays that the step uses besides."""
        own = [b for _, b in self._module.named_buffers()]
        for p in self._optimizer.flat.parameters:
            own += [p.data, p.grad]
        return _overlap((x, y), own)

    def _streams(self, x):
        """The random streams that the network draws from; None where it cannot be replayed."""
        if observed() or not recording() or type(x) is not np.ndarray:
            return None
        if not _replayable(self._module):
            return None
        # One that clears gradients in its own way adds them up, say, which a replay would not do.
        optimizer = self._optimizer
        if getattr(type(optimizer), "zero_grad", None) is not Optimizer.zero_grad or "zero_grad" in vars(optimizer):
            return None
        loss = self._loss_of
        if loss not in LOSSES.values() and (isinstance(loss, Module) or not getattr(loss, "replayable", False)):
            return None
        trained = {id(p) for p in optimizer.flat.parameters}
        if not all(id(p) in trained for p in self._module.parameters()):  # gradients of the others are added up for ever
            return None
        streams = {}
        for _, m in self._module.named_modules():
            if not _replayable(m):
                return None
            streams |= {id(v): v for v in vars(m).values() if isinstance(v, Stream)}
        return list(streams.values()) if len(streams) <= 1 else None

    def _watch(self):
        """Remember all that a step depends on, and give it: what is recorded now holds while these are the same objects."""
        watched = (*self._module._holders(self._module.named_modules()), *self._optimizer.flat.parameters)
        then = snapshot(watched)
        if not self._programs:
            self._watched, self._then = watched, then
        return then

    def _forward_and_back(self, x, y):
        loss = self._loss_of(self._module(Tensor(x) if x.dtype == np.float32 else x), y)
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss: expected a function that gives a Tensor; got one that gives a {type(loss).__name__}")
        if loss.data.size != 1:
            raise ValueError(f"loss: expected a function that gives one number; got {list(loss.shape)} of them")
        self._optimizer.zero_grad()
        loss.backward()
        return loss
