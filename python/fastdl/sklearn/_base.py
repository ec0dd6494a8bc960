"""What the estimators share: scikit-learn's conventions around a model of `fastdl.models`."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import optim, schedules, train
from .._interrupts import unless_begun
from ..models._door import must_be_on_scale, scale_name, scale_of

ACTIVATIONS = {
    "identity": "none",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "gelu": "gelu",
}
_BELOW_1 = np.nextafter(1.0, 0.0)
_RULE = ("solver", "alpha", "momentum", "nesterovs_momentum", "beta_1", "beta_2", "epsilon")
SOLVERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad")


def choice(name, value, known):
    """`value`, which must be one of the known ones."""
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}; got {value!r}")
    return value


def whole(name, value, least=1):
    """`value`, which must be a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}; got {value!r}")
    return int(value)


def number(name, value, low=0.0, high=np.inf, open_ends=False):
    """`value`, which must be a number in that range."""
    fits = isinstance(value, Real) and (low < value < high if open_ends else low <= value <= high)
    if not fits:
        span = f"more than {low:g}" if high == np.inf and open_ends else f"{low:g} to {high:g}"
        raise ValueError(f"{name}: expected a number of {span}; got {value!r}")
    return float(value)


def must_have_no_mask(name, a):
    """scikit-learn takes what lies below a mask for data."""
    if np.ma.is_masked(a):
        raise TypeError(f"{name}: expected an array without masked elements; got a masked array (its filled() makes one)")


def places_of(y, classes):
    """Places of labels in sorted classes; those of any other kind than classes are none of them."""
    try:
        return np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    except TypeError:
        raise TypeError(f"y: expected labels from {classes.tolist()}; got some of another kind") from None


def sorted_labels(name, labels):
    """The labels that there are, each once."""
    try:
        return np.unique(labels)
    except TypeError:
        kinds = sorted({type(v).__name__ for v in np.asarray(labels).tolist()})
        raise TypeError(f"{name}: expected labels of one kind; got {', '.join(kinds)}") from None


class Estimator(BaseEstimator):
    """Checks of X, the seed, and where a fitted estimator keeps its model."""

    def _rows(self, X, reset=False):
        """X [N, n_features] as float32, or uint8 (which networks read as values in [0,1])."""
        must_have_no_mask("X", X)
        X = validate_data(self, X, reset=reset, dtype=(np.float64, np.float32, np.uint8), order="C")
        if X.dtype == np.float64:
            with np.errstate(over="ignore"):
                X = X.astype(np.float32)
            if not np.isfinite(X).all():
                raise ValueError("X: expected numbers within float32's range, up to 3.4e38; got a larger one")
        if reset:
            self._scale = scale_name(X)
        else:
            must_be_on_scale(X, getattr(self, "_scale", None))
        return X

    def _rows_to_judge(self, X):
        check_is_fitted(self, "model_")
        return self._rows(X)

    def _codes_to_restore(self, X, count):
        """What `transform` gave, or would have, as float32 [N,count]."""
        must_have_no_mask("X", X)
        X = check_array(X, dtype=np.float64, input_name="X")
        if X.shape[1] != count:
            raise ValueError(f"X: expected {count} columns, as transform gives; got {X.shape[1]}")
        return X.astype(np.float32)

    def _draw_seed(self):
        try:
            stream = check_random_state(self.random_state)
        except (TypeError, ValueError):
            wanted = f"an integer from 0 to {2**32 - 1}, a RandomState or None"
            raise ValueError(f"random_state: expected {wanted}; got {self.random_state!r}") from None
        return int(stream.randint(np.iinfo(np.int32).max))


