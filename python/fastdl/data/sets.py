"""Data sets by name: where they are looked for, and what comes back."""

import hashlib
import os
import zipfile
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np

from .._arguments import file_name
from .errors import DataError, MissingDataError
from .idx import read_idx
from .readers import (
    CIFAR10_NAMES,
    CIFAR10_TEST,
    CIFAR10_TRAIN,
    _class_folders,
    _images_in,
    read_cifar10,
    read_csv,
    read_image_folder,
    read_npz,
)

_FILES = Path(__file__).parent / "files"
_EMBEDDED_FILES = (
    "mnist-train-images.idx3-ubyte.xz",
    "mnist-train-labels.idx1-ubyte.xz",
    "mnist-t10k-images.idx3-ubyte.xz",
    "mnist-t10k-labels.idx1-ubyte.xz",
)
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_EMBEDDED_SOURCE = (
    "MNIST (LeCun, Cortes), subset embedded in fastdl: every 12th training and every 10th test image, CC BY-SA 3.0"
)
_CIFAR10_FOLDERS = ("cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin", ".")
_CIFAR10_SMALL = ("cifar10-small/cifar10_small.npz", "cifar10_small.npz")


@dataclass(eq=False, repr=False)
class Dataset:
    """A data set in a training and a test part.

    Attributes
    ----------
    x_train, x_test : array [N,...]
        Images uint8 [N,Y,X,C], channels last; tables float64 [N,I]. A set without a test part has a test part of zero
        rows.
    y_train, y_test : int64 [N]
        Class numbers; float64 where the target is a quantity.
    names : tuple of str
        What the class numbers mean; empty where they are quantities.
    name : str
        Name of the set.
    source : str
        Where the data come from, in words.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    names: tuple[str, ...]
    name: str
    source: str

    def __repr__(self) -> str:
        x = self.x_train
        return (
            f"Dataset {self.name}: {len(x)} training and {len(self.x_test)} test samples, {x.dtype} "
            f"{list(x.shape[1:])}, {len(self.names)} classes; {self.source}"
        )


def _path(name, value):
    """A path with its ``~`` written out, where there is such a home."""
    return Path(os.path.expanduser(file_name(name, value)))


def data_directory(data_dir: str | os.PathLike | None = None) -> Path | None:
    """The folder of the data sets: `data_dir`, else the environment variable ``FASTDL_DATA``, else None."""
    chosen = data_dir if data_dir is not None else os.environ.get("FASTDL_DATA") or None
    return None if chosen is None else _path("data_dir", chosen)


# ---------------------------------------------------------------------------------------------------- IDX sets


def _idx_paths(folder: Path) -> list[Path | None]:
    """For each of the four files: where it is (plain or .gz), or None."""
    found = []
    for name in IDX_FILES:
        candidates = (folder / name, folder / f"{name}.gz")
        found.append(next((path for path in candidates if path.is_file()), None))
    return found


def _load_idx_set(paths: list[Path], name: str, names: tuple[str, ...] | None, source: str) -> Dataset:
    arrays = []
    for images_path, labels_path in (paths[:2], paths[2:]):
        x, y = read_idx(images_path), read_idx(labels_path)
        if x.ndim != 3 or x.dtype != np.uint8:
            raise DataError(images_path, "uint8 images [N,Y,X]", f"{x.dtype} {list(x.shape)}")
        if y.ndim != 1 or y.dtype.kind not in "iu" or len(y) != len(x):
            raise DataError(labels_path, f"{len(x)} whole-number labels, as images", f"{y.dtype} {list(y.shape)}")
        arrays += [x[..., None], y.astype(np.int64)]
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise DataError(
            paths[2], f"images of {list(arrays[0].shape[1:3])}, as for training", f"{list(arrays[2].shape[1:3])}"
        )
    if names is None:
        names = tuple(str(i) for i in range(int(max(arrays[1].max(initial=-1), arrays[3].max(initial=-1))) + 1))
    for path, y in ((paths[1], arrays[1]), (paths[3], arrays[3])):
        if y.size and not 0 <= int(y.min()) <= int(y.max()) < len(names):
            raise DataError(path, f"labels 0 to {len(names) - 1}", f"{y.min()} to {y.max()}")
    return Dataset(*arrays, names=names, name=name, source=source)


def _idx_set(folders: tuple[Path, ...], name: str, names: tuple[str, ...] | None, about: str) -> Dataset:
    for folder in folders:
        paths = _idx_paths(folder)
        if all(paths):
            return _load_idx_set(paths, name, names, f"{about} from {folder}")
    # Say what is missing where most of it is.
    folder = max(folders, key=lambda f: sum(path is not None for path in _idx_paths(f)))
    missing = [file for file, path in zip(IDX_FILES, _idx_paths(folder), strict=True) if path is None]
    raise MissingDataError(folder, f"{', '.join(IDX_FILES)}, each plain or .gz", f"no {', '.join(missing)}")


def load_mnist(data_dir: str | os.PathLike | None = None) -> Dataset:
    """MNIST: the subset that is part of fastdl, or, from a folder, the full set.

    Parameters
    ----------
    data_dir : path, optional
        Folder with the four IDX files, or whose subfolder ``mnist`` has them (each plain or ``.gz``). None: the
        embedded subset, every 12th training image (5000) and every 10th test image (1000), unselected. (The original
        training file alternates between two groups of writers, and this step keeps the first of them: see
        ``files/NOTICE-mnist.txt``.)

    Returns
    -------
    Dataset
        x uint8 [N,28,28,1], y int64 [N].

    Raises
    ------
    MissingDataError
        The folder lacks files; they are named. The embedded subset never takes their place.
    DataError
        A damaged file.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner (1998), Gradient-based learning applied to document recognition.

    Examples
    --------
    >>> from fastdl import data
    >>> data.load_mnist().x_train.shape
    (5000, 28, 28, 1)
    """
    digits = tuple("0123456789")
    if data_dir is None:
        return _load_idx_set([_FILES / name for name in _EMBEDDED_FILES], "mnist-embedded", digits, _EMBEDDED_SOURCE)
    root = _path("data_dir", data_dir)
    return _idx_set((root / "mnist", root), "mnist", digits, "MNIST (LeCun, Cortes), the full set,")


# ---------------------------------------------------------------------------------------------------- other sets


def _find_cifar10(root: Path) -> Path | None:
    """The folder of the binary batches, or the npz file, or None."""
    for folder in _CIFAR10_FOLDERS:
        if any((root / folder / name).is_file() for name in (*CIFAR10_TRAIN, CIFAR10_TEST)):
            return root / folder
    for name in ("cifar10.npz", "cifar10/cifar10.npz"):
        if (root / name).is_file():
            return root / name
    return None


def _load_cifar10(root: Path, small: bool) -> Dataset:
    full = None if small else _find_cifar10(root)
    if full is not None and full.is_dir():
        return Dataset(
            *read_cifar10(full), names=CIFAR10_NAMES, name="cifar10", source=f"CIFAR-10 (Krizhevsky), from {full}"
        )
    if full is not None:
        return _load_npz_set(full, "cifar10", CIFAR10_NAMES)
    for name in _CIFAR10_SMALL:
        if (root / name).is_file():
            data = _load_npz_set(root / name, "cifar10-small", CIFAR10_NAMES)
            data.source = f"CIFAR-10 (Krizhevsky), a subset, from {root / name}"
            return data
    wanted = _CIFAR10_SMALL[0] if small else f"cifar-10-batches-bin/, cifar10.npz or {_CIFAR10_SMALL[0]}"
    raise MissingDataError(root, wanted, "none of these")


def _load_npz_set(path: Path, name: str, names: tuple[str, ...] | None = None) -> Dataset:
    arrays = read_npz(path)
    if "x_train" not in arrays or "y_train" not in arrays:
        raise DataError(path, "arrays x_train and y_train (read_npz reads any)", ", ".join(arrays) or "none")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(path, "both of x_test and y_test, or neither", ", ".join(arrays))
    x, y = arrays["x_train"], arrays["y_train"]
    x_test, y_test = arrays.get("x_test", x[:0]), arrays.get("y_test", y[:0])
    for part, px, py in (("train", x, y), ("test", x_test, y_test)):
        if px.ndim < 2 or py.ndim != 1 or len(px) != len(py) or px.shape[1:] != x.shape[1:]:
            like = "" if part == "train" else f" with rows {list(x.shape[1:])}"
            raise DataError(path, f"x_{part} [N,...]{like} and y_{part} [N]", f"{list(px.shape)} and {list(py.shape)}")
        if py.dtype.kind not in "biuf" or px.dtype.kind not in "biuf":
            raise DataError(path, f"numbers in x_{part} and y_{part}", f"{px.dtype} and {py.dtype}")
    classes = y.dtype.kind != "f" and y_test.dtype.kind != "f"
    if classes:
        y, y_test = y.astype(np.int64), y_test.astype(np.int64)
        stored = arrays.get("class_names", arrays.get("names"))
        if stored is not None:
            names = tuple(str(word) for word in stored.ravel())
        labels = np.concatenate([y, y_test])
        if names is None:
            names = tuple(str(i) for i in range(int(labels.max(initial=-1)) + 1))
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
            raise DataError(path, f"labels 0 to {len(names) - 1}", f"{labels.min()} to {labels.max()}")
    return Dataset(x, y, x_test, y_test, names if classes else (), name, f"{path.name}, from {path}")


def _load_csv_set(path: Path, name: str, target: str | int | None) -> Dataset:
    table = read_csv(path, target)
    if table.y is None:
        raise ValueError(f"target: expected the column to predict, one of {', '.join(table.columns)}; got None")
    names = table.categories.get(table.target, ())
    if not names and table.y.dtype == np.int64 and table.y.min() >= 0 and table.y.max() < len(table.y):
        names = (str(i) for i in range(int(table.y.max()) + 1))
    return Dataset(table.x, table.y, table.x[:0], table.y[:0], tuple(names), name, f"{path.name}, from {path}")


def _is_image_set(folder: Path) -> bool:
    parts = [folder / "train"] if (folder / "train").is_dir() else [folder]
    return any(_images_in(sub) for part in parts for sub in _class_folders(part))


def _load_folder_set(folder: Path, name: str) -> Dataset:
    if not (folder / "train").is_dir():
        x, y, names = read_image_folder(folder)
        return Dataset(x, y, x[:0], y[:0], names, name, f"{folder.name}, from {folder}")
    x, y, names = read_image_folder(folder / "train")
    x_test, y_test = x[:0], y[:0]
    if (folder / "test").is_dir():
        x_test, y_test, _ = read_image_folder(folder / "test", names=names)
        if x_test.shape[1:] != x.shape[1:]:
            raise DataError(
                folder / "test", f"images {list(x.shape[1:])}, as for training", f"{list(x_test.shape[1:])}"
            )
    return Dataset(x, y, x_test, y_test, names, name, f"{folder.name}, from {folder}")


def load(name: str, data_dir: str | os.PathLike | None = None, target: str | int | None = None) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        ``"mnist-embedded"`` needs no folder. ``"mnist"``: the four IDX files. ``"cifar10"``: the six binary batches, or
        ``cifar10.npz``, or the subset ``cifar10-small/cifar10_small.npz`` (then the name of the set is
        ``"cifar10-small"``). Any other name is a path below the folder, without its suffix: an ``.npz`` with
        ``x_train``, ``y_train`` and perhaps ``x_test``, ``y_test``, ``class_names``; a ``.csv`` or ``.csv.gz``; or a
        folder with the four IDX files of a set, with a folder of images a class, or with ``train`` and ``test`` that
        hold such. `available` lists the names.
    data_dir : path, optional
        Folder of the data sets; when not given, the environment variable ``FASTDL_DATA``.
    target : str or int, optional
        For a CSV file: the column to predict.

    Returns
    -------
    Dataset

    Raises
    ------
    MissingDataError
        No folder given, or the set is not in it.
    DataError
        A damaged or unsuitable file.

    Examples
    --------
    >>> from fastdl import data
    >>> data.load("mnist-embedded").y_test.shape
    (1000,)
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected the name of a data set; got {type(name).__name__}")
    if name == "mnist-embedded":
        return load_mnist()
    root = data_directory(data_dir)
    if root is None:
        hint = '; "mnist-embedded" needs none' if name == "mnist" else ""
        raise MissingDataError(name, f"a folder of data sets, in data_dir or in FASTDL_DATA{hint}", "neither")
    if not root.is_dir():
        raise MissingDataError(root, "a folder of data sets", "a file" if root.exists() else "nothing there")
    if name == "mnist":
        return load_mnist(root)
    if name in ("cifar10", "cifar10-small"):
        return _load_cifar10(root, small=name == "cifar10-small")
    if (root / f"{name}.npz").is_file():
        return _load_npz_set(root / f"{name}.npz", name)
    for suffix in (".csv", ".csv.gz"):
        if (root / f"{name}{suffix}").is_file():
            return _load_csv_set(root / f"{name}{suffix}", name, target)
    folder = root / name
    if folder.is_dir():
        if any(_idx_paths(folder)):
            return _idx_set((folder,), name, None, "IDX files")
        return _load_folder_set(folder, name)
    raise MissingDataError(root, f"a data set {name!r}", f"{', '.join(available(root))}")


def _npz_is_set(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return {"x_train.npy", "y_train.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def available(data_dir: str | os.PathLike | None = None) -> dict[str, str]:
    """Names that `load` takes, each with the path it would be read from.

    Parameters
    ----------
    data_dir : path, optional
        Folder of the data sets; when not given, the environment variable ``FASTDL_DATA``. Looked through two levels
        deep.

    Returns
    -------
    dict of str to str
    """
    found = {"mnist-embedded": "embedded"}
    root = data_directory(data_dir)
    if root is None or not root.is_dir():
        return found
    for folder in (root / "mnist", root):
        if all(_idx_paths(folder)):
            found.setdefault("mnist", str(folder))
    small = next((root / name for name in _CIFAR10_SMALL if (root / name).is_file()), None)
    cifar10 = _find_cifar10(root) or small
    if cifar10 is not None:
        found["cifar10"] = str(cifar10)
    if small is not None:
        found["cifar10-small"] = str(small)
    for path in sorted((*root.glob("*"), *root.glob("*/*"))):
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            part_of_another = name in ("mnist", *_CIFAR10_FOLDERS) or path.name in ("train", "test")
            if not part_of_another and (all(_idx_paths(path)) or _is_image_set(path)):
                found.setdefault(name, str(path))
        elif path.name.endswith(".npz") and _npz_is_set(path):
            found.setdefault(name.removesuffix(".npz"), str(path))
        elif path.name.endswith((".csv", ".csv.gz")):
            found.setdefault(name.removesuffix(".gz").removesuffix(".csv"), str(path))
    return found


# ---------------------------------------------------------------------------------------------------- validation


def hash_split(x: np.ndarray, fraction: float = 0.1) -> np.ndarray:
    """Choose rows by a hash of their bytes: the same rows in any order, beside any other rows; equal rows together.

    Parameters
    ----------
    x : array [N,...]
    fraction : float
        Expected share of the chosen rows, 0 < fraction < 1.

    Returns
    -------
    bool [N]
        True for the chosen rows. With two or more different rows, at least one is chosen and at least one is not.

    Raises
    ------
    ValueError
        A fraction outside (0, 1), or fewer than two different rows.

    Notes
    -----
    BLAKE2b over the little-endian bytes of a row, compared with fraction * 2**64. Reads `x` row by row, so a
    memory-mapped array need not fit into memory.
    """
    if not isinstance(fraction, Real) or not 0 < fraction < 1:
        raise ValueError(f"fraction: expected a number between 0 and 1; got {fraction}")
    if not hasattr(x, "dtype"):
        raise TypeError(f"x: expected an array; got {type(x).__name__}")
    if x.dtype.hasobject:
        raise TypeError(f"x: expected numbers or strings; got {x.dtype}")
    if x.ndim == 0:
        raise ValueError("x: expected rows; got a single number")
    little = x.dtype.newbyteorder("<")
    hashes = np.empty(len(x), np.uint64)
    for i, row in enumerate(x):
        row_bytes = np.ascontiguousarray(row).astype(little, copy=False).tobytes()
        hashes[i] = int.from_bytes(hashlib.blake2b(row_bytes, digest_size=8).digest(), "little")
    if len(hashes) == 0 or hashes.min() == hashes.max():
        raise ValueError(f"x: expected at least two different rows; got {len(x)} rows, none of them different")
    chosen = hashes < np.uint64(int(fraction * 2.0**64))
    # In a handful of rows the draw may take none or all.
    if not chosen.any():
        chosen = hashes == hashes.min()
    elif chosen.all():
        chosen = hashes != hashes.max()
    return chosen


def split_validation(data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split the training part for early stopping and for choosing hyperparameters, so that the test part stays unread.

    Parameters
    ----------
    data : Dataset

    Returns
    -------
    x_train, y_train, x_valid, y_valid
        MNIST: the last 5000 of the 60000 training images are for validation; of the embedded subset the same twelfth,
        which are its images among those 5000 (views, no copies). Other sets: the rows that `hash_split` chooses, 10
        %.
    """
    if not hasattr(data, "x_train"):
        raise TypeError(f"data: expected a Dataset (hash_split chooses among rows of arrays); got {type(data).__name__}")
    x, y = data.x_train, data.y_train
    if data.name in ("mnist", "mnist-embedded"):
        # 12 does not divide 5000, so position i of the subset is image 12 i of the full set, which is >= 55000 for the
        # last floor(5000 / 12).
        cut = len(x) - len(x) // 12
        return x[:cut], y[:cut], x[cut:], y[cut:]
    valid = hash_split(x)
    return x[~valid], y[~valid], x[valid], y[valid]
