"""What a call from Python costs: small arrays, where the work is nothing."""

from functools import partial
from pathlib import Path

import numpy as np

from .. import kernels, ops
from ..bench import Case, Fact, Row
from ..tensor import Tensor


def _add(n):
    def setup(peers):
        a, b, out = np.ones((1, n), np.float32), np.ones(n, np.float32), np.empty((1, n), np.float32)
        cases = {"fastdl": Case(kernels.binary, (a, b, "add", out))}
        if "numpy" in peers:
            x, y, z = (np.ones(n, np.float32) for _ in range(3))
            cases["numpy"] = Case(np.add, (x, y, z))
        if "torch" in peers:
            import torch

            tx, ty, tz = (torch.ones(n) for _ in range(3))
            cases["torch"] = Case(lambda: torch.add(tx, ty, out=tz))
        return cases

    return setup


def _relu(peers):
    x = np.ones(4, np.float32)
    cases = {"fastdl": Case(kernels.activation_forward, (x, "relu", 0.0, x))}
    if "numpy" in peers:
        cases["numpy"] = Case(partial(np.maximum, x.copy(), np.float32(0), out=np.empty_like(x)))
    if "torch" in peers:
        import torch

        cases["torch"] = Case(torch.relu_, (torch.ones(4),))
    return cases


def _matmul(peers):
    a, b, c = (np.ones((4, 4), np.float32) for _ in range(3))
    cases = {"fastdl": Case(kernels.matmul, (a, b, False, False, 0.0, c))}
    if "numpy" in peers:
        cases["numpy"] = Case(np.matmul, (a, b, np.empty_like(c)))
    if "torch" in peers:
        import torch

        ta, tb, tc = (torch.ones(4, 4) for _ in range(3))
        cases["torch"] = Case(lambda: torch.mm(ta, tb, out=tc))
    return cases


def _linear(peers):
    x, w, b, y = (
        np.ones((4, 4), np.float32),
        np.ones((4, 4), np.float32),
        np.ones(4, np.float32),
        np.empty((4, 4), np.float32),
    )
    cases = {"fastdl": Case(kernels.dense_forward, (x, w, b, "none", 0.0, y))}
    if "numpy" in peers:
        cases["numpy"] = Case(lambda: x @ w + b)
    if "torch" in peers:
        import torch

        cases["torch"] = Case(torch.nn.functional.linear, (torch.ones(4, 4), torch.ones(4, 4), torch.ones(4)))
    return cases


def _linear_both(peers):
    x, dy = np.ones((4, 4), np.float32), np.ones((4, 4), np.float32)
    w, b = Tensor(np.ones((4, 4), np.float32), True), Tensor(np.ones(4, np.float32), True)

    def ours():
        w.grad = b.grad = None
        ops.dense(Tensor(x), w, b).backward(dy)

    cases = {"fastdl": Case(ours)}
    if "numpy" in peers:
        wn, bn = w.data.copy(), b.data.copy()

        def plain():
            y = x @ wn + bn
            return y, x.T @ dy, dy.sum(0)

        cases["numpy"] = Case(plain)
    if "torch" in peers:
        import torch

        tx, td = torch.ones(4, 4), torch.ones(4, 4)
        tw, tb = torch.ones(4, 4, requires_grad=True), torch.ones(4, requires_grad=True)

        def theirs():
            tw.grad = tb.grad = None
            torch.nn.functional.linear(tx, tw, tb).backward(td)

        cases["torch"] = Case(theirs)
    return cases


_IMPORT = """
import sys, time, resource
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
import numpy
before, start = resident(), time.perf_counter()
import fastdl
print((time.perf_counter() - start) * 1e3, resident() - before)
"""


def _import(place):
    """Median over fresh processes of what importing fastdl adds to NumPy."""

    def measure(threads):
        import compileall
        import statistics
        import subprocess
        import sys

        compileall.compile_dir(Path(__file__).parents[1], quiet=2)  # as installing does
        runs = [
            subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
            for _ in range(9)
        ]
        return statistics.median(float(r.stdout.split()[place]) for r in runs)

    return measure


def rows():
    """Rows of this area."""
    call = {"numpy": 1.0, "torch": 3.0}
    return [
        Row("dispatch", "add 4, into out", _add(4), goals=call),
        Row("dispatch", "relu 4, in place", _relu, goals=call),
        Row("dispatch", "matmul 4x4, into out", _matmul, goals=call),
        Row("dispatch", "linear 4x4", _linear, goals=call),
        Row("dispatch", "linear 4x4 forward+backward", _linear_both, goals={"torch": 20.0}),
        Row("dispatch", "add 1,310,720 (5 MB), into out", _add(1_310_720), bytes=12.0 * 1_310_720),
        Fact("dispatch", "import fastdl after numpy", _import(0), "ms", 20.0),
        Fact("dispatch", "memory that the import adds", _import(1), "MB", 6.0),
    ]
