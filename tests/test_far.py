"""Arrays of more elements than 32 bits count. On a GPU they are normal; here most of their memory is never touched, and never
there."""

import contextlib
import importlib
import importlib.util
import mmap

import numpy as np
import pytest

import fake_cuda
from conftest import LOADED
from fastdl import backend

emu = LOADED.get("emu")
cpu = next((LOADED[name] for name in ("avx2", "wide", "avx512") if name in LOADED), None)
needs_emulator = pytest.mark.skipif(emu is None or cpu is None, reason="the emulator or a target with FMA is not built")

NORESERVE = 0x4000  # Linux


@pytest.fixture
def space():
    """Address space for 2^33 floats."""
    try:
        region = mmap.mmap(-1, 1 << 35, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, AttributeError, ValueError) as error:
        pytest.skip(f"no address space: {error}")
    return np.frombuffer(region, np.float32)  # the region lives as long as its last array


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


# ------------------------------------------------------------------------------------------------- rows and offsets


@needs_emulator
@pytest.mark.parametrize("far", ["a", "b", "c", "all"])
@pytest.mark.parametrize("trans", [(False, False), (False, True), (True, False), (True, True)], ids=str)
def test_products_with_rows_far_apart(space, far, trans, rng):
    """2^29 floats are 2^31 bytes, which is one more than an int counts."""
    M, N, K = 3, 5, 4
    a, b = normal(rng, *((K, M) if trans[0] else (M, K))), normal(rng, *((N, K) if trans[1] else (K, N)))
    places = {"a": a.shape, "b": b.shape, "c": (M, N)}
    views = {}
    for k, (name, (rows, columns)) in enumerate(places.items()):
        step = (1 << 29) + 8 * k if far in (name, "all") else columns
        at = space[k * 100 :]  # the arrays take turns in a row
        views[name] = np.lib.stride_tricks.as_strided(at, (rows, columns), (4 * step, 4))
    views["a"][...], views["b"][...] = a, b
    arguments = [
        part for name, t in (("a", trans[0]), ("b", trans[1]))
        for part in (views[name].ctypes.data, views[name].strides[0] // 4, t)
    ]  # fmt: skip
    emu.strided_product(M, N, K, *arguments, views["c"].ctypes.data, views["c"].strides[0] // 4)
    np.testing.assert_array_equal(views["c"], cpu.matmul(a[None], b[None], *trans)[0])


@needs_emulator
def test_convolutions_read_far_away(space, rng):
    """Four images of 2^31 floats each, of which a stride picks two pixels."""
    X = 1 << 30
    x, w = space[: 8 * X].reshape(4, 1, X, 2), normal(rng, 1, 1, 2, 3)
    pixels = x[:, :, :: X - 1]
    pixels[...] = normal(rng, *pixels.shape)
    stride = dict(stride_x=X - 1)
    small, ones = np.ascontiguousarray(pixels), normal(rng, 4, 1, 2, 3)
    np.testing.assert_array_equal(emu.conv2d_forward(x, w, **stride), cpu.conv2d_forward(small, w))
    got, expected = np.zeros_like(w), np.zeros_like(w)
    emu.conv2d_backward_weight(x, ones, **stride, dw=got)
    cpu.conv2d_backward_weight(small, ones, dw=expected)
    np.testing.assert_array_equal(got, expected)


@needs_emulator
def test_columns_far_to_the_right(space, rng):
    W, at = (1 << 31) + 24, (1 << 31) + 5
    x, columns = space[: 2 * W].reshape(2, W), normal(rng, 2, 7)
    emu.put_columns(columns, at, x)
    np.testing.assert_array_equal(x[:, at : at + 7], columns)
    assert not x[:, at + 7 : at + 19].any() and not x[0, 5:12].any()
    got = np.empty_like(columns)
    emu.get_columns(x, at, got)
    np.testing.assert_array_equal(got, columns)


@needs_emulator
def test_tables_of_many_rows(space, rng):
    L, D = (1 << 30) + 3, 5
    table, rows = space[: L * D].reshape(L, D), np.array([L - 1, 1 << 29, L - 1], np.int64)
    values = normal(rng, 3, D)
    emu.embedding_backward(rows, values, None, table, 1.0)
    expected = np.stack([values[0] + values[2], values[1], values[0] + values[2]])
    np.testing.assert_array_equal(table[rows], expected)
    np.testing.assert_array_equal(emu.embedding_forward(table, rows), expected)
    pictures = space.view(np.uint8)[: L * D].reshape(L, D)
    pictures[rows[1]] = 7
    np.testing.assert_array_equal(emu.gather_u8(pictures, rows[1:2], 2.0), np.full((1, D), 14, np.float32))


# ------------------------------------------------------------------------------------------------- grids and counts


@pytest.mark.slow
@needs_emulator
def test_more_products_in_a_batch_than_a_grid_is_deep(rng):
    a, b = normal(rng, 65540, 1, 2), normal(rng, 65540, 2, 1)
    np.testing.assert_array_equal(emu.matmul(a, b), cpu.matmul(a, b))


@needs_emulator
def test_more_columns_in_a_table_than_a_grid_is_high(rng):
    D = 65535 * 128 + 200
    table, values = np.zeros((1, D), np.float32), np.ones((2, D), np.float32)
    emu.embedding_backward(np.zeros(2, np.int64), values, None, table, 1.0)
    assert (table == 2).all()


@needs_emulator
def test_what_cannot_be_counted_is_refused():
    """Images of no channels: as wide as one likes, and no memory."""
    x, w = np.empty((1, 1, 1 << 33, 0), np.float32), np.empty((1, 3, 0, 0), np.float32)
    said = r"CUDA: expected images of fewer than 2\^31 pixels a side, with their padding; got 8589934592"
    with pytest.raises(RuntimeError, match=f"conv2d_forward: {said}"):
        emu.conv2d_forward(x, w)
    y = np.empty((1, 1, (1 << 33) - 2, 0), np.float32)
    with pytest.raises(RuntimeError, match=f"conv2d_backward_data: {said}"):
        emu.conv2d_backward_data(y, w, dx=x)
    with pytest.raises(RuntimeError, match=f"conv2d_backward_weight: {said}"):
        emu.conv2d_backward_weight(x, y, dw=w.copy())
    assert emu.conv2d_forward(x[:, :, : 1 << 30], w).shape == (1, 1, (1 << 30) - 2, 0)  # and no error is left behind


def test_images_are_no_larger_than_floats_count_pixels(target):
    x = np.empty((1, (1 << 24) + 1, 3, 0), np.float32)
    with pytest.raises(ValueError, match="expected Y<=16777216"):
        target.warp(x, np.zeros((1, 6), np.float32))


# --------------------------------------------------------------------------------------------- large arrays on a GPU


@pytest.fixture(params=["gpu", "emulator"])
def device(request):
    """(kernels, array library, number of elements): beyond 2^31 on a GPU, a few in the emulator, to see that the test works."""
    if request.param == "emulator":
        if importlib.util.find_spec("fastdl._emu_cuda") is None:
            pytest.skip("no emulator (built with FASTDL_TEST_TARGETS=ON)")
        module = importlib.import_module("fastdl._emu_cuda")
        with fake_cuda.as_cuda(module):
            yield module, fake_cuda, 1 << 14
        return
    if "cuda" not in LOADED:
        pytest.skip("no GPU")
    home = backend.cuda()
    n = (1 << 31) + (1 << 14)
    if home.library.cuda.Device().mem_info[0] < 24 * n:
        pytest.skip("less than 52 GB free on the GPU")
    yield home.kernels, home.library, n
    with contextlib.suppress(AttributeError):
        home.library.get_default_memory_pool().free_all_blocks()


def test_the_end_of_a_large_array_is_reached(device, rng):
    kernels, library, n = device
    tail = 4096

    def large(end):
        a = library.zeros((n,), np.float32)
        a[-tail:] = library.asarray(end)
        return a

    def end(a):
        return library.asnumpy(a.reshape(-1)[-tail:])

    x, y = normal(rng, tail), normal(rng, tail)
    there, other = large(x), large(y)
    got, expected = there.copy(), x.copy()
    for k, a, out in ((kernels, there, got), (backend.cpu, x, expected)):
        k.activation_forward(a, "gelu", out=out)
    np.testing.assert_array_equal(end(got), expected)
    for k, a, out in ((kernels, there, got), (backend.cpu, x, expected)):
        k.axpby(0.5, a, 2.0, out)
    np.testing.assert_array_equal(end(got), expected)
    for k, out, offset in ((kernels, got, 0), (backend.cpu, expected, n - tail)):
        k.uniform(seed=7, offset=offset, y=out)
    np.testing.assert_array_equal(end(got), expected)
    del got
    m, v = large(0 * x), large(0 * x)
    states = [there, other, m, v], [x.copy(), y, 0 * x, 0 * x]
    for k, (w, g, *moments) in zip((kernels, backend.cpu), states, strict=True):
        k.adam(g=g, lr=0.1, t=1, w=w, m=moments[0], v=moments[1])
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(end(a), b)
    del m, v, a, b, w, moments, states
    there[-tail:] = library.asarray(x)
    for columns in (64, 2048):  # a warp a row, a block a row
        rows = there.reshape(n // columns, columns)
        kernels.softmax_forward(rows, out=other.reshape(n // columns, columns))
        np.testing.assert_allclose(
            end(other).reshape(-1, columns), backend.cpu.softmax_forward(x.reshape(-1, columns)), rtol=1e-5, atol=1e-7
        )
    index = np.arange(n // 64 - tail // 64, n // 64)
    picked = kernels.embedding_forward(there.reshape(n // 64, 64), library.asarray(index))
    np.testing.assert_array_equal(end(picked), x)
    sums = kernels.reduce_forward(there.reshape(n // 64, 8, 8), "sum")
    np.testing.assert_array_equal(
        library.asnumpy(sums)[-tail // 64 :], backend.cpu.reduce_forward(x.reshape(-1, 8, 8), "sum")
    )
