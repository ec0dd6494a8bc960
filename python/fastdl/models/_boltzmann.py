"""What the Boltzmann machines share: the machine itself, its training updates, and its partition function."""

import dataclasses
import math

import numpy as np

from .. import backend, init, optim
from .._arguments import number, one_of, positive
from ..module import Module, Parameter
from ..random import Stream
from ..tensor import Tensor

VISIBLE = ("bernoulli", "gaussian", "softmax")
HIDDEN = ("bernoulli", "gaussian", "relu", "softmax")
ALGORITHMS = ("cd", "pcd", "fpcd", "tempering")


class Machine(Module):
    """Two layers of units with weights w [V,H], biases b [V], c [H], and the variances of Gaussian visible units.

    Parameters
    ----------
    visible, hidden : int
        V, H.
    units : (str, int, str, int)
        Kind and group of the visible units, kind and group of the hidden ones.
    learn_variance : bool
    """

    buffers = ("variance", "base", "chain_v", "chain_h")

    def __init__(self, visible, hidden, units, learn_variance=False):
        self._units = units
        self.w = Parameter((visible, hidden), _small)
        self.b = Parameter((visible,), init.zeros, decay=False)
        self.c = Parameter((hidden,), init.zeros, decay=False)
        self.log_variance = Parameter((visible,), init.zeros, decay=False) if learn_variance else None
        self.variance = np.ones(visible, np.float32) if units[0] == "gaussian" else None
        self.base = np.zeros(visible, np.float32)
        self.chain_v = self.chain_h = None

    def loose_buffers(self):
        """Chains: as many as the training of the weights had, or none."""
        v, h = self.sizes
        return {"chain_v": (v,), "chain_h": (h,)}

    @property
    def sizes(self):
        """(V, H)."""
        return self.w.data.shape

    @property
    def arrays(self):
        """w, b, c."""
        return self.w.data, self.b.data, self.c.data

    @property
    def kernels(self):
        """The kernels of its device."""
        return backend.kernels(self.w.data)

    @property
    def layers(self):
        """The keywords of a kernel that say what the units are."""
        v, vg, h, hg = self._units
        return {"visible": v, "visible_group": vg, "hidden": h, "hidden_group": hg}

    def settle_variance(self):
        """Variances from their logarithms, where these are learned."""
        if self.log_variance is not None:
            self.kernels.unary_forward(self.log_variance.data, "exp", self.variance)

    def forward(self, x):
        """Means of the hidden units, without a gradient (for the summary)."""
        return Tensor(self.hidden(x.data))

    def hidden(self, v, sample=False, stream=None):
        """Means [N,H] of the hidden units given v, or samples."""
        out = backend.empty((len(v), self.sizes[1]), self.w.data)
        name = "sample" if sample else "mean"
        seed, offset = stream.take(self.sizes[1]) if sample else (0, 0)
        _, _, units, group = self._units
        self.kernels.gibbs_sample_hidden(
            v, self.w.data, self.c.data, variance=self.variance, units=units, group=group, seed=seed, offset=offset,
            **{"sample": None, name: out},
        )  # fmt: skip
        return out

    def visible(self, h, sample=False, stream=None):
        """Means [N,V] of the visible units given h, or samples."""
        out = backend.empty((len(h), self.sizes[0]), self.w.data)
        name = "sample" if sample else "mean"
        seed, offset = stream.take(self.sizes[0]) if sample else (0, 0)
        units, group, _, _ = self._units
        self.kernels.gibbs_sample_visible(
            h, self.w.data, self.b.data, variance=self.variance, units=units, group=group, seed=seed, offset=offset,
            **{"sample": None, name: out},
        )  # fmt: skip
        return out

    def chain(self, v, h, steps, stream, arrays=None, **options):
        """Gibbs steps of v and h in place; see `fastdl.kernels.gibbs_chain`."""
        v_size, h_size = self.sizes
        seed, offset = stream.take((steps + 1) * (v_size + h_size + 8))
        self.kernels.gibbs_chain(
            *(arrays or self.arrays), variance=self.variance, steps=steps, seed=seed, offset=offset, v=v, h=h, **self.layers,
            **options,
        )  # fmt: skip

    def free_energy(self, v):
        """F(v) [N]."""
        kinds = {k: u for k, u in self.layers.items() if k != "visible_group"}
        return self.kernels.gibbs_free_energy(v, *self.arrays, variance=self.variance, **kinds)


