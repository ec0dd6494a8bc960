"""Which network for which task, why, and whether a deep one is worth it: `fastdl.choose` and ``fastdl choose``.

    print(fastdl.choose("speech"))                    the rule
    print(fastdl.choose(data=X, labels=y))            looks at the arrays first: a simple model may be enough
"""

from dataclasses import dataclass, field

import numpy as np

from . import models, recipes
from ._judge import Judgement, judge
from .data.sequences import pad
from .models._door import array_of, numbers_of

__all__ = ["TASKS", "Choice", "Rule", "choose"]


@dataclass(frozen=True)
class Rule:
    """What is known about a task.

    Attributes
    ----------
    families : tuple of str
        Names in `fastdl.models`, the first choice first.
    reason : str
    baseline : str
        What a network has to beat.
    recipes : tuple of str
        Where to start from; some may not be in this version.
    also : tuple of str
        Other words for the task.
    """

    families: tuple
    reason: str
    baseline: str
    recipes: tuple = ()
    also: tuple = ()


TASKS = {
    "unlabelled": Rule(
        ("RBM", "Autoencoder"),
        "without labels a network can only learn what the data themselves look like: a Boltzmann machine as a probability, an "
        "autoencoder as a code from which they can be restored",
        "principal components, as many as there are hidden units",
        ("mnist-rbm", "mnist-autoencoder"),
        ("unsupervised", "features", "feature extraction", "no labels", "dimensionality reduction"),
    ),
    "denoising": Rule(
        ("Autoencoder", "RBM"),
        "an autoencoder that is shown spoiled inputs and must give back the clean ones learns what belongs to the data",
        "a median filter, and principal components",
        ("mnist-denoise",),
        ("compression", "novelty", "anomaly detection"),
    ),
    "generation": Rule(
        ("GAN", "RBM"),
        "a generator against a critic makes samples that look sharp; it gives no probability, a Boltzmann machine does",
        "samples of a mixture of Gaussians, judged by the same Frechet distance",
        ("mnist-gan", "mnist-dcgan"),
        ("sampling", "generative"),
    ),
    "sentiment": Rule(
        ("RNTN", "RNNClassifier"),
        "what a sentence says follows from its parts and how they are joined: a tensor network follows the tree of the "
        "sentence, a recurrent network reads it word by word",
        "naive Bayes on single words and pairs",
        ("sentiment-rntn", "sentence-tags"),
        ("sentiment analysis", "opinion"),
    ),
    "parsing": Rule(
        ("RNTN", "RNNClassifier"),
        "the structure is a tree, and a recursive network has one",
        "a table of the most frequent rule",
        (),
        ("syntax", "syntactic parsing"),
    ),
    "entities": Rule(
        ("RNTN", "RNNClassifier"),
        "a name is told by the words around it, near and far: a network over the sentence, word by word or along its tree",
        "the most frequent tag of each word",
        (),
        ("named entities", "entity recognition", "named entity recognition", "ner", "tagging"),
    ),
    "characters": Rule(
        ("CharLM",),
        "text by characters is a long sequence with a memory of words and lines: a recurrent network carries it in its state",
        "an n-gram model with Kneser-Ney smoothing",
        ("shakespeare-lstm",),
        ("character level", "text", "text processing", "language model", "language modelling"),
    ),
    "captions": Rule(
        ("Captioner",),
        "a picture is read by convolutions, its sentence written by a recurrent network that begins with what they saw",
        "the caption of the nearest picture in training",
        ("emoji-captions",),
        ("captioning", "image captioning"),
    ),
    "image": Rule(
        ("CNN", "DBN"),
        "the same small patterns occur at every place: a convolution looks for each with one set of weights; a deep belief "
        "network helps where few images have labels",
        "logistic regression and an RBF support vector machine on the pixels",
        ("mnist-cnn", "cifar-cnn", "image-folder", "mnist-dbn"),
        ("images", "image recognition", "image classification", "photo", "face", "face recognition"),
    ),
    "object": Rule(
        ("CNN", "RNTN"),
        "an object is made of parts at places that vary: convolutions find the parts; a recursive network can join regions of a "
        "scene to wholes",
        "an RBF support vector machine on gradients or pixels",
        ("cifar-resnet", "cats-dogs", "face-detect"),
        ("objects", "object recognition", "object detection", "detection"),
    ),
    "speech": Rule(
        ("RNNClassifier",),
        "sound unfolds in time and words differ in length: a recurrent network reads frames one by one",
        "an RBF support vector machine on the mean and spread of each band",
        ("spoken-digits-lstm", "vowels-lstm"),
        ("speech recognition", "audio"),
    ),
    "sequences": Rule(
        ("RNNClassifier",),
        "the order carries the meaning, and samples may differ in length",
        "the nearest neighbour by Euclidean distance or dynamic time warping",
        ("vowels-lstm", "mnist-rows-lstm", "moving-digits"),
        ("sequence", "sequence classification"),
    ),
    "time series": Rule(
        ("Forecaster",),
        "the next value follows from the last ones, at several distances: a recurrent network keeps what it needs of them",
        "the value a season ago, and a ridge regression on the last values",
        ("forecast-lstm",),
        ("timeseries", "time series analysis", "forecast", "forecasting"),
    ),
    "classification": Rule(
        ("MLP", "DBN"),
        "columns without an order of their own: dense layers with rectified units; a deep belief network where few rows have "
        "labels",
        "logistic regression and an RBF support vector machine",
        ("heart-disease", "breast-cancer", "mnist-mlp"),
        ("table", "tabular", "classes"),
    ),
    "regression": Rule(
        ("MLPRegressor",),
        "a quantity from columns without an order of their own: dense layers with rectified units and a linear output",
        "ridge regression and an RBF support vector regression",
        ("diabetes",),
        ("quantity",),
    ),
    "control": Rule(
        (),
        "there are no right answers to learn from, only rewards for what was done: a policy of dense layers, moved along the "
        "gradient of its expected reward",
        "an action at random, and the best linear rule found by trying",
        ("cartpole",),
        ("reinforcement", "reinforcement learning", "policy"),
    ),
}


