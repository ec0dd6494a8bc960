"""One row for each kernel: from it come parity on every target, beta, out=, bad arguments, threads, NaN and gradients.

A family of its own has its rows in `cases_<family>.py`, and its definitions in `reference_<family>.py`.

`make(rng, **sizes)` returns the kernel's inputs and attributes by name: float64 arrays (the tests cast them to float32), int64
and uint8 arrays as they are, plain scalars and strings. What the kernel has no parameter for is for the reference and the
gradient alone (the x that a backward kernel's y came from).
"""

from importlib import import_module
from pathlib import Path

import numpy as np

import reference
import reference_augment
from case import Case, normal

ACTS = ["none", "relu", "leaky_relu", "sigmoid", "tanh", "gelu"]


def make_matmul(rng, B=None, M=1, N=1, K=1, trans_a=False, trans_b=False):
    batch = () if B is None else (B,)
    a = normal(rng, *batch, *((K, M) if trans_a else (M, K)))
    b = normal(rng, *batch, *((N, K) if trans_b else (K, N)))
    return {"a": a, "b": b, "trans_a": trans_a, "trans_b": trans_b}


def make_dense(rng, N, I, O, act="none", bias=True):
    return {
        "x": normal(rng, N, I),
        "w": normal(rng, I, O),
        "b": normal(rng, O) if bias else None,
        "act": act,
        "slope": 0.1,
    }


def make_dense_backward(rng, N, I, O, act="none"):
    forward = make_dense(rng, N, I, O, act)
    out = reference.dense_forward(**forward)
    return {**forward, "saved": out["z" if act == "gelu" else "y"], "dy": normal(rng, N, O)}


def dense_gradient(inputs):
    def f(x, w, b, act, slope, **_):
        return reference.dense_forward(x, w, b, act, slope)["y"]

    return f, {"dx": "x", "dw": "w"}


def make_activation_backward(rng, n, act):
    z = normal(rng, n)
    return {
        "saved": z if act == "gelu" else reference.act(z, act, 0.1),
        "dy": normal(rng, n),
        "act": act,
        "slope": 0.1,
        "z": z,
    }


def make_unary(rng, n, op):
    x = normal(rng, n) * 3
    return {"x": np.abs(x) + 0.1 if op in ("sqrt", "log", "reciprocal") else x, "op": op}


def make_reduce_backward(rng, A, B, C, op):
    x = normal(rng, A, B, C).astype(np.float32).astype(np.float64)
    return {"x": x, "y": reference.reduce_forward(x, op), "dy": normal(rng, A, C), "op": op}


def labels(rng, n, C):
    some = rng.integers(-1, C, n)
    some[:1] = 0  # where the NaN goes: an ignored row would rightly hide it
    return some


def make_cross_entropy(rng, n, C, weighted=False, smoothing=0.0, reduction="mean"):
    x = normal(rng, n, C) * 3
    extra = {"weights": rng.random(n)} if weighted else {}
    return {"x": x, "labels": labels(rng, n, C), **extra, "smoothing": smoothing, "reduction": reduction}


def make_cross_entropy_backward(rng, by_row=False, **sizes):
    forward = make_cross_entropy(rng, **sizes)
    x = forward.pop("x")
    n = len(x)
    return {
        "p": reference.softmax_forward(x),
        "dloss": normal(rng, n if by_row else 1),
        **forward,
        "by_row": by_row,
        "x": x,
    }


def cross_entropy_gradient(_):
    def f(x, labels, dloss, weights=None, smoothing=0.0, reduction="mean", by_row=False, **_):
        out = reference.softmax_cross_entropy_forward(x, labels, weights, smoothing, reduction)
        return dloss * out["rows" if by_row else "loss"]

    return f, {"dx": "x"}


