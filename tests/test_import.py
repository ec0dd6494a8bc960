"""``import fastdl`` stays light: what only some users need is loaded where it is used."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "IPython", "PIL", "argparse", "asyncio", "concurrent.futures", "cupy", "email", "gzip", "hashlib", "http",
    "hypothesis", "importlib.metadata", "matplotlib", "mpi4py", "multiprocessing", "onnx", "pandas", "pytest",
    "safetensors", "scipy", "sklearn", "socket", "ssl", "tensorflow", "torch", "tqdm", "unittest",
    "urllib.request", "xml", "zipfile",
}  # fmt: skip


def loaded_by(statement):
    """Names of the modules that a new interpreter holds after a statement."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
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


def test_version_is_known():
    import fastdl

    assert isinstance(fastdl.__version__, str)
    assert fastdl.__version__
