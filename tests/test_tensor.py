"""The tape: sharing, depth, freezing, memory, misuse."""

import copy
import gc
import pickle
import sys
import threading
import weakref

import numpy as np
import pytest

import fastdl
from fastdl import Tensor, frozen, inference, nn, ops
from fastdl.tensor import ABSENT, DY, record, record_kernel, recording


def leaf(*values):
    return Tensor(np.array(values, np.float32), wants_grad=True)


@pytest.mark.parametrize("data", [[1.0, 2.0], 3.0], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize(
    "use",
    [
        lambda t, x: t + x,
        lambda t, x: x * t,
        lambda t, x: -t,
        lambda t, x: t / 2.0,
        lambda t, x: t @ x,
        lambda t, x: t.sum(),
        lambda t, x: t.mean(),
        lambda t, x: ops.mean(t, 0),
        lambda t, x: t.reshape((2, 1)),
        lambda t, x: t.shape,
        lambda t, x: t.item(),
        lambda t, x: ops.flatten(t),
        lambda t, x: ops.concatenate([x, t]),
        lambda t, x: ops.dense(t, x),
        lambda t, x: ops.relu(t),
        lambda t, x: ops.exp(t),
        lambda t, x: ops.softmax(t),
        lambda t, x: ops.mse(t, x),
        lambda t, x: ops.conv2d(t, x),
        lambda t, x: ops.global_avg_pool2d(t),
        lambda t, x: ops.max_pool2d(t),
        lambda t, x: ops.layer_norm(t),
        lambda t, x: nn.Dense(2, inputs=2).initialise(0)(t),
        lambda t, x: nn.BatchNorm()(t),
    ],
)
def test_a_tensor_of_what_is_no_array_is_told_where_it_is_used(use, data):
    """Tensors are made too often to be looked at as they are made."""
    t = Tensor(data)
    with pytest.raises(TypeError, match=f"expected a NumPy or C.* array .*; got {type(data).__name__}"):
        use(t, leaf(1.0, 2.0))


def test_value_used_twice_adds_its_gradients():
    x = leaf(2.0, 3.0)
    y = x * x + x
    y.sum().backward()
    np.testing.assert_allclose(x.grad, [5, 7])


def test_same_tensor_as_both_arguments():
    x = leaf(3.0, -2.0)
    (x * x).sum().backward()
    np.testing.assert_allclose(x.grad, [6, -4])
    x.grad, x.beta = None, 0.0
    (x / x).sum().backward()
    np.testing.assert_allclose(x.grad, [0, 0], atol=1e-6)


def test_diamond_runs_each_step_once():
    x = leaf(1.5)
    a = ops.exp(x)
    b, c = a * 2.0, a * a
    (b + c).backward()
    e = np.exp(1.5)
    np.testing.assert_allclose(x.grad, [2 * e + 2 * e * e], rtol=1e-5)


def test_very_deep_graph_needs_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 0.0
    y.backward()
    np.testing.assert_array_equal(x.grad, [1])


def test_a_deep_graph_that_is_never_used_is_freed_without_recursion():
    y = leaf(1.0)
    for _ in range(200_000):
        y = record(y.data, (y,), print)
    del y


def test_every_step_runs_after_all_that_were_made_later():
    ran = []

    def node(name, *parents):
        return record(np.ones(1, np.float32), parents, lambda dy: (ran.append(name), [p.slot() for p in parents]))

    a = node("a", leaf(1.0))
    b = node("b", a)
    c = node("c", a)
    d = node("d", b)
    node("e", c, d, a, b).backward()
    assert ran == ["e", "d", "c", "b", "a"]


def test_a_tensor_with_very_many_ways_to_it_is_visited_once():
    x = leaf(1.0)
    y = x
    for _ in range(100):
        y = y + y
    y.backward()
    assert x.grad == 2.0**100


def test_a_step_that_nothing_flows_to_is_left_out():
    ran = []
    a = record(np.ones(1, np.float32), (leaf(1.0),), ran.append)
    b = record(np.ones(1, np.float32), (a,), lambda dy: None)
    b.backward()
    assert ran == [] and a.grad is None and a.parents == ()


def test_a_failing_step_is_told_and_its_graph_kept():
    def fail(dy):
        raise KeyError("here")

    x = leaf(1.0)
    a = record(np.ones(1, np.float32), (x,), fail)
    b = record(np.ones(1, np.float32), (a,), lambda dy: a.slot())
    with pytest.raises(KeyError, match="here"):
        b.backward()
    assert a.step is fail and a.parents == (x,) and b.parents == ()


def test_a_graph_inside_the_step_of_another():
    x = leaf(2.0)

    def step(dy):
        inner = leaf(*x.data)
        (inner * inner).backward(dy)
        x.slot()[0][...] = inner.grad

    (record(x.data * x.data, (x,), step) * 3.0).backward()
    np.testing.assert_array_equal(x.grad, [12])


def test_what_is_no_tensor_cannot_be_a_parent():
    with pytest.raises(TypeError, match="parents: expected Tensors; got numpy.ndarray"):
        record(np.ones(1, np.float32), (np.ones(1, np.float32),), print)
    with pytest.raises(TypeError, match="record: expected data, parents, step; got 2 arguments"):
        record(np.ones(1, np.float32), ())
    with pytest.raises(TypeError, match="step: expected a function; got tuple"):
        record(np.ones(1, np.float32), (leaf(1.0),), (print, DY))
    with pytest.raises(AttributeError):
        leaf(1.0).step = (print,)


def test_a_tensor_without_an_array_has_no_slot():
    x = leaf(1.0)
    del x.data
    with pytest.raises(AttributeError, match="data: expected a tensor with an array; got one without"):
        x.slot()
    empty = Tensor.__new__(Tensor)
    empty.wants_grad = True
    with pytest.raises(AttributeError, match="data: expected"):
        record_kernel(np.ones(1, np.float32), print, DY, empty).backward()


def test_a_kernel_is_called_with_the_gradient_and_a_slot_for_each_tensor():
    calls = []

    def kernel(*args):
        calls.append(args)

    a, b, fixed = leaf(1.0, 2.0), leaf(3.0), Tensor(np.ones(4, np.float32))
    y = record_kernel(np.ones(2, np.float32), kernel, "word", DY, a, 7, fixed, ABSENT, b, a)
    assert y.wants_grad and y.parents == (a, fixed, ABSENT, b, a)
    dy = np.array([5, 6], np.float32)
    y.backward(dy)
    ((word, given, da, beta_a, seven, *rest),) = calls
    assert word == "word" and given is dy and da is a.grad and beta_a == 0.0 and seven == 7
    assert rest[:4] == [None, 0.0, None, 0.0]
    assert rest[4] is b.grad and rest[5] == 0.0
    assert rest[6] is a.grad and rest[7] == 1.0 and len(rest) == 8  # the second time it is added to
    assert da.shape == (2,) and b.grad.shape == (1,)


def test_a_kernel_is_not_recorded_where_nobody_wants_its_gradient():
    fixed = Tensor(np.ones(2, np.float32))
    for y in (record_kernel(fixed.data, print, DY, fixed, ABSENT), record_kernel(fixed.data, print)):
        assert not y.wants_grad and y.step is None and y.parents == ()
    with inference():
        assert record_kernel(fixed.data, print, DY, leaf(1.0)).step is None


def test_a_kernel_that_fails_is_told_and_lets_go_of_what_it_was_given():
    def fail(*args):
        raise KeyError("here")

    x, dy = leaf(1.0), np.ones(1, np.float32)
    y = record_kernel(x.data, fail, DY, x)
    grad, _ = x.slot()
    held = sys.getrefcount(dy), sys.getrefcount(grad)
    with pytest.raises(KeyError, match="here"):
        y.backward(dy)
    assert y.step is not None and y.grad is dy
    y.grad = None
    assert (sys.getrefcount(dy), sys.getrefcount(grad)) == held


def test_a_kernel_s_arguments_are_not_without_end():
    x = leaf(1.0)
    with pytest.raises(TypeError, match="record_kernel: expected at most 64 arguments"):
        record_kernel(x.data, print, *[x] * 40)
    with pytest.raises(TypeError, match="record_kernel: expected data, kernel, arguments...; got 1"):
        record_kernel(x.data)
    got = []
    record_kernel(x.data, lambda *args: got.extend(args), *[x] * 31).backward()  # 62 and the data and the kernel
    assert len(got) == 62


def test_a_slot_says_whether_to_overwrite_or_to_add():
    x = leaf(1.0, 2.0)
    grad, beta = x.slot()
    assert grad is x.grad and grad.shape == (2,) and beta == 0.0
    again, beta = x.slot()
    assert again is grad and beta == 1.0
    x.beta = 0.5  # an average over passes
    assert x.slot()[1] == 0.5 and x.slot()[1] == 1.0
    x.grad = None
    again, beta = x.slot()
    assert again is not grad and beta == 0.0
    assert Tensor(x.data).slot() == (None, 0.0)


def test_copies_stand_alone():
    x = leaf(1.0, 2.0)
    y = x * 3.0
    pickled = (pickle.loads(pickle.dumps(y, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))
    for z in (copy.deepcopy(y), copy.copy(y), *pickled):
        assert z.wants_grad and z.step is None and z.grad is None and z.order > y.order
        np.testing.assert_array_equal(z.data, [3, 6])
    y.backward()
    np.testing.assert_array_equal(x.grad, [3, 3])


def test_a_cycle_is_found_by_the_collector():
    def cycle():
        held = []
        y = record(np.ones(1, np.float32), (leaf(1.0),), lambda dy: held)
        held.append(y)
        return weakref.ref(y)

    gc.disable()
    try:
        seen = cycle()
        assert seen() is not None
        gc.collect()
        assert seen() is None
    finally:
        gc.enable()


def test_memory_returns_without_the_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        middle = ops.exp(x)
        seen = weakref.ref(middle)
        y = (middle * 3.0).sum()
        del middle
        y.backward()
        assert seen() is None
        graph = ops.exp(x) * 2.0
        seen = weakref.ref(graph)
        del graph
        assert seen() is None
    finally:
        gc.enable()


def test_second_backward_is_an_error():
    x = leaf(1.0)
    y = ops.exp(x) * 2.0
    y.backward()
    with pytest.raises(RuntimeError, match="already used"):
        y.backward()


def test_backward_of_a_leaf_is_an_error():
    with pytest.raises(RuntimeError, match="depends on nothing"):
        leaf(1.0).backward()


def test_a_seed_is_not_written_over():
    x, w = (Tensor(np.ones(shape, np.float32), True) for shape in ((1, 3, 3, 1), (2, 2, 1, 2)))
    seed = np.array([1.0, -2.0], np.float32) * np.ones((1, 2, 2, 2), np.float32)
    seed.flags.writeable = False
    before = seed.copy()
    ops.conv2d(x, w, act="sigmoid").backward(seed)  # whose way back begins with its activation, in place
    assert np.array_equal(seed, before) and x.grad.any()


def test_backward_with_a_seed():
    x = leaf(1.0, 2.0)
    y = x * 3.0
    with pytest.raises(ValueError, match=r"seed: expected shape \[2\]; got \[3\]"):
        y.backward(np.ones(3, np.float32))
    seed = np.array([1, 10], np.float32)
    held = sys.getrefcount(seed)
    y.backward(seed)
    np.testing.assert_allclose(x.grad, [3, 30])
    assert sys.getrefcount(seed) == held


def test_inference_records_nothing():
    x = leaf(1.0)
    with inference():
        assert not recording()
        y = x * 2.0
    assert recording()
    assert y.step is None and not y.wants_grad


def in_a_thread(f):
    """What f() gives in a thread of its own."""
    result = []
    thread = threading.Thread(target=lambda: result.append(f()))
    thread.start()
    thread.join()
    return result[0]


def test_inference_ends_the_recording_of_its_own_thread_only():
    x = leaf(1.0)
    with inference():
        assert in_a_thread(recording)
        assert in_a_thread(lambda: (x * 2.0).wants_grad)
        assert not recording()


def test_interleaved_inference_leaves_recording_on():
    here, there = inference(), inference()
    entered, leave = threading.Event(), threading.Event()
    states = []

    def other():
        there.__enter__()
        entered.set()
        leave.wait(10)
        states.append(recording())
        there.__exit__()
        states.append(recording())

    here.__enter__()
    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    here.__exit__()  # the first in is the first out
    states.append(recording())
    leave.set()
    thread.join()
    assert states == [True, False, True]
    assert recording()


def test_a_trace_holds_the_calls_of_its_own_thread_only():
    inner = nn.Tanh()

    class Net(nn.Module):
        def __init__(self):
            self.part = nn.ReLU()

        def forward(self, x):
            in_a_thread(lambda: inner(x))
            return self.part(x)

    assert [type(m).__name__ for _, m, _, _ in Net().trace((3,))] == ["Net", "ReLU"]


def test_a_trace_within_a_trace():
    class Net(nn.Module):
        def __init__(self):
            self.first, self.last = nn.ReLU(), nn.Tanh()

        def forward(self, x):
            self.rows = len(nn.Sequential(nn.GELU()).trace((3,)))
            return self.last(self.first(x))

    net = Net()
    assert [name for name, *_ in net.trace((3,))] == ["", "first", "last"]
    assert net.rows == 2


@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5), np.int64(2), np.array(2.5)])
def test_numbers_on_either_side(number):
    x = leaf(1.0, -4.0)
    values = x.data
    for got, expected in (
        (number + x, number + values),
        (number - x, number - values),
        (number * x, number * values),
        (number / x, number / values),
        (x / number, values / number),
    ):
        assert isinstance(got, Tensor)
        np.testing.assert_allclose(got.data, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "operate", [lambda a, x: a * x, lambda a, x: x * a, lambda a, x: a - x, lambda a, x: x / a, lambda a, x: a + x]
)
@pytest.mark.parametrize("other", [np.ones(2, np.float32), [1.0, 1.0], "two", None])
def test_an_operand_that_is_no_tensor_and_no_number(operate, other):
    with pytest.raises(TypeError, match="y: expected a Tensor or a number; got "):
        operate(other, leaf(1.0, 2.0))