def _small(shape, stream, fans=None):
    return init.normal(shape, stream, std=0.01)


# ------------------------------------------------------------------------------------------------------- training


@dataclasses.dataclass
class Rule:
    """How a machine is trained; see `RBM.fit`."""

    algorithm: str = "pcd"
    k: int = 1
    lr: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    chains: int | None = None
    temperatures: int = 10
    sparsity: float | None = None
    sparsity_cost: float = 0.1
    centre: bool = False
    fast_lr: float | None = None
    variance_lr: float = 0.1

    def __post_init__(self):
        one_of("algorithm", self.algorithm, ALGORITHMS)
        self.k, self.temperatures = positive("k", self.k), positive("temperatures", self.temperatures)
        if self.temperatures < 2:
            raise ValueError(f"temperatures: expected at least 2; got {self.temperatures}")
        if self.chains is not None:
            self.chains = positive("chains", self.chains)
        for name in ("sparsity_cost", "fast_lr", "sparsity"):
            value = getattr(self, name)
            if value is not None and number(name, value) < 0.0:
                raise ValueError(f"{name}: expected 0 or more; got {value}")
        if self.sparsity is not None and not 0.0 < self.sparsity < 1.0:
            raise ValueError(f"sparsity: expected 0 < sparsity < 1; got {self.sparsity}")


