"""The emulator of CUDA devices: it finds planted mistakes, and the kernels give the same bits in every order of threads.

`tests/cpp/planted.cu` has the mistakes. It is compiled three times: as it is, instrumented for races and uninitialised
reads (cuda/emu/race.cpp), and with the address and undefined-behaviour sanitizers.
"""

import importlib
import importlib.util
import os
import pathlib
import platform
import re
import shutil
import subprocess

import numpy as np
import pytest

from cases import ROWS, row_id
from test_kernels import buffers, prepare, run

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CXX") or shutil.which("g++")
ORDERS = [("forward", "late"), ("reverse", "early"), ("random", "random")]


def module(name):
    """A module of the emulator, or None where it is not built."""
    return importlib.import_module(f"fastdl.{name}") if importlib.util.find_spec(f"fastdl.{name}") else None


# ----------------------------------------------------------------------------------------------------- planted mistakes

FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-Wno-unknown-pragmas", "-pthread", *(
    f"-I{ROOT / folder}" for folder in ("cuda/emu", "cuda", "csrc")),
    *(["-march=x86-64-v3"] if platform.machine() == "x86_64" else [])]  # fmt: skip
EMULATOR = ["cuda/launch.cu", "cuda/emu/emulator.cpp", "cuda/emu/device.cpp", "csrc/threads.cpp", "csrc/thread_count.cpp"]
# What is compiled with which flags; the objects of one program are linked together.
PROGRAMS = {
    "plain": [([*EMULATOR, "tests/cpp/planted.cu"], [])],
    "asan": [([*EMULATOR, "tests/cpp/planted.cu"],
              ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"])],
    "race": [([*EMULATOR, "cuda/emu/race.cpp"], ["-DFASTDL_EMU_RACE"]),
             (["tests/cpp/planted.cu"],
              ["-DFASTDL_EMU_RACE", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"])],
}  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The compiled programs, by name."""
    if COMPILER is None or "clang" in pathlib.Path(COMPILER).name:
        pytest.skip("no g++")
    folder = tmp_path_factory.mktemp("planted")
    paths, compiling = {}, []
    for name, groups in PROGRAMS.items():
        objects = []
        for sources, flags in groups:
            for source in sources:
                objects.append(folder / f"{name}-{pathlib.Path(source).stem}.o")
                command = [COMPILER, *FLAGS, *flags, "-xc++", "-c", ROOT / source, "-o", objects[-1]]
                compiling.append(subprocess.Popen(command))
                if len(compiling) >= 2:
                    assert compiling.pop(0).wait() == 0
        paths[name] = folder / name, objects
    assert all(process.wait() == 0 for process in compiling)
    for name, (path, objects) in paths.items():
        sanitize = [f for f in PROGRAMS[name][0][1] if f.startswith("-fsanitize")]
        subprocess.run([COMPILER, *sanitize, *objects, "-pthread", "-o", path], check=True)
    return {name: path for name, (path, _) in paths.items()}


def outcome(program, bug, order="forward", copies="late"):
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS")}
    done = subprocess.run([program, bug, order, copies], capture_output=True, text=True, timeout=60, env=environment)
    return done.stdout + done.stderr


# Mistake: {program: what it says}. In each the mistake must show.
PLANTED = {
    "no_barrier_after_load": {"plain": "wrong result", "race": "uninitialised read: shared memory"},
    "no_barrier_before_load": {"plain": "wrong result", "race": r"race: shared memory, byte \d+: written by thread"},
    "shared_overrun": {"plain": r"shared memory: written \d+ bytes past the end", "asan": "heap-buffer-overflow"},
    "far_shared_overrun": {"plain": r"shared memory: written \d+ bytes past the end", "asan": "heap-buffer-overflow"},
    "global_overrun": {"asan": "heap-buffer-overflow"},
    "uninitialised": {"race": r"uninitialised read: shared memory, byte \d+ of 2048, by thread"},
    "weak_wait": {"plain": "wrong result", "race": "uninitialised read: shared memory"},
    "no_double_buffer_barrier": {"race": "race: shared memory"},
    "divergent_return": {"plain": r"divergent barrier: 80 threads wait at planted.cu:\d+, 176 have returned"},
    "two_barriers": {"plain": r"divergent barrier: some threads wait at planted.cu:\d+, others at planted.cu:\d+"},
    "arch_guard": {"plain": "mma: traps before sm_80"},
    "off_by_one": {"asan": "heap-buffer-overflow"},
    "shuffle_mask": {"plain": "lanes 80000000 of mask ffffffff never come; lane 31 has returned"},
    "shuffle_as_barrier": {"race": "race: shared memory"},
    "shuffle_source": {"plain": "lane 15 reads lane 16, which mask 0000ffff leaves out"},
    "reduction_barrier": {"plain": "wrong result", "race": "(race|uninitialised read): shared memory"},
    "blocks_race": {"race": "race: global memory: written by block 0, written by block 1 of one launch"},
    "too_many_threads": {"plain": "invalid configuration argument"},
    "shared_size": {"plain": "shared memory: launched with 2044 bytes, used as 2048"},
    "misaligned": {"plain": "asynchronous copy of 4 bytes: an address is not aligned to 4"},
    "lost_atomic": {"race": r"race: global memory: written by thread \d+, (read|written) by thread \d+ of one block"},
}


def test_every_planted_mistake_is_listed(programs):
    assert set(outcome(programs["plain"], "?").split()) == {"none", *PLANTED}


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_mistakes_are_found(programs, bug):
    for program, words in PLANTED[bug].items():
        said = outcome(programs[program], bug)
        assert re.search(words, said), (program, said)


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_a_mistake_nothing_is_found(programs, program):
    for order, copies in ORDERS:
        assert outcome(programs[program], "none", order, copies).strip() == "right", (order, copies)


@pytest.mark.parametrize(
    ("bug", "hidden", "shown"),
    [
        ("weak_wait", ("forward", "early"), ("forward", "late")),
        ("reduction_barrier", ("reverse", "late"), ("forward", "late")),
    ],
)
def test_why_there_are_several_orders(programs, bug, hidden, shown):
    assert outcome(programs["plain"], bug, *hidden).strip() == "right"
    assert outcome(programs["plain"], bug, *shown).strip() == "wrong result"


GUARD = re.compile(r"#\s*(if|ifdef|ifndef|elif|else|endif)\b(.*)")


def open_guards(text):
    """Lines with a condition on the architecture that has no #else: on others the code would vanish without a word."""
    found, stack = [], []
    for number, line in enumerate(text.splitlines(), 1):
        match = GUARD.match(line.strip())
        if not match:
            continue
        kind, condition = match.groups()
        if kind in ("if", "ifdef", "ifndef"):
            stack.append([number, "__CUDA_ARCH__" in condition, False])
        elif kind == "elif":
            stack[-1][1] |= "__CUDA_ARCH__" in condition
        elif kind == "else":
            stack[-1][2] = True
        else:
            start, by_architecture, complete = stack.pop()
            if by_architecture and not complete:
                found.append(start)
    return found


def test_no_code_vanishes_on_an_architecture():
    allowed = {"warp.cuh": 1}  # copy_async_commit and copy_async_wait: there is nothing to wait for before sm_80
    assert open_guards("#if __CUDA_ARCH__ >= 800\nmma();\n#endif") == [1]
    assert open_guards("#if __CUDA_ARCH__ >= 800\nmma();\n#else\n__trap();\n#endif") == []
    for path in sorted((ROOT / "cuda").glob("*.cu*")):
        assert len(open_guards(path.read_text())) <= 2 * allowed.get(path.name, 0), path.name


# ------------------------------------------------------------------------------------------------ the kernels' table


def size(inputs):
    return sum(np.size(v) for v in inputs.values() if isinstance(v, np.ndarray))


def small_rows(count, most):
    """Of each kernel the rows that hold at most so many elements, at most `count`: the largest of them, and ragged ones."""
    chosen, rng = [], np.random.default_rng(0)
    kernels = {}
    for row in ROWS:
        kernels.setdefault(row[0].kernel, []).append(row)
    for rows in kernels.values():
        sized = sorted(((size(case.make(rng, **sizes)), i) for i, (case, sizes) in enumerate(rows)), reverse=True)
        fit = [i for n, i in sized if n <= most] or [sized[-1][1]]
        chosen += [rows[i] for i in fit[:count]]
    return chosen


emu = pytest.mark.skipif(module("_emu") is None, reason="no emulator (built with FASTDL_TEST_TARGETS=ON)")
race = pytest.mark.skipif(module("_race") is None, reason="no race detector (built with FASTDL_TEST_TARGETS=ON)")


@emu
@pytest.mark.parametrize("row", small_rows(3, 6000), ids=row_id)
def test_the_order_of_threads_changes_no_bit(row, rng):
    case, sizes = row
    _emu = module("_emu")
    inputs, expected, _ = prepare(case, sizes, rng)
    results = []
    for seed, (order, copies) in enumerate([*ORDERS, ("random", "late")]):
        before = _emu.emulate(order, copies, seed)
        try:
            results.append(run(_emu, case, inputs, buffers(case, _emu, inputs, expected, np.zeros)))
        finally:
            _emu.emulate(*before)
    for other in results[1:]:
        for name, array in results[0].items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


@race
@pytest.mark.parametrize("row", small_rows(3, 3000), ids=row_id)
def test_no_kernel_has_a_race(row, rng):
    case, sizes = row
    _race = module("_race")
    inputs, expected, _ = prepare(case, sizes, rng)
    run(_race, case, inputs, buffers(case, _race, inputs, expected, np.zeros))  # a race would be a RuntimeError


@emu
def test_settings_are_checked():
    _emu = module("_emu")
    with pytest.raises(ValueError, match="order: expected forward, reverse or random; got sideways"):
        _emu.emulate("sideways")
    before = _emu.emulate("reverse", "early", 3, 75)
    assert _emu.emulate(*before) == ("reverse", "early", 3, 75)
