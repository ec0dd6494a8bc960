"""What the tests of data sets share: where the real ones are, small ones of our own, and errors that name a path."""

import os
import re

import numpy as np
import pytest

from fastdl import data
from fastdl.data import sets

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
