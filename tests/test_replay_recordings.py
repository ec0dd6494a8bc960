"""Recordings of kernel calls (csrc/replay.cpp) and the memory that they hold (csrc/pool.cpp)."""

import gc
import threading
import weakref

import numpy as np
import pytest

import fastdl
from fastdl import _runtime, backend, kernels, nn, ops, optim, train
from replayed import batches, network

# ------------------------------------------------------------------------------------------------------------- recordings


def test_other_threads_are_not_recorded():
    k, x = backend.cpu, np.ones((2, 2), np.float32)
    y = np.empty_like(x)
    k.record()
    thread = threading.Thread(target=lambda: k.unary_forward(x, "square", y))
    thread.start()
    thread.join()
    assert k.recorded((x,), x) is None  # nothing was called


def test_a_recording_by_hand():
    k = backend.cpu
    x, z = np.full((2, 3), 3.0, np.float32), np.empty((2, 3), np.float32)
    k.record()
    y = k.unary_forward(x, "square")
    k.axpby(2.0, y, 0.0, z)
    run = k.recorded((x,), z)
    assert run(x, 0) == 18.0
    other = np.full((2, 3), 5.0, np.float32)
    assert run(other, 0) == 50.0 and (z == 50.0).all()
    for wrong in (other[:1], other.astype(np.float64), other.T, [1.0]):
        assert run(wrong, 0) is None
    with pytest.raises(TypeError, match="expected 1 arrays and an offset; got 1"):
        run(x)
    with pytest.raises(TypeError):
        run(x, "a")


def test_part_of_an_input_follows_it():
    k = backend.cpu
    x, z = np.arange(6, dtype=np.float32).reshape(3, 2), np.empty(2, np.float32)
    k.record()
    k.axpby(1.0, x[1], 0.0, z)
    run = k.recorded((x,), z)
    assert run(x + 10, 0) == 12.0 and z[1] == 13.0


def test_offsets_move_on():
    k, z = backend.cpu, np.empty(5, np.float32)
    k.record()
    k.uniform(0.0, 1.0, 7, 8, z)
    run = k.recorded((), z)
    run(100)
    assert np.array_equal(z, kernels.uniform(0.0, 1.0, 7, 108, np.empty(5, np.float32)))


def test_what_looks_at_values_is_not_replayed():
    k = backend.cpu
    x = np.zeros((2, 1, 3), np.float32)
    k.record()
    k.ctc_forward(np.zeros((1, 2, 3), np.float32), np.array([[1]]), np.array([2]), np.array([1]))
    assert k.recorded((x,), x) is None


