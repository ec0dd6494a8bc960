"""Restricted Boltzmann machines: two layers that learn the distribution of their input without labels."""

import dataclasses
import math
import time
import warnings
from numbers import Real

import numpy as np

from .. import backend, train
from .._arguments import functions, natural, number, one_of, positive, schedule_or_none, scheduled
from .._interrupts import interruptible, unless_begun
from ..checkpoint import Run, called, fingerprint, parts_state, set_parts_state
from ..module import shape_of
from ..random import permutation
from ..rows import Rows
from ._base import Model, Transformer
from ._boltzmann import (
    HIDDEN,
    VISIBLE,
    Annealing,
    Machine,
    Rule,
    Trainer,
    anneal,
    betas_of,
    exact_log_z,
    log_mean_exp,
    log_z_of_base,
    sample_base,
    stream_of,
)
from ._door import as_input, must_have_some


class RBM(Transformer, Model):
    """A restricted Boltzmann machine.

        E(v, h) = -b v - c h - v w h          p(v) = sum_h exp(-E(v, h)) / Z

    Gaussian visible units have (v - b)^2 / (2 s) for -b v, and v / s for v in the last term.

    Parameters
    ----------
    hidden : int
        H.
    visible : {'bernoulli', 'gaussian', 'softmax'}
        Bernoulli units take values in [0,1], read as probabilities; softmax units come in groups of `visible_group`, one of
        each on.
    hidden_units : {'bernoulli', 'gaussian', 'relu', 'softmax'}
        relu: noisy rectified units. Their draws are near those of the model that `free_energy` and the likelihoods belong to,
        not quite its own.
    visible_group, hidden_group : int
        Units of a softmax group.
    variance : float, 'data' or 'learned'
        s of Gaussian visible units: one number, each column's variance in the training data, or learned, beginning at that.
        Of a constant column the last two would be 0, and `fit` refuses it; with a number such a unit keeps the column's value,
        and the others learn as without it. All columns want to be within some tens of sqrt(s) from 0, else hidden units hear
        nothing but the largest.
    seed : int

    Attributes
    ----------
    module_ : Machine
        With w [V,H], b [V], c [H] and the persistent chains.
    history_ : dict
        For each epoch `error` (mean squared error of reconstructions, of at most 1,000 samples) and `seconds`.

    References
    ----------
    Hinton, "Training products of experts by minimizing contrastive divergence" (2002), and "A practical guide to training
    restricted Boltzmann machines" (2012); Nair & Hinton (2010), rectified units; Cho, Ilin & Raiko (2011), variances.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import RBM
    >>> X = np.tile([[1, 1, 0, 0], [0, 0, 1, 1]], (50, 1))
    >>> rbm = RBM(hidden=4).fit(X, epochs=50, batch_size=10, lr=0.1)
    >>> rbm.transform(X).shape
    (100, 4)
    """

    _called = "RBM"  # in what is said of its training

    def __init__(self, hidden=256, visible="bernoulli", hidden_units="bernoulli", visible_group=1, hidden_group=1,
                 variance=1.0, seed=0):  # fmt: skip
        for name, value, known in (("visible", visible, VISIBLE), ("hidden_units", hidden_units, HIDDEN)):
            one_of(name, value, known)
        real = isinstance(variance, Real) and not isinstance(variance, bool)
        if not (variance in ("data", "learned") if isinstance(variance, str) else real and 0 < variance < math.inf):
            wrong = ValueError if real or isinstance(variance, str) else TypeError
            raise wrong(f"variance: expected a number above 0, 'data' or 'learned'; got {variance!r}")
        self.hidden, self.visible, self.hidden_units = positive("hidden", hidden), visible, hidden_units
        self.visible_group = positive("visible_group", visible_group)
        self.hidden_group = positive("hidden_group", hidden_group)
        _must_divide("hidden_group", self.hidden_group, hidden_units, self.hidden)
        self.variance, self.seed = variance, seed

    # -------------------------------------------------------------------------------------------- making it

    def _check(self, v):
        if v < 1:
            raise ValueError("X: expected one column or more; got none")
        _must_divide("visible_group", self.visible_group, self.visible, v)

    @unless_begun
    def build(self, input_shape):
        """Make the machine with small random weights and biases of zero.

        Parameters
        ----------
        input_shape : int or tuple of int
            Of one sample.

        Returns
        -------
        The model itself.
        """
        v = math.prod(shape_of(input_shape))
        self._check(v)
        units = (self.visible, self.visible_group, self.hidden_units, self.hidden_group)
        self.input_shape_ = (v,)
        learned = self.visible == "gaussian" and self.variance == "learned"
        self.module_ = Machine(v, self.hidden, units, learned).initialise(self.seed)
        if self.visible == "gaussian" and not isinstance(self.variance, str):
            backend.assign(self.module_.variance, float(self.variance))
        self.module_.to(self._device)
        return self

    def _first(self, x):
        """Biases and variances from the data, as Hinton (2012) recommends."""
        m = self.module_
        x = backend.to_host(x).astype(np.float64) / (255 if x.dtype == np.uint8 else 1)
        mean = x.mean(0)
        if self.visible == "bernoulli":
            p = np.clip((mean * len(x) + 1) / (len(x) + 2), 1e-3, 1 - 1e-3)
            mean = np.log(p / (1 - p))
        elif self.visible == "softmax":
            mean = np.log((mean * len(x) + 1) / (len(x) + self.visible_group))
        elif isinstance(self.variance, str):
            backend.assign(m.variance, x.var(0).astype(np.float32))
            if m.log_variance is not None:
                backend.assign(m.log_variance.data, np.log(x.var(0)).astype(np.float32))
        for a in (m.b.data, m.base):
            backend.assign(a, mean.astype(np.float32))

    def _values(self, X, name="X", missing=False):
        """X as the visible units take it: checked for what they can't be."""
        x = self._input(X, name)
        a = backend.to_host(x)
        if a.dtype == np.uint8 or a.size == 0:
            if self.visible != "softmax" or a.size == 0:
                return x
            a = a.astype(np.float32) / 255
        bad = np.isinf(a) if missing else ~np.isfinite(a)
        if bad.any():
            raise ValueError(f"{name}: expected finite numbers{' or NaN' if missing else ''}; got {a[bad][0]}")
        known = a[~np.isnan(a)] if missing else a
        if self.visible == "bernoulli" and known.size and not (known.min() >= 0 and known.max() <= 1):
            worst = known.max() if known.max() > 1 else known.min()
            raise ValueError(f"{name}: expected values from 0 to 1, for Bernoulli units; got {worst:g}")
        if self.visible == "softmax":
            groups = a.reshape(-1, self.visible_group)
            unknown = np.isnan(groups)
            if (unknown.any(1) != unknown.all(1)).any():
                raise ValueError(f"{name}: expected groups of {self.visible_group} values, all known or all NaN; got a part")
            groups = groups[~unknown.any(1)]
            if groups.size and (groups.min() < 0 or np.abs(groups.sum(-1) - 1).max() > 1e-4):
                raise ValueError(f"{name}: expected groups of {self.visible_group} values that add up to 1; got another sum")
        return x

    def _floats(self, X, name="X"):
        self._need_fit()
        rows = Rows(self._values(X, name), name, self.module_.w.data)
        return rows.take(np.arange(len(rows))).copy()

    # ---------------------------------------------------------------------------------------------- training

    def to(self, device):
        """Work on a device from now on, `partial_fit` as well; see `Model.to`."""
        super().to(device)
        if "_trainer" in self.__dict__:
            self._trainer.to(device)
        return self

    @unless_begun
    def fit(self, X, y=None, *, epochs=10, batch_size=100, algorithm="pcd", k=1, lr=0.05, schedule=None, momentum=0.0,
            weight_decay=0.0, chains=None, temperatures=10, sparsity=None, sparsity_cost=0.1, centre=False, fast_lr=None,
            stochastic=False, warm_start=False, callbacks=(), checkpoint=None, resume=None):  # fmt: skip
        """Learn the distribution of samples.

        Parameters
        ----------
        X : array [N,...]
            uint8 is read as values in [0,1]; 0 and 1 themselves come as bool, int64 or floats.
        y : ignored
        epochs, batch_size : int
        algorithm : {'pcd', 'cd', 'fpcd', 'tempering'}
            Where the model's side of the gradient comes from: chains that go on from update to update, chains that begin at
            the data, the first with fast weights on top, the first at several temperatures.
        k : int
            Gibbs steps an update.
        lr : float
        schedule : callable, optional
            ``schedule(t, total) -> factor`` of the learning rate; see `fastdl.schedules`. `plateau` follows the error.
        momentum, weight_decay : float
        chains : int, optional
            Persistent chains; as many as a batch has samples if left out.
        temperatures : int
            Of tempering; inverse temperatures run evenly from 1 to 0.
        sparsity, sparsity_cost : float, optional
            Share of the time that a hidden unit shall be on, and how strongly its bias is drawn there.
        centre : bool
            Use the gradient of the centred machine.
        fast_lr : float, optional
            Learning rate of the fast weights; `lr` if left out.
        stochastic : bool
            Values of Bernoulli units are chances, and drawn anew each time a sample comes by.
        warm_start : bool
            Go on from the weights and chains of now.
        callbacks : sequence of callables
            ``f(state)`` after every epoch; see `fastdl.train.State`.
        checkpoint, resume : path, optional
            As in `fastdl.train.fit`, persistent chains included.

        Returns
        -------
        The model itself.

        Raises
        ------
        ValueError, TypeError
            The message names the argument: values that the units can't have, columns without variance, ...
        FloatingPointError
            The weights became infinite or NaN; the message says in which epoch.

        Warns
        -----
        RuntimeWarning
            The weights are finite, but samples are given back much worse than by their means alone.
        """
        rule = Rule(algorithm, k, lr, momentum, weight_decay, chains, temperatures, sparsity, sparsity_cost, bool(centre),
                    fast_lr)  # fmt: skip
        epochs, batch_size = natural("epochs", epochs), positive("batch_size", batch_size)
        callbacks = functions("callbacks", callbacks)
        schedule_or_none(schedule)
        x = self._prepare(X, warm_start)
        n, batch = len(x), min(batch_size, len(x))
        trainer = self._trainer = Trainer(self.module_, rule, stream_of(self.seed, "gibbs"), batch)
        shuffling = stream_of(self.seed, "shuffle")
        rows = Rows(x, "X", self.module_.w.data)
        updates = -(-n // batch)
        if stochastic and self.visible != "bernoulli":
            raise ValueError(f"stochastic: expected Bernoulli visible units; got {self.visible} ones")
        self.history_ = {"epoch": [], "error": [], "seconds": [], "stopped": "done"}
        state = train.State(self.module_, None, self.history_, epochs, epochs * updates)
        identity = {"X": fingerprint(x), "batch_size": batch, "seed": self.seed, "schedule": called(schedule),
                    "epochs": None if schedule is None or hasattr(schedule, "observe") else epochs,
                    "stochastic": bool(stochastic), **dataclasses.asdict(rule)}  # fmt: skip
        run = Run(self._checkpoint(checkpoint, resume), resume, identity)
        parts, first, begin = [schedule, *callbacks], 1, 0
        if run.state is not None:
            first, shuffling.offset = run.state["epoch"], run.state["shuffle_offset"]
            begin = run.state.get("begin", 0)  # files of older versions have none
            self.module_.set_weights(run.state["module"]["weights"])
            trainer.set_state(run.state["trainer"])
            state.set_state(run.state["state"])
            set_parts_state(parts, run.state.get("parts", {}))
        seen = None

        def state_of(epoch, begin, shuffle_offset):
            """All that later updates depend on, at row `begin` of an epoch whose order is drawn at that offset."""
            return {
                "epoch": epoch,
                "begin": begin,
                "shuffle_offset": shuffle_offset,
                "trainer": trainer.get_state(),
                "state": state.get_state(),
                "module": {"weights": self.module_.get_weights()},
                "parts": parts_state(parts),
            }

        with interruptible(self.history_) as interrupts:
            for epoch in range(first, epochs + 1):
                begun, drawn_at = time.perf_counter(), shuffling.offset
                order = permutation(n, *shuffling.take(2 * n))
                with backend.pooled():
                    for start in range(begin, n, batch):
                        factor = 1.0 if schedule is None else scheduled(schedule, state.step, state.total)
                        v = rows.take(order[start : start + batch])
                        if stochastic:
                            v = self.module_.kernels.bernoulli(v, *trainer.stream.take(v.size))
                        trainer.update(self._complete(v), factor)
                        state.step += 1
                        wanted = interrupts.asked or (run.due(state.step) and start + batch < n)
                        if state.step % 100 == 0 or start + batch >= n or wanted:
                            self._must_be_finite(trainer, epoch)
                        if wanted:
                            run.write(lambda: state_of(epoch, start + batch, drawn_at), state.step)  # noqa: B023
                        if interrupts.asked:
                            break
                seen = np.sort(order[:1000])
                error = self._reconstruction_error(rows, seen)
                self.history_["epoch"].append(epoch)
                self.history_["error"].append(error)
                self.history_["seconds"].append(time.perf_counter() - begun)
                if interrupts.asked:
                    raise KeyboardInterrupt
                state.epoch, state.loss = epoch, error
                for f in callbacks:
                    f(state)
                if hasattr(schedule, "observe"):
                    schedule.observe(error)
                begin = 0
                run.write(lambda: state_of(epoch + 1, 0, shuffling.offset), state.step)  # noqa: B023
                if state.stop:
                    self.history_["stopped"] = "callback"
                    break
        if seen is not None:
            self._warn_if_diverged(rows, seen, rule.lr)
        return self

    def _warn_if_diverged(self, rows, seen, lr):
        """Where the hidden units give the rows that were seen back much worse than the means alone would."""
        errors = self.history_["error"]
        v = backend.to_host(self._complete(rows.take(seen))).astype(np.float64)
        spread = float(v.var(0).mean())
        fixed = 0.0 if isinstance(self.variance, str) else float(self.variance)
        # Gaussian units may have any scale; all others lie between 0 and 1, and where they do not vary there is nothing to learn.
        most = 100.0 * (spread + fixed) if self.visible == "gaussian" else spread + 0.1
        if spread > 1e-3 and errors[-1] > most:
            warnings.warn(
                f"{self._called}: reconstruction error {errors[-1]:.3g} after {len(errors)} epochs, where means alone give "
                f"{spread:.3g}: the training has diverged; a smaller lr than {lr:g} may help",
                RuntimeWarning,
                stacklevel=4,
            )

    def _prepare(self, X, warm_start):
        x = self._begin(X, warm_start)
        if not hasattr(self, "module_"):
            self._check(x.shape[1])
        x = self._values(x)
        if not hasattr(self, "module_"):
            if self.visible == "gaussian" and isinstance(self.variance, str):
                spread = backend.to_host(x).astype(np.float64).var(0)
                bad = ~((spread > 1e-37) & (spread < 1e37))  # what float32 holds, and 1 / it
                if bad.any():
                    at = int(np.argmax(bad))
                    raise ValueError(
                        "X: expected columns that vary, for Gaussian units with variances from the data (a number as variance "
                        f"takes constant ones); got column {at} "
                        + ("constant" if spread[at] == 0 else f"of variance {spread[at]:.2g}")
                    )
            self.build(x.shape[1])
            self._first(x)
        return x

    def _complete(self, v):
        """The visible units' values of a batch: all of them are observed here."""
        return v

    def _must_be_finite(self, trainer, epoch):
        if not trainer.healthy():
            raise FloatingPointError(
                f"{self._called}: weights became infinite or NaN in epoch {epoch}; expected a smaller lr than {trainer.rule.lr:g}"
                + (", or standardised data" if self.visible == "gaussian" else "")
            )

    def _reconstruction_error(self, rows, index):
        m = self.module_
        v = self._complete(rows.take(index))
        again = m.visible(m.hidden(v))
        return float(np.mean((backend.to_host(v).astype(np.float64) - backend.to_host(again)) ** 2))

    @unless_begun
    def partial_fit(self, X, y=None, *, algorithm="pcd", lr=0.05, k=1, momentum=0.0, weight_decay=0.0, chains=None):
        """One update from one batch X; chains and momentum go on from call to call. Returns the model itself."""
        rule = Rule(algorithm, k, lr, momentum, weight_decay, chains)
        x = self._prepare(X, True)
        trainer = self.__dict__.get("_trainer")
        if trainer is None or trainer.machine is not self.module_ or trainer.rule != rule:
            stream = stream_of(self.seed, "gibbs") if trainer is None else trainer.stream
            trainer = self._trainer = Trainer(self.module_, rule, stream, len(x))
        elif len(trainer.h) < len(x):
            trainer.make_room(len(x))
        trainer.update(Rows(x, "X", self.module_.w.data).take(np.arange(len(x))))
        self._must_be_finite(trainer, 1)
        return self

    # --------------------------------------------------------------------------------------------- its layers

    def transform(self, X):
        """Means of the hidden units, float32 [N,H]."""
        v = self._floats(X)
        return backend.to_host(self.module_.hidden(v))

    def inverse_transform(self, H):
        """Means of the visible units given hidden ones [N,H], float32 [N,V]."""
        self._need_fit()
        h = as_input(H, "H")
        if h.ndim != 2 or h.shape[1] != self.hidden:
            raise ValueError(f"H: expected shape [N,{self.hidden}]; got {list(h.shape)}")
        return backend.to_host(self.module_.visible(backend.to_device(backend.array(h), self.module_.w.data)))

    def reconstruct(self, X):
        """Means of the visible units given the means of the hidden ones, float32 [N,V]."""
        return self.inverse_transform(self.transform(X))

    def gibbs(self, X, steps=1, seed=0):
        """States after some Gibbs steps from X, float32 [N,V]."""
        steps, v = positive("steps", steps), self._floats(X)
        h = backend.zeros((len(v), self.hidden), v)
        with backend.pooled():
            self.module_.chain(v, h, steps, stream_of(seed, "sample"))
        return backend.to_host(v)

    def sample(self, n=1, steps=1000, seed=0, start=None, means=False):
        """Samples of the model after `steps` Gibbs steps.

        Parameters
        ----------
        n, steps : int
        seed : int
        start : array [N,V], optional
            Where the chains begin, of which there are then N: where the persistent chains are, if there are any, else at random.
        means : bool
            Give the means of the last step instead of its samples: smoother pictures.

        Returns
        -------
        array of float32 [n,V]
        """
        self._need_fit()
        m, stream = self.module_, stream_of(seed, "sample")
        n, steps = natural("n", n), natural("steps", steps)
        if start is not None:
            v = self._floats(start, "start")
        elif m.chain_v is not None:
            v = backend.take(m.chain_v, backend.to_device(np.arange(n) % len(m.chain_v), m.chain_v)).copy()
        else:
            v = sample_base(m, n, stream)
        h = backend.zeros((len(v), self.hidden), v)
        with backend.pooled():
            m.chain(v, h, steps, stream)
        return backend.to_host(m.visible(h) if means else v)

    def impute(self, X, burn_in=100, samples=100, seed=0):
        """Fill in missing values (NaN) by Gibbs sampling with the known ones held fast.

        Groups of softmax units are missing as a whole. The chain goes on with samples; what is returned is the mean, over
        `samples` steps after `burn_in`, of what each step expects of the missing values.

        Returns
        -------
        array of float32 [N,V]
        """
        self._need_fit()
        samples, burn_in = positive("samples", samples), natural("burn_in", burn_in)
        m, x = self.module_, backend.to_host(self._values(X, missing=True))
        x = x.astype(np.float32) / np.float32(255 if x.dtype == np.uint8 else 1)
        missing = np.isnan(x)
        if not missing.any():
            return x
        stream = stream_of(seed, "impute")
        begin = backend.to_host(sample_base(m, len(x), stream))
        v = backend.to_device(np.where(missing, begin, x), m.w.data)
        fixed = backend.to_device((~missing).astype(np.uint8), m.w.data)
        h, total = backend.zeros((len(v), self.hidden), v), np.zeros(x.shape)
        with backend.pooled():
            m.chain(v, h, burn_in, stream, fixed=fixed)
            for _ in range(samples):
                m.chain(v, h, 1, stream, fixed=fixed, from_hidden=True)
                total += backend.to_host(m.visible(h))
        return np.where(missing, total / samples, x).astype(np.float32)

    # -------------------------------------------------------------------------------------------- likelihood

    def free_energy(self, X):
        """-log of a sample's probability, up to log Z: float32 [N]."""
        v = self._floats(X)
        return backend.to_host(self.module_.free_energy(v))

    def pseudo_likelihood(self, X, seed=0):
        """Stochastic estimate of sum_i log p(v_i | the others) in nats, one unit of each sample at a time: float64 [N].

        Bernoulli visible units only.
        """
        if self.visible != "bernoulli":
            raise ValueError(f"visible: expected 'bernoulli', for the pseudo-likelihood; got {self.visible!r}")
        v = backend.to_host(self._floats(X))
        words = backend.cpu.random_words(*stream_of(seed, "flip").take(len(v)), backend.empty((len(v),), None, np.uint32))
        place, each = words.astype(np.int64) % v.shape[1], np.arange(len(v))
        flipped = v.copy()
        flipped[each, place] = 1 - flipped[each, place]
        here, there = (self.free_energy(a).astype(np.float64) for a in (v, flipped))
        return -v.shape[1] * np.logaddexp(0, here - there)

    score_samples = pseudo_likelihood  # scikit-learn's name for it

    def score(self, X, y=None):
        """Mean pseudo-likelihood of samples."""
        return float(must_have_some(self.pseudo_likelihood(X)).mean())

    def log_z(self):
        """The logarithm of the partition function, exact, where one layer has at most 22 Bernoulli units."""
        self._need_fit()
        return exact_log_z(self.module_)

    def log_likelihood(self, X, log_z=None):
        """log p(v) in nats of each sample, float64 [N], with the log_z given or the exact one."""
        z = self.log_z() if log_z is None else float(number("log_z", log_z))
        return -self.free_energy(X).astype(np.float64) - z

    def anneal(self, chains=100, temperatures=10000, seed=0, reverse_steps=1000):
        """Estimate the partition function by annealed importance sampling, from below and from above.

        With rectified hidden units, whose draws are not quite the model's, both may miss by tenths of a nat and yet agree.

        Parameters
        ----------
        chains, temperatures : int
            The first machine has no weights, and biases that give the training data's base rates.
        seed : int
        reverse_steps : int
            Gibbs steps by which the persistent chains (or random states) are moved before they are annealed backwards; 0:
            no estimate from above. It is one only so far as these states are samples of the model.

        Returns
        -------
        Annealing

        References
        ----------
        Neal (2001); Salakhutdinov & Murray (2008); Burda, Grosse & Salakhutdinov (2015), backwards.
        """
        self._need_fit()
        chains, temperatures = positive("chains", chains), positive("temperatures", temperatures)
        reverse_steps = natural("reverse_steps", reverse_steps)
        if chains < 2 or temperatures < 3:
            raise ValueError(f"chains, temperatures: expected at least 2 and 3; got {chains} and {temperatures}")
        m, stream = self.module_, stream_of(seed, "anneal")
        base, constant = log_z_of_base(m)
        betas = betas_of(temperatures)
        with backend.pooled():
            weights = anneal(m, sample_base(m, chains, stream), betas, stream) + base + constant
            log_z, error = log_mean_exp(weights)
            reverse = math.nan
            if reverse_steps:
                start = backend.to_device(self.sample(chains, reverse_steps, seed), m.w.data).copy()
                back = anneal(m, start, betas[::-1].copy(), stream)
                reverse = base + constant - log_mean_exp(back)[0]
        return Annealing(log_z, error, reverse, weights)

    # ------------------------------------------------------------------------------------------------- files

    def _build_from(self, config):
        return self.build(tuple(config["input_shape"]))

    def summary(self):
        """A few words on layers and parameters."""
        self._need_fit()
        v, h = self.module_.sizes
        layers = f"{v} {self.visible} visible units, {h} {self.hidden_units} hidden units"
        return f"{self!r}\n{layers}, {self.module_.count():,} parameters"


def _must_divide(name, group, kind, units):
    """Softmax units come in whole groups."""
    if kind == "softmax" and (group < 2 or units % group):
        raise ValueError(f"{name}: expected a divisor of {units} units, at least 2; got {group}")
