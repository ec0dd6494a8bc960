"""Convolutional Boltzmann machines: the same few filters at every place of an image, learned without labels."""

import math

import numpy as np

from .. import backend, init, ops, optim, train
from .._arguments import functions, natural, not_negative, number, positive
from .._interrupts import unless_begun
from ..module import Module, Parameter, shape_of
from ..random import Stream
from ..rows import Rows
from ..tensor import Tensor, inference
from ._base import Model, Transformer
from ._boltzmann import stream_of
from ._door import as_input
from .cnn import CNN, check_image_shape


class ConvolutionalRBM(Transformer, Model):
    """A restricted Boltzmann machine whose hidden units look through one window each and share their weights.

        E(v, h) = -sum_f h_f (c_f + v * w_f) - sum_c b_c sum v_c

    with * a convolution without padding, so images [Y,X,C] have hidden units [P,Q,F], P = Y - R + 1. Gaussian visible units, of
    variance 1, have sum (v - b)^2 / 2 for the last term.

    Parameters
    ----------
    filters : int
        F.
    size : int
        R, rows and columns of a filter.
    visible : {'bernoulli', 'gaussian'}
    sparsity : float, optional
        Wanted mean activity of each filter, between 0 and 1: adds `sparsity_weight` times the sum of squares of what is
        missing. There are more hidden units than pixels, and without it they may come to copy them.
    sparsity_weight : float
    image_shape : tuple of int, optional
        As in `CNN`, where X comes as flat rows.
    seed : int

    Attributes
    ----------
    module_ : Module
        With w [R,S,C,F], b [C], c [F] and the persistent chains.
    history_ : dict
        For each epoch `error` (mean squared error of reconstructions, of at most 500 samples) and what `fastdl.train.fit`
        records; `loss` is the free energy of samples less that of the chains.

    References
    ----------
    Desjardins & Bengio, "Empirical evaluation of convolutional RBMs for vision" (2008); Lee, Grosse, Ranganath & Ng,
    "Convolutional deep belief networks" (2009), for sparsity.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import ConvolutionalRBM
    >>> X = np.kron(np.eye(8), np.ones((1, 8))).reshape(8, 8, 8)  # bars
    >>> rbm = ConvolutionalRBM(filters=4, size=3).fit(X, epochs=5, batch_size=4)
    >>> rbm.transform(X).shape
    (8, 6, 6, 4)
    """

    _fitted = ("module_", "input_shape_", "sample_shape_")
    _own = ("loss", "metrics", "validation")

    def __init__(self, filters=16, size=5, visible="bernoulli", sparsity=None, sparsity_weight=10.0, image_shape=None,
                 seed=0):  # fmt: skip
        if visible not in ("bernoulli", "gaussian"):
            raise ValueError(f"visible: expected 'bernoulli' or 'gaussian'; got {visible!r}")
        if sparsity is not None and not 0.0 < number("sparsity", sparsity) < 1.0:
            raise ValueError(f"sparsity: expected 0 < sparsity < 1; got {sparsity}")
        self.filters, self.size = positive("filters", filters), positive("size", size)
        self.visible, self.sparsity = visible, sparsity
        self.sparsity_weight = not_negative("sparsity_weight", sparsity_weight)
        self.image_shape, self.seed = check_image_shape(image_shape), seed

    # ------------------------------------------------------------------------------------------ making it

    _shape = CNN._shape

    @unless_begun
    def build(self, input_shape):
        """Make the machine with small random weights, for samples of this shape; returns the model itself."""
        self.sample_shape_ = shape_of(input_shape)
        image = self._shape(np.empty((0, *self.sample_shape_), np.float32)).shape[1:]
        if min(image[:2]) < self.size:
            raise ValueError(f"X: expected images of at least {self.size}x{self.size} pixels; got {list(image)}")
        self.input_shape_ = image
        self.module_ = _Machine(image, self).initialise(self.seed)
        self.module_.to(self._device)
        self.module_.eval()
        return self

    def _describe(self):
        return super()._describe() | {"sample_shape": list(self.sample_shape_)}

    def _build_from(self, config):
        return self.build(tuple(config["sample_shape"]))

    def _input(self, X, name="X"):
        x = super()._input(X, name)
        a = backend.to_host(x)
        if a.dtype != np.uint8 and a.size:
            low, high = a.min(), a.max()
            if not (np.isfinite(low) and np.isfinite(high)) and self.visible != "bernoulli":
                raise ValueError(f"{name}: expected finite numbers; got {low if not np.isfinite(low) else high}")
            if self.visible == "bernoulli" and not (low >= 0 and high <= 1):  # NaN is neither
                bad = low if not low >= 0 else high
                raise ValueError(f"{name}: expected values from 0 to 1, for Bernoulli units; got {bad:g}")
        return x

    def _floats(self, X, name="X"):
        self._need_fit()
        x = self._input(X, name)
        return Rows(x, name, self.module_.w.data).take(np.arange(len(x))).copy()

    # ------------------------------------------------------------------------------------------ training

    @unless_begun
    def fit(self, X, y=None, *, epochs=10, batch_size=50, algorithm="pcd", k=1, optimizer="adam", lr=None,
            weight_decay=None, clip=None, stochastic=False, warm_start=False, callbacks=(), **options):  # fmt: skip
        """Learn the distribution of images.

        Parameters
        ----------
        X : array [N,Y,X] or [N,Y,X,C]
            uint8 is read as values in [0,1].
        y : ignored
        epochs, batch_size : int
        algorithm : {'pcd', 'cd'}
            Chains that go on from update to update, as many as a batch has images; or chains that begin at the data.
        k : int
            Gibbs steps an update.
        optimizer, lr, weight_decay, clip
            As in `Classifier.fit`.
        stochastic : bool
            Values of Bernoulli units are chances, and drawn anew each time an image comes by.
        warm_start : bool
            Go on from the weights and chains of now.
        callbacks, **options
            Passed to `fastdl.train.fit`: schedule, checkpoint, resume, ...

        Returns
        -------
        The model itself.

        Raises
        ------
        FloatingPointError
            The loss became infinite or NaN; the message says where.
        """
        if algorithm not in ("pcd", "cd"):
            raise ValueError(f"algorithm: expected 'pcd' or 'cd'; got {algorithm!r}")
        if stochastic and self.visible != "bernoulli":
            raise ValueError(f"stochastic: expected Bernoulli visible units; got {self.visible} ones")
        k, batch_size = positive("k", k), positive("batch_size", batch_size)
        callbacks = functions("callbacks", callbacks)
        train.must_take(options, self._own)
        x = self._begin(X, warm_start)
        if not hasattr(self, "module_"):
            self.build(as_input(X).shape[1:])
            self.module_.begin_at(x)
        net = self.module_
        net.k, net.stochastic = k, bool(stochastic)
        chains = min(batch_size, len(x))
        if algorithm == "cd":
            net.chain = None
        elif net.chain is None or len(net.chain) != chains:
            net.chain = net.random(chains, self.input_shape_, stream_of(self.seed, "chains"))
        some = np.linspace(0, len(x) - 1, min(len(x), 500)).astype(np.int64)

        def watch(state):
            v = Rows(x, "X", net.w.data).take(some)
            again = net.visible_means(net.hidden_means(v))
            error = float(np.mean((backend.to_host(v).astype(np.float64) - backend.to_host(again)) ** 2))
            state.history.setdefault("error", []).append(error)  # after those of a run that goes on

        options["checkpoint"] = self._checkpoint(options.get("checkpoint"), options.get("resume"))
        given = {"lr": lr, "weight_decay": weight_decay, "clip": clip}
        try:
            self.history_ = train.fit(
                net, x, np.arange(len(x)), loss=net.objective,
                optimizer=optim.get(optimizer, net, **{k: v for k, v in given.items() if v is not None}),
                epochs=epochs, batch_size=batch_size, callbacks=[watch, *callbacks], **{"seed": self.seed} | options,
            )  # fmt: skip
        finally:
            net.forget()
        errors = self.history_.setdefault("error", [])
        errors += [math.nan] * (len(self.history_["epoch"]) - len(errors))  # of an epoch that Ctrl-C cut short
        return self

    # ------------------------------------------------------------------------------------------ use

    def transform(self, X):
        """Means of the hidden units, float32 [N,P,Q,F]."""
        self._need_fit()
        return backend.to_host(train.predict(self.module_, self._input(X)))

    def inverse_transform(self, H):
        """Means of the visible units given hidden ones [N,P,Q,F], float32 [N,...] in the shape of the data's samples."""
        self._need_fit()
        h, (rows, columns, _) = as_input(H, "H"), self.input_shape_
        wanted = (rows - self.size + 1, columns - self.size + 1, self.filters)
        if h.shape[1:] != wanted:
            raise ValueError(f"H: expected shape [N,{','.join(map(str, wanted))}]; got {list(h.shape)}")
        v = self.module_.visible_means(backend.to_device(backend.array(h), self.module_.w.data))
        return self._images(v)

    def _images(self, v):
        v = backend.to_host(v)
        return v.reshape(len(v), *self.sample_shape_)

    def reconstruct(self, X):
        """Means of the visible units given the means of the hidden ones."""
        return self.inverse_transform(self.transform(X))

    def gibbs(self, X, steps=1, seed=0):
        """States after some Gibbs steps from X, float32 [N,...]."""
        steps, v = positive("steps", steps), self._floats(X)
        with backend.pooled():
            return self._images(self.module_.gibbs(v, steps, stream_of(seed, "sample")))

    def sample(self, n=1, steps=1000, seed=0, means=False):
        """Images after `steps` Gibbs steps from where the persistent chains are, if there are any, else from random ones.

        Parameters
        ----------
        n, steps : int
        seed : int
        means : bool
            Give the means of the last step instead of its samples.

        Returns
        -------
        array of float32 [n,...]
        """
        self._need_fit()
        n, steps = natural("n", n), natural("steps", steps)
        net, stream = self.module_, stream_of(seed, "sample")
        if net.chain is not None:
            v = backend.take(net.chain, backend.to_device(np.arange(n) % len(net.chain), net.chain)).copy()
        else:
            v = net.random(n, self.input_shape_, stream)
        with backend.pooled():
            return self._images(net.gibbs(v, steps, stream, means))

    def free_energy(self, X):
        """-log of an image's probability, up to log Z: float32 [N]."""
        v = self._floats(X)
        with inference():
            x = Tensor(v)
            return backend.to_host(self.module_.energy(x, self.module_.inputs(x)).data)


