"""Recurrent networks over rows that are sequences."""

from .. import models
from ._base import NetworkClassifier, NetworkRegressor, choice, number, whole
from ._networks import documented


class _Recurrent:
    def __init__(
        self,
        n_steps=None,
        *,
        units=32,
        cell="lstm",
        layers=1,
        bidirectional=False,
        dropout=0.0,
        solver="adam",
        alpha=0.0,
        batch_size=64,
        learning_rate="constant",
        learning_rate_init=0.01,
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
        self.n_steps = n_steps
        self.units = units
        self.cell = cell
        self.layers = layers
        self.bidirectional = bidirectional
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
        return self._model(
            units=whole("units", self.units),
            cell=choice("cell", self.cell, ("lstm", "gru", "rnn")),
            layers=whole("layers", self.layers),
            bidirectional=bool(self.bidirectional),
            dropout=number("dropout", self.dropout, 0.0, 0.999),
            seed=seed,
        )

    def _shape(self, features):
        steps = features if self.n_steps is None else whole("n_steps", self.n_steps)
        if features % steps:
            raise ValueError(f"n_steps: expected a divisor of {features}, the number of columns of X; got {steps}")
        return steps, features // steps

    def _view(self, rows):
        return rows.reshape(len(rows), *self._shape(rows.shape[1]))


@documented
class RNNClassifier(_Recurrent, NetworkClassifier):
    """Recurrent network for classes of sequences, with scikit-learn's interface; see `fastdl.models.RNNClassifier`.

    Parameters
    ----------
    n_steps : int, optional
        A row of X is so many steps, one after another, of equally many values. None: one value a step.
    units : int
    cell : {'lstm', 'gru', 'rnn'}
    layers : int
    bidirectional : bool
    dropout : float
    {training}

    {fitted}
    """

    _model = models.RNNClassifier


@documented
class RNNRegressor(_Recurrent, NetworkRegressor):
    """Recurrent network for quantities of sequences, with scikit-learn's interface; see `fastdl.models.RNNRegressor`.

    Parameters
    ----------
    n_steps : int, optional
        As in `RNNClassifier`.
    units : int
    cell : {'lstm', 'gru', 'rnn'}
    layers : int
    bidirectional : bool
    dropout : float
    {training}

    {fitted}
    """

    _model = models.RNNRegressor