class NetworkEstimator(Estimator):
    """A network trained by batches. A family makes its model (`_make_model`) and says what y is (`_targets`)."""

    def _make_model(self, seed):
        """A model of `fastdl.models`, not built."""
        raise NotImplementedError

    def _shape(self, features):
        """Shape of one sample as the model is built for."""
        return (features,)

    def _view(self, rows):
        """Rows as samples of that shape."""
        return rows

    # ------------------------------------------------------------------------------------------------- training

    @unless_begun
    def fit(self, X, y):
        """Train on X [N, n_features] and y; returns the estimator.

        What an earlier fit has learned is forgotten, unless `warm_start`.
        """
        going_on = self.warm_start and hasattr(self, "model_")
        rows, y = self._checked(X, y, reset=not going_on)
        seed = self._seed + self._calls if going_on else self._draw_seed()
        epochs = whole("max_iter", self.max_iter)
        patience = whole("n_iter_no_change", self.n_iter_no_change)
        tol = number("tol", self.tol)
        held = None
        if self.early_stopping:
            share = number("validation_fraction", self.validation_fraction, 0.0, 1.0, open_ends=True)
            rows, held_rows, y, held_y = train_test_split(
                rows, y, test_size=share, random_state=seed, stratify=self._strata(y)
            )
            held = held_rows, held_y
        if not going_on:
            self._begin(rows, y, seed)
        history = self._train(rows, y, held, epochs, patience=patience, min_delta=tol, restore_best=held is not None)
        done = len(history["epoch"])
        self.n_iter_ = done
        self.loss_curve_ = list(history["loss"])
        if held is not None:
            self.validation_scores_ = list(history[f"val_{self._metric}"])
            self.best_validation_score_ = max(self.validation_scores_)
        self._finish()
        if history["stopped"] == "done":
            warnings.warn(
                f"max_iter: {epochs} passes over the data are done, and the loss still falls", ConvergenceWarning, stacklevel=3
            )
        return self

    def _continue(self, rows, y):
        """One pass over the data, as `partial_fit` wants it."""
        history = self._train(rows, y, None, 1)
        self.n_iter_ = getattr(self, "n_iter_", 0) + 1
        self.loss_curve_ = [*getattr(self, "loss_curve_", ()), *history["loss"]]
        self._finish()
        return self

    def _finish(self):
        self.loss_, self.best_loss_ = self.loss_curve_[-1], min(self.loss_curve_)

    def _begin(self, rows, y, seed):
        """A new network and its optimiser."""
        for name in ("n_iter_", "loss_curve_", "validation_scores_", "best_validation_score_"):
            self.__dict__.pop(name, None)
        made = self._optimizer_of(len(rows))
        model = self._make_model(seed)
        self._build(model, rows, y)  # last of all: it may train
        self._optimizer, self._made = made(model.module_), self._update_rule()
        self._seed, self._calls, self.t_ = seed, 0, 0
        self.model_ = model

    def _update_rule(self):
        """What an optimiser is made with, but for the learning rate."""
        return [getattr(self, name) for name in _RULE]

    def _optimizer_of(self, n):
        """What makes a module's optimiser, for batches out of n rows."""
        options = {"lr": number("learning_rate_init", self.learning_rate_init, open_ends=True)}
        # The penalty alpha/2 |w|^2 is for the whole batch, the loss for one sample.
        options["weight_decay"] = number("alpha", self.alpha) / self._batch(n)
        solver = choice("solver", self.solver, SOLVERS)
        if solver == "sgd":
            options["momentum"] = number("momentum", self.momentum, 0.0, _BELOW_1)
            options["nesterov"] = bool(self.nesterovs_momentum) and options["momentum"] > 0
        elif solver in ("adam", "adamw"):
            options["beta1"] = number("beta_1", self.beta_1, 0.0, _BELOW_1)
            options["beta2"] = number("beta_2", self.beta_2, 0.0, _BELOW_1)
            options["eps"] = number("epsilon", self.epsilon, open_ends=True)
        return lambda module: optim.get(solver, module, **options)

    def _retune(self, n):
        """Parameters that were set since the last call count: a new learning rate at once, with a new rule it begins anew."""
        made, rule = self._optimizer_of(n), self._update_rule()
        if rule != getattr(self, "_made", rule):
            self._optimizer, self._made = made(self.model_.module_), rule
        self._optimizer.lr = float(self.learning_rate_init)

    def _batch(self, n):
        return min(200, n) if self.batch_size == "auto" else min(whole("batch_size", self.batch_size), n)

    def _train(self, rows, y, held, epochs, **options):
        self._retune(len(rows))
        plan = choice("learning_rate", self.learning_rate, ("constant", "cosine", "adaptive", "invscaling"))
        if plan == "cosine":
            options["schedule"] = schedules.cosine()
        elif plan == "adaptive":
            patience = whole("n_iter_no_change", self.n_iter_no_change)
            options["schedule"] = schedules.plateau(0.2, max(patience // 2, 1), number("tol", self.tol))
        elif plan == "invscaling":
            options["schedule"] = self._inverse_scaling(len(rows))
        if held is not None:
            options |= {
                "validation": (self.model_._input(self._view(held[0])), self._goal(held[1])),
                "metrics": {self._metric: train.accuracy if self._metric == "accuracy" else train.r2},
                "watch": f"val_{self._metric}",
            }
        callbacks = [_say] if self.verbose else []
        self._calls += 1
        history = train.fit(
            self.model_.module_,
            self.model_._input(self._view(rows)),
            self._goal(y),
            loss=self.model_._loss,
            optimizer=self._optimizer,
            epochs=epochs,
            batch_size=self._batch(len(rows)),
            shuffle=bool(self.shuffle),
            seed=self._seed + self._calls,
            callbacks=callbacks,
            **options,
        )
        self.t_ += len(rows) * len(history["epoch"])
        return history

    def _inverse_scaling(self, n):
        """(samples before + 1)^-power_t; like scikit-learn's it takes notice of samples when a pass over them is done."""
        power, before, updates = number("power_t", self.power_t), self.t_, -(-n // self._batch(n))
        return lambda step, total: (before + step // updates * n + 1) ** -power

    def _outputs(self, X):
        """What the network gives, float64 [N, outputs]: a row does not depend on the others."""
        rows = self._rows_to_judge(X)
        return train.predict(self.model_.module_, self.model_._input(self._view(rows))).astype(np.float64)


def _say(state):
    print(f"Iteration {state.epoch}, loss = {state.history['loss'][-1]:.8f}", flush=True)


class NetworkClassifier(ClassifierMixin, NetworkEstimator):
    """Labels of any kind in front of a network's classes."""

    _metric = "accuracy"

    def _checked(self, X, y, reset, classes=None):
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None: y: expected labels; got None")
        rows = self._rows(X, reset)
        must_have_no_mask("y", y)
        y = column_or_1d(y, warn=True)
        known = sorted_labels("y", y)
        check_classification_targets(y)
        if len(y) != len(rows):
            raise ValueError(f"y: expected {len(rows)} labels, as many as rows in X; got {len(y)} (inconsistent lengths)")
        if reset:
            self.classes_ = known if classes is None else sorted_labels("classes", column_or_1d(classes))
            if len(self.classes_) < 2:
                raise ValueError("y: expected two classes or more; got 1 class")
        codes = places_of(y, self.classes_)
        if np.any(self.classes_[codes] != y):
            strange = np.asarray(y)[self.classes_[codes] != y].tolist()[0]
            raise ValueError(f"y: expected labels from {self.classes_.tolist()}; got {strange!r}")
        return rows, codes.astype(np.int64)

    def _strata(self, codes):
        return codes

    def _build(self, model, rows, codes):
        model.build(self._shape(rows.shape[1]), len(self.classes_))

    def _goal(self, codes):
        return codes

    @unless_begun
    def partial_fit(self, X, y, classes=None):
        """One pass over X [N, n_features] and y, going on from what was learned before.

        Parameters
        ----------
        X : array [N, n_features]
        y : array [N]
        classes : array, optional
            All labels that will ever come; needed at the first call.

        Returns
        -------
        The estimator itself.
        """
        first = not hasattr(self, "model_")
        if first and classes is None:
            raise ValueError("classes: expected all labels that will come, at the first call of partial_fit; got None")
        if not first and classes is not None and not np.array_equal(sorted_labels("classes", classes), self.classes_):
            raise ValueError(f"classes: expected {self.classes_.tolist()}, as at the first call; got {list(classes)}")
        rows, codes = self._checked(X, y, first, classes)
        if first:
            self._begin(rows, codes, self._draw_seed())
        return self._continue(rows, codes)

    def predict_log_proba(self, X):
        """Logarithm of `predict_proba`, float64 [N, n_classes]."""
        z = self._outputs(X)
        z -= z.max(1, keepdims=True)
        return z - np.log(np.exp(z).sum(1, keepdims=True))

    def predict_proba(self, X):
        """Probability of each class, float64 [N, n_classes]; columns in the order of `classes_`."""
        z = self._outputs(X)
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def predict(self, X):
        """The most probable label of each row, [N]."""
        outputs = self._outputs(X)  # before classes_ is read: it says that nothing was fitted
        return self.classes_[outputs.argmax(1)]


class NetworkRegressor(RegressorMixin, NetworkEstimator):
    """Quantities, one or several a row; the network sees them with mean 0 and spread 1."""

    _metric = "r2"

    def _checked(self, X, y, reset, classes=None):
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None: y: expected numbers; got None")
        rows = self._rows(X, reset)
        must_have_no_mask("y", y)
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if y.dtype.kind == "O":
            y = y.astype(np.float64)
        if y.shape[:1] != (len(rows),):
            raise ValueError(f"y: expected {len(rows)} targets, as many as rows in X; got shape {list(y.shape)} (inconsistent)")
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise ValueError(f"y: expected finite numbers; got {'NaN' if np.isnan(y).any() else 'infinity (inf)'}")
        return rows, y

    def _strata(self, y):
        return None

    def _build(self, model, rows, y):
        table = model._quantities(y, len(y))
        model.build(self._shape(rows.shape[1]), table.shape[1], *scale_of(table))
        model.single_ = y.ndim == 1

    def _goal(self, y):
        return self.model_._targets(y, len(y))

    @unless_begun
    def partial_fit(self, X, y):
        """One pass over X [N, n_features] and y [N] or [N,K], going on from what was learned before.

        The first call's mean and spread of y are kept for the scale of all later ones.
        """
        first = not hasattr(self, "model_")
        rows, y = self._checked(X, y, first)
        if first:
            self._begin(rows, y, self._draw_seed())
        return self._continue(rows, y)

    def predict(self, X):
        """The targets, float64 [N] or [N,K]."""
        outputs = self._outputs(X)
        y = outputs * self.model_.spread_ + self.model_.mean_
        return y[:, 0] if self.model_.single_ else y

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags
