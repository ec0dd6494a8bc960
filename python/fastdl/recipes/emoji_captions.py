"""Names for emoji from their pictures: a convolutional network looks, an LSTM writes.

Task: 32x32 drawings and their English names, four words on average. A drawing in all its skin tones belongs to one part,
chosen by a hash of its code points: test 10 %, validation 10 %, the rest for training; so no drawing of the test part was
ever seen. Network: six convolutions, LSTM decoder, beam search, of whose captions the one is said that agrees most with
the others.

Figures in per cent: `bleu2` (words and word pairs, corpus, brevity penalty), `f1` (words, mean over the images), `exact`;
beside them `_nn`, the name of the nearest training image, by pixels or by the features of this network, whichever is better;
`_low` and `_high` are bootstrap bounds of 95 %.

Reference: the nearest neighbour, since near twins of many drawings (a man and a woman at the same work) are in training.
BLEU: Papineni, Roukos, Ward & Zhu, "BLEU: a method for automatic evaluation of machine translation" (2002).
"""

import hashlib
from collections import Counter

import numpy as np

from ..data import Augment, MissingDataError, data_directory, read_npz
from ..models import Captioner
from ..schedules import cosine
from ._common import Report, Table

EPOCHS = {"emoji-captions": 36}
AUGMENT = Augment(shift=3, rotate=8, scale=0.1, fill=1.0)
SETTINGS = {"batch_size": 64, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.02, "smoothing": 0.1}


def load(data_dir):
    """Images, captions, and the part of each: 0 test, 1 validation, 2 training."""
    root = data_directory(data_dir)
    if root is None:
        raise MissingDataError("emoji-captions", "a folder of data sets, in data_dir or in FASTDL_DATA", "neither")
    arrays = read_npz(root / "emoji-captions" / "emoji_captions_32.npz")
    draws = [hashlib.blake2b(str(base).encode(), digest_size=8).digest() for base in arrays["base"]]
    tenth = np.array([int.from_bytes(d, "big") * 10 >> 64 for d in draws])
    return arrays["images"], [str(c) for c in arrays["captions"]], np.minimum(tenth, 2)


# ------------------------------------------------------------------------------------------------------- figures


def _grams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def counts(said, truth):
    """What BLEU-2 and the others sum over the images, an array [N,8]."""
    rows = []
    for a, b in zip((s.split() for s in said), (t.split() for t in truth), strict=True):
        row = [len(a), len(b)]
        for n in (1, 2):
            row += [sum((_grams(a, n) & _grams(b, n)).values()), max(len(a) - n + 1, 0)]
        row += [2.0 * row[2] / max(len(a) + len(b), 1), float(a == b)]
        rows.append(row)
    return np.array(rows, np.float64)


def figures(rows):
    """(BLEU-2, word F1, exact) in per cent from rows of `counts`."""
    total = rows.sum(0)
    precision = np.sqrt(total[2] / max(total[3], 1) * total[4] / max(total[5], 1))
    brevity = min(1.0, np.exp(1.0 - total[1] / max(total[0], 1.0)))
    return 100.0 * np.array([brevity * precision, rows[:, 6].mean(), rows[:, 7].mean()])


def judge(said, truth, seed=0, draws=1000):
    """The three figures with their bootstrap bounds."""
    rows = counts(said, truth)
    rng = np.random.default_rng(seed)  # of the bootstrap alone
    again = np.array([figures(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(draws)])
    low, high = np.percentile(again, [2.5, 97.5], axis=0)
    result = {}
    for i, name in enumerate(("bleu2", "f1", "exact")):
        result |= {name: float(figures(rows)[i]), f"{name}_low": float(low[i]), f"{name}_high": float(high[i])}
    return result


def nearest(known, wanted):
    """Place of the known row that is nearest to each wanted one."""
    known, wanted = (np.asarray(a, np.float32).reshape(len(a), -1) for a in (known, wanted))
    return np.argmin((known**2).sum(1) - 2.0 * wanted @ known.T, axis=1)


def neighbours(model, x, captions, wanted):
    """Names of the nearest training images, by pixels and by the model's features."""

    def directions(images):
        g = model.transform(images)
        return g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-12)

    return {
        "pixels": [captions[i] for i in nearest(x / 255.0, wanted / 255.0)],
        "features": [captions[i] for i in nearest(directions(x), directions(wanted))],
    }


def compare(model, x, captions, wanted, truth, prefix=""):
    """All figures of a part, and what was said."""
    said = model.caption(wanted)
    metrics = judge(said, truth)
    for name, names in neighbours(model, x, captions, wanted).items():
        metrics |= {f"{k}_nn_{name}": v for k, v in judge(names, truth).items() if "_" not in k}
    for k in ("bleu2", "f1", "exact"):
        metrics[f"{k}_nn"] = max(metrics[f"{k}_nn_pixels"], metrics[f"{k}_nn_features"])
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        pass
    else:
        metrics["bleu4"] = float(BLEU(effective_order=True).corpus_score(said, [truth]).score)
    return {prefix + k: v for k, v in metrics.items()}, said


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    from .. import get_num_threads

    images, captions, part = load(config.data_dir)
    sets = [(images[part == p], [c for c, at in zip(captions, part, strict=True) if at == p]) for p in (0, 1, 2)]
    (x_test, c_test), (x_valid, c_valid), (x, c) = sets
    epochs = config.epochs or EPOCHS["emoji-captions"]
    model = config.place(Captioner((24, 48, 96), units=192, embedding=96, dropout=0.4, word_dropout=0.1, seed=config.seed))
    settings = {
        "data_set": "emoji-captions",
        "splits": {"train": len(x), "validation": len(x_valid), "test": len(x_test)},
        "augmentation": repr(AUGMENT),
        "epochs": epochs,
        "seed": config.seed,
        "threads": get_num_threads(),
        "model": repr(model),
        "schedule": "cosine to 0 after a warm-up of 0.05 of the run",
        **SETTINGS,
    }
    callbacks = [Table(config.show)] if config.show else []
    model.fit(
        x, c, epochs=epochs, validation=(x_valid, c_valid), augment=AUGMENT, schedule=cosine(0.05), callbacks=callbacks,
        **SETTINGS, **config.lasting(),
    )  # fmt: skip
    if model.history_.get("stopped") == "interrupted":
        raise KeyboardInterrupt
    valid, _ = compare(model, x, c, x_valid, c_valid, "validation_")
    metrics, said = compare(model, x, c, x_test, c_test)
    if config.show:
        for s, t in list(zip(said, c_test, strict=True))[:: max(len(said) // 12, 1)]:
            config.show(f"{s:<50} {t}")

    def draw(path):
        from .. import plot

        some = np.arange(0, len(x_test), max(len(x_test) // 24, 1))[:24]
        axes = plot.captions(x_test[some], [said[i] for i in some], [c_test[i] for i in some])
        axes[0].figure.savefig(path, dpi=130, bbox_inches="tight")

    return Report(metrics | valid, settings, model, draw=draw)
