"""Two threads: against one on a quiet machine, and beside another busy process."""

import signal
import subprocess
import sys

import numpy as np

from .. import kernels
from ..bench import Case, Row
from .conv import _Shape


def _array(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _against_one(make):
    """Contestants: a call with the run's threads, and the same with one."""

    def setup(peers):
        call, args = make()
        return {"fastdl": Case(call, args), "one thread": Case(call, args, threads=1)}

    return setup


def _product(size):
    return lambda: (
        kernels.matmul,
        (_array(1, size, size), _array(2, size, size), False, False, 0.0, _array(3, size, size)),
    )


def _convolution():
    s = _Shape(64, 32, 26, 64, 3)
    x, w, dy = s.arrays()
    return kernels.conv2d_forward, (x, w, None, *s.at, "none", 0.0, None, np.empty_like(dy))


class _Busy:
    """A process that counts for ever, held while it is not wanted."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        self.hold()

    def go(self):
        self.process.send_signal(signal.SIGCONT)

    def hold(self):
        self.process.send_signal(signal.SIGSTOP)

    def __del__(self):
        self.process.kill()
        self.process.wait()


def _beside_busy(peers):
    x, w, b = _array(1, 128, 784), _array(2, 784, 512), _array(3, 512)
    args, busy = (x, w, b, "none", 0.0, np.empty((128, 512), np.float32)), _Busy()
    call = kernels.dense_forward
    cases = {
        "fastdl": Case(call, args, before=busy.go, after=busy.hold),
        "one idle thread": Case(call, args, threads=1),
    }
    if "numpy" in peers:
        cases["numpy"] = Case(np.matmul, (x, w, np.empty((128, 512), np.float32)), before=busy.go, after=busy.hold)
    if "torch" in peers:
        import torch

        tx, tw, ty = torch.from_numpy(x), torch.from_numpy(w), torch.empty(128, 512)
        cases["torch"] = Case(lambda: torch.mm(tx, tw, out=ty), before=busy.go, after=busy.hold)
    return cases


def _in_turn(size):
    """Products of ours between NumPy's, whose workers spin on when it is our turn; against NumPy's alone."""

    def setup(peers):
        call, args = _product(size)()
        x, w, y = args[0], args[1], np.empty_like(args[0])

        def pair(other, *arguments):
            np.matmul(x, w, y)
            other(*arguments)

        cases = {"fastdl": Case(pair, (call, *args))}
        if "numpy" in peers:
            cases["numpy"] = Case(pair, (np.matmul, x, w, np.empty_like(y)))
        return cases

    return setup


def rows():
    """Rows of this area."""
    goal, two = {"one thread": 1.8}, (2,)
    result = [
        Row("threads", f"{n}x{n}x{n}", _against_one(_product(n)), 2.0 * n**3, 0.0, goal, two, two, pooled=True)
        for n in (256, 512, 1024)
    ]
    s = _Shape(64, 32, 26, 64, 3)
    result.append(
        Row("threads", "conv mnist2 fwd", _against_one(_convolution), s.flops, 0.0, goal, two, two, pooled=True)
    )
    result.append(
        Row("threads", "128x784->512 beside a busy process", _beside_busy, 2.0 * 128 * 784 * 512, 0.0,
            {"one idle thread": 0.9}, two, two, pooled=True, single=True, tail=3.0)
    )  # fmt: skip
    result += [Row("threads", f"{n}x{n}x{n} in turn with NumPy's", _in_turn(n), 4.0 * n**3, 0.0, {"numpy": 0.85},
                   two, two, pooled=True) for n in (512, 1024)]  # fmt: skip
    return result
