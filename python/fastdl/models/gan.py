"""Generative adversarial networks: a generator learns to make what a discriminator takes for data."""

import copy
import math
import time
import warnings

import numpy as np

from .. import backend, nn, ops, optim, train
from .._arguments import chance, functions, natural, not_negative, one_of, positive, schedule_or_none, scheduled, sizes
from .._interrupts import interruptible, unless_begun
from ..checkpoint import Run, called, fingerprint, module_state, parts_state, set_module_state, set_parts_state
from ..module import shape_of
from ..random import Stream, normal, permutation
from ..rows import Rows
from ..tensor import Tensor, frozen, inference
from ._base import Model
from ._door import as_input, must_be_within
from .cnn import CNN

LOSSES = ("non_saturating", "least_squares", "hinge", "wasserstein")
_RECORDED = ("epoch", "loss", "loss_d", "real", "fake", "diversity", "collapsed", "seconds")


class GAN(Model):
    """Two networks against each other: G makes samples from random numbers, D says how likely a sample is data.

    With d(x) the output of D before any sigmoid, z normal, and means over a batch, D and G minimise

    ===============  ==================================================  ========================
    loss             of D                                                of G
    ===============  ==================================================  ========================
    non_saturating   -log s(d(x)) - log(1 - s(d(G(z)))), s the sigmoid   -log s(d(G(z)))
    least_squares    (d(x) - 1)^2 + d(G(z))^2                            (d(G(z)) - 1)^2
    hinge            max(0, 1 - d(x)) + max(0, 1 + d(G(z)))              -d(G(z))
    wasserstein      d(G(z)) - d(x), weights clipped                     -d(G(z))
    ===============  ==================================================  ========================

    Parameters
    ----------
    architecture : {'mlp', 'dcgan'}
        Dense layers; or convolutions of stride 2 in D and transposed ones with batch normalisation in G, for images of
        at least 4x4 pixels.
    latent : int
        Random numbers a sample.
    hidden : int or sequence of int
        Units of G's hidden layers ('mlp'); D has them in reverse.
    batch_norm : bool
        Batch normalisation of G's hidden layers ('mlp'; 'dcgan' always has it): a bad start then does not fold it up.
    width : int
        Filters of the layers nearest to the image ('dcgan').
    output : {'sigmoid', 'tanh', 'none'}
        Of G: what range data have, [0,1], [-1,1] or any.
    loss : {'non_saturating', 'least_squares', 'hinge', 'wasserstein'}
    smoothing : float
        Targets of data are 1 - smoothing instead of 1 (non_saturating, least_squares).
    spectral_norm : bool
        Divide D's weights by their largest singular value; see `fastdl.nn.SpectralNorm`.
    clip_weights : float
        Of D, for 'wasserstein'.
    steps_d : int
        Updates of D for each one of G.
    average : float
        Samples come from a running mean of G's weights that keeps this share of itself at each update (less at first);
        0: from G as it is. The mean does not swing with the game, in which G runs from class to class.
    seed : int
        Decides initial weights, order of samples and random numbers.

    Attributes
    ----------
    module_ : Module
        With parts `generator` and `discriminator`.
    history_ : dict
        For each epoch: `loss` (of G), `loss_d`, `real` and `fake` (mean probability that D gave to data and to samples),
        `diversity` and `collapsed`; see `fit`.

    Notes
    -----
    The tape has first derivatives only, and a penalty on the gradient of D needs second ones: there is no WGAN-GP and no R1 here.
    What bounds D's slope is weight clipping or spectral normalisation, which need first derivatives.

    Data and samples go through D in batches of their own, so that batch normalisation does not mix them.

    References
    ----------
    Goodfellow et al., "Generative adversarial nets" (2014); Radford, Metz & Chintala, "Unsupervised representation
    learning with deep convolutional generative adversarial networks" (2016); Mao et al., "Least squares generative
    adversarial networks" (2017); Arjovsky, Chintala & Bottou, "Wasserstein GAN" (2017); Lim & Ye, "Geometric GAN"
    (2017); Salimans et al., "Improved techniques for training GANs" (2016) for one-sided label smoothing; Yazici et
    al., "The unusual effectiveness of averaging in GAN training" (2019).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import GAN
    >>> X = np.random.default_rng(0).standard_normal((512, 2)) * 0.1 + [3.0, -1.0]
    >>> model = GAN("mlp", latent=4, hidden=(32,), output="none").fit(X, epochs=30, batch_size=64, lr=2e-3)
    >>> model.sample(5).shape
    (5, 2)
    """

    _fitted = ("module_", "input_shape_", "sample_shape_")

    def __init__(self, architecture="mlp", latent=64, hidden=(256, 512), width=32, output="sigmoid",
                 loss="non_saturating", smoothing=0.0, spectral_norm=False, clip_weights=0.01, steps_d=1, average=0.0,
                 batch_norm=False, seed=0):  # fmt: skip
        if architecture not in ("mlp", "dcgan"):
            raise ValueError(f"architecture: expected 'mlp' or 'dcgan'; got {architecture!r}")
        if output not in ("sigmoid", "tanh", "none"):
            raise ValueError(f"output: expected 'sigmoid', 'tanh' or 'none'; got {output!r}")
        one_of("loss", loss, LOSSES)
        if chance("smoothing", smoothing) and loss not in LOSSES[:2]:
            raise ValueError(
                f"smoothing: expected 0 <= smoothing < 1, with non_saturating or least_squares; got {smoothing} with {loss}"
            )
        if not not_negative("clip_weights", clip_weights):
            raise ValueError(f"clip_weights: expected more than 0; got {clip_weights}")
        latent, width, steps_d = positive("latent", latent), positive("width", width), positive("steps_d", steps_d)
        self.architecture, self.latent, self.hidden, self.width = architecture, latent, sizes("hidden", hidden), width
        self.output, self.loss, self.smoothing, self.spectral_norm = output, loss, smoothing, spectral_norm
        chance("average", average)
        self.clip_weights, self.steps_d, self.average = clip_weights, steps_d, average
        self.batch_norm, self.seed = batch_norm, seed

    # ------------------------------------------------------------------------------------------ the networks

    def _shape(self, x, name="X"):
        if self.architecture == "mlp":
            return super()._shape(x, name)
        x = CNN._shape(_NoShape, x, name)
        if min(x.shape[1:3]) < 4:
            raise ValueError(f"{name}: expected images of at least 4x4 pixels; got {list(x.shape[1:])}")
        return x

    def _make(self, input_shape, outputs=None):
        make = _mlp if self.architecture == "mlp" else _dcgan
        return _Pair(*make(input_shape, self))

    @unless_begun
    def build(self, input_shape):
        """Make both networks with initial weights, for samples of this shape; returns the model itself."""
        self.sample_shape_ = shape_of(input_shape)
        self.input_shape_ = self._shape(np.empty((0, *self.sample_shape_), np.float32)).shape[1:]
        self.module_ = self._make(self.input_shape_)
        self.module_.generator.trace((self.latent,))
        self.module_.build(self.input_shape_, self.seed).eval()
        if self.average:
            self.module_.averaged = copy.deepcopy(self.module_.generator)
        self.module_.to(self._device)
        return self

    def _describe(self):
        return super()._describe() | {"sample_shape": list(self.sample_shape_)}

    def _build_from(self, config):
        return self.build(tuple(config["sample_shape"]))

    # ------------------------------------------------------------------------------------------ training

    @unless_begun
    def fit(self, X, y=None, *, epochs=20, batch_size=64, lr=None, lr_d=None, optimizer="adam", beta1=None, schedule=None,
            on_collapse="warn", warm_start=False, callbacks=(), on_step=(), checkpoint=None, resume=None):  # fmt: skip
        """Learn to make samples like those of X.

        Parameters
        ----------
        X : array [N,...]
            Any real dtype; uint8 images are read as values in [0,1].
        y : ignored
        epochs, batch_size : int
            A last batch that is not whole is left out; a batch is all samples where there are fewer.
        lr, lr_d : float, optional
            Learning rates of G and of D; the same if `lr_d` is left out. 2e-4 where the optimiser is named.
        optimizer : str or callable
            As in `Classifier.fit`; a function is called for either network.
        beta1 : float, optional
            Of 'adam' and 'adamw', 0.5 if left out; a function gets it as it gets a learning rate, where there is one.
        schedule : callable, optional
            ``schedule(t, total) -> factor`` of both learning rates, t the updates of G.
        on_collapse : {'warn', 'stop', 'ignore'}
            After each epoch `diversity` compares samples with as many data: the smaller of the ratios of their variance
            and of their median distance to the nearest other one. Below 0.2 the generator makes much the same again
            and again (mode collapse): `collapsed` is recorded, and a RuntimeWarning comes, or training stops.
        warm_start : bool
            Go on from the weights of now.
        callbacks, on_step : sequence of callables
            ``f(state)`` after every epoch, every update of G; see `fastdl.train.State` (`module` is the pair).
        checkpoint, resume : path, optional
            As in `fastdl.train.fit`.

        Returns
        -------
        The model itself.

        Raises
        ------
        FloatingPointError
            A loss became infinite or NaN.
        """
        if on_collapse not in ("warn", "stop", "ignore"):
            raise ValueError(f"on_collapse: expected 'warn', 'stop' or 'ignore'; got {on_collapse!r}")
        epochs, batch_size = positive("epochs", epochs), positive("batch_size", batch_size)
        callbacks, on_step = functions("callbacks", callbacks), functions("on_step", on_step)
        if hasattr(schedule_or_none(schedule), "observe"):
            raise ValueError("schedule: expected one of time alone, as no loss says how far a GAN is; got one that follows one")
        if lr_d is not None:
            not_negative("lr_d", lr_d)
        x = self._begin(X, warm_start)
        batch_size = min(batch_size, len(x))
        if self.output != "none":
            low = 0 if self.output == "sigmoid" else -1
            must_be_within(x, low, 1, f"which output {self.output!r} gives (output='none' gives any)")
        if not hasattr(self, "module_"):
            self.build(as_input(X).shape[1:])
        pair, n = self.module_, len(x)
        players = _players(pair, optimizer, lr, lr if lr_d is None else lr_d, beta1)
        rates = [p.lr for p in players]
        rows = Rows(x, "X", players[0].flat.data)
        shuffling, draws = Stream(self.seed).split("shuffle"), Stream(self.seed).split("latent")
        self.history_ = history = {name: [] for name in _RECORDED} | {"stopped": "done"}
        steps = n // batch_size
        state = train.State(pair, None, history, epochs, epochs * max(1, steps // self.steps_d))
        identity = {"X": fingerprint(x), "batch_size": batch_size, "seed": self.seed, "loss": self.loss,
                    "schedule": called(schedule), "epochs": None if schedule is None else epochs, "steps_d": self.steps_d,
                    "smoothing": self.smoothing, "average": self.average, **players[0].settings(),
                    **{f"{name}_d": value for name, value in players[1].settings().items()}}  # fmt: skip
        run, first, begin, sums = Run(self._checkpoint(checkpoint, resume), resume, identity), 1, 0, np.zeros(4)
        parts = [schedule, *callbacks, *on_step]
        if run.state is not None:
            first = self._resume(run.state, players, shuffling, draws, state)
            if "begin" in run.state:  # files of older versions have none
                begin, sums = run.state["begin"], np.array(run.state["sums"])
            set_parts_state(parts, run.state.get("parts", {}))
        duel, steps_d = _Duel(self, players, draws, batch_size), min(self.steps_d, steps)

        def progress(epoch, shuffle, begin, sums):
            """All that later updates depend on, after `begin` of an epoch whose order is drawn at that place."""
            return {
                "epoch": epoch,
                "begin": begin,
                "sums": sums.tolist(),
                "module": module_state(pair),
                "optimizers": {str(i): p.get_state() for i, p in enumerate(players)},
                "shuffle": shuffle,
                "latent": draws.get_state(),
                "state": state.get_state(),
                "parts": parts_state(parts),
            }

        with interruptible(history) as interrupts:
            try:
                for epoch in range(first, epochs + 1):
                    begun, place, cut = time.perf_counter(), shuffling.get_state(), False
                    order = permutation(n, *shuffling.take(2 * n))
                    rounds, done = steps // steps_d, begin
                    for i in range(begin, rounds):
                        if schedule is not None:
                            factor = scheduled(schedule, state.step, state.total)
                            for player, rate in zip(players, rates, strict=True):
                                player.lr = rate * factor
                        batches = [order[(i * steps_d + j) * batch_size :][:batch_size] for j in range(steps_d)]
                        with backend.pooled():
                            figures = duel.step(rows, batches, state.step)
                        if not np.isfinite(figures).all():
                            raise FloatingPointError(
                                f"loss: expected finite numbers; got {figures[0]} of G and {figures[1]} of D at epoch {epoch}, "
                                f"step {state.step + 1}" + _not_finite(x)
                            )
                        sums, done = sums + figures, i + 1
                        state.step, state.loss, state.epoch = state.step + 1, float(figures[0]), epoch
                        for f in on_step:
                            f(state)
                        cut = state.stop or interrupts.asked
                        if cut or (run.due(state.step) and done < rounds):
                            run.write(lambda: progress(epoch, place, done, sums), state.step)  # noqa: B023
                        if cut:
                            break
                    self._close_epoch(epoch, sums / done, x, history, time.perf_counter() - begun)
                    if interrupts.asked:
                        raise KeyboardInterrupt
                    state.loss = history["loss"][-1]
                    for f in callbacks:
                        f(state)
                    stop = self._alarm(history, on_collapse)
                    begin, sums = 0, np.zeros(4)
                    if not cut:  # else the state inside the epoch, from which more can follow, is written already
                        run.write(lambda: progress(epoch + 1, shuffling.get_state(), 0, sums), state.step)  # noqa: B023
                    if stop or state.stop:
                        history["stopped"] = "collapsed" if stop else "callback"
                        break
            finally:
                pair.eval()
                for player, rate in zip(players, rates, strict=True):
                    player.lr = rate
        return self

    def _close_epoch(self, epoch, means, x, history, seconds):
        n = min(256, len(x))
        # evenly through the data, which may be sorted
        picked = np.linspace(0, len(x) - 1, n).astype(np.int64)
        rows = Rows(x).take(picked)
        diversity = spread_of(self.sample(n, seed=self.seed + 1), backend.to_host(rows))
        values = (epoch, *(float(m) for m in means), diversity, diversity < 0.2, seconds)
        for name, value in zip(_RECORDED, values, strict=True):
            history[name].append(value)

    def _alarm(self, history, on_collapse):
        """Whether to stop."""
        if not history["collapsed"][-1] or on_collapse == "ignore":
            return False
        if on_collapse == "stop":
            return True
        if len(history["collapsed"]) == 1 or not history["collapsed"][-2]:
            warnings.warn(
                f"mode collapse at epoch {history['epoch'][-1]}: samples are much more alike than data "
                f"(diversity {history['diversity'][-1]:.2f}); a smaller lr_d, smoothing or spectral_norm may help",
                RuntimeWarning,
                stacklevel=4,
            )
        return False

    def _resume(self, then, players, shuffling, draws, state):
        set_module_state(self.module_, then["module"])
        for i, player in enumerate(players):
            player.set_state(then["optimizers"][str(i)])
        shuffling.set_state(then["shuffle"])
        draws.set_state(then["latent"])
        state.set_state(then["state"])
        return then["epoch"]

    # ------------------------------------------------------------------------------------------ use

    def sample(self, n=1, seed=0):
        """n new samples, float32 [n,...] in the shape of the data's samples; the same for the same seed."""
        self._need_fit()
        return self.generate(normal((natural("n", n), self.latent), seed=seed))

    def generate(self, z):
        """Samples from latent numbers [N, latent]: points between two of them change one sample into another."""
        self._need_fit()
        z = as_input(z, "z")
        if z.shape[1:] != (self.latent,):
            raise ValueError(f"z: expected shape [N,{self.latent}]; got {list(z.shape)}")
        y = backend.to_host(train.predict(self.module_.maker, backend.array(z, np.float32)))
        return y.reshape(len(y), *self.sample_shape_)

    def decision_function(self, X):
        """D's output before the sigmoid, float32 [N]."""
        self._need_fit()
        return backend.to_host(train.predict(self.module_, self._input(X))).reshape(-1)

    def discriminate(self, X):
        """The probability, by D, that samples are data and not made by G: float32 [N].

        Of 'least_squares' it is d cut to [0,1]. 'hinge' and 'wasserstein' have outputs on a scale of their own, to which
        a sigmoid is applied: larger still means more like data, but 1/2 has no meaning.
        """
        d = self.decision_function(X)
        if self.loss == "least_squares":
            return np.clip(d, 0.0, 1.0)
        with inference():
            return backend.to_host(ops.sigmoid(Tensor(d)).data)


def _players(pair, optimizer, lr, lr_d, beta1):
    """The optimisers of G and of D."""
    options = {} if beta1 is None else {"beta1": beta1}
    if not callable(optimizer):
        lr, lr_d = (2e-4 if rate is None else rate for rate in (lr, lr_d))
        if optimizer in ("adam", "adamw"):
            options = {"beta1": 0.5} | options
        elif options:
            raise ValueError(f"beta1: expected none with {optimizer!r}, which has no such number; got {beta1}")
    players = []
    for net, rate in ((pair.generator, lr), (pair.discriminator, lr_d)):
        player = optim.get(optimizer, net, **options, **({} if rate is None else {"lr": rate}))
        if not hasattr(player, "flat"):
            raise TypeError(f"optimizer: expected an Optimizer made for this module; got {type(player).__name__}")
        if not player.flat.holds(net.named_parameters()):
            raise ValueError("optimizer: expected one that was made for this module as it is now; got one for other parameters")
        players.append(player)
    return players


def _not_finite(x):
    """What to say of data that hold NaN or infinity."""
    a = backend.to_host(x)
    return "" if np.isfinite(a.min()) and np.isfinite(a.max()) else ". X is not finite"


class _NoShape:
    """For `CNN._shape`: images come as images."""

    image_shape = None


class _Duel:
    """One update of each network: the algorithm itself."""

    def __init__(self, model, players, draws, batch_size):
        self.pair, self.loss, self.draws = model.module_, model.loss, draws
        self.g, self.d = players
        self.shape, self.clip = (batch_size, model.latent), model.clip_weights
        like = self.g.flat.data
        self.real = backend.full((batch_size, 1), like, 1.0 - model.smoothing)
        self.fake = backend.full((batch_size, 1), like, -1.0 if model.loss == "hinge" else 0.0)
        self.ones = backend.full((batch_size, 1), like, 1.0)
        self.average, averaged = model.average, self.pair.averaged
        if self.average:
            self.means = [(averaged.flatten().data, like)]
            buffers = zip(averaged.named_buffers(), self.pair.generator.named_buffers(), strict=True)
            self.means += [(mean, now) for (_, mean), (_, now) in buffers]

    def step(self, rows, batches, done=0):
        """Train D on each batch of row numbers, then G once; returns losses of G and D, and D's mean verdicts.

        `done`: updates of G before this one.
        """
        generator, discriminator = self.pair.train().generator, self.pair.discriminator
        for index in batches:
            real = discriminator(Tensor(rows.take(index)))
            with inference():
                made = generator(self._latent())
            fake = discriminator(made)
            loss_d = self._loss_d(real, fake)
            self.d.zero_grad()
            loss_d.backward()
            value_d = loss_d.item()  # after the backward pass, which a GPU does before it can answer
            if not math.isfinite(value_d):
                return math.nan, value_d, 0.0, 0.0
            self.d.step()
            if self.loss == "wasserstein":
                self._clip()
        with frozen(discriminator.parameters()):
            loss_g = self._loss_g(discriminator(generator(self._latent())))
            self.g.zero_grad()
            loss_g.backward()
            value_g = loss_g.item()
            if math.isfinite(value_g):
                self.g.step()
                if self.average:
                    keep = min(self.average, (1 + done) / (10 + done))
                    for mean, now in self.means:
                        backend.kernels(now).axpby(1.0 - keep, now, keep, mean)
        return value_g, value_d, *(self._verdict(a.data) for a in (real, fake))

    def _latent(self):
        like = self.g.flat.data
        seed, offset = self.draws.take(self.shape[0] * self.shape[1])
        return Tensor(backend.kernels(like).normal(0.0, 1.0, seed, offset, backend.empty(self.shape, like)))

    def _loss_d(self, real, fake):
        if self.loss == "wasserstein":
            return ops.subtract(ops.mean(fake), ops.mean(real))
        of = {
            "non_saturating": ops.binary_cross_entropy,
            "least_squares": ops.mse,
            "hinge": ops.hinge,
        }[self.loss]
        return ops.add(of(real, self.real), of(fake, self.fake))

    def _loss_g(self, fake):
        if self.loss == "non_saturating":
            return ops.binary_cross_entropy(fake, self.ones)
        if self.loss == "least_squares":
            return ops.mse(fake, self.ones)
        return ops.multiply(ops.mean(fake), -1.0)

    def _verdict(self, d):
        d = backend.to_host(d)
        return float(np.mean(np.clip(d, 0, 1) if self.loss == "least_squares" else 0.5 + 0.5 * np.tanh(0.5 * d)))

    def _clip(self):
        w = self.d.flat.data
        k, column = backend.kernels(w), w.reshape(-1, 1)
        k.binary(column, backend.full((1,), w, self.clip), "minimum", column)
        k.binary(column, backend.full((1,), w, -self.clip), "maximum", column)


def spread_of(samples, data):
    """How varied samples are against as many data: 1 as varied, near 0 all alike.

    The smaller of two ratios: of total variances, and of the median distances from a sample to the nearest other one.
    """
    a, b = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (samples, data))

    def nearest(x):
        squares = np.square(x).sum(1)
        d = squares[:, None] + squares[None] - 2 * x @ x.T
        np.fill_diagonal(d, np.inf)
        return math.sqrt(max(float(np.median(d.min(1))), 0.0))

    variances = a.var(0).sum() / max(b.var(0).sum(), 1e-300)
    if len(a) < 3:
        return float(min(variances, 1.0))
    return float(min(variances, nearest(a) / max(nearest(b), 1e-150), 1.0))


# ---------------------------------------------------------------------------------------------------- networks


class _Pair(nn.Module):
    """Generator and discriminator; called, it is the discriminator. Each has flat vectors of its own."""

    def __init__(self, generator, discriminator):
        self.generator, self.discriminator, self.averaged = generator, discriminator, None

    @property
    def maker(self):
        """The generator that samples come from."""
        return self.generator if self.averaged is None else self.averaged

    def forward(self, x):
        return self.discriminator(x)

    def flatten(self):
        raise RuntimeError(
            "flatten: expected the generator or the discriminator, each of which has an optimiser; got both"
        )

    def to(self, device):
        self.generator.to(device)
        self.discriminator.to(device)
        if self.averaged is not None:
            self.averaged.to(device)
        return self


class _Centred(nn.Module):
    """2 x - 1: values in [0,1] around 0."""

    def forward(self, x):
        return ops.add(ops.multiply(x, 2.0), -1.0)


def _guard(model):
    return nn.SpectralNorm if model.spectral_norm else lambda layer: layer


def _mlp(input_shape, model):
    guard = _guard(model)
    generator = []
    for units in model.hidden:
        if model.batch_norm:
            generator += [nn.Dense(units, bias=False, init="he_normal"), nn.BatchNorm(), nn.ReLU()]
        else:
            generator.append(nn.Dense(units, "relu"))
    generator.append(nn.Dense(input_shape[0], model.output))
    discriminator = [_Centred()] if model.output == "sigmoid" else []
    discriminator += [guard(nn.Dense(units, "leaky_relu", slope=0.2)) for units in reversed(model.hidden)]
    return nn.Sequential(*generator), nn.Sequential(*discriminator, guard(nn.Dense(1)))


def _dcgan(input_shape, model):
    guard, w = _guard(model), model.width
    rows, columns, channels = input_shape
    half = (rows // 2, columns // 2)
    quarter = (half[0] // 2, half[1] // 2)
    odd = [(a - 2 * b, c - 2 * d) for (a, c), (b, d) in (((rows, columns), half), (half, quarter))]
    start = (*quarter, 2 * w)
    generator = nn.Sequential(
        nn.Dense(math.prod(start), bias=False, init="he_normal"),
        nn.BatchNorm(),
        nn.ReLU(),
        nn.Reshape(*start),
        nn.ConvTranspose2d(w, 4, stride=2, padding=1, out_padding=odd[1], bias=False, init="he_normal"),
        nn.BatchNorm(),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, 4, model.output, stride=2, padding=1, out_padding=odd[0]),
    )
    # Batch normalisation would undo what spectral normalisation bounds.
    between = [] if model.spectral_norm or model.loss == "wasserstein" else [nn.BatchNorm()]
    discriminator = nn.Sequential(
        *([_Centred()] if model.output == "sigmoid" else []),
        guard(nn.Conv2d(w, 4, "leaky_relu", stride=2, padding=1, slope=0.2)),
        guard(nn.Conv2d(2 * w, 4, stride=2, padding=1, init="he_normal")),
        *between,
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        guard(nn.Dense(1)),
    )
    return generator, discriminator
