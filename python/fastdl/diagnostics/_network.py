"""What all diagnostics need: the module behind a model, its input as it wants it, and a network left as it was."""

import contextlib

import numpy as np

from .. import backend
from .._exchange import unwrapped
from ..checkpoint import module_state, set_module_state
from ..models._door import array_of
from ..module import Module


def opened(model, X=None, labels=None, name="y"):
    """(model, X, labels) as the model inside has them, where a fitted estimator of `fastdl.sklearn` is around it."""
    inside = unwrapped(model)
    if inside is model:
        return model, X, labels
    if X is not None and np.ndim(X) <= 2:  # what has more axes than a table is already as the model wants it
        rows = model._rows_to_judge(X)
        X = model._view(rows) if hasattr(model, "_view") else rows
    if labels is not None and hasattr(model, "classes_"):  # the model itself knows only their places in classes_
        known = {label: code for code, label in enumerate(model.classes_.tolist())}
        given = np.asarray(labels)
        codes = [known.get(label) for label in given.reshape(-1).tolist()]
        if None in codes:
            strange = given.reshape(-1).tolist()[codes.index(None)]
            raise ValueError(f"{name}: expected labels from {model.classes_.tolist()}; got {strange!r}")
        labels = np.array(codes, np.int64).reshape(given.shape)
    return inside, X, labels


def is_undirected(model):
    """Whether it is a Boltzmann machine: its units settle together, and no path leads from an input to an output."""
    from .. import models
    from ..models import _boltzmann, classification_rbm, convolutional_rbm

    families = models.RBM, models.ConvolutionalRBM, models.ClassificationRBM, models.DBM
    return isinstance(model, (*families, _boltzmann.Machine, classification_rbm._Joint, convolutional_rbm._Machine))


def module_of(model):
    """The Module of a model or a Module itself."""
    if isinstance(model, Module):
        return model
    module = getattr(model, "module_", None)
    if not isinstance(module, Module):
        raise ValueError(f"model: expected one that was built or fitted, or a Module; got {type(model).__name__}")
    return module


def input_of(model, X):
    """X as the network takes it, on its device: float32 (uint8 images in [0,1]), or int64 for a Module on indices."""
    x = model._input(X) if hasattr(model, "_input") else array_of(X, "X")
    if x.ndim == 0:
        raise ValueError("X: expected an array with samples first; got a single number")
    if x.dtype == np.uint8:
        x = backend.array(x, np.float32)
        x *= np.float32(1.0 / 255.0)
    elif x.dtype.kind == "f" or x.dtype.kind == "b":
        x = backend.array(x, np.float32)
    elif x.dtype.kind in "iu":
        x = backend.array(x, np.int64)
    else:
        raise TypeError(f"X: expected an array of real numbers; got {x.dtype}")
    if len(x) == 0:
        raise ValueError("X: expected one sample or more; got none")
    like = module_of(model).any_array()
    return x if like is None else backend.to_device(x, like)


def steps_of(model, x):
    """Samples without what only says how long they are: sequences that travel as rows, as steps [N,T,I]."""
    if not hasattr(model, "_steps") or getattr(model, "vocabulary", None) is not None or x.ndim != 2:
        return x
    return x[:, :-1].reshape(len(x), -1, model.input_shape_[-1])


def host(a):
    """A float64 copy on the CPU, for statistics."""
    return backend.to_host(a).astype(np.float64)


@contextlib.contextmanager
def undisturbed(module):
    """Afterwards modes, running statistics and random streams are what they were, and no gradient is left."""
    modes = [(m, m.training) for _, m in module.named_modules()]
    state = module_state(module)
    try:
        yield
    finally:
        set_module_state(module, state)
        for m, mode in modes:
            m.training = mode
        for p in module.parameters():
            p.beta = 0.0  # the next writer overwrites
