"""Language models: recurrent networks that say what comes next."""

import math
from numbers import Real

import numpy as np

from .. import backend, init, nn, ops, optim, random, train
from .._arguments import chance, natural, number, one_of, positive
from .._interrupts import unless_begun
from ..checkpoint import fingerprint
from ..data.text import Vocabulary, _symbol, words
from ..decode import cooled
from ..module import Parameter
from ..random import Stream
from ..tensor import Tensor, inference
from ._base import Model
from .rnn import _CELLS, recurrent


class _TiedHead(nn.Module):
    """Logits by the table of the symbols' own vectors: x table^T + b."""

    def __init__(self, embedding):
        self.embedding = embedding
        self.b = Parameter((embedding.table.shape[0],), init.zeros, decay=False)

    @property
    def w(self):
        """The table, under the name it has in a dense layer."""
        return self.embedding.table

    def forward(self, x):
        rows = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(ops.matmul(rows, self.w, False, True) + self.b, (*x.shape[:-1], self.w.shape[0]))


class _Language(nn.Module):
    """Tokens [N,T] to logits [N,T,symbols]. While training, the states after a batch are those before the next.

    Rows of a batch are then pieces of the same texts as those of the batch before: truncated backpropagation through time
    (Williams & Peng, 1990).
    """

    buffers = ("h", "c")

    def __init__(self, symbols, embedding, layers, dropout, tied):
        self.embedding, self.recurrent = nn.Embedding(symbols, embedding), layers
        self.drop = nn.Dropout(dropout) if dropout else None
        self.head = _TiedHead(self.embedding) if tied else nn.Dense(symbols, inputs=layers.units)
        self.h = self.c = None

    def carry(self, n):
        """Keep states for n texts from now on; 0: none."""
        shape = (self.recurrent.layers, n, self.recurrent.units)
        self.h, self.c = (backend.zeros(shape, self.head.w.data) for _ in "hc") if n else (None, None)

    def forward(self, index):
        if isinstance(index, Tensor):  # of a network that is being traced
            index = index.data.astype(np.int64)
        carried = self.training and self.h is not None and self.h.shape[1] == len(index)
        state = self._states() if carried else None
        y, last = self.step(index, state)
        if carried:
            for i, one in enumerate(last):
                for kept, now in zip((self.h, self.c), one, strict=False):
                    backend.assign(kept[i], now.data)
        return y

    def _states(self):
        # copies: the backward pass of this batch reads them after the new ones are written
        kept = (self.h, self.c)[: len(self.recurrent.states)]
        return [tuple(Tensor(a[i].copy()) for a in kept) for i in range(len(self.h))]

    def step(self, index, state):
        """(logits, states)."""
        x = self.embedding(index)
        y, last = self.recurrent.sequence(x if self.drop is None else self.drop(x), None, state)
        return self.head(y if self.drop is None else self.drop(y)), last


