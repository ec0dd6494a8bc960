"""Networks that learn what data look like, as transformers."""

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .. import models, optim
from .._interrupts import unless_begun
from ._base import ACTIVATIONS, Estimator, choice, number, whole


class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Codes from which rows can be restored, with scikit-learn's interface; see `fastdl.models.Autoencoder`.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Of the encoder; the decoder has them in reverse.
    n_components : int
        Numbers of a code.
    activation : {'relu', 'identity', 'logistic', 'tanh', 'leaky_relu', 'gelu'}
    output : {'none', 'sigmoid'}
        'sigmoid' for values in [0,1].
    tied : bool
        The decoder uses the encoder's weights.
    noise, noise_level : {None, 'gaussian', 'mask', 'salt'}, float
        Corruption that it learns to undo.
    variational : bool
    batch_size, learning_rate_init, max_iter, random_state
        As in `MLPClassifier`; all passes are made.

    Attributes
    ----------
    model_ : fastdl.models.Autoencoder
    loss_curve_, n_iter_
        Error of every pass; their number, those of `partial_fit` included.
    n_features_in_, feature_names_in_

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.sklearn import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(200, 3)) @ np.ones((3, 8))
    >>> Autoencoder((16,), n_components=2, random_state=0).fit_transform(X).shape
    (200, 2)
    """

    def __init__(
        self,
        hidden_layer_sizes=(64,),
        n_components=16,
        *,
        activation="relu",
        output="none",
        tied=False,
        noise=None,
        noise_level=0.3,
        variational=False,
        batch_size=64,
        learning_rate_init=0.002,
        max_iter=50,
        random_state=None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_components = n_components
        self.activation = activation
        self.output = output
        self.tied = tied
        self.noise = noise
        self.noise_level = noise_level
        self.variational = variational
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.random_state = random_state

    @unless_begun
    def fit(self, X, y=None):
        """Learn codes of X [N, n_features]; y is ignored. Returns the estimator."""
        rows, epochs = self._rows(X, reset=True), whole("max_iter", self.max_iter)
        self._make(rows.shape[1])
        return self._continue(rows, epochs)

    @unless_begun
    def partial_fit(self, X, y=None):
        """One pass over X [N, n_features], going on with weights and optimiser from before; y is ignored."""
        first = not hasattr(self, "model_")
        rows = self._rows(X, reset=first)
        if first:
            self._make(rows.shape[1])
        self._optimizer.lr = self._rate()
        return self._continue(rows, 1)

    def _rate(self):
        return number("learning_rate_init", self.learning_rate_init, open_ends=True)

    def _make(self, features):
        """A new network and its optimiser."""
        sizes = self.hidden_layer_sizes
        sizes = tuple(sizes) if hasattr(sizes, "__iter__") else (sizes,)
        model = models.Autoencoder(
            tuple(whole("hidden_layer_sizes", n) for n in sizes),
            whole("n_components", self.n_components),
            act=ACTIVATIONS[choice("activation", self.activation, tuple(ACTIVATIONS))],
            output=self.output,
            tied=bool(self.tied),
            noise=self.noise,
            noise_level=number("noise_level", self.noise_level),
            variational=bool(self.variational),
            seed=self._draw_seed(),
        ).build((features,))
        self._optimizer = optim.get("adam", model.module_, lr=self._rate())
        self.model_, self.loss_curve_, self.n_iter_ = model, [], 0

    def _continue(self, rows, epochs):
        self.model_.fit(
            rows,
            epochs=epochs,
            batch_size=min(whole("batch_size", self.batch_size), len(rows)),
            optimizer=lambda module: self._optimizer,
            seed=self.model_.seed + self.n_iter_,  # another order for every call
            warm_start=True,
        )
        self.loss_curve_ += self.model_.history_["loss"]
        self.n_iter_ = len(self.loss_curve_)
        return self

    def transform(self, X):
        """Codes, float64 [N, n_components]; of a variational code its mean."""
        rows = self._rows_to_judge(X)  # first of all: it says that nothing was fitted
        return self.model_.transform(rows).astype(np.float64)

    def inverse_transform(self, X):
        """Rows, float64 [N, n_features], from codes."""
        check_is_fitted(self, "model_")
        return self.model_.inverse_transform(self._codes_to_restore(X, self.model_.code)).astype(np.float64)

    def score_samples(self, X):
        """Minus the squared error of each row, float64 [N]: low for what is unlike the data."""
        rows = self._rows_to_judge(X)
        return np.asarray(self.model_.score_samples(rows), np.float64)

    def score(self, X, y=None):
        """Mean of `score_samples`."""
        return float(self.score_samples(X).mean())

    @property
    def _n_features_out(self):
        return self.n_components
