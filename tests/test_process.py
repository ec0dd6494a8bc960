"""Processes and threads: forks, spawned children, callers at once, environment variables, memory."""

import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastdl
from fastdl import backend, kernels

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
# A fork is what these tests are about; Python 3.12 and newer warn of it where there are threads.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    x, w, dy = (rng.standard_normal(s).astype(np.float32) for s in ((300, 257), (257, 190), (300, 190)))
    return x, w, dy


def work(seed=0):
    """A forward and a backward pass, large enough to be shared among threads."""
    x, w, dy = inputs(seed)
    y = kernels.dense_forward(x, w, None, "tanh")
    return [y, *kernels.dense_backward(x, w, y, dy, "tanh")]


def fingerprint(arrays):
    return b"".join(a.tobytes() for a in arrays if a is not None)


@pytest.fixture(autouse=True)
def threads():
    """Three threads, so that there are helpers on a machine with one core too."""
    before = fastdl.get_num_threads()
    fastdl.set_num_threads(3)
    yield
    fastdl.set_num_threads(before)


# -------------------------------------------------------------------------------------------------------- forks


def in_fork(function, seconds=60):
    """Whether function() is true in a forked child; a child that hangs is ended by its alarm."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            signal.alarm(seconds)
            code = 0 if function() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
def test_fork_after_use():
    expected = fingerprint(work())
    for _ in range(5):
        assert in_fork(lambda: fingerprint(work()) == expected) == 0
    assert fingerprint(work()) == expected


@forks
def test_fork_tells_a_difference():  # so the test above can fail
    expected = fingerprint(work(seed=1))
    assert in_fork(lambda: fingerprint(work()) == expected) == 1


@forks
def test_fork_of_a_fork():
    expected = fingerprint(work())

    def same():
        return fingerprint(work()) == expected

    assert in_fork(lambda: same() and in_fork(same) == 0) == 0


@forks
def test_fork_while_another_thread_computes():
    expected, stop = fingerprint(work()), threading.Event()

    def churn():
        with fastdl.pooled():
            while not stop.is_set():
                work()

    other = threading.Thread(target=churn)
    other.start()
    try:
        for _ in range(10):
            assert in_fork(lambda: fingerprint(work()) == expected) == 0
    finally:
        stop.set()
        other.join()


@forks
def test_fork_inside_pooled():
    with fastdl.pooled():
        expected = fingerprint(work())
        assert in_fork(lambda: fingerprint(work()) == expected) == 0


def spawned(queue):
    queue.put(fingerprint(work()))


def test_spawn():
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=spawned, args=(queue,))
    child.start()
    got = queue.get()
    child.join(60)
    assert child.exitcode == 0
    assert got == fingerprint(work())


# ------------------------------------------------------------------------------------------------------ threads


def test_two_python_threads_at_once():
    expected = [fingerprint(work(seed)) for seed in range(2)]
    wrong, gate = [], threading.Barrier(2)

    def repeat(seed):
        gate.wait()
        for _ in range(40):
            if fingerprint(work(seed)) != expected[seed]:
                wrong.append(seed)

    callers = [threading.Thread(target=repeat, args=(seed,)) for seed in range(2)]
    [c.start() for c in callers]
    [c.join() for c in callers]
    assert wrong == []
    assert expected[0] != expected[1]


FIRST_CALLS = """
import sys, threading
import numpy as np
from fastdl import kernels

gate = threading.Barrier(4)

def call():
    x = np.ones((3, 4), np.float32)
    gate.wait()
    kernels.softmax_forward(x)

