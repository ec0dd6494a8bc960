"""The allocator under NumPy's arrays (csrc/pool.cpp)."""

import contextlib
import contextvars
import gc
import os
import resource
import subprocess
import sys
import threading

import numpy as np
import pytest

from fastdl import _runtime

pytestmark = pytest.mark.skipif(not _runtime.pool_enabled(), reason="FASTDL_POOL=0")


@pytest.fixture
def pool():
    """The allocator with nothing kept; its limit is put back."""
    gc.collect()
    _runtime.empty_cache()
    limit = _runtime.pool_statistics()["limit_bytes"]
    yield _runtime
    _runtime.set_pool_limit(limit)


@contextlib.contextmanager
def pooled(pool):
    previous = pool.pool_enter()
    try:
        yield
    finally:
        pool.pool_leave(previous)


def handler_name(array):
    return np._core.multiarray.get_handler_name(array)


def test_context_sets_and_restores(pool):
    before = np.empty(10)
    with pooled(pool):
        inside = np.empty(10)
        with pooled(pool):
            pass
        still = np.empty(10)
    after = np.empty(10)
    names = [handler_name(a) for a in (before, inside, still, after)]
    assert names == ["default_allocator", "fastdl", "fastdl", "default_allocator"]


def test_alignment_and_contents(pool):
    rng = np.random.default_rng(0)
    sizes = [1, 2, 63, 64, 65, 4095, 4096, 4097, 4608, 4609, 8192, 8193, 131071, 131073, 2**21 - 64, 2**21 + 1]
    with pooled(pool):
        for _ in range(3):
            live = []
            for size in sizes + list(rng.integers(1, 3_000_000, 40)):
                a = np.empty(size, np.uint8)
                assert a.ctypes.data % 64 == 0
                a[:] = size % 251
                live.append(a)
            for a in live:
                assert (a == a.size % 251).all()


def test_zeros_are_zero_after_use(pool):
    with pooled(pool):
        for size in (100, 4096, 5000, 100_000, 3_000_000):
            a = np.empty(size, np.uint8)
            a[:] = 255
            del a
            assert not np.zeros(size, np.uint8).any()


def test_outlives_its_context_and_may_be_freed_anywhere(pool):
    use = pool.pool_statistics()["bytes_in_use"]
    with pooled(pool):
        kept = [np.arange(n, dtype=np.int64) for n in (5, 1000, 300_000)]
    assert all((a == np.arange(a.size)).all() for a in kept)
    assert pool.pool_statistics()["bytes_in_use"] > use
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert pool.pool_statistics()["bytes_in_use"] == use


@pytest.mark.parametrize("start", [1, 500, 600, 20_000, 300_000])
@pytest.mark.parametrize("end", [0, 1, 512, 513, 550, 40_000, 400_000])
def test_resize(pool, start, end):
    with pooled(pool):
        a = np.arange(start, dtype=np.int64)
    a.resize(end, refcheck=False)
    same = min(start, end)
    assert (a[:same] == np.arange(same)).all() and not a[same:].any()
    assert a.ctypes.data % 64 == 0


def test_hits_misses_and_limit(pool):
    with pooled(pool):
        first = pool.pool_statistics()
        del_me = np.empty(100_000, np.uint8)
        assert pool.pool_statistics()["misses"] == first["misses"] + 1
        capacity = pool.pool_statistics()["bytes_in_use"] - first["bytes_in_use"]
        assert 100_000 <= capacity <= 112_500 + 64
        del del_me
        assert pool.pool_statistics()["bytes_cached"] == capacity
        again = np.empty(100_000, np.uint8)
        assert pool.pool_statistics()["hits"] == first["hits"] + 1
        del again
        pool.set_pool_limit(3 * capacity)
        held = [np.empty(100_000, np.uint8) for _ in range(10)]
        held.clear()
        assert pool.pool_statistics()["bytes_cached"] == 3 * capacity
        old = np.empty(50_000, np.uint8)
        del old  # the oldest makes way
        assert pool.pool_statistics()["bytes_cached"] < 3 * capacity
        huge = np.empty(10_000_000, np.uint8)
        del huge  # more than the limit: goes itself
        assert 0 < pool.pool_statistics()["bytes_cached"] <= 3 * capacity
        pool.empty_cache()
        assert pool.pool_statistics()["bytes_cached"] == 0


def test_steady_loop_takes_no_page_faults(pool):
    def step():
        live = [np.ones(n, np.float32) for n in (1000, 20_000, 250_000, 250_000, 1_000_000, 3_000_000)]
        return sum(float(a[-1]) for a in live)

    def faults(count):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            step()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with pooled(pool):
        faults(5)
        with_pool = faults(50)
    without = faults(50)
    assert with_pool <= 50, (with_pool, without)
    print(f"page faults in 50 steps: {with_pool} with the pool, {without} without")


def test_threads(pool):
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        with pooled(pool):
            live = []
            for i in range(3000):
                a = np.full(int(2 ** rng.uniform(0, 16)), i, np.int32)
                live.append((i, a))
                if len(live) > 20:
                    j, b = live.pop(int(rng.integers(20)))
                    if not (b == j).all():
                        wrong.append(seed)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_context_is_local(pool):
    names = []
    with pooled(pool):
        thread = threading.Thread(target=lambda: names.append(handler_name(np.empty(3))))
        thread.start()
        thread.join()
        inner = contextvars.copy_context()
    names += [inner.run(lambda: handler_name(np.empty(3))), handler_name(np.empty(3))]
    # A new thread starts with an empty context, or (free-threaded Python) with a copy of ours.
    assert names[0] in ("default_allocator", "fastdl") and names[1:] == ["fastdl", "default_allocator"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_other_threads_allocate(pool):
    stop = threading.Event()

    def churn():
        with pooled(pool):
            while not stop.is_set():
                [np.empty(n, np.uint8) for n in (10, 5000, 200_000)]

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(30):
            child = os.fork()
            if child == 0:
                try:
                    import signal

                    signal.alarm(20)
                    with pooled(pool):
                        ok = all((np.full(n, 7, np.uint8) == 7).all() for n in (10, 5000, 200_000, 5_000_000))
                    os._exit(0 if ok else 1)
                finally:
                    os._exit(2)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


def test_impossible_sizes(pool):
    with pooled(pool), pytest.raises((MemoryError, ValueError)):
        np.empty(2**61, np.uint8)
    with pooled(pool), pytest.raises((MemoryError, ValueError)):
        np.zeros(2**48, np.float64)
    with pooled(pool):
        assert np.empty((0, 5)).size == 0 and np.zeros(0).sum() == 0


def test_turned_off_by_environment():
    code = (
        "import numpy as np\n"
        "from fastdl import _runtime as m\n"
        "p = m.pool_enter(); name = np._core.multiarray.get_handler_name(np.empty(3)); m.pool_leave(p)\n"
        "assert p is None and name == 'default_allocator', (p, name)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env={**os.environ, "FASTDL_POOL": "0"})


@pytest.mark.parametrize("word", ["maybe", "2", "", "1"])
def test_other_words_in_the_environment_are_refused(word):
    code = [sys.executable, "-P", "-c", "import fastdl"]
    done = subprocess.run(code, capture_output=True, text=True, env={**os.environ, "FASTDL_POOL": word})
    if word in ("", "1"):
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1] == f"ImportError: FASTDL_POOL: expected 0 or 1; got '{word}'"
