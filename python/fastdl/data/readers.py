"""Readers for CIFAR-10, npz, CSV and image folders."""

import csv
import functools
import io
import os
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .._arguments import file_name, pair, positive
from .errors import DataError, MissingDataError
from .idx import UNREADABLE, open_unpacked, read_up_to

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR10_TEST = "test_batch.bin"
_CIFAR10_RECORD = 1 + 3 * 32 * 32

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")  # what an image set is known by where Pillow is not installed

# Formats whose names Pillow knows but which it can't read by itself everywhere: some need a plugin or Windows, and
# PostScript is a program that another one, Ghostscript, would run.
_NOT_READ = ("BUFR", "EMF", "EPS", "GRIB", "HDF5", "MPEG", "WMF")


def _as_list(names) -> str:
    return ", ".join(str(name) for name in names) or "none"


# ---------------------------------------------------------------------------------------------------- CIFAR-10


def read_cifar10_batch(path: str | os.PathLike, images: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read one of the original binary batches of CIFAR-10 (plain or gzip-compressed).

    A record is one byte of label and 3072 of pixels, plane by plane: red, green, blue.

    Parameters
    ----------
    path : path of the file
    images : int, optional
        How many it must hold (10000 in the original); any whole number of records when not given.

    Returns
    -------
    x : uint8 [N,32,32,3]
    y : int64 [N], 0 to 9

    Raises
    ------
    MissingDataError
        No such file.
    DataError
        Not a whole number of records, not `images` of them, or a label above 9.
    """
    images = None if images is None else positive("images", images)
    with open_unpacked(path) as stream:
        # One byte more than wanted shows a file that is too long; without a wish, read it all.
        data = read_up_to(stream, 1 << 62 if images is None else images * _CIFAR10_RECORD + 1, path)
    count, rest = divmod(len(data), _CIFAR10_RECORD)
    if rest or not count or images not in (None, count):
        wanted = f"{images} records" if images is not None else "one or more records"
        raise DataError(
            path, f"{wanted} of {_CIFAR10_RECORD} bytes", f"{len(data)} bytes: {count} records and {rest} bytes"
        )
    records = np.frombuffer(data, np.uint8).reshape(count, _CIFAR10_RECORD)
    y = records[:, 0].astype(np.int64)
    if y.max() > 9:
        at = int(y.argmax())
        raise DataError(path, "labels 0 to 9", f"{y[at]} in record {at}")
    x = records[:, 1:].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x), y


def read_cifar10(
    directory: str | os.PathLike, images: int | None = 10000
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read the six binary batches of CIFAR-10 from a folder.

    Parameters
    ----------
    directory : path of the folder
    images : int or None
        Images a batch; None takes any number.

    Returns
    -------
    x_train, y_train, x_test, y_test
        As in `read_cifar10_batch`.

    Raises
    ------
    MissingDataError
        A batch is missing; all that are missing are named.
    DataError
        See `read_cifar10_batch`.
    """
    directory = Path(file_name("directory", directory))
    missing = [name for name in (*CIFAR10_TRAIN, CIFAR10_TEST) if not (directory / name).is_file()]
    if missing:
        raise MissingDataError(directory, f"{_as_list((*CIFAR10_TRAIN, CIFAR10_TEST))}", f"no {_as_list(missing)}")
    parts = [read_cifar10_batch(directory / name, images) for name in CIFAR10_TRAIN]
    x_test, y_test = read_cifar10_batch(directory / CIFAR10_TEST, images)
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]), x_test, y_test


# ---------------------------------------------------------------------------------------------------- npz


