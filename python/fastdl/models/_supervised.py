"""What models with targets share: classes or quantities on the way in and out, fitting."""

from numbers import Real

import numpy as np

from .. import backend, optim, train
from .._arguments import chance, positive
from .._interrupts import unless_begun
from ..tensor import inference
from ._base import Model
from ._door import REAL, array_of, as_labels, check_scale, must_have_some, numbers_of, scale_of, sort_of


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
        if sort_of(y) != sort_of(self.classes_):
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
        if isinstance(classes, (int, np.integer)) and not isinstance(classes, bool):
            labels = np.arange(classes)
        elif isinstance(classes, str) or not hasattr(classes, "__len__"):
            raise TypeError(f"classes: expected a number of classes, or labels; got {type(classes).__name__}")
        else:
            labels = np.unique(as_labels(classes, len(classes), "classes"))
        if len(labels) < 2:
            raise ValueError(f"classes: expected two or more; got {len(labels)}")
        self.classes_, self.input_shape_ = labels, self._sample_shape(input_shape)
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
        if np.isnan(outputs).any():
            unknown = np.isnan(outputs).any(1)
            raise ValueError(
                f"X: expected samples for which the network gives numbers; got NaN for {unknown.sum()} of {len(outputs)}, the "
                f"first at {int(np.argmax(unknown))}"
            )
        return self.classes_[train.argmax(outputs)]

    def score(self, X, y):
        """Accuracy, 0 to 1."""
        predicted = must_have_some(self.predict(X))
        y = as_labels(y, len(predicted))
        if sort_of(y) != sort_of(self.classes_):
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
        if y.dtype.kind == "O":
            y = numbers_of(y, name)
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
        self.input_shape_, self.single_ = self._sample_shape(input_shape), outputs == 1
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
