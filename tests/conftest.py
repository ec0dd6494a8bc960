"""Fixtures: every target that this machine can load."""

import importlib.util

import numpy as np
import pytest

TARGETS = ["base", "avx2", "wide", "avx512"]


def load_targets():
    from fastdl import backend

    able = backend.runnable()
    if "avx2" in backend._runtime.runnable_targets() and importlib.util.find_spec("fastdl._wide"):
        able = [*able, "wide"]  # the 64-byte-vector source, compiled for AVX2
    return {name: backend.load(name) for name in TARGETS if name in able}


LOADED = load_targets()


@pytest.fixture(params=list(LOADED))
def target(request):
    """A module with all kernels, compiled for one target."""
    return LOADED[request.param]


@pytest.fixture
def rng(request):
    """Random numbers that depend on the test's name alone."""
    import zlib

    return np.random.default_rng(zlib.crc32(request.node.name.encode()))
