"""What recipes share: the data, the table of epochs, and the one scoring on the test part."""

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field

from .. import data
from ..io import write_text
from ..schedules import cosine


def say(text):
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


@dataclass
class Config:
    """What a run may choose.

    Parameters
    ----------
    data_dir : path, optional
        Folder of the data sets; without it FASTDL_DATA, and without that the digits that come with fastdl.
    epochs : int, optional
        Instead of the recipe's own number.
    seed : int
    show : callable, optional
        Prints a line of the table of epochs; None: silent.
    progress : bool
        A progress bar, where tqdm is installed.
    checkpoint : path, optional
        Where the state of the training is written after every epoch. A recipe that trains several networks adds the
        name of each: ``FILE.naive``.
    resume : path, optional
        Go on from the checkpoints that a run with this `checkpoint` wrote.
    long : bool
        The recipe's larger network and longer run, where it has one.
    variant : str, optional
        Another task of the recipe, one of its `VARIANTS`.
    device : {'cpu', 'cuda', 'cuda:N'}
        Where the recipe's networks work; baselines and what makes data work on the CPU.
    """

    data_dir: str | None = None
    epochs: int | None = None
    seed: int = 0
    show: object = None
    progress: bool = False
    checkpoint: str | None = None
    resume: str | None = None
    long: bool = False
    variant: str | None = None
    device: str = "cpu"

    def place(self, model):
        """A model or module of the recipe, on the run's device: every one that it makes goes through here."""
        return model if self.device == "cpu" else model.to(self.device)

    def needs_cpu(self, recipe, why):
        """For a recipe whose work a GPU cannot do: what was asked for is refused, not ignored."""
        if self.device != "cpu":
            raise ValueError(f"device: expected 'cpu', as {recipe} {why}; got {self.device!r}")

    def lasting(self, network=""):
        """Options `checkpoint` and `resume` of a fit; networks of one recipe have files of their own."""

        def place(path):
            return f"{path}.{network}" if network else path

        options = {}
        if self.checkpoint is not None or self.resume is not None:
            options["checkpoint"] = place(self.checkpoint if self.checkpoint is not None else self.resume)
        if self.resume is not None:
            found = place(self.resume)
            # Of several networks the later ones may not have begun. A stack has a file for each of its machines.
            begun = os.path.exists(found) or os.path.exists(f"{found}.0")
            options["resume"] = found if not network or begun else None
        return options

    def needs_no_checkpoint(self, recipe):
        """For a recipe that trains many networks for seconds: what it cannot do is refused, not ignored."""
        if self.checkpoint is not None or self.resume is not None:
            name = "checkpoint" if self.checkpoint is not None else "resume"
            raise ValueError(f"{name}: expected none, as {recipe} trains its networks in seconds; got {getattr(self, name)!r}")


@dataclass
class Report:
    """What a run gave.

    Attributes
    ----------
    metrics : dict
        `test_accuracy` and `validation_accuracy`, 0 to 1.
    settings : dict
        All that decided them: data set, splits, augmentation, epochs, optimiser, seed, threads.
    model : Classifier
        With its `history_`.
    test : (images, labels)
    names : tuple of str
        What the classes are called.
    probabilistic : bool
        Whether the model gives probabilities.
    recipe : str
    seconds : float
    draw : callable, optional
        ``draw(path)`` writes the recipe's own picture; a classifier has one that fits them all.
    """

    metrics: dict
    settings: dict
    model: object
    test: tuple = field(default=(), repr=False)
    names: tuple = ()
    probabilistic: bool = True
    recipe: str = ""
    seconds: float = math.nan
    draw: object = field(default=None, repr=False)


def mnist(config):
    """The full set from a folder, or the embedded part."""
    if data.data_directory(config.data_dir) is None:
        return data.load("mnist-embedded")
    return data.load("mnist", config.data_dir)


