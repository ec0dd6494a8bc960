"""The next word in Shakespeare: an LSTM over words beside a Kneser-Ney 3-gram.

Task: the words and signs of tinyshakespeare; the first 90 % of the text for training, the rest for the figure. The 6,000 most
frequent words of the training part are the vocabulary, of which one symbol stands for all others.
Network: an LSTM of 256 units with dropout, trained by truncated backpropagation.
Reference: a 3-gram with interpolated Kneser-Ney smoothing over the same symbols (NLTK's, where it is installed: on a tenth of
the words, as it takes milliseconds a word). Aim: a perplexity below its.
"""

import math

from ..data import words
from ..models import WordLM
from ..schedules import cosine
from ._sequences import callbacks, done, report
from .shakespeare_lstm import text

EPOCHS = {"tinyshakespeare": 8}
PROMPT = ["I", "pray", "you", ","]


def trigram(known, new, vocabulary):
    """Perplexity of NLTK's interpolated Kneser-Ney 3-gram on every tenth stretch of 20 words; None without NLTK."""
    try:
        from nltk.lm import KneserNeyInterpolated
        from nltk.util import everygrams
    except ImportError:
        return None
    model = KneserNeyInterpolated(3, discount=0.75)
    model.fit([everygrams(known, max_len=3)], vocabulary.symbols)
    total = count = 0
    for at in range(2, len(new) - 20, 200):
        for i in range(at, at + 20):
            total -= math.log(model.score(new[i], new[i - 2 : i]))
            count += 1
    return math.exp(total / count)


def run(config):
    """Train, judge, and say what comes after a prompt; see `fastdl.recipes`."""
    known, new = (words(t) for t in text(config))
    epochs = config.epochs or EPOCHS["tinyshakespeare"]
    options = {"batch_size": 32, "window": 35, "lr": 3e-3, "weight_decay": 1e-4, "optimizer": "adamw"}
    model = config.place(WordLM(6000, units=256, embedding=128, dropout=0.4, seed=config.seed))
    model.fit(known, epochs=epochs, schedule=cosine(0.05), callbacks=callbacks(config), **options, **config.lasting())
    metrics = {"perplexity": done(model).perplexity(new)}
    kept = [[w if w in model.vocabulary_ else model.unknown for w in part] for part in (known, new)]
    compared = trigram(*kept, model.vocabulary_)
    if compared is not None:
        metrics["perplexity_trigram"] = compared
    if config.show:
        best = ", ".join(f"{w} {p:.2f}" for w, p in model.next(PROMPT))
        config.show(f"\n{' '.join(PROMPT)} ... {best}\n")
    splits = {"train": len(known), "validation": len(new)}
    return report(config, metrics, model, epochs, splits, **options, schedule="cosine, warm-up 0.05")