@dataclass
class Choice:
    """An answer.

    Attributes
    ----------
    task : str
        A key of `TASKS`.
    family : str or None
        First of the rule's families that this version has.
    model : object or None
        One of that family; built where the shapes of the data are known.
    reason, baseline : str
    recipe : str or None
        To start from: ``fastdl train RECIPE``.
    judgement : Judgement or None
        What simple models reached on the data, if there were arrays.
    notes : list of str
    """

    task: str
    family: str | None
    model: object
    reason: str
    baseline: str
    recipe: str | None
    judgement: Judgement | None = None
    notes: list = field(default_factory=list)

    @property
    def worth_it(self):
        """Whether a deep network is worth a try: False where a simple model does; None where no data were seen."""
        return None if self.judgement is None else self.judgement.worth_it

    def __str__(self):
        lines = [f"task      {self.task}"]
        if self.judgement is not None:
            lines.append(f"data      {self.judgement}")
        lines += [
            f"network   {self.family or 'none in this version'}",
            f"because   {self.reason}",
            f"to beat   {self.baseline}",
            f"recipe    {f'fastdl train {self.recipe}' if self.recipe else 'no recipe for this here'}",
        ]
        if self.model is not None:
            lines.append(f"model     {self.model!r}")
        return "\n".join([*lines, *(f"note      {note}" for note in self.notes)])


def _named(task):
    wanted = " ".join(str(task).lower().replace("_", " ").replace("-", " ").split())
    for name, rule in TASKS.items():
        if wanted in (name, *rule.also):
            return name
    known = ", ".join(f"{name} ({', '.join(rule.also)})" if rule.also else name for name, rule in TASKS.items())
    raise ValueError(f"task: expected one of {known}; got {task!r}")


def _texts(data):
    """The list of texts that data are, or None: one string, a list or an array of them."""
    if isinstance(data, str):
        return [data]
    if getattr(getattr(data, "dtype", None), "kind", "") in "UO" and getattr(data, "ndim", 0) == 1:
        data = data.tolist()
    return list(data) if isinstance(data, (list, tuple)) and data and all(isinstance(d, str) for d in data) else None


def _ragged(data):
    """A list of sequences of several lengths, padded with NaN to [N,T,...]; None if data are no such thing."""
    if not isinstance(data, (list, tuple)) or len({np.shape(d)[:1] for d in data if not isinstance(d, str)}) < 2:
        return None
    return pad(data, np.nan if any(np.asarray(d).dtype.kind == "f" for d in data) else 0, name="data")[0]


