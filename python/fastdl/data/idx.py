"""IDX, the format of the original MNIST files: a big-endian array behind a short header.

    00 00 type ndim | size of axis 0 (4 bytes) | size of axis 1 | ... | elements, last axis fastest

Source: the description on the MNIST page (LeCun, Cortes, Burges).
"""

import gzip
import io
import math
import os
import tokenize
import zlib
from typing import BinaryIO

import numpy as np

from .._arguments import array as as_array
from .._arguments import file_name
from .errors import DataError, MissingDataError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CODES = {np.dtype(name).newbyteorder("="): code for code, name in _TYPES.items()}
_GZIP_MAGIC, _XZ_MAGIC = b"\x1f\x8b", b"\xfd7zXZ\0"
# On images of digits 14 % smaller than gzip's.
_XZ_FILTERS = [{"id": 0x21, "preset": 9 | 1 << 31, "dict_size": 1 << 22, "lc": 4, "lp": 0, "pb": 0}]  # LZMA2, extreme
_CHUNK = 1 << 20
_MAX_AXES = 32  # of every NumPy
# What NumPy raises at a damaged .npy file; a size that its header claims may be beyond all memory.
UNREADABLE = (ValueError, EOFError, OSError, MemoryError, tokenize.TokenError)


def open_unpacked(path: str | os.PathLike) -> BinaryIO:
    """Open a file for reading bytes, through gzip or xz if its first bytes (not its name) say so."""
    if not os.path.isfile(file_name("path", path)):
        raise MissingDataError(path, "a file", "a folder" if os.path.isdir(path) else "nothing there")
    with open(path, "rb") as file:
        magic = file.read(len(_XZ_MAGIC))
    if magic == _XZ_MAGIC:
        import lzma  # not in every Python

        return lzma.open(path, "rb")
    return gzip.open(path, "rb") if magic.startswith(_GZIP_MAGIC) else open(path, "rb")


def read_up_to(stream: BinaryIO, count: int, path: str | os.PathLike) -> bytearray:
    """Read `count` bytes or to the end, in pieces: a size claimed by a broken header is never allocated at once."""
    data = bytearray()
    try:
        while len(data) < count:
            piece = stream.read(min(_CHUNK, count - len(data)))
            if not piece:
                break
            data += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        kind = "gzip" if isinstance(stream, gzip.GzipFile) else "xz"
        raise DataError(path, f"a whole {kind} file", f"{error} after {len(data)} uncompressed bytes") from error
    except Exception as error:
        if type(error).__name__ != "LZMAError":  # its module may be missing
            raise
        raise DataError(path, "a whole xz file", f"{error} after {len(data)} uncompressed bytes") from error
    return data


def _is_plain(stream: BinaryIO) -> bool:
    return isinstance(stream, io.BufferedReader)


def _read_header(stream: BinaryIO, path: str | os.PathLike) -> tuple[np.dtype, tuple[int, ...], int]:
    """Element type, shape and number of bytes of the header."""
    magic = read_up_to(stream, 4, path)
    if len(magic) < 4 or magic[0] or magic[1] or magic[2] not in _TYPES or not 1 <= magic[3] <= _MAX_AXES:
        types = ", ".join(f"{code:02x}" for code in _TYPES)
        raise DataError(
            path,
            f"an IDX file: bytes 00 00, a type ({types}), a number of axes (01 to {_MAX_AXES:02x})",
            f"{bytes(magic).hex(' ')}" if magic else "an empty file",
        )
    sizes = read_up_to(stream, 4 * magic[3], path)
    if len(sizes) < 4 * magic[3]:
        raise DataError(path, f"{magic[3]} axis sizes of 4 bytes", f"{len(sizes)} bytes")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    return np.dtype(_TYPES[magic[2]]), shape, 4 + len(sizes)


