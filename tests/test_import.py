"""``import fastdl`` stays light: what only some users need is loaded where it is used."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "IPython", "PIL", "argparse", "asyncio", "concurrent.futures", "cupy", "email", "fastdl.io", "fastdl.models", "fastdl.nn",
    "fastdl.ops", "fastdl.train", "fnmatch", "gzip", "hashlib", "http", "hypothesis", "importlib.metadata", "ipaddress",
    "json", "matplotlib", "mpi4py", "multiprocessing", "onnx", "pandas", "pathlib", "pytest", "safetensors", "scipy", "sklearn",
    "socket", "ssl", "subprocess", "tempfile", "tensorflow", "torch", "tqdm", "unittest", "urllib", "xml", "zipfile",
}  # fmt: skip


def loaded_by(statement):
    """Names of the modules that a new interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nloaded = sorted(sys.modules)\nimport json\nprint(json.dumps(loaded))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def added():
    """Modules that fastdl loads beyond NumPy's."""
    return loaded_by("import fastdl") - loaded_by("import numpy")


def test_import_loads_nothing_heavy(added):
    assert sorted(HEAVY & added) == []


def test_import_loads_what_it_says(added):  # so the test above can fail
    assert {"fastdl", "fastdl._runtime", "fastdl.kernels"} <= added


def test_only_one_target_is_loaded(added):
    targets = {name for name in added if name in ("fastdl._avx512", "fastdl._avx2", "fastdl._base")}
    # (the avx512 module is compared with the simplest one before it is used)
    assert len(targets) == 1 or "fastdl._avx512" in targets


def test_arithmetic_loads_what_it_needs():
    statement = "from fastdl.tensor import Tensor; import numpy; assert (1 - Tensor(numpy.ones(2, 'f')) * 2).sum().item() == -2"
    assert "fastdl.ops" in loaded_by(statement)


def test_version_is_known():
    import fastdl

    assert isinstance(fastdl.__version__, str)
    assert fastdl.__version__
