"""Updates against weights while a network trains."""

import math

import numpy as np

from .. import backend, nn
from ..module import observing
from ..tensor import Tensor, inference
from ._network import host, input_of
from .doctor import FEWEST_SAMPLES, MANY, RECTIFIED, SATURATED, Finding, Report, idle_shares, too_few

HIGH, LOW = 0.1, 1e-6  # of an update's norm to its weights' norm; about 1e-3 is usual


class Watch:
    """A step callback that measures, now and then, how far an update moves each parameter.

    For every parameter: norm of the update / norm of the parameter. About 1/1000 is usual; a tenth wrecks what was
    learned, a millionth learns nothing.

    Parameters
    ----------
    every : int
        Updates between two measurements; one costs two copies of the weights.
    sample : array [N,...] or (X, y), optional
        A batch as the network takes it (images for a CNN, rows for an MLP; labels beside it are not needed). Once an epoch,
        after the first update, it goes through the network as in prediction.

    Attributes
    ----------
    steps : list of int
    ratios, weights, gradients : dict of str to list of float
        Of every weight (vectors such as biases start at 0, where the ratio means nothing): the ratio, its norm, and the
        norm of its gradient; one for each of `steps`, NaN where a network had no such parameter.
    epochs : list of int
    dead, saturated : dict of str to list of float
        With a `sample`, of every layer with rectified units: the share of them that are 0 for all of it (NaN where it is
        of fewer than 16, which can't tell); of every layer of tanh or sigmoid: the share of outputs at the flat ends.

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

    def __init__(self, every=20, sample=None):
        if not hasattr(every, "__index__") or np.ndim(every) or every < 1:
            raise ValueError(f"every: expected a number of updates of at least 1; got {every!r}")
        self.every, self._before = int(every), None
        self.steps, self.ratios, self.weights, self.gradients = [], {}, {}, {}
        self._sample = sample[0] if isinstance(sample, tuple) else sample
        self.epochs, self.dead, self.saturated, self._last, self._samples = [], {}, {}, None, None

    def __call__(self, state):
        flat = state._flat()
        if self._before is not None and state.step > 1:  # else they are the last weights of another training
            self._measure(flat, state.step)
        self._before = None
        if state.step % self.every == 0 or state.step == 1:
            self._before = np.array(backend.to_host(flat.data))
        # Training may begin anew, or go on in a second call, with the epochs counted from 1 again.
        if self._sample is not None and (not self.epochs or state.epoch != self.epochs[-1] or state.step == 1):
            self._look(state.module)
            self.epochs.append(state.epoch)

    def _look(self, module):
        x = input_of(module, self._sample)
        self._samples = len(x)
        names, modes = {id(m): n for n, m in module.named_modules()}, [(m, m.training) for _, m in module.named_modules()]

        def observe(part, inputs):
            out = part.forward(*inputs)
            if not any(isinstance(c, nn.Module) for _, c in part._children()):
                self._last = name = names.get(id(part), "?")
                dead, saturated = idle_shares(part, host(out.data))
                act = getattr(part, "act", "none")
                if act in RECTIFIED:
                    now.setdefault(("dead", name), math.nan if len(x) < FEWEST_SAMPLES else dead)
                elif act in SATURATED:
                    now.setdefault(("saturated", name), saturated)
            return out

        now = {}  # a layer that is called twice counts as at its first call
        try:
            module.eval()  # which writes no running statistics and draws no random numbers
            with inference(), observing(observe):
                module(Tensor(x) if x.dtype == np.float32 else x)
        finally:
            for m, mode in modes:
                m.training = mode
        for (kind, name), share in now.items():
            getattr(self, kind).setdefault(name, []).append(share)

    def _measure(self, flat, step):
        now, grad = backend.to_host(flat.data), backend.to_host(flat.grad)
        self.steps.append(step)
        for name, at, shape in flat.table:
            if len(shape) < 2:
                continue
            part = slice(at, at + math.prod(shape))
            before = np.linalg.norm(self._before[part].astype(np.float64))
            moved = np.linalg.norm(now[part].astype(np.float64) - self._before[part])
            slope = np.linalg.norm(grad[part].astype(np.float64))
            figures = moved / before if before > 0 else math.nan, before, slope
            for kept, value in zip((self.ratios, self.weights, self.gradients), figures, strict=True):
                kept.setdefault(name, [math.nan] * (len(self.steps) - 1)).append(float(value))
        for kept in (self.ratios, self.weights, self.gradients):
            for values in kept.values():  # of a parameter that this network has not got
                values += [math.nan] * (len(self.steps) - len(values))

    def get_state(self):
        """For a checkpoint."""
        return {
            "steps": self.steps, "ratios": self.ratios, "weights": self.weights, "gradients": self.gradients,
            "before": self._before, "epochs": self.epochs, "dead": self.dead, "saturated": self.saturated, "last": self._last,
            "samples": self._samples,
        }  # fmt: skip

    def set_state(self, state):
        """Go on from what `get_state` gave."""
        self.steps, self.ratios, self.weights = state["steps"], state["ratios"], state["weights"]
        self.gradients, self._before = state["gradients"], state["before"]
        self.epochs, self.dead = state.get("epochs", []), state.get("dead", {})
        self.saturated, self._last = state.get("saturated", {}), state.get("last")
        self._samples = state.get("samples")

    def report(self):
        """Whether the learning rate suits the weights, and by the last look at a `sample` whether units are dead or saturated.

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
        for name, shares in self.dead.items():
            if shares[-1] > MANY:
                found.append(Finding("dead", name, f"{shares[-1]:.0%} of its units are 0 for every sample"))
                break
        for name, shares in self.saturated.items():
            if shares[-1] > MANY and name != self._last:  # the ends of a last layer are what it should say
                found.append(Finding("saturated", name, f"{shares[-1]:.0%} of its outputs are at the flat ends"))
                break
        few = self.dead and self._samples is not None and self._samples < FEWEST_SAMPLES
        return Report(found, [], remarks=[f"sample: {too_few(self._samples)}."] if few else [])

    def plot(self, ax=None):
        """Ratios over the updates; see `fastdl.plot.updates`."""
        from .. import plot

        return plot.updates(self, ax)
