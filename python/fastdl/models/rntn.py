"""The recursive neural tensor network: a class for every node of a tree, bottom up."""

import zlib
from functools import partial

import numpy as np

from .. import backend, nn, ops, optim, train
from .._arguments import chance, not_negative, one_of, positive
from .._interrupts import unless_begun
from ..checkpoint import fingerprint
from ..data.text import Vocabulary
from ..data.trees import Forest, Tree
from ..module import Module
from ..tensor import Tensor, inference
from ._base import Model

UNKNOWN = "<unknown>"
CELLS = {"rntn": nn.RNTN, "plain": partial(nn.RNTN, tensor=False), "treelstm": nn.TreeLSTM}


class _TreeNet(Module):
    """Vectors of words, composed up the trees, and a class for every node."""

    def __init__(self, words, width, classes, cell, dropout):
        self.table = nn.Embedding(words, width)
        self.compose = CELLS[cell](width)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Dense(classes, inputs=width)
        self._forest = self._batch = None

    def forward(self, index):
        """Logits of all nodes of the trees at these places of the forest, [nodes, classes]."""
        index = index.data if isinstance(index, Tensor) else index
        self._batch = self._forest.batch(backend.to_host(index))
        return self.read(self._batch)

    def read(self, batch):
        """Logits of all nodes of a batch of trees."""
        like = self.table.table.data
        words, children, ends = (backend.to_device(a, like) for a in (batch.words, batch.children, batch.ends))
        leaves = self.dropout(ops.tanh(self.table(words)))
        return self.classify(self.dropout(self.compose(leaves, children, ends)))