def _table(data, labels):
    """(x, y) as arrays; y None without labels, True or False if only their presence is known."""
    x = array_of(data, "data", "cpu")
    if x.dtype.kind == "O" and x.ndim:
        x = numbers_of(x, "data")
    if x.dtype.kind not in "fiub":
        raise TypeError(f"data: expected an array of real numbers, or a list of strings; got {x.dtype}")
    if x.ndim == 0 or 0 in x.shape:
        raise ValueError(f"data: expected one sample or more, of one value or more; got shape {list(x.shape)}")
    if x.dtype.kind == "f" and np.isinf(x).any():
        raise ValueError("data: expected finite numbers, or NaN where one is missing; got infinity")
    if labels is None or isinstance(labels, bool):
        return x, labels or None
    return x, _labels(labels, len(x))


def _labels(labels, n):
    """Labels [N] or quantities [N,K]. One column is taken for [N], and columns of which each row marks one for classes."""
    y = array_of(labels, "labels", "cpu")
    if y.dtype.kind == "U" and isinstance(labels, (list, tuple)) and not all(isinstance(v, (str, list, tuple)) for v in labels):
        raise TypeError("labels: expected numbers or strings, one kind for all; got some of both")  # of which NumPy makes strings
    if y.ndim not in (1, 2) or len(y) != n:
        raise ValueError(f"labels: expected {n} of them, as many as samples in data; got shape {list(y.shape)}")
    if y.dtype.kind == "O" and all(isinstance(v, str) for v in y.reshape(-1)):
        y = y.astype(str)
    if y.dtype.kind not in "fiubU":
        raise TypeError(f"labels: expected numbers or strings, one kind for all; got {y.dtype}")
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    if y.ndim == 2 and y.dtype.kind != "U" and np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all():
        return y.argmax(1)
    return y


def _continuous(y):
    """Whether labels are quantities: broken numbers, or whole ones of which nearly every sample has its own."""
    if y.ndim == 2:
        return True
    if y.dtype.kind == "f" and not np.array_equal(y, np.round(y)):
        return True
    return y.dtype.kind in "fiu" and len(np.unique(y)) > max(20, 0.1 * len(y))


def _seen(x, y):
    """The task that arrays suggest."""
    if x.ndim == 1 and y is None:
        return "time series"
    if y is None:
        return "unlabelled"
    images = x.ndim == 4 or (x.ndim == 3 and (x.dtype == np.uint8 or x.shape[1] == x.shape[2]))
    if images and not (isinstance(y, np.ndarray) and _continuous(y)):
        return "image"
    if x.ndim == 3:
        return "sequences"
    return "regression" if isinstance(y, np.ndarray) and _continuous(y) else "classification"


def _recipe(rule):
    return next((name for name in rule.recipes if name in recipes.NAMES), None)


def _features(x):
    return int(np.prod(x.shape[1:]))


def _build(family, cls, x, y):
    """A model with the shapes of the data; raises TypeError where a family wants something else."""
    classes = np.unique(y) if isinstance(y, np.ndarray) and y.ndim == 1 else None
    if family == "MLP":
        return cls((128, 64)).build((_features(x),), classes)
    if family == "MLPRegressor":
        return cls((64, 32)).build((_features(x),), 1 if y.ndim == 1 else y.shape[1], y.mean(0), y.std(0) + (y.std(0) == 0))
    if family == "CNN":
        shape = (*x.shape[1:], 1)[:3] if x.ndim > 2 else None
        if shape is None:
            side = round(x.shape[1] ** 0.5)
            if side * side != x.shape[1]:
                raise TypeError("rows are no square images: give image_shape")
            return cls(image_shape=(side, side, 1)).build((side, side, 1), classes)
        return cls().build(shape, classes)
    if family == "Forecaster":
        spread = x.std(0)
        return cls().build(1 if x.ndim == 1 else x.shape[1], x.mean(0), np.where(spread > 0, spread, 1.0))
    inside = x.dtype == np.uint8 or (x.min() >= 0 and x.max() <= 1)  # what binary units and sigmoids can be
    options = {}
    if not inside:
        options = {"RBM": {"visible": "gaussian"}, "DBN": {"visible": "gaussian"}, "Autoencoder": {"output": "none"},
                   "GAN": {"output": "none"}}.get(family, {})  # fmt: skip
    model = cls(**options)
    if classes is not None:
        return model.build(x.shape[1:], classes)
    return model.build(x.shape[1:])


