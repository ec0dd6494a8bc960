"""A digit never seen before: an autoencoder as novelty detector beside PCA, each digit in turn.

Task: learn from nine digits without labels; then tell images of the tenth from new images of the nine by how badly they
are given back. The figure is the area under the ROC curve on the test images; 0.5 is chance.
Network: a denoising autoencoder of dense layers, one for each digit left out. PCA has a code of the same length.

Settings were not tuned.

Reference: none with this split and these figures; reconstruction error as a sign of novelty is from Japkowicz, Myers & Gluck,
"A novelty detection approach to classification" (1995).

Where the folder of data sets has ``timeseries/mitdb_ecg.csv.gz`` the picture also shows a stretch of an electrocardiogram: an
autoencoder of normal beats, and its error where they are not.
"""

import numpy as np

from .. import data
from ..models import Autoencoder
from ..models.pca import PCA
from ..schedules import cosine
from ._common import Report
from ._digits import Digits

EPOCHS = {"mnist": 8, "mnist-embedded": 30}
HIDDEN, CODE = (256,), 16
OPTIONS = {"batch_size": 128, "optimizer": "adam", "lr": 1e-3}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    digits = Digits(config)
    epochs = digits.epochs(EPOCHS)
    metrics, scores = {}, []
    for digit in range(10):
        seen = digits.x[digits.y != digit]
        model = config.place(Autoencoder(HIDDEN, CODE, act="gelu", noise="mask", noise_level=0.3, seed=config.seed))
        model.fit(seen, epochs=epochs, schedule=cosine(0.05), **OPTIONS, **config.lasting(str(digit)))
        both = model, PCA(CODE).fit(seen)
        scores.append(model.score_samples(digits.x_test))
        for name, found in zip(("auc", "pca_auc"), both, strict=True):
            metrics[f"{name}_{digit}"] = area(-found.score_samples(digits.x_test), digits.y_test == digit)
            held = area(-found.score_samples(digits.x_valid), digits.y_valid == digit)
            metrics[f"validation_{name}"] = metrics.get(f"validation_{name}", 0.0) + held / 10
        if config.show:
            config.show(f"without {digit}: {metrics[f'auc_{digit}']:.4f}, PCA {metrics[f'pca_auc_{digit}']:.4f}")
    for name in ("auc", "pca_auc"):
        metrics[name] = float(np.mean([metrics[f"{name}_{d}"] for d in range(10)]))
    settings = digits.settings(
        epochs=epochs, model=repr(model), schedule="cosine to 0 after a warm-up of 0.05", **OPTIONS
    )
    draw = lambda path: picture(path, digits, metrics, scores, config)
    return Report(metrics, settings, model, (digits.x_test, digits.y_test), draw=draw)


def area(scores, positive):
    """Area under the ROC curve: the chance that a positive sample scores higher than a negative one, ties half."""
    positive = np.asarray(positive, bool)
    values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        raise ValueError(f"positive: expected samples of both kinds; got {n} and {m}")
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def picture(path, digits, metrics, scores, config):
    """Areas by digit, the images found strangest, and an electrocardiogram where there is one."""
    from .. import plot

    ecg = electrocardiogram(config)
    figure = plot.canvas((11, 9 if ecg else 6))
    parts = figure.subfigures(3 if ecg else 2, 1)
    bars = parts[0].subplots()
    at = np.arange(10)
    bars.bar(at - 0.2, [metrics[f"auc_{d}"] for d in at], 0.4, label="autoencoder")
    bars.bar(at + 0.2, [metrics[f"pca_auc_{d}"] for d in at], 0.4, label="PCA")
    bars.axhline(0.5, color="0.6", linestyle=":")
    bars.set_xticks(at, [f"without {d}" for d in at])
    bars.set_ylabel("area under the curve")
    bars.legend(frameon=False, loc="lower right")
    strangest = [digits.x_test[int(np.argmin(s))] for s in scores]
    plot.samples(np.stack(strangest), parts[1].subplots(), columns=10, title="strangest test image of each network")
    if ecg:
        signal, label, beats, errors = ecg
        ax = parts[2].subplots()
        ax.plot(signal, color="0.3", linewidth=0.8, label="signal")
        ax.plot(beats, errors / np.max(errors), "o", color="C0", label="error of a beat, of the largest")
        ax.fill_between(
            np.arange(len(label)), 0, 1, where=label > 0, transform=ax.get_xaxis_transform(), color="C3", alpha=0.2
        )
        ax.set_title("an electrocardiogram's second half; red: not normal by its label", fontsize=10)
        ax.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)


def electrocardiogram(config, before=100, after=220):
    """(signal, labels, beats, their errors) of the second half, by an autoencoder of the beats of the first; or None.

    A beat is the stretch around a peak of the signal, long enough to see the next beat come too early. The first half's, a
    dozen normal ones, are shifted by a few samples to make more of them.
    """
    folder = data.data_directory(config.data_dir)
    path = folder and folder / "timeseries" / "mitdb_ecg.csv.gz"
    if not path or not path.is_file():
        return None
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    signal, label = table[:, 0].astype(np.float32), table[:, 1]
    half = len(signal) // 2
    wide = np.lib.stride_tricks.sliding_window_view(np.pad(signal, before, constant_values=-np.inf), 2 * before + 1)
    peaks = np.flatnonzero((signal == wide.max(1)) & (signal > 0.5 * signal.max()))
    peaks = peaks[(peaks > before + 4) & (peaks < len(signal) - after - 4)]

    def beats(at):
        return np.stack([signal[p - before : p + after] for p in at])

    first, second = peaks[peaks < half - after], peaks[peaks >= half]
    known = beats([p + shift for p in first for shift in range(-4, 5)])
    model = config.place(Autoencoder((64,), 4, act="tanh", output="none", seed=config.seed))
    model.fit(known, epochs=150, batch_size=16, lr=2e-3, schedule=cosine(0.05))
    return signal[half:], label[half:], second - half, -model.score_samples(beats(second))
