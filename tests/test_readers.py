"""Readers: IDX, memory maps, npz, CSV and folders of images; what is malformed is named."""

import gzip
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_files import DATA, fails, needs_data, no_data_directory  # noqa: F401
from fastdl import data
from fastdl.data import DataError, MissingDataError

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


def test_csv_numbers_stay_numbers_where_some_are_missing(tmp_path):
    """A word among them would make codes of all, in alphabetical order."""
    table = data.read_csv(csv_file(tmp_path, "a,b,c,d\n10,NA,NA,-\n9,none,x,-\nN/A,7,y,-\nnan,-8,x,-\n"))
    nan = np.nan
    np.testing.assert_array_equal(table.x, [[10, nan, 0, 0], [9, nan, 1, 0], [nan, 7, 2, 0], [nan, -8, 1, 0]])
    assert table.categories == {"c": ["NA", "x", "y"], "d": ["-"]}  # words among words, or alone, are words
    with fails(DataError, "t.csv", "a target in every row, column 'a'", "a missing value in line 3"):
        data.read_csv(csv_file(tmp_path, "a,b\n1,2\nNA,3\n"), "a")
    for text in ('a;b\n1,5;2\n12,25;3\n7;4\n', 'a,b\n"1,500",2\n"2,500",3\n'):
        with fails(DataError, "t.csv", "numbers with a decimal point", r"'1,5(00)?|12,25' in column 'a'"):
            data.read_csv(csv_file(tmp_path, text))
    assert data.read_csv(csv_file(tmp_path, 'a,b\n"1,5",2\nx,3\n')).categories == {"a": ["1,5", "x"]}


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
        with fails(DataError, bad, "a whole image of 8 or 16 bits", ".*"):
            data.read_image_folder(tmp_path / "more")


