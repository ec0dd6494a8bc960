"""Learning-rate schedules: functions ``schedule(t, total) -> factor`` of the update t (from 0) and their number.

The training loop multiplies the optimiser's first learning rate with the factor before every update. Any function of
that form will do; `plateau` follows a measured loss instead.
"""

import math
from numbers import Real

from ._arguments import number


def constant():
    """Always 1."""
    return lambda t, total: 1.0


def _place(name, value, total):
    """A number of updates from an integer (updates) or a float up to 1 (share of the run)."""
    return value if isinstance(value, int) else value * total


def _check_place(name, value):
    if isinstance(value, Real) and not isinstance(value, bool):  # NumPy's as well
        value = int(value) if hasattr(value, "__index__") else float(value)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not value >= 0
        or (isinstance(value, float) and value > 1)
    ):
        raise ValueError(f"{name}: expected updates (an integer) or a share of the run (0.0 to 1.0); got {value!r}")
    return value


def _factor(name, value):
    if number(name, value) < 0:
        raise ValueError(f"{name}: expected 0 or more; got {value}")
    return value


def step(milestones, factor=0.1):
    """Multiply by `factor` at each milestone.

    Parameters
    ----------
    milestones : sequence of int or float
        Integers are updates, floats up to 1.0 shares of the run.
    factor : float
    """
    if not hasattr(milestones, "__iter__"):
        raise TypeError(f"milestones: expected a sequence of numbers; got {type(milestones).__name__}")
    milestones = [_check_place("milestones", m) for m in milestones]
    _factor("factor", factor)

    def schedule(t, total):
        return factor ** sum(t >= _place("milestones", m, total) for m in milestones)

    return schedule


def cosine(warmup=0, final=0.0):
    """Rise in a straight line over `warmup`, then fall along half a cosine to `final`.

    Parameters
    ----------
    warmup : int or float
        Updates, or a share of the run.
    final : float
        Factor of the last update.

    References
    ----------
    Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), one cycle.
    """
    warmup = _check_place("warmup", warmup)
    _factor("final", final)

    def schedule(t, total):
        up = _place("warmup", warmup, total)
        if t < up:
            return (t + 1) / (up + 1)
        done = (t - up) / max(total - 1 - up, 1)
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))

    return schedule


def one_cycle(peak=0.3, start=1 / 25, final=1e-4):
    """Rise from `start` to 1 over the share `peak` of the run, then fall to `final`, both along half a cosine.

    References
    ----------
    Smith & Topin, "Super-convergence: very fast training of neural networks using large learning rates" (2018).
    """
    _factor("start", start), _factor("final", final)
    if not 0.0 < number("peak", peak) < 1.0:
        raise ValueError(f"peak: expected more than 0 and less than 1; got {peak}")

    def schedule(t, total):
        place = t / max(total - 1, 1)
        if place < peak:
            low, share = start, place / peak
        else:
            low, share = final, (1.0 - min(place, 1.0)) / (1.0 - peak)
        return low + (1.0 - low) * 0.5 * (1.0 - math.cos(math.pi * share))

    return schedule


class plateau:
    """Multiply by `factor` whenever the watched loss has not improved for more than `patience` epochs.

    Parameters
    ----------
    factor : float
        Above 0, below 1.
    patience : int
    min_delta : float
        Smaller improvements do not count.
    least : float
        The factor never falls below it.
    """

    def __init__(self, factor=0.1, patience=5, min_delta=0.0, least=0.0):
        if not 0.0 < number("factor", factor) < 1.0:
            raise ValueError(f"factor: expected more than 0 and less than 1; got {factor}")
        if not hasattr(patience, "__index__") or getattr(patience, "ndim", 0) or patience < 0:
            raise ValueError(f"patience: expected a whole number of epochs, 0 or more; got {patience!r}")
        number("min_delta", min_delta), _factor("least", least)
        self.factor, self.patience, self.min_delta, self.least = factor, int(patience), min_delta, least
        self.now, self._best, self._waited = 1.0, math.inf, 0

    def __call__(self, t, total):
        return self.now

    def observe(self, loss):
        """Told by the training loop after every epoch."""
        if loss < self._best - self.min_delta:
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited > self.patience:
            self.now, self._waited = max(self.now * self.factor, self.least), 0

    def get_state(self):
        """What the next factors depend on."""
        return {"now": self.now, "best": self._best, "waited": self._waited}

    def set_state(self, state):
        """Go on from what `get_state` gave."""
        self.now, self._best, self._waited = state["now"], state["best"], state["waited"]
