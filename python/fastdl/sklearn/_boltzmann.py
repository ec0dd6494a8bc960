"""Boltzmann machines: features for pipelines, and a classifier that begins with them."""

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .. import models
from .._interrupts import unless_begun
from ._base import Estimator, NetworkClassifier, choice, number, whole
from ._networks import documented


class _Units:
    """What the visible units are, and rows as they take them."""

    def _choose_units(self, rows):
        kind = choice("visible", self.visible, ("auto", "bernoulli", "gaussian"))
        if kind == "auto":
            inside = rows.dtype == np.uint8 or (rows.min() >= 0 and rows.max() <= 1)
            kind = "bernoulli" if inside else "gaussian"
        if kind == "gaussian":
            values = rows.astype(np.float64) / (255.0 if rows.dtype == np.uint8 else 1.0)
            spread = values.std(0)
            self._middle, self._spread = values.mean(0), np.where(spread > 1e-6 * np.abs(values).max(), spread, 1.0)
        self.visible_ = kind
        return kind

    def _view(self, rows):
        """Gaussian units see every column with mean 0 and spread 1."""
        if self.visible_ == "bernoulli":
            return rows
        values = rows.astype(np.float64) / (255.0 if rows.dtype == np.uint8 else 1.0)
        return ((values - self._middle) / self._spread).astype(np.float32)


def _pseudo_likelihood(machine):
    """Whether the units are such that `score_samples` can say something."""
    kind = getattr(machine, "visible_", machine.visible)
    if kind == "gaussian":
        raise AttributeError("score_samples: expected Bernoulli visible units; got Gaussian ones (free_energy takes both)")
    return True


