"""Options of single layers that are trained before all of them."""

import inspect

import numpy as np

from .. import nn, optim, train
from .._arguments import natural
from ..checkpoint import called

_UNTOLD = ("callbacks", "show", "checkpoint", "resume")


def must_be_able_to_train(fit, options, given):
    """What `fastdl.train.fit` and an optimiser would refuse of the options of a model's `fit` is refused before anything that
    takes long. Which options are whose is read from the signatures; `given` is what that `fit` hands on by itself."""
    own = inspect.signature(fit).parameters
    train.must_take({name: value for name, value in options.items() if name not in own or name in train.CHECKED}, given)
    optimizer = options.get("optimizer", own["optimizer"].default)
    if not callable(optimizer):
        known = own.keys() & inspect.signature(optim.Optimizer).parameters.keys()
        optim.get(optimizer, nn.Dense(1, inputs=1), **{k: options[k] for k in known if options.get(k) is not None})


def pretraining(pretrain, known):
    """What `fit` is told about single layers that are trained before all of them.

    Returns
    -------
    options : dict or None
        A number of epochs is that option alone; None: no layer is trained before.
    told : dict or None
        The options that decide what is learned, as a checkpoint can hold them.
    """
    if pretrain is None or pretrain is False:
        return None, None
    if hasattr(pretrain, "items"):
        options = dict(pretrain)
    elif isinstance(pretrain, bool) or not hasattr(pretrain, "__index__"):
        raise TypeError(f"pretrain: expected a number of epochs or a dict of options; got {type(pretrain).__name__}")
    else:
        options = {"epochs": natural("pretrain", pretrain)}
        if options["epochs"] == 0:
            return None, None
    for name in options:
        if name not in known:
            raise TypeError(f"pretrain: expected options among {', '.join(known)}; got {name!r}")
    return options, {name: _told(value) for name, value in options.items() if name not in _UNTOLD}


def _told(value):
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return [_told(v) for v in value]
    return called(value) if callable(value) else value


def one_each(name, value, count):
    """A list of so many values, of that many or of one for all."""
    found = [value] * count if value is None or np.ndim(value) == 0 else list(value)
    if len(found) != count:
        raise ValueError(f"{name}: expected one number, or {count}; got {len(found)}")
    return found
