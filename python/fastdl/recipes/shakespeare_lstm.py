"""Shakespeare, character by character: an LSTM that writes on.

Task: 40,000 lines of Shakespeare (Karpathy's tinyshakespeare), 65 different characters; the first 90 % for training, the
rest for the figure `val_nats`, the mean cross entropy of a character given all before it.
Network: one LSTM of 256 units (with ``--long`` two of 384 with dropout), trained by truncated backpropagation with states
carried from window to window.
Reference: 1.88 nats for nanoGPT's small transformer for a CPU (Karpathy, nanoGPT, README). Aim: at most 1.70 nats in 3 minutes
at 2 threads, with ``--long`` 1.50 in 25 minutes.
"""

import gzip

from ..models import CharLM
from ..schedules import cosine
from ._sequences import callbacks, place, report

EPOCHS = {"tinyshakespeare": 4}
LONG = 8


def text(config):
    """(training text, validation text)."""
    with gzip.open(place(config, "shakespeare-lstm", "tinyshakespeare", "input.txt.gz"), "rt", encoding="ascii") as stream:
        whole = stream.read()
    cut = len(whole) * 9 // 10
    return whole[:cut], whole[cut:]


def run(config):
    """Train, judge on the whole validation part, write a sample; see `fastdl.recipes`."""
    known, new = text(config)
    epochs = config.epochs or (LONG if config.long else EPOCHS["tinyshakespeare"])
    model = (
        CharLM(384, layers=2, embedding=64, dropout=0.2, seed=config.seed)
        if config.long
        else CharLM(256, embedding=64, seed=config.seed)
    )
    config.place(model)
    options = {"batch_size": 32, "window": 64, "lr": 2e-3 if config.long else 4e-3}
    model.fit(known, epochs=epochs, schedule=cosine(0.02), callbacks=callbacks(config), **options, **config.lasting())
    val = model.nats(new)
    # States were carried on all the time, so what comes after no text at all has hardly been seen.
    sample = model.sample(400, known[-500:], temperature=0.8, seed=config.seed)
    if config.show:
        config.show(f"\n{sample.strip()}\n")
    splits = {"train": len(known), "validation": len(new)}
    return report(config, {"val_nats": val}, model, epochs, splits, **options, long=config.long, schedule="cosine, warm-up 0.02")