sys.setswitchinterval(1e-6)
callers = [threading.Thread(target=call) for _ in range(4)]
[c.start() for c in callers]
[c.join() for c in callers]
"""


def test_first_calls_of_several_threads_at_once():
    environment = {**os.environ, "FASTDL_TARGET": backend.target}  # so that no target is tried out while fastdl loads
    for _ in range(8):
        subprocess.run([sys.executable, "-c", FIRST_CALLS], env=environment, check=True, timeout=60)


def test_gil_is_released_for_long_work():
    """While one thread is in a long kernel, another one goes on in Python."""
    x = np.ones((1200, 1200), np.float32)
    done, ticks = threading.Event(), []

    def compute():
        kernels.matmul(x, x)
        done.set()

    fastdl.set_num_threads(1)
    thread = threading.Thread(target=compute)
    thread.start()
    while not done.is_set():
        ticks.append(1)
        done.wait(0.001)
    thread.join()
    assert len(ticks) > 3


@pytest.mark.parametrize("count", [1, 2, 7, 512])
def test_set_num_threads(count):
    fastdl.set_num_threads(count)
    assert fastdl.get_num_threads() == count


@pytest.mark.parametrize("bad", [0, -1, 513, 10**6])
def test_set_num_threads_refuses(bad):
    with pytest.raises(ValueError, match="threads: expected .*; got " + str(bad)):
        fastdl.set_num_threads(bad)


@pytest.mark.parametrize("bad", [2.5, "2", None])
def test_set_num_threads_takes_integers(bad):
    with pytest.raises(TypeError, match="threads: expected an integer; got " + type(bad).__name__):
        fastdl.set_num_threads(bad)


def count_in_new_process(**environment):
    clean = {k: v for k, v in os.environ.items() if k not in ("FASTDL_NUM_THREADS", "OMP_NUM_THREADS")}
    code = "import fastdl; print(fastdl.get_num_threads(), fastdl.backend.cpu.default_num_threads()[1])"
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120,
                          env={**clean, **environment})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FASTDL_NUM_THREADS": "3"}, "3 FASTDL_NUM_THREADS"),
        ({"FASTDL_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, "3 FASTDL_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "5"}, "5 OMP_NUM_THREADS"),
        ({"FASTDL_NUM_THREADS": "", "OMP_NUM_THREADS": "5,2"}, "5 OMP_NUM_THREADS"),
    ],
)
def test_number_of_threads_from_the_environment(environment, expected):
    done = count_in_new_process(**environment)
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("bad", ["0", "-2", "two", "2x", "1e3", "513"])
def test_bad_number_of_threads_is_refused(bad):
    done = count_in_new_process(FASTDL_NUM_THREADS=bad)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(f"FASTDL_NUM_THREADS: expected an integer from 1 to 512; got '{bad}'")


def test_affinity_bounds_the_default():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity here")
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}])\nimport fastdl; print(fastdl.get_num_threads())"
    clean = {k: v for k, v in os.environ.items() if k not in ("FASTDL_NUM_THREADS", "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, env=clean)
    assert done.stdout.strip() == "1", done.stderr


# ------------------------------------------------------------------------------------------------------- memory


def test_pooled_arrays_outlive_the_context():
    with fastdl.pooled():
        kept = work()
        copies = [None if a is None else a.copy() for a in kept]
    fastdl.empty_cache()
    with fastdl.pooled():
        work(seed=1)  # would write over memory that was given back too early
    for a, b in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(a, b)


def page_faults(step, count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def make_step():
    """Outputs of 35 MB: beyond 32 MB the C library asks the system for memory each time."""
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(s, np.float32) for s in ((512, 16), (16, 17000), (512, 17000)))

    def step():
        y = kernels.dense_forward(x, w, None, "relu")
        kernels.dense_backward(x, w, y, dy, "relu")

    return step


@pytest.mark.skipif(os.environ.get("FASTDL_POOL") == "0", reason="FASTDL_POOL=0")
def test_steady_step_takes_no_page_faults():
    step = make_step()
    without = page_faults(step, 10)
    with fastdl.pooled():
        page_faults(step, 5)
        # The system takes pages away from a process now and then; what a step takes, it takes every time.
        steady = min(page_faults(step, 10) for _ in range(3))
    assert steady <= 5, f"{steady} page faults in 10 steps, {without} without the pool"
    assert without >= 100, f"{without} page faults in 10 steps without the pool: expected more than this test could miss"


# --------------------------------------------------------------------------------------------- the pool in C++


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("sanitizer", ["none", "thread"])
def test_thread_pool_in_cpp(tmp_path, sanitizer):
    program = tmp_path / "threads_test"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-pthread"]
    flags += ["-g", f"-fsanitize={sanitizer}"] if sanitizer != "none" else []
    sources = [ROOT / "tests/cpp/threads_test.cpp", ROOT / "csrc/threads.cpp", ROOT / "csrc/thread_count.cpp"]
    command = [COMPILER, *flags, "-I", ROOT / "csrc", *sources, "-o", program]
    built = subprocess.run(command, capture_output=True, text=True)
    if sanitizer != "none" and "cannot find" in built.stderr:
        pytest.skip(f"the compiler has no -fsanitize={sanitizer}")
    assert built.returncode == 0, built.stderr
    command = [program] if sanitizer == "none" else [program, "brief"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    # one check of the program needs a second core that idles, and says so where there is none
    assert done.returncode == 0 and done.stdout.endswith("ok\n"), done.stdout + done.stderr[-4000:]


def test_targets_share_one_setting():
    for name in backend.runnable():
        backend.load(name)
    fastdl.set_num_threads(2)
    assert {m.get_num_threads() for m in backend._loaded.values()} == {2}