class RNTN(Model):
    """Recursive neural tensor network: reads a parsed sentence from its words up and gives every phrase a class.

        h[word] = tanh(table[word]);  h[phrase] = tanh(x^T v x + x w + b),  x = (h[left], h[right])
        p(class | phrase) = softmax(h u + c)

    Parameters
    ----------
    width : int
        D, length of the vectors.
    cell : {'rntn', 'plain', 'treelstm'}
        How a node is made of its children: as above; without the tensor v, which is the plain recursive network; or as by
        `fastdl.nn.TreeLSTM`, whose gates carry what lies deep in a tree to its root.
    dropout : float
        Chance of dropping an element of a word's vector, and of a node's before it is classified, while training.
    at_least : int
        How often a word must occur in training to have a vector of its own; the others share one.
    seed : int

    Attributes
    ----------
    classes_ : array of str
        The labels, sorted; column c of `predict_proba` belongs to ``classes_[c]``.
    vocabulary_ : fastdl.data.Vocabulary
    module_ : Module
    history_ : dict

    References
    ----------
    Socher, Perelygin, Wu, Chuang, Manning, Ng & Potts, "Recursive deep models for semantic compositionality over a
    sentiment treebank" (2013); Tai, Socher & Manning, "Improved semantic representations from tree-structured long
    short-term memory networks" (2015).

    Examples
    --------
    >>> from fastdl.data import parse_trees
    >>> from fastdl.models import RNTN
    >>> trees = parse_trees("(1 (1 good) (1 (0 a) (0 film))) (2 (2 bad) (2 (0 a) (0 film)))")
    >>> model = RNTN(width=4).fit(trees, epochs=60, lr=0.05)
    >>> [str(labels[-1]) for labels in model.predict(trees)]
    ['1', '2']
    """

    _fitted = ("module_", "classes_", "vocabulary_")
    _own = ("loss", "metrics")

    def __init__(self, width=25, cell="rntn", dropout=0.0, at_least=1, seed=0):
        self.width, self.at_least = positive("width", width), positive("at_least", at_least)
        self.cell, self.dropout, self.seed = one_of("cell", cell, CELLS), chance("dropout", dropout), seed

    # ------------------------------------------------------------------------------------------------ the door

    @unless_begun
    def build(self, vocabulary, classes):
        """Make the network with initial weights.

        Parameters
        ----------
        vocabulary : fastdl.data.Vocabulary
        classes : sequence of str
        """
        if not isinstance(vocabulary, Vocabulary):
            raise TypeError(f"vocabulary: expected a fastdl.data.Vocabulary; got {type(vocabulary).__name__}")
        if vocabulary.unknown is None:
            raise ValueError("vocabulary: expected one with a symbol for unknown words; got none")
        self.vocabulary_, self.classes_ = vocabulary, np.unique(np.asarray(classes, dtype=str))
        if len(self.classes_) < 2:
            raise ValueError(f"classes: expected two or more; got {len(self.classes_)}")
        self.module_ = _TreeNet(len(vocabulary), self.width, len(self.classes_), self.cell, self.dropout)
        self.module_.initialise(self.seed).eval().to(self._device)
        return self

    @unless_begun
    def fit(
        self,
        trees,
        *,
        epochs=10,
        batch_size=25,
        validation=None,
        optimizer="adam",
        lr=None,
        weight_decay=None,
        clip=None,
        root_weight=1.0,
        warm_start=False,
        **options,
    ):
        """Train on trees with a label at every node.

        Parameters
        ----------
        trees : sequence of fastdl.data.Tree
            Every inner node has two children; a tree may be one word. A label ``-1`` is not counted.
        epochs, batch_size : int
            Trees a batch.
        validation : sequence of Tree, optional
            Judged after every epoch: `val_loss`, `val_accuracy` (all nodes that have a label) and `val_root_accuracy` in
            `history_`; any of them may be watched.
        optimizer, lr, weight_decay, clip, warm_start
            As in the classifiers' `fit`.
        root_weight : float
            Weight of a root's loss, where other nodes have 1.
        **options
            Passed to `fastdl.train.fit`: schedule, callbacks, checkpoint, resume, ...

        Returns
        -------
        The model itself.
        """
        trees = _some_trees(trees)
        not_negative("root_weight", root_weight)
        train.must_take(options, self._own)
        if not (warm_start and hasattr(self, "module_")):
            for name in self._fitted:
                self.__dict__.pop(name, None)
            labels = {str(node.label) for tree in trees for node in tree.nodes()} - {"-1"}
            words = ([w for w in t.words() if w is not None] for t in trees)  # a leaf without one is named by the forest
            self.build(Vocabulary.of(*words, least=self.at_least, unknown=UNKNOWN), sorted(labels))
        module = self.module_
        forest = self._training_forest(trees)
        options["checkpoint"] = self._checkpoint(options.get("checkpoint"), options.get("resume"))
        judge = None
        if validation is not None:
            judged = self._training_forest(_some_trees(validation, "validation"), "validation")
            judge = _Validation(self, _labelled(judged, "validation"))
        given = {"lr": lr, "weight_decay": weight_decay, "clip": clip}
        opt = optim.get(optimizer, module, **{k: v for k, v in given.items() if v is not None})

        def loss(output, _):
            batch, like = module._batch, output.data
            weights = np.ones(len(batch.labels), np.float32)
            weights[batch.roots] = root_weight
            return ops.softmax_cross_entropy(
                output, backend.to_device(batch.labels, like), backend.to_device(weights, like)
            )

        loss.__qualname__ = f"cross entropy of nodes, roots {root_weight:g}"  # what a run that goes on compares
        # What a resumed run compares: a number for each tree.
        marks = np.array([zlib.crc32(str(tree).encode()) for tree in trees], np.int64)
        module._forest = forest
        try:
            self.history_ = train.fit(
                module,
                np.arange(len(trees)),
                marks,
                loss=loss,
                optimizer=opt,
                epochs=epochs,
                batch_size=batch_size,
                validation=judge,
                **{"seed": self.seed} | options,
            )
        finally:
            module._forest = module._batch = None
        return self

    def _training_forest(self, trees, name="trees"):
        codes = {label: i for i, label in enumerate(self.classes_.tolist())} | {"-1": -1}

        def code(label):
            if str(label) not in codes:
                raise ValueError(f"{name}: expected labels from {self.classes_.tolist()}; got {label!r}")
            return codes[str(label)]

        return Forest(trees, self._number(), code)

    def _number(self):
        """A function from words to their numbers."""
        numbers = {word: i for i, word in enumerate(self.vocabulary_.symbols)}
        other = numbers[self.vocabulary_.unknown]
        return lambda word: numbers.get(word, other)

    # ------------------------------------------------------------------------------------------------ predictions

    def _logits(self, forest, batch_size=64):
        """Logits of all nodes in the forest's order, float32 [nodes, classes]."""
        module, training = self.module_, self.module_.training
        result = np.empty((len(forest.labels), len(self.classes_)), np.float32)
        module.eval()
        try:
            with inference():
                for start in range(0, len(forest), batch_size):
                    with backend.pooled():
                        # by hand and not through the module, so that several threads may ask the same model
                        batch = forest.batch(np.arange(start, min(start + batch_size, len(forest))))
                        result[batch.nodes] = backend.to_host(module.read(batch).data)
        finally:
            module.train() if training else module.eval()
        return result

    def predict_proba(self, trees):
        """Probability of each class at each node: for each tree float32 [nodes, classes], in the order of `Tree.nodes`."""
        self._need_fit()
        forest = Forest(_trees(trees), self._number(), lambda label: -1)
        logits = self._logits(forest)
        return forest.by_tree(backend.kernels(logits).softmax_forward(logits))

    def predict(self, trees):
        """The most probable label of each node: for each tree an array [nodes], in the order of `Tree.nodes`."""
        self._need_fit()
        forest = Forest(_trees(trees), self._number(), lambda label: -1)
        logits = self._logits(forest)
        if np.isnan(logits).any():
            raise ValueError("trees: expected trees for which the network gives numbers; got NaN")
        return [self.classes_[codes] for codes in forest.by_tree(train.argmax(logits))]

    def score(self, trees):
        """Accuracy over all nodes that have a label, 0 to 1."""
        self._need_fit()
        forest = _labelled(self._training_forest(_some_trees(trees)), "trees")
        known = forest.labels >= 0
        return float(np.mean((train.argmax(self._logits(forest)) == forest.labels)[known]))

    def sketch(self, tree):
        """A tree as text with the predicted label of every node, and the true one where it differs: ``4 (3)``."""
        if not isinstance(tree, Tree):
            raise TypeError(f"tree: expected a Tree (fastdl.data.parse_trees); got {type(tree).__name__}")
        labels = [
            p if p == str(node.label) else f"{p} ({node.label})"
            for p, node in zip(self.predict([tree])[0].tolist(), tree.nodes(), strict=True)
        ]
        lines, todo = [], [(tree.as_tuple(labels), "", "")]
        while todo:
            node, lead, under = todo.pop()
            leaf = isinstance(node[1], str)
            lines.append(f"{lead}{node[0]}" + (f" {node[1]}" if leaf else ""))
            if not leaf:
                todo.append((node[2], under + "`- ", under + "   "))
                todo.append((node[1], under + "|- ", under + "|  "))
        return "\n".join(lines)

    # ------------------------------------------------------------------------------------------------ files

    def summary(self):
        """A table of the parameters, as a string."""
        self._need_fit()
        rows = [f"{name:24} {list(p.shape)}" for name, p in self.module_.named_parameters()]
        return "\n".join([repr(self), *rows, f"{self.module_.count():,} parameters"])

    def _describe(self):
        return {
            "model": type(self).__name__,
            "params": self.get_params(),
            "classes": self.classes_.tolist(),
            "words": self.vocabulary_.symbols,
            "unknown": self.vocabulary_.unknown,
        }

    def _build_from(self, config):
        return self.build(Vocabulary(config["words"], config["unknown"]), config["classes"])


