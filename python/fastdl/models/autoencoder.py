"""Autoencoders: dense, tied, denoising, sparse, contractive, convolutional, variational, stacked, unrolled from RBMs."""

import copy
import math
from numbers import Real

import numpy as np

from .. import backend, nn, ops, optim, train
from .._arguments import natural, not_negative, number, positive, sizes
from .._interrupts import beforehand, unless_begun
from ..checkpoint import to_go_on_from
from ..module import shape_of
from ..nn.activation import check_act
from ..random import Stream, normal
from ..rows import Rows
from ..tensor import Tensor, inference
from ._base import Model, Transformer
from ._door import as_input, must_be_within, must_have_some
from ._pretraining import must_be_able_to_train, one_each, pretraining
from .cnn import CNN, check_image_shape


class Autoencoder(Transformer, Model):
    """A network that gives back its input through a narrow code: an encoder and its mirror image, a decoder.

        c = encode(x);  y = decode(c);  loss = |x - y|^2 a sample, summed over its values, mean over the samples

    Parameters
    ----------
    hidden : int or sequence of int
        Units between input and code; with kind 'conv' filters of 3x3 convolutions of stride 2.
    code : int
        Numbers in a code.
    kind : {'dense', 'conv'}
    act, code_act : {'none', 'relu', 'leaky_relu', 'sigmoid', 'tanh', 'gelu'}
        Of hidden units; of the code.
    output : {'sigmoid', 'none'}
        'sigmoid' for values in [0,1], such as images; 'none' for any.
    loss : {'mse', 'binary_cross_entropy'}
        The squared error, or the cross entropy of values in [0,1], in nats. Both are sums over a sample's values.
    tied : bool
        The decoder uses the transposed weights of the encoder (dense).
    noise : {None, 'gaussian', 'mask', 'salt'}
        Denoising: the input is corrupted while training, see `fastdl.nn.Noise`; the target is not.
    noise_level : float
    sparsity : float, optional
        Wanted mean activity of each code unit, between 0 and 1: adds `sparsity_weight` times the sum of KL(sparsity ||
        mean activity over the batch). Needs code_act 'sigmoid'.
    sparsity_weight : float
    contraction : float
        Adds this many times the squared Frobenius norm of the Jacobian of every encoding layer. Needs dense layers of
        'sigmoid', 'tanh' or 'none'.
    variational : bool
        The code is a normal distribution; adds `beta` KL(q(c | x) || N(0, 1)). `transform` gives its mean.
    beta : float
    image_shape : tuple of int, optional
        As in `CNN`, where X comes as flat rows and kind is 'conv'.
    seed : int
        Decides initial weights, order of samples, noise and draws.

    Attributes
    ----------
    module_ : Module
        With parts `encoder` and `decoder`.
    sample_shape_ : tuple of int
        Of one sample, as it came.
    history_ : dict
        What the last `fit` recorded; `loss` includes penalties and is measured with noise, `val_loss` neither.
    pretrain_history_ : list of dict
        The same for each layer that was trained greedily.

    References
    ----------
    Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural networks" (2006); Bengio, Lamblin, Popovici &
    Larochelle, "Greedy layer-wise training of deep networks" (2007); Vincent et al., "Stacked denoising autoencoders"
    (2010); Rifai, Vincent, Muller, Glorot & Bengio, "Contractive auto-encoders" (2011); Kingma & Welling,
    "Auto-encoding variational Bayes" (2014).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import Autoencoder
    >>> t = np.linspace(0, 1, 256)
    >>> X = np.stack([t, t**2, np.sqrt(t)], 1)  # a curve: one number says where
    >>> model = Autoencoder((16,), code=1, act="tanh").fit(X, epochs=100, batch_size=32, lr=0.01)
    >>> model.transform(X).shape, bool(model.score(X) > -0.01)
    ((256, 1), True)
    """

    _fitted = ("module_", "input_shape_", "sample_shape_", "pretrain_history_")

    def __init__(self, hidden=(128,), code=32, kind="dense", act="relu", code_act="none", output="sigmoid", loss="mse",
                 tied=False, noise=None, noise_level=0.3, sparsity=None, sparsity_weight=1.0, contraction=0.0,
                 variational=False, beta=1.0, image_shape=None, seed=0):  # fmt: skip
        if kind not in ("dense", "conv"):
            raise ValueError(f"kind: expected 'dense' or 'conv'; got {kind!r}")
        if output not in ("sigmoid", "none"):
            raise ValueError(f"output: expected 'sigmoid' or 'none'; got {output!r}")
        if loss not in ("mse", "binary_cross_entropy"):
            raise ValueError(f"loss: expected 'mse' or 'binary_cross_entropy'; got {loss!r}")
        if loss == "binary_cross_entropy" and output != "sigmoid":
            raise ValueError(f"output: expected 'sigmoid' with binary_cross_entropy; got {output!r}")
        if kind == "conv" and (tied or contraction):
            raise ValueError(f"{'tied' if tied else 'contraction'}: expected none with kind 'conv'; got one")
        if variational and tied:
            raise ValueError("tied: expected False with variational; got True")
        for name, value in (("noise_level", noise_level), ("sparsity_weight", sparsity_weight), ("contraction", contraction),
                            ("beta", beta)):  # fmt: skip
            not_negative(name, value)
        if sparsity is not None and not (0.0 < number("sparsity", sparsity) < 1.0 and code_act == "sigmoid" and not variational):
            raise ValueError(
                f"sparsity: expected a number between 0 and 1, with code_act 'sigmoid'; got {sparsity} with {code_act!r}"
            )
        check_act(act), check_act(code_act, "code_act")
        used = {act, code_act} if hidden else {code_act}
        if contraction and (variational or not used <= {"sigmoid", "tanh", "none"}):
            raise ValueError(
                "contraction: expected 0 or more, with act and code_act 'sigmoid', 'tanh' or 'none' and a code that is "
                f"not variational; got {contraction} with {act!r} and {code_act!r}"
            )
        if noise not in (None, "gaussian", "mask", "salt"):
            raise ValueError(f"noise: expected None, 'gaussian', 'mask' or 'salt'; got {noise!r}")
        if noise not in (None, "gaussian") and noise_level >= 1.0:
            raise ValueError(f"noise_level: expected 0 or more, below 1 but for 'gaussian'; got {noise_level}")
        code = positive("code", code)
        self.hidden, self.code, self.kind, self.act, self.code_act = sizes("hidden", hidden), code, kind, act, code_act
        self.output, self.loss, self.tied, self.noise, self.noise_level = output, loss, tied, noise, noise_level
        self.sparsity, self.sparsity_weight, self.contraction = sparsity, sparsity_weight, contraction
        self.variational, self.beta, self.image_shape, self.seed = variational, beta, check_image_shape(image_shape), seed

    # ------------------------------------------------------------------------------------------ the network

    def _shape(self, x, name="X"):
        return CNN._shape(self, x, name) if self.kind == "conv" else super()._shape(x, name)

    def _make(self, input_shape, outputs=None):
        out = "none" if self.loss == "binary_cross_entropy" else self.output
        if self.kind == "conv":
            encoder, decoder = _conv_halves(input_shape, self.hidden, self.code, self.act, self.code_act, out)
        else:
            encoder, decoder = self._dense_halves(input_shape[0], out)
        if self.variational:
            encoder = _Normal(encoder.layers[:-1], self.code)
        return _Network(encoder, decoder, self)

    def _dense_halves(self, inputs, out):
        units = (*self.hidden, self.code)
        acts = (*(self.act for _ in self.hidden), self.code_act)
        encoder = [nn.Dense(u, a) for u, a in zip(units, acts, strict=True)]
        back = (*(self.act for _ in self.hidden), out)
        if self.tied:
            decoder = [nn.TiedDense(layer, a) for layer, a in zip(reversed(encoder), back, strict=True)]
        else:
            decoder = [nn.Dense(u, a) for u, a in zip((*reversed(self.hidden), inputs), back, strict=True)]
        return nn.Sequential(*encoder), nn.Sequential(*decoder)

    @unless_begun
    def build(self, input_shape):
        """Make the network with initial weights.

        Parameters
        ----------
        input_shape : tuple of int
            Of one sample.

        Returns
        -------
        The model itself.
        """
        self.sample_shape_ = shape_of(input_shape)
        self.input_shape_ = self._shape(np.empty((0, *self.sample_shape_), np.float32)).shape[1:]
        self.module_ = self._make(self.input_shape_).build(self.input_shape_, self.seed).eval()
        self.module_.to(self._device)
        return self

    def _describe(self):
        return super()._describe() | {"sample_shape": list(self.sample_shape_)}

    def _build_from(self, config):
        return self.build(tuple(config["sample_shape"]))

    # ------------------------------------------------------------------------------------------ training

    @unless_begun
    def fit(
        self,
        X,
        y=None,
        *,
        epochs=20,
        batch_size=128,
        validation=None,
        optimizer="adam",
        lr=None,
        weight_decay=None,
        clip=None,
        pretrain=None,
        warm_start=False,
        **options,
    ):
        """Learn to give samples back.

        Parameters
        ----------
        X : array [N,...]
            Any real dtype; uint8 images are read as values in [0,1].
        y : ignored
            There for pipelines.
        epochs, batch_size : int
        validation : array or float, optional
            Samples that are only judged, or the share of X to set aside.
        optimizer : str or callable
        lr, weight_decay, clip : float, optional
            As in `Classifier.fit`.
        pretrain : int or dict, optional
            Train each layer alone before all together: it learns to give back the codes of the layer below (greedy
            layer-wise training; dense and not variational). A number of epochs for each layer, or a dict of options:
            `epochs` (10 if left out) and `lr`, each a number or one for each layer, batch_size, optimizer, weight_decay,
            clip, schedule, callbacks. The others are as for all layers together, but for schedule and callbacks. 0 and None:
            all together from the beginning. (`DBN.fit` takes the same.) A run that goes on from a checkpoint has done that
            already, and wants the same `pretrain` as before, or none.
        warm_start : bool
            Go on from the weights of now.
        **options
            Passed to `fastdl.train.fit`. An `augment` makes new samples, to be given back as they came out of it.

        Returns
        -------
        The model itself; `history_` holds the curves.

        Raises
        ------
        ValueError, TypeError
            The message names the argument.
        FloatingPointError
            The loss became infinite or NaN; the message says where.
        """
        of_layers, self._pretrain = pretraining(pretrain, _OF_LAYERS)
        if of_layers is not None and (self.kind == "conv" or self.variational):
            raise ValueError(f"pretrain: expected none with kind 'conv' or variational; got {pretrain!r}")
        train.must_take(options, self._own)
        x = self._begin(X, warm_start)
        self._must_fit_output(x)
        if not hasattr(self, "module_"):
            self.build(as_input(X).shape[1:])
        places = np.arange(len(x))  # the network remembers what it was given: no targets are gathered
        if validation is None or isinstance(validation, Real):
            x, places, held = self._split(x, places, validation)
            held = held and held[0]
        else:
            if isinstance(validation, tuple):
                raise TypeError("validation: expected samples alone, which are their own targets; got a tuple")
            held = must_have_some(self._input(validation, "validation"), "validation")
            self._must_fit_output(held, "validation")
        if held is not None:
            held = (held, _floats(held))
        options["checkpoint"] = self._checkpoint(options.get("checkpoint"), options.get("resume"))
        if of_layers is not None and to_go_on_from(options["checkpoint"], options.get("resume")) is None:
            given = {"batch_size": batch_size, "optimizer": optimizer, "lr": lr, "weight_decay": weight_decay, "clip": clip}
            must_be_able_to_train(self.fit, {"epochs": epochs} | given | options, self._own)
            each = self._each_layer({"epochs": 10} | given | of_layers)
            with beforehand():
                self._train_each(x, each)
            if self.pretrain_history_[-1]["stopped"] == "interrupted":  # Ctrl-C ends it all, not one layer
                self.history_ = {"epoch": [], "loss": [], "lr": [], "seconds": [], "stopped": "interrupted"}
                return self
        if options.get("augment") is not None and len(self.sample_shape_) > 1:
            x = x.reshape(len(x), *self.sample_shape_)
        given = {"lr": lr, "weight_decay": weight_decay, "clip": clip}
        try:
            self.history_ = train.fit(
                self.module_,
                x,
                np.arange(len(x)),
                loss=self.module_.objective,
                optimizer=optim.get(optimizer, self.module_, **{k: v for k, v in given.items() if v is not None}),
                epochs=epochs,
                batch_size=batch_size,
                validation=held,
                **{"seed": self.seed} | options,
            )
        finally:
            self.module_.forget()
        return self

    @property
    def _loss(self):
        return self.module_.objective

    def _targets(self, y, n, name="y"):
        return np.arange(n)  # the network remembers what it was given

    def _must_fit_output(self, x, name="X"):
        if self.output == "sigmoid":
            must_be_within(x, 0, 1, "which output 'sigmoid' gives (output='none' gives any)", name)

    def _each_layer(self, options):
        """The options of each layer's own training, of which all can be trained with."""
        count = len(self.hidden) + 1
        epochs, rates = (one_each(name, options[name], count) for name in ("epochs", "lr"))
        each = [options | {"epochs": e, "lr": rate} for e, rate in zip(epochs, rates, strict=True)]
        for one in each:
            must_be_able_to_train(self.fit, one, self._own)
        return each

    def _train_each(self, x, each):
        """Each layer and its mirror image alone, the lowest first, on the codes of those below."""
        net, values, self.pretrain_history_ = self.module_, x, []
        for i, (up, down) in enumerate(zip(net.encoder.layers, reversed(net.decoder.layers), strict=True)):
            pair = _Network(nn.Sequential(up), nn.Sequential(down), self, last=i == len(self.hidden))
            if i and self.noise is not None:
                # Codes have a scale of their own: above the data, elements are set to 0.
                pair.noise = nn.Noise("mask", min(self.noise_level, 0.5))
                pair.noise.stream = Stream(self.seed).split(f"pretrain {i}")
            pair.plain = i > 0  # codes are not probabilities
            options = each[i] | {"schedule": copy.deepcopy(each[i].get("schedule"))}  # which may follow this layer's loss
            given = {name: options.pop(name) for name in ("lr", "weight_decay", "clip")}
            options["optimizer"] = optim.get(
                options["optimizer"], pair, **{k: v for k, v in given.items() if v is not None}
            )
            rows = np.arange(len(values))
            self.pretrain_history_.append(
                train.fit(pair, values, rows, loss=pair.objective, **{"seed": self.seed} | options)
            )
            pair.forget()
            if self.pretrain_history_[-1]["stopped"] == "interrupted":
                return
            values = train.predict(nn.Sequential(up), values)

    @classmethod
    def from_rbms(cls, rbms, input_shape=None, **params):
        """A deep autoencoder unrolled from a stack of Boltzmann machines: encoder upwards, decoder with the transposed weights.

        Parameters
        ----------
        rbms : sequence
            From the data upwards: fitted `RBM` models, or tuples (w [V,H], b_visible [V], b_hidden [H]). The decoder of Gaussian
            visible units wants `output` 'none'; the encoder's weights are then w / s, s their variances.
        input_shape : tuple of int, optional
            Of one sample; [V] if left out.
        **params
            Of the autoencoder but `hidden` and `code`. `act` is 'sigmoid' if left out, and must fit the hidden units of all
            machines but the last: 'sigmoid' Bernoulli ones, 'relu' rectified ones, 'none' Gaussian ones. `code_act` is what
            fits the last machine's if left out, 'none' for a tuple.

        Returns
        -------
        Autoencoder
            To be fine-tuned by ``fit(X, warm_start=True)``.
        """
        if not hasattr(rbms, "__iter__"):
            raise TypeError(f"rbms: expected a sequence of machines; got {type(rbms).__name__}")
        rbms = list(rbms)
        stack = [_weights_of(r, i) for i, r in enumerate(rbms)]
        variances = [_variance_of(r) for r in rbms]
        if not stack:
            raise ValueError("rbms: expected one or more; got none")
        for i, (below, above) in enumerate(zip(stack, stack[1:], strict=False)):
            if below[0].shape[1] != above[0].shape[0]:
                raise ValueError(
                    f"rbms[{i + 1}]: expected {below[0].shape[1]} visible units, the hidden ones below; got {above[0].shape[0]}"
                )
        sizes = [w.shape[1] for w, _, _ in stack]
        params = {"act": "sigmoid"} | params
        *kinds, last = (getattr(r, "hidden_units", None) for r in rbms)
        for i, kind in enumerate(kinds):
            if kind in _ACTS and params["act"] != _ACTS[kind]:
                other = "none" if _ACTS[kind] is None else f"act={_ACTS[kind]!r}"
                raise ValueError(
                    f"rbms[{i}]: expected hidden units that act {params['act']!r} fits; got {kind!r} ones ({other} does)"
                )
        if last in _ACTS and "code_act" not in params:
            if _ACTS[last] is None:
                raise ValueError(f"rbms[{len(kinds)}]: expected hidden units that a code_act fits; got {last!r} ones")
            params["code_act"] = _ACTS[last]
        model = cls(tuple(sizes[:-1]), sizes[-1], **params)
        if model.kind != "dense" or model.variational:
            raise ValueError("kind, variational: expected 'dense' and False; got others")
        model.build(input_shape or (stack[0][0].shape[0],))
        layers, mirror = model.module_.encoder.layers, model.module_.decoder.layers[::-1]
        if model.tied and any(s is not None and (s != 1).any() for s in variances):
            raise ValueError("tied: expected False with Gaussian visible units whose variances are not 1; got True")
        for (w, visible, hidden), s, up, down in zip(stack, variances, layers, mirror, strict=True):
            backend.assign(up.w.data, w if s is None else w / s[:, None])
            backend.assign(up.b.data, hidden)
            backend.assign(down.b.data, visible)
            if not model.tied:
                backend.assign(down.w.data, np.ascontiguousarray(w.T))
        return model

    # ------------------------------------------------------------------------------------------ use

    def transform(self, X):
        """Codes, float32 [N, code]; of a variational code its mean."""
        self._need_fit()
        return backend.to_host(train.predict(self.module_.encoder, self._input(X)))

    def inverse_transform(self, codes):
        """Samples from codes [N, code], in the shape of the samples that the model learned from."""
        self._need_fit()
        c = as_input(codes, "codes")
        if c.shape[1:] != (self.code,):
            raise ValueError(f"codes: expected shape [N,{self.code}]; got {list(c.shape)}")
        y = self._finished(train.predict(self.module_.decoder, backend.array(c, np.float32)))
        return y.reshape(len(y), *self.sample_shape_)

    def reconstruct(self, X):
        """What the network makes of samples, float32, in the shape of X."""
        self._need_fit()
        y = self._finished(train.predict(self.module_, self._input(X)))
        shape = np.shape(X)
        return y.reshape((0, *self.sample_shape_) if shape == (0,) else shape)

    def _finished(self, outputs):
        if self.loss == "binary_cross_entropy":
            with inference():
                outputs = ops.sigmoid(Tensor(outputs)).data
        return backend.to_host(outputs)

    def sample(self, n=1, seed=0):
        """n new samples of a variational autoencoder: codes from N(0, 1), decoded."""
        if not self.variational:
            raise ValueError("variational: expected True, for a code whose distribution is known; got False")
        n = natural("n", n)
        return self.inverse_transform(normal((n, self.code), seed=seed))

    def score_samples(self, X):
        """Minus the squared error of each sample, summed over its values, float64 [N]: low for what is unlike the data."""
        x = self._input(X)
        y = self.reconstruct(X).reshape(len(x), math.prod(self.input_shape_))
        x = backend.to_host(_floats(x)).reshape(y.shape)
        return -np.square(x.astype(np.float64) - y).sum(1)

    def score(self, X, y=None):
        """Mean of `score_samples`: minus the squared error a sample."""
        return float(np.mean(must_have_some(self.score_samples(X))))


