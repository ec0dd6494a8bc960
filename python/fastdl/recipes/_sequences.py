"""What the recipes over time share: where their data lie, their reports, one split."""

import hashlib

import numpy as np

from .. import data, get_num_threads
from ._common import Report, Table


def place(config, recipe, *names):
    """The path of a data file under the folder of the data sets.

    Raises
    ------
    fastdl.data.MissingDataError
        No folder was given, or the file is not in it.
    """
    folder = data.data_directory(config.data_dir)
    if folder is None:
        raise data.MissingDataError(
            "--data", f"the folder of the data sets, with {'/'.join(names)}, for {recipe}", "none, and FASTDL_DATA is not set"
        )
    path = folder.joinpath(*names)
    if not path.is_file():
        raise data.MissingDataError(path, f"the data of {recipe}", "no such file")
    return path


def callbacks(config, title=None):
    """The table of epochs, where somebody looks."""
    if not config.show:
        return []
    if title:
        config.show(f"\n{title}")
    return [Table(config.show)]


def report(config, metrics, model, epochs, splits, *, draw=None, **settings):
    """A report of a recipe without pictures of its mistakes."""
    settings = {"epochs": epochs, "seed": config.seed, "splits": splits, "threads": get_num_threads()} | settings
    return Report(metrics, settings | {"model": repr(model)}, model, (), (), True, draw=draw)


def held_out(keys, share=10):
    """Whether each of some names falls into the tenth that is held out for validation: by hash, so always the same."""
    return np.array([hashlib.sha256(str(k).encode()).digest()[0] % share == 0 for k in keys])
