"""Fixtures: every target that this machine can load."""

import importlib.util
import os
import platform
import signal
import threading
import zlib

import numpy as np
import pytest

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else JAX takes three quarters of a GPU's memory

# A shell lets what it starts in the background ignore Ctrl-C, which tests send themselves.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

TARGETS = ["base", "avx2", "wide", "avx512", "emu"]
# Built for tests alone: the 64-byte-vector source, compiled for AVX2, and the CUDA kernels in the emulator.
EXTRA = {"wide": "avx2", "emu": "avx2" if platform.machine() in ("x86_64", "AMD64") else "base"}


def load_targets():
    from fastdl import backend

    able = backend.runnable()
    for only_tests, needs in EXTRA.items():
        if needs in backend._runtime.runnable_targets() and importlib.util.find_spec(f"fastdl._{only_tests}"):
            able = [*able, only_tests]
    loaded = {name: backend.load(name) for name in TARGETS if name in able}
    if importlib.util.find_spec("fastdl._cuda") and importlib.util.find_spec("cupy"):
        import cupy

        if cupy.cuda.is_available():
            from on_device import DeviceKernels

            loaded["cuda"] = DeviceKernels(backend.cuda().kernels, cupy)
    return loaded


LOADED = load_targets()


@pytest.fixture(params=list(LOADED))
def target(request):
    """A module with all kernels, compiled for one target."""
    return LOADED[request.param]


@pytest.fixture
def rng(request):
    """Random numbers that depend on the test's name alone."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


# Large tables without fixtures of their own: any process may take a piece.
TABLES = {"test_errors", "test_grads", "test_kernels", "test_math", "test_properties"}


def is_table(nodeid):
    return os.path.splitext(os.path.basename(nodeid.split("::")[0]))[0] in TABLES


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Several processes: a file goes to one of them, for the sake of its fixtures; tables go in pieces."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return f"{nodeid.split('::')[0]} {zlib.crc32(nodeid.encode()) % 64 if is_table(nodeid) else ''}"

    return ByFile(config, log)


def pytest_collection_modifyitems(config, items):
    """Pieces come last, where they even out what the files left."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: is_table(item.nodeid))