class LanguageModel(Model):
    """Base of `CharLM` and `WordLM`: what comes next after each symbol of a text; trained by cross entropy.

    Attributes
    ----------
    module_ : Module
    vocabulary_ : fastdl.data.Vocabulary
    history_ : dict
    """

    _fitted = ("module_", "input_shape_", "vocabulary_")
    _own = ("loss", "metrics", "shuffle")  # windows come in the order of the text

    def __init__(self, units=256, cell="lstm", layers=1, embedding=64, dropout=0.0, tied=False, seed=0):
        self.units, self.layers = positive("units", units), positive("layers", layers)
        self.embedding, self.dropout = positive("embedding", embedding), chance("dropout", dropout)
        if tied and embedding != units:
            raise ValueError(f"embedding: expected units={units} where tied; got {embedding}")
        self.cell, self.tied, self.seed = one_of("cell", cell, _CELLS), tied, seed

    # ------------------------------------------------------------------------------------------ for families

    def _symbols(self, text, name="text"):
        """The symbols of a text."""
        raise NotImplementedError

    def _first_vocabulary(self, symbols):
        raise NotImplementedError

    def _join(self, symbols):
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------ public

    @unless_begun
    def build(self, vocabulary):
        """Make the network with initial weights.

        Parameters
        ----------
        vocabulary : fastdl.data.Vocabulary
        """
        if not isinstance(vocabulary, Vocabulary):
            raise TypeError(f"vocabulary: expected a fastdl.data.Vocabulary; got {type(vocabulary).__name__}")
        for s in vocabulary.symbols:
            if not isinstance(s, (str, Real)):
                raise TypeError(f"vocabulary: expected strings or numbers, which a file can hold; got {type(s).__name__}")
        self.vocabulary_, self.input_shape_ = vocabulary, (1,)
        layers = recurrent(self.cell, self.units, layers=self.layers, dropout=self.dropout)
        self.module_ = _Language(len(vocabulary), self.embedding, layers, self.dropout, self.tied)
        self.module_.build(self.input_shape_, self.seed).eval().to(self._device)
        return self

    def encode(self, text):
        """int64 [T] of a text; a symbol that is not known is an error, or `vocabulary_.unknown` where there is one."""
        self._need_fit()
        return self._encode(text, "text")

    def _encode(self, text, name):
        return self.vocabulary_._encode(self._symbols(text, name), name)

    @unless_begun
    def fit(self, text, *, epochs=10, batch_size=32, window=64, validation=None, optimizer="adam", lr=None, weight_decay=None,
            clip=1.0, vocabulary=None, warm_start=False, **options):  # fmt: skip
        """Train on a text, read by `batch_size` readers side by side, each from a place of its own.

        Parameters
        ----------
        text : str, or list of symbols
        epochs, batch_size : int
        window : int
            Steps that gradients flow back through; states flow on from window to window.
        validation : str, or list of symbols, optional
            Another text, judged after every epoch: `val_loss` is its `nats`.
        optimizer, lr, weight_decay, clip
            As in `Classifier.fit`.
        vocabulary : fastdl.data.Vocabulary, optional
            The symbols of the text if left out; with `warm_start` those of the network.
        warm_start : bool
        **options
            Passed to `fastdl.train.fit`: steps, schedule, callbacks, progress, checkpoint, resume, ...

        Returns
        -------
        The model itself; `history_` holds the curves, losses in nats a symbol.
        """
        batch_size, window = positive("batch_size", batch_size), positive("window", window)
        train.must_take(options, self._own)
        if not (warm_start and hasattr(self, "module_")):
            for name in self._fitted:
                self.__dict__.pop(name, None)
        symbols = self._symbols(text)
        if not hasattr(self, "module_"):
            if not len(symbols):
                raise ValueError("text: expected one symbol or more; got an empty text")
            self.build(self._first_vocabulary(symbols) if vocabulary is None else vocabulary)
        elif vocabulary is not None and not self._is_own(vocabulary):
            raise ValueError("vocabulary: expected the one of the network that is trained on; got another")
        codes = self.vocabulary_._encode(symbols, "text")
        judge = None if validation is None else _Judge(self, validation)
        pieces = (len(codes) - 1) // (batch_size * window)
        if pieces < 1:
            raise ValueError(
                f"text: expected more than batch_size x window = {batch_size * window} symbols; got {len(codes)}"
            )
        x, y = (
            np.ascontiguousarray(
                codes[s : s + batch_size * pieces * window].reshape(batch_size, pieces, window).swapaxes(0, 1)
            ).reshape(-1, window)
            for s in (0, 1)
        )
        given = {"lr": lr, "weight_decay": weight_decay, "clip": clip}
        self.module_.carry(batch_size)
        try:
            options["checkpoint"] = self._checkpoint(options.get("checkpoint"), options.get("resume"))
            self.history_ = train.fit(
                self.module_,
                x,
                y,
                loss="softmax_cross_entropy",
                optimizer=optim.get(optimizer, self.module_, **{k: v for k, v in given.items() if v is not None}),
                epochs=epochs,
                batch_size=batch_size,
                shuffle=False,
                validation=judge,
                **{"seed": self.seed} | options,
            )
        finally:
            self.module_.carry(0)
        return self

    def _is_own(self, vocabulary):
        own = self.vocabulary_
        return isinstance(vocabulary, Vocabulary) and (vocabulary.symbols, vocabulary.unknown) == (own.symbols, own.unknown)

    def nats(self, text, window=1024):
        """Mean cross entropy of a text's symbols, each given all before it (the first is given), in nats."""
        self._need_fit()
        window = positive("window", window)
        return self._nats(self._two_or_more(text), window)

    def _nats(self, codes, window=1024):
        total, state = 0.0, None
        loss = train.LOSSES["softmax_cross_entropy"]
        with train.evaluating(self.module_), inference():
            for at in range(0, len(codes) - 1, window):
                x, y = codes[at : at + window], codes[at + 1 : at + window + 1]
                logits, state = self._run(x[: len(y)], state)
                total += loss(logits, backend.to_device(y[None], logits.data)).item() * len(y)
        return total / (len(codes) - 1)

    def _two_or_more(self, text, name="text"):
        codes = self._encode(text, name)
        if len(codes) < 2:
            raise ValueError(f"{name}: expected two symbols or more; got {len(codes)}")
        return codes

    def perplexity(self, text):
        """exp of `nats`."""
        nats = self.nats(text)
        return math.exp(nats) if nats < 700.0 else math.inf

    def _run(self, codes, state):
        index = backend.to_device(np.ascontiguousarray(codes[None]), self.module_.any_array())
        return self.module_.step(index, state)

    def predict_proba(self, prompt):
        """Probability of each symbol to come next after a prompt, float32 [symbols]."""
        self._need_fit()
        codes = self._encode(prompt, "prompt")
        if not len(codes):
            raise ValueError("prompt: expected one symbol or more; got none")
        with train.evaluating(self.module_), inference():
            logits, _ = self._run(codes, None)
            last = np.ascontiguousarray(backend.to_host(logits.data)[0, -1:])
            return backend.kernels(last).softmax_forward(last)[0]

    def next(self, prompt, k=5):
        """The k most probable next symbols with their probabilities, best first."""
        k = positive("k", k)
        p = self.predict_proba(prompt)
        self._must_be_numbers(p)
        return [(self.vocabulary_.symbols[i], float(p[i])) for i in np.argsort(-p, kind="stable")[:k]]

    def _must_be_numbers(self, logits):
        if not np.isfinite(logits.max()):
            raise ValueError(f"{type(self).__name__}: expected a network that gives numbers; got {logits.max()}")

    def sample(self, n, prompt=None, temperature=1.0, top_k=None, seed=0):
        """Write on: n symbols after a prompt.

        Parameters
        ----------
        n : int
        prompt : str or list of symbols, optional
            The vocabulary's first symbol if left out. A few hundred symbols of the kind that was learned are better: in
            training states are carried on, so the beginning of a text is rare.
        temperature : float
            Logits are divided by it: below 1 bolder, towards 0 always the most probable symbol.
        top_k : int, optional
            Choose among the most probable ones only.
        seed : int

        Returns
        -------
        str or list of symbols, as the text was given; without the prompt.
        """
        self._need_fit()
        number("temperature", temperature, more_than=0.0)
        if top_k is not None:
            top_k = positive("top_k", top_k)
        n = natural("n", n)
        codes = np.zeros(1, np.int64) if prompt is None else self._encode(prompt, "prompt")
        if not len(codes):
            raise ValueError("prompt: expected one symbol or more; got none")
        draws, state, written = random.uniform((n,), seed=seed, offset=Stream(seed).offset), None, []
        with train.evaluating(self.module_), inference():
            for u in draws:
                logits, state = self._run(codes, state)
                z = backend.to_host(logits.data)[0, -1].astype(np.float64)
                self._must_be_numbers(z)
                z = cooled(z, temperature)
                if top_k is not None and top_k < len(z):
                    z[np.argsort(-z, kind="stable")[top_k:]] = -np.inf
                p = np.cumsum(np.exp(z))
                codes = np.array([min(np.searchsorted(p, u * p[-1], side="right"), len(p) - 1)], np.int64)
                written.append(int(codes[0]))
        return self._join(self.vocabulary_.decode(written))

    def _describe(self):
        v = {"symbols": self.vocabulary_.symbols, "unknown": self.vocabulary_.unknown}
        carried = 0 if self.module_.h is None else self.module_.h.shape[1]
        return super()._describe() | {"vocabulary": v, "carried": carried}

    def _build_from(self, config):
        self.build(Vocabulary(config["vocabulary"]["symbols"], config["vocabulary"]["unknown"]))
        self.module_.carry(config["carried"])
        return self

    @classmethod
    def _from_file(cls, weights, config):
        model = super()._from_file(weights, config)
        model.module_.carry(0)  # what a checkpoint holds of the texts that were being read
        return model


