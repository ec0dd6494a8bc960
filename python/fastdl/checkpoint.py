"""Checkpoints: the whole state of a training, written while it runs, from which another process goes on bit for bit.

    model.fit(X, y, checkpoint="run.ckpt")                        written after every epoch
    model.fit(X, y, checkpoint=Checkpoint("run.ckpt", every=500)) also after every 500 updates
    model.fit(X, y, checkpoint="run.ckpt", resume=True)           goes on if the file is there, else starts

A file is replaced as a whole: a process that is killed at any moment leaves the last good one. Going on gives the
weights, figures and random numbers of a run that never stopped, on the same target (`fastdl.backend.target`); on another
one sums may differ in rounding. What decides the run — data, batch size, seed, optimiser, loss, schedule's length —
must be what it was, or an error names the difference.

A family with a training loop of its own uses `Run`; see `fastdl.models.Perceptron`.
"""

import contextlib
import dataclasses
import json
import os
import zlib
from pathlib import Path

import numpy as np

from . import backend
from .io import load_state, save_state

KIND = "checkpoint"


class Checkpoint:
    """Where the state of a training is written, and how often.

    Parameters
    ----------
    path : path
        One file; every state takes the place of the one before.
    every : int, optional
        Also after so many updates; only after every epoch if left out.
    about : dict, optional
        The model's settings, by which `fastdl.models.load` makes the model of a checkpoint. Models give it.
    """

    def __init__(self, path, every=None, about=None):
        if every is not None and (isinstance(every, bool) or not hasattr(every, "__index__") or every < 1):
            raise ValueError(f"every: expected a number of updates of at least 1; got {every!r}")
        self.path, self.every, self.about = _path("checkpoint", path), every, about
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise ValueError(f"checkpoint: expected a file in a folder that exists; got {str(path)!r}")


def as_checkpoint(checkpoint):
    """A `Checkpoint` of a path, or what is none."""
    return checkpoint if checkpoint is None or isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)


def _path(name, value):
    try:
        return Path(value)
    except TypeError:
        raise TypeError(f"{name}: expected a path; got {type(value).__name__}") from None


def to_go_on_from(checkpoint, resume):
    """The file that a run with these arguments (a `Checkpoint` or None; a path, bool or None) goes on from, or None."""
    if resume is True:
        if checkpoint is None:
            raise ValueError("resume: expected a path, or True together with checkpoint; got True alone")
        return checkpoint.path if checkpoint.path.exists() else None
    return None if resume is None or resume is False else _path("resume", resume)


class Run:
    """One training's dealings with checkpoints.

    Parameters
    ----------
    checkpoint : path, Checkpoint or None
        Where to write; None: nowhere.
    resume : path, bool or None
        A file to go on from, which must be there; True: the checkpoint's own, if it is there.
    identity : dict
        What decides the run, by the names of arguments: numbers, strings, None, lists of these. It must be the same in
        the run that goes on.

    Attributes
    ----------
    state : dict or None
        What to go on from, as it was given to `write`.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, a damaged one, or one of another run; the message names the argument that differs.
    """

    def __init__(self, checkpoint, resume, identity):
        checkpoint = as_checkpoint(checkpoint)
        self._to, self._identity, self._last, self.state = checkpoint, identity, 0, None
        found = to_go_on_from(checkpoint, resume)
        if found is not None:
            self._read(found)
        if checkpoint is not None:
            # What a killed process was writing.
            for part in checkpoint.path.absolute().parent.glob(f".{glob_safe(checkpoint.path.name)}.*.part"):
                with contextlib.suppress(OSError):
                    part.unlink()

    def _read(self, path):
        found = load_state(path, KIND)
        then = found.get("identity", {})
        for name in {**then, **self._identity}:
            old, new = _listed(then.get(name)), _listed(self._identity.get(name))
            if old != new:
                raise ValueError(f"{name}: expected {old}, as in the checkpoint {os.fspath(path)}; got {new}")
        self.state = found["state"]

    def due(self, step):
        """Whether a state is wanted after this update, inside an epoch."""
        every = None if self._to is None else self._to.every
        return every is not None and step - self._last >= every

    def write(self, get_state, step=0):
        """Write ``get_state()``; nothing is called where no checkpoint is wanted."""
        if self._to is None:
            return
        self._last = step
        save_state(
            self._to.path,
            KIND,
            {
                "identity": self._identity,
                "state": get_state(),
                "about": self._to.about,
                "target": backend.target,
            },
        )


