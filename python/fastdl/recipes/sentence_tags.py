"""Is a film review good or bad? A bidirectional LSTM over its words, no tree.

Task: sentences of the Stanford Sentiment Treebank, positive or negative, neutral ones left out; training on all different
phrases of the training sentences that are not neutral. Settings were chosen on the official dev part; the test part is read
once. Network: vectors of words, an LSTM from each side, softmax on both last outputs.

`test_accuracy` is over the test sentences, `phrase_accuracy` over all their phrases with a label, both 0 to 1.

Reference: 87.5 % with word vectors from 840 billion words in Tai, Socher & Manning, "Improved semantic representations from
tree-structured long short-term memory networks" (2015), table 2; 82.4 % for a recursive network without such vectors in
Socher et al. (2013).
"""

import numpy as np

from .. import data
from ..models import RNNClassifier
from ..schedules import cosine
from ._common import Report, Table

EPOCHS = {"sst": 3}
SETTINGS = {"batch_size": 64, "optimizer": "adamw", "lr": 0.002, "weight_decay": 0.05}
NAMES = ("negative", "positive")


def phrases(trees):
    """(words, 0 negative or 1 positive) of every node that is not neutral, in order."""
    found = []
    for tree in trees:
        spans, begin = [], 0  # of the nodes whose parents are still to come: a run of words each
        words = tree.words()
        for node in tree.nodes():
            if node.children:
                parts = spans[-len(node.children) :]
                del spans[-len(node.children) :]
                spans.append((parts[0][0], parts[-1][1]))
            else:
                spans.append((begin, begin + 1))
                begin += 1
            if node.label != "2":
                found.append((tuple(words[slice(*spans[-1])]), int(node.label > "2")))
    return found


def sentences(trees):
    """The same of whole trees alone."""
    return [(tuple(tree.words()), int(tree.label > "2")) for tree in trees if tree.label != "2"]


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    from .. import get_num_threads

    parts = data.load_sst(config.data_dir)
    words = data.Vocabulary.of(*(tree.words() for tree in parts["train"]), least=2, unknown="<unknown>")

    def arrays(pairs):
        return [words.encode(text) for text, _ in pairs], np.array([label for _, label in pairs])

    train, valid = arrays(dict.fromkeys(phrases(parts["train"]))), arrays(sentences(parts["dev"]))
    epochs = config.epochs or EPOCHS["sst"]
    model = RNNClassifier(
        units=64, bidirectional=True, dropout=0.4, vocabulary=len(words), embedding=50, seed=config.seed
    )
    config.place(model)
    settings = {
        "data_set": "sst",
        "splits": {name: len(trees) for name, trees in parts.items()} | {"training_phrases": len(train[0])},
        "augmentation": None,
        "epochs": epochs,
        "seed": config.seed,
        "threads": get_num_threads(),
        "model": repr(model),
        "schedule": "cosine to 0 after a warm-up of 0.05 of the run",
        **SETTINGS,
    }
    callbacks = [Table(config.show)] if config.show else []
    model.fit(
        *train, epochs=epochs, validation=valid, schedule=cosine(0.05), callbacks=callbacks, **SETTINGS, **config.lasting()
    )
    test = arrays(sentences(parts["test"]))
    metrics = {
        "test_accuracy": model.score(*test),
        "phrase_accuracy": model.score(*arrays(phrases(parts["test"]))),
        "validation_accuracy": model.score(*valid),
    }
    return Report(metrics, settings, model, test, NAMES)