class _Judge:
    """Judges a text after every epoch."""

    def __init__(self, model, text):
        self.model, self.codes = model, model._two_or_more(text, "validation")
        self.fingerprint = fingerprint(self.codes)

    def __call__(self):
        return {"loss": self.model._nats(self.codes)}


class CharLM(LanguageModel):
    """Language model over characters.

    Parameters
    ----------
    units : int
        H of each recurrent layer.
    cell : {'lstm', 'gru', 'rnn'}
    layers : int
    embedding : int
        Width of the characters' vectors.
    dropout : float
        Before, between and after the recurrent layers.
    tied : bool
        Logits by the symbols' own vectors, one table for both (Press & Wolf 2017; Inan et al. 2017); embedding = units then.
    seed : int

    Examples
    --------
    >>> from fastdl.models import CharLM
    >>> model = CharLM(units=24, seed=1).fit("abc" * 200, epochs=10, batch_size=4, window=10, lr=0.02)
    >>> model.sample(6, "ab", temperature=0.1)
    'cabcab'
    """

    def _symbols(self, text, name="text"):
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected a string; got {type(text).__name__}")
        return text

    def _first_vocabulary(self, symbols):
        return Vocabulary.of(symbols)

    def _join(self, symbols):
        return "".join(symbols)


class WordLM(LanguageModel):
    """Language model over words; rare ones, and those never seen, are one symbol.

    Parameters
    ----------
    most : int
        Size of the vocabulary: the most frequent words.
    unknown : str
        The symbol of all others.
    units, cell, layers, embedding, dropout, tied, seed
        As in `CharLM`.

    A text is a string (split by `fastdl.data.words`) or a list of words; samples are lists of words.
    """

    def __init__(self, most=10000, unknown="<unk>", units=256, cell="lstm", layers=1, embedding=128, dropout=0.0, tied=False,
                 seed=0):  # fmt: skip
        super().__init__(units, cell, layers, embedding, dropout, tied, seed)
        self.most, self.unknown = positive("most", most), _symbol("unknown", unknown)

    def _symbols(self, text, name="text"):
        if not hasattr(text, "__iter__"):
            raise TypeError(f"{name}: expected a string or a list of words; got {type(text).__name__}")
        return words(text) if isinstance(text, str) else [_symbol(name, s) for s in text]

    def _first_vocabulary(self, symbols):
        return Vocabulary.of(symbols, most=self.most, unknown=self.unknown)

    def _join(self, symbols):
        return symbols