_OF_LAYERS = ("epochs", "lr", "batch_size", "optimizer", "weight_decay", "clip", "schedule", "callbacks")


def _floats(x):
    """Values of samples as the network sees them: uint8 becomes [0,1]."""
    return Rows(x).take(np.arange(len(x)))


def _weights_of(rbm, i):
    """(w [V,H], b_visible [V], b_hidden [H]) of a machine or tuple."""
    if not isinstance(rbm, (tuple, list)):
        weights = rbm.get_weights() if callable(getattr(rbm, "get_weights", None)) else getattr(rbm, "__dict__", {})
        found = [next((n for n in known if n in weights), None) for known in _NAMES]
        if None in found:
            raise ValueError(f"rbms[{i}]: expected an RBM or (w, b_visible, b_hidden); got {type(rbm).__name__}")
        rbm = tuple(weights[n] for n in found)
    if len(rbm) != 3:
        raise ValueError(f"rbms[{i}]: expected (w, b_visible, b_hidden); got {len(rbm)} arrays")
    w, visible, hidden = (np.asarray(backend.to_host(a), np.float32) for a in rbm)
    if w.ndim != 2 or visible.shape != w.shape[:1] or hidden.shape != w.shape[1:]:
        shapes = ", ".join(str(list(a.shape)) for a in (w, visible, hidden))
        raise ValueError(f"rbms[{i}]: expected shapes [V,H], [V], [H]; got {shapes}")
    return w, visible, hidden


