"""Pictures to words: a convolutional network looks, a recurrent one speaks."""

from dataclasses import replace

import numpy as np

from .. import backend, decode, nn, ops, optim, train
from .._arguments import chance, not_negative, positive, sizes
from .._interrupts import unless_begun
from ..data.text import Vocabulary
from ..module import Module, shape_of
from ..random import uniform
from ..tensor import Tensor, inference
from ._base import Model
from ._door import must_be_images_of, must_have_some

END, UNKNOWN = "<end>", "<unknown>"


class _CaptionNet(Module):
    """Calling it gives what the image shows, [N,G]; `logits` the words that follow."""

    def __init__(self, words, filters, features, units, embedding, dropout, bag):
        layers = []
        for f in filters:
            layers += [nn.Conv2d(f, 3, padding="same", bias=False, init="he_normal"), nn.BatchNorm(), nn.ReLU()]
            layers += [nn.Conv2d(f, 3, padding="same", bias=False, init="he_normal"), nn.BatchNorm(), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.look = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Dense(features, "relu"))
        self.first_h = nn.Dense(units, "tanh", inputs=features)
        self.first_c = nn.Dense(units, "tanh", inputs=features)
        self.table = nn.Embedding(words + 1, embedding)  # the last row begins a caption
        self.speak = nn.LSTM(units, inputs=embedding)
        self.dropout = nn.Dropout(dropout)
        self.choose = nn.Dense(words, inputs=units + features)
        self.contain = nn.Dense(words, inputs=features) if bag else None
        self.units, self.stream = units, None

    def forward(self, x):
        return self.look(x)

    def begin(self, g):
        """The state before the first word: [(h, c)]."""
        return [(self.first_h(g), self.first_c(g))]

    def logits(self, g, words, rows=None):
        """Logits behind each word of words [N,T], or behind those at the places `rows` of N T alone."""
        n, t = words.shape
        y, _ = self.speak.sequence(self.dropout(self.table(words)), None, self.begin(g))
        rows = np.arange(n * t) if rows is None else rows
        said = ops.embedding(ops.reshape(y, (n * t, self.units)), backend.to_device(rows, g.data))
        seen = ops.embedding(g, backend.to_device(rows // t, g.data))
        return self.choose(self.dropout(ops.concatenate([said, seen])))

    def step(self, words, state):
        """Logits behind the words [B]; state is (g, h, c)."""
        g, h, c = state
        y, ((h, c),) = self.speak.sequence(self.table(words.reshape(len(words), 1)), None, [(h, c)])
        return self.choose(ops.concatenate([ops.reshape(y, (len(words), self.units)), g])), (g, h, c)


class Captioner(Model):
    """Describes images in words: features of a convolutional network begin an LSTM, and join in choosing every word.

        g = look(image);  h_0, c_0 = tanh(g w + b), tanh(g w' + b');  h_t, c_t = lstm(word_{t-1}, h_{t-1}, c_{t-1})
        p(word_t) = softmax((h_t, g) u + d)

    Parameters
    ----------
    filters : tuple of int
        Of the blocks of two 3x3 convolutions; each block halves the image.
    features : int
        G.
    units : int
        Of the LSTM.
    embedding : int
        Length of a word's vector.
    dropout : float
        Of what both networks pass on, while training.
    word_dropout : float
        Chance that a word of the caption so far is hidden while training.
    bag : float
        Weight of a second loss while training: the words of the caption as a set, said by the features alone,
        -mean over the words of log softmax(g v + e)[word]. What comes before a word often gives it away ("skin tone"), and
        the picture learns nothing from it then; here every word is a question to the picture. 0: without.
    at_least : int
        How often a word must occur in the training captions; rarer ones are never said.
    seed : int

    Attributes
    ----------
    vocabulary_ : fastdl.data.Vocabulary
    module_ : Module
    history_ : dict

    References
    ----------
    Vinyals, Toshev, Bengio & Erhan, "Show and tell" (2015); the image beside the LSTM's output: Tanti, Gatt & Camilleri,
    "What is the role of recurrent neural networks in an image caption generator?" (2017).
    """

    _fitted = ("module_", "input_shape_", "vocabulary_")
    _own = ("loss", "metrics")

    def __init__(self, filters=(32, 64, 128), features=256, units=256, embedding=128, dropout=0.3, word_dropout=0.0,
                 bag=0.0, at_least=1, seed=0):  # fmt: skip
        self.filters, self.features = sizes("filters", filters), positive("features", features)
        self.units = positive("units", units)
        self.embedding, self.at_least = positive("embedding", embedding), positive("at_least", at_least)
        self.dropout, self.word_dropout = chance("dropout", dropout), chance("word_dropout", word_dropout)
        self.bag, self.seed = not_negative("bag", bag), seed

    def _shape(self, x, name="X"):
        if x.ndim != 4:
            raise ValueError(f"{name}: expected images [N,Y,X,C]; got shape {list(x.shape)}")
        return x

    def _captions(self, captions, n, name="captions"):
        """int64 [N,T]: words and the end, then -1; -1 also for words that are not known."""
        captions = [c.split() for c in _strings(captions, name)]
        if len(captions) != n:
            raise ValueError(f"{name}: expected {n}, one for each image; got {len(captions)}")
        if any(END in c for c in captions):
            raise ValueError(f"{name}: expected words other than {END!r}, which ends a caption; got it inside one")
        numbers = {word: i for i, word in enumerate(self.vocabulary_.symbols) if word != UNKNOWN}
        width = max((len(c) for c in captions), default=0) + 1
        codes = np.full((n, width), -1, np.int64)
        for row, caption in zip(codes, captions, strict=True):
            row[: len(caption)] = [numbers.get(word, -1) for word in caption]
            row[len(caption)] = numbers[END]
        return codes

    @unless_begun
    def build(self, input_shape, vocabulary):
        """Make the network with initial weights.

        Parameters
        ----------
        input_shape : (Y, X, C)
        vocabulary : fastdl.data.Vocabulary
            The words; '<end>' and '<unknown>' must be among them.
        """
        if not isinstance(vocabulary, Vocabulary):
            raise TypeError(f"vocabulary: expected a fastdl.data.Vocabulary; got {type(vocabulary).__name__}")
        for word in (END, UNKNOWN):
            if word not in vocabulary:
                raise ValueError(f"vocabulary: expected {word!r} among its words; got none")
        shape = shape_of(input_shape)
        if len(shape) != 3:
            raise ValueError(f"input_shape: expected (rows, columns, channels); got {list(shape)}")
        must_be_images_of(2 ** len(self.filters), shape, f"which {len(self.filters)} blocks halve")
        self.input_shape_, self.vocabulary_ = shape, vocabulary
        self.module_ = _CaptionNet(
            len(vocabulary), self.filters, self.features, self.units, self.embedding, self.dropout, self.bag
        ).build(self.input_shape_, self.seed).eval()  # fmt: skip
        self.module_.to(self._device)
        return self

    @unless_begun
    def fit(
        self,
        X,
        captions,
        *,
        epochs=10,
        batch_size=64,
        validation=None,
        optimizer="adam",
        lr=None,
        weight_decay=None,
        clip=None,
        smoothing=0.0,
        warm_start=False,
        **options,
    ):
        """Train on images with a caption each.

        Parameters
        ----------
        X : array [N,Y,X,C]
            uint8 images are read as values in [0,1].
        captions : sequence of str [N]
            Words between blanks; '<unknown>' stands for one that is not to be learned.
        validation : (X, captions), optional
        smoothing : float
            Label smoothing of the words.
        epochs, batch_size, optimizer, lr, weight_decay, clip, warm_start, **options
            As in the classifiers' `fit`.

        Returns
        -------
        The model itself.
        """
        chance("smoothing", smoothing)
        train.must_take(options, self._own)
        x = self._begin(X, warm_start)
        captions = _strings(captions)
        if not hasattr(self, "module_"):
            words = [[w for w in c.split() if w != END] for c in captions]
            kept = Vocabulary.of(*words, least=self.at_least, unknown=UNKNOWN).symbols
            self.build(x.shape[1:], Vocabulary([END, *kept], UNKNOWN))
        codes = self._captions(captions, len(x))
        if validation is not None:
            vx, vc = _pair(validation, "validation")
            vx = must_have_some(self._input(vx, "validation X"), "validation X")
            validation = vx, self._captions(vc, len(vx), "validation captions")
        options["checkpoint"] = self._checkpoint(options.get("checkpoint"), options.get("resume"))
        given = {"lr": lr, "weight_decay": weight_decay, "clip": clip}
        opt = optim.get(optimizer, self.module_, **{k: v for k, v in given.items() if v is not None})
        module = self.module_

        def loss(g, target):
            return self._loss(g, target, smoothing if module.training else 0.0)

        loss.__qualname__ = f"cross entropy of words, smoothing {smoothing:g}"  # what a run that goes on compares
        self.history_ = train.fit(
            module,
            x,
            codes,
            loss=loss,
            optimizer=opt,
            epochs=epochs,
            batch_size=batch_size,
            validation=validation,
            **{"seed": self.seed} | options,
        )
        return self

    def _loss(self, g, target, smoothing):
        """Cross entropy in nats a word, the end counted."""
        module, target = self.module_, backend.to_host(target)
        start, unknown = len(self.vocabulary_), self.vocabulary_.encode([UNKNOWN])[0]
        shown = np.concatenate([np.full((len(target), 1), start), np.where(target < 0, unknown, target)[:, :-1]], 1)
        if module.training and self.word_dropout:
            hidden = uniform(shown.shape, 0.0, 1.0, *module.stream.take(shown.size)) < self.word_dropout
            hidden[:, 0] = False
            shown = np.where(hidden, unknown, shown)
        rows = np.flatnonzero(target.reshape(-1) >= 0)
        logits = module.logits(g, backend.to_device(shown.astype(np.int64), g.data), rows)
        loss = ops.softmax_cross_entropy(logits, backend.to_device(target.reshape(-1)[rows], g.data), None, smoothing)
        return loss + self._bag_loss(g, target) if module.training and self.bag else loss

    def _bag_loss(self, g, target):
        """Cross entropy of the set of words, in nats a word, times its weight."""
        share, end = np.zeros((len(target), len(self.vocabulary_)), np.float32), self.vocabulary_.encode([END])[0]
        rows, places = np.nonzero((target >= 0) & (target != end))
        share[rows, target[rows, places]] = 1.0
        share *= -self.bag / max(share.sum(), 1.0)
        return (ops.log_softmax(self.module_.contain(g)) * Tensor(backend.to_device(share, g.data))).sum()

    def transform(self, X):
        """What the network sees in images: float32 [N,G]."""
        self._need_fit()
        return self._features(X, "X")

    def _features(self, X, name):
        return backend.to_host(train.predict(self.module_, self._input(X, name)))

    def hypotheses(self, X, width=5, length_penalty=0.7, max_length=20):
        """The captions that beam search finds for each image: lists of `fastdl.decode.Hypothesis`, best first."""
        self._need_fit()
        module, end = self.module_, int(self.vocabulary_.encode([END])[0])
        found, features = [], train.predict(module, self._input(X))
        if not np.isfinite(backend.to_host(features)).all():
            raise ValueError("X: expected images of finite numbers; got one whose features are not")
        with inference(), backend.pooled():
            for begin in range(0, len(features), 64):
                g = Tensor(features[begin : begin + 64])
                ((h, c),) = module.begin(g)

                def step(tokens, state, like=g.data):
                    return module.step(backend.to_device(tokens, like), state)

                start = np.full(len(g), len(self.vocabulary_))
                found += decode.beam_search(step, start, end, max_length, (g, h, c), width, length_penalty)
        return found

    def candidates(self, X, width=5, length_penalty=0.7, max_length=20, known=None, neighbours=5):
        """What `elect` chooses from, so that it may be asked more than once: the slow part of `caption`.

        Parameters
        ----------
        X, width, length_penalty, max_length, known, neighbours
            As in `caption`.

        Returns
        -------
        list of (list of fastdl.decode.Hypothesis, list of (list of int, float))
            For each image the captions of the beam, best first, and those of the known images, nearest first, with the
            cosines of their features.
        """
        found = self.hypotheses(X, width, length_penalty, max_length)
        if known is None:
            return [(own, []) for own in found]
        near = self._near(X, *_pair(known, "known"), positive("neighbours", neighbours))
        return list(zip(found, near, strict=True))

    def elect(self, candidates, consensus=True, share=0.5, sharpness=80.0):
        """A caption for each image, a list of str, of what `candidates` found; arguments as in `caption`."""
        if not_negative("share", share) > 1.0:
            raise ValueError(f"share: expected a number from 0 to 1; got {share}")
        not_negative("sharpness", sharpness)
        chosen = []
        for own, near in candidates:
            election = own
            if near:
                others = [decode.Hypothesis(tokens, 0.0, sharpness * cosine) for tokens, cosine in near]
                election = _weigh(own, 1.0 - share) + _weigh(others, share)
            best = decode.consensus(election, _overlap) if consensus else election[0]
            words = self.vocabulary_.decode(best.tokens)
            chosen.append(" ".join(w for w in words if w not in (END, UNKNOWN)))
        return chosen

    def caption(self, X, width=5, length_penalty=0.7, max_length=20, consensus=True, known=None, neighbours=5, share=0.5,
                sharpness=80.0):  # fmt: skip
        """A caption for each image, a list of str.

        Parameters
        ----------
        X : array [N,Y,X,C]
        width, length_penalty, max_length
            Of the beam search; see `fastdl.decode.beam_search`.
        consensus : bool
            Of the captions found, say the one that has most words and word pairs in common with the others, each counted by
            its probability; else the most probable one.
        known : (X, captions), optional
            Images whose captions are known, such as those of training: the captions of the nearest by features stand for
            election beside those of the beam, and vote.
        neighbours : int
            How many of them.
        share : float
            0 to 1, of their votes together.
        sharpness : float
            Each of them counts by exp(sharpness times cosine of its features): 0 all alike, very much the nearest alone.

        References
        ----------
        Neighbours' captions chosen by consensus: Devlin, Gupta, Girshick, Mitchell & Zitnick, "Exploring nearest neighbor
        approaches for image captioning" (2015).
        """
        found = self.candidates(X, width, length_penalty, max_length, known, neighbours)
        return self.elect(found, consensus, share, sharpness)

    def _near(self, X, known, captions, k):
        """For each image the captions of the k nearest known ones and the cosines of their features, nearest first."""
        captions, known = _strings(captions, "known captions"), must_have_some(known, "known X")
        codes = self._captions(captions, len(known), "known captions")
        codes[codes < 0] = self.vocabulary_.encode([UNKNOWN])[0]
        lengths = [len(caption.split()) + 1 for caption in captions]
        own, others = (
            g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-12)
            for g in (self._features(X, "X"), self._features(known, "known X"))
        )
        if not np.isfinite(others).all():
            raise ValueError("known X: expected images of finite numbers; got one whose features are not")
        result = []
        for cosines in own @ others.T:
            best = np.argsort(-cosines, kind="stable")[:k]
            result.append([(codes[i, : lengths[i]].tolist(), float(cosines[i])) for i in best])
        return result

    def _describe(self):
        return super()._describe() | {"words": self.vocabulary_.symbols}

    def _build_from(self, config):
        return self.build(tuple(config["input_shape"]), Vocabulary(config["words"], UNKNOWN))


def _strings(captions, name="captions"):
    """A list of captions, each a string: neither one string nor lists of words."""
    if isinstance(captions, str) or not hasattr(captions, "__iter__"):
        raise TypeError(f"{name}: expected a sequence of strings, one an image; got {type(captions).__name__}")
    captions = list(captions)
    for c in captions:
        if not isinstance(c, str):
            raise TypeError(f"{name}: expected strings of words between blanks; got {type(c).__name__}")
    return captions


def _pair(value, name):
    """(X, captions)."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}: expected (X, captions); got {type(value).__name__}")
    return value


def _weigh(hypotheses, share):
    """The same hypotheses with scores that make their probabilities sum to a share."""
    scores = np.array([h.score for h in hypotheses])
    total = np.log(np.sum(np.exp(scores - scores.max()))) + scores.max() - np.log(max(share, 1e-12))
    return [replace(h, score=h.score - float(total)) for h in hypotheses]


def _overlap(a, b):
    """Share of words and of word pairs that two captions have in common: mean of two F measures."""

    def f(x, y):
        both = len(set(x) & set(y))
        return 2.0 * both / (len(set(x)) + len(set(y))) if both else 0.0

    return (f(a, b) + f(list(zip(a, a[1:], strict=False)), list(zip(b, b[1:], strict=False)))) / 2.0
