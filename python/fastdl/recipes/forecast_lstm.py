"""Forecasts of four series: an LSTM beside a linear autoregression, against tuned ridge regression.

Task: one step ahead from every origin (the truth is known up to it) over the last fifth of each series; the fifth before is
for validation. Daily maximum temperature in Seattle, monthly sea-surface temperature (El Nino), yearly sunspots, and the
chaotic series of Mackey and Glass, which is made on the fly.
Network: `fastdl.models.Forecaster`, window and number of epochs chosen by validation, then trained on all that comes before
the test part.
Reference: the naive forecast (the value one season ago; for sunspots and Mackey-Glass the last value), and a ridge
autoregression whose window and penalty are chosen by the same validation. Aim: below the first, and within 5 % of the second
or better. Figures are mean absolute errors, `_low` and `_high` the bounds of their 95 % intervals over blocks of the test part.
"""

import numpy as np

from .. import data
from ..models import Forecaster
from ..models.forecaster import ridge
from ._sequences import place, report

EPOCHS = {"series": 30}
WINDOWS = {"seattle": (7, 14, 28), "elnino": (12, 24, 36), "sunspots": (12, 22, 33), "mackey-glass": (12, 24, 36)}
SEASON = {"seattle": 365, "elnino": 12, "sunspots": 1, "mackey-glass": 1}
BLOCKS = 10
ALPHAS = (0.01, 0.1, 1.0, 10.0, 100.0)


def mackey_glass(n, tau=17, every=6):
    """x' = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x, by steps of 0.1, read at every sixth time unit.

    Source: Mackey & Glass, "Oscillation and chaos in physiological control systems" (1977).
    """
    steps = 10 * (n * every + 500)
    x = np.full(steps + 10 * tau, 1.2)
    for t in range(10 * tau, len(x) - 1):
        late = x[t - 10 * tau]
        x[t + 1] = x[t] + 0.1 * (0.2 * late / (1.0 + late**10) - 0.1 * x[t])
    return x[-n * every * 10 :: every * 10][:n]


def series(config):
    """Name to values, in order of time."""

    def table(name):
        return data.read_csv(place(config, "forecast-lstm", "timeseries", name))

    seattle, sunspots = table("seattle_weather_daily.csv"), table("sunspots_yearly.csv")
    months = np.genfromtxt(
        place(config, "forecast-lstm", "timeseries", "elnino_monthly.csv"), delimiter=",", skip_header=1
    )
    return {
        "seattle": _column(seattle, "temp_max"),
        "elnino": months[:, 1:].reshape(-1),
        "sunspots": _column(sunspots, "SUNACTIVITY"),
        "mackey-glass": mackey_glass(1500),
    }


def _column(table, name):
    return table.x[:, table.columns.index(name)].astype(np.float64)


def autoregression(s, window, alpha, start, end):
    """One-step forecasts of s[start:end] by ridge regression on what comes before `start`."""
    mean, spread = s[:start].mean(), s[:start].std()
    z = (s - mean) / spread
    rows = np.lib.stride_tricks.sliding_window_view(z[: end - 1], window)
    first = start - window
    w, b = ridge(rows[:first], z[window:start, None], alpha)
    return (rows[first:] @ w + b)[:, 0] * spread + mean


def network(s, window, epochs, start, end, config, name, units=24):
    """One-step forecasts of s[start:end] by a Forecaster trained on what comes before `start`; and the model.

    Its checkpoint is called by `name`, window and epochs.
    """
    model = config.place(Forecaster(window, units=units, alpha=10.0 if window < 40 else 30.0, dropout=0.1, seed=config.seed))
    model.fit(s[:start], epochs=epochs, batch_size=32, lr=1e-3, weight_decay=1e-3, optimizer="adamw",
              **config.lasting(f"{name}.{window}.{epochs}"))  # fmt: skip
    return model.rolling(s[:end], start)[:, 0], model


def mae(s, forecast, start, end):
    """Mean absolute error, and half the width of its 95 % interval over blocks."""
    error = np.abs(s[start:end] - forecast)
    blocks = np.array([b.mean() for b in np.array_split(error, BLOCKS)])
    return float(error.mean()), float(1.96 * blocks.std(ddof=1) / BLOCKS**0.5)


def run(config):
    """Choose by validation, train, and judge each method once on every series; see `fastdl.recipes`."""
    show = config.show or (lambda text: None)
    metrics, chosen, splits, model = {}, {}, {}, None
    limit = config.epochs or EPOCHS["series"]
    show(f"{'series':<14}{'network':>18}{'naive':>18}{'ridge':>18}")
    for name, s in series(config).items():
        n = len(s)
        valid, test = n - 2 * (n // 5), n - n // 5
        best = min(
            ((w, a) for w in WINDOWS[name] for a in ALPHAS),
            key=lambda c: mae(s, autoregression(s, *c, valid, test), valid, test)[0],
        )
        tried = [(w, e) for w in WINDOWS[name] for e in sorted({max(1, limit // 6), limit // 2 or 1, limit})]
        pick = min(tried, key=lambda c: mae(s, network(s, *c, valid, test, config, name)[0], valid, test)[0])
        ours, model = network(s, *pick, test, n, config, f"{name}.chosen")
        rows = {
            "mae": mae(s, ours, test, n),
            "mae_naive": mae(s, s[test - SEASON[name] : n - SEASON[name]], test, n),
            "mae_ridge": mae(s, autoregression(s, *best, test, n), test, n),
        }
        show(f"{name:<14}" + "".join(f"{m:11.4f} ±{h:6.4f}" for m, h in rows.values()))
        for k, (mean, half) in rows.items():
            k = f"{k}_{name}"
            metrics |= {k: mean, f"{k}_low": mean - half, f"{k}_high": mean + half}
        chosen[name] = {"window": pick[0], "epochs": pick[1], "ridge_window": best[0], "ridge_alpha": best[1]}
        splits[name] = {"train": valid, "validation": test - valid, "test": n - test}
    about = f"95 %, normal, over {BLOCKS} blocks of the test part"
    return report(config, metrics, model, limit, splits, chosen=chosen, intervals=about)
