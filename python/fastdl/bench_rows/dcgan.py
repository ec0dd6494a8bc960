"""A step of a DCGAN on 28x28 images: one update of the discriminator and one of the generator, 64 images each."""

import numpy as np

from .. import optim
from ..bench import Case, Row
from ..models import GAN
from ..models.gan import _Duel
from ..random import Stream
from ..rows import Rows

BATCH, LATENT, WIDTH = 64, 64, 64


def _images():
    return np.random.default_rng(0).random((BATCH, 28, 28, 1), np.float32)


def ours():
    """With `fastdl.models.GAN`."""
    model = GAN("dcgan", LATENT, width=WIDTH).build((28, 28, 1))
    pair = model.module_
    players = [optim.get("adam", net, lr=2e-4, beta1=0.5) for net in (pair.generator, pair.discriminator)]
    duel, rows, index = _Duel(model, players, Stream(0), BATCH), Rows(_images()), [np.arange(BATCH)]
    return Case(duel.step, (rows, index))


def torch(fused, layout=None):
    """The same networks and losses in PyTorch."""
    import torch
    from torch import nn

    w = WIDTH
    generator = nn.Sequential(
        nn.Linear(LATENT, 49 * 2 * w, bias=False), nn.BatchNorm1d(49 * 2 * w), nn.ReLU(), nn.Unflatten(1, (2 * w, 7, 7)),
        nn.ConvTranspose2d(2 * w, w, 4, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(),
        nn.ConvTranspose2d(w, 1, 4, 2, 1), nn.Sigmoid(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(1, w, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(w, 2 * w, 4, 2, 1), nn.BatchNorm2d(2 * w),
        nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(49 * 2 * w, 1),
    )  # fmt: skip
    x = torch.from_numpy(_images().transpose(0, 3, 1, 2).copy())
    if layout is not None:
        x, generator, discriminator = (a.to(memory_format=layout) for a in (x, generator, discriminator))
    optimisers = [
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=fused)
        for net in (generator, discriminator)
    ]
    loss_of, ones, none = nn.functional.binary_cross_entropy_with_logits, torch.ones(BATCH, 1), torch.zeros(BATCH, 1)

    def step():
        of_g, of_d = optimisers
        with torch.no_grad():
            made = generator(torch.randn(BATCH, LATENT))
        of_d.zero_grad()
        loss = loss_of(discriminator(2 * x - 1), ones) + loss_of(discriminator(2 * made - 1), none)
        loss.backward()
        of_d.step()
        of_g.zero_grad()
        for p in discriminator.parameters():
            p.requires_grad_(False)
        loss = loss_of(discriminator(2 * generator(torch.randn(BATCH, LATENT)) - 1), ones)
        loss.backward()
        of_g.step()
        for p in discriminator.parameters():
            p.requires_grad_(True)
        return loss

    return Case(step)


def row():
    """The row of the area `steps`."""

    def setup(peers):
        cases = {"fastdl": ours()}
        if "torch" in peers:
            import torch as library

            cases |= {
                "torch": torch(False),
                "torch-fused": torch(True),
                "torch-channels-last": torch(True, library.channels_last),
            }
        return cases

    inner, edge, dense = 49 * 16 * WIDTH * 2 * WIDTH, 196 * 16 * WIDTH, 49 * 2 * WIDTH
    discriminator, generator = inner + edge + dense, inner + edge + LATENT * dense
    # D: forward and weights on both batches, data gradients but for the images'; G: twice forward, both gradients;
    # through D forward and data gradients
    flops = 2.0 * BATCH * (2 * (3 * discriminator - edge) + 4 * generator - LATENT * dense + 2 * discriminator)
    return Row("steps", "DCGAN 28x28 B64 Adam (D and G)", setup, flops, 0.0, {"torch": 1.4})
