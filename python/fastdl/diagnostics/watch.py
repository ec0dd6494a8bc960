"""Updates against weights while a network trains."""

import math

import numpy as np

from .. import backend
from .doctor import Finding, Report

HIGH, LOW = 0.1, 1e-6  # of an update's norm to its weights' norm; about 1e-3 is usual


class Watch:
    """A step callback that measures, now and then, how far an update moves each parameter.

    For every parameter: norm of the update / norm of the parameter. About 1/1000 is usual; a tenth wrecks what was
    learned, a millionth learns nothing.

    Parameters
    ----------
    every : int
        Updates between two measurements; one costs two copies of the weights.

    Attributes
    ----------
    steps : list of int
    ratios, weights, gradients : dict of str to list of float
        Of every weight (vectors such as biases start at 0, where the ratio means nothing): the ratio, its norm, and the
        norm of its gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.diagnostics import Watch
    >>> from fastdl.models import MLP
    >>> X, y = np.random.default_rng(0).normal(size=(200, 4)), np.arange(200) % 2
    >>> watch = Watch(every=2)
    >>> _ = MLP((8,)).fit(X, y, epochs=3, on_step=[watch])
    >>> watch.report().verdict
    'healthy'
    """

    def __init__(self, every=20):
        if not hasattr(every, "__index__") or every < 1:
            raise ValueError(f"every: expected a number of updates of at least 1; got {every!r}")
        self.every, self._before = int(every), None
        self.steps, self.ratios, self.weights, self.gradients = [], {}, {}, {}

    def __call__(self, state):
        flat = state._flat()
        if self._before is not None:
            self._measure(flat, state.step)
            self._before = None
        if state.step % self.every == 0 or state.step == 1:
            self._before = np.array(backend.to_host(flat.data))

    def _measure(self, flat, step):
        now, grad = backend.to_host(flat.data), backend.to_host(flat.grad)
        self.steps.append(step)
        for name, at, shape in flat.table:
            if len(shape) < 2:
                continue
            part = slice(at, at + math.prod(shape))
            before = np.linalg.norm(self._before[part].astype(np.float64))
            moved = np.linalg.norm(now[part].astype(np.float64) - self._before[part])
            self.weights.setdefault(name, []).append(float(before))
            self.ratios.setdefault(name, []).append(float(moved / before) if before > 0 else math.nan)
            self.gradients.setdefault(name, []).append(float(np.linalg.norm(grad[part].astype(np.float64))))

    def get_state(self):
        """For a checkpoint."""
        return {
            "steps": self.steps, "ratios": self.ratios, "weights": self.weights, "gradients": self.gradients,
            "before": self._before,
        }  # fmt: skip

    def set_state(self, state):
        """Go on from what `get_state` gave."""
        self.steps, self.ratios, self.weights = state["steps"], state["ratios"], state["weights"]
        self.gradients, self._before = state["gradients"], state["before"]

    def report(self):
        """Whether the learning rate suits the weights.

        Returns
        -------
        Report
            Without layers; by the median over the later half of the measurements, so that a warm-up does not count.
        """
        found = []
        middle = {}
        for name, values in self.ratios.items():
            late = np.array(values[len(values) // 2 :])
            if np.isfinite(late).any():
                middle[name] = float(np.nanmedian(late))
        if middle:
            typical = float(np.median(list(middle.values())))
            if typical > HIGH:
                what = f"an update is {typical:.2g} of the weights it changes"
                found.append(Finding("learning rate too high", max(middle, key=middle.get), what))
            elif typical < LOW:
                what = f"an update is {typical:.2g} of the weights it changes"
                found.append(Finding("learning rate too low", min(middle, key=middle.get), what))
        return Report(found, [])

    def plot(self, ax=None):
        """Ratios over the updates; see `fastdl.plot.updates`."""
        from .. import plot

        return plot.updates(self, ax)