def test_indices_that_are_made_on_the_way_are_not_there_yet_when_a_replay_looks_at_them():
    k, x, table = backend.cpu, np.eye(3, dtype=np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    k.record()
    y = k.embedding_forward(table, k.argmax(x.reshape(3, 3, 1)).reshape(3))
    assert k.recorded((x,), y) is None
    index = np.arange(3)
    k.record()
    y = k.embedding_forward(table, index)  # not of the batch, and there
    run = k.recorded((x,), y)
    index[0] = 2
    assert run(x, 0) == table[2, 0]
    index[1] = 3
    with pytest.raises(ValueError, match="index: expected integers from 0 to 2; got 3"):
        run(x, 0)


def test_a_batch_that_kernels_write_to_is_not_replayed():
    k, x = backend.cpu, np.full((2, 3), 3.0, np.float32)
    k.record()
    y = k.unary_forward(x, "square", x)
    assert k.recorded((x,), y) is None


def test_random_numbers_from_elsewhere():
    k, z = backend.cpu, np.empty(5, np.float32)
    for drawn, found in (((7, 8, 8), True), ((7, 0, 8), True), ((6, 8, 8), False), ((7, 12, 8), False), ((7, 0, 4), False)):
        k.record()
        k.uniform(0.0, 1.0, 7, 8, z)
        assert (k.recorded((), z, *drawn) is not None) == found
    with pytest.raises(TypeError):
        k.recorded((), z, 7, 8)


def test_a_recording_inside_another_one():
    k, x = backend.cpu, np.full((2, 3), 3.0, np.float32)
    assert k.record() and not k.record()
    y = k.unary_forward(x, "square")
    assert k.recorded((x,), y) is None
    k.record()
    run = k.recorded((x,), k.unary_forward(x, "square"))
    k.record()
    run(x, 0)  # not through the border
    assert k.recorded((x,), k.unary_forward(x, "square")) is None


def test_two_threads_do_not_run_one_recording_at_once():
    k, x = backend.cpu, np.ones((500, 500), np.float32)
    k.record()
    between = k.matmul(x, x), np.empty_like(x)
    y = k.matmul(k.matmul(between[0], x, c=between[1]), x)
    run = k.recorded((x,), y)
    got = []
    threads = [threading.Thread(target=lambda: got.extend(run(x, 0) for _ in range(20))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None in got and set(got) == {None, 500.0**3}


def test_snapshots_compare_objects():
    parameter, numbers, own = nn.Dense(2, inputs=3).w, [1.5, 2.5], {"a": 1000.5}
    parameter.data, parameter.beta = np.zeros((3, 2), np.float32), 1.0
    objects = (own, numbers, parameter, (1, 2))
    then = _runtime.snapshot(objects)
    assert _runtime.unchanged(objects, then)
    for change, back in (
        (lambda: own.update(a=float("1000.5")), lambda: own.update(a=then[0][1])),
        (lambda: own.update(b=1), lambda: own.pop("b")),
        (lambda: numbers.append(1), numbers.pop),
        (lambda: numbers.reverse(), lambda: numbers.reverse()),
        (lambda: setattr(parameter, "data", parameter.data.copy()), lambda: setattr(parameter, "data", then[2][0])),
        (lambda: setattr(parameter, "wants_grad", False), lambda: setattr(parameter, "wants_grad", True)),
        (lambda: setattr(parameter, "beta", 0.0), lambda: setattr(parameter, "beta", 1.0)),
    ):
        change()
        assert not _runtime.unchanged(objects, then)
        back()
        assert _runtime.unchanged(objects, then)
    with pytest.raises(TypeError, match="expected dicts, lists, tuples and Tensors; got int"):
        _runtime.snapshot((1,))
    with pytest.raises(TypeError, match="snapshot"):
        _runtime.unchanged((own,), then)


# ---------------------------------------------------------------------------------------------------------------- memory


def test_memory_ends_with_the_step():
    gc.collect()
    before = _runtime.pool_statistics()["bytes_in_use"]
    net = nn.Sequential(nn.Dense(300, "relu"), nn.Dense(3)).build((200,), seed=0).train()
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 200), np.float32), rng.integers(0, 3, 64)
    step(x, y)
    held = _runtime.pool_statistics()["bytes_in_use"] - before
    for _ in range(5):
        step(x, y)
    assert held > 64 * 300 * 4
    assert _runtime.pool_statistics()["bytes_in_use"] - before == held
    del step
    gc.collect()
    assert _runtime.pool_statistics()["bytes_in_use"] == before


def test_arrays_of_a_recorded_step_outlive_it():
    kept = []

    def loss(output, target):
        kept.append(output.data)
        return ops.softmax_cross_entropy(output, target)

    loss.replayable = True
    net = network("Dense")
    step = train.Step(net, loss, optim.SGD(net))
    x, y = next(batches("Dense"))
    step(x, y)
    value = kept[0].copy()
    run = weakref.ref(step)
    del step
    gc.collect()
    assert run() is None
    junk = [np.full(kept[0].shape, 7, np.float32) for _ in range(50)]
    assert np.array_equal(kept[0], value)
    del junk


def test_the_weights_of_before_outlive_a_new_flat_vector():
    net = network("Dense")
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    x, y = next(batches("Dense"))
    step(x, y)
    for layer in net.layers:
        layer.w.data = layer.w.data.copy()  # the vector behind them is another's now
    gc.collect()
    assert np.isfinite(step(x, y))


def test_an_arena_gives_its_memory_to_nobody_else():
    arena = _runtime.new_arena()
    outer = _runtime.arena_enter(arena)
    try:
        a = np.empty(1000, np.float32)
        at = a.ctypes.data
        del a
        b = np.empty(1000, np.float32)
        assert b.ctypes.data == at and _runtime.arena_bytes(arena) == 4000
        c = np.zeros(5000, np.uint8)
        assert not c.any()
        c.resize(300_000, refcheck=False)
        c[:] = 1
        del b, c
    finally:
        _runtime.pool_leave(outer)
    with fastdl.pooled():
        others = [np.empty(1000, np.float32) for _ in range(20)]
    assert at not in {o.ctypes.data for o in others}
    with pytest.raises(ValueError, match="PyCapsule"):
        _runtime.arena_bytes(backend.cpu.ADDRESSES["matmul"])


def test_an_array_that_grows_leaves_the_arena():
    arena = _runtime.new_arena()
    outer = _runtime.arena_enter(arena)
    try:
        at = np.empty(1000, np.float32).ctypes.data  # free again, to a replay's use
        kept = np.empty(10, np.float32)
    finally:
        _runtime.pool_leave(outer)
    kept.resize(1000, refcheck=False)
    assert kept.ctypes.data != at


def test_an_arena_that_has_grown_too_large_keeps_nothing():
    arena = _runtime.new_arena(20_000)
    in_use = [_runtime.pool_statistics()["bytes_in_use"]]
    outer = _runtime.arena_enter(arena)
    try:
        for floats in (4000, 5000, 6000):
            a = np.empty(floats, np.float32)
            del a
            in_use.append(_runtime.pool_statistics()["bytes_in_use"])
    finally:
        _runtime.pool_leave(outer)
    assert in_use[0] < in_use[1] == in_use[2] == in_use[3]