def _check_size(path: str | os.PathLike, shape: tuple[int, ...], expected: int, got: int, more: str = "") -> None:
    if got != expected:
        raise DataError(path, f"{expected} bytes of data for the shape {list(shape)} in the header", f"{more}{got}")


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read an IDX file, plain or compressed by gzip or xz (told by its content).

    Parameters
    ----------
    path : path of the file

    Returns
    -------
    numpy.ndarray
        In the machine's byte order, writable; dtype uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    MissingDataError
        No such file.
    DataError
        Not an IDX file, truncated, or longer than its header says.

    Examples
    --------
    >>> from fastdl import data
    >>> images = data.read_idx("mnist/train-images-idx3-ubyte.gz")  # doctest: +SKIP
    """
    with open_unpacked(path) as stream:
        dtype, shape, header = _read_header(stream, path)
        expected = math.prod(shape) * dtype.itemsize
        if _is_plain(stream):
            _check_size(path, shape, expected, os.fstat(stream.fileno()).st_size - header)
        data = read_up_to(stream, expected + 1, path)
    _check_size(path, shape, expected, len(data), "at least " if len(data) > expected else "")
    array = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def write_idx(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write an array as an IDX file, compressed if the name ends in ``.gz`` or ``.xz``.

    The file appears under its name only when it is whole. The same array gives the same bytes (for one version of
    zlib).

    Parameters
    ----------
    path : path of the file
    array : numpy.ndarray
        uint8, int8, int16, int32, float32 or float64; 1 to 32 axes of fewer than 2**32 elements.

    Raises
    ------
    TypeError
        A dtype that IDX has no code for.
    ValueError
        Too few or too many axes.
    """
    array = as_array("array", array)
    code = _CODES.get(array.dtype.newbyteorder("="))
    if code is None:
        raise TypeError(f"array: expected one of {', '.join(map(str, _CODES))}; got {array.dtype}")
    if not 1 <= array.ndim <= _MAX_AXES or any(size >= 1 << 32 for size in array.shape):
        raise ValueError(f"array: expected 1 to {_MAX_AXES} axes, each below 2**32; got shape {list(array.shape)}")
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    body = array.astype(_TYPES[code], order="C", copy=False)
    folder = os.path.dirname(os.path.abspath(file_name("path", path)))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{os.fspath(path)}: expected a file in a folder that exists; got {folder!r}, which does not")
    part = os.fspath(path) + ".part"
    try:
        with open(part, "wb") as file:
            if os.fspath(path).endswith(".gz"):
                # No name and no time in the gzip header: the bytes then depend on the array alone.
                with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as packed:
                    packed.write(header)
                    packed.write(body.tobytes())
            elif os.fspath(path).endswith(".xz"):
                import lzma

                file.write(lzma.compress(header + body.tobytes(), lzma.FORMAT_XZ, filters=_XZ_FILTERS))
            else:
                file.write(header)
                file.write(body.tobytes())
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise


def open_memmap(path: str | os.PathLike) -> np.ndarray:
    """Open an array that may be larger than memory: only the rows that are used are read from the file.

    Parameters
    ----------
    path : path of the file
        ``.npy``, or uncompressed IDX (told by its content).

    Returns
    -------
    numpy.memmap
        Read-only, C-contiguous; IDX elements of more than one byte stay big-endian. (A plain array if it has no
        elements.)

    Raises
    ------
    MissingDataError
        No such file.
    DataError
        Neither format, compressed, truncated, of Python objects, or in Fortran order.

    Notes
    -----
    To write such a file piece by piece: ``numpy.lib.format.open_memmap(path, mode="w+", dtype=..., shape=...)``.
    """
    stream = open_unpacked(path)
    with stream:
        if not _is_plain(stream):
            kind = "a gzip" if isinstance(stream, gzip.GzipFile) else "an xz"
            raise DataError(path, "an uncompressed file", f"{kind} file (unpack it: it cannot be read in place)")
        npy = stream.read(6) == b"\x93NUMPY"
        stream.seek(0)
        if not npy:
            dtype, shape, header = _read_header(stream, path)
            expected = math.prod(shape) * dtype.itemsize
            _check_size(path, shape, expected, os.fstat(stream.fileno()).st_size - header)
    if npy:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except UNREADABLE as error:
            raise DataError(path, "a whole .npy file of numbers", str(error)) from error
        if not array.flags.c_contiguous:
            raise DataError(path, "an array in C order", "one in Fortran order")
        return array
    if not expected:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="r", offset=header, shape=shape)
