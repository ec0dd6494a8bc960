"""Spoken digits: a recurrent net that listens to 0 to 9.

Task: the Free Spoken Digit Dataset, 3,000 recordings of six speakers at 8 kHz; the official test part is each speaker's
first five recordings of each digit (300), a tenth of the others (by hash) is for validation. Features are ours, from the
wave: logarithms of the energy in 40 mel bands every 12 ms, standardised by the training part.
Network: a bidirectional LSTM of 96 units with dropout, on its last outputs.
Reference: none with these features. Aim: at least 97 % on the official test part.
"""

import numpy as np

from .. import data
from ..models import RNNClassifier
from ..schedules import cosine
from ._sequences import callbacks, held_out, place, report

EPOCHS = {"spoken-digits": 8}
FEATURES = {"bands": 40, "window": 0.032, "step": 0.012}


def sequences(config):
    """((x, y) training, validation, test): lists of arrays [T,40], and digits."""
    z = data.read_npz(place(config, "spoken-digits-lstm", "spoken-digits", "fsdd_wave.npz"))
    at, wave = z["offsets"], z["samples"] / np.float32(32768.0)
    x = [data.log_mel(wave[a:b], 8000, **FEATURES) for a, b in zip(at[:-1], at[1:], strict=True)]
    names = [f"{d} {s} {i}" for d, s, i in zip(z["digit"], z["speaker"], z["index"], strict=True)]
    test = z["index"] < 5
    valid = held_out(names) & ~test
    frames = np.concatenate([s for s, a, b in zip(x, test, valid, strict=True) if not (a or b)])
    mean, spread = frames.mean(0), frames.std(0)
    x, y = [((s - mean) / spread).astype(np.float32) for s in x], z["digit"].astype(np.int64)
    return [([s for s, k in zip(x, part, strict=True) if k], y[part]) for part in (~test & ~valid, valid, test)]


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    (x, y), valid, test = sequences(config)
    epochs = config.epochs or EPOCHS["spoken-digits"]
    options = {"batch_size": 32, "lr": 2e-3, "smoothing": 0.1}
    model = config.place(RNNClassifier(96, bidirectional=True, dropout=0.3, seed=config.seed))
    model.fit(
        x, y, epochs=epochs, validation=valid, schedule=cosine(0.05), callbacks=callbacks(config), **options,
        **config.lasting(),
    )  # fmt: skip
    metrics = {"test_accuracy": model.score(*test), "validation_accuracy": model.score(*valid)}
    splits = {"train": len(x), "validation": len(valid[0]), "test": len(test[0])}
    return report(config, metrics, model, epochs, splits, **options, features=FEATURES, schedule="cosine, warm-up 0.05")
