"""One row for each kernel: from it come parity on every target, beta, out=, bad arguments, threads, NaN and gradients.

`make(rng, **sizes)` returns the kernel's inputs and attributes by name: float64 arrays (the tests cast them to float32), int64
and uint8 arrays as they are, plain scalars and strings. What is listed under `fixed` of a size row is an attribute.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import reference


@dataclass
class Case:
    """A kernel under test."""

    kernel: str
    make: Callable  # (rng, **sizes) -> dict of inputs and attributes
    sizes: list[dict]
    outputs: Callable | None = None  # inputs -> dict name -> shape, for outputs that must be given
    reference: Callable | None = None  # reference.<kernel> if not said
    gradient_of: Callable | None = None  # inputs -> (f, {gradient output: input}); f(**inputs) float64 array that dy belongs to
    rowwise: tuple[str, ...] = ()  # inputs whose first axis is the batch: a row's result may not depend on the others
    nan: str | None = "first"  # input that gets a NaN: it must show in an output; None: not asked
    exact: bool = False  # bits must agree with the float32 reference (integers, copies, random words)
    tags: dict = field(default_factory=dict)

    def define(self, **inputs):
        result = (self.reference or getattr(reference, self.kernel))(**inputs)
        return result if isinstance(result, dict) else {None: result}

    def __str__(self):
        return self.kernel


def normal(rng, *shape):
    return rng.standard_normal(shape)


ACTS = ["none", "relu", "leaky_relu", "sigmoid", "tanh", "gelu"]


def make_matmul(rng, B=None, M=1, N=1, K=1, trans_a=False, trans_b=False):
    batch = () if B is None else (B,)
    a = normal(rng, *batch, *((K, M) if trans_a else (M, K)))
    b = normal(rng, *batch, *((N, K) if trans_b else (K, N)))
    return {"a": a, "b": b, "trans_a": trans_a, "trans_b": trans_b}


def make_dense(rng, N, I, O, act="none", bias=True):  # noqa: E741
    return {"x": normal(rng, N, I), "w": normal(rng, I, O), "b": normal(rng, O) if bias else None, "act": act, "slope": 0.1}


def make_dense_backward(rng, N, I, O, act="none"):  # noqa: E741
    forward = make_dense(rng, N, I, O, act)
    out = reference.dense_forward(**forward)
    forward.pop("b")
    return {**forward, "saved": out["z" if act == "gelu" else "y"], "dy": normal(rng, N, O)}


def dense_gradient(inputs):
    def f(x, w, act, slope, **_):
        return reference.dense_forward(x, w, None, act, slope)["y"]

    return f, {"dx": "x", "dw": "w"}


CASES = [
    Case(
        "matmul",
        make_matmul,
        [dict(M=m, N=n, K=k, trans_a=ta, trans_b=tb) for ta in (0, 1) for tb in (0, 1)
         for m, n, k in [(1, 1, 1), (5, 17, 3), (6, 16, 256), (7, 31, 257), (37, 10, 512), (64, 65, 66), (0, 3, 2), (3, 0, 2),
                         (2, 3, 0), (1, 100, 300), (150, 70, 530)]]
        + [dict(B=3, M=5, N=7, K=9), dict(B=0, M=2, N=2, K=2), dict(B=2, M=33, N=48, K=65, trans_b=1)],
    ),
    Case(
        "dense_forward",
        make_dense,
        [dict(N=n, I=i, O=o, act=a) for n, i, o in [(1, 3, 2), (13, 29, 17), (0, 4, 3)] for a in ACTS]
        + [dict(N=64, I=784, O=10), dict(N=7, I=300, O=33, bias=False)],
        rowwise=("x",),
    ),
    Case(
        "dense_backward",
        make_dense_backward,
        [dict(N=n, I=i, O=o, act=a) for n, i, o in [(1, 3, 2), (13, 29, 17), (0, 4, 3)] for a in ACTS]
        + [dict(N=300, I=65, O=10)],
        gradient_of=dense_gradient,
    ),
    Case("axpby", lambda rng, n: {"a": 0.5, "x": normal(rng, n), "b": 0.0}, [dict(n=n) for n in (0, 1, 7, 8, 1000)],
         outputs=lambda i: {"y": i["x"].shape}),
]
BY_NAME = {case.kernel: case for case in CASES}
ROWS = [(case, sizes) for case in CASES for sizes in case.sizes]


def row_id(row):
    case, sizes = row
    return case.kernel + "-" + "-".join(f"{k}{v}" for k, v in sizes.items())
