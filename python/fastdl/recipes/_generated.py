"""How generated digits are judged, alike for every generator; and sheets of them by epoch."""

import numpy as np

from .. import metrics
from ..schedules import cosine
from ._digits import judge

BANDWIDTHS = (0.1, 0.13, 0.16, 0.2, 0.25, 0.3)


def judged(digits, model):
    """Figures of as many samples as there are test images; see `fastdl.metrics`.

    `frechet_mixture` is the distance of a mixture of 100 Gaussians with diagonal covariances fitted to the pixels,
    `frechet_mixture_full` that of one with full covariances, `frechet_data` that of as many training images. Shares are
    those of the judge's classes among the samples against those among the training images; `classes` counts those of
    at least one half.
    """
    critic, accuracy = judge(digits)
    n, seed = len(digits.x_test), digits.config.seed + 1
    samples = model.sample(n, seed=seed)
    target = metrics.features(critic, digits.x_test)
    figures = {"frechet": metrics.frechet_distance(metrics.features(critic, samples), target)}
    full = metrics.GaussianMixture(100, "full", seed=digits.config.seed).fit(digits.x)
    for name, mixture in (("frechet_mixture", full.diagonal()), ("frechet_mixture_full", full)):
        made = mixture.sample(n, seed=seed, low=0.0, high=1.0)
        figures[name] = metrics.frechet_distance(metrics.features(critic, made), target)
    some = np.linspace(0, len(digits.x) - 1, n).astype(np.int64)
    figures["frechet_data"] = metrics.frechet_distance(metrics.features(critic, digits.x[some]), target)
    wanted = np.bincount(digits.y, minlength=10) / len(digits.y)
    share = metrics.class_shares(critic, samples) / wanted
    figures |= {"classes": int((share >= 0.5).sum()), "min_share": float(share.min()), "max_share": float(share.max())}
    by_width, _ = metrics.parzen_log_likelihood(samples, digits.x_valid[:1000], BANDWIDTHS)
    width = BANDWIDTHS[int(by_width.argmax())]
    figures["parzen"], figures["parzen_error"] = metrics.parzen_log_likelihood(samples, digits.x_test, width)
    some = np.linspace(0, n - 1, min(n, 1000)).astype(np.int64)
    figures["copies"] = metrics.share_of_copies(samples[some], digits.x, digits.x_valid[:1000])
    figures["judge_accuracy"] = accuracy
    return figures, {"parzen_bandwidth": width, "samples": n}


class Sheets:
    """A callback that keeps samples from the same latent numbers after epochs 1, 2, 4, ... and the last."""

    def __init__(self, model):
        self.model, self.sheets = model, {}

    def __call__(self, state):
        epoch = state.epoch
        if epoch & (epoch - 1) == 0 or epoch == state.epochs:
            self.sheets[epoch] = self.model.sample(64)


def picture(path, sheets, model, digits):
    """Sheets of samples by epoch, data beside them, and the losses."""
    from .. import plot

    figure = plot.canvas((3.2 * (len(sheets) + 1), 6.5))
    top, bottom = figure.subfigures(2, 1)
    cells = top.subplots(1, len(sheets) + 1, squeeze=False)[0]
    for ax, (epoch, images) in zip(cells, sheets.items(), strict=False):
        plot.samples(images, ax, title=f"after epoch {epoch}")
    plot.samples(digits.x[:64], cells[-1], title="data")
    left, right = bottom.subplots(1, 2)
    h = model.history_
    left.plot(h["epoch"], h["loss"], label="loss of the generator")
    left.plot(h["epoch"], h["loss_d"], label="loss of the discriminator")
    right.plot(h["epoch"], h["real"], label="verdict on data")
    right.plot(h["epoch"], h["fake"], label="verdict on samples")
    right.plot(h["epoch"], h["diversity"], "--", label="diversity")
    right.set_ylim(0, 1)
    for ax in (left, right):
        ax.set_xlabel("epoch")
        ax.legend(frameon=False)
    figure.savefig(path, dpi=100)


def train_gan(config, digits, model, epochs, **options):
    """Train with table and sheets, judge; returns (metrics, settings, draw)."""
    sheets = Sheets(config.place(model))
    settings = digits.settings(epochs=epochs, model=repr(model), schedule="cosine to 0", **options)
    model.fit(
        digits.x,
        epochs=epochs,
        schedule=cosine(0.0),
        callbacks=[sheets, *digits.callbacks()],
        **options,
        **config.lasting(),
    )
    figures, more = judged(digits, model)
    return figures, settings | more, lambda path: picture(path, sheets.sheets, model, digits)