def one_picture(folder, name, image, **options):
    """What the reader makes of one file."""
    (folder / "a").mkdir(exist_ok=True)
    for old in (folder / "a").iterdir():
        old.unlink()
    image.save(folder / "a" / name, **options)
    return data.read_image_folder(folder)[0][0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_stand_as_their_exif_says(tmp_path, orientation):
    pil = pytest.importorskip("PIL.Image")
    lies = np.zeros((4, 6, 3), np.uint8)
    lies[0, 0], lies[0, 5] = (255, 0, 0), (0, 255, 0)
    exif = pil.Exif()
    exif[0x0112] = orientation
    # the standard's table: where row 0 and column 0 of the file belong
    wanted = {
        1: lies, 2: lies[:, ::-1], 3: lies[::-1, ::-1], 4: lies[::-1], 5: lies.swapaxes(0, 1),
        6: lies[::-1].swapaxes(0, 1), 7: lies[::-1, ::-1].swapaxes(0, 1), 8: lies[:, ::-1].swapaxes(0, 1),
    }  # fmt: skip
    found = one_picture(tmp_path, "a.png", pil.fromarray(lies), exif=exif)
    np.testing.assert_array_equal(found, wanted[orientation])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_is_no_reason_to_refuse_a_photo(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    grey = pil.fromarray(np.full((8, 8), 90, np.uint8))
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"):
        np.testing.assert_allclose(one_picture(tmp_path, "a.jpg", grey, exif=exif), 90, atol=2)


def test_sixteen_bits_become_eight(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    eight = np.arange(256, dtype=np.uint16).reshape(8, 32)
    deep = eight * 257
    for name, image in (
        ("a.png", pil.fromarray(deep)),
        ("a.tif", pil.fromarray(deep)),
        ("b.tif", pil.fromarray(deep.astype(np.int32))),
        ("a.png", pil.fromarray(np.clip(deep.astype(np.int64) + 128, 0, 65535).astype(np.uint16))),  # to the nearest
    ):
        np.testing.assert_array_equal(one_picture(tmp_path, name, image), np.repeat(eight[:, :, None], 3, axis=2))
    for wrong in (deep.astype(np.int32) * 2, deep.astype(np.float32)):
        with fails(DataError, tmp_path / "a" / "a.tif", "a whole image of 8 or 16 bits", "from 0.* beyond 16 bits"):
            one_picture(tmp_path, "a.tif", pil.fromarray(wrong))


def test_what_is_transparent_is_white(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    rgba = np.zeros((3, 4, 4), np.uint8)
    rgba[1] = (10, 20, 30, 255)
    rgba[2, :, 3] = 51  # a fifth of black
    wanted = np.repeat(np.array([[255] * 3, [10, 20, 30], [204] * 3], np.uint8)[:, None], 4, axis=1)
    np.testing.assert_array_equal(one_picture(tmp_path, "a.png", pil.fromarray(rgba)), wanted)
    grey = pil.fromarray(np.repeat(np.array([[0, 0], [9, 255]], np.uint8)[:, None], 4, axis=1), "LA")
    np.testing.assert_array_equal(one_picture(tmp_path, "a.png", grey)[:, 0, 0], [255, 9])
    palette = pil.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 90])
    found = one_picture(tmp_path, "a.png", palette, transparency=bytes([0, 255, 255]))
    np.testing.assert_array_equal(found, [[[255] * 3, [200, 0, 0]], [[200, 0, 0], [0, 0, 90]]])
    assert data.read_image_folder(tmp_path, mode="L")[0][0, 0, 0, 0] == 255
    deep = pil.fromarray(np.array([[7, 65535], [257, 0]], np.uint16))
    np.testing.assert_array_equal(one_picture(tmp_path, "a.png", deep, transparency=7)[..., 0], [[255, 255], [1, 0]])


def test_every_image_that_pillow_opens_is_read(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    features = pytest.importorskip("PIL.features")
    red = pil.fromarray(np.full((8, 8, 3), (200, 0, 0), np.uint8))
    blue = pil.fromarray(np.full((8, 8, 3), (0, 0, 200), np.uint8))
    names = ["a.bmp", "a.GIF", "a.tiff", "a.ppm", *(["a.webp"] if features.check("webp") else [])]
    for name in names:
        more = {"save_all": True, "append_images": [blue]} if name == "a.GIF" else {}
        np.testing.assert_allclose(one_picture(tmp_path, name, red, **more)[4, 4], [200, 0, 0], atol=6)
    # PostScript would be run; the others need programs that are not there
    for name in ("notes.txt", "Thumbs.db", "a.eps", "a.h5", "a.mpg"):
        (tmp_path / "a" / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    assert len(data.read_image_folder(tmp_path)[0]) == 1


def test_a_set_of_other_images_is_a_set(tmp_path):
    image_set(tmp_path / "mine", suffix=".bmp")
    assert "mine" in data.available(tmp_path)


def test_image_folder_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match='optional extra "images"'):
        data.read_image_folder(tmp_path)


@pytest.mark.parametrize(
    "shape", ["(1,) ", "(99999999999999,), }"], ids=["without an end", "larger than any memory"]
)
def test_npy_headers_that_lie(tmp_path, shape):
    import zipfile

    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}".encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match="a.npy: expected a whole .npy file of numbers; got"):
        data.open_memmap(tmp_path / "a.npy")
    with pytest.raises(DataError, match="a.npz: expected plain arrays, .*; got x: "):
        data.read_npz(tmp_path / "a.npz")


def test_arguments_of_readers_are_named(tmp_path):
    path = csv_file(tmp_path, "a,b\n1,2\n")
    for wrong in ("", "ab", 3):
        with pytest.raises(ValueError, match="delimiter: expected one character; got"):
            data.read_csv(path, delimiter=wrong)
    for wrong in ('"', "\n", "\r"):
        with pytest.raises(ValueError, match="delimiter: expected a character that may part cells; got"):
            data.read_csv(path, delimiter=wrong)
    for wrong in (0, 1, "a"):
        with pytest.raises(TypeError, match=f"header: expected True, False or None; got {wrong!r}"):
            data.read_csv(path, header=wrong)
    for wrong in ("NA", None, 3, [-1]):
        with pytest.raises(TypeError, match="missing: expected a tuple of strings; got"):
            data.read_csv(path, missing=wrong)
    assert data.read_csv(path, np.int64(1)).target == "b"
    with pytest.raises(TypeError, match="directory: expected a path; got NoneType"):
        data.read_cifar10(None)
    with pytest.raises(TypeError, match="path: expected a path; got NoneType"):
        data.write_idx(None, np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="array: expected an array, or lists of equal lengths; got lists of unequal ones"):
        data.write_idx(tmp_path / "a", [[1], [1, 2]])
    with pytest.raises(FileNotFoundError, match="a: expected a file in a folder that exists; got .*none"):
        data.write_idx(tmp_path / "none" / "a", np.zeros(3, np.uint8))
    pytest.importorskip("PIL")
    for wrong in ("ab", (3, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="size: expected an integer of at least 1, or two; got"):
            data.read_image_folder(tmp_path, size=wrong)
    for wrong in ("cat", 3):
        with pytest.raises(TypeError, match="names: expected names of classes, one after another; got"):
            data.read_image_folder(tmp_path, names=wrong)


def test_csv_words_for_missing_may_be_a_list(tmp_path):
    table = data.read_csv(csv_file(tmp_path, "a,b\n1,NA\n2,N\n3,NA\n4,A\n"), missing=["NA"])
    assert table.categories == {"b": ["A", "N"]}
    np.testing.assert_array_equal(table.x[:, 1], [np.nan, 1, np.nan, 0])


@pytest.mark.parametrize("word", ["nan", "NaN", "-nan"])
def test_csv_a_target_that_is_nan_is_missing(tmp_path, word):
    path = csv_file(tmp_path, f"a,b\n1,0\n2,{word}\n3,1\n")
    with fails(DataError, path, "a target in every row, column 'b'", "a missing value in line 3"):
        data.read_csv(path, "b")
    np.testing.assert_array_equal(data.read_csv(path, "a").x[:, 0], [0, np.nan, 1])
