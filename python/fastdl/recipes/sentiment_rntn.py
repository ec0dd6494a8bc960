"""Sentiment of film reviews, phrase by phrase, by a recursive neural tensor network.

Task: sentences of the Stanford Sentiment Treebank, parsed into binary trees; every phrase has one of five classes from very
negative to very positive. Settings were chosen on the official dev part; the test part is read once. Network: vectors of
words, one tensor that composes two phrases into one, softmax at every node; a sentence's own label counts three times.

Figures in per cent: `fine_all`, `fine_root` of the five classes over all phrases and over whole sentences; `binary_all`,
`binary_root` positive against negative, neutral phrases left out.

Reference: 80.7, 45.7, 87.6 and 85.4 in Socher, Perelygin, Wu, Chuang, Manning, Ng & Potts, "Recursive deep models for
semantic compositionality over a sentiment treebank" (2013), table 1.
"""

import numpy as np

from .. import data
from ..models import RNTN
from ..schedules import cosine
from ._common import Report, Table

EPOCHS = {"sst": 9}
BATCH = 25
SETTINGS = {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.05, "root_weight": 3.0}


def accuracies(trees, probabilities):
    """The four figures, in per cent, from p [nodes, 5] of each tree."""
    labels = [np.array([int(node.label) for node in tree.nodes()]) for tree in trees]
    result = {}
    for part, pick in (("all", lambda a: a), ("root", lambda a: a[-1:])):
        p, y = np.concatenate([pick(a) for a in probabilities]), np.concatenate([pick(a) for a in labels])
        result[f"fine_{part}"] = 100.0 * float(np.mean(p.argmax(1) == y))
        sure = y != 2
        positive = p[sure, 3:].sum(1) > p[sure, :2].sum(1)
        result[f"binary_{part}"] = 100.0 * float(np.mean(positive == (y[sure] > 2)))
    return {k: result[k] for k in ("fine_all", "fine_root", "binary_all", "binary_root")}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    from .. import get_num_threads

    parts = data.load_sst(config.data_dir)
    epochs = config.epochs or EPOCHS["sst"]
    model = config.place(RNTN(width=30, dropout=0.25, seed=config.seed))
    settings = {
        "data_set": "sst",
        "splits": {name: len(trees) for name, trees in parts.items()},
        "augmentation": None,
        "epochs": epochs,
        "seed": config.seed,
        "threads": get_num_threads(),
        "model": repr(model),
        "batch_size": BATCH,
        "schedule": "cosine to 0",
        **SETTINGS,
    }
    callbacks = [Table(config.show)] if config.show else []
    model.fit(
        parts["train"],
        epochs=epochs,
        batch_size=BATCH,
        validation=parts["dev"],
        schedule=cosine(0.0),
        callbacks=callbacks,
        **SETTINGS,
        **config.lasting(),
    )
    dev = accuracies(parts["dev"], model.predict_proba(parts["dev"]))
    metrics = accuracies(parts["test"], model.predict_proba(parts["test"])) | {f"dev_{k}": v for k, v in dev.items()}
    if config.show:
        tree = min(parts["dev"], key=lambda tree: abs(len(tree.words()) - 9))
        config.show(f"\n{' '.join(tree.words())}\npredicted labels, (true ones) where they differ:\n{model.sketch(tree)}\n")

    def draw(path):
        from .. import plot

        tree = min(parts["dev"], key=lambda tree: abs(len(tree.words()) - 9))
        pairs = [
            (int(p), int(node.label)) for p, node in zip(model.predict([tree])[0], tree.nodes(), strict=True)
        ]
        plot.tree(tree.as_tuple(pairs)).figure.savefig(path, dpi=150, bbox_inches="tight")

    return Report(metrics, settings, model, draw=draw)
