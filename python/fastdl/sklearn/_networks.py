"""Feedforward networks: dense layers, and convolutions over rows that are images."""

import math

from .. import models
from ._base import ACTIVATIONS, NetworkClassifier, NetworkRegressor, choice, number, whole

_TRAINING = """solver : {'adam', 'sgd', 'adamw', 'rmsprop', 'adagrad'}
        Without 'lbfgs', and so without its `max_fun`.
    alpha : float
        Strength of the L2 penalty, alpha/2 |w|^2 for a batch.
    batch_size : int or 'auto'
        'auto' is min(200, N).
    learning_rate : {'constant', 'cosine', 'adaptive', 'invscaling'}
        'cosine' falls to 0 within `max_iter`; 'adaptive' is divided by 5 where the loss stands still; 'invscaling' is, for
        every pass and any solver, ``learning_rate_init / (t_ + 1)^power_t``.
    learning_rate_init : float
    power_t : float
        Of 'invscaling'.
    max_iter : int
        At most so many passes over the data.
    shuffle : bool
    random_state : int, RandomState or None
    tol, n_iter_no_change : float, int
        Training ends when the loss (or the held-out score) has not improved by `tol` for so many passes.
    verbose, warm_start : bool
    momentum, nesterovs_momentum : float, bool
        Of 'sgd'.
    early_stopping, validation_fraction : bool, float
        Hold out that share, stop by its score and keep the weights of the best pass.
    beta_1, beta_2, epsilon : float
        Of 'adam' and 'adamw'."""

_FITTED = """Attributes
    ----------
    model_ : fastdl.models.{model}
        With `save`, `summary` and `module_`, the network.
    n_iter_, loss_, loss_curve_, best_loss_
        Passes done; the loss of the last; of all; the least.
    t_ : int
        Samples trained on, counted once a pass, in all fits that went on from one another.
    n_features_in_, feature_names_in_{classes}"""


def documented(cls):
    """Put the parameters that all networks share into the docstring."""
    fitted = _FITTED.format(model=cls._model.__name__, classes=", classes_" if "Classifier" in cls.__name__ else "")
    cls.__doc__ = cls.__doc__.replace("{training}", _TRAINING).replace("{fitted}", fitted)
    return cls


class _Dense:
    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
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
        dropout=0.0,
        norm=None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
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
        self.dropout = dropout
        self.norm = norm

    def _make_model(self, seed):
        sizes = self.hidden_layer_sizes
        sizes = tuple(sizes) if hasattr(sizes, "__iter__") else (sizes,)
        return self._model(
            hidden=tuple(whole("hidden_layer_sizes", n) for n in sizes),
            act=ACTIVATIONS[choice("activation", self.activation, tuple(ACTIVATIONS))],
            dropout=number("dropout", self.dropout, 0.0, 0.999),
            norm=choice("norm", self.norm, (None, "batch", "layer")),
            seed=seed,
        )


@documented
class MLPClassifier(_Dense, NetworkClassifier):
    """Multi-layer perceptron for classes, with scikit-learn's interface; see `fastdl.models.MLP`.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
    activation : {'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'gelu'}
    {training}
    dropout : float
        Chance of dropping a hidden unit's output while training.
    norm : {None, 'batch', 'layer'}

    {fitted}

    Examples
    --------
    >>> from fastdl.sklearn import MLPClassifier
    >>> X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], ["no", "yes", "yes", "no"]
    >>> net = MLPClassifier((16,), "tanh", learning_rate_init=0.05, max_iter=300, tol=0.0, random_state=0)
    >>> net.fit(X * 5, y * 5).predict(X).tolist()
    ['no', 'yes', 'yes', 'no']
    """

    _model = models.MLP


@documented
class MLPRegressor(_Dense, NetworkRegressor):
    """Multi-layer perceptron for quantities, with scikit-learn's interface; see `fastdl.models.MLPRegressor`.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
    activation : {'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'gelu'}
    {training}
    dropout : float
    norm : {None, 'batch', 'layer'}

    {fitted}
    """

    _model = models.MLPRegressor


class _Convolutional:
    def __init__(
        self,
        image_shape=None,
        *,
        architecture="small",
        width=16,
        dropout=0.0,
        solver="adam",
        alpha=0.0001,
        batch_size=64,
        learning_rate="constant",
        learning_rate_init=0.002,
        power_t=0.5,
        max_iter=40,
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
        self.image_shape = image_shape
        self.architecture = architecture
        self.width = width
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
        if self.architecture not in ("small", "lenet5") and not callable(self.architecture):
            raise ValueError(f"architecture: expected 'small', 'lenet5' or a function; got {self.architecture!r}")
        return self._model(
            self.architecture,
            width=whole("width", self.width),
            dropout=number("dropout", self.dropout, 0.0, 0.499),
            seed=seed,
        )

    def _shape(self, features):
        if self.image_shape is None:
            side = math.isqrt(features)
            return (side, side, 1) if side * side == features else (1, features, 1)
        sizes = tuple(self.image_shape) if hasattr(self.image_shape, "__iter__") else (self.image_shape,)
        if len(sizes) not in (2, 3) or any(not hasattr(s, "__index__") or s < 1 for s in sizes):
            raise ValueError(f"image_shape: expected (rows, columns) or (rows, columns, channels); got {self.image_shape!r}")
        if math.prod(sizes) != features:
            raise ValueError(f"image_shape: expected a shape of {features} values, as a row of X has; got {list(sizes)}")
        return (*sizes, 1)[:3]

    def _view(self, rows):
        return rows.reshape(len(rows), *self._shape(rows.shape[1]))


@documented
class CNNClassifier(_Convolutional, NetworkClassifier):
    """Convolutional network for classes of images, with scikit-learn's interface; see `fastdl.models.CNN`.

    Parameters
    ----------
    image_shape : (int, int) or (int, int, int), optional
        Rows, columns and channels behind a row of X. None: a square grey image where the number of columns is a square,
        else one line of pixels.
    architecture : {'small', 'lenet5'} or callable
    width : int
        Filters of the first block of 'small'.
    dropout : float
        Of 'small'.
    {training}

    {fitted}
    """

    _model = models.CNN


@documented
class CNNRegressor(_Convolutional, NetworkRegressor):
    """Convolutional network for quantities, with scikit-learn's interface; see `fastdl.models.CNNRegressor`.

    Parameters
    ----------
    image_shape : (int, int) or (int, int, int), optional
        As in `CNNClassifier`.
    architecture : {'small', 'lenet5'} or callable
    width : int
    dropout : float
    {training}

    {fitted}
    """

    _model = models.CNNRegressor
