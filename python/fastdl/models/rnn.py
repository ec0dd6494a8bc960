"""Recurrent networks over whole sequences: a class or quantities for each."""

import numpy as np

from .. import backend, nn
from .._arguments import chance, one_of, positive
from ..data.sequences import pad
from ..module import shape_of
from ..tensor import Tensor
from ._door import as_input, must_be_on_scale, must_have_some, scale_name
from ._supervised import Classifier, Regressor

_CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def recurrent(cell, units, **how):
    """A recurrent layer by the name of its cell."""
    return _CELLS[one_of("cell", cell, _CELLS)](units, **how)


def _ragged(X):
    """Whether X is a list of sequences rather than one array."""
    if isinstance(X, (list, tuple)):
        return True
    return getattr(getattr(X, "dtype", None), "kind", "") == "O" and len(X.shape) == 1


class Rows(nn.Module):
    """The front of a network over sequences that travel as rows: the steps of each end to end, then their number.

    It gives the steps [N,T,I] (by an embedding, where they are tokens) and the lengths. Steps without a row around them,
    [N,T,I] or tokens [N,T], count as T each.
    """

    def __init__(self, inputs=None, vocabulary=None, embedding=None):
        self.inputs = inputs
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, embedding)

    def forward(self, x):
        return self.unpack(x)[0]

    def unpack(self, x):
        """(steps, lengths or None)."""
        if self.embedding is not None:
            if isinstance(x, Tensor):  # of a network that is being traced
                return self.embedding(x.data.astype(np.int64)), None
            return self.embedding(x[:, :-1].copy()), x[:, -1].copy()
        if len(x.shape) == 3:
            return x, None
        k, n, steps = backend.kernels(x.data), x.shape[0], x.shape[1] - 1
        values = k.get_columns(x.data, 0, y=backend.empty((n, steps), x.data)).reshape(n, steps // self.inputs, self.inputs)
        counts = k.get_columns(x.data, steps, y=backend.empty((n, 1), x.data))
        lengths = np.rint(backend.to_host(counts).reshape(-1)).astype(np.int64)
        return Tensor(values), backend.to_device(lengths, x.data)


class Reader(nn.Module):
    """Rows, recurrent layers, and a dense layer on the last outputs of each sequence."""

    def __init__(self, rows, layers, outputs, dropout=0.0):
        self.rows, self.recurrent = rows, layers
        self.drop = nn.Dropout(dropout) if dropout else None
        self.head = nn.Dense(outputs)

    def forward(self, x):
        steps, lengths = self.rows.unpack(x)
        y = self.recurrent(steps, lengths)
        return self.head(y if self.drop is None else self.drop(y))


class _Sequences:
    """What the models over sequences share: their arguments and the door for X."""

    def __init__(self, units=64, cell="lstm", layers=1, bidirectional=False, dropout=0.0, vocabulary=None, embedding=32,
                 seed=0, chrono=None):  # fmt: skip
        one_of("cell", cell, _CELLS)
        if chrono is not None and (cell != "lstm" or positive("chrono", chrono) < 2):
            raise ValueError(f"chrono: expected at least 2 steps, for cell 'lstm'; got {chrono} for {cell!r}")
        self.units, self.layers = positive("units", units), positive("layers", layers)
        self.embedding, self.dropout = positive("embedding", embedding), chance("dropout", dropout)
        self.vocabulary = None if vocabulary is None else positive("vocabulary", vocabulary)
        self.chrono = None if chrono is None else positive("chrono", chrono)
        self.cell, self.bidirectional, self.seed = cell, bidirectional, seed

    def _make(self, input_shape, outputs):
        rows = Rows(None if self.vocabulary else input_shape[-1], self.vocabulary, self.embedding)
        how = {"layers": self.layers, "bidirectional": self.bidirectional, "dropout": self.dropout, "output": "last"}
        if self.chrono is not None:
            how["chrono"] = self.chrono
        return Reader(rows, recurrent(self.cell, self.units, **how), outputs, self.dropout)

    def _sample_shape(self, input_shape):
        """Shape of a sample as the network sees it."""
        shape = shape_of(input_shape)
        inputs = self.__dict__.pop("_inputs", None)
        if inputs is not None:  # of a fit, whose samples are rows: see Rows
            shape = ((shape[0] - 1) // inputs, inputs)[: 1 if self.vocabulary else 2]
        elif self.vocabulary is None and len(shape) == 1:
            shape = (shape[0], 1)
        return shape

    def _begin(self, X, warm_start):
        goes_on = warm_start and hasattr(self, "module_") and hasattr(self, "scale_")
        x = super()._begin(X, warm_start)
        if not goes_on:
            self.scale_ = self.__dict__.pop("_seen", "unit")  # of the steps themselves, not of rows with their lengths
        return x

    def _input(self, X, name="X"):
        return self._tokens(X, name) if self.vocabulary else self._steps(X, name)

    def _holds_none(self, X, name):
        """Whether X is an empty list, whose sequences have any shape."""
        none = (_ragged(X) or np.ndim(X) == 1) and len(X) == 0
        if none and not hasattr(self, "input_shape_"):
            must_have_some(X, name)
        return none

    def _steps(self, X, name):
        """Rows float32 [N, T I + 1] of a list of arrays [T_n,I] or of an array [N,T,I] in which NaN fills up.

        uint8 becomes values in [0,1]; the scale of a fit is remembered.
        """
        if self._holds_none(X, name):
            x, lengths, of_bytes = np.zeros((0, 0, self.input_shape_[-1]), np.float32), None, False
        elif _ragged(X):
            x, lengths = pad(X, name=name)
            kinds = {str(getattr(s, "dtype", type(s).__name__)).removeprefix("torch.") for s in X if len(s)}
            of_bytes = "uint8" in kinds
            if of_bytes and len(kinds) > 1:
                raise ValueError(
                    f"{name}: expected uint8, read as values from 0 to 1, in all sequences or in none; "
                    f"got {min(kinds - {'uint8'})} as well"
                )
            if not lengths.any() and hasattr(self, "input_shape_"):  # sequences of no steps have any width
                x = np.zeros((len(x), 0, self.input_shape_[-1]))
            x = x.astype(np.uint8 if of_bytes else np.float32, copy=False)
        else:
            x, lengths = backend.to_host(as_input(X, name)), None
            of_bytes = x.dtype == np.uint8
        given, x = x, x.astype(np.float32) / np.float32(255.0) if of_bytes else x
        if x.ndim == 2:
            x = x[:, :, None]
        if x.ndim != 3:
            raise ValueError(f"{name}: expected sequences [N,T] or [N,T,I], or a list of them; got shape {list(x.shape)}")
        if lengths is None:
            there = ~np.isnan(x).all(2) if x.shape[2] else np.ones(x.shape[:2], bool)
            # what follows the last step that holds anything
            lengths = x.shape[1] - np.argmax(there[:, ::-1], 1) if x.shape[1] else np.zeros(len(x), np.int64)
            lengths = np.where(there.any(1), lengths, 0)
        if hasattr(self, "input_shape_") and x.shape[2] != self.input_shape_[-1]:
            raise ValueError(
                f"{name}: expected {self.input_shape_[-1]} values a step, as the model was made for; got {x.shape[2]}"
            )
        if not hasattr(self, "input_shape_"):
            self._inputs = x.shape[2]
        x = np.where(np.arange(x.shape[1])[:, None] < lengths[:, None, None], x, np.float32(0.0))
        given = given if of_bytes else x
        must_be_on_scale(given, getattr(self, "scale_", None), name)
        if not hasattr(self, "scale_"):
            self._seen = scale_name(given, name)
        return np.concatenate([x.reshape(len(x), x.shape[1] * x.shape[2]), lengths[:, None]], 1).astype(np.float32)

    def _tokens(self, X, name):
        """Rows int64 [N, T + 1] of lists of tokens, or of an array [N,T] in which negative numbers fill up."""
        if self._holds_none(X, name):
            x, lengths = np.zeros((0, 0), np.int64), None
        elif _ragged(X):
            x, lengths = pad([s if np.size(s) else np.zeros(0, np.int64) for s in X], name=name)
        else:
            x = np.asarray(backend.to_host(backend.array(X, None)))
            lengths = None
        if x.dtype.kind not in "iu" or x.ndim != 2:
            raise TypeError(f"{name}: expected whole numbers [N,T], or a list of them; got {x.dtype} {list(x.shape)}")
        x = (np.minimum(x, np.iinfo(np.int64).max) if x.dtype == np.uint64 else x).astype(np.int64)
        if lengths is None:
            there = x >= 0
            lengths = np.where(there.any(1), x.shape[1] - np.argmax(there[:, ::-1], 1), 0) if x.shape[1] else there.sum(1)
        inside = np.arange(x.shape[1]) < lengths[:, None]
        wrong = inside & ((x < 0) | (x >= self.vocabulary))
        if wrong.any():
            raise ValueError(f"{name}: expected tokens from 0 to {self.vocabulary - 1}; got {x[wrong][0]}")
        if not hasattr(self, "input_shape_"):
            self._inputs = 1
        return np.concatenate([np.where(inside, x, 0), lengths[:, None]], 1)


class RNNClassifier(_Sequences, Classifier):
    """Recurrent layers and softmax on the last output of each sequence; trained by cross entropy.

    X is a list of arrays [T_n,I], or an array [N,T,I] (or [N,T]) in which steps of NaN at the end fill up; with a
    `vocabulary`, lists of tokens, or an int64 array [N,T] in which negative numbers fill up. Nothing is computed for
    steps that fill up, and a later X may have another T.

    Parameters
    ----------
    units : int
        H of each layer.
    cell : {'lstm', 'gru', 'rnn'}
    layers : int
    bidirectional : bool
    dropout : float
        Between layers, and before the last one.
    vocabulary : int, optional
        X are tokens, 0 to vocabulary - 1.
    embedding : int
        Width of their vectors.
    seed : int
    chrono : int, optional
        Steps over which an LSTM may have to remember something, where those are hundreds: see `fastdl.nn.LSTM`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import RNNClassifier
    >>> x = [np.full((n, 1), n % 2, "float32") for n in range(1, 21)]
    >>> y = [n % 2 for n in range(1, 21)]
    >>> RNNClassifier(units=8).fit(x, y, epochs=30, lr=0.02).score(x, y)
    1.0
    """

    def build(self, input_shape, classes):
        """Make the network with initial weights.

        Parameters
        ----------
        input_shape : int or tuple of int
            Of one sequence: [T,I], or [T] where a step is one value or a token. A later X may have another T.
        classes : int or sequence of labels

        Returns
        -------
        The model itself.
        """
        return super().build(input_shape, classes)


class RNNRegressor(_Sequences, Regressor):
    """Recurrent layers and linear outputs on the last output of each sequence; trained by squared error.

    X and arguments as in `RNNClassifier`.
    """

    def build(self, input_shape, outputs=1, mean=0.0, spread=1.0):
        """Make the network with initial weights.

        Parameters
        ----------
        input_shape : int or tuple of int
            As in `RNNClassifier.build`.
        outputs : int
            K, targets a sequence.
        mean, spread : float or array [K]
            Of the targets.

        Returns
        -------
        The model itself.
        """
        return super().build(input_shape, outputs, mean, spread)
