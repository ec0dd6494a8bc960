"""Faces whose lower half is hidden, filled in by a Boltzmann machine with Gaussian visible units.

Task: 100 grey faces of 25x25 pixels, a fifth of them (by a hash of the pixels) for testing, a fifth of the rest for validation;
the lower 12 rows of 25 are hidden and shall be filled in. The figure is the mean squared error of the hidden pixels (values 0 to
1). Training faces are also mirrored and shifted by a pixel.
Network: 625-30, Gaussian and Bernoulli units, contrastive divergence on standardised pixels; hidden pixels are the mean of what
Gibbs sampling expects of them while the others are held fast.

Beside it the mean face, the mean face brightened as the visible half is, and probabilistic PCA: the best linear guess under a
normal distribution with as many components as validation likes best (Tipping & Bishop, "Probabilistic principal component
analysis", 1999). With so few faces that is hard to beat.

Reference: none for these patches; faces with hidden parts, filled in by machines of this kind, are in Ranzato, Susskind, Mnih &
Hinton, "On deep generative models with applications to recognition" (2011).
"""

import numpy as np

from .. import data, get_num_threads
from ..data import hash_split
from ..models import RBM
from ..schedules import cosine
from ._common import Report, Table

EPOCHS = {"lfw_subset": 30}
SIDE, SHOWN = 25, 13
HIDDEN = 30
OPTIONS = {"algorithm": "cd", "batch_size": 20, "lr": 1e-3, "momentum": 0.5, "weight_decay": 1e-3}
SHIFT = 1  # pixels that training faces are moved by, in all directions, mirrored or not
COMPONENTS = (5, 7, 10, 14, 20, 40)


def faces(config):
    """(training, validation, test) faces, float32 [N,25,25] in [0,1]."""
    folder = data.data_directory(config.data_dir)
    if folder is None:
        raise data.MissingDataError("faces-impute", "a folder of data sets, in --data or in FASTDL_DATA", "neither")
    arrays = data.read_npz(folder / "faces-lfw-subset" / "lfw_subset.npz", ("images", "is_face"))
    x = arrays["images"][arrays["is_face"].astype(bool)]
    test, held = (hash_split(x[..., None], share) for share in (0.2, 0.36))  # the second holds the first
    x = x.astype(np.float32) / np.float32(255)
    return x[~held], x[held & ~test], x[test]


def more_of(x):
    """float32 [18 N, 625]: the faces, mirrored ones, and both shifted by a pixel in all directions."""
    both, places = np.concatenate([x, x[:, :, ::-1]]), range(2 * SHIFT + 1)
    wide = np.pad(both, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="edge")
    return np.concatenate([wide[:, i : i + SIDE, j : j + SIDE] for i in places for j in places]).reshape(-1, SIDE * SIDE)


def known():
    """bool [625]: which pixels are shown."""
    return np.arange(SIDE * SIDE) < SHOWN * SIDE


class Linear:
    """Probabilistic PCA: x = mean + w z + noise, all normal."""

    def __init__(self, x, components):
        self.mean = x.mean(0, dtype=np.float64)
        _, s, axes = np.linalg.svd(x - self.mean, full_matrices=False)
        variances = s**2 / len(x)
        noise = max(variances[components:].sum() / (x.shape[1] - components), 1e-8)
        self.w = axes[:components].T * np.sqrt(np.maximum(variances[:components] - noise, 1e-8))
        self.noise = noise

    def fill(self, x, shown):
        """Faces with the expectation of the pixels that are not shown."""
        w = self.w[shown]
        z = np.linalg.solve(w.T @ w + self.noise * np.eye(w.shape[1]), w.T @ (x[:, shown] - self.mean[shown]).T)
        return np.where(shown, x, (self.w @ z).T + self.mean)


class Machine:
    """A Boltzmann machine on standardised pixels."""

    def __init__(self, x, config, epochs, name, callbacks=()):
        self.mean, self.spread = x.mean(0), x.std(0)
        self.model = config.place(RBM(HIDDEN, "gaussian", seed=config.seed))
        self.model.fit(
            (x - self.mean) / self.spread, epochs=epochs, schedule=cosine(), callbacks=list(callbacks), **OPTIONS,
            **config.lasting(name),
        )  # fmt: skip

    def fill(self, x, shown):
        """Faces with what Gibbs sampling expects of the pixels that are not shown."""
        z = np.where(shown, (x - self.mean) / self.spread, np.nan).astype(np.float32)
        return np.where(shown, x, self.model.impute(z, 50, 200, seed=0) * self.spread + self.mean)


def error(filled, x):
    """Mean squared error of the pixels that were not shown."""
    hidden = ~known()
    return float(np.mean(np.square(filled[:, hidden].astype(np.float64) - x[:, hidden])))


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    parts = faces(config)
    train, valid, test = (p.reshape(len(p), -1) for p in parts)
    shown, epochs = known(), config.epochs or EPOCHS["lfw_subset"]
    few, all_but_test = more_of(parts[0]), more_of(np.concatenate(parts[:2]))
    chosen = min(COMPONENTS, key=lambda k: error(Linear(few, k).fill(valid, shown), valid))
    first = Machine(few, config, epochs, "validation")
    machine = Machine(all_but_test, config, epochs, "", [Table(config.show)] if config.show else [])
    mean = all_but_test.mean(0)
    light = test[:, shown].mean(1) - mean[shown].mean()
    filled = {
        "rbm": machine.fill(test, shown),
        "mean": np.where(shown, test, mean),
        "brightened_mean": np.where(shown, test, mean + light[:, None]),
        "pca": Linear(all_but_test, chosen).fill(test, shown),
    }
    metrics = {f"{name}_mse": error(images, test) for name, images in filled.items()}
    metrics["validation_rbm_mse"] = error(first.fill(valid, shown), valid)
    metrics["validation_pca_mse"] = error(Linear(few, chosen).fill(valid, shown), valid)
    settings = {
        "data_set": "lfw_subset", "splits": {"train": len(train), "validation": len(valid), "test": len(test)},
        "hidden_pixels": int((~shown).sum()), "epochs": epochs, "seed": config.seed, "threads": get_num_threads(),
        "model": repr(machine.model), "pca_components": chosen, "schedule": "half a cosine to 0",
        "augmentation": {"shift": SHIFT, "flip": True}, **OPTIONS,
    }  # fmt: skip
    return Report(metrics, settings, machine.model, draw=lambda path: draw(path, test, filled, shown))


def draw(path, test, filled, shown):
    """Faces, what was shown of them, and what each way made of it."""
    from .. import plot

    some = slice(0, 10)
    lines = [test, np.where(shown, test, 0.5), *(filled[k] for k in ("rbm", "pca", "mean"))]
    images = (np.clip(a[some], 0, 1).reshape(-1, SIDE, SIDE) for a in lines)
    figure = plot.canvas((10, 6))
    plot.reconstructions(*images, names=("faces", "shown", "machine", "PCA", "mean"), ax=figure.subplots())
    figure.savefig(path, dpi=110)
