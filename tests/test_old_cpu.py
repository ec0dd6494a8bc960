"""The base target on an emulated CPU without AVX: an instruction that leaked in ends the process there."""

import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from fastdl import _runtime

QEMU = shutil.which("qemu-x86_64")
HERE = pathlib.Path(__file__).parent
BUILT = [t for t in ("avx2", "avx512") if t in _runtime.runnable_targets() and importlib.util.find_spec(f"fastdl._{t}")]
BETTER = next(iter(BUILT), None)
pytestmark = [
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86-64 only"),
    pytest.mark.skipif(QEMU is None, reason="no qemu-x86_64 (Debian package qemu-user): the old-CPU run was not made"),
]


def on_old_cpu(*arguments, timeout=600, **environment):
    # NumPy's product library may be pinned by the environment to kernels that the old CPU lacks.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS_", "NPY_", "FASTDL_", "LD_"))}
    environment = {**clean, "OPENBLAS_NUM_THREADS": "1", **environment}
    return subprocess.run([QEMU, "-cpu", "Nehalem", sys.executable, *arguments], capture_output=True, text=True,
                          timeout=timeout, env=environment, cwd=HERE.parent)


def test_base_is_chosen_and_computes():
    code = (
        "import numpy as np, fastdl\n"
        "assert fastdl.backend.target == 'base', fastdl.backend.target\n"
        "assert fastdl.backend.runnable() == ['base']\n"
        "x = np.random.default_rng(0).standard_normal((70, 300)).astype(np.float32)\n"
        "w = np.random.default_rng(1).standard_normal((300, 33)).astype(np.float32)\n"
        "y = fastdl.kernels.dense_forward(x, w, None, 'tanh')\n"
        "assert np.abs(y - np.tanh(x.astype(float) @ w.astype(float))).max() < 1e-4\n"
        "print('done')\n"
    )
    done = on_old_cpu("-P", "-c", code)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_better_targets_are_refused():
    done = on_old_cpu("-P", "-c", "import fastdl", FASTDL_TARGET="avx2")
    assert done.returncode == 1
    assert "FASTDL_TARGET: expected one of base on this machine; got 'avx2'" in done.stderr


@pytest.mark.skipif(BETTER is None, reason="needs a target better than base")
def test_the_emulated_cpu_has_no_avx():
    """Without this the run below could not fail."""
    code = (
        f"import numpy as np\nfrom fastdl import _{BETTER} as k\nx = np.ones((64, 64), np.float32)\n"
        "k.dense_forward(x, x, None)\n"
    )
    assert on_old_cpu("-P", "-c", code).returncode in (-signal.SIGILL, 128 + signal.SIGILL)


@pytest.mark.slow
def test_kernels_against_their_definitions():
    """The whole table of kernels, as the old CPU runs it."""
    done = on_old_cpu("-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "default",
                      "tests/test_kernels.py", "-k", "test_parity", PYTHONPATH=str(HERE))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
