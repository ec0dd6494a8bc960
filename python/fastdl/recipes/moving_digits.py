"""Clips of a moving digit: which one it is, and where it goes.

Task: a digit of 14x14 pixels moves over 24x24 in one of eight directions, a pixel a frame, eight frames long; the place where it
begins is drawn. Clips are made on the fly from MNIST: of training digits to learn from, of its last 5,000 for validation, of the
test digits to judge. Right is an answer that names both digit and direction, one of 80.
Network: three 3x3 convolutions and a dense layer look at each frame, an LSTM of 96 units at what they saw.

Reference: none for this task. Moving digits come from Srivastava, Mansimov & Salakhutdinov, "Unsupervised learning of video
representations using LSTMs" (2015); convolutions below an LSTM from Donahue et al., "Long-term recurrent convolutional networks
for visual recognition and description" (2015). Aim: at least 95 %.
"""

import numpy as np

from .. import data, nn, ops, random
from ..data import Dataset
from ..models import CNN
from ..random import Stream
from ..tensor import Tensor
from ._common import fit_and_judge, mnist

EPOCHS = {"moving-digits": 8}
SIDE, DIGIT, FRAMES = 24, 14, 8
WAYS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))  # rows down, columns to the right
NAMES = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
CLIPS = {"train": 20000, "validation": 2000, "test": 4000}


def clips(images, digits, count, stream):
    """(uint8 [count, FRAMES * SIDE, SIDE, 1], labels 8 digit + direction): the frames of a clip one below the other.

    Every digit in every direction, as often as every other.
    """
    small = images[..., 0].reshape(len(images), DIGIT, 2, DIGIT, 2).mean((2, 4)).astype(np.uint8)
    way, kinds = np.arange(count) % len(WAYS), np.unique(digits)
    kind, draws = kinds[np.arange(count) // len(WAYS) % len(kinds)], random.words(count, *stream.take(count))
    which = np.empty(count, np.int64)
    for c in kinds:
        places = np.flatnonzero(digits == c)
        which[kind == c] = places[draws[kind == c] % len(places)]
    free = SIDE - DIGIT + 1
    steps = np.array(WAYS)[way]  # [count,2]
    span = free - np.abs(steps) * (FRAMES - 1)  # places to begin from which the digit stays inside
    draws = random.words(2 * count, *stream.take(2 * count)).reshape(count, 2)
    begin = (draws % span.astype(draws.dtype)).astype(np.int64) + np.where(steps < 0, FRAMES - 1, 0)
    film = np.zeros((count, FRAMES, SIDE, SIDE), np.uint8)
    place = np.arange(DIGIT)
    for t in range(FRAMES):
        y, x = (begin + t * steps).T
        rows, columns = y[:, None, None] + place[:, None], x[:, None, None] + place
        film[np.arange(count)[:, None, None], t, rows, columns] = small[which]
    return film.reshape(count, FRAMES * SIDE, SIDE, 1), len(WAYS) * digits[which].astype(np.int64) + way


class Film(nn.Module):
    """Convolutions over each frame, an LSTM over what they gave, logits of the classes: a digit's and a direction's added."""

    buffers = ("pairs",)

    def __init__(self, classes):
        conv = lambda filters: nn.Conv2d(filters, 3, "relu", padding="same", init="he_normal")
        layers = [layer for filters in (8, 16, 32) for layer in (conv(filters), nn.MaxPool2d(2))]
        self.look = nn.Sequential(*layers, nn.Flatten(), nn.Dense(96, "relu"), nn.Dropout(0.1))
        self.follow = nn.LSTM(96, output="last")
        self.head = nn.Dense(10 + len(WAYS))
        digit, way = np.divmod(np.arange(classes), len(WAYS))
        parts = np.arange(10 + len(WAYS))[:, None]  # [18,80]: which of the head's outputs make a class
        self.pairs = ((parts == digit) | (parts == 10 + way)).astype(np.float32)

    def forward(self, x):
        n = x.shape[0]
        seen = self.look(ops.reshape(x, (n * FRAMES, SIDE, SIDE, 1)))
        return ops.matmul(self.head(self.follow(ops.reshape(seen, (n, FRAMES, seen.shape[1])))), Tensor(self.pairs))


def dataset(config):
    """The clips of a run, and the parts to fit by: made by its seed to learn from, always the same to validate and to test."""
    digits = mnist(config)
    x, y, x_valid, y_valid = data.split_validation(digits)
    sets = {
        "train": clips(x, y, CLIPS["train"], Stream(config.seed).split("clips")),
        "validation": clips(x_valid, y_valid, CLIPS["validation"], Stream(0).split("validation clips")),
        "test": clips(digits.x_test, digits.y_test, CLIPS["test"], Stream(0).split("test clips")),
    }
    names = tuple(f"{d} {way}" for d in range(10) for way in NAMES)
    made = Dataset(*sets["train"], *sets["test"], names, "moving-digits", digits.source)
    return made, (*sets["train"], *sets["validation"])


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    made, parts = dataset(config)
    report = fit_and_judge(
        config, CNN(Film, seed=config.seed), made, epochs=EPOCHS, parts=parts, warmup=0.1, batch_size=64,
        optimizer="adamw", lr=2e-3, weight_decay=1e-3, clip=1.0,
    )  # fmt: skip
    x, y = report.test
    said = report.model.predict(x)
    for name, part in (("digit", lambda c: c // len(WAYS)), ("direction", lambda c: c % len(WAYS))):
        report.metrics[f"{name}_accuracy"] = float(np.mean(part(said) == part(y)))
    report.draw = lambda path: draw(path, x, y, said)
    return report


def draw(path, x, y, said):
    """Clips, a row each: four that were told right and four that were not."""
    from .. import plot

    right = said == y
    shown = [*np.flatnonzero(right)[:4], *np.flatnonzero(~right)[:4]]
    figure = plot.canvas((9, 1.2 * len(shown)))
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    label = lambda c: f"{c // len(WAYS)} {NAMES[c % len(WAYS)]}"
    for ax, i in zip(axes, shown, strict=True):
        film = x[i].reshape(FRAMES, SIDE, SIDE)
        ax.imshow(np.concatenate([*np.pad(film, ((0, 0), (0, 0), (0, 2)), constant_values=128)], axis=1), cmap="gray")
        ax.set_title(label(y[i]) if right[i] else f"{label(y[i])}, called {label(said[i])}", fontsize=9)
        ax.axis("off")
    figure.savefig(path, dpi=110)
