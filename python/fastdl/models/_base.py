"""What the models share: samples and their split on the way into the network, its weights, files."""

import inspect
import math
from numbers import Real

import numpy as np

from .. import backend
from ..checkpoint import Checkpoint, as_checkpoint, must_be_the_same_model
from ..io import save as _write
from ..module import shape_of
from ..random import Stream, permutation
from ._door import as_input, must_be_on_scale, must_have_some, scale_name
from ._places import network_at, place_of


class Model:
    """Base of the models: a network behind a door where data are converted, with its files.

    A family says how its network is made (`_make`); `Classifier` and `Regressor` of `_supervised.py` say what its targets are.
    A family with targets or losses of its own overrides `_targets` (y as the network's loss wants it), `_loss` and `_describe`.
    """

    _device = "cpu"
    _fitted = ("module_", "input_shape_")  # what a fresh fit forgets
    _own = ("loss",)  # what `fit` gives `fastdl.train.fit` itself and takes no option for
    _pretrain = None  # what a checkpoint says of single layers that were trained before all of them

    # ------------------------------------------------------------------------------------------ for families

    def _make(self, input_shape, outputs):
        """The network: a Module that is not built yet and gives `outputs` numbers, logits for classes."""
        raise NotImplementedError

    def _shape(self, x, name="X"):
        """X as the network wants it, samples first; families that need images override it."""
        return x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim != 2 else x

    def _sample_shape(self, input_shape):
        """Sizes of one sample as `_shape` makes them, of those that `build` is given."""
        return (math.prod(shape_of(input_shape)),)

    def _targets(self, y, n, name="y"):
        """y as the loss wants it, one row a sample."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------ the door

    def _input(self, X, name="X"):
        x = as_input(X, name)
        if x.shape == (0,):  # an empty list: no samples have any shape
            x = x.reshape(0, *self.input_shape_) if hasattr(self, "input_shape_") else must_have_some(x, name)
        x = self._shape(x, name)
        if hasattr(self, "input_shape_") and x.shape[1:] != self.input_shape_:
            raise ValueError(
                f"{name}: expected samples of shape {list(self.input_shape_)}, as the model was made for; "
                f"got {list(x.shape[1:])}"
            )
        must_be_on_scale(x, getattr(self, "scale_", None), name)
        return x

    def _need_fit(self):
        if not hasattr(self, "module_"):
            raise RuntimeError(f"{type(self).__name__}: expected a model that was built or fitted; got a fresh one")

    def _begin(self, X, warm_start):
        """Samples of a fit; what an earlier fit learned is forgotten unless training goes on from it."""
        if not (warm_start and hasattr(self, "module_")):
            for name in (*self._fitted, "scale_"):
                self.__dict__.pop(name, None)
        x = must_have_some(self._input(X))
        if 0 in x.shape[1:]:
            raise ValueError(f"X: expected one value a sample or more; got samples of shape {list(x.shape[1:])}")
        if not hasattr(self, "scale_"):
            self.scale_ = scale_name(x)
        return x

    def _shares(self, count, validation):
        """Places of the samples to train on and of those to set aside, of so many."""
        n = round(validation * count) if math.isfinite(validation) else 0
        if not (0.0 < validation < 1.0 and 0 < n < count):
            raise ValueError(f"validation: expected (X, y) or a share between 0 and 1 of {count} samples; got {validation}")
        order = permutation(count, *Stream(self.seed).split("validation").take(2 * count))
        return np.sort(order[n:]), np.sort(order[:n])

    def _split(self, x, targets, validation):
        if validation is None:
            return x, targets, None
        if isinstance(validation, Real):
            kept, held = self._shares(len(x), validation)
            xk, xh = (backend.take(x, backend.to_device(part, x)) for part in (kept, held))
            return xk, targets[kept], (xh, targets[held])
        try:
            vx, vy = validation
        except (TypeError, ValueError):
            raise ValueError(f"validation: expected (X, y) or a number; got {type(validation).__name__}") from None
        vx = must_have_some(self._input(vx, "validation X"), "validation X")
        return x, targets, (vx, self._targets(vy, len(vx), "validation y"))

    def _checkpoint(self, checkpoint, resume=None):
        """Where to write, with what it takes to make the model of a checkpoint; what is resumed must be this model's."""
        about = self._describe() | {"pretrain": self._pretrain} if self._can_be_saved() else None
        checkpoint = as_checkpoint(checkpoint)
        if checkpoint is not None and checkpoint.about is not None:
            about = checkpoint.about  # of the model that this one is a part of
        about = must_be_the_same_model(about, checkpoint, resume)
        return None if checkpoint is None else Checkpoint(checkpoint.path, checkpoint.every, about)

    # ------------------------------------------------------------------------------------------ public

    def to(self, device):
        """Work on a device from now on: the network that is there and those that later fits make.

        Parameters
        ----------
        device : {'cpu', 'cuda', 'cuda:N'}

        Returns
        -------
        The model itself. Data may be on any device; predictions are NumPy arrays.
        """
        backend.device(device)
        if hasattr(self, "module_"):
            self.module_.to(device)
        self._device = device
        return self

    def summary(self):
        """A table of the layers with output shapes and parameter counts, as a string."""
        self._need_fit()
        return f"{self!r}\n" + self.module_.summary(self.input_shape_)

    def get_weights(self):
        """Copies of all parameters and running statistics, by name."""
        self._need_fit()
        return self.module_.get_weights()

    def set_weights(self, weights):
        """Copy arrays, as from `get_weights`, into the network; returns the model."""
        self._need_fit()
        self.module_.set_weights(weights)
        return self

    def get_params(self, deep=True):
        """The constructor's arguments."""
        return {
            name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"
        }

    # ------------------------------------------------------------------------------------------ files

    def _can_be_saved(self):
        """Whether a file can say how the network is made."""
        return not any(callable(v) and place_of(v) is None for v in self.get_params().values())

    def _settings(self):
        """What a model of this kind is made with, for JSON."""
        params = {n: {"function": place_of(v)} if callable(v) else v for n, v in self.get_params().items()}
        return {"model": type(self).__name__, "params": params}

    def _describe(self):
        """All that makes a model of this kind but its weights, for JSON."""
        about = self._settings() | {"input_shape": list(self.input_shape_)}
        return about | ({"scale": self.scale_} if hasattr(self, "scale_") else {})

    def save(self, path):
        """Write weights, classes and settings to a safetensors file, whole or not at all.

        Raises
        ------
        ValueError
            A setting is a function, which a file can't hold, unless it is a network of a recipe (`get_weights` can be saved
            by `fastdl.io.save`).
        """
        self._need_fit()
        self._save(path)

    def _save(self, path):
        if not self._can_be_saved():
            name = next(n for n, v in self.get_params().items() if callable(v) and place_of(v) is None)
            raise ValueError(f"{name}: expected a name, to save a whole model; got a function")
        _write(path, self.get_weights(), self._describe())

    @classmethod
    def load(cls, path):
        """A model from a file that `save` wrote, or from a checkpoint, with the weights of that moment.

        Raises
        ------
        FileNotFoundError
            No such file.
        ValueError
            The file is damaged, of a newer format, or of another family.
        """
        from . import load

        model = load(path)
        if type(model) is not cls:
            raise ValueError(f"{path}: expected a {cls.__name__}; got a {type(model).__name__}")
        return model

    @classmethod
    def _from_file(cls, weights, config):
        params = {k: tuple(v) if isinstance(v, list) else v for k, v in config["params"].items()}
        params = {k: network_at(v["function"]) if isinstance(v, dict) else v for k, v in params.items()}
        return cls(**params)._build_from(config).set_weights(weights)

    def __repr__(self):
        defaults = {n: p.default for n, p in inspect.signature(type(self).__init__).parameters.items()}
        changed = [f"{n}={_shown(v)}" for n, v in self.get_params().items() if n == "seed" or v != defaults[n]]
        return f"{type(self).__name__}({', '.join(changed)})"


class Transformer:
    """What models share whose `transform` gives features of samples, learned without labels."""

    def fit_transform(self, X, y=None, **options):
        """`fit`, then `transform`."""
        return self.fit(X, y, **options).transform(X)


def _shown(value):
    """A function by its name: where it lies in memory would make every run's settings differ."""
    return getattr(value, "__name__", type(value).__name__) if callable(value) else repr(value)
