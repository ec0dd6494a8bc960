"""The CUDA products, in the emulator and on a GPU: float32 with the CPU's bits, tensor cores against float64, whatever tile
and order."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import fastdl
from conftest import LOADED

GPUS = [name for name in ("emu", "cuda") if name in LOADED]
FMA = next((name for name in ("avx2", "wide", "avx512") if name in LOADED), None)  # base has no fused multiply-add
cpu = LOADED.get(FMA)
pytestmark = pytest.mark.skipif(not GPUS or cpu is None, reason="the emulator or a target with FMA is not built")

# Off every tile (32, 64, 128), around chunks of 256, several chunks at once, K in parts. The emulator is a device of 4
# multiprocessors (cuda/gemm.cuh): six large tiles are many.
SHAPES = [
    (1, 1, 1, 1), (1, 3, 5, 0), (2, 33, 31, 17), (1, 7, 10, 784), (3, 65, 70, 300), (1, 129, 130, 257), (1, 40, 36, 2050),
    (70, 5, 6, 7), (1, 1160, 1100, 20), (1, 132, 12292, 9),
    # K at the edges of chunks of 256 and of rounds of several
    (2, 9, 11, 255), (1, 34, 5, 256), (1, 6, 36, 512), (1, 8, 8, 513), (1, 4, 4, 1024), (1, 5, 7, 1025), (1, 700, 700, 272),
    # whole large tiles, whose copies go on over chunks, and others; middle ones; a few columns
    (1, 264, 400, 528), (1, 259, 391, 270), (1, 300, 301, 272), (1, 100, 90, 530), (1, 600, 11, 300), (1, 600, 3, 520),
]  # fmt: skip
# N Y X C R S F, stride, padding, dilation (y and x), groups. None that the CPU does by Winograd's formula (3x3 without stride,
# channels and filters whole multiples of 16: WINOGRAD).
CONVOLUTIONS = [
    (2, 9, 8, 3, 3, 3, 5, 1, 1, 1, 1, 1, 1, 1), (1, 12, 11, 4, 5, 3, 6, 2, 3, 2, 1, 1, 1, 2),
    (2, 10, 13, 6, 3, 2, 6, 1, 2, 2, 1, 2, 3, 3), (3, 7, 7, 8, 1, 1, 16, 1, 1, 0, 0, 1, 1, 1),
    (2, 16, 16, 32, 3, 3, 40, 1, 1, 1, 1, 1, 1, 1), (1, 9, 9, 8, 3, 3, 8, 1, 1, 1, 1, 1, 1, 8),
    (1, 6, 7, 2, 2, 2, 3, 5, 4, 0, 0, 1, 1, 1), (2, 14, 14, 16, 3, 3, 70, 2, 2, 1, 1, 2, 2, 1),
    (1, 7, 7, 2, 3, 3, 4, 2, 2, 1, 1, 2, 2, 1),
    # Large tiles with more than two chunks of K; 3 and 1 column of the data gradient.
    (1, 28, 24, 128, 1, 5, 128, 1, 1, 0, 2, 1, 1, 1), (1, 20, 33, 3, 3, 3, 72, 1, 1, 1, 1, 1, 1, 1),
    (1, 24, 25, 1, 5, 5, 20, 1, 1, 0, 0, 1, 1, 1),
]  # fmt: skip
WINOGRAD = [(2, 16, 16, 32, 3, 3, 32, 1, 1, 1, 1, 1, 1, 1), (3, 9, 12, 48, 3, 3, 16, 1, 1, 0, 0, 1, 1, 1)]
# The same of groups of one channel: 16 bytes at a time or not, several chunks of pixels, a window of 3, 5, 7 or any taps,
# strides, dilations, several filters a channel, a window larger than the image.
DEPTHWISE = [
    (2, 20, 21, 12, 3, 3, 12, 1, 1, 1, 1, 1, 1, 12), (2, 17, 9, 7, 3, 3, 7, 1, 1, 1, 1, 1, 1, 7),
    (1, 11, 12, 8, 5, 5, 8, 2, 1, 2, 2, 1, 1, 8), (1, 9, 13, 6, 2, 7, 12, 1, 2, 0, 3, 1, 1, 6),
    (1, 12, 12, 8, 3, 3, 8, 1, 1, 2, 2, 2, 2, 8), (3, 5, 6, 4, 3, 3, 4, 3, 2, 1, 1, 1, 1, 4),
    (2, 30, 33, 36, 1, 2, 36, 1, 1, 0, 0, 1, 1, 36), (1, 2, 2, 3, 5, 5, 3, 1, 1, 2, 2, 1, 1, 3),
]  # fmt: skip
# How threads are run, and when asynchronous copies land.
ORDERS = [("forward", "late", 0), ("reverse", "early", 0), ("random", "random", 3)]


@pytest.fixture(params=GPUS or ["none"])
def gpu(request):
    return LOADED[request.param]


@pytest.fixture(autouse=True)
def as_before():
    before = LOADED["emu"].emulate() if "emu" in LOADED else None
    yield
    if before:
        LOADED["emu"].emulate(*before)
    fastdl.set_matmul_precision("highest")


def run_in(order, gpu):
    """Let the emulator run threads in this order; a GPU has its own."""
    if gpu is LOADED.get("emu"):
        gpu.emulate(*order)
    elif order is not ORDERS[0]:
        pytest.skip("a GPU orders its threads itself")


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def same_bits(x, y):
    np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32))


def between_nan(a):
    """The same array with NaN before and behind it: what is read there would show, be it multiplied by zero."""
    block = np.full(a.size + 1024, np.nan, np.float32)
    inside = block[512 : 512 + a.size].reshape(a.shape)
    inside[...] = a
    return inside


def output(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("trans", [*itertools.product((False, True), repeat=2)], ids=str)
def test_float32_has_the_bits_of_the_cpu(gpu, shape, trans, rng):
    B, M, N, K = shape
    a = normal(rng, B, *((K, M) if trans[0] else (M, K)))
    b = normal(rng, B, *((N, K) if trans[1] else (K, N)))
    c = normal(rng, B, M, N)
    for beta in (0.0, 0.5):
        out, expected = between_nan(c), c.copy()
        gpu.matmul(between_nan(a), between_nan(b), *trans, beta, out)
        cpu.matmul(a, b, *trans, beta, expected)
        same_bits(out, expected)
        assert np.isnan(out.base[:512]).all() and np.isnan(out.base[-512:]).all()


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[3] > 0], ids=str)
@pytest.mark.parametrize("trans", [*itertools.product((False, True), repeat=2)], ids=str)
def test_nan_stays_in_its_row_and_column(gpu, shape, trans):
    """An element too many of K would be one of the next row, times zero: no number shows it but NaN."""
    B, M, N, K = shape
    precisions = ["highest", *(["tf32", "bf16"] if M * N < 20000 else [])]
    for bad, precision in itertools.product("ab", precisions):
        fastdl.set_matmul_precision(precision)
        a, b = np.ones((B, M, K), np.float32), np.ones((B, K, N), np.float32)
        if bad == "a":
            a[:, 1::2] = np.nan
        else:
            b[:, :, 1::2] = np.nan
        a, b = (between_nan(x.swapaxes(1, 2) if t else x) for x, t in zip((a, b), trans))
        c = np.isnan(gpu.matmul(a, b, *trans))
        expected = np.zeros((B, M, N), bool)
        expected[(slice(None), slice(1, None, 2)) if bad == "a" else (..., slice(1, None, 2))] = True
        np.testing.assert_array_equal(c, expected, err_msg=f"{bad} {precision}")


@pytest.mark.parametrize("act", ["none", "relu", "leaky_relu", "sigmoid", "tanh", "gelu"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_epilogues_have_the_bits_of_the_cpu(gpu, act, order, rng):
    run_in(order, gpu)
    for N, I, O in ((5, 300, 7), (70, 65, 66)):
        x, w, b = normal(rng, N, I), normal(rng, I, O), normal(rng, O)
        y, z = np.empty((2, N, O), np.float32), np.empty((2, N, O), np.float32)
        for k, target in enumerate((gpu, cpu)):
            target.dense_forward(x, w, b, act, 0.1, y[k], z[k])
        same_bits(y[0], y[1])
        same_bits(z[0], z[1])


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_convolutions_agree_with_the_cpu(gpu, case, order, rng):
    run_in(order, gpu)
    N, Y, X, C, R, S, F, *attributes = case
    x, w, b = (between_nan(normal(rng, *s)) for s in ((N, Y, X, C), (R, S, C // attributes[-1], F), (F,)))
    y = [output(k.conv2d_forward(x, w, b, *attributes, "tanh")) for k in (gpu, cpu)]
    same_bits(y[0], y[1])
    dy, dx, dw, db = between_nan(normal(rng, *y[0].shape)), normal(rng, *x.shape), normal(rng, *w.shape), normal(rng, F)
    got, expected = [(dx.copy(), dw.copy(), db.copy()) for _ in range(2)]
    for k, (to_x, to_w, to_b) in ((gpu, got), (cpu, expected)):
        k.conv2d_backward_data(dy, w, *attributes, None, to_x, 0.5)
        k.conv2d_backward_weight(x, dy, *attributes, None, to_w, 0.5, to_b, 2.0)
    taps, strides = R * S, attributes[0] * attributes[1]
    if F <= 8 and attributes[-1] == 1 and taps >= 9 * strides:
        # The CPU adds up lane by lane, along pixels.
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=2e-7 * dy.size / F)
    else:
        same_bits(got[1], expected[1])
    same_bits(got[2], expected[2])
    # Phases meet the taps in an order of their own.
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=2e-7 * R * S * F)


@pytest.mark.parametrize("case", WINOGRAD, ids=str)
def test_what_the_cpu_does_by_winograd_is_summed_tap_by_tap(gpu, case, rng):
    """The same numbers in other sums: none of the three passes has the CPU's bits."""
    N, Y, X, C, R, S, F, *attributes = case
    x, w = normal(rng, N, Y, X, C), normal(rng, R, S, C, F)
    y = [output(k.conv2d_forward(x, w, None, *attributes)) for k in (gpu, cpu)]
    dy = normal(rng, *y[0].shape)
    dx, dw = np.empty((2, *x.shape), np.float32), np.empty((2, *w.shape), np.float32)
    for k, to_x, to_w in zip((gpu, cpu), dx, dw):
        k.conv2d_backward_data(dy, w, *attributes, None, to_x)
        k.conv2d_backward_weight(x, dy, *attributes, None, to_w)
    for (ours, theirs), terms in ((y, R * S * C), (dx, R * S * F), (dw, dy.size // F)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-6 * terms**0.5)
        assert not np.array_equal(ours, theirs)


@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("precision", ["highest", "tf32"])
def test_depthwise_convolutions_have_the_bits_of_the_cpu(gpu, case, order, precision, rng):
    """They are no products: whatever the precision."""
    run_in(order, gpu)
    fastdl.set_matmul_precision(precision)
    N, Y, X, C, R, S, F, *attributes = case
    x, w, b = normal(rng, N, Y, X, C), normal(rng, R, S, 1, F), normal(rng, F)
    y = [output(k.conv2d_forward(x, w, b, *attributes, "tanh")) for k in (gpu, cpu)]
    same_bits(y[0], y[1])
    dy, dx, dw, z = normal(rng, *y[0].shape), normal(rng, *x.shape), normal(rng, *w.shape), normal(rng, C)
    got, expected = [(dx.copy(), dw.copy(), np.zeros(F, np.float32)) for _ in range(2)]
    for k, (to_x, to_w, to_b) in ((gpu, got), (cpu, expected)):
        k.conv2d_backward_data(dy, w, *attributes, None, to_x, 0.5)
        k.conv2d_backward_weight(x, dy, *attributes, None, to_w, 0.5, to_b, 0.0)
    same_bits(got[1], expected[1])
    same_bits(got[2], expected[2])
    upside = [np.empty_like(x) for _ in range(2)]
    for k, to in zip((gpu, cpu), upside):
        k.conv_transpose2d_forward(dy, w, z, *attributes, "relu", y=to)
    for ours, theirs in ((got[0], expected[0]), upside):
        if C == F:
            same_bits(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_row_depends_neither_on_its_batch_nor_on_the_tile(gpu, rng):
    x, w = normal(rng, 1160, 300), normal(rng, 300, 1100)
    rows = [gpu.matmul(x[:n], w)[:3] for n in (3, 70, 1160)]
    same_bits(rows[0], rows[1])
    same_bits(rows[0], rows[2])
    fastdl.set_matmul_precision("tf32")
    same_bits(*(gpu.matmul(x[:n], w[:, :140].copy())[:3] for n in (3, 140)))


def test_weight_gradients_in_parts(gpu, rng):
    """K of 3,000 rows goes to blocks of its own; the sum is one of chunks, as on the CPU."""
    x, w, dy = normal(rng, 3000, 20), normal(rng, 20, 10), normal(rng, 3000, 10)
    got, expected = np.zeros((2, 20, 10), np.float32)
    gpu.dense_backward(x, w, dy, dy, "none", dw=got, beta_dw=0.5)
    cpu.dense_backward(x, w, dy, dy, "none", dw=expected, beta_dw=0.5)
    same_bits(got, expected)


def test_the_last_part_of_a_sum_may_be_shorter(gpu, rng):
    """132 products of one tile, and five chunks of K: room for four parts, but three of two chunks do, and the last has one."""
    groups, pixels = 132, 4 * 256 + 10
    x, dy = normal(rng, 1, 1, pixels, 2 * groups), normal(rng, 1, 1, pixels, groups)

    def gradient(k, part, dw, beta):
        there = [between_nan(a[:, :, part]) for a in (x, dy)]
        return k.conv2d_backward_weight(*there, 1, 1, 0, 0, 1, 1, groups, dw=dw, beta_dw=beta)

    got = np.full((1, 1, 2, groups), 0.25, np.float32)
    expected = 0.5 * got
    gradient(gpu, slice(None), got, 0.5)
    for begin in range(0, pixels, 512):
        part = np.empty_like(expected)
        gradient(cpu, slice(begin, begin + 512), part, 0.0)
        expected += part
    same_bits(got, expected)


def rounded(x, bits):
    """To the nearest float with that many significant bits; ties away from zero for tf32, to even for bf16."""
    drop = 24 - bits
    i = x.view(np.uint32).astype(np.uint64)
    half = np.uint64(1 << (drop - 1))
    bias = half if bits == 11 else half - np.uint64(1) + ((i >> np.uint64(drop)) & np.uint64(1))
    return (((i + bias) >> np.uint64(drop)) << np.uint64(drop)).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 11), ("bf16", 8)])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_tensor_cores_multiply_rounded_factors(gpu, precision, bits, order, rng):
    run_in(order, gpu)
    fastdl.set_matmul_precision(precision)
    ways = [*itertools.product((False, True), repeat=2)]
    for (B, M, N, K), trans in [*zip(SHAPES[2:6], ways), *itertools.product([(1, 264, 400, 44), (1, 261, 385, 35)], ways)]:
        a, b = normal(rng, B, M, K), normal(rng, B, K, N)
        exact = rounded(a, bits).astype(np.float64) @ rounded(b, bits).astype(np.float64)
        # What is added is exact, K additions are rounded (or cut off, as tensor cores do) once each.
        bound = K * 2.0**-23 * (abs(a.astype(np.float64)) @ abs(b.astype(np.float64))) * 1.01
        a, b = (np.ascontiguousarray(x.swapaxes(1, 2)) if t else x for x, t in zip((a, b), trans))
        c = gpu.matmul(a, b, *trans)
        assert (abs(c - exact) <= bound).all()
        assert not np.array_equal(c, cpu.matmul(a, b, *trans))  # float32's product is another one


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 11), ("bf16", 8)])
def test_tensor_cores_convolve(gpu, precision, bits, rng):
    fastdl.set_matmul_precision(precision)
    for N, Y, X, C, R, S, F, *attributes in CONVOLUTIONS[1:6:2] + CONVOLUTIONS[4:5] + CONVOLUTIONS[9:]:
        x, w = rounded(normal(rng, N, Y, X, C), bits), rounded(normal(rng, R, S, C // attributes[-1], F), bits)
        y = [output(k.conv2d_forward(x, w, None, *attributes)) for k in (gpu, cpu)]
        np.testing.assert_allclose(y[0], y[1], rtol=1e-5, atol=max(2e-5, 2e-6 * abs(y[1]).max()))
        dy = rounded(y[0], bits)
        results = []
        for k in (gpu, cpu):
            dx, dw = np.empty_like(x), np.empty_like(w)
            k.conv2d_backward_data(dy, w, *attributes, None, dx)
            k.conv2d_backward_weight(x, dy, *attributes, None, dw)
            results.append((dx, dw))
        for got, expected in zip(*results):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * abs(expected).max())


@pytest.mark.skipif("emu" not in LOADED, reason="the emulator is not built")
@pytest.mark.parametrize("setting", ["FASTDL_EMU_ARCH", "FASTDL_EMU_CODE"])
def test_without_tensor_cores_products_stay_at_float32(setting):
    """Neither the device has them, or the code that it runs was compiled for those that do not. In a process of its own: what a
    device has is asked once."""
    code = """
import os
import numpy as np
import fastdl
from fastdl import backend
emu, cpu = backend.load("emu"), backend.load(os.environ["FMA_TARGET"])
fastdl.set_matmul_precision("bf16")
assert emu.matmul_precision() == 2 and emu.device_matmul_precision() == 0
a = np.linspace(-1, 1, 2000, dtype=np.float32)
c = [k.matmul(a.reshape(40, 50), a.reshape(50, 40)) for k in (emu, cpu)]
assert np.array_equal(*c)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, setting: "75", "FMA_TARGET": FMA})


def test_precision_is_one_of_three_words():
    fastdl.set_matmul_precision("tf32")
    assert fastdl.get_matmul_precision() == "tf32"
    with pytest.raises(ValueError, match=r"precision: expected 'highest', 'tf32' or 'bf16'; got 'fp64'"):
        fastdl.set_matmul_precision("fp64")
    assert fastdl.get_matmul_precision() == "tf32"
