"""MNIST digits cleaned of salt and pepper: a denoising autoencoder beside a median filter and PCA.

Task: three of ten pixels were set to black or white at random; give the image back. The figure is the squared error of an
image, summed over its pixels (values 0 to 1), mean over the test images, which were all corrupted once, alike for every
run. The median filter, made for this kind of noise, has the window that is best on validation images; PCA has a code of
the same length and learned from clean images.
Network: a denoising autoencoder of dense layers that sees each training image under new noise in every epoch.

Settings were not tuned.

Reference: Vincent, Larochelle, Lajoie, Bengio & Manzagol, "Stacked denoising autoencoders" (2010), who use this noise to
learn features and give no such figure.
"""

import numpy as np

from ..models import Autoencoder
from ..models.pca import PCA
from ..nn.generative import corrupt
from ..random import Stream
from ..schedules import cosine
from ._common import Report
from ._digits import Digits

EPOCHS = {"mnist": 20, "mnist-embedded": 60}
KIND, LEVEL = "salt", 0.3
OPTIONS = {"batch_size": 128, "optimizer": "adam", "lr": 1e-3}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    digits = Digits(config)
    epochs = digits.epochs(EPOCHS)
    model = config.place(Autoencoder((512,), 128, act="gelu", noise=KIND, noise_level=LEVEL, seed=config.seed))
    settings = digits.settings(
        epochs=epochs, model=repr(model), schedule="cosine to 0 after a warm-up of 0.05", **OPTIONS
    )
    model.fit(
        digits.x, epochs=epochs, schedule=cosine(0.05), callbacks=digits.callbacks(), **OPTIONS, **config.lasting()
    )
    pca = PCA(model.code).fit(digits.x)
    clean, valid = (v[..., 0].astype(np.float32) / 255 for v in (digits.x_test, digits.x_valid))
    noisy, noisy_valid = (corrupt(v, KIND, LEVEL, Stream(i)) for i, v in enumerate((clean, valid)))
    size = min((3, 5), key=lambda s: error(median(noisy_valid, s), valid))
    cleaned = {"test": model.reconstruct(noisy), "median": median(noisy, size), "pca": pca.reconstruct(noisy)}
    metrics = {f"{name}_sse": error(images, clean) for name, images in cleaned.items()}
    metrics |= {"noisy_sse": error(noisy, clean), "validation_sse": error(model.reconstruct(noisy_valid), valid)}
    settings |= {"noise": f"{KIND} {LEVEL:g}", "median_window": size}

    def draw(path):
        from .. import plot

        figure = plot.canvas((12, 6))
        shown = [int((digits.y_test == c).argmax()) for c in range(10)]
        lines = [a[shown] for a in (clean, noisy, *cleaned.values())]
        names = ("digits", "with noise", "autoencoder", f"median {size}x{size}", f"PCA, {model.code}")
        plot.reconstructions(*lines, names=names, ax=figure.subplots())
        figure.savefig(path, dpi=110)

    return Report(metrics, settings, model, (digits.x_test, digits.y_test), draw=draw)


def error(images, clean):
    """Squared error of an image, summed over its pixels."""
    return float(np.square(images.astype(np.float64) - clean).sum((1, 2)).mean())


def median(images, size):
    """Median of the size x size pixels around each pixel of [N,Y,X]; the border is repeated outwards."""
    r, result = size // 2, np.empty_like(images)
    for start in range(0, len(images), 500):
        part = images[start : start + 500]
        wide = np.pad(part, ((0, 0), (r, r), (r, r)), mode="edge")
        result[start : start + len(part)] = np.median(
            np.lib.stride_tricks.sliding_window_view(wide, (size, size), (1, 2)), (-2, -1)
        )
    return result