def read_npz(path: str | os.PathLike, required: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file; never unpickles.

    Parameters
    ----------
    path : path of the file
    required : names of arrays that must be there

    Returns
    -------
    dict
        Arrays by name.

    Raises
    ------
    MissingDataError
        No such file.
    DataError
        Not a zip file, damaged, an array of Python objects, or a required array missing.
    """
    if isinstance(required, str) or not hasattr(required, "__iter__"):
        raise TypeError(f"required: expected names, one after another; got {type(required).__name__}")
    if not os.path.isfile(file_name("path", path)):
        raise MissingDataError(path, "an .npz file", "a folder" if os.path.isdir(path) else "nothing there")
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            start = file.read(4)
        raise DataError(path, "an .npz file (a zip archive)", f"first bytes {start.hex(' ') or 'none'}")
    arrays, name = {}, ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # RuntimeError: encrypted, or packed oddly
        what = f"{name}: {error}" if name else str(error)
        raise DataError(path, "plain arrays, without pickled objects, in a whole archive", what) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a member that is no .npy file comes back as bytes
            raise DataError(path, "arrays only", f"{name}, which is none")
    missing = [name for name in required if name not in arrays]
    if missing:
        raise DataError(path, f"arrays {_as_list(required)}", f"{_as_list(arrays)}")
    return arrays


# ---------------------------------------------------------------------------------------------------- CSV


@dataclass(eq=False)
class Table:
    """A CSV file as numbers.

    Attributes
    ----------
    x : float64 [N,I]
        One column a feature; text columns as codes 0, 1, ...; missing values are NaN.
    columns : list of str
        Their names.
    categories : dict
        For each text column, the target too, the words that the codes stand for (sorted).
    y : int64 or float64 [N], or None
        The target: int64 for text and where every cell is written as a whole number, else float64.
    target : str or None
        Its name.
    """

    x: np.ndarray
    columns: list[str]
    categories: dict[str, list[str]] = field(default_factory=dict)
    y: np.ndarray | None = None
    target: str | None = None


def _number(cell: str) -> float | None:
    # float() also takes 1_000, which in a data file is a word.
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


# What other programs write where a number is missing (NaN is one for Python, too).
_NO_NUMBER = frozenset(("NA", "N/A", "n/a", "na", "NULL", "null", "None", "none", "-", ".", "<NA>", "#N/A"))
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+").fullmatch


def _is_whole(cell: str) -> bool:
    return cell.lstrip("+-").isdecimal()


def _looks_like_header(rows: list[list[str]], missing: tuple[str, ...]) -> bool:
    """Whether row 0 has words only, and below it some column has a number or never has that word."""
    first, rest = rows[0], rows[1:]
    if any(_number(cell) is not None or cell in missing for cell in first):
        return False
    if not rest:
        return True
    for i, word in enumerate(first):
        cells = [row[i] for row in rest if row[i] not in missing]
        if cells and (all(_number(cell) is not None for cell in cells) or word not in cells):
            return True
    return False


def read_csv(
    path: str | os.PathLike,
    target: str | int | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    missing: tuple[str, ...] = ("", "?"),
) -> Table:
    """Read a CSV file (UTF-8, plain or gzip-compressed) as numbers.

    Parameters
    ----------
    path : path of the file
    target : str or int, optional
        Name or index (negative counts from the end) of the column that goes to `Table.y`.
    header : bool, optional
        Whether line 1 has the names. When not given: yes, if it holds words only and some column below it holds
        numbers or never repeats that word. Without a header the columns are called ``"0"``, ``"1"``, ...
    delimiter : str, optional
        When not given: whichever of comma, semicolon and tab is most frequent in line 1.
    missing : tuple of str
        Cells that mean "not known", after surrounding blanks are removed. Where all else in a column is numbers (the
        target's too), ``NA``, ``N/A``, ``na``, ``n/a``, ``#N/A``, ``<NA>``, ``NULL``, ``null``, ``None``, ``none``, ``-`` and
        ``.`` mean it as well.

    Returns
    -------
    Table

    Raises
    ------
    MissingDataError
        No such file.
    DataError
        Empty, ragged (the line is named), not UTF-8, two columns of one name, no such target, a target cell that is
        missing, a column of numbers with decimal commas.
    """
    if not (header is None or isinstance(header, (bool, np.bool_))):
        raise TypeError(f"header: expected True, False or None; got {header!r}")
    if delimiter is not None and not (isinstance(delimiter, str) and len(delimiter) == 1):
        raise ValueError(f"delimiter: expected one character; got {delimiter!r}")
    if delimiter is not None and delimiter in '"\r\n':
        raise ValueError(f"delimiter: expected a character that may part cells; got {delimiter!r}")
    if not isinstance(missing, (tuple, list, set, frozenset)) or not all(isinstance(word, str) for word in missing):
        raise TypeError(f"missing: expected a tuple of strings; got {missing!r}")
    missing = tuple(missing)
    with open_unpacked(path) as stream:
        raw = bytes(read_up_to(stream, 1 << 62, path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, "UTF-8 text", f"byte {raw[error.start]:02x} at {error.start}") from error
    if "\0" in text:
        raise DataError(path, "text", f"a zero byte at {raw.index(0)}")
    line_one = text.split("\n", 1)[0]
    if delimiter is None:
        delimiter = max(",;\t", key=line_one.count)
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if row:  # an empty line is no row
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(path, "a CSV file", f"{error}, line {reader.line_num}") from error
    if not rows:
        raise DataError(path, "at least one row", "none")
    width = len(rows[0])
    for line, row in zip(lines, rows, strict=True):
        if len(row) != width:
            raise DataError(path, f"{width} cells a line, as in the first", f"{len(row)} in line {line}")

    if header if header is not None else _looks_like_header(rows, missing):
        names, rows, lines = rows[0], rows[1:], lines[1:]
        if not rows:
            raise DataError(path, "at least one row below the header", "none")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(path, "a name of its own for every column", f"more than one {_as_list(twice)}")
    else:
        names = [str(i) for i in range(width)]

    goal = None
    if target is not None:
        if isinstance(target, str) and target in names:
            goal = names.index(target)
        elif hasattr(target, "__index__") and -width <= target < width:
            goal = int(target) % width
        else:
            raise DataError(path, f"a column {target!r} for the target", f"columns {_as_list(names)}")

    categories, columns, y = {}, [], None
    for i, name in enumerate(names):
        cells = [row[i] for row in rows]
        numbers = {cell: _number(cell) for cell in cells if cell not in missing}
        words = {cell for cell, number in numbers.items() if number is None}
        gaps = missing
        if words and words <= _NO_NUMBER and len(words) < len(numbers):
            # Among numbers they say that there is none. As words they would make codes of all the numbers.
            gaps, words = (*missing, *words), set()
        if words - _NO_NUMBER and all(map(_DECIMAL_COMMA, words - _NO_NUMBER)):
            raise DataError(path, "numbers with a decimal point", f"{min(words - _NO_NUMBER)!r} in column {name!r}")
        if i == goal and not words:
            gaps = (*gaps, *(cell for cell, number in numbers.items() if number != number))  # NaN
        known = [cell for cell in cells if cell not in gaps]
        if i == goal and len(known) < len(cells):
            line = lines[next(n for n, cell in enumerate(cells) if cell in gaps)]
            raise DataError(path, f"a target in every row, column {name!r}", f"a missing value in line {line}")
        numbers = {cell: numbers[cell] for cell in known}
        if words:
            categories[name] = sorted(set(known))
            numbers = {word: float(code) for code, word in enumerate(categories[name])}
        column = np.array([numbers.get(cell, np.nan) for cell in cells])
        if i != goal:
            columns.append(column)
        elif name in categories or (all(map(_is_whole, known)) and np.abs(column).max() < 2**53):
            y = column.astype(np.int64)
        else:
            y = column
    x = np.stack(columns, axis=1) if columns else np.empty((len(rows), 0))
    return Table(
        x=x,
        columns=[name for i, name in enumerate(names) if i != goal],
        categories=categories,
        y=y,
        target=None if goal is None else names[goal],
    )


# ---------------------------------------------------------------------------------------------------- images


def _class_folders(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith("."))


@functools.cache
def _image_suffixes() -> frozenset[str]:
    try:
        from PIL import Image
    except ImportError:
        return frozenset(IMAGE_SUFFIXES)
    known = Image.registered_extensions()
    return frozenset(end for end, form in known.items() if form in Image.OPEN and form not in _NOT_READ)


def _images_in(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in _image_suffixes() and entry.is_file())


def _upright(image):
    """The image as its EXIF orientation wants it shown."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, TypeError, ValueError, KeyError, struct.error):
        return image  # the pixels are whole and loaded; what is damaged is only the note beside them


def _eight_bits(image, mode):
    """The image as "RGB" or "L": deep grey scaled, what is transparent laid on white."""
    from PIL import Image

    if image.mode[0] in "IF":  # Pillow's own conversion would cut off all above 255
        deep = np.asarray(image)
        if image.mode == "F" or deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"{deep.dtype.name} pixels from {deep.min()} to {deep.max()}, beyond 16 bits")
        deep = deep.astype(np.int64)
        clear = image.info.get("transparency")  # PNG's one shade that stands for nothing
        grey = np.where(deep == clear, 65535, deep) if isinstance(clear, int) else deep
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert(mode)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def read_image_folder(
    directory: str | os.PathLike,
    size: tuple[int, int] | None = None,
    mode: str = "RGB",
    names: tuple[str, ...] | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read images from one folder a class: PNG, JPEG, WebP, BMP, GIF and whatever else Pillow opens by itself.

    Files are taken by the ends of their names; others are skipped. Of an animation the first frame counts. Photos are
    turned as their EXIF orientation says, 16-bit grey is scaled to 8 bits, and what is transparent becomes white.

    Parameters
    ----------
    directory : path of the folder that holds the class folders
    size : (Y, X), optional
        Resize every image to this; when not given, all must have the size of the first.
    mode : {"RGB", "L"}
        Colour, or grey with one channel.
    names : tuple of str, optional
        The classes in order (say, those of the training part); the folder may hold no other. When not given: the
        folders, sorted by name.

    Returns
    -------
    x : uint8 [N,Y,X,C]
        Class by class, in the order of the file names.
    y : int64 [N]
    names : tuple of str

    Raises
    ------
    ImportError
        Pillow, the optional extra ``images``, is not installed.
    MissingDataError
        No such folder.
    DataError
        No class folders, a class without images, an unreadable image, or images of different sizes.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            'read_image_folder: expected Pillow, which the optional extra "images" brings; got no module PIL'
        ) from error
    if mode not in ("RGB", "L"):
        raise ValueError(f"mode: expected 'RGB' or 'L'; got {mode!r}")
    if size is not None:
        size = pair("size", size, 1)
    if isinstance(names, str) or not (names is None or hasattr(names, "__iter__")):
        raise TypeError(f"names: expected names of classes, one after another; got {type(names).__name__}")
    directory = Path(file_name("directory", directory))
    if not directory.is_dir():
        raise MissingDataError(directory, "a folder", "a file" if directory.exists() else "nothing there")
    folders = _class_folders(directory)
    if not folders:
        raise DataError(directory, "a folder for each class", "none")
    names = tuple(folder.name for folder in folders) if names is None else tuple(names)
    strange = [folder.name for folder in folders if folder.name not in names]
    if strange:
        raise DataError(directory, f"class folders {_as_list(names)}", f"{_as_list(strange)} as well")

    first, pixels, labels = None, [], []
    for folder in folders:
        paths = _images_in(folder)
        if not paths:
            raise DataError(folder, f"images ({_as_list(IMAGE_SUFFIXES)} or another that Pillow opens)", "none")
        for path in paths:
            try:
                with Image.open(path) as image:
                    image.load()
                    image = _eight_bits(_upright(image), mode)
                    if size is not None:
                        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
                    array = np.asarray(image, np.uint8)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise DataError(path, "a whole image of 8 or 16 bits", str(error)) from error
            if first is None:
                first = path, array.shape[:2]
            if array.shape[:2] != first[1]:
                raise DataError(
                    path,
                    f"{first[1][0]}x{first[1][1]} pixels, as {first[0].name} has (or give `size`)",
                    f"{array.shape[0]}x{array.shape[1]}",
                )
            pixels.append(array.reshape(*array.shape[:2], -1))
            labels.append(names.index(folder.name))
    return np.stack(pixels), np.array(labels, np.int64), names