def _trees(trees, name="trees"):
    """A list of trees, and nothing else."""
    if isinstance(trees, (str, Tree)) or not hasattr(trees, "__iter__"):
        raise TypeError(f"{name}: expected a sequence of Tree objects (fastdl.data.parse_trees); got {type(trees).__name__}")
    trees = list(trees)
    for tree in trees:
        if not isinstance(tree, Tree):
            raise TypeError(f"{name}: expected Tree objects (fastdl.data.parse_trees); got {type(tree).__name__}")
    return trees


def _some_trees(trees, name="trees"):
    found = _trees(trees, name)
    if not found:
        raise ValueError(f"{name}: expected one tree or more; got none")
    return found


def _labelled(forest, name):
    """The same forest, of which one node or more must have a label."""
    if not (forest.labels >= 0).any():
        raise ValueError(f"{name}: expected a label at one node or more; got none")
    return forest


class _Validation:
    """Judges trees after every epoch."""

    def __init__(self, model, forest):
        self.model, self.forest = model, forest
        self.fingerprint = fingerprint(forest.labels)
        before = forest._leaves + forest._inner
        self._roots = before[1:] - 1  # a root is its tree's last node

    def __call__(self):
        logits, labels = self.model._logits(self.forest), self.forest.labels
        right, known = train.argmax(logits) == labels, labels >= 0
        with inference():
            loss = train.LOSSES["softmax_cross_entropy"](Tensor(logits[known]), labels[known]).item()
        roots = self._roots[known[self._roots]]
        return {
            "loss": loss,
            "accuracy": float(np.mean(right[known])),
            "root_accuracy": float(np.mean(right[roots])) if len(roots) else np.nan,
        }
