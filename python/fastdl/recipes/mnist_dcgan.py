"""MNIST digits out of random numbers by convolutions: a DCGAN, judged by a network of our own.

Task: learn to draw handwritten digits from 55,000 of them, without labels.
Network: a generator of two transposed convolutions with batch normalisation over 7x7 pixels, a discriminator of two
convolutions of stride 2 with spectral normalisation, trained by the hinge loss. Samples come from a running mean of the
generator's weights. A LeNet-5 that was trained once with
labels judges the samples: Fréchet distance of its features to those of the test images, shares of its classes; the
distance of a mixture of 100 Gaussians fitted to the pixels is the one to beat.

Learning rate and loss were chosen by the verdicts of the discriminator and the looks of the samples in short runs on the
embedded digits, with seed 100.

Reference: the architecture is that of Radford, Metz & Chintala, "Unsupervised representation learning with deep
convolutional generative adversarial networks" (2016), for smaller images; distances by one's own judge have no figures
elsewhere.
"""

from ..models import GAN
from ._common import Report
from ._digits import Digits
from ._generated import train_gan

EPOCHS = {"mnist": 20, "mnist-embedded": 60}
OPTIONS = {"batch_size": 64, "lr": 1e-3, "beta1": 0.5}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    digits = Digits(config)
    model = GAN("dcgan", latent=64, width=24, loss="hinge", spectral_norm=True, average=0.999, seed=config.seed)
    figures, settings, draw = train_gan(config, digits, model, digits.epochs(EPOCHS), **OPTIONS)
    return Report(figures, settings, model, (digits.x_test, digits.y_test), draw=draw)
