"""Optimisers over the flat vectors of a network: one or two kernel calls an update, however many layers.

Weight decay applies to the parameters declared with decay (weights), not to biases and normalisations.
"""

import math
from numbers import Real

import numpy as np

from . import backend
from ._arguments import natural
from .flat import Flat
from .module import Module

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Optimizer", "RMSprop", "get"]


def _within(name, value, below=math.inf):
    """A number from 0 on, below a limit."""
    if not isinstance(value, (Real, np.number)):
        raise TypeError(f"{name}: expected a number; got {type(value).__name__}")
    if not 0.0 <= value < below:
        wanted = f"0 <= {name} < {below:g}" if below < math.inf else f"0 or more{', finite' * (value == math.inf)}"
        raise ValueError(f"{name}: expected {wanted}; got {value}")
    return float(value)


class Optimizer:
    """Base: ranges of the flat vectors, state, clipping.

    Parameters
    ----------
    target : Module or Flat
        What is trained. Parameters that are frozen now are left alone for good.
    lr : float
        Learning rate; may be changed between updates.
    weight_decay : float
        L2 penalty added to the gradient (AdamW: taken from the weights directly).
    clip : float, optional
        The gradient of all parameters together is scaled down to this norm where it is longer.

    Attributes
    ----------
    t : int
        Updates done.
    """

    state_names = ()

    def __init__(self, target, lr, weight_decay=0.0, clip=None):
        self.lr, self.weight_decay, self.clip = _within("lr", lr), _within("weight_decay", weight_decay), clip
        if clip is not None and not isinstance(clip, (Real, np.number)):
            raise TypeError(f"clip: expected a number; got {type(clip).__name__}")
        if clip is not None and not clip > 0.0:
            raise ValueError(f"clip: expected more than 0; got {clip}")
        self.flat = target.flatten() if isinstance(target, Module) else target
        if not isinstance(self.flat, Flat):
            raise TypeError(f"target: expected a Module or Flat; got {type(target).__name__}")
        self.t, self._norm = 0, None
        self.state = {name: backend.zeros(self.flat.data.shape, self.flat.data) for name in self.state_names}
        self._bind()

    def _bind(self):
        """Slices of the vectors for every range, cut once: an update is then kernel calls and nothing else."""
        flat = self.flat
        self.state = {name: backend.to_device(a, flat.data) for name, a in self.state.items()}
        self._of, self._kernels = flat.data, backend.kernels(flat.data)
        self._ranges = [
            (
                flat.data[start:stop],
                flat.grad[start:stop],
                self.weight_decay if decay else 0.0,
                *(self.state[name][start:stop] for name in self.state_names),
            )
            for start, stop, decay in flat.ranges()
        ]
        # Ranges with the same decay that touch (weight_decay 0) are one.
        if self.weight_decay == 0.0 and len(self._ranges) == 2 and flat.ranges()[0][1] == flat.ranges()[1][0]:
            start, stop = flat.ranges()[0][0], flat.ranges()[1][1]
            self._ranges = [
                (
                    flat.data[start:stop],
                    flat.grad[start:stop],
                    0.0,
                    *(self.state[n][start:stop] for n in self.state_names),
                )
            ]

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._bind()

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ("_ranges", "_kernels", "_of")}

    @property
    def norm(self):
        """Norm of the last gradient before clipping, a float; NaN without `clip`. Reading it waits for a GPU."""
        return math.nan if self._norm is None else float(backend.to_host(self._norm)[0])

    def zero_grad(self):
        """Forget the gradients of the last backward pass."""
        self.flat.zero_grad()

    def step(self):
        """Update the parameters from their gradients.

        Raises
        ------
        TypeError, ValueError
            A setting was changed to what it can't be; of `lr` all that is no number from 0 on is found. No update is made.
        """
        if not (type(self.lr) is float and 0.0 <= self.lr < math.inf):  # which would cost all weights at once
            self.lr = _within("lr", self.lr)
        if self._of is not self.flat.data:  # the network has moved to another device
            self._bind()
        self.flat.settle()
        self.t += 1
        try:
            if self.clip is not None:
                self._norm = self._kernels.clip_norm(self.clip, g=self.flat.grad)
                if type(self._norm) is np.ndarray and self._norm[0] == math.inf:  # to look at a GPU's would wait for it
                    self._clip_far()
            self._update(self._kernels)
        except BaseException:  # a setting that somebody changed to what the kernels refuse: no update was made
            self.t -= 1
            raise

    def _clip_far(self):
        """Clip a gradient whose squares are beyond float32, which the kernel leaves as it is, as it does infinities."""
        g = self.flat.grad
        top = float(np.abs(g).max())
        if math.isfinite(top):
            wide = g.astype(np.float64) / top
            norm = top * math.sqrt(float(np.sum(wide * wide)))
            self._norm = np.array([norm])
            if norm > self.clip:
                g[...] = wide * (top / norm * self.clip)

    def _update(self, k):
        raise NotImplementedError

    def settings(self):
        """What the optimiser was made with: its name and its numbers."""
        numbers = {k: v for k, v in vars(self).items() if isinstance(v, (bool, int, float)) and k != "t"}
        return {"optimizer": type(self).__name__, "clip": self.clip} | numbers

    def get_state(self):
        """Everything that a later update depends on: ``{"t": ..., "lr": ..., "m": array, ...}``."""
        return {"t": self.t, "lr": self.lr} | {n: np.array(backend.to_host(a)) for n, a in self.state.items()}

    def set_state(self, state):
        """Go on from what `get_state` gave.

        Raises
        ------
        TypeError, ValueError
            A part is missing, is no number, or has another size. Nothing is changed then.
        """
        if not hasattr(state, "items"):
            raise TypeError(f"state: expected a dict, as get_state gives it; got {type(state).__name__}")
        new = {}
        for name, a in self.state.items():
            if name not in state:
                raise ValueError(f"state[{name!r}]: expected shape {list(a.shape)}; got none")
            try:
                new[name] = backend.array(state[name], device="cpu")
            except (TypeError, ValueError) as error:
                raise TypeError(f"state[{name!r}]: expected an array of numbers; got {error}") from None
            if new[name].shape != a.shape:
                raise ValueError(f"state[{name!r}]: expected shape {list(a.shape)}; got shape {list(new[name].shape)}")
        for name in ("t", "lr"):
            if name not in state:
                raise ValueError(f"state[{name!r}]: expected 0 or more; got none")
        lr = _within("state['lr']", state["lr"])
        self.t, self.lr = natural("state['t']", state["t"]), lr
        for name, a in self.state.items():
            backend.assign(a, new[name])


