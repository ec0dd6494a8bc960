"""MNIST digits out of random numbers by dense layers: the first kind of adversarial networks.

Task: learn to draw handwritten digits from 55,000 of them, without labels.
Network: a generator and a discriminator of two hidden dense layers each; judged as in ``mnist-dcgan``.

Settings are those of ``mnist-dcgan`` where both have them. Without batch normalisation more than half of the samples were
one shape after 900 updates, by either loss that was tried (seed 100).

Reference: Parzen window log-likelihood 225 nats in Goodfellow et al., "Generative adversarial nets" (2014), with 50,000
training images; the bandwidth is chosen on validation images there as here.
"""

from ..models import GAN
from ._common import Report
from ._digits import Digits
from ._generated import train_gan

EPOCHS = {"mnist": 60, "mnist-embedded": 200}
OPTIONS = {"batch_size": 64, "lr": 1e-3, "beta1": 0.5}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    digits = Digits(config)
    model = GAN(
        "mlp", latent=64, hidden=(256, 512), batch_norm=True, loss="hinge", spectral_norm=True, average=0.999, seed=config.seed
    )
    figures, settings, draw = train_gan(config, digits, model, digits.epochs(EPOCHS), **OPTIONS)
    return Report(figures, settings, model, (digits.x_test, digits.y_test), draw=draw)
