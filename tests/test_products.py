"""Products on the CPU bit for bit: the order of their sums depends on K alone, as the head of csrc/cpu/gemm.h says, whatever
their shape, where they lie in memory and how many threads there are."""

import platform

import numpy as np
import pytest

from conftest import LOADED

CHUNK = 256
CPU = [name for name in ("avx512", "avx2", "base") if name in LOADED]
GUARD = np.float32(-12345.678)

# M, N, K: one row or column, few of either, beside whole vectors and tiles, in blocks that K, M and N do not fill; rows that lie
# alike in cache lines (K a multiple of 16); one step of k; ends of chunks.
SHAPES = [
    (1, 1, 300), (1, 7, 513), (1, 33, 257), (33, 1, 257), (70, 1, 64), (2, 2, 2), (2, 40, 64), (3, 37, 512), (4, 9, 96),
    (5, 21, 128), (8, 40, 64), (9, 9, 80), (19, 2, 64), (37, 3, 513), (16, 5, 255), (50, 6, 256), (21, 8, 300), (14, 10, 257),
    (40, 17, 64), (15, 18, 70), (29, 24, 33), (7, 26, 128), (31, 35, 20), (6, 42, 300), (200, 4, 48), (100, 13, 16),
    (1, 40, 1), (3, 70, 1), (40, 3, 1), (25, 16, 1), (4, 5, 0), (400, 9, 40), (3, 600, 30),
]  # fmt: skip


def fma(a, b, c):
    """a * b + c in float32, rounded once: the float64 sum is rounded to odd, so that a second rounding does no harm."""
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    s = product + c
    back = s - product
    lost = (product - (s - back)) + (c - back)
    bits = s.view(np.int64)
    odd = (bits + np.where((lost > 0) == (s > 0), 1, -1)).view(np.float64)
    return np.where((lost != 0) & (bits & 1 == 0), odd, s).astype(np.float32)


def expected(a, b, beta, c, fused):
    c = np.float32(beta) * c if beta else np.zeros_like(c)
    for begin in range(0, a.shape[1], CHUNK):
        sums = np.zeros_like(c)
        for k in range(begin, min(begin + CHUNK, a.shape[1])):
            x, y = a[:, k : k + 1], b[k]
            sums = fma(x, y, sums) if fused else x * y + sums
        c = sums if begin == 0 and not beta else c + sums
    return c


def placed(values, offset):
    """A copy that begins `offset` floats behind a cache line, between guards; and all of it."""
    whole = np.full(values.size + 96, GUARD, np.float32)
    begin = 16 + -(whole.ctypes.data // 4) % 16 + offset
    there = whole[begin : begin + values.size].reshape(values.shape)
    there[...] = values
    return there, whole


@pytest.mark.parametrize("name", CPU)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_order_of_sums(name, shape, rng):
    M, N, K = shape
    target = LOADED[name]
    fused = name != "base" or platform.machine() in ("aarch64", "arm64")
    a, b, c = (rng.standard_normal(s, np.float32) for s in ((M, K), (K, N), (M, N)))
    before = target.get_num_threads()
    try:
        for beta in (0.0, 0.5):
            wanted = expected(a, b, beta, c, fused)
            for case in range(8):
                trans_a, trans_b, threads = case & 1, case >> 1 & 1, 1 + (case >> 2)
                x, _ = placed(a.T if trans_a else a, int(rng.integers(16)))
                y, _ = placed(b.T if trans_b else b, int(rng.integers(16)))
                out, whole = placed(c if beta else np.full_like(c, np.nan), int(rng.integers(16)))
                target.set_num_threads(threads)
                target.matmul(x, y, bool(trans_a), bool(trans_b), beta, out)
                how = f"beta {beta}, trans_a {trans_a}, trans_b {trans_b}, threads {threads}"
                np.testing.assert_array_equal(out, wanted, err_msg=how)
                assert np.count_nonzero(whole != GUARD) == out.size, how
    finally:
        target.set_num_threads(before)


@pytest.mark.parametrize("name", CPU)
@pytest.mark.parametrize("outputs", [1, 2, 3, 5, 8, 9, 10, 18, 26, 40])
def test_a_bad_row_stays_alone(name, outputs, rng):
    """Rows share vectors where columns are few."""
    target = LOADED[name]
    a, b = rng.standard_normal((37, 70), np.float32), rng.standard_normal((70, outputs), np.float32)
    bad = a.copy()
    bad[5, 3], bad[20, 69] = np.nan, np.inf
    good = np.setdiff1d(np.arange(37), [5, 20])
    for trans_a in (False, True):
        for trans_b in (False, True):
            y = np.ascontiguousarray(b.T) if trans_b else b
            clean, dirty = (target.matmul(np.ascontiguousarray(x.T) if trans_a else x, y, trans_a, trans_b) for x in (a, bad))
            np.testing.assert_array_equal(dirty[good], clean[good])
            assert not np.isfinite(dirty[[5, 20]]).any()