def make_conv(rng, N, Y, X, C, R, S, F, stride=(1, 1), pad=(0, 0), dilation=(1, 1), groups=1, act="none", bias=True):
    """Inputs of conv2d_forward."""
    names = ("stride_y", "stride_x", "pad_y", "pad_x", "dilation_y", "dilation_x")
    attributes = dict(zip(names, stride + pad + dilation, strict=True))
    return {
        "x": normal(rng, N, Y, X, C),
        "w": normal(rng, R, S, C // groups, F),
        "b": normal(rng, F) if bias else None,
        **attributes,
        "groups": groups,
        "act": act,
        "slope": 0.1,
    }


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


LOSSES = ["binary_cross_entropy", "squared_error", "absolute_error", "huber", "hinge"]


def make_loss(rng, n, kind, weighted=False, reduction="mean"):
    t = {"hinge": np.sign(normal(rng, n)), "binary_cross_entropy": rng.random(n)}.get(kind, normal(rng, n))
    extra = {"weights": rng.random(n)} if weighted else {}
    return {"x": normal(rng, n) * 2, "t": t, **extra, "kind": kind, "delta": 0.75, "reduction": reduction}


def make_loss_backward(rng, by_element=False, **sizes):
    forward = make_loss(rng, **sizes)
    return {**forward, "dloss": normal(rng, sizes["n"] if by_element else 1), "by_element": by_element}


def loss_gradient(_):
    def f(x, t, dloss, kind, weights=None, delta=1.0, reduction="mean", by_element=False):
        out = reference.loss_forward(x, t, kind, weights, delta, reduction)
        return dloss * out["elements" if by_element else "loss"]

    return f, {"dx": "x"}


def make_norm(rng, n, C, of=("gamma", "shift"), running=False):
    inputs = {"x": normal(rng, n, C) + 3, **{name: normal(rng, C) for name in of}, "eps": 1e-3}
    if running:
        inputs |= {"running_mean": normal(rng, C), "running_var": 1 + normal(rng, C) ** 2, "momentum": 0.3}
    return inputs


def make_norm_backward(kind):
    def make(rng, n, C, of=("gamma", "shift")):
        forward = make_norm(rng, n, C, of)
        out = getattr(reference, kind + "_forward")(**forward)
        forward.setdefault("gamma", None)
        return {**forward, "mean": out["mean"], "rstd": out["rstd"], "dy": normal(rng, n, C)}

    return make


def norm_gradient(kind):
    def gradient(inputs):
        def f(x, gamma=None, shift=None, eps=1e-5, **_):
            return getattr(reference, kind + "_forward")(x, gamma, shift, eps)["y"]

        return f, {"dx": "x"} | ({} if inputs.get("gamma") is None else {"dgamma": "gamma", "dshift": "shift"})

    return gradient


def make_inference(rng, n, C):
    return {"x": normal(rng, n, C), "gamma": normal(rng, C), "shift": normal(rng, C), "mean": normal(rng, C),
            "var": rng.random(C), "eps": 1e-3}  # fmt: skip


def make_pool(rng, N, Y, X, C, ties=False, **window):
    x = normal(rng, N, Y, X, C)
    return {"x": np.round(x) if ties else x, **window}


def make_max_pool_backward(rng, **sizes):
    forward = make_pool(rng, **sizes)
    out = reference.max_pool2d_forward(**forward)
    return {"where": out["where"], "dy": normal(rng, *out["y"].shape), **forward}


def make_avg_pool_backward(rng, **sizes):
    forward = make_pool(rng, **sizes)
    return {"dy": normal(rng, *reference.avg_pool2d_forward(**forward).shape), **forward}


def window3(stride, pad):
    return dict(size_y=3, size_x=2, stride_y=stride, stride_x=stride, pad_y=pad, pad_x=pad)


POOLS = [dict(N=1, Y=2, X=2, C=1), dict(N=2, Y=4, X=6, C=8), dict(N=3, Y=7, X=5, C=19), dict(N=0, Y=4, X=4, C=3),
         dict(N=2, Y=7, X=5, C=3, **window3(1, 0)), dict(N=2, Y=7, X=6, C=33, **window3(2, 1)),
         dict(N=2, Y=9, X=6, C=16, **window3(3, 0))]  # fmt: skip
# Pixels that share a vector: as many as fit, and rows that end anywhere in one.
FEW_CHANNELS = [dict(N=2, Y=4, X=28, C=c) for c in (1, 2, 3, 4, 5, 6, 7, 8)] + [
    dict(N=3, Y=2, X=x, C=c) for x, c in ((2, 1), (6, 1), (34, 1), (6, 2), (10, 3), (2, 6), (6, 6), (10, 8))]  # fmt: skip
ROWS_COLUMNS = [(1, 1), (5, 3), (64, 10), (13, 8), (9, 31), (7, 32), (7, 65), (3, 1000), (0, 4)]
LENGTHS = [0, 1, 7, 8, 9, 1000]
STREAMS = [dict(n=n, offset=o) for n in (0, 1, 5, 31, 32, 33, 1000) for o in (0, 1, 4, 6, 2**34 - 8)] + [
    dict(n=100003, offset=3), dict(n=65536, offset=0)]  # fmt: skip
SEED = 0x123456789ABCDEF0


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
    return {
        "x": dy,
        "w": w,
        "b": normal(rng, x.shape[-1]) if bias else None,
        **attributes,
        "act": act,
        "slope": 0.1,
        **out_pads(*x.shape[1:3], *w.shape[:2], attributes),
    }


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
    # one filter a channel, in whole vectors: by sixes, fours and single pixels, filters that hang over every edge
    dict(N=2, Y=9, X=15, C=16, R=3, S=3, F=16, pad=(1, 1), groups=16),
    dict(N=1, Y=6, X=14, C=32, R=5, S=5, F=32, pad=(2, 3), groups=32),
    dict(N=2, Y=9, X=12, C=16, R=3, S=3, F=16, stride=(2, 2), pad=(1, 1), groups=16),
    dict(N=1, Y=5, X=13, C=16, R=2, S=4, F=16, pad=(1, 5), dilation=(3, 2), groups=16),
    dict(N=1, Y=2, X=2, C=16, R=5, S=5, F=16, pad=(4, 3), groups=16),
    dict(N=1, Y=4, X=11, C=16, R=3, S=3, F=16, pad=(1, 1), groups=16),
    dict(N=1, Y=4, X=11, C=16, R=1, S=1, F=16, groups=16),
    dict(N=1, Y=3, X=300, C=2, R=2, S=3, F=9, pad=(0, 4)),
    dict(N=1, Y=2, X=2, C=3, R=2, S=2, F=2, pad=(5, 4)),
    dict(N=2, Y=9, X=8, C=70, R=3, S=3, F=40, pad=(2, 2), dilation=(2, 2)),
    dict(N=7, Y=7, X=7, C=64, R=3, S=3, F=24, stride=(2, 2), pad=(1, 1)),
    dict(N=2, Y=12, X=14, C=2, R=5, S=4, F=48, stride=(2, 3), pad=(2, 1)),
    dict(N=1, Y=10, X=9, C=18, R=3, S=3, F=70, pad=(2, 1), dilation=(2, 1)),
    dict(N=2, Y=6, X=5, C=67, R=2, S=2, F=26, pad=(1, 0)),
    # many rows of filters for the data gradient to few channels, whose product has few columns itself
    dict(N=2, Y=17, X=9, C=7, R=17, S=1, F=16, stride=(2, 1)),
    dict(N=2, Y=14, X=8, C=2, R=9, S=2, F=16),
    # few filters, and a last block of rows shorter than the one before, whose gradient still lies behind it
    dict(N=2, Y=27, X=29, C=1, R=5, S=5, F=5),
    # a dilation far beyond what planes of neighbouring pixels are for
    dict(N=1, Y=700, X=12, C=1, R=3, S=3, F=4, dilation=(345, 4)),
    # 3x3 with whole multiples of 16 channels, as Winograd's tiles: off their edges, more filters than a strip, several blocks
    dict(N=3, Y=9, X=11, C=32, R=3, S=3, F=48, pad=(1, 1)),
    dict(N=2, Y=10, X=7, C=48, R=3, S=3, F=16, pad=(0, 2)),
    dict(N=1, Y=6, X=6, C=16, R=3, S=3, F=144, pad=(1, 1)),
    dict(N=9, Y=8, X=8, C=32, R=3, S=3, F=32, pad=(1, 1)),
    dict(N=0, Y=8, X=8, C=32, R=3, S=3, F=32, pad=(1, 1)),
    # few filters, lanes along pixels: fewer of them than lanes, several blocks, a row longer than a block, several channels,
    # strides and dilations that share a factor or not, groups
    dict(N=2, Y=9, X=6, C=1, R=3, S=3, F=7, pad=(1, 0)),
    dict(N=2, Y=31, X=40, C=1, R=3, S=5, F=3, pad=(0, 2)),
    dict(N=1, Y=3, X=600, C=1, R=2, S=2, F=8),
    dict(N=3, Y=10, X=11, C=28, R=3, S=3, F=1, pad=(1, 1)),
    dict(N=2, Y=14, X=14, C=2, R=6, S=6, F=5, stride=(2, 2), pad=(2, 3)),
    dict(N=1, Y=17, X=18, C=3, R=5, S=4, F=2, stride=(1, 2), pad=(3, 1), dilation=(2, 1)),
    dict(N=2, Y=20, X=21, C=1, R=6, S=6, F=4, stride=(2, 3), pad=(1, 2), dilation=(1, 3)),
    dict(N=2, Y=6, X=9, C=3, R=3, S=3, F=6, pad=(1, 1), groups=3),
    dict(N=2, Y=9, X=10, C=8, R=3, S=3, F=3, pad=(2, 2), dilation=(2, 2)),
    dict(N=2, Y=8, X=15, C=7, R=7, S=7, F=1),  # the same filter, too long for them: the last vectors hang over several pixels
]