def _model(family, x, y, notes, texts=()):
    cls = getattr(models, family)
    if family == "CharLM" and texts:
        from .data import Vocabulary

        return cls().build(Vocabulary.of("".join(texts)))
    if x is None or y is True:
        return cls()
    if y is None and issubclass(cls, (models._supervised.Classifier, models._supervised.Regressor)):
        notes.append(f"{family} is not built: its shape depends on the labels")
        return cls()
    if family in ("RNTN", "Captioner"):
        notes.append(f"{family} is not built: it takes its vocabulary from what it is trained on")
        return cls()
    try:
        return _build(family, cls, x, y)
    except (TypeError, ValueError, AttributeError) as error:
        notes.append(f"{family} was not built for these data: {error}")
        return None


def choose(task=None, data=None, labels=None, seed=0):
    """Which network suits a task or data, why, what to beat, and where to start.

    Parameters
    ----------
    task : str, optional
        A key of `TASKS` or another word for it; seen from the data if left out.
    data : array [N,...], list of sequences, list of str or str, optional
        Arrays are looked at: with labels, a logistic regression and a support vector machine with RBF kernel (for quantities
        a ridge regression and its like) are trained first, and where they do well enough the answer says so. They need
        scikit-learn.
    labels : array [N], [N,K] or bool, optional
        Classes, or quantities; K columns of which each row marks one with 1 are classes. True: there are some.
    seed : int
        Of the samples that the simple models are judged on.

    Returns
    -------
    Choice

    Raises
    ------
    ValueError, TypeError
        Neither task nor data, labels without data, an unknown task, or data that do not fit; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdl
    >>> fastdl.choose("image recognition").family
    'CNN'
    >>> X = np.random.default_rng(0).normal(size=(400, 5))
    >>> fastdl.choose(data=X, labels=(X.sum(1) > 0).astype(int)).worth_it
    False
    """
    if task is None and data is None:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, or data; got neither")
    if data is None and labels is not None and not isinstance(labels, bool):
        raise ValueError("labels: expected the data they belong to, as well; got labels alone")
    x = y = None
    notes, judgement = [], None
    texts = ragged = None
    if data is not None:
        texts, ragged = _texts(data), _ragged(data)
    if texts is not None:
        if labels is not None and not isinstance(labels, bool):
            _labels(labels, len(texts))
        if task is None:
            task = "sentiment" if labels is not None and labels is not False else "characters"
    elif data is not None:
        x, y = _table(data if ragged is None else ragged, labels)
        if task is None:
            task = "sequences" if ragged is not None and y is not None else _seen(x, y)
    name = _named(task)
    rule = TASKS[name]
    if ragged is not None and x.ndim == 2:
        x = x[:, :, None]  # one value a step
    if isinstance(y, np.ndarray):
        quantity = name == "regression" or (name != "classification" and _continuous(y))
        if name == "classification" and _continuous(y) and y.dtype.kind == "f":
            raise ValueError(f"labels: expected classes, for the task {name}; got quantities (task 'regression')")
        if quantity and y.dtype.kind == "U":
            raise TypeError(f"labels: expected numbers, for the task {name}; got strings (task 'classification')")
        if not quantity and len(np.unique(y)) < 2:
            raise ValueError("labels: expected two classes or more; got one")
        try:
            judgement = judge(x, y, quantity=quantity, seed=seed)
        except ImportError as error:
            notes.append(str(error))
    known = [f for f in rule.families if hasattr(models, f)]
    notes += [f"{f} is not in this version" for f in rule.families if f not in known]
    family = known[0] if known else None
    if len(known) > 1:
        notes.append(f"or {', '.join(known[1:])}")
    model = _model(family, x, y, notes, texts or ()) if family else None
    if texts and family == "RNTN":
        notes.append("RNTN reads sentences as trees (fastdl.data.parse_trees); RNNClassifier reads them as words")
    return Choice(name, family, model, rule.reason, rule.baseline, _recipe(rule), judgement, notes)
