"""A photo's name: a network for your own folders of pictures.

Task: ``--data`` is a folder with a folder of PNG or JPEG pictures for each name (or with ``train`` and ``test`` that hold such);
pictures are brought to 32x32 pixels. Without ``test`` a fifth is set aside, by a hash of the pixels. Network: blocks of one, two
and two 3x3 convolutions with batch normalisation, pooling and dropout. Beside it a support vector machine with RBF kernel on the
principal components of the pixels.

Reference: none, the pictures are yours.
"""

import numpy as np

from .. import data
from ..data import Augment, Dataset, MissingDataError, hash_split, read_image_folder
from ..models import CNN
from ._common import fit_and_judge
from ._pixels import KernelMachine
from .cifar_cnn import network

EPOCHS = {"folder": 60}
SIZE = (32, 32)
AUGMENT = Augment(shift=3, rotate=8, scale=0.1, flip=True)


def pictures(folder):
    """The folder as a data set of its training and test part."""
    if (folder / "train").is_dir():
        x, y, names = read_image_folder(folder / "train", SIZE)
        if (folder / "test").is_dir():
            return Dataset(x, y, *read_image_folder(folder / "test", SIZE, names=names)[:2], names, "folder", "your pictures")
    else:
        x, y, names = read_image_folder(folder, SIZE)
    held = hash_split(x, 0.2)
    if len(np.unique(y[~held])) < len(names) or not held.any():
        raise ValueError(f"data: expected pictures enough to set a fifth aside; got {len(x)} of {len(names)} names")
    return Dataset(x[~held], y[~held], x[held], y[held], names, "folder", "your pictures")


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    folder = data.data_directory(config.data_dir)
    if folder is None:
        raise MissingDataError("image-folder", "a folder of pictures, in --data or in FASTDL_DATA", "neither")
    dataset = pictures(folder)
    if len(dataset.names) < 2:
        raise ValueError(f"data: expected folders of two names or more; got {', '.join(dataset.names)}")
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
