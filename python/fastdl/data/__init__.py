"""Data sets: readers, the embedded MNIST subset, fetching, validation splits, augmentation.

Needs NumPy only (image folders: Pillow). Every damaged file is a `DataError` that names the path, what was expected
there and what came.
"""

from .audio import deltas, log_mel, mel_filters, mfcc, read_wav
from .augment import Augment
from .download import MNIST_FILES, MNIST_MIRRORS, RemoteFile, fetch, fetch_file
from .errors import DataError, FetchError, MissingDataError
from .idx import open_memmap, read_idx, write_idx
from .readers import Table, read_cifar10, read_cifar10_batch, read_csv, read_image_folder, read_npz
from .sequences import pad, unpad, windows
from .sets import Dataset, available, data_directory, hash_split, load, load_mnist, split_validation
from .text import Vocabulary, words
from .trees import Forest, Tree, load_sst, parse_trees, read_trees

__all__ = [
    "MNIST_FILES",
    "MNIST_MIRRORS",
    "Augment",
    "DataError",
    "Dataset",
    "FetchError",
    "Forest",
    "MissingDataError",
    "RemoteFile",
    "Table",
    "Tree",
    "Vocabulary",
    "available",
    "data_directory",
    "deltas",
    "fetch",
    "fetch_file",
    "hash_split",
    "load",
    "load_mnist",
    "load_sst",
    "log_mel",
    "mel_filters",
    "mfcc",
    "open_memmap",
    "pad",
    "parse_trees",
    "read_cifar10",
    "read_cifar10_batch",
    "read_csv",
    "read_idx",
    "read_image_folder",
    "read_npz",
    "read_trees",
    "read_wav",
    "split_validation",
    "unpad",
    "windows",
    "words",
    "write_idx",
]