class _Machine(Module):
    """Filters and biases; while training it keeps what its objective needs."""

    buffers = ("chain",)

    def __init__(self, image, model):
        size, filters, channels = model.size, model.filters, image[2]
        self.w = Parameter((size, size, channels, filters), _small)
        self.b = Parameter((channels,), init.zeros, decay=False)
        self.c = Parameter((filters,), init.zeros, decay=False)
        self.image, self.gaussian = tuple(image), model.visible == "gaussian"
        self.sparsity, self.sparsity_weight = model.sparsity, model.sparsity_weight
        self.k, self.stochastic, self.chain, self.stream, self._kept = 1, False, None, Stream(0), None

    def __getstate__(self):
        return self.__dict__ | {"_kept": None}

    def loose_buffers(self):
        """Chains: as many as the training of the weights had, or none."""
        return {"chain": self.image}

    def forget(self):
        """Let go of the last batch."""
        self._kept = None

    def begin_at(self, x):
        """Visible biases that give the mean of images x."""
        a = backend.to_host(x)
        p = a.reshape(-1, a.shape[-1]).mean(0, dtype=np.float64) / (255 if a.dtype == np.uint8 else 1)
        if not self.gaussian:
            p = np.clip(p, 1e-3, 1 - 1e-3)
            p = np.log(p / (1 - p))
        backend.assign(self.b.data, p.astype(np.float32))

    def inputs(self, x):
        """Of the hidden units, [N,P,Q,F]."""
        return ops.conv2d(x, self.w, self.c)

    def forward(self, x):
        if not self.training:
            return ops.sigmoid(self.inputs(x))
        if self.stochastic:
            x = Tensor(backend.kernels(x.data).bernoulli(x.data, *self.stream.take(x.data.size)))
        a = self.inputs(x)
        self._kept = x
        return a

    def energy(self, x, a):
        """Free energy of each sample, [N], from the inputs a of its hidden units."""
        n = x.shape[0]
        own = ops.multiply(ops.square(ops.subtract(x, self.b)), 0.5) if self.gaussian else ops.multiply(x, self.b)
        own = ops.sum(ops.reshape(own, (n, own.data.size // max(n, 1))), 1)
        units = ops.sum(ops.reshape(ops.unary(a, "softplus"), (n, a.data.size // max(n, 1))), 1)
        return ops.subtract(own, units) if self.gaussian else ops.multiply(ops.add(own, units), -1.0)

    def objective(self, a, target):
        """Free energy of the batch less that of what Gibbs steps make of the chains, means over each."""
        x = self._kept
        begin = x.data.copy() if self.chain is None else self.chain
        other = Tensor(self.gibbs(begin, self.k, self.stream))
        if self.chain is not None:
            backend.assign(self.chain, other.data)
        model = self.energy(other, self.inputs(other))
        gap = ops.subtract(ops.mean(self.energy(x, a)), ops.mean(model))
        if self.sparsity is None:
            return gap
        p = ops.mean(ops.reshape(ops.sigmoid(a), (a.data.size // a.shape[-1], a.shape[-1])), 0)
        idle = ops.sum(ops.square(ops.subtract(p, self.sparsity)))
        return ops.add(gap, ops.multiply(idle, self.sparsity_weight))

    # ------------------------------------------------------------------------------------------ sampling

    def hidden_means(self, v):
        """[N,P,Q,F] given v, an array."""
        with inference():
            return ops.conv2d(Tensor(v), self.w, self.c, act="sigmoid").data

    def visible_means(self, h):
        """[N,Y,X,C] given h, an array: the filters laid where their units are on."""
        with inference():
            return ops.conv_transpose2d(Tensor(h), self.w, self.b, act="none" if self.gaussian else "sigmoid").data

    def gibbs(self, v, steps, stream, means=False):
        """Samples of the visible units (or the means of the last step) after some steps from v."""
        k = backend.kernels(v)
        for step in range(steps):
            h = self.hidden_means(v)
            k.bernoulli(h, *stream.take(h.size), h)
            v = self.visible_means(h)
            if not (means and step == steps - 1):
                v = self._drawn(v, stream)
        return v

    def _drawn(self, mean, stream):
        k, place = backend.kernels(mean), stream.take(mean.size)
        if not self.gaussian:
            return k.bernoulli(mean, *place, mean)
        noise = k.normal(0.0, 1.0, *place, backend.empty(mean.shape, mean))
        k.axpby(1.0, noise, 1.0, mean)
        return mean

    def random(self, n, shape, stream):
        """States [n, shape] of the machine without filters."""
        h = backend.zeros((n, *shape), self.w.data)
        with inference():
            means = ops.add(Tensor(h), self.b)
            means = means.data if self.gaussian else ops.sigmoid(means).data
        return self._drawn(means, stream)


def _small(shape, stream, fans=None):
    return init.normal(shape, stream, std=0.01)
