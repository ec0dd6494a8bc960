"""How far back a recurrent net remembers: RNN, GRU and LSTM against the gap.

Task: made on the fly. A sequence begins with one of eight symbols and goes on with noise of eight others; at its end the
first symbol must be named, after a gap of 5 to 160 steps. Chance is 12.5 %.
Network: 32 units and the same number of updates for each cell and gap; recurrent weights start orthogonal.
Reference: gradients through a plain recurrent net fade with the gap, those through gates need not (Bengio, Simard &
Frasconi 1994; Hochreiter & Schmidhuber 1997). With an orthogonal start and few updates it may come out the other way: that
matrix keeps lengths, while a fresh gate lets a quarter to a half of the memory go at every step until it is trained.
"""

import numpy as np

from .. import random
from ..models import RNNClassifier
from ..random import Stream
from ..schedules import cosine
from ._sequences import report

EPOCHS = {"copy": 20}
GAPS = (5, 10, 20, 40, 80, 160)
CELLS = ("rnn", "gru", "lstm")
SYMBOLS, TRAIN, TEST = 8, 1600, 800


def sequences(n, gap, stream):
    """(tokens [n, gap + 1], first symbols)."""
    tokens = (random.uniform((n, gap + 1), 0, SYMBOLS, *stream.take(n * (gap + 1)))).astype(np.int64)
    tokens[:, 1:] += SYMBOLS
    return tokens, tokens[:, 0].copy()


def draw(metrics, path):
    """Accuracy of each cell over the gap."""
    from .. import plot

    figure, ax = plot.require().subplots()
    for cell in CELLS:
        ax.plot(GAPS, [metrics[f"{cell}_{gap}"] for gap in GAPS], "o-", label=cell.upper())
    ax.axhline(1 / SYMBOLS, color="grey", linewidth=1)
    ax.set_xscale("log", base=2)
    ax.set_xlabel("gap, steps")
    ax.set_ylabel("test accuracy")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plot.require().close(figure)


def run(config):
    """Train and judge each cell at each gap; see `fastdl.recipes`."""
    config.needs_no_checkpoint("copy-memory")
    show = config.show or (lambda text: None)
    epochs = config.epochs or EPOCHS["copy"]
    metrics, model = {}, None
    show(f"{'gap':>5}" + "".join(f"{cell:>9}" for cell in CELLS))
    for gap in GAPS:
        stream = Stream(config.seed).split(f"gap {gap}")
        (x, y), test = sequences(TRAIN, gap, stream), sequences(TEST, gap, stream)
        for cell in CELLS:
            model = config.place(RNNClassifier(32, cell, vocabulary=2 * SYMBOLS, embedding=16, seed=config.seed))
            model.fit(x, y, epochs=epochs, batch_size=32, lr=5e-3, clip=1.0, schedule=cosine(0.05))
            metrics[f"{cell}_{gap}"] = model.score(*test)
        show(f"{gap:5d}" + "".join(f"{metrics[f'{cell}_{gap}']:9.3f}" for cell in CELLS))
    metrics |= {f"{cell}_accuracy": float(np.mean([metrics[f"{cell}_{gap}"] for gap in GAPS])) for cell in CELLS}
    splits = {"train": TRAIN, "test": TEST}
    return report(config, metrics, model, epochs, splits, gaps=GAPS, draw=lambda path: draw(metrics, path))
