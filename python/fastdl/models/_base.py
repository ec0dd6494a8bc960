"""What the models share: the door where data are converted, class labels, fitting, saving."""

import importlib
import inspect
import math
import sys
from numbers import Real

import numpy as np

from .. import backend, nn, optim, train
from .._arguments import chance, natural, positive, reals
from .._interrupts import unless_begun
from ..checkpoint import Checkpoint, as_checkpoint, called, must_be_the_same_model
from ..io import save as _write
from ..module import Module, shape_of
from ..random import Stream, permutation
from ..tensor import inference
from ._door import (
    REAL,
    array_of,
    as_input,
    as_labels,
    must_be_on_scale,
    must_be_within,
    must_have_some,
    scale_name,
    scale_of,
)

__all__ = [
    "Classifier", "Model", "Regressor", "Transformer", "as_input", "as_labels", "must_be_within", "must_have_some", "scale_of",
]  # fmt: skip


class Model:
    """Base of the models: a network behind a door where data are converted, with its files.

    A family says how its network is made (`_make`); `Classifier` and `Regressor` say what its targets are. A family with
    targets or losses of its own overrides `_targets` (y as the network's loss wants it), `_loss` and `_describe`.
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
        return not any(callable(v) and _place_of(v) is None for v in self.get_params().values())

    def _settings(self):
        """What a model of this kind is made with, for JSON."""
        params = {n: {"function": _place_of(v)} if callable(v) else v for n, v in self.get_params().items()}
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
            name = next(n for n, v in self.get_params().items() if callable(v) and _place_of(v) is None)
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
        params = {k: _network_at(v["function"]) if isinstance(v, dict) else v for k, v in params.items()}
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


class Classifier(Model):
    """Base of models that tell classes apart. A family says how its network is made (`_make`).

    Attributes
    ----------
    classes_ : array
        The labels, sorted; column c of `predict_proba` belongs to ``classes_[c]``.
    module_ : Module
        The network.
    history_ : dict
        What the last `fit` recorded; see `fastdl.train.fit`.
    """

    _fitted = ("module_", "input_shape_", "classes_")
    _own = ("loss", "metrics")
    _loss = "softmax_cross_entropy"

    def _codes(self, y, n, name="y"):
        """Places of labels in classes_, int64."""
        y = as_labels(y, n, name)
        if _sort_of(y) != _sort_of(self.classes_):
            raise ValueError(f"{name}: expected labels from {self.classes_.tolist()}; got {y.dtype}")
        codes = np.minimum(np.searchsorted(self.classes_, y), len(self.classes_) - 1)
        wrong = self.classes_[codes] != y
        if np.any(wrong):
            raise ValueError(f"{name}: expected labels from {self.classes_.tolist()}; got {y[wrong].tolist()[0]!r}")
        return codes.astype(np.int64)

    _targets = _codes

    @unless_begun
    def build(self, input_shape, classes):
        """Make the network with initial weights.

        Parameters
        ----------
        input_shape : tuple of int
            Of one sample.
        classes : int or sequence of labels

        Returns
        -------
        The model itself.
        """
        labels = np.arange(classes) if isinstance(classes, (int, np.integer)) else np.unique(np.asarray(classes))
        if len(labels) < 2:
            raise ValueError(f"classes: expected two or more; got {len(labels)}")
        self.classes_, self.input_shape_ = labels, shape_of(input_shape)
        self.module_ = self._make(self.input_shape_, len(labels)).build(self.input_shape_, self.seed).eval()
        self.module_.to(self._device)
        return self

    @unless_begun
    def fit(
        self,
        X,
        y,
        *,
        epochs=10,
        batch_size=64,
        validation=None,
        optimizer="adam",
        lr=None,
        weight_decay=None,
        clip=None,
        smoothing=0.0,
        warm_start=False,
        **options,
    ):
        """Train the network on labelled samples.

        Parameters
        ----------
        X : array [N,...]
            Any real dtype; uint8 images are read as values in [0,1]; 0 and 1 themselves come in another dtype. A
            memory-mapped C-contiguous file of float32 or uint8 is read batch by batch.
        y : array [N]
            Integer or string labels.
        epochs, batch_size : int
        validation : (X, y) or float, optional
            Samples that are only judged, or the share of X (chosen at random by the model's seed) to set aside.
        optimizer : str or callable
            'sgd', 'adam', 'adamw', 'rmsprop', 'adagrad', or ``optimizer(module) -> Optimizer``, such as a class of
            `fastdl.optim`.
        lr, weight_decay, clip : float, optional
            Of the optimiser; a function gets those that are given, by name.
        smoothing : float
            Label smoothing of the cross entropy.
        warm_start : bool
            Go on from the weights of now instead of new ones (the optimiser starts afresh).
        **options
            Passed to `fastdl.train.fit`: steps, schedule, patience, restore_best, augment, callbacks, progress,
            checkpoint, resume, ...

        Returns
        -------
        The model itself; `history_` holds the curves.

        Raises
        ------
        ValueError, TypeError
            The message names the argument.
        FloatingPointError
            The loss became infinite or NaN; the message says where.
        """
        train.must_take(options, self._own)
        x, codes, validation = self._prepare(X, y, validation, warm_start)
        options["checkpoint"] = self._checkpoint(options.get("checkpoint"), options.get("resume"))
        given = {"lr": lr, "weight_decay": weight_decay, "clip": clip}
        opt = optim.get(optimizer, self.module_, **{k: v for k, v in given.items() if v is not None})
        self.history_ = train.fit(
            self.module_,
            x,
            codes,
            loss=self._objective(smoothing),
            optimizer=opt,
            epochs=epochs,
            batch_size=batch_size,
            validation=validation,
            metrics={"accuracy": train.accuracy},
            **{"seed": self.seed} | options,
        )
        return self

    def _objective(self, smoothing):
        """What training makes small, as `fastdl.train.fit` takes it."""
        if not chance("smoothing", smoothing):
            return "softmax_cross_entropy"
        smooth, plain, network = float(smoothing), train.LOSSES["softmax_cross_entropy"], self.module_

        def loss(output, target):
            # Validation is judged without smoothing, so that its figure can be compared.
            return plain(output, target, None, smooth if network.training else 0.0)

        loss.__qualname__ = f"softmax_cross_entropy, smoothing {smooth:g}"  # what a run that goes on compares
        loss.replayable = True
        return loss

    def _prepare(self, X, y, validation, warm_start):
        """Samples, codes and validation of a fit; the network is new unless training goes on from the one of now."""
        x = self._begin(X, warm_start)
        if not hasattr(self, "module_"):
            labels = np.unique(as_labels(y, len(x)))
            if len(labels) < 2:
                raise ValueError(f"y: expected two classes or more; got {len(labels)}")
            self.build(x.shape[1:], labels)
        return self._split(x, self._codes(y, len(x)), validation)

    def decision_function(self, X):
        """Logits, float32 [N, classes]."""
        self._need_fit()
        return backend.to_host(train.predict(self.module_, self._input(X)))

    def predict_proba(self, X):
        """Probability of each class, float32 [N, classes]; columns in the order of `classes_`."""
        logits = self.decision_function(X)
        with inference():
            return backend.kernels(logits).softmax_forward(logits)

    def predict(self, X):
        """The most probable label of each sample, [N]."""
        outputs = self.decision_function(X)
        unknown = np.isnan(outputs).any(1)
        if unknown.any():
            raise ValueError(
                f"X: expected samples for which the network gives numbers; got NaN for {unknown.sum()} of {len(outputs)}, the "
                f"first at {int(np.argmax(unknown))}"
            )
        return self.classes_[train.argmax(outputs)]

    def score(self, X, y):
        """Accuracy, 0 to 1."""
        predicted = must_have_some(self.predict(X))
        y = as_labels(y, len(predicted))
        if _sort_of(y) != _sort_of(self.classes_):
            raise ValueError(f"y: expected labels such as {self.classes_.tolist()[0]!r}; got {y.dtype}")
        return float(np.mean(predicted == y))

    def _describe(self):
        classes = self.classes_.tolist()
        if self.classes_.dtype.kind == "S":  # JSON has no bytes
            classes = [c.decode("latin-1") for c in classes]
        return super()._describe() | {"classes": classes, "classes_dtype": self.classes_.dtype.str}

    def _build_from(self, config):
        classes = config["classes"]
        if np.dtype(config["classes_dtype"]).kind == "S":
            classes = [c.encode("latin-1") for c in classes]
        return self.build(tuple(config["input_shape"]), np.array(classes, config["classes_dtype"]))


class Regressor(Model):
    """Base of models that predict quantities; trained by squared error on targets that are scaled to mean 0 and spread 1.

    Attributes
    ----------
    module_ : Module
        The network.
    mean_, spread_ : float32 array [K]
        Of the training targets; what the network gives is scaled back by them.
    history_ : dict
        What the last `fit` recorded; losses are those of the scaled targets.
    """

    _fitted = ("module_", "input_shape_", "mean_", "spread_", "single_")
    _own = ("loss", "metrics")
    _loss = "mse"

    def _quantities(self, y, n, name="y"):
        """float64 [N,K] of targets [N] or [N,K]."""
        y = array_of(y, name, "cpu")
        if y.dtype.kind not in REAL:
            raise TypeError(f"{name}: expected an array of real numbers; got {y.dtype}")
        if y.ndim not in (1, 2) or len(y) != n or 0 in y.shape[1:]:
            raise ValueError(f"{name}: expected shape [{n}] or [{n},K], a target for each sample; got {list(y.shape)}")
        y = y.astype(np.float64).reshape(n, -1)
        if not np.isfinite(y).all():
            raise ValueError(f"{name}: expected finite numbers; got {y[~np.isfinite(y)][0]}")
        return y

    def _targets(self, y, n, name="y"):
        y = self._quantities(y, n, name)
        if y.shape[1] != len(self.mean_):
            raise ValueError(f"{name}: expected {len(self.mean_)} targets a sample; got {y.shape[1]}")
        return ((y - self.mean_) / self.spread_).astype(np.float32)

    @unless_begun
    def build(self, input_shape, outputs=1, mean=0.0, spread=1.0):
        """Make the network with initial weights.

        Parameters
        ----------
        input_shape : tuple of int
            Of one sample.
        outputs : int
            K, targets a sample.
        mean, spread : float or array [K]
            Of the targets.

        Returns
        -------
        The model itself.
        """
        outputs = positive("outputs", outputs)
        self.input_shape_, self.single_ = shape_of(input_shape), outputs == 1
        self.mean_, self.spread_ = check_scale(mean, spread, outputs)
        self.module_ = self._make(self.input_shape_, outputs).build(self.input_shape_, self.seed).eval()
        self.module_.to(self._device)
        return self

    @unless_begun
    def fit(
        self,
        X,
        y,
        *,
        epochs=10,
        batch_size=64,
        validation=None,
        optimizer="adam",
        lr=None,
        weight_decay=None,
        clip=None,
        loss="mse",
        warm_start=False,
        **options,
    ):
        """Train the network on samples with targets.

        Parameters
        ----------
        X : array [N,...]
            As in `Classifier.fit`.
        y : array [N] or [N,K]
            Finite numbers.
        validation : (X, y) or float, optional
        loss : {'mse', 'mae', 'huber'}
        epochs, batch_size, optimizer, lr, weight_decay, clip, warm_start, **options
            As in `Classifier.fit`; the metric that validation records is `val_r2`.

        Returns
        -------
        The model itself; `history_` holds the curves.

        Raises
        ------
        ValueError, TypeError
            The message names the argument.
        FloatingPointError
            The loss became infinite or NaN; the message says where.
        """
        if loss not in ("mse", "mae", "huber"):
            raise ValueError(f"loss: expected 'mse', 'mae' or 'huber'; got {loss!r}")
        train.must_take(options, self._own)
        x = self._begin(X, warm_start)
        if not hasattr(self, "module_"):
            targets = self._quantities(y, len(x))
            # What is only judged later says nothing of the scale.
            known = targets[self._shares(len(x), validation)[0]] if isinstance(validation, Real) else targets
            self.build(x.shape[1:], targets.shape[1], *scale_of(known))
            self.single_ = np.ndim(y) == 1
        x, targets, validation = self._split(x, self._targets(y, len(x)), validation)
        options["checkpoint"] = self._checkpoint(options.get("checkpoint"), options.get("resume"))
        given = {"lr": lr, "weight_decay": weight_decay, "clip": clip}
        self.history_ = train.fit(
            self.module_,
            x,
            targets,
            loss=loss,
            optimizer=optim.get(optimizer, self.module_, **{k: v for k, v in given.items() if v is not None}),
            epochs=epochs,
            batch_size=batch_size,
            validation=validation,
            metrics={"r2": train.r2},
            **{"seed": self.seed} | options,
        )
        return self

    def predict(self, X):
        """The targets, float64 [N] or [N,K], as y was given."""
        self._need_fit()
        out = backend.to_host(train.predict(self.module_, self._input(X))).astype(np.float64) * self.spread_ + self.mean_
        return out[:, 0] if self.single_ else out

    def score(self, X, y):
        """Coefficient of determination R^2, mean over the targets: 1 is perfect, 0 no better than the mean."""
        predicted = must_have_some(self.predict(X))
        targets = self._quantities(y, len(predicted))
        if targets.shape[1] != len(self.mean_):
            raise ValueError(f"y: expected {len(self.mean_)} targets a sample; got {targets.shape[1]}")
        return train.r2(predicted.reshape(len(predicted), -1), targets)

    def _describe(self):
        scale = {"mean": self.mean_.tolist(), "spread": self.spread_.tolist(), "single": bool(self.single_)}
        return super()._describe() | scale

    def _build_from(self, config):
        self.build(tuple(config["input_shape"]), len(config["mean"]), config["mean"], config["spread"])
        self.single_ = config["single"]
        return self


def check_scale(mean, spread, count):
    """Means and spreads of so many columns, float64 [count], of one number for all or one for each."""
    found = [reals(name, value) for name, value in (("mean", mean), ("spread", spread))]
    for name, a in zip(("mean", "spread"), found, strict=True):
        if not np.isfinite(a).all():
            raise ValueError(f"{name}: expected finite numbers; got {a[~np.isfinite(a)].flat[0]}")
        if a.shape not in ((), (count,)):
            raise ValueError(f"{name}: expected a number or shape [{count}]; got {list(a.shape)}")
    if not np.all(found[1] > 0.0):
        raise ValueError(f"spread: expected more than 0; got {spread}")
    return [np.broadcast_to(a, count).copy() for a in found]


_RECIPES = f"{__package__.rpartition('.')[0]}.recipes."


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


_UNTOLD = ("callbacks", "show", "checkpoint", "resume")


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


def _sort_of(labels):
    """Strings, bytes or numbers: NumPy compares those of one sort only, and calls all others unequal."""
    return labels.dtype.kind if labels.dtype.kind in "US" else "numbers"


def _place_of(network):
    """Where a recipe defines this network, as a file can say it; None for other functions."""
    module, name = getattr(network, "__module__", None) or "", getattr(network, "__qualname__", "")
    known = module.startswith(_RECIPES) and getattr(sys.modules.get(module), name, None) is network
    return f"{module}.{name}" if known else None


def _network_at(place):
    """The network of a recipe that a file names. Nothing but a recipe's network is ever called for a file."""
    module, _, name = str(place).rpartition(".")
    if not module.startswith(_RECIPES) or not module.removeprefix(_RECIPES).isidentifier():
        raise ValueError(f"function: expected a network of a recipe; got {place!r}")
    try:
        network = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ValueError(f"function: expected a network of a recipe; got {place!r}, which is not there") from None
    if not (name.endswith("network") or (isinstance(network, type) and issubclass(network, Module))):
        raise ValueError(f"function: expected a network of a recipe; got {place!r}")
    return network


def _shown(value):
    """A function by its name: where it lies in memory would make every run's settings differ."""
    return getattr(value, "__name__", type(value).__name__) if callable(value) else repr(value)
