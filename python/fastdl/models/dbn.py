"""Deep belief networks: a stack of Boltzmann machines, trained one after the other, that generates and classifies."""

import copy
import inspect
import os
import time
from numbers import Real

import numpy as np

from .. import backend, nn, train
from .._arguments import chance, function, functions, natural, not_negative, number, positive, sizes
from .._interrupts import beforehand, interruptible, unless_begun
from ..checkpoint import as_checkpoint, must_be_the_same_model, to_go_on_from
from ..module import Module
from ..random import permutation
from ._base import Model
from ._boltzmann import stream_of
from ._door import as_input, must_be_on_scale, must_have_some
from ._pretraining import must_be_able_to_train, one_each, pretraining
from ._supervised import Classifier
from .rbm import RBM


class DBN(Classifier):
    """A deep belief network.

        p(v, h1, ..., hL) = p(v | h1) p(h1 | h2) ... p(h(L-1), hL)

    the last factor a restricted Boltzmann machine, the others sigmoid layers. `pretrain` trains a machine for each layer on
    what the one below makes of the data, without labels; `fine_tune` (up-down) trains all layers together, without labels;
    `fit` trains a classifier whose hidden layers begin with the machines' weights.

    Parameters
    ----------
    hidden : int or sequence of int
        Units of the hidden layers.
    visible : {'bernoulli', 'gaussian'}
        Kind of the visible units.
    dropout, input_dropout : float
        Of the classifier, while it is trained.
    seed : int

    Attributes
    ----------
    stack_ : list of RBM
        From the data upwards.
    module_ : Module
        The classifier, after `fit`.
    fine_tune_history_ : dict
        What the last `fine_tune` recorded: for each epoch `error` (mean squared error of reconstructions through all layers, of
        at most 1,000 samples) and `seconds`.

    References
    ----------
    Hinton, Osindero & Teh, "A fast learning algorithm for deep belief nets" (2006); Hinton & Salakhutdinov (2006).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import DBN
    >>> X = np.tile([[1, 1, 0, 0], [0, 0, 1, 1]], (50, 1))
    >>> dbn = DBN(hidden=(8, 4)).pretrain(X, epochs=5).fit(X, np.tile([0, 1], 50), epochs=20, lr=0.01)
    >>> dbn.score(X, np.tile([0, 1], 50))
    1.0
    """

    def __init__(self, hidden=(500, 500, 2000), visible="bernoulli", dropout=0.0, input_dropout=0.0, seed=0):
        self.hidden, self.visible = sizes("hidden", hidden), visible
        if not self.hidden:
            raise ValueError(f"hidden: expected one layer or more; got {hidden!r}")
        if visible not in ("bernoulli", "gaussian"):
            raise ValueError(f"visible: expected 'bernoulli' or 'gaussian'; got {visible!r}")
        self.dropout, self.input_dropout = chance("dropout", dropout), chance("input_dropout", input_dropout)
        self.seed = seed

    # -------------------------------------------------------------------------------------- without labels

    def _machines(self):
        return [RBM(h, "bernoulli" if i else self.visible, seed=self.seed + i) for i, h in enumerate(self.hidden)]

    @unless_begun
    def pretrain(self, X, *, epochs=10, lr=None, checkpoint=None, resume=None, show=None, **options):
        """Train the stack greedily, each machine on the hidden means of the one below, drawn anew each time.

        Parameters
        ----------
        X : array [N,...]
        epochs : int or sequence of int
            For each machine.
        lr : float or sequence of float, optional
            0.05 (Gaussian visible units: 0.001) if left out.
        checkpoint, resume : path or `fastdl.checkpoint.Checkpoint`, optional
            Each machine has a file of its own: PATH.0, PATH.1, ... A machine goes on from its own as long as those below
            had nothing left to learn, else it begins anew.
        show : callable, optional
            Gets a line of text for each machine.
        **options
            Of `RBM.fit`; the algorithm is 'cd' if not said.

        Returns
        -------
        The model itself.
        """
        if resume is True:
            if checkpoint is None:
                raise ValueError("resume: expected a path, or True together with checkpoint; got True alone")
            resume = checkpoint
        if show is not None:
            function("show", show)
        checkpoint, resume = (getattr(place, "path", place) for place in (checkpoint, resume))
        place = checkpoint or resume or None
        machines = self._machines()
        for name in ("stack_", "recognition_", "fine_tune_history_"):
            self.__dict__.pop(name, None)
        x = self._begin(X, False)
        count = len(machines)
        # All of them now, and not after the machines below have been trained.
        epochs = [natural("epochs", e) for e in one_each("epochs", epochs, count)]
        rates = [r if r is None else not_negative("lr", r) for r in one_each("lr", lr, count)]
        stack = []  # of the model only when it is whole
        learned = []  # an entry for each epoch of now
        callbacks = [*functions("callbacks", options.pop("callbacks", ())), learned.append]
        for i, rbm in enumerate(machines):
            rbm.to(self._device)
            rate = (0.001 if i == 0 and self.visible == "gaussian" else 0.05) if rates[i] is None else rates[i]
            files = {} if place is None else {"checkpoint": f"{place}.{i}"}
            if resume and not learned and os.path.exists(f"{resume}.{i}"):
                files["resume"] = f"{resume}.{i}"
            drawn = {"stochastic": True} if i else {}
            # a schedule that follows the error of one machine knows nothing of the next one's
            own = {"schedule": copy.deepcopy(options.get("schedule"))}
            rbm.fit(x, epochs=epochs[i], lr=rate, callbacks=callbacks, **{"algorithm": "cd"} | drawn | options | own | files)
            if rbm.history_["stopped"] == "interrupted":  # what was trained stays in the checkpoint, if there is one
                raise KeyboardInterrupt
            if show:
                error = rbm.history_["error"][-1] if rbm.history_["error"] else float("nan")
                show(f"machine {i + 1} of {count}: reconstruction error {error:.4f}")
            stack.append(rbm)
            if i + 1 < count:
                x = rbm.transform(x)
        self.stack_, self.input_shape_ = stack, stack[0].input_shape_
        # What infers the hidden layers; up-down training parts it from what generates.
        self.recognition_ = [[w.copy() for w in (r.module_.w.data, r.module_.c.data)] for r in self.stack_[:-1]]
        return self

    def to(self, device):
        """Work on a device from now on, the stack as well; see `Classifier.to`."""
        super().to(device)
        for rbm in getattr(self, "stack_", []):
            rbm.to(device)
        if hasattr(self, "recognition_"):
            self.recognition_ = [[backend.move(a, device) for a in pair] for pair in self.recognition_]
        return self

    def _need_stack(self):
        if not hasattr(self, "stack_"):
            raise RuntimeError("DBN: expected a stack that was trained by pretrain; got none")

    def _up(self, v, sample=False, stream=None):
        """Hidden layers given v, all but the last: means of each, or samples; with the means they were drawn from."""
        k, layers = backend.kernels(v), []
        for w, c in self.recognition_:
            mean = backend.empty((len(v), c.shape[0]), v)
            drawn = backend.empty(mean.shape, v) if sample else None
            seed, offset = stream.take(c.shape[0]) if sample else (0, 0)
            k.gibbs_sample_hidden(v, w, c, seed=seed, offset=offset, mean=mean, sample=drawn)
            layers.append((mean, drawn))
            v = drawn if sample else mean
        return layers

    def transform(self, X):
        """Means of the last hidden layer, float32 [N,H]."""
        self._need_stack()
        x = self.stack_[0]._floats(self._input(X))
        if self.recognition_:
            x = self._up(x)[-1][0]
        return backend.to_host(self.stack_[-1].module_.hidden(x))

    def fine_tune(self, X, *, epochs=10, batch_size=100, lr=0.01, k=3, callbacks=()):
        """Up-down training of all layers without labels (contrastive wake-sleep).

        A sample goes up through the recognition weights, makes `k` steps in the top machine, and comes down through the
        generative weights; each pass teaches the other direction's weights.

        Parameters
        ----------
        X : array [N,...]
            Values that the visible units take, as in `pretrain`.
        epochs, batch_size : int
            Passes over X, and samples of an update: 10 and 100 if left out.
        lr : float
            0.01 if left out.
        k : int
            Gibbs steps of the top machine between the way up and the way down, 3 if left out.
        callbacks : sequence of callables
            ``f(state)`` after every epoch; see `fastdl.train.State`. Its `loss` is the error of the epoch, its `module` has the
            machines' weights and those that infer the hidden layers.

        Returns
        -------
        The model itself; `fine_tune_history_` holds the curve.

        Raises
        ------
        RuntimeError
            No stack: `pretrain` comes first.
        FloatingPointError
            The weights became infinite or NaN.

        Notes
        -----
        Ctrl-C ends training after the current update: the weights are whole, and the history says 'interrupted'.
        """
        self._need_stack()
        epochs, batch_size, k = positive("epochs", epochs), positive("batch_size", batch_size), positive("k", k)
        if number("lr", lr) < 0.0:
            raise ValueError(f"lr: expected 0 or more; got {lr}")
        callbacks = functions("callbacks", callbacks)
        x = must_have_some(self._input(X))
        stream, shuffling = stream_of(self.seed, "up-down"), stream_of(self.seed, "up-down shuffle")
        n, few = len(x), np.linspace(0, len(x) - 1, min(len(x), 1000)).astype(np.int64)
        shown = self.stack_[0]._floats(x[few])
        history = self.fine_tune_history_ = {"epoch": [], "error": [], "seconds": [], "stopped": "done"}
        state = train.State(_Stack(self), None, history, epochs, epochs * -(-n // batch_size))
        with interruptible(history) as interrupts:
            for epoch in range(1, epochs + 1):
                begun = time.perf_counter()
                order = permutation(n, *shuffling.take(2 * n))
                with backend.pooled():
                    for at in range(0, n, batch_size):
                        v = self.stack_[0]._floats(x[np.sort(order[at : at + batch_size])])
                        self._up_down(v, lr, k, stream)
                        state.step += 1
                        if interrupts.asked:
                            break
                for rbm in self.stack_:
                    weights = rbm.module_.flatten().data
                    if not np.isfinite(float(backend.to_host(rbm.module_.kernels.sum_squares(weights))[0])):
                        raise FloatingPointError(f"DBN: weights became infinite or NaN; expected a smaller lr than {lr:g}")
                error = self._reconstruction_error(shown)
                for name, value in (("epoch", epoch), ("error", error), ("seconds", time.perf_counter() - begun)):
                    history[name].append(value)
                if interrupts.asked:
                    raise KeyboardInterrupt
                state.epoch, state.loss = epoch, error
                for f in callbacks:
                    f(state)
                if state.stop:
                    history["stopped"] = "callback"
                    break
        return self

    def _reconstruction_error(self, v):
        """Mean squared error of v after the way up and down again, by means."""
        h = self.stack_[-1].module_.hidden(self._up(v)[-1][0] if self.recognition_ else v)
        for rbm in reversed(self.stack_):
            h = rbm.module_.visible(h)
        return float(np.mean((backend.to_host(v).astype(np.float64) - backend.to_host(h)) ** 2))

    def _up_down(self, v, lr, steps, stream):
        k, n, rate = backend.kernels(v), len(v), lr / len(v)
        each = backend.full((1, n), v, 1.0)

        def learn(wrong, source, w, bias, transposed):
            """w and bias move by rate times (target - mean), of which `wrong` holds rate times the difference."""
            a, b = (wrong, source) if transposed else (source, wrong)
            k.matmul(a, b, True, False, 1.0, w)
            k.matmul(each, wrong, False, False, 1.0, bias.reshape(1, len(bias)))

        samples = [v] + [s for _, s in self._up(v, True, stream)]
        # Wake: what generates learns to give back each layer from the one above.
        for i, rbm in enumerate(self.stack_[:-1]):
            m = rbm.module_
            wrong = m.visible(samples[i + 1])
            k.axpby(rate, samples[i], -rate, wrong)
            learn(wrong, samples[i + 1], m.w.data, m.b.data, True)
        # The top machine, by contrastive divergence.
        top, below = self.stack_[-1].module_, samples[-1].copy()
        top.flatten()
        h = backend.zeros((n, top.sizes[1]), v)
        grads = {"dw": top.w.grad, "db": top.b.grad, "dc": top.c.grad}
        top.chain(below, h, 0, stream, factor=rate, **grads)
        top.chain(below, h, steps, stream, from_hidden=True, factor=-rate, beta=1.0, **grads)
        for p in (top.w, top.b, top.c):
            k.axpby(1.0, p.grad, 1.0, p.data)
        # Sleep: what infers learns to find each layer from what it generated.
        dream = below
        for i in range(len(self.stack_) - 2, -1, -1):
            lower = self.stack_[i].module_.visible(dream, True, stream)
            w, c = self.recognition_[i]
            guess = backend.empty(dream.shape, v)
            k.gibbs_sample_hidden(lower, w, c, seed=0, mean=guess, sample=None)
            k.axpby(rate, dream, -rate, guess)
            learn(guess, lower, w, c, False)
            dream = lower

    def sample(self, n=1, steps=1000, seed=0, means=True):
        """Samples: Gibbs steps in the top machine, then one pass down through the generative weights.

        Parameters
        ----------
        n, steps : int
        seed : int
        means : bool
            Means of the visible units instead of samples.

        Returns
        -------
        array of float32 [n,V]
        """
        self._need_stack()
        stream = stream_of(seed, "down")
        x = backend.to_device(self.stack_[-1].sample(n, steps, seed), self.stack_[0].module_.w.data)
        for i in range(len(self.stack_) - 2, -1, -1):
            x = self.stack_[i].module_.visible(x, i > 0 or not means, stream)
        return backend.to_host(x)

    def lower_bound(self, X, chains=100, temperatures=10000, samples=1, seed=0):
        """A lower bound of the mean log-probability of samples, in nats, by annealing the top machine.

            log p(v) >= E_q[log p(v | h1) + ... + log p*(h(L-1))] + H(q) - log Z

        Bernoulli visible units only. The expectation is over `samples` draws of the hidden layers for each sample.

        Returns
        -------
        bound : float
        annealing : Annealing
            Of the top machine.

        References
        ----------
        Salakhutdinov & Murray (2008), section 5.
        """
        self._need_stack()
        if self.visible != "bernoulli":
            raise ValueError(f"visible: expected 'bernoulli', for the bound; got {self.visible!r}")
        positive("samples", samples)
        x = self.stack_[0]._floats(must_have_some(self._input(X)))
        z = self.stack_[-1].anneal(chains, temperatures, seed)
        stream, total = stream_of(seed, "bound"), 0.0

        def entropy(means):
            p = np.clip(backend.to_host(means).astype(np.float64), 1e-7, 1 - 1e-7)
            return -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum(1)

        def log_given(values, m, above):
            # From the inputs of the units: means in float32 round to 0 and 1.
            z = backend.empty(values.shape, values)
            m.kernels.gibbs_sample_visible(above, m.w.data, m.b.data, units="gaussian", seed=0, mean=z, sample=None)
            z = backend.to_host(z).astype(np.float64)
            return (backend.to_host(values) * z - np.logaddexp(0, z)).sum(1)

        for _ in range(samples):
            below, each = x, np.zeros(len(x))
            for i, (mean, drawn) in enumerate(self._up(x, True, stream)):
                each += log_given(below, self.stack_[i].module_, drawn) + entropy(mean)
                below = drawn
            total += (each - backend.to_host(self.stack_[-1].module_.free_energy(below))).mean()
        return total / samples - z.log_z, z

    # ----------------------------------------------------------------------------------------- with labels

    def _make(self, input_shape, outputs):
        layers = [nn.Dropout(self.input_dropout)] if self.input_dropout else []
        for h in self.hidden:
            layers.append(nn.Dense(int(h), act="sigmoid"))
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
        return nn.Sequential(*layers, nn.Dense(outputs))

    @unless_begun
    def build(self, input_shape, classes):
        """Make the classifier; its hidden layers begin with the weights of the stack, if there is one."""
        if hasattr(self, "stack_"):
            shape, mine = self._sample_shape(input_shape), self.stack_[0].input_shape_
            if shape != mine:
                raise ValueError(f"input_shape: expected {list(mine)}, as the stack was made for; got {list(shape)}")
        super().build(input_shape, classes)
        if hasattr(self, "stack_"):
            dense = [m for _, m in self.module_.named_modules() if isinstance(m, nn.Dense)]
            upward = [*self.recognition_, [self.stack_[-1].module_.w.data, self.stack_[-1].module_.c.data]]
            for layer, (w, c) in zip(dense, upward, strict=False):
                backend.assign(layer.w.data, w)
                backend.assign(layer.b.data, c)
        return self

    @unless_begun
    def fit(self, X, y, *, pretrain=None, **options):
        """Train the classifier by backpropagation from the weights of the stack.

        Parameters
        ----------
        X : array [N,...]
        y : array [N]
        pretrain : int or dict, optional
            Train the stack first: a number of epochs for each machine, or a dict of options of `pretrain`, which is then
            called with X, but for the share that `validation` sets aside. 0 and None: begin with the stack of now, if
            there is one. (`Autoencoder.fit` takes the same.)
        **options
            Of `Classifier.fit`: epochs, batch_size, lr, validation, ... With a checkpoint PATH the machines have theirs
            beside it, PATH.0, PATH.1, ..., and a run that goes on trains only what was not trained before. Once PATH itself
            is there it wants the same `pretrain` as before, or none: then the classifier goes on without its machines.

        Returns
        -------
        The model itself.
        """
        of_stack, self._pretrain = pretraining(pretrain, _OF_STACK)
        if of_stack is not None:
            if options.get("warm_start") and hasattr(self, "module_"):
                raise ValueError(f"pretrain: expected none with warm_start, to go on from the weights of now; got {pretrain!r}")
            must_be_able_to_train(super().fit, options, self._own)
            # Told now: the weights will be those of the file, whatever other machines had learned before that.
            now = self._settings() | {"pretrain": self._pretrain}
            must_be_the_same_model(now, as_checkpoint(options.get("checkpoint")), options.get("resume"))
            files = {name: options[name] for name in ("checkpoint", "resume") if options.get(name)}
            begun = None if files.get("resume") is True else to_go_on_from(None, files.get("resume"))
            if begun is not None and not begun.exists():
                if not os.path.exists(f"{begun}.0"):
                    return super().fit(X, y, **options)  # which says that it is not there
                options["resume"] = None  # the machines were still being trained
            seen = X
            if isinstance(options.get("validation"), Real):  # what is only judged later is not learned from now
                seen = must_have_some(as_input(X))
                seen = backend.take(seen, backend.to_device(self._shares(len(seen), options["validation"])[0], seen))
            with beforehand():
                self.pretrain(seen, **files | of_stack)
        return super().fit(X, y, **options)

    # ------------------------------------------------------------------------------------------------ files

    def _begin(self, X, warm_start):
        scale = getattr(self, "scale_", None) if hasattr(self, "stack_") else None
        x = super()._begin(X, warm_start)
        must_be_on_scale(x, scale)
        if hasattr(self, "stack_") and x.shape[1:] != self.stack_[0].input_shape_:
            raise ValueError(
                f"X: expected samples of shape {list(self.stack_[0].input_shape_)}, as the stack was made for; "
                f"got {list(x.shape[1:])}"
            )
        return x

    def _need_fit(self):
        if hasattr(self, "stack_") and not hasattr(self, "module_"):
            raise RuntimeError("DBN: expected a classifier trained by fit; got a stack alone, trained by pretrain")
        super()._need_fit()

    def _need_some(self):
        if not hasattr(self, "stack_"):
            self._need_fit()

    def save(self, path):
        """Write classifier and stack, or what there is of them; see `Classifier.save`."""
        self._need_some()
        self._save(path)

    def summary(self):
        """A table of the classifier's layers, or of the machines where there is none yet."""
        self._need_some()
        if hasattr(self, "module_"):
            return super().summary()
        return "\n".join([repr(self), *(rbm.summary() for rbm in self.stack_)])

    def get_weights(self):
        """Copies of all arrays: ``net.*`` of the classifier, ``machine0.*`` and so on of the stack."""
        self._need_some()
        return _All(self).get_weights()

    def set_weights(self, weights):
        """Copy arrays, as from `get_weights`, into the classifier and the stack; returns the model."""
        self._need_some()
        _All(self).set_weights(weights)
        return self

    def _describe(self):
        if hasattr(self, "module_"):
            return super()._describe() | {"stack": hasattr(self, "stack_")}
        return Model._describe(self) | {"stack": True}

    @classmethod
    def _from_file(cls, weights, config):
        params = {k: tuple(v) if isinstance(v, list) else v for k, v in config["params"].items()}
        model, bare = cls(**params), not any("." in k and k.split(".")[0] in ("net", "machine0") for k in weights)
        if config["stack"] and not bare:
            model.stack_, size = model._machines(), tuple(config["input_shape"])
            for rbm in model.stack_:
                rbm.build(size)
                size = (int(rbm.hidden),)
            model.input_shape_ = tuple(config["input_shape"])
            model.recognition_ = [[w.copy() for w in (r.module_.w.data, r.module_.c.data)] for r in model.stack_[:-1]]
        if "classes" in config:
            model._build_from(config)
        if bare:  # a checkpoint of the classifier
            model.module_.set_weights(weights)
            return model
        return model.set_weights(weights)


# What `DBN.pretrain` takes, each name once.
_OF_STACK = inspect.signature(DBN.pretrain).parameters | inspect.signature(RBM.fit).parameters
_OF_STACK = tuple(name for name in _OF_STACK if name not in ("self", "X", "y", "options", "warm_start"))


class _Upward(Module):
    """What infers a layer from the one below: w [V,H] and c [H]."""

    buffers = ("w", "c")

    def __init__(self, w, c):
        self.w, self.c = w, c


class _All(Module):
    """All arrays of classifier and stack, or what there is of them, under the names that `get_weights` gives."""

    def __init__(self, dbn):
        if hasattr(dbn, "module_"):
            self.net = dbn.module_
        for i, rbm in enumerate(getattr(dbn, "stack_", [])):
            setattr(self, f"machine{i}", rbm.module_)
        for i, (w, c) in enumerate(getattr(dbn, "recognition_", [])):
            setattr(self, f"up{i}", _Upward(w, c))


class _Stack(Module):
    """All that up-down training changes, for its callbacks: the machines' arrays, and those that infer the hidden layers."""

    def __init__(self, dbn):
        self.machines = [rbm.module_ for rbm in dbn.stack_]
        self.upward = [_Upward(w, c) for w, c in dbn.recognition_]
