"""Recipes: a task, a network and its training with fixed settings, one short file each; run by ``fastdl train NAME``.

A recipe has a docstring (task, network, reference figure with its source) and a function ``run(config) -> Report``.
"""

import importlib

from .. import backend
from .._interrupts import interrupts_raised
from ._common import Config, Report, picture, save, say, write_json

NAMES = (
    "mnist-softmax",
    "mnist-perceptron",
    "mnist-mlp",
    "mnist-lenet",
    "mnist-cnn",
    "cifar-cnn",
    "mnist-autoencoder",
    "mnist-denoise",
    "digit-novelty",
    "mnist-gan",
    "mnist-dcgan",
    "rbm-exact",
    "mnist-rbm",
    "mnist-dbn",
    "mnist-few-labels",
    "digits-rbm-pipeline",
    "mnist-1000-layers",
    "cifar-resnet",
    "complexity-sweep",
    "heart-disease",
    "breast-cancer",
    "diabetes",
    "cartpole",
    "cats-dogs",
    "image-folder",
    "face-detect",
    "vowels-lstm",
    "shakespeare-lstm",
    "spoken-digits-lstm",
    "forecast-lstm",
    "copy-memory",
    "mnist-rows-lstm",
    "moving-digits",
    "faces-impute",
    "next-word",
    "sentiment-rntn",
    "sentence-tags",
    "emoji-captions",
)

__all__ = ["NAMES", "Config", "Report", "picture", "run", "save", "say", "title", "write_json"]


def _module(name):
    if name not in NAMES:
        raise ValueError(f"recipe: expected one of {', '.join(NAMES)}; got {name!r}")
    return importlib.import_module(f".{name.replace('-', '_')}", __name__)


def title(name):
    """First line of a recipe's description."""
    return _module(name).__doc__.split("\n")[0]


def run(name, config=None):
    """Run a recipe.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    config : Config, optional

    Returns
    -------
    Report
    """
    import time

    config = config or Config()
    module, begun = _module(name), time.perf_counter()
    if config.long and not hasattr(module, "LONG"):
        able = ", ".join(n for n in NAMES if hasattr(_module(n), "LONG"))
        raise ValueError(f"long: expected a recipe with a long run ({able}); got {name!r}")
    if config.variant is not None and config.variant not in getattr(module, "VARIANTS", ()):
        able = ", ".join(f"{v} of {n}" for n in NAMES for v in getattr(_module(n), "VARIANTS", ()))
        raise ValueError(f"variant: expected one that the recipe has ({able}); got {config.variant!r} of {name!r}")
    device = backend.device_name(config.device)
    with interrupts_raised():
        report = module.run(config)
    report.recipe, report.seconds = name, time.perf_counter() - begun
    report.settings["device"] = device
    return report
