"""Names for emoji from their pictures: a convolutional network looks, an LSTM writes.

Task: 32x32 drawings and their English names, four words on average. In the order of a hash of their code points, drawings
whose words all occur in others that stay in training are held out: 300 for the test, 150 more for validation. A drawing in
all its skin tones belongs to one part, so no drawing of the test part was ever seen. Network: six convolutions that name
the words as a set, too, LSTM decoder, beam search of width 3. Said is the caption that agrees most with the others of the
beam and with the names of the ten training images that are nearest by features, which stand for election, too; how much
weight they have, between none and all but a tenth, and how much more the nearer ones, is chosen on the validation part.

Figures in per cent: `bleu2` (words and word pairs, corpus, brevity penalty), `f1` (words, mean over the images), `exact`;
beside them `_nn_pixels` and `_nn_features`, the name of the nearest training image by pixels and by this network's features,
and `_nn`, the better of both; `_low` and `_high` are bootstrap bounds of 95 % over drawings, of `_lead`, the distance from
`_nn`, over the same draws; `_alone`, of the beam without the neighbours; `bleu4` is sacrebleu's, where it is installed.

Reference: the nearest neighbour, since near twins of many drawings (a man and a woman at the same work) are in training.
BLEU: Papineni, Roukos, Ward & Zhu, "BLEU: a method for automatic evaluation of machine translation" (2002).
"""

import hashlib
import itertools
from collections import Counter

import numpy as np

from ..data import Augment, MissingDataError, data_directory, read_npz
from ..models import Captioner
from ..schedules import cosine
from ._common import Report, Table

EPOCHS = {"emoji-captions": 30}
WIDTH = 3  # of the beam
NEIGHBOURS, SHARES, SHARPNESS = 10, (0.5, 0.7, 0.9), (20.0, 80.0)
AUGMENT = Augment(shift=3, rotate=8, scale=0.1, fill=1.0)
SETTINGS = {"batch_size": 32, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.02, "smoothing": 0.1}


def load(data_dir):
    """Images, captions, the drawing of each, and its part: 0 test, 1 validation, 2 training."""
    root = data_directory(data_dir)
    if root is None:
        raise MissingDataError("emoji-captions", "a folder of data sets, in data_dir or in FASTDL_DATA", "neither")
    arrays = read_npz(root / "emoji-captions" / "emoji_captions_32.npz")
    captions, bases = ([str(s) for s in arrays[name]] for name in ("captions", "base"))
    return arrays["images"], captions, np.unique(bases, return_inverse=True)[1], split(captions, bases)


def split(captions, bases, tests=300, validations=150):
    """The part of each image, int64 [N]; images of one base stay together."""
    said = {}
    for caption, base in zip(captions, bases, strict=True):
        said.setdefault(base, set()).update(caption.split())
    left = Counter(word for words in said.values() for word in words)  # in how many drawings that are not held out
    held = {}
    for base in sorted(said, key=lambda b: hashlib.blake2b(b.encode(), digest_size=8).digest()):
        if len(held) < tests + validations and all(left[word] > 1 for word in said[base]):
            left.subtract(said[base])
            held[base] = 0 if len(held) < tests else 1
    return np.array([held.get(base, 2) for base in bases])


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


def judge(said, truth, drawings, others=(), seed=0, draws=1000):
    """The three figures of captions with their bootstrap bounds, and how far they lead before the best of some others.

    `drawings` says which images belong together: they are drawn together. `others` are captions, too.
    """
    rows = [counts(captions, truth) for captions in (said, *others)]
    members = [np.flatnonzero(drawings == d) for d in np.unique(drawings)]
    rng = np.random.default_rng(seed)  # of the bootstrap alone

    def all_figures(at):
        own, *rest = (figures(r[at]) for r in rows)
        return own, own - np.max(rest, axis=0) if rest else own

    truly = all_figures(np.arange(len(said)))
    picks = (rng.integers(0, len(members), len(members)) for _ in range(draws))
    again = np.array([all_figures(np.concatenate([members[d] for d in pick])) for pick in picks])
    low, high = np.percentile(again, [2.5, 97.5], axis=0)
    result = {}
    for k, suffix in enumerate(("", "_lead") if others else ("",)):
        for i, name in enumerate(("bleu2", "f1", "exact")):
            name += suffix
            result |= {name: float(truly[k][i]), f"{name}_low": float(low[k, i]), f"{name}_high": float(high[k, i])}
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


def candidates(model, x, captions, wanted):
    """What the model may say: the captions of its beam, and the names of the nearest training images."""
    return model.candidates(wanted, width=WIDTH, known=(x, captions), neighbours=NEIGHBOURS)


def say(model, found, share=0.0, sharpness=0.0):
    """Captions of what `candidates` found, with the names of training images voting by their share."""
    return model.elect(found if share else [(own, []) for own, _ in found], share=share, sharpness=sharpness)


def best_vote(model, found, truth):
    """The neighbours' share and sharpness with the highest sum of BLEU-2 and F1; the first of equals."""
    votes = [(0.0, 0.0), *itertools.product(SHARES, SHARPNESS)]
    return max(votes, key=lambda vote: figures(counts(say(model, found, *vote), truth))[:2].sum())


def compare(model, x, captions, wanted, found, truth, drawings, vote, prefix=""):
    """All figures of a part, and what was said."""
    said, alone = (say(model, found, *v) for v in (vote, ()))
    near = neighbours(model, x, captions, wanted)
    metrics = judge(said, truth, drawings, near.values())
    for name, names in near.items():
        for k, v in judge(names, truth, drawings).items():
            figure, *bound = k.split("_")
            metrics["_".join([figure, "nn", name, *bound])] = v
    for k, v in zip(("bleu2", "f1", "exact"), figures(counts(alone, truth)), strict=True):
        metrics[f"{k}_alone"] = float(v)
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

    images, captions, drawings, part = load(config.data_dir)
    sets = [(images[part == p], [c for c, at in zip(captions, part, strict=True) if at == p]) for p in (0, 1, 2)]
    (x_test, c_test), (x_valid, c_valid), (x, c) = sets
    epochs = config.epochs or EPOCHS["emoji-captions"]
    model = Captioner((24, 48, 96), units=192, embedding=96, dropout=0.4, word_dropout=0.1, bag=0.5, seed=config.seed)
    config.place(model)
    settings = {
        "data_set": "emoji-captions",
        "splits": {"train": len(x), "validation": len(x_valid), "test": len(x_test)},
        "drawings": {"test": len(set(drawings[part == 0])), "validation": len(set(drawings[part == 1]))},
        "augmentation": repr(AUGMENT),
        "beam": WIDTH,
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
    found = candidates(model, x, c, x_valid)
    vote = best_vote(model, found, c_valid)
    valid, _ = compare(model, x, c, x_valid, found, c_valid, drawings[part == 1], vote, "validation_")
    metrics, said = compare(model, x, c, x_test, candidates(model, x, c, x_test), c_test, drawings[part == 0], vote)
    metrics["neighbours_share"], metrics["neighbours_sharpness"] = vote
    if config.show:
        for s, t in list(zip(said, c_test, strict=True))[:: max(len(said) // 12, 1)]:
            config.show(f"{s:<50} {t}")

    def draw(path):
        from .. import plot

        some = np.arange(0, len(x_test), max(len(x_test) // 24, 1))[:24]
        axes = plot.captions(x_test[some], [said[i] for i in some], [c_test[i] for i in some])
        axes[0].figure.savefig(path, dpi=130, bbox_inches="tight")

    return Report(metrics | valid, settings, model, draw=draw)
