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


def make_conv(rng, N, Y, X, C, R, S, F, stride=(1, 1), pad=(0, 0), dilation=(1, 1), groups=1, act="none", bias=True):
    """Inputs of conv2d_forward."""
    attributes = dict(zip(("stride_y", "stride_x", "pad_y", "pad_x", "dilation_y", "dilation_x"), stride + pad + dilation, strict=True))
    return {"x": normal(rng, N, Y, X, C), "w": normal(rng, R, S, C // groups, F), "b": normal(rng, F) if bias else None, **attributes,
            "groups": groups, "act": act, "slope": 0.1}


def conv_parts(rng, sizes):
    """The attributes of a convolution, its x, w and a dy."""
    inputs = make_conv(rng, **sizes)
    dy = normal(rng, *reference.conv2d_forward(**inputs)["y"].shape)
    for name in ("b", "act", "slope"):
        del inputs[name]
    return inputs.pop("x"), inputs.pop("w"), dy, inputs


def out_pads(Y, X, R, S, attributes):
    """How many rows and columns the image has more than the smallest with the same output."""
    rest = {}
    for axis, size, taps in (("y", Y, R), ("x", X, S)):
        stride, pad, dilation = (attributes[f"{k}_{axis}"] for k in ("stride", "pad", "dilation"))
        rest[f"out_pad_{axis}"] = (size + 2 * pad - dilation * (taps - 1) - 1) % stride
    return rest


def make_conv_backward_data(rng, **sizes):
    x, w, dy, attributes = conv_parts(rng, sizes)
    return {"dy": dy, "w": w, **attributes, **out_pads(*x.shape[1:3], *w.shape[:2], attributes)}


def conv_data_gradient(inputs):
    inputs["x"] = np.zeros(reference.conv2d_backward_data(**inputs).shape)  # linear in x: any x will do

    def f(x, w, out_pad_y, out_pad_x, **attributes):
        return reference.conv2d_forward(x, w, **attributes)["y"]

    return f, {"dx": "x"}


def make_conv_backward_weight(rng, **sizes):
    x, _, dy, attributes = conv_parts(rng, sizes)
    return {"x": x, "dy": dy, **attributes}


def conv_weight_gradient(inputs):
    shapes = reference.conv2d_backward_weight(**inputs)
    inputs["w"], inputs["b"] = np.zeros(shapes["dw"].shape), np.zeros(shapes["db"].shape)
    return lambda **given: reference.conv2d_forward(**given)["y"], {"dw": "w", "db": "b"}


def make_conv_transpose(rng, act="none", bias=True, **sizes):
    """The x of the transposed layer is the dy of the convolution."""
    x, w, dy, attributes = conv_parts(rng, sizes)
    return {"x": dy, "w": w, "b": normal(rng, x.shape[-1]) if bias else None, **attributes, "act": act, "slope": 0.1,
            **out_pads(*x.shape[1:3], *w.shape[:2], attributes)}


CONV_SIZES = [
    dict(N=1, Y=1, X=1, C=1, R=1, S=1, F=1),
    dict(N=2, Y=5, X=7, C=3, R=3, S=2, F=5),
    dict(N=0, Y=5, X=5, C=2, R=3, S=3, F=4),
    dict(N=3, Y=11, X=13, C=7, R=5, S=3, F=17, pad=(2, 1)),
    dict(N=2, Y=28, X=28, C=1, R=5, S=5, F=6, pad=(2, 2)),
    dict(N=2, Y=28, X=28, C=1, R=3, S=3, F=32),
    dict(N=3, Y=14, X=14, C=6, R=5, S=5, F=16),
    dict(N=9, Y=5, X=5, C=16, R=5, S=5, F=31),
    dict(N=2, Y=9, X=9, C=32, R=3, S=3, F=33, pad=(1, 1)),
    dict(N=2, Y=8, X=9, C=19, R=1, S=1, F=140),
    dict(N=2, Y=23, X=21, C=3, R=7, S=7, F=8, stride=(2, 2), pad=(3, 3)),
    dict(N=2, Y=13, X=17, C=5, R=4, S=4, F=16, stride=(3, 2), pad=(2, 1)),
    dict(N=2, Y=14, X=14, C=16, R=4, S=4, F=24, stride=(2, 2), pad=(1, 1)),
    dict(N=2, Y=7, X=9, C=18, R=1, S=2, F=20, stride=(2, 3)),
    dict(N=2, Y=13, X=11, C=4, R=3, S=3, F=9, pad=(2, 2), dilation=(2, 2)),
    dict(N=1, Y=17, X=19, C=20, R=3, S=3, F=5, stride=(2, 2), pad=(3, 2), dilation=(3, 2)),
    dict(N=2, Y=6, X=5, C=6, R=3, S=3, F=8, pad=(1, 1), groups=2),
    dict(N=2, Y=10, X=9, C=6, R=3, S=3, F=12, stride=(2, 1), pad=(1, 0), dilation=(1, 2), groups=3),
    dict(N=2, Y=9, X=8, C=21, R=3, S=3, F=21, pad=(1, 1), groups=21),
    dict(N=2, Y=9, X=9, C=17, R=5, S=3, F=17, stride=(2, 2), pad=(4, 3), groups=17),
    dict(N=2, Y=6, X=7, C=5, R=3, S=3, F=10, pad=(1, 2), groups=5),
    dict(N=1, Y=3, X=300, C=2, R=2, S=3, F=9, pad=(0, 4)),
    dict(N=1, Y=2, X=2, C=3, R=2, S=2, F=2, pad=(5, 4)),
]


def conv_sizes(keep=lambda size: True):
    return [size for size in CONV_SIZES if keep(size)]


def fills_image(size):
    """Whether the filter is the largest that fits, so that the sizes of x and dy tell the filter's."""
    def axis(i, length, taps):
        stride, pad, dilation = (size.get(k, d)[i] for k, d in (("stride", (1, 1)), ("pad", (0, 0)), ("dilation", (1, 1))))
        return (length + 2 * pad - dilation * (taps - 1) - 1) % stride < dilation

    return axis(0, size["Y"], size["R"]) and axis(1, size["X"], size["S"])


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
    Case(
        "conv2d_forward",
        make_conv,
        conv_sizes() + [dict(N=2, Y=6, X=7, C=3, R=3, S=3, F=10, pad=(1, 1), act=a) for a in ACTS]
        + [dict(N=2, Y=6, X=7, C=3, R=3, S=3, F=17, bias=False)],
        rowwise=("x",),
    ),
    Case("conv2d_backward_data", make_conv_backward_data, conv_sizes(), gradient_of=conv_data_gradient, rowwise=("dy",),
         nan="w"),  # the first element of dy may see nothing but padding
    Case("conv2d_backward_weight", make_conv_backward_weight, conv_sizes(fills_image), gradient_of=conv_weight_gradient),
    Case(
        "conv_transpose2d_forward",
        make_conv_transpose,
        conv_sizes() + [dict(N=2, Y=6, X=7, C=3, R=3, S=3, F=10, pad=(1, 1), act=a) for a in ACTS]
        + [dict(N=2, Y=6, X=7, C=3, R=4, S=4, F=17, stride=(2, 2), bias=False)],
        rowwise=("x",),
        nan="w",
    ),
    Case("axpby", lambda rng, n: {"a": 0.5, "x": normal(rng, n), "b": 0.0}, [dict(n=n) for n in (0, 1, 7, 8, 1000)],
         outputs=lambda i: {"y": i["x"].shape}),
]
BY_NAME = {case.kernel: case for case in CASES}
ROWS = [(case, sizes) for case in CASES for sizes in case.sizes]


def row_id(row):
    case, sizes = row
    return case.kernel + "-" + "-".join(f"{k}{v}" for k, v in sizes.items())
