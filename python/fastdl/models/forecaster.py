"""Forecasts of time series: a recurrent network beside a linear autoregression."""

import numpy as np

from .. import backend, init, nn, ops, optim, train
from .._arguments import chance, not_negative, one_of, positive
from .._interrupts import unless_begun
from ..data.sequences import float32_of, windows
from ..tensor import inference
from ._base import Model
from ._door import array_of, check_scale, numbers_of, scale_of
from .rnn import _CELLS, recurrent


class _Forecast(nn.Module):
    """Windows [N,T,K] to the values after them [N,A K]: last value + linear part + recurrent part."""

    def __init__(self, layers, outputs, dropout, linear):
        self.recurrent = layers
        self.linear = nn.Dense(outputs, init="zeros") if linear else None
        self.drop = nn.Dropout(dropout) if dropout else None
        # starts at nothing: training begins at the linear forecast
        self.head = nn.Dense(outputs, init=init.constant(0.0) if linear else None)

    def forward(self, x):
        y = self.recurrent(x)
        y = self.head(y if self.drop is None else self.drop(y))
        return y if self.linear is None else ops.add(y, self.linear(ops.flatten(x)))


def ridge(x, y, alpha):
    """Weights [I,O] and bias [O] of linear regression with penalty alpha |w|^2 on the sum of squares."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    mx, my = x.mean(0), y.mean(0)
    xc = x - mx
    products, with_y = xc.T @ xc + alpha * np.eye(x.shape[1]), xc.T @ (y - my)
    # without a penalty columns may depend on each other: the smallest of the solutions then
    w = np.linalg.solve(products, with_y) if alpha > 0.0 else np.linalg.lstsq(products, with_y, rcond=None)[0]
    return w, my - mx @ w


class Forecaster(Model):
    """What comes next in a series: a linear autoregression plus a recurrent network that learns what it leaves over.

    The linear part starts at the ridge regression of the training windows, the recurrent part at zero, and both are then
    trained together by squared error on the standardised series.

    Parameters
    ----------
    window : int
        Values that a forecast sees.
    ahead : int
        Values that it gives.
    units, cell, layers, dropout
        Of the recurrent part, as in `RNNClassifier`.
    linear : bool
        Whether there is a linear part.
    alpha : float
        Penalty of its ridge regression.
    seed : int

    Attributes
    ----------
    module_ : Module
    mean_, spread_ : float64 array [K]
        Of the training series.
    history_ : dict

    Source: Lai, Chang, Yang & Liu, "Modeling long- and short-term temporal patterns with deep neural networks" (2018), for
    the linear part beside the network.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import Forecaster
    >>> wave = np.sin(np.arange(300) * 0.2)
    >>> model = Forecaster(window=20, units=8).fit(wave, epochs=3)
    >>> bool(np.abs(model.predict(5) - np.sin(np.arange(300, 305) * 0.2)).max() < 0.05)
    True
    """

    _fitted = ("module_", "input_shape_", "mean_", "spread_", "single_", "last_")

    def __init__(self, window=24, ahead=1, units=32, cell="lstm", layers=1, dropout=0.0, linear=True, alpha=1.0, seed=0):
        self.window, self.ahead = positive("window", window), positive("ahead", ahead)
        self.units, self.layers = positive("units", units), positive("layers", layers)
        self.cell, self.dropout = one_of("cell", cell, _CELLS), chance("dropout", dropout)
        self.linear, self.alpha, self.seed = linear, not_negative("alpha", alpha), seed

    @unless_begun
    def build(self, series=1, mean=0.0, spread=1.0):
        """Make the network with initial weights, for K = `series` values a step."""
        series = positive("series", series)
        self.input_shape_, self.single_ = (self.window, series), series == 1
        self.mean_, self.spread_ = check_scale(mean, spread, series)
        layers = recurrent(self.cell, self.units, layers=self.layers, dropout=self.dropout, output="last")
        self.module_ = _Forecast(layers, self.ahead * series, self.dropout, self.linear)
        self.module_.build(self.input_shape_, self.seed).eval().to(self._device)
        self.last_ = None
        return self

    def _series(self, series, name="series"):
        """float64 [L,K]."""
        s = array_of(series, name, "cpu")
        s = numbers_of(s, name) if s.dtype.kind == "O" else s
        if s.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected an array of real numbers; got {s.dtype}")
        s = s.astype(np.float64)
        s = s[:, None] if s.ndim == 1 else s
        if s.ndim != 2 or not s.shape[1] or (hasattr(self, "input_shape_") and s.shape[1] != self.input_shape_[1]):
            k = self.input_shape_[1] if hasattr(self, "input_shape_") else "K"
            raise ValueError(f"{name}: expected shape [L] or [L,{k}]; got {list(np.shape(series))}")
        if not np.isfinite(s).all():
            raise ValueError(f"{name}: expected finite numbers; got {s[~np.isfinite(s)][0]}")
        return s

    def _pairs(self, s):
        x, y = windows((s - self.mean_) / self.spread_, self.window, self.ahead)
        return x, y.reshape(len(y), -1)

    @unless_begun
    def fit(self, series, *, validation=None, epochs=20, batch_size=32, optimizer="adam", lr=None, weight_decay=None,
            clip=1.0, loss="mse", warm_start=False, **options):  # fmt: skip
        """Train on a series.

        Parameters
        ----------
        series : array [L] or [L,K]
            Finite numbers, in order.
        validation : int, optional
            So many values at the end are only judged.
        loss : {'mse', 'mae', 'huber'}
        epochs, batch_size, optimizer, lr, weight_decay, clip, warm_start, **options
            As in `Regressor.fit`.

        Returns
        -------
        The model itself; `history_` holds the curves, losses of the standardised series.
        """
        if loss not in ("mse", "mae", "huber"):
            raise ValueError(f"loss: expected 'mse', 'mae' or 'huber'; got {loss!r}")
        train.must_take(options, self._own)
        if not (warm_start and hasattr(self, "module_")):
            for name in self._fitted:
                self.__dict__.pop(name, None)
        s = self._series(series)
        held = 0 if validation is None else positive("validation", validation)
        if held and held < self.ahead:
            raise ValueError(f"validation: expected at least ahead={self.ahead} values; got {held}")
        known = s[: max(len(s) - held, 0)]
        if len(known) < self.window + self.ahead:
            less = f", {held} of {len(s)} set aside" if held else ""
            raise ValueError(
                f"series: expected {self.window + self.ahead} values or more to train on; got {len(known)}{less}"
            )
        if not hasattr(self, "module_"):
            self.build(s.shape[1], *scale_of(known, "series"))
            self.single_ = np.ndim(series) == 1
            if self.linear:
                x, y = self._pairs(known)
                w, b = ridge(x.reshape(len(x), -1), y, self.alpha)
                backend.assign(self.module_.linear.w.data, w.astype(np.float32))
                backend.assign(self.module_.linear.b.data, b.astype(np.float32))
        x, y = self._pairs(known)
        judged = None
        if held:
            judged = self._pairs(s[len(known) - self.window :])
        self.last_ = s[-self.window :]  # now: a checkpoint and a callback forecast from there as well
        options["checkpoint"] = self._checkpoint(options.get("checkpoint"), options.get("resume"))
        given = {"lr": lr, "weight_decay": weight_decay, "clip": clip}
        self.history_ = train.fit(
            self.module_, x, y, loss=loss,
            optimizer=optim.get(optimizer, self.module_, **{k: v for k, v in given.items() if v is not None}),
            epochs=epochs, batch_size=batch_size, validation=judged, **{"seed": self.seed} | options,
        )  # fmt: skip
        return self

    def _forecast(self, x):
        """[N,A,K] in the series' own units, of standardised windows."""
        with inference():
            y = backend.to_host(train.predict(self.module_, np.ascontiguousarray(x, np.float32))).astype(np.float64)
        return y.reshape(len(x), self.ahead, -1) * self.spread_ + self.mean_

    def predict(self, steps=None, history=None):
        """The values that follow.

        Parameters
        ----------
        steps : int, optional
            How many; `ahead` if left out. Beyond `ahead`, forecasts are taken for true and forecast from.
        history : array [L] or [L,K], optional
            The last `window` values or more before them; the end of the training series if left out.

        Returns
        -------
        float64 array [steps] or [steps,K]
        """
        self._need_fit()
        steps = self.ahead if steps is None else positive("steps", steps)
        past = self.last_ if history is None else self._series(history, "history")
        if past is None or len(past) < self.window:
            raise ValueError(
                f"history: expected the last {self.window} values or more; got {0 if past is None else len(past)}"
            )
        float32_of((past - self.mean_) / self.spread_, "series" if history is None else "history")
        out = np.zeros((0, past.shape[1]))
        while len(out) < steps:
            x = (np.concatenate([past, out])[-self.window :] - self.mean_) / self.spread_
            out = np.concatenate([out, self._forecast(x[None])[0]])
        return out[:steps, 0] if self.single_ else out[:steps]

    def rolling(self, series, start=None):
        """Forecasts from every origin: row i is what the model says of series[start + i:] having seen series[:start + i].

        Parameters
        ----------
        series : array [L] or [L,K]
        start : int, optional
            First origin; `window` if left out.

        Returns
        -------
        float64 array [L - ahead + 1 - start, ahead] or [..., ahead, K]
        """
        self._need_fit()
        s, start = self._series(series), self.window if start is None else start
        start = positive("start", start)
        if start < self.window:
            raise ValueError(f"start: expected at least the window, {self.window}; got {start}")
        if start > len(s) - self.ahead:
            raise ValueError(f"series: expected {start + self.ahead} values or more for one forecast; got {len(s)}")
        x, _ = self._pairs(s[start - self.window :])
        y = self._forecast(x)
        return y[..., 0] if self.single_ else y

    def score(self, series, start=None):
        """R^2 of `rolling` forecasts: 1 is perfect, 0 no better than the mean."""
        y = self.rolling(series, start)
        start = self.window if start is None else start
        s = self._series(series)
        truth = np.stack([s[start + a : len(s) - self.ahead + 1 + a] for a in range(self.ahead)], 1)
        return train.r2(y.reshape(len(y), -1), truth.reshape(len(truth), -1))

    def _describe(self):
        scale = {"mean": self.mean_.tolist(), "spread": self.spread_.tolist(), "single": bool(self.single_)}
        return super()._describe() | scale | {"last": None if self.last_ is None else self.last_.tolist()}

    def _build_from(self, config):
        self.build(len(config["mean"]), config["mean"], config["spread"])
        self.single_ = config["single"]
        self.last_ = None if config["last"] is None else np.asarray(config["last"], np.float64)
        return self
