"""The next word in Shakespeare: an LSTM over words beside a Kneser-Ney 3-gram.

Task: the words and signs of tinyshakespeare; the first 90 % of the text for training, the rest for the figure. The 4,000 most
frequent words of the training part are the vocabulary, of which one symbol stands for all others; it is predicted and
counted like any other, by both models.
Network: an LSTM of 200 units with dropout whose symbols have one vector for reading and for writing, trained by truncated
backpropagation.
Reference: NLTK's 3-gram with interpolated Kneser-Ney smoothing (where NLTK is installed) over the same symbols, all words of the
held-out part; `perplexity_trigram` is the best of several discounts on that very part, which favours it. Aim: a perplexity
below its.
"""

import math
from collections import Counter, defaultdict

from ..data import words
from ..models import WordLM
from ..schedules import cosine
from ._sequences import callbacks, report
from .shakespeare_lstm import text

EPOCHS = {"tinyshakespeare": 8}
PROMPT = ["I", "pray", "you", ","]


def trigram(known, new, vocabulary, discounts=(0.75, 0.8, 0.85, 0.9, 0.95)):
    """(perplexity, discount) of NLTK's interpolated Kneser-Ney 3-gram, the best of some discounts; None without NLTK."""
    try:
        from nltk.lm import KneserNeyInterpolated
        from nltk.util import everygrams
    except ImportError:
        return None
    model = KneserNeyInterpolated(3, discount=discounts[0])
    model.fit([everygrams(known, max_len=3)], vocabulary.symbols)
    # NLTK walks through all its n-grams for every word to count in how many contexts it was seen; counted once, it is the same.
    contexts = defaultdict(Counter)
    for order in (2, 3):
        for before, behind in model.counts[order].items():
            contexts[before[1:]].update(word for word, n in behind.items() if n > 0)
    totals = {context: sum(behind.values()) for context, behind in contexts.items()}
    slow = model.estimator._continuation_counts

    def seen_after(word, context=()):
        return contexts[context][word], totals.get(context, 0)

    for word, before in ((new[1], new[0]), (known[-1], known[-2])):
        for context in ((), (before,)):
            if slow(word, context) != seen_after(word, context):
                raise RuntimeError(
                    f"nltk: expected {slow(word, context)} contexts of {word!r}; got {seen_after(word, context)}"
                )
    model.estimator._continuation_counts = seen_after
    found = []
    for discount in discounts:
        model.estimator.discount = discount
        # The first word is given, as to the network.
        total = sum(math.log(model.score(new[i], new[max(i - 2, 0) : i])) for i in range(1, len(new)))
        found.append((math.exp(-total / (len(new) - 1)), discount))
    return min(found)


def run(config):
    """Train, judge, and say what comes after a prompt; see `fastdl.recipes`."""
    known, new = (words(t) for t in text(config))
    epochs = config.epochs or EPOCHS["tinyshakespeare"]
    options = {"batch_size": 16, "window": 35, "lr": 2e-3, "weight_decay": 0.05, "optimizer": "adamw"}
    model = config.place(WordLM(4000, units=200, embedding=200, dropout=0.5, tied=True, seed=config.seed))
    model.fit(known, epochs=epochs, schedule=cosine(0.05), callbacks=callbacks(config), **options, **config.lasting())
    metrics = {"perplexity": model.perplexity(new)}
    kept = [[w if w in model.vocabulary_ else model.unknown for w in part] for part in (known, new)]
    compared = trigram(*kept, model.vocabulary_)
    if compared is not None:
        metrics["perplexity_trigram"], metrics["discount_trigram"] = compared
    if config.show:
        best = ", ".join(f"{w} {p:.2f}" for w, p in model.next(PROMPT))
        config.show(f"\n{' '.join(PROMPT)} ... {best}\n")
    splits = {"train": len(known), "validation": len(new)}
    return report(config, metrics, model, epochs, splits, **options, schedule="cosine, warm-up 0.05")