def conv_sizes(keep=lambda size: True):
    return [size for size in CONV_SIZES if keep(size)]


def fills_image(size):
    """Whether the filter is the largest that fits, so that the sizes of x and dy tell the filter's."""

    def axis(i, length, taps):
        stride, pad, dilation = (
            size.get(k, d)[i] for k, d in (("stride", (1, 1)), ("pad", (0, 0)), ("dilation", (1, 1)))
        )
        return (length + 2 * pad - dilation * (taps - 1) - 1) % stride < dilation

    return axis(0, size["Y"], size["R"]) and axis(1, size["X"], size["S"])


def make_warp(rng, N, Y, X, C, field=False, bytes_=False):
    image = rng.integers(0, 256, (N, Y, X, C)).astype(np.uint8) if bytes_ else normal(rng, N, Y, X, C)
    matrix = np.tile([0.9, 0.2, -0.5, -0.1, 1.1, 0.3], (N, 1)) + 0.01 * normal(rng, N, 6)
    # in float32 from the start: a position on a pixel's border must not fall on its other side
    inputs = {"x": image, "matrix": matrix.astype(np.float32).astype(np.float64), "fill": 0.25}
    if field:
        inputs["field"] = normal(rng, N, Y, X, 2)
    if bytes_:
        inputs["scale"] = 1 / 255
    return inputs