def must_be_the_same_model(about, checkpoint, resume):
    """Whether the file to go on from is of a model with the same settings; else a ValueError names the first that differs.

    Weights of another activation or dropout would fit as well, and the run that went on would be another one. So it would
    after another `pretrain`, of which a run that goes on does nothing again; it need not be said again either. Returns what
    the next file shall say.
    """
    if about is None or resume is None or resume is False:
        return about
    path = getattr(checkpoint, "path", None) if resume is True else _path("resume", resume)
    if path is None or not os.path.isfile(path):
        return about  # what is wrong is told by Run, which also takes True where there is no file yet
    then = load_state(path, KIND).get("about")
    if not then or "params" not in then or "params" not in about:
        return about
    now = json.loads(json.dumps({"model": about["model"], **about["params"]}, default=lambda v: getattr(v, "item", str)()))
    for name, old in {"model": then["model"], **then["params"]}.items():
        if name in now and now[name] != old:
            raise ValueError(f"{name}: expected {old!r}, as in the checkpoint {os.fspath(path)}; got {now[name]!r}")
    before, asked = then.get("pretrain"), about.get("pretrain")
    if asked is not None and asked != before:
        raise ValueError(f"pretrain: expected {before}, as in the checkpoint {os.fspath(path)}; got {asked}")
    return about | {"pretrain": before}


def glob_safe(name):
    """A file name in which glob finds nothing special."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _listed(value):
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value


def fingerprint(a):
    """A few words about an array that tell it from another one: dtype, shape, and a checksum of up to 256 rows."""
    if a is None:
        return None
    rows = np.unique(np.linspace(0, max(len(a) - 1, 0), min(len(a), 256)).astype(np.int64))
    sample = np.ascontiguousarray(backend.to_host(backend.take(a, backend.to_device(rows, a)) if len(a) else a))
    return f"{a.dtype} {list(a.shape)} {zlib.crc32(sample.tobytes()):08x}"


def called(value):
    """A loss, schedule or the like in words that are the same in every process: a function's name, never its address."""
    if value is None or isinstance(value, str):
        return value
    if dataclasses.is_dataclass(value):
        return repr(value)
    return getattr(value, "__qualname__", type(value).__qualname__)


# ---------------------------------------------------------------------------------------------- states of the parts


def module_state(module):
    """Weights, running statistics and the places in the random streams of a module."""
    streams, seen = {}, set()
    for name, m in module.named_modules():
        stream = getattr(m, "stream", None)
        if stream is not None and id(stream) not in seen:
            seen.add(id(stream))
            streams[name] = stream.get_state()
    return {"weights": module.get_weights(), "streams": streams}


def set_module_state(module, state):
    """Put back what `module_state` gave."""
    module.set_weights(state["weights"])
    modules = dict(module.named_modules())
    for name, place in state["streams"].items():
        modules[name].stream.set_state(place)


def parts_state(parts):
    """States of those objects that have ``get_state``, by their place; schedules and callbacks may have it."""
    return {str(i): p.get_state() for i, p in enumerate(parts) if hasattr(p, "get_state")}


def set_parts_state(parts, states):
    """Put back what `parts_state` gave.

    Raises
    ------
    ValueError
        A state without an object that takes it.
    """
    for i, state in states.items():
        if int(i) >= len(parts) or not hasattr(parts[int(i)], "set_state"):
            raise ValueError("callbacks: expected the same as in the checkpoint's run; got others")
        parts[int(i)].set_state(state)