def fit_and_judge(config, model, dataset, *, epochs, augment=None, warmup=None, network="", parts=None, **options):
    """Train on the training part less validation, then score on the test part, once.

    Parameters
    ----------
    config : Config
    model : Classifier
    dataset : fastdl.data.Dataset
    epochs : int or dict of str to int
        Or a number for each data set, by name: a small set takes more passes.
    augment : fastdl.data.Augment, optional
    warmup : float, optional
        The learning rate rises over this share of the run and then falls along half a cosine to 0.
    network : str
        Which one it is, in a recipe that trains several.
    parts : (x, y, x_valid, y_valid), optional
        Instead of `fastdl.data.split_validation` of the data set.
    **options
        Passed to ``model.fit``.

    Returns
    -------
    Report
        The weights are those after the last epoch: nothing was chosen by validation within the run.
    """
    from .. import get_num_threads

    model = config.place(model)
    x, y, x_valid, y_valid = data.split_validation(dataset) if parts is None else parts
    epochs = config.epochs or (epochs[dataset.name] if isinstance(epochs, dict) else epochs)
    settings = {
        "data_set": dataset.name,
        "source": dataset.source.partition(", from ")[0],  # the data's, not where they lie on this machine
        "splits": {"train": len(x), "validation": len(x_valid), "test": len(dataset.x_test)},
        "augmentation": None if augment is None else changed(augment),
        "epochs": epochs,
        "seed": config.seed,
        "threads": get_num_threads(),
        "model": repr(model),
        **options,
    }
    if warmup is not None:
        settings["schedule"] = f"cosine to 0 after a warm-up of {warmup:g} of the run"
        options["schedule"] = cosine(warmup)
    more, show = config.lasting(network), config.show
    if augment is not None:
        more["augment"] = augment
    if warmup is not None and config.progress and _has_tqdm():
        more["progress"] = True
        if show is say:
            from tqdm import tqdm

            show = tqdm.write  # above the bar
    callbacks = []
    if show:
        show(f"{dataset}\n{len(x)} for training, {len(x_valid)} for validation\n")
        callbacks.append(Table(show))
    model.fit(x, y, epochs=epochs, validation=(x_valid, y_valid), callbacks=callbacks, **options, **more)
    metrics = {
        "test_accuracy": model.score(dataset.x_test, dataset.y_test),
        "validation_accuracy": model.score(x_valid, y_valid),
    }
    return Report(metrics, settings, model, (dataset.x_test, dataset.y_test), dataset.names, warmup is not None)


def _has_tqdm():
    import importlib.util
    import sys

    return sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None


def changed(augment):
    """The fields of a dataclass that are not at their defaults."""
    return {
        f.name: getattr(augment, f.name) for f in dataclasses.fields(augment) if getattr(augment, f.name) != f.default
    }


class Table:
    """A callback that prints the table of epochs, its head first."""

    def __init__(self, show):
        self.show, self.columns = show, None

    def __call__(self, state):
        history = state.history
        if self.columns is None:
            known = {
                "loss": "loss",
                "loss_d": "loss of D",
                "diversity": "diversity",
                "errors": "mistakes",
                "error": "error",
                "val_loss": "val. loss",
                "val_accuracy": "val. accuracy",
                "seconds": "seconds",
            }
            self.columns = {k: v for k, v in known.items() if k in history}
            self.show("epoch  " + "  ".join(f"{v:>13}" for v in self.columns.values()))
        cells = (f"{history[k][-1]:13.1f}" if k == "seconds" else f"{history[k][-1]:13.4f}" for k in self.columns)
        self.show(f"{history['epoch'][-1]:5d}  " + "  ".join(cells))


def write_json(report, path):
    """``{"recipe", "metrics", "seconds", "config"}``."""
    from .. import __version__, backend
    from ..bench_peers import cpu_name

    config = report.settings | {"fastdl": __version__, "target": backend.target, "machine": cpu_name()}
    content = {"recipe": report.recipe, "metrics": report.metrics, "seconds": report.seconds, "config": config}
    write_text(path, json.dumps(content, indent=1) + "\n")


def save(report, path):
    """Write the model as safetensors: what `fastdl.models.load` reads.

    Of a network that a recipe makes by a function within a function only the weights can be written, with the recipe's
    name: build the recipe's network and give it what `fastdl.io.load` reads.
    """
    if not getattr(report.model, "_can_be_saved", lambda: True)():
        from .. import io

        io.save(path, report.model.get_weights(), {"recipe": report.recipe, "settings": report.settings})
    else:
        report.model.save(path)


def picture(report, path):
    """The recipe's own picture, or of a classifier of images: learning curve, first-layer filters and worst mistakes.

    Where there are no images the learning curve alone.
    """
    from .. import plot

    if report.draw is not None:
        report.draw(path)
    elif len(report.test) and getattr(report.test[0], "ndim", 0) == 4:
        plot.report_picture(path, report)
    else:
        figure = plot.canvas((7, 4.2))
        plot.learning_curve(report.model.history_, figure.subplots())
        figure.suptitle(report.recipe)
        figure.savefig(path, dpi=110)
