"""Fixtures: every target that this machine can load."""

import importlib.util
import os
import platform
import sys

import numpy as np
import pytest

TARGETS = ["base", "avx2", "wide", "avx512", "emu"]
# Built for tests alone: the 64-byte-vector source, compiled for AVX2, and the CUDA kernels in the emulator.
EXTRA = {"wide": "avx2", "emu": "avx2" if platform.machine() in ("x86_64", "AMD64") else "base"}
if os.environ.get("FASTDL_EMU_LAZY"):  # some kernels may still be missing
    sys.setdlopenflags(os.RTLD_LAZY)


def load_targets():
    from fastdl import backend

    able = backend.runnable()
    for only_tests, needs in EXTRA.items():
        if needs in backend._runtime.runnable_targets() and importlib.util.find_spec(f"fastdl._{only_tests}"):
            try:
                importlib.import_module(f"fastdl._{only_tests}")
            except ImportError:  # until all kernels are there
                continue
            able = [*able, only_tests]
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