def define_warp(x, matrix, field=None, fill=0.0, scale=None):
    if scale is None:
        return reference_augment.warp(x, matrix, field, fill=fill, dtype=matrix.dtype.type)
    return reference_augment.warp_u8(x, matrix, field, fill=fill, scale=scale, dtype=matrix.dtype.type)


IMAGES = [dict(N=n, Y=y, X=x, C=c) for n, y, x, c in [(1, 1, 1, 1), (3, 28, 28, 1), (2, 7, 13, 3), (0, 4, 4, 1)]]


def make_update(*state):
    """A parameter vector, its gradient, what the optimiser keeps (never negative), and settings exact in float32."""

    def make(rng, n, **settings):
        inputs = {"g": normal(rng, n), "w": normal(rng, n), **settings}
        return {**inputs, **{name: np.abs(normal(rng, n)) for name in state}}

    return make


CASES = [
    Case(
        "matmul",
        make_matmul,
        [
            dict(M=m, N=n, K=k, trans_a=ta, trans_b=tb)
            for ta in (0, 1)
            for tb in (0, 1)
            for m, n, k in [
                (1, 1, 1),
                (5, 17, 3),
                (6, 16, 256),
                (7, 31, 257),
                (37, 10, 512),
                (64, 65, 66),
                (0, 3, 2),
                (1, 32, 300),  # one or two rows whose sums stay in registers, by chunks
                (1, 64, 300),
                (2, 64, 300),
                (2, 128, 257),
                (3, 0, 2),
                (2, 3, 0),
                (1, 100, 300),
                (150, 70, 530),
            ]
        ]
        # where tiles change: ten columns and one more, a last panel of one vector and one lane more
        + [dict(M=37, N=n, K=50, trans_a=ta) for ta in (0, 1) for n in (4, 9, 11, 17, 24, 25, 48, 49, 113)]
        # few columns, alone or beside others: rows as lanes, whole vectors of them and less, steps that fill no block
        + [
            dict(M=m, N=n, K=k, trans_a=ta)
            for ta in (0, 1)
            for m, k in [(6, 16), (21, 37), (40, 96), (70, 300)]
            for n in (1, 2, 3, 5, 8, 10, 18, 26)
        ]
        + [dict(M=150, N=n, K=33, trans_b=1) for n in (1, 6, 65, 131, 154)]
        + [dict(M=m, N=n, K=k, trans_b=1) for m in (1, 2, 3, 4, 5) for n, k in [(16, 7), (37, 300), (531, 64)]]
        + [dict(M=m, N=n, K=1, trans_a=t, trans_b=t) for t in (0, 1) for m, n in [(1, 40), (7, 16), (5, 33), (90, 37), (3, 2100)]]
        + [dict(B=3, M=5, N=7, K=9), dict(B=0, M=2, N=2, K=2), dict(B=2, M=33, N=48, K=65, trans_b=1)]
        + [  # shared by threads: several blocks of rows, two groups of those, two strips of columns
            dict(M=m, N=n, K=k, trans_a=ta)
            for ta in (0, 1)
            for m, n, k in [(400, 33, 300), (1000, 70, 20), (1000, 10, 60), (1000, 8, 70), (20, 2100, 30)]
        ],
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
        conv_sizes()
        + [dict(N=2, Y=6, X=7, C=3, R=3, S=3, F=f, pad=(1, 1), act=a) for a in ACTS for f in (6, 10)]
        + [dict(N=2, Y=7, X=6, C=16, R=3, S=3, F=32, pad=(1, 1), act=a) for a in ("relu", "gelu")]
        + [dict(N=1, Y=5, X=9, C=16, R=3, S=3, F=16, pad=(1, 1), groups=16, act=a) for a in ACTS]
        + [dict(N=2, Y=6, X=7, C=3, R=3, S=3, F=17, bias=False)],
        rowwise=("x",),
    ),
    Case(
        "conv2d_backward_data",
        make_conv_backward_data,
        conv_sizes()
        + [  # few channels: taps as columns, with gaps between them, more rows and longer runs than are added at once
            dict(N=3, Y=12, X=13, C=3, R=3, S=3, F=24, dilation=(1, 2)),
            dict(N=2, Y=14, X=11, C=2, R=9, S=3, F=40, pad=(2, 1)),
            dict(N=2, Y=9, X=10, C=7, R=3, S=5, F=64),
            # filter rows as columns: strides, padding, gaps, and rows of dx that no filter row meets
            dict(N=3, Y=13, X=12, C=6, R=4, S=5, F=20, stride=(2, 1), pad=(1, 2)),
            dict(N=2, Y=11, X=15, C=8, R=3, S=4, F=40, stride=(1, 2), pad=(0, 1), dilation=(2, 2)),
            dict(N=2, Y=8, X=9, C=64, R=1, S=3, F=64, stride=(2, 1)),
            dict(N=2, Y=9, X=12, C=6, R=2, S=5, F=16, stride=(3, 1)),
        ],
        gradient_of=conv_data_gradient,
        rowwise=("dy",),
        nan="w",
    ),  # the first element of dy may see nothing but padding
    Case(
        "conv2d_backward_weight",
        make_conv_backward_weight,
        conv_sizes(fills_image)
        + [  # shared by threads: few rows, the same in groups, with more filters than a strip; many rows
            dict(N=8, Y=28, X=28, C=1, R=3, S=3, F=32),
            dict(N=4, Y=20, X=20, C=6, R=3, S=3, F=66, groups=3),
            dict(N=3, Y=19, X=19, C=2, R=3, S=3, F=140, pad=(1, 1)),
            dict(N=3, Y=9, X=9, C=70, R=3, S=3, F=21, pad=(1, 1)),
            dict(N=14, Y=8, X=8, C=16, R=3, S=3, F=32, pad=(1, 1)),  # Winograd's tiles, more than two groups
            dict(N=8, Y=31, X=30, C=1, R=5, S=5, F=7, pad=(2, 2)),  # lanes along pixels, blocks of several heights, two groups
        ],
        gradient_of=conv_weight_gradient,
    ),
    Case(
        "conv_transpose2d_forward",
        make_conv_transpose,
        conv_sizes()
        + [dict(N=2, Y=6, X=7, C=3, R=3, S=3, F=10, pad=(1, 1), act=a) for a in ACTS]
        + [dict(N=2, Y=6, X=7, C=3, R=4, S=4, F=17, stride=(2, 2), bias=False)],
        rowwise=("x",),
        nan="w",
    ),
    Case(
        "axpby",
        lambda rng, n: {"a": 0.5, "x": normal(rng, n), "b": 0.0},
        [dict(n=n) for n in (0, 1, 7, 8, 1000)],
    ),
    Case(
        "activation_forward",
        lambda rng, n, act: {"x": normal(rng, n) * 3, "act": act, "slope": 0.1},
        [dict(n=n, act=a) for n in LENGTHS for a in ACTS] + [dict(n=70001, act=a) for a in ("relu", "tanh")],
        rowwise=("x",),
    ),
    Case(
        "activation_backward",
        make_activation_backward,
        [dict(n=n, act=a) for n in LENGTHS for a in ACTS],
        gradient_of=lambda _: (lambda act, slope, z, **_: reference.act(z, act, slope), {"dx": "z"}),
        nan=None,
    ),
    Case("unary_forward", make_unary, [dict(n=n, op=o) for n in LENGTHS for o in reference.UNARY], rowwise=("x",)),
    Case(
        "unary_backward",
        lambda rng, n, op: {**make_unary(rng, n, op), "dy": normal(rng, n)},
        [dict(n=n, op=o) for n in LENGTHS for o in reference.UNARY],
        gradient_of=lambda _: (reference.unary_forward, {"dx": "x"}),
        nan="dy",
    ),
    Case(
        "binary",
        lambda rng, L, n, op: {"x": normal(rng, L, n), "y": normal(rng, n), "op": op},
        [
            dict(L=m, n=n, op=o)
            for m, n in [(1, 1), (5, 3), (1, 100), (100, 1), (7, 33), (0, 3), (3, 0)]
            for o in reference.BINARY
        ],
        rowwise=("x",),
    ),
    Case(
        "reduce_forward",
        # not centred: a sum that cancels would be compared with its own rounding
        lambda rng, A, B, C, op: {"x": normal(rng, A, B, C) + 0.5, "op": op},
        [
            dict(A=a, B=b, C=c, op=o)
            for a, b, c in [
                (1, 1, 1),
                (3, 5, 1),
                (19, 7, 1),
                (2, 700, 1),
                (1, 5000, 1),
                (1, 66000, 1),  # chunks of chunks
                (1, 131400, 2),
                (2, 3, 5),
                (3, 600, 40),
                (1, 2100, 3),
                (1, 2, 300),
                (0, 3, 2),
            ]
            for o in ("sum", "mean", "max", "min")
        ]
        + [dict(A=2, B=0, C=c, op="sum") for c in (1, 3)],
        rowwise=("x",),
    ),
    Case(
        "reduce_backward",
        make_reduce_backward,
        [
            dict(A=a, B=b, C=c, op=o)
            for a, b, c in [(1, 1, 1), (3, 50, 1), (2, 3, 5), (3, 60, 40), (0, 3, 2)]
            for o in ("sum", "mean", "max", "min")
        ],
        gradient_of=lambda _: (lambda x, op, **_: reference.reduce_forward(x, op), {"dx": "x"}),
        nan="dy",
    ),
    Case(
        "argmax",
        lambda rng, A, B, C: {"x": normal(rng, A, B, C)},
        [dict(A=a, B=b, C=c) for a, b, c in [(1, 1, 1), (30, 10, 1), (2, 3, 5), (3, 60, 40), (0, 3, 2)]],
        rowwise=("x",),
        nan=None,
    ),
    Case("sum_squares", lambda rng, n: {"x": normal(rng, n)}, [dict(n=n) for n in (*LENGTHS, 200001)]),
    Case(
        "get_columns",
        lambda rng, L, W, at, n: {"x": normal(rng, L, W), "at": at, "n": n},
        [dict(L=5, W=20, at=3, n=9), dict(L=3, W=4, at=0, n=4), dict(L=3, W=4, at=3, n=1), dict(L=0, W=4, at=1, n=2)],
        nan=None,
    ),
    Case(
        "softmax_forward",
        lambda rng, n, C, log=False: {"x": normal(rng, n, C) * 4, "log": log},
        [dict(n=n, C=c, log=g) for n, c in ROWS_COLUMNS for g in (False, True)],
        rowwise=("x",),
    ),
    Case(
        "softmax_backward",
        lambda rng, n, C, log=False: (
            lambda x: {"y": reference.softmax_forward(x, log), "dy": normal(rng, n, C), "log": log, "x": x}
        )(normal(rng, n, C)),
        [dict(n=n, C=c, log=g) for n, c in ROWS_COLUMNS for g in (False, True)],
        gradient_of=lambda _: (lambda x, log, **_: reference.softmax_forward(x, log), {"dx": "x"}),
        rowwise=("y", "dy"),
        nan="dy",
    ),
    Case(
        "softmax_cross_entropy_forward",
        make_cross_entropy,
        [dict(n=n, C=c) for n, c in ROWS_COLUMNS]
        + [
            dict(n=600, C=10),
            dict(n=5000, C=3, weighted=True),
            dict(n=20, C=10, smoothing=0.1),
            dict(n=20, C=10, smoothing=0.2, weighted=True, reduction="sum"),
        ],
    ),
    Case(
        "softmax_cross_entropy_backward",
        make_cross_entropy_backward,
        [dict(n=n, C=c, by_row=r) for n, c in ROWS_COLUMNS for r in (False, True)]
        + [
            dict(n=600, C=10, weighted=True),
            dict(n=20, C=10, smoothing=0.1),
            dict(n=20, C=11, smoothing=0.2, weighted=True, reduction="sum"),
            dict(n=20, C=3, weighted=True, by_row=True),
        ],
        gradient_of=cross_entropy_gradient,
        nan="dloss",
    ),
    Case(
        "loss_forward",
        make_loss,
        [dict(n=n, kind=k) for n in LENGTHS for k in LOSSES]
        + [
            dict(n=n, kind=k, weighted=True, reduction=r) for n in (33, 140001) for k in LOSSES for r in ("mean", "sum")
        ],
    ),
    Case(
        "loss_backward",
        make_loss_backward,
        [dict(n=n, kind=k, by_element=e) for n in LENGTHS for k in LOSSES for e in (False, True)]
        + [dict(n=33, kind=k, weighted=True, reduction=r) for k in LOSSES for r in ("mean", "sum")],
        gradient_of=loss_gradient,
    ),
    Case(
        "batch_norm_forward",
        make_norm,
        [dict(n=n, C=c) for n, c in [(2, 1), (5, 3), (700, 10), (13, 64), (9000, 5), (300, 130)]]
        + [dict(n=9, C=7, of=of) for of in [(), ("gamma",), ("shift",)]]
        + [dict(n=n, C=5, running=True) for n in (1, 4, 600)],
    ),
    Case(
        "batch_norm_inference",
        make_inference,
        [dict(n=n, C=c) for n, c in [(1, 1), (5, 3), (13, 64), (30, 130), (0, 3)]],
        rowwise=("x",),
    ),
    Case(
        "batch_norm_backward",
        make_norm_backward("batch_norm"),
        [dict(n=n, C=c) for n, c in [(4, 1), (5, 3), (700, 10), (13, 64), (300, 130)]] + [dict(n=9, C=7, of=())],
        gradient_of=norm_gradient("batch_norm"),
    ),
    Case(
        "layer_norm_forward",
        make_norm,
        [dict(n=n, C=c) for n, c in [(1, 2), (5, 3), (70, 10), (13, 64), (30, 131), (0, 3)]]
        + [dict(n=9, C=7, of=of) for of in [(), ("gamma",), ("shift",)]],
        rowwise=("x",),
    ),
    Case(
        "layer_norm_backward",
        make_norm_backward("layer_norm"),
        [dict(n=n, C=c) for n, c in [(1, 4), (5, 3), (700, 10), (13, 64), (30, 131), (0, 3)]]
        + [dict(n=9, C=7, of=())],
        gradient_of=norm_gradient("layer_norm"),
    ),
    Case(
        "max_pool2d_forward",
        make_pool,
        [*POOLS, *FEW_CHANNELS, *({**p, "ties": True} for p in (POOLS[5], FEW_CHANNELS[5]))],
        rowwise=("x",),
    ),
    Case(
        "max_pool2d_backward",
        make_max_pool_backward,
        POOLS + FEW_CHANNELS,
        nan="dy",
        gradient_of=lambda _: (lambda x, where, **w: reference.max_pool2d_forward(x, **w)["y"], {"dx": "x"}),
    ),
    Case("avg_pool2d_forward", make_pool, [*POOLS, *FEW_CHANNELS, {**POOLS[5], "count_padding": False}], rowwise=("x",)),
    Case(
        "avg_pool2d_backward",
        make_avg_pool_backward,
        POOLS + FEW_CHANNELS + [{**POOLS[5], "count_padding": False}],
        gradient_of=lambda _: (reference.avg_pool2d_forward, {"dx": "x"}),
    ),
    Case(
        "embedding_forward",
        lambda rng, n, L, D: {"table": normal(rng, L, D), "index": rng.integers(0, L, n)},
        [dict(n=n, L=m, D=d) for n, m, d in [(1, 1, 1), (50, 7, 33), (0, 2, 3)]],
        exact=True,
        rowwise=("index",),
        nan=None,
    ),
    Case(
        "embedding_backward",
        lambda rng, n, L, D: {"index": rng.integers(0, L, n), "dy": normal(rng, n, D), "table": normal(rng, L, D)},
        [
            dict(n=n, L=m, D=d)
            # few; sorted by one digit of 8 bits and by three, long runs and short; 16 bytes at a time
            for n, m, d in [(1, 1, 1), (50, 7, 33), (0, 2, 3), (1000, 5, 130), (2100, 30, 5), (1100, 70000, 8), (4200, 1, 36)]
        ],
        gradient_of=lambda _: (reference.embedding_forward, {"dtable": "table"}),
        nan="dy",
    ),
    Case(
        "gather_u8",
        lambda rng, n, L, D: {
            "table": rng.integers(0, 256, (L, D)).astype(np.uint8),
            "index": rng.integers(0, L, n),
            "scale": 1 / 256,
        },
        [dict(n=n, L=m, D=d) for n, m, d in [(1, 1, 1), (50, 7, 33), (0, 2, 3), (9, 20, 784)]],
        exact=True,
        rowwise=("index",),
    ),
    Case("random_words", lambda rng, n, offset: {"seed": SEED, "offset": offset, "n": n}, STREAMS, exact=True),
    Case("uniform", lambda rng, n, offset: {"seed": SEED, "offset": offset, "n": n, "low": -1.0}, STREAMS, exact=True),
    Case("normal", lambda rng, n, offset: {"seed": SEED, "offset": offset, "n": n, "mean": 2.0, "std": 3.0}, STREAMS),
    Case("bernoulli", lambda rng, n, offset: {"p": rng.random(n), "seed": SEED, "offset": offset}, STREAMS, exact=True),
    Case(
        "dropout_forward",
        lambda rng, n, offset, p=0.25: {"x": normal(rng, n), "p": p, "seed": SEED, "offset": offset},
        [*STREAMS, dict(n=100, offset=0, p=0.0), dict(n=1000, offset=5, p=0.7)],
        nan=None,
    ),
    Case(
        "dropout_backward",
        lambda rng, n, offset, p=0.25: {
            "dy": normal(rng, n),
            "p": p,
            "seed": SEED,
            "offset": offset,
            "x": normal(rng, n),
        },
        [*STREAMS, dict(n=1000, offset=5, p=0.7)],
        nan=None,
        gradient_of=lambda _: (reference.dropout_forward, {"dx": "x"}),
    ),
    Case(
        "warp",
        make_warp,
        IMAGES + [{**size, "field": True} for size in IMAGES],
        reference=define_warp,
        rowwise=("x", "matrix", "field"),
        nan="matrix",
    ),
    Case(
        "warp_u8",
        lambda rng, **size: make_warp(rng, bytes_=True, **size),
        IMAGES + [{**size, "field": True} for size in IMAGES],
        reference=define_warp,
        rowwise=("x", "matrix", "field"),
        nan="matrix",
    ),
    Case(
        "blur",
        lambda rng, sigma, **size: {"x": normal(rng, *size.values()), "sigma": sigma},
        [{**size, "sigma": s} for size in IMAGES for s in (0.5, 3.0)],
        reference=lambda x, sigma: reference_augment.blur(x, sigma, x.dtype.type),
        rowwise=("x",),
    ),
    Case(
        "sgd",
        make_update("v"),
        [
            dict(n=n, lr=0.5, momentum=m, nesterov=v, weight_decay=d)
            for n in LENGTHS
            for m, v, d in [(0.875, False, 0.0), (0.5, True, 0.125)]
        ],
    ),
    Case("sgd", make_update(), [dict(n=9, lr=0.5, momentum=0.5, nesterov=v, weight_decay=0.125) for v in (False, True)]),
    Case(
        "adam",
        make_update("m", "v"),
        [
            dict(n=n, lr=0.5, t=t, beta1=0.875, beta2=1 - 2**-10, weight_decay=d, decoupled=w)
            for n in LENGTHS
            for t, d, w in [(1, 0.0, False), (10, 0.125, False), (3, 0.5, True)]
        ],
    ),
    Case(
        "rmsprop",
        make_update("v"),
        [dict(n=n, lr=0.5, rho=0.875, weight_decay=d) for n in LENGTHS for d in (0.0, 0.125)],
    ),
    Case("adagrad", make_update("v"), [dict(n=n, lr=0.5, weight_decay=d) for n in LENGTHS for d in (0.0, 0.125)]),
    Case(
        "clip_norm",
        lambda rng, n, max_norm: {"max_norm": max_norm, "g": normal(rng, n)},
        [dict(n=n, max_norm=m) for n in LENGTHS for m in (0.5, 1e6)],
        nan=None,
    ),
    Case(
        "put_columns",
        lambda rng, L, W, n, at: {"x": normal(rng, L, n), "at": at, "y": normal(rng, L, W)},
        [dict(L=m, W=w, n=n, at=a) for m, w, n, a in [(1, 1, 1, 0), (5, 20, 7, 3), (3, 9, 9, 0), (0, 4, 2, 1)]],
    ),
]
for _file in sorted(Path(__file__).parent.glob("cases_*.py")):
    CASES += import_module(_file.stem).CASES
BY_NAME = {case.kernel: case for case in CASES}
ROWS = [(case, sizes) for case in CASES for sizes in case.sizes]


def row_id(row):
    case, sizes = row
    return case.kernel + "-" + "-".join(f"{k}{v}" for k, v in sizes.items())
