"""A photo's name: a network for your own folders of pictures.

Task: ``--data`` is a folder with a folder of pictures for each name (or with ``train`` and ``test`` that hold such), as
`fastdl.data.read_image_folder` takes them; pictures are brought to 32x32 pixels. Without ``test`` a fifth of each name's
pictures is set aside, those with the smallest hashes of their pixels. Network: blocks of one, two and two 3x3 convolutions
with batch normalisation, pooling and dropout. Beside it a support vector machine with RBF kernel on the principal components
of the pixels.

Reference: none, the pictures are yours.
"""

import hashlib

import numpy as np

from .. import data
from ..data import Augment, Dataset, MissingDataError, read_image_folder, split_validation
from ..models import CNN
from ._common import fit_and_judge
from ._pixels import KernelMachine
from .cifar_cnn import network

EPOCHS = {"folder": 60}
SIZE = (32, 32)
AUGMENT = Augment(shift=3, rotate=8, scale=0.1, flip=True)


def set_aside(x, y):
    """Bool [N]: of each name a fifth, to the nearest picture, and one at least where there are two.

    Hashes of the pixels order the pictures, so neither names of files nor other folders matter, and copies of one picture
    under one name stay together.
    """
    hashes = np.array([int.from_bytes(hashlib.blake2b(a.tobytes(), digest_size=8).digest(), "little") for a in x], np.uint64)
    held = np.zeros(len(x), bool)
    for c in np.unique(y):
        own = np.flatnonzero(y == c)
        wanted = max(round(0.2 * len(own)), len(own) >= 2)
        if wanted:
            held[own] = hashes[own] <= np.sort(hashes[own])[wanted - 1]
    return held


def pictures(folder):
    """The folder as a data set of its training and test part."""
    parted = (folder / "train").is_dir()
    x, y, names = read_image_folder(folder / "train" if parted else folder, SIZE)
    if len(names) < 2:
        raise ValueError(f"data: expected folders of two names or more; got {', '.join(names)}")
    if parted and (folder / "test").is_dir():
        x_test, y_test, _ = read_image_folder(folder / "test", SIZE, names=names)
        own, y_own = x, y
    else:
        held = set_aside(x, y)
        own, y_own, x_test, y_test = x[~held], y[~held], x[held], y[held]
    dataset = Dataset(own, y_own, x_test, y_test, names, "folder", "your pictures")
    if not len(x_test) or _learned(dataset) < len(names):
        counts = ", ".join(f"{n} of {name}" for name, n in zip(names, np.bincount(y, minlength=len(names)), strict=True))
        raise ValueError(
            "data: expected different pictures of each name, some to train on beside those set aside to validate and to "
            f"test, so ten of each or more; got {counts}"
        )
    return dataset


def _learned(dataset):
    """Names of which pictures are left when those for validation are set aside as well."""
    try:
        return len(np.unique(split_validation(dataset)[1]))
    except ValueError:  # copies of one picture
        return 0


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    folder = data.data_directory(config.data_dir)
    if folder is None:
        raise MissingDataError("image-folder", "a folder of pictures, in --data or in FASTDL_DATA", "neither")
    dataset = pictures(folder)
    base = KernelMachine(dataset)
    report = fit_and_judge(
        config,
        CNN(network, seed=config.seed),
        dataset,
        epochs=EPOCHS,
        augment=AUGMENT,
        batch_size=32,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=0.02,
        smoothing=0.1,
        warmup=0.1,
    )
    report.metrics["baseline_accuracy"] = base.score(dataset.x_test, dataset.y_test)
    report.settings |= {"baseline": base.settings, "names": list(dataset.names)}
    return report