class Trainer:
    """Updates of a machine by contrastive divergence or from persistent chains.

    The gradient of -log p is what `gibbs_chain` counts: minus the data's statistics, plus those of the chains.

    Parameters
    ----------
    machine : Machine
    rule : Rule
    stream : fastdl.random.Stream
    batch : int
        Samples of a batch; as many chains, if the rule does not say how many.
    """

    def __init__(self, machine, rule, stream, batch):
        self.machine, self.rule, self.stream = machine, rule, stream
        self.flat = machine.flatten()
        like = machine.w.data
        self.optimizer = optim.SGD(machine, rule.lr, rule.momentum, weight_decay=rule.weight_decay)
        v, h = machine.sizes
        self.count = rule.chains or batch
        rows = self.count * (rule.temperatures if rule.algorithm == "tempering" else 1)
        persistent = rule.algorithm != "cd"
        if persistent and (machine.chain_v is None or len(machine.chain_v) != rows):
            machine.chain_v, machine.chain_h = backend.empty((rows, v), like), backend.zeros((rows, h), like)
            draw = backend.zeros((rows, h), like)
            # Nothing known of the hidden units: visible ones from their biases.
            zero = backend.zeros((v, h), like)
            seed, offset = stream.take(v)
            k = machine.kernels
            units, group, _, _ = machine._units
            k.gibbs_sample_visible(
                draw, zero, machine.b.data, variance=machine.variance, units=units, group=group, seed=seed, offset=offset,
                sample=machine.chain_v,
            )  # fmt: skip
            machine.chain(machine.chain_v, machine.chain_h, 0, stream)
        self.make_room(batch)
        self.fast = backend.zeros(self.flat.data.shape, like) if rule.algorithm == "fpcd" else None
        self.centres = [backend.zeros((v,), like), backend.zeros((h,), like)] if rule.centre else None
        self.active = backend.full((h,), like, rule.sparsity or 0.0)
        self.parity = 0
        if rule.algorithm == "tempering":
            self.betas = backend.to_device(np.linspace(1.0, 0.0, rule.temperatures, dtype=np.float32), like)
            gain = np.repeat(np.linspace(1.0, 0.0, rule.temperatures, dtype=np.float32), self.count)
            self.gain = backend.to_device(gain, like)

    def make_room(self, batch):
        """For batches of so many samples."""
        like, (v, h) = self.machine.w.data, self.machine.sizes
        self.v = backend.empty((batch, v), like) if self.rule.algorithm == "cd" else None
        self.h = backend.empty((batch, h), like)

    def to(self, device):
        """Go on there, where the machine has moved; the optimiser follows its weights by itself."""
        for name in ("v", "h", "fast", "active", "betas", "gain"):
            if getattr(self, name, None) is not None:
                setattr(self, name, backend.move(getattr(self, name), device))
        if self.centres is not None:
            self.centres = [backend.move(a, device) for a in self.centres]

    def update(self, v, factor=1.0):
        """One update from a batch v [N,V]; the learning rate is the rule's times factor."""
        m, rule, n = self.machine, self.rule, len(v)
        k, h = m.kernels, self.h[:n]
        dw, db, dc = m.w.grad, m.b.grad, m.c.grad
        dq = None if m.log_variance is None else m.log_variance.grad
        m.chain(v, h, 0, self.stream, factor=-1.0 / n, dw=dw, db=db, dc=dc, dq=dq)
        if rule.centre:
            self._follow(db, dc)
        if rule.sparsity is not None:
            k.axpby(-0.1, dc, 0.9, self.active)
        grads = {"dw": dw, "db": db, "dc": dc, "dq": dq, "beta": 1.0}
        if rule.algorithm == "cd":
            m.chain(self.v[:n], h, rule.k, self.stream, from_hidden=True, factor=1.0 / n, **grads)
        elif rule.algorithm == "tempering":
            self._temper(grads)
        else:
            arrays = self._with_fast() if self.fast is not None else None
            m.chain(m.chain_v, m.chain_h, rule.k, self.stream, arrays, from_hidden=True, factor=1.0 / self.count, **grads)
        if dq is not None:  # of the plain statistics, which centring changes
            self._variance_gradient(dw, db, dq)
        if rule.centre:
            self._centre(dw, db, dc)
        if rule.sparsity is not None:
            k.axpby(rule.sparsity_cost, self.active, 1.0, dc)
            k.axpby(-rule.sparsity_cost * rule.sparsity, backend.full(dc.shape, dc, 1.0), 1.0, dc)
        for p in self.flat.parameters:
            p.beta = 1.0
        if self.fast is not None:
            lr = rule.lr if rule.fast_lr is None else rule.fast_lr
            k.axpby(-lr, self.flat.grad, 19 / 20, self.fast)
        self.optimizer.lr = rule.lr * factor
        self.optimizer.step()
        m.settle_variance()

    def _with_fast(self):
        """Weights and biases with the fast ones on top: what the chains see (Tieleman & Hinton 2009)."""
        total = self.flat.data.copy()
        self.machine.kernels.axpby(1.0, self.fast, 1.0, total)
        at = {name: (start, shape) for name, start, shape in self.flat.table}
        parts = []
        for name in ("w", "b", "c"):
            start, shape = at[name]
            parts.append(total[start : start + math.prod(shape)].reshape(shape))
        return tuple(parts)

    def _temper(self, grads):
        """Chains at all temperatures, exchanges, and the statistics of those at temperature 1."""
        m, rule = self.machine, self.rule
        m.chain(m.chain_v, m.chain_h, rule.k, self.stream, gain=self.gain, from_hidden=True)
        seed, offset = self.stream.take(4)
        m.kernels.gibbs_swap(
            *m.arrays, variance=m.variance, betas=self.betas, parity=self.parity, seed=seed, offset=offset, v=m.chain_v,
            h=m.chain_h,
        )  # fmt: skip
        self.parity = 1 - self.parity
        first = slice(0, self.count)
        m.chain(
            m.chain_v[first], m.chain_h[first], 0, self.stream, from_hidden=True, factor=1.0 / self.count, **grads
        )

    def _follow(self, db, dc):
        """Centres follow the data's means, of which db and dc hold the negatives now."""
        k = self.machine.kernels
        for centre, mean in zip(self.centres, (db, dc), strict=True):
            k.axpby(-0.05, mean, 0.95, centre)

    def _centre(self, dw, db, dc):
        """The gradient of the centred machine, in the parameters of the plain one (Melchior, Fischer & Wiskott 2016)."""
        k, (mu, nu) = self.machine.kernels, self.centres
        v, h = self.machine.sizes
        minus_mu, minus_nu = k.unary_forward(mu, "negate"), k.unary_forward(nu, "negate")
        k.matmul(minus_mu.reshape(v, 1), dc.reshape(1, h), False, False, 1.0, dw)
        k.matmul(db.reshape(v, 1), minus_nu.reshape(1, h), False, False, 1.0, dw)
        k.matmul(dw, minus_nu.reshape(h, 1), False, False, 1.0, db.reshape(v, 1))
        k.matmul(minus_mu.reshape(1, v), dw, False, False, 1.0, dc.reshape(1, h))

    def _variance_gradient(self, dw, db, dq):
        """From sums of v^2/s to the gradient for log s: dq/2 - b db - sum_j w dw (Cho, Ilin & Raiko 2011)."""
        k, m = self.machine.kernels, self.machine
        v, h = m.sizes
        both = k.binary(dw.reshape(1, v * h), m.w.data.reshape(v * h), "multiply").reshape(v, h, 1)
        along = k.reduce_forward(both, "sum").reshape(v)
        shift = k.binary(db.reshape(1, v), m.b.data, "multiply").reshape(v)
        k.axpby(-self.rule.variance_lr, along, 0.5 * self.rule.variance_lr, dq)
        k.axpby(-self.rule.variance_lr, shift, 1.0, dq)

    def healthy(self):
        """Whether all parameters are finite."""
        return math.isfinite(float(backend.to_host(self.machine.kernels.sum_squares(self.flat.data))[0]))

    def get_state(self):
        """All that later updates depend on."""
        m = self.machine
        host = {
            "optimizer": self.optimizer.get_state(),
            "stream": self.stream.get_state(),
            "active": np.array(backend.to_host(self.active)),
            "parity": self.parity,
        }
        for name, a in (("chain_v", m.chain_v), ("chain_h", m.chain_h), ("fast", self.fast)):
            host[name] = None if a is None else np.array(backend.to_host(a))
        host["centres"] = None if self.centres is None else [np.array(backend.to_host(a)) for a in self.centres]
        return host

    def set_state(self, state):
        """Go on from what `get_state` gave."""
        m = self.machine
        self.optimizer.set_state(state["optimizer"])
        self.stream.set_state(state["stream"])
        self.parity = int(state["parity"])
        backend.assign(self.active, state["active"])
        for name, a in (("chain_v", m.chain_v), ("chain_h", m.chain_h), ("fast", self.fast)):
            if state[name] is not None and a is not None:
                backend.assign(a, state[name])
        if self.centres is not None:
            for a, then in zip(self.centres, state["centres"], strict=True):
                backend.assign(a, then)
        m.settle_variance()