class SGD(Optimizer):
    """v = momentum v + g;  w -= lr v, or with nesterov w -= lr (g + momentum v).

    Source: Polyak (1964); Nesterov's form as in Sutskever, Martens, Dahl & Hinton (2013).
    """

    def __init__(self, target, lr=0.01, momentum=0.0, nesterov=False, weight_decay=0.0, clip=None):
        self.momentum, self.nesterov = _within("momentum", momentum, 1.0), bool(nesterov)
        if nesterov and momentum == 0.0:
            raise ValueError("nesterov: expected a momentum above 0; got 0")
        self.state_names = ("v",) if momentum else ()
        super().__init__(target, lr, weight_decay, clip)

    def _update(self, k):
        if self.momentum and not self.state:  # the kernel would leave it out without a word
            raise ValueError(f"momentum: expected 0, as when the optimiser was made; got {self.momentum}")
        for w, g, decay, *v in self._ranges:
            k.sgd(g, self.momentum, self.nesterov, decay, self.lr, w, v[0] if v else None)


class Adam(Optimizer):
    """m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w -= lr m^ / (sqrt(v^) + eps).

    m^ = m / (1 - b1^t) and v^ = v / (1 - b2^t) are corrected for their start at 0.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization" (2015).
    """

    state_names = ("m", "v")
    decoupled = False

    def __init__(self, target, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, clip=None):
        self.beta1, self.beta2 = _within("beta1", beta1, 1.0), _within("beta2", beta2, 1.0)
        self.eps = _within("eps", eps)
        super().__init__(target, lr, weight_decay, clip)

    def _update(self, k):
        for w, g, decay, m, v in self._ranges:
            k.adam(g, self.beta1, self.beta2, self.eps, decay, self.decoupled, self.lr, self.t, w, m, v)


class AdamW(Adam):
    """Adam with the weight decay taken from the weights directly, w -= lr weight_decay w.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization" (2019).
    """

    decoupled = True

    def __init__(self, target, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, clip=None):
        super().__init__(target, lr, beta1, beta2, eps, weight_decay, clip)


class RMSprop(Optimizer):
    """v = rho v + (1-rho) g^2;  w -= lr g / (sqrt(v) + eps).

    Source: Tieleman & Hinton, lecture 6.5 of "Neural networks for machine learning" (2012).
    """

    state_names = ("v",)

    def __init__(self, target, lr=1e-3, rho=0.9, eps=1e-8, weight_decay=0.0, clip=None):
        self.rho, self.eps = _within("rho", rho, 1.0), _within("eps", eps)
        super().__init__(target, lr, weight_decay, clip)

    def _update(self, k):
        for w, g, decay, v in self._ranges:
            k.rmsprop(g, self.rho, self.eps, decay, self.lr, w, v)


class AdaGrad(Optimizer):
    """v += g^2;  w -= lr g / (sqrt(v) + eps).

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods" (2011).
    """

    state_names = ("v",)

    def __init__(self, target, lr=0.01, eps=1e-10, weight_decay=0.0, clip=None):
        self.eps = _within("eps", eps)
        super().__init__(target, lr, weight_decay, clip)

    def _update(self, k):
        for w, g, decay, v in self._ranges:
            k.adagrad(g, self.eps, decay, self.lr, w, v)


_BY_NAME = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "adagrad": AdaGrad}


def get(optimizer, target, **options):
    """An optimiser from its name and options, or from a function ``optimizer(target)``."""
    if callable(optimizer):
        try:
            return optimizer(target, **options)
        except TypeError as error:
            name = next((name for name in options if str(error).endswith(f"unexpected keyword argument '{name}'")), None)
            if name is None:
                raise
            what = "none beside a function that makes the optimizer of a module alone"
            raise TypeError(f"{name}: expected {what}; got {options[name]!r}") from error
    if not isinstance(optimizer, str) or optimizer not in _BY_NAME:
        raise ValueError(f"optimizer: expected one of {', '.join(_BY_NAME)} or a function; got {optimizer!r}")
    return _BY_NAME[optimizer](target, **options)