def test_a_tensor_given_twice():
    x = Tensor(np.array([[1, 2], [3, 4]], np.float32), wants_grad=True)
    ops.matmul(x, x).backward()
    ones = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(x.grad, ones @ x.data.T + x.data.T @ ones)
    x.grad = None
    ops.concatenate([x, x]).backward()
    np.testing.assert_array_equal(x.grad, 2 * ones)
    y = ops.dense(x, x)
    with pytest.raises(ValueError, match="overlap"):
        y.backward()


def test_frozen_lets_gradients_through_but_not_in():
    w, x = leaf(2.0), leaf(5.0)
    with frozen([w]):
        with frozen([w]):
            pass
        assert not w.wants_grad  # the inner block restores what it found
        (w * x).backward()
    assert w.wants_grad
    assert w.grad is None
    np.testing.assert_array_equal(x.grad, [2])


def test_detach_cuts():
    x = leaf(2.0)
    y = (x * 3.0).detach() * x
    y.backward()
    np.testing.assert_array_equal(x.grad, [6])


def test_gradients_add_over_passes_until_reset():
    x = leaf(1.0)
    (x * 2.0).backward()
    (x * 3.0).backward()
    np.testing.assert_array_equal(x.grad, [5])


@pytest.mark.parametrize("use", [np.asarray, np.sort, lambda t: np.testing.assert_allclose(t, 1)])
def test_numpy_makes_no_object_of_a_tensor(use):
    with pytest.raises(TypeError, match=r"expected an array; got a Tensor \(its data is one\)"):
        use(Tensor(np.ones(3, np.float32)))


def test_item():
    assert leaf(2.5).item() == 2.5
    with pytest.raises(ValueError, match=r"item: expected a tensor with one element; got shape \[2\]"):
        leaf(1.0, 2.0).item()


def test_a_complex_array_does_not_lose_its_imaginary_part_unasked():
    for make in (fastdl.array, fastdl.tensor):
        with pytest.raises(TypeError, match="expected real numbers; got complex128"):
            make([1j])
    assert fastdl.array([1j], None).dtype == np.complex128


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        ([1.0, 1.0], TypeError, "seed: expected an array; got list"),
        (1.0, TypeError, "seed: expected an array; got float"),
        (Tensor(np.ones(2, np.float32)), TypeError, "seed: expected an array; got Tensor"),
        (np.ones(2), TypeError, "seed: expected float32; got float64"),
        (np.ones(3, np.float32), ValueError, r"seed: expected shape \[2\]; got \[3\]"),
    ],
)
@pytest.mark.parametrize("operate", [lambda x: x * 2.0, ops.exp])
def test_a_seed_that_is_none_is_named(operate, seed, error, message):
    x = leaf(1.0, 2.0)
    with pytest.raises(error, match=message):
        operate(x).backward(seed)
    assert x.grad is None