def _variance_of(rbm):
    """Variances [V] of Gaussian visible units, of a machine that has them."""
    s = None if isinstance(rbm, (tuple, list)) else getattr(getattr(rbm, "module_", None), "variance", None)
    return None if s is None else np.asarray(backend.to_host(s), np.float32)


_ACTS = {"bernoulli": "sigmoid", "relu": "relu", "gaussian": "none", "softmax": None}  # of a machine's hidden units
_NAMES = (("w",), ("b_visible", "b"), ("b_hidden", "c"))  # of a machine's weights


# ---------------------------------------------------------------------------------------------------- networks


def _conv_halves(image, filters, code, act, code_act, out):
    """Convolutions of stride 2, a dense code, and the way back through transposed convolutions."""
    if not filters:
        raise ValueError("hidden: expected filters of one convolution or more with kind 'conv'; got none")
    sizes = [image[:2]]
    for _ in filters:
        sizes.append(tuple((s - 1) // 2 + 1 for s in sizes[-1]))
    top = (*sizes[-1], filters[-1])
    up = [nn.Conv2d(f, 3, act, stride=2, padding=1) for f in filters]
    down = []
    for i in range(len(filters) - 1, -1, -1):
        extra = tuple(want - (2 * have - 1) for want, have in zip(sizes[i], sizes[i + 1], strict=True))
        last = i == 0
        layer = nn.ConvTranspose2d(
            image[2] if last else filters[i - 1], 3, out if last else act, stride=2, padding=1, out_padding=extra
        )
        down.append(layer)
    decoder = nn.Sequential(nn.Dense(math.prod(top), act), nn.Reshape(*top), *down)
    return nn.Sequential(*up, nn.Flatten(), nn.Dense(code, code_act)), decoder


class _Normal(nn.Module):
    """An encoder whose code is a normal distribution: mean and logarithm of the variance."""

    def __init__(self, body, code):
        self.layers = list(body)
        self.mean, self.log_variance = nn.Dense(code), nn.Dense(code, init=0.0)
        self.stream = Stream(0)

    def forward(self, x):
        return self.distribution(x)[0]

    def distribution(self, x):
        """(mean, log variance), Tensors [N, code]."""
        for layer in self.layers:
            x = layer(x)
        return self.mean(x), self.log_variance(x)


class _Network(nn.Module):
    """Noise, encoder, decoder; while training it keeps what its objective needs."""

    def __init__(self, encoder, decoder, model, last=True):
        self.noise = nn.Noise(model.noise, model.noise_level) if model.noise is not None else None
        self.encoder, self.decoder = encoder, decoder
        self.cross_entropy = model.loss == "binary_cross_entropy"
        self.rate, self.rate_weight = (model.sparsity if last else None), model.sparsity_weight
        self.contraction, self.beta, self.plain = model.contraction, model.beta, False
        self._kept = None

    def __getstate__(self):
        return self.__dict__ | {"_kept": None}

    def forget(self):
        """Let go of the last batch."""
        self._kept = None

    def forward(self, x):
        if not self.training:
            if isinstance(self.encoder, _Normal):  # both heads, so that building finds all sizes
                return self.decoder(self.encoder.distribution(x)[0])
            return self.decoder(self.encoder(x))
        if isinstance(self.encoder, nn.Sequential) and type(self.encoder[0]).__name__ == "Dense" and len(x.shape) > 2:
            x = ops.flatten(x)
        clean = x.data
        h = x if self.noise is None else self.noise(x)
        terms = []
        if isinstance(self.encoder, _Normal):
            mean, log_variance = self.encoder.distribution(h)
            code = _drawn(mean, log_variance, self.encoder.stream)
            if self.beta:
                terms.append(ops.multiply(_divergence(mean, log_variance), self.beta))
        elif self.contraction:
            for layer in self.encoder.layers:
                h = layer(h)
                terms.append(ops.multiply(_jacobian(layer, h), self.contraction))
            code = h
        else:
            code = self.encoder(h)
        if self.rate is not None:
            terms.append(ops.multiply(_idleness(code, self.rate), self.rate_weight))
        self._kept = clean, terms
        return self.decoder(code)

    def objective(self, output, target):
        """Error of a sample summed over its values, mean over the batch; while training with the penalties."""
        n = output.shape[0]
        terms = []
        if self.training:
            target, terms = self._kept
            target = target.reshape(output.shape)
        kind = ops.binary_cross_entropy if self.cross_entropy and not self.plain else ops.mse
        total = ops.multiply(kind(output, target, None, "sum"), 1.0 / n)
        for term in terms:
            total = ops.add(total, term)
        return total


def _drawn(mean, log_variance, stream):
    """mean + exp(log_variance / 2) times a standard normal draw."""
    k, a = backend.kernels(mean.data), mean.data
    draw = k.normal(0.0, 1.0, *stream.take(a.size), backend.empty(a.shape, a))
    return ops.add(mean, ops.multiply(ops.exp(ops.multiply(log_variance, 0.5)), Tensor(draw)))


def _divergence(mean, log_variance):
    """KL(N(mean, variance) || N(0, 1)) of a sample, mean over the batch."""
    n = mean.shape[0]
    inside = ops.subtract(ops.add(ops.square(mean), ops.exp(log_variance)), ops.add(log_variance, 1.0))
    return ops.multiply(ops.sum(inside), 0.5 / n)


def _jacobian(layer, h):
    """Squared Frobenius norm of a layer's Jacobian, mean over the batch: sum_j s_j^2 sum_i w_ij^2, s the slope."""
    sizes = ops.sum(ops.square(layer.w), 0)
    if layer.act == "none":
        return ops.sum(sizes)
    sigmoid = layer.act == "sigmoid"
    slope = ops.multiply(h, ops.subtract(1.0, h)) if sigmoid else ops.subtract(1.0, ops.square(h))
    return ops.multiply(ops.sum(ops.multiply(ops.square(slope), sizes)), 1.0 / h.shape[0])


def _idleness(code, rate):
    """Sum over units of KL(rate || mean activity over the batch)."""
    p = ops.mean(code, 0)
    on = ops.multiply(ops.log(ops.add(p, 1e-7)), -rate)
    off = ops.multiply(ops.log(ops.add(ops.subtract(1.0, p), 1e-7)), rate - 1.0)
    constant = rate * math.log(rate) + (1.0 - rate) * math.log(1.0 - rate)
    return ops.add(ops.sum(ops.add(on, off)), constant * p.shape[0])
