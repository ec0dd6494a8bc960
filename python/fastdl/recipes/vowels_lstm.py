"""Who says "ae": nine speakers told apart by an LSTM over sequences of unequal length.

Task: Japanese vowels (Kudo, Toyama & Shimbo 1999): 12 cepstra a frame, 7 to 29 frames; 270 utterances for training, of
which a tenth (by hash) for validation, 370 for testing.
Network: a bidirectional LSTM of 64 units with dropout, on its last outputs; cepstra standardised by the training part. Each
run trains five networks, seeds 5 s to 5 s + 4, and reports the mean.
Reference: 94.1 % by the set's authors (Kudo et al. 1999). Aim: a mean of five seeds of at least 96 %.
"""

import numpy as np

from .. import data
from ..models import RNNClassifier
from ..schedules import cosine
from ._sequences import callbacks, held_out, place, report

EPOCHS = {"japanese-vowels": 60}
NETWORKS = 5


def sequences(config):
    """((x, y) training, validation, test): lists of arrays [T,12], and speakers."""
    z = data.read_npz(place(config, "vowels-lstm", "japanese-vowels", "japanese_vowels.npz"))
    parts = [(data.unpad(z[f"x_{p}"], z[f"len_{p}"]), z[f"y_{p}"].astype(np.int64)) for p in ("train", "test")]
    frames = np.concatenate(parts[0][0])
    mean, spread = frames.mean(0), frames.std(0)
    (x, y), (xt, yt) = (([(s - mean) / spread for s in x], y) for x, y in parts)
    held = held_out(f"vowels {i}" for i in range(len(x)))
    chosen = [([s for s, h in zip(x, held, strict=True) if h == side], y[held == side]) for side in (False, True)]
    return *chosen, (xt, yt)


def run(config):
    """Train and judge five networks; see `fastdl.recipes`."""
    (x, y), valid, test = sequences(config)
    epochs = config.epochs or EPOCHS["japanese-vowels"]
    options = {"batch_size": 16, "lr": 3e-3, "smoothing": 0.1}
    scores, validation = [], []
    for k in range(NETWORKS):
        model = config.place(RNNClassifier(64, bidirectional=True, dropout=0.3, seed=5 * config.seed + k))
        model.fit(
            x, y, epochs=epochs, validation=valid, schedule=cosine(0.05), **options,
            callbacks=callbacks(config, f"network {k + 1} of {NETWORKS}") if k == 0 else [], **config.lasting(str(k)),
        )  # fmt: skip
        validation.append(model.score(*valid))
        scores.append(model.score(*test))
    metrics = {"test_accuracy": float(np.mean(scores)), "validation_accuracy": float(np.mean(validation))}
    metrics |= {f"test_accuracy_{k}": s for k, s in enumerate(scores)}
    splits = {"train": len(x), "validation": len(valid[0]), "test": len(test[0])}
    return report(config, metrics, model, epochs, splits, **options, networks=NETWORKS, schedule="cosine, warm-up 0.05")