class RBM(_Units, ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Restricted Boltzmann machine as a transformer, with the parameters of BernoulliRBM; see `fastdl.models.RBM`.

    Parameters
    ----------
    n_components : int
        Hidden units.
    learning_rate : float
    batch_size, n_iter : int
    algorithm : {'pcd', 'cd', 'fpcd', 'tempering'}
    k : int
        Steps of Gibbs sampling for an update.
    visible : {'auto', 'bernoulli', 'gaussian'}
        'auto': Bernoulli where all of X is in [0,1], else Gaussian units that see every column with mean 0 and spread 1.
        Bernoulli units learn from values in [0,1] alone; rows to judge later (`transform`, `score_samples`, `free_energy`) are
        clipped to that range, as a scaler fitted to other rows may go a little beyond.
    random_state : int, RandomState or None

    Attributes
    ----------
    model_ : fastdl.models.RBM
        With `sample`, `impute`, `anneal`, ...
    visible_, n_iter_, n_features_in_, feature_names_in_

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.sklearn import RBM
    >>> X = (np.random.default_rng(0).random((100, 6)) > 0.5).astype(float)
    >>> RBM(n_components=4, random_state=0).fit_transform(X).shape
    (100, 4)
    """

    def __init__(
        self,
        n_components=256,
        *,
        learning_rate=None,
        batch_size=10,
        n_iter=10,
        algorithm="pcd",
        k=1,
        visible="auto",
        random_state=None,
    ):
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.algorithm = algorithm
        self.k = k
        self.visible = visible
        self.random_state = random_state

    def _rate(self):
        if self.learning_rate is None:
            return 0.05 if self.visible_ == "bernoulli" else 0.001
        return number("learning_rate", self.learning_rate, open_ends=True)

    def _begin(self, rows):
        kind = self._choose_units(rows)
        model = models.RBM(whole("n_components", self.n_components), visible=kind, seed=self._draw_seed())
        choice("algorithm", self.algorithm, ("pcd", "cd", "fpcd", "tempering"))
        return model

    @unless_begun
    def fit(self, X, y=None):
        """Learn the distribution of X [N, n_features]; y is ignored. Returns the estimator."""
        rows = self._rows(X, reset=True)
        model, n_iter = self._begin(rows), whole("n_iter", self.n_iter)
        model.fit(
            self._view(rows),
            epochs=n_iter,
            batch_size=min(whole("batch_size", self.batch_size), len(rows)),
            algorithm=self.algorithm,
            k=whole("k", self.k),
            lr=self._rate(),
        )
        self.model_, self.n_iter_ = model, n_iter
        return self

    @unless_begun
    def partial_fit(self, X, y=None):
        """One update from the rows of X; y is ignored."""
        first = not hasattr(self, "model_")
        rows = self._rows(X, reset=first)
        if first:
            self.model_, self.n_iter_ = self._begin(rows), 0
        self.model_.partial_fit(self._view(rows), algorithm=self.algorithm, k=whole("k", self.k), lr=self._rate())
        self.n_iter_ += 1
        return self

    def transform(self, X):
        """Probabilities of the hidden units, float64 [N, n_components]."""
        v = self._to_judge(X)  # first of all: it says that nothing was fitted
        return self.model_.transform(v).astype(np.float64)

    def _to_judge(self, X):
        """Rows as the visible units take them, those of Bernoulli units clipped to [0,1]."""
        v = self._view(self._rows_to_judge(X))
        return v if self.visible_ == "gaussian" or v.dtype == np.uint8 else np.clip(v, 0.0, 1.0)

    def inverse_transform(self, X):
        """Means of the visible units, float64 [N, n_features], from hidden ones."""
        check_is_fitted(self, "model_")
        h = self._codes_to_restore(X, self.model_.hidden)
        v = self.model_.inverse_transform(h).astype(np.float64)
        return v if self.visible_ == "bernoulli" else v * self._spread + self._middle

    @available_if(_pseudo_likelihood)
    def score_samples(self, X):
        """Pseudo-likelihood of each row in nats, float64 [N], as BernoulliRBM's: one unit of each row is tried the other way.

        Bernoulli visible units only. Which unit it is depends on the place of the row alone: the same X gets the same figures.
        """
        v = self._to_judge(X)
        return self.model_.pseudo_likelihood(v)

    def free_energy(self, X):
        """Minus the logarithm of each row's probability, up to a constant, float64 [N]."""
        v = self._to_judge(X)
        return self.model_.free_energy(v).astype(np.float64)

    @property
    def _n_features_out(self):
        return self.n_components


@documented
class DBNClassifier(_Units, NetworkClassifier):
    """Deep belief network: machines learn layer by layer without labels, then all is trained as a classifier.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
    pretrain_iter : int
        Passes of each machine.
    pretrain_learning_rate : float, optional
        0.05, for Gaussian visible units 0.001, if left out.
    visible : {'auto', 'bernoulli', 'gaussian'}
        As in `RBM`.
    dropout : float
    {training}

    {fitted}
    """

    _model = models.DBN

    def __init__(
        self,
        hidden_layer_sizes=(256, 256),
        *,
        pretrain_iter=10,
        pretrain_learning_rate=None,
        visible="auto",
        dropout=0.0,
        solver="adam",
        alpha=0.0001,
        batch_size=64,
        learning_rate="constant",
        learning_rate_init=0.002,
        power_t=0.5,
        max_iter=100,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.pretrain_iter = pretrain_iter
        self.pretrain_learning_rate = pretrain_learning_rate
        self.visible = visible
        self.dropout = dropout
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change

    def _make_model(self, seed):
        sizes = self.hidden_layer_sizes
        sizes = tuple(sizes) if hasattr(sizes, "__iter__") else (sizes,)
        return models.DBN(
            tuple(whole("hidden_layer_sizes", n) for n in sizes),
            dropout=number("dropout", self.dropout, 0.0, 0.999),
            seed=seed,
        )

    def _build(self, model, rows, codes):
        model.visible = self._choose_units(rows)
        rate = self.pretrain_learning_rate
        model.pretrain(
            self._view(rows),
            epochs=whole("pretrain_iter", self.pretrain_iter),
            lr=None if rate is None else number("pretrain_learning_rate", rate, open_ends=True),
            batch_size=self._batch(len(rows)),
        )
        super()._build(model, rows, codes)
