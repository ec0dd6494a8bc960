"""What the recipes without labels share: digits split as for the classifiers, settings, and the judge of generated digits."""

import hashlib
import os
from pathlib import Path

from .. import data, get_num_threads
from ..models import CNN
from ..schedules import cosine
from ._common import Table, mnist


class Digits:
    """The digits of a run: `x`, `y` to train on, `x_valid`, `y_valid` to choose by, `x_test`, `y_test` to report on once."""

    def __init__(self, config):
        self.dataset = mnist(config)
        self.x, self.y, self.x_valid, self.y_valid = data.split_validation(self.dataset)
        self.x_test, self.y_test, self.name = self.dataset.x_test, self.dataset.y_test, self.dataset.name
        self.config = config
        if config.show:
            config.show(f"{self.dataset}\n{len(self.x)} for training, {len(self.x_valid)} for validation\n")

    def epochs(self, table):
        """Number of epochs: the run's own, or the recipe's for this set."""
        return self.config.epochs or table[self.name]

    def settings(self, **more):
        """What decided a run, for its report."""
        return {
            "data_set": self.name,
            "source": self.dataset.source.partition(", from ")[0],
            "splits": {"train": len(self.x), "validation": len(self.x_valid), "test": len(self.x_test)},
            "seed": self.config.seed,
            "threads": get_num_threads(),
            **more,
        }

    def callbacks(self, title=None):
        """The table of epochs, where somebody looks."""
        if not self.config.show:
            return []
        if title:
            self.config.show(f"\n{title}")
        return [Table(self.config.show)]


JUDGE_EPOCHS = {"mnist": 12, "mnist-embedded": 30}


def judge(digits):
    """The LeNet-5 that judges generated digits, trained once on the training part and kept in the user's cache folder.

    Returns
    -------
    (CNN, float)
        The network and its accuracy on the test part. Its seed is fixed, so that all runs have the same judge.

    Notes
    -----
    The folder is FASTDL_CACHE, else XDG_CACHE_HOME/fastdl, else ~/.cache/fastdl. The file's name holds a digest of the data and
    the settings; where it cannot be written, the judge is trained anew each time.
    """
    from .. import models

    epochs = JUDGE_EPOCHS[digits.name] if digits.config.epochs is None else min(2, JUDGE_EPOCHS[digits.name])
    options = dict(epochs=epochs, batch_size=64, optimizer="adam", lr=2e-3)
    augment = data.Augment(shift=2, rotate=10, scale=0.1)
    about = f"{options} {augment!r} {hashlib.sha256(digits.x).hexdigest()}"
    path = _cache() / f"judge-{digits.name}-{hashlib.sha256(about.encode()).hexdigest()[:16]}.safetensors"
    model = None
    if path.exists():
        try:
            model = models.load(path)
        except (ValueError, OSError):
            model = None  # damaged: make a new one
    if model is None:
        model = digits.config.place(CNN("lenet5", seed=7))
        model.fit(
            digits.x,
            digits.y,
            augment=augment,
            schedule=cosine(0.05),
            callbacks=digits.callbacks("the judge"),
            **options,
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            model.save(path)
        except OSError:
            pass
    digits.config.place(model)
    return model, model.score(digits.x_test, digits.y_test)


def _cache():
    if os.environ.get("FASTDL_CACHE"):
        return Path(os.environ["FASTDL_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastdl"