# ---------------------------------------------------------------------------------------------- partition function


@dataclasses.dataclass
class Annealing:
    """What annealed importance sampling found.

    Attributes
    ----------
    log_z : float
        Estimate of the log partition function, in nats.
    error : float
        Its standard error.
    low, high : float
        log_z at 3 standard errors less and more.
    reverse : float
        From chains that begin at samples of the model and are annealed backwards: an estimate from above.
    weights : array [chains]
        Log importance weights.
    """

    log_z: float
    error: float
    reverse: float
    weights: np.ndarray

    @property
    def low(self):
        return self.log_z + math.log(max(1.0 - 3 * self.error, 1e-300))

    @property
    def high(self):
        return self.log_z + math.log1p(3 * self.error)


def betas_of(temperatures):
    """Inverse temperatures from 0 to 1, closer together near 1 (Salakhutdinov & Murray 2008: 500, 4000, 10000)."""
    first, second = max(1, temperatures * 5 // 145), max(1, temperatures * 40 // 145)
    third = max(1, temperatures - first - second)
    parts = np.linspace(0, 0.5, first, False), np.linspace(0.5, 0.9, second, False), np.linspace(0.9, 1.0, third)
    betas = np.concatenate(parts)
    betas[-1] = 1.0
    return betas.astype(np.float32)


def log_mean_exp(x):
    """Logarithm of the mean of e^x, and its standard error relative to the mean."""
    x = np.asarray(x, np.float64)
    top = x.max()
    e = np.exp(x - top)
    mean = e.mean()
    return top + math.log(mean), float(e.std(ddof=1) / mean / math.sqrt(len(x))) if len(x) > 1 else math.inf


def log_z_of_base(machine):
    """log Z of the machine that has no weights and the visible biases `base`, and what the free energy adds to it."""
    v, h = machine.sizes
    kind, group, hidden, hidden_group = machine._units
    base = np.asarray(backend.to_host(machine.base), np.float64)
    of_hidden = {
        "bernoulli": math.log(2), "gaussian": 0.0, "relu": math.pi**2 / 12, "softmax": math.log(hidden_group) / hidden_group
    }[hidden] * h  # fmt: skip
    if kind == "bernoulli":
        return np.logaddexp(0, base).sum() + of_hidden, 0.0
    if kind == "softmax":
        g = base.reshape(-1, group)
        top = g.max(1)
        return (top + np.log(np.exp(g - top[:, None]).sum(1))).sum() + of_hidden, 0.0
    s = np.asarray(backend.to_host(machine.variance), np.float64)
    b = np.asarray(backend.to_host(machine.b.data), np.float64)
    # Kernels anneal exp(-v^2/2s + v m/s); the free energy has (v - b)^2.
    return (0.5 * np.log(2 * np.pi * s) + base**2 / (2 * s)).sum() + of_hidden, -float((b**2 / (2 * s)).sum())


def anneal(machine, start, betas, stream, per_call=200):
    """Sum of log p_k - log p_(k-1) along betas, float64 [N], from states start [N,V], which are moved."""
    total, k = np.zeros(len(start)), machine.kernels
    v, h = machine.sizes
    for at in range(0, len(betas) - 1, per_call):
        part = betas[at : at + per_call + 1]
        seed, offset = stream.take(len(part) * (v + h + 8))
        ratio = k.gibbs_anneal(
            *machine.arrays, base=machine.base, variance=machine.variance, betas=backend.to_device(part.copy(), start),
            **machine.layers, seed=seed, offset=offset, v=start,
        )  # fmt: skip
        total += backend.to_host(ratio)
    return total


def sample_base(machine, n, stream):
    """States [n,V] of the machine without weights."""
    v, h = machine.sizes
    like = machine.w.data
    out, zero = backend.empty((n, v), like), backend.zeros((v, h), like)
    seed, offset = stream.take(v)
    kind, group, _, _ = machine._units
    machine.kernels.gibbs_sample_visible(
        backend.zeros((n, h), like), zero, machine.base, variance=machine.variance, units=kind, group=group, seed=seed,
        offset=offset, sample=out,
    )  # fmt: skip
    return out


def exact_log_z(machine):
    """log Z by adding up every state of the smaller layer of Bernoulli units, in float64."""
    w, b, c = (np.asarray(backend.to_host(a), np.float64) for a in machine.arrays)
    kind, group, hidden, hidden_group = machine._units
    if hidden == "bernoulli" and len(c) <= 22:
        s = None if machine.variance is None else np.asarray(backend.to_host(machine.variance), np.float64)

        def other(z):
            if kind == "bernoulli":
                return np.logaddexp(0, z).sum(1)
            if kind == "softmax":
                g = z.reshape(len(z), -1, group)
                top = g.max(2)
                return (top + np.log(np.exp(g - top[..., None]).sum(2))).sum(1)
            return (0.5 * np.log(2 * np.pi * s) + (z**2 - b**2) / (2 * s)).sum(1)

        return _add_up(len(c), c, lambda x: other(b + x @ w.T))
    if kind == "bernoulli" and len(b) <= 22:
        def of_hidden(a):
            if hidden == "softmax":
                return np.logaddexp.reduce(a.reshape(len(a), -1, hidden_group), 2).sum(1)
            each = {"bernoulli": lambda a: np.logaddexp(0, a), "gaussian": lambda a: a * a / 2, "relu": _softplus_integral}
            return each[hidden](a).sum(1)

        return _add_up(len(b), b, lambda x: of_hidden(c + x @ w))
    raise ValueError(
        f"hidden: expected at most 22 Bernoulli units in one of the layers, for an exact sum; got {len(b)} {kind} and "
        f"{len(c)} {hidden} ones (anneal() estimates)"
    )


def _softplus_integral(a):
    """The integral of log(1 + e^t) up to a, of float64 values: up to 0 that of log(1 + e^a y) / y over y from 0 to 1."""
    y, weight = np.polynomial.legendre.leggauss(16)
    y, x = (y + 1) / 2, np.exp(-np.abs(a))
    below = sum(0.5 * u * np.log1p(x * t) / t for t, u in zip(y, weight, strict=True))
    return np.where(a > 0, a * a / 2 + math.pi**2 / 6 - below, below)


def _add_up(n, bias, rest):
    """log of the sum over all x in {0,1}^n of exp(bias x + rest(x))."""
    block = min(n, 12)
    low = ((np.arange(2**block)[:, None] >> np.arange(block)) & 1).astype(np.float64)
    total = -np.inf
    for high in range(2 ** (n - block)):
        x = np.empty((len(low), n))
        x[:, :block] = low
        x[:, block:] = (high >> np.arange(n - block)) & 1
        terms = x @ bias + rest(x)
        total = np.logaddexp(total, np.logaddexp.reduce(terms))
    return float(total)


def stream_of(seed, purpose):
    """The random numbers of one purpose."""
    return Stream(seed).split(purpose)
